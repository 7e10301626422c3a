package near

import (
	"slices"
	"testing"
)

func TestNames(t *testing.T) {
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
		if got := Names(name, names); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
	for _, row := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"abc", "", 3}, {"", "abc", 3}, {"kitten", "sitting", 3}, {"same", "same", 0}, {"flaw", "lawn", 2}} {
		if got := Distance(row.a, row.b); got != row.want {
			t.Errorf("from %q to %q: %d, want %d", row.a, row.b, got, row.want)
		}
	}
}

func TestChoice(t *testing.T) {
	t.Parallel()
	for want, names := range map[string][]string{`"a"`: {"a"}, `"a" or "b"`: {"a", "b"}, `"a", "b" or "c\n"`: {"a", "b", "c\n"}} {
		if got := Choice(names); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
