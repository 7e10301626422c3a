package check

import (
	"context"
	"crypto/tls"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"

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
	up := healthtest.Start(t)
	t.Cleanup(up.Hang("hung"))
	asked := up.Target()
	silent := healthtest.Forward(t, up.Target())
	silent.SetMode(healthtest.Silent)
	swallower := healthtest.DropSYNs(t, "127.0.0.1:0")
	for name, row := range map[string]struct {
		target string
		change func(*Options)
		phase  health.Phase
		shows  string
	}{
		"RPC":      {asked, func(*Options) {}, health.PhaseRPC, "; connected; RPC .*: no answer yet$"},
		"SETTINGS": {silent.Addr(), func(*Options) {}, health.PhaseHTTP2, "^dial .*, lookup .*; " + silent.Addr() + " connect .* not beyond http2 yet$"},
		"connect":  {swallower, func(*Options) {}, health.PhaseConnect, "^dial .*, lookup .*; " + swallower + " not beyond connect yet$"},
		"credentials": {asked, func(o *Options) {
			o.Metadata = func(ctx context.Context) (metadata.MD, error) {
				<-ctx.Done()
				return nil, context.Cause(ctx)
			}
		}, health.PhaseCredentials, "^dial .*; not beyond credentials yet$"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := checker(t, row.target, services("hung"), row.change, func(o *Options) { o.ConnectTimeout, o.RPCTimeout = time.Minute, time.Minute })
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			v := c.Check(ctx, "hung")
			want(t, v, health.Timeout, row.phase)
			if v.Err == nil || !strings.Contains(v.Err.Error(), "the request's own deadline") {
				t.Errorf("cause %v", v.Err)
			}
			if len(c.proofs) != 1 || len(c.proofs[0].Attempts) != 1 {
				t.Fatalf("proofs %+v", c.proofs)
			}
			if line := c.proofs[0].Lines()[0]; !regexp.MustCompile(row.shows).MatchString(line) {
				t.Errorf("proof %q, want %q", line, row.shows)
			}
		})
	}
}
