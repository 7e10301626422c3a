package check

import (
	"context"
	"crypto/tls"
	"regexp"
	"strings"
	"testing"
	"time"

	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/test/healthtest"
)

func TestProofTellsEverything(t *testing.T) {
	t.Parallel()
	ca := healthtest.NewCA(t)
	up := healthtest.Start(t, healthtest.TLS(ca.ServerTLS(t, healthtest.Expired())))
	c := checker(t, up.Target(), tlsFrom(&tls.Config{RootCAs: ca.Pool()}))
	want(t, c.Check(t.Context(), ""), health.ConnectionFailed, health.PhaseTLS)
	lines := strings.Join(c.proofs[0].Lines(), "\n")
	for _, part := range []string{"dial ", "lookup ", up.Addr(), " connect ", " tls ", "certificate ", `"localhost"`, `"127.0.0.1"`, "failed in tls", "expired"} {
		if !strings.Contains(lines, part) {
			t.Errorf("the proof lacks %q:\n%s", part, lines)
		}
	}

	plain := healthtest.Start(t)
	way := healthtest.Forward(t, plain.Target())
	c = checker(t, way.Addr())
	want(t, c.Check(t.Context(), ""), health.Serving, health.PhaseNone)
	way.SetMode(healthtest.Refuse)
	way.Reset()
	eventually(t, "the loss is noticed, or not yet", func() bool { return c.Check(t.Context(), "").Status == health.ConnectionFailed })
	lines = strings.Join(c.proofs[0].Lines(), "\n")
	if !strings.Contains(lines, "refused") {
		t.Errorf("the proof lacks the cause:\n%s", lines)
	}
}

// A caller whose own deadline comes before the answer gets the proof as far as it had come.
func TestProofAtTheCallersDeadline(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name   string
		change func(*Options)
		mode   healthtest.Mode
		phase  health.Phase
		shows  string
	}{
		{"RPC", func(*Options) {}, healthtest.Pass, health.PhaseRPC, "; RPC 300ms: no answer yet$"},
		{"SETTINGS", func(*Options) {}, healthtest.Silent, health.PhaseHTTP2, "^dial 300ms, lookup 0s; 192.0.2.1:1 not beyond http2 yet$"},
		{"connect", func(*Options) {}, healthtest.Backlogged, health.PhaseConnect, "^dial 300ms, lookup 0s; 192.0.2.1:1 not beyond connect yet$"},
		{"credentials", func(o *Options) { o.Metadata = lateMetadata }, healthtest.Pass, health.PhaseCredentials, "^dial 300ms.*; not beyond credentials yet$"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T, up *healthtest.Upstream, way *healthtest.Memory, c *counted) {
				defer up.Hang("hung")()
				way.SetMode(row.mode)
				ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
				defer cancel()
				v := c.Check(ctx, "hung")
				want(t, v, health.Timeout, row.phase)
				if v.Err == nil || !strings.Contains(v.Err.Error(), "the request's own deadline, 300ms after it arrived") {
					t.Errorf("cause %v", v.Err)
				}
				if len(c.proofs) != 1 || len(c.proofs[0].Attempts) != 1 {
					t.Fatalf("proofs %+v", c.proofs)
				}
				if line := c.proofs[0].Lines()[0]; !regexp.MustCompile(row.shows).MatchString(line) {
					t.Errorf("proof %q, want %q", line, row.shows)
				}
			}, services("hung"), budgets(time.Minute, time.Minute), row.change)
		})
	}
}
