package app

import (
	"io"
	"net/http/httptest"
	"strings"
	"testing"

	"example.com/grpc-health-http/internal/settings"
	"example.com/grpc-health-http/test/faults"
)

// faultFlags are the flags of the variables that the fault table sets.
var faultFlags = map[string]string{
	"GRPC_HEALTH_ADDR":            "-grpc-addr",
	"GRPC_HEALTH_CONNECT_TIMEOUT": "-connect-timeout",
	"GRPC_HEALTH_RPC_TIMEOUT":     "-rpc-timeout",
	"GRPC_HEALTH_CONN_MAX_AGE":    "-conn-max-age",
	"GRPC_HEALTH_TLS":             "-grpc-tls",
	"GRPC_HEALTH_CA_CERT":         "-grpc-ca-cert",
	"GRPC_HEALTH_CLIENT_CERT":     "-grpc-client-cert",
	"GRPC_HEALTH_CLIENT_KEY":      "-grpc-client-key",
}

// TestFaults runs the fault table against the handler that all HTTP variants share.
func TestFaults(t *testing.T) {
	t.Parallel()
	faults.Run(t, func(t *testing.T, env ...string) faults.Ask {
		var args []string
		for _, variable := range env { // the test's own environment is no other test's
			name, value, _ := strings.Cut(variable, "=")
			args = append(args, faultFlags[name]+"="+value)
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
