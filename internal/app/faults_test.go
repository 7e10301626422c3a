package app

import (
	"io"
	"net/http/httptest"
	"strings"
	"testing"

	"example.com/grpc-health-http/internal/settings"
	"example.com/grpc-health-http/test/faults"
)

// TestFaults runs the fault table against the handler that all HTTP variants share.
func TestFaults(t *testing.T) {
	t.Parallel()
	faults.Run(t, func(t *testing.T, env ...string) faults.Ask {
		var args []string
		for _, variable := range env { // the test's own environment is no other test's
			name, value, _ := strings.Cut(variable, "=")
			args = append(args, "-"+strings.ReplaceAll(strings.ToLower(name), "_", "-")+"="+value)
		}
		s, err := settings.ParseProxy(args, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		a, _ := newApp(t, *s, Platform{})
		server := httptest.NewServer(a.Handler)
		t.Cleanup(server.Close)
		return faults.OverHTTP(server.URL + "/?format=json")
	})
}
