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

func TestNear(t *testing.T) {
	t.Parallel()
	names := []string{"echo.EchoServer", "echo.v1.Echo", "echo.v2.Echo", "payments.Payments", "payments.Refunds", "a", "b"}
	for name, want := range map[string][]string{
		"echo.EchoServr":     {"echo.EchoServer", "echo.v1.Echo", "echo.v2.Echo"},
		"echo.echoserver":    {"echo.EchoServer", "echo.v1.Echo", "echo.v2.Echo"},
		"EchoServer":         {"echo.EchoServer", "echo.v1.Echo", "echo.v2.Echo"},
		"Echo":               {"echo.v1.Echo", "echo.v2.Echo", "echo.EchoServer"},
		"acme.echo.v1.Echo":  {"echo.v1.Echo", "echo.v2.Echo", "echo.EchoServer"},
		"payments/Payments":  {"payments.Payments"},
		"payments.Payment":   {"payments.Payments"},
		"echo.Server":        {"echo.EchoServer"},
		"acme.PaymentsV2":    {"payments.Payments"},
		"something.else.new": nil,
		"c":                  {"a", "b"},
		"":                   {"a", "b"},
	} {
		if got := near(name, names); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
	for _, row := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"abc", "", 3}, {"", "abc", 3}, {"kitten", "sitting", 3}, {"same", "same", 0}, {"flaw", "lawn", 2}} {
		if got := distance(row.a, row.b); got != row.want {
			t.Errorf("from %q to %q: %d, want %d", row.a, row.b, got, row.want)
		}
	}
}

// Near asks on the connection that is there, within the caller's time; where the server does not say, there are no names.
func TestNearOfAServer(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	up.SetStatus("echo.EchoServer", serving)
	up.SetStatus("echo.EchoServer2", notServing)
	up.SetStatus("bad\nname", serving)
	c := checker(t, up.Target(), services("echo.EchoServe"))
	want(t, c.Check(t.Context(), "echo.EchoServe"), health.ServiceUnknown, health.PhaseNone)
	if got := c.Near(t.Context(), "echo.EchoServe"); !slices.Equal(got, []string{"echo.EchoServer", "echo.EchoServer2"}) {
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
	if got := c.Near(ctx, "echo.EchoServe"); got != nil || time.Since(began) > 900*time.Millisecond {
		t.Errorf("%q after %v", got, time.Since(began))
	}
	bare := healthtest.Start(t, healthtest.WithoutHealth())
	if got := checker(t, bare.Target()).Near(t.Context(), "x"); got != nil {
		t.Errorf("%q", got)
	}
}
