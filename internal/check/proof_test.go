package check

import (
	"crypto/tls"
	"strings"
	"testing"

	"example.com/grpc-health-http/internal/healthtest"
)

func TestProofTellsEverything(t *testing.T) {
	t.Parallel()
	ca := healthtest.NewCA(t)
	up := healthtest.Start(t, healthtest.TLS(ca.ServerTLS(t, healthtest.Expired())))
	c := checker(t, up.Target(), tlsFrom(&tls.Config{RootCAs: ca.Pool()}))
	want(t, c.Check(t.Context(), ""), ConnectionFailed, PhaseTLS)
	lines := strings.Join(c.proofs[0].Lines(), "\n")
	for _, part := range []string{"dial ", "lookup ", up.Addr(), " connect ", " tls ", "certificate ", `"localhost"`, `"127.0.0.1"`, "failed in tls", "expired"} {
		if !strings.Contains(lines, part) {
			t.Errorf("the proof lacks %q:\n%s", part, lines)
		}
	}

	plain := healthtest.Start(t)
	way := healthtest.Forward(t, plain.Target())
	c = checker(t, way.Addr())
	want(t, c.Check(t.Context(), ""), Serving, PhaseNone)
	way.SetMode(healthtest.Refuse)
	way.Reset()
	eventually(t, "the loss is noticed, or not yet", func() bool { return c.Check(t.Context(), "").Status == ConnectionFailed })
	lines = strings.Join(c.proofs[0].Lines(), "\n")
	if !strings.Contains(lines, "refused") {
		t.Errorf("the proof lacks the cause:\n%s", lines)
	}
}
