package check

import (
	"context"
	"slices"
	"testing"
	"time"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/test/healthtest"
)

// Names asks on the connection that is there, within the caller's time; where the server does not say, there are no names.
func TestNames(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	up.SetStatus("echo.EchoServer", serving)
	up.SetStatus("echo.EchoServer2", notServing)
	up.SetStatus("bad\nname", serving)
	c := checker(t, up.Target(), services("echo.EchoServe"))
	want(t, c.Check(t.Context(), "echo.EchoServe"), health.ServiceUnknown, health.PhaseNone)
	if got := c.Names(t.Context()); !slices.Equal(got, []string{"echo.EchoServer", "echo.EchoServer2"}) {
		t.Errorf("%q", got)
	}
	if n := up.Connections(); n != 1 {
		t.Errorf("%d connections", n)
	}
	if len(c.proofs) != 1 {
		t.Errorf("%d verdicts were told", len(c.proofs))
	}
	up.HandleList(func(ctx context.Context) (*healthpb.HealthListResponse, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	began := time.Now()
	if got := c.Names(ctx); len(got) > 0 || time.Since(began) > overSockets*4/5 {
		t.Errorf("%q after %v", got, time.Since(began))
	}
	bare := healthtest.Start(t, healthtest.WithoutHealth())
	if got := checker(t, bare.Target()).Names(t.Context()); len(got) > 0 {
		t.Errorf("%q", got)
	}
}
