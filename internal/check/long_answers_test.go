package check

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/test/healthtest"
)

// However much a server says, its answer is RPC_FAILED with a code and a short cause, and no lost connection.
func TestLongAnswers(t *testing.T) {
	t.Parallel()
	var many []string
	for _, name := range strings.Fields("a b c d e f g h") {
		many = append(many, name, strings.Repeat("x", 128<<10))
	}
	for name, fault := range map[string]healthtest.Fault{
		"a message of 300 KB":    healthtest.TrailersOnly(codes.NotFound, strings.Repeat("x", 300<<10)),
		"a message of 2 MB":      healthtest.TrailersOnly(codes.NotFound, strings.Repeat("x", 2<<20)),
		"a megabyte of trailers": healthtest.TrailersWith(append(many, "grpc-status", "5")...),
		"a body of 4 MB":         healthtest.TooLarge(4 << 20),
		"a body of 4 GB":         healthtest.TooLarge(1<<32 - 1),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := healthtest.StartFrontEnd(t, fault)
			c := checker(t, server.Addr(), budgets(30*time.Second, 30*time.Second)) // it is much to read for a busy machine
			for range 3 {
				v := c.Check(t.Context(), "")
				want(t, v, health.RPCFailed, health.PhaseNone)
				if v.Code != codes.ResourceExhausted || !strings.Contains(v.Err.Error(), "larger than") || len(v.Err.Error()) > 1<<10 {
					t.Errorf("%v: %.300q", v.Code, v.Err)
				}
			}
		})
	}
}
