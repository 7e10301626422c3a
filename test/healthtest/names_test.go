package healthtest_test

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"

	"example.com/grpc-health-http/test/healthtest"
)

func TestNameServer(t *testing.T) {
	t.Parallel()
	n := healthtest.StartNameServer(t, "127.0.0.1", "127.0.0.2")
	server, host, _ := strings.Cut(strings.TrimPrefix(n.Target("50051"), "dns://"), "/")
	name, port, err := net.SplitHostPort(host)
	if err != nil || port != "50051" {
		t.Fatalf("target %s", n.Target("50051"))
	}
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "udp", server)
	}}
	if addresses, err := resolver.LookupHost(t.Context(), name); !slices.Equal(addresses, []string{"127.0.0.1", "127.0.0.2"}) {
		t.Errorf("got %v, %v", addresses, err)
	}
	n.SetAddresses()
	var failed *net.DNSError
	if addresses, err := resolver.LookupHost(t.Context(), name); !errors.As(err, &failed) || !failed.IsNotFound {
		t.Errorf("got %v, %v, want that there is no such name", addresses, err)
	}
	n.SetSilent()
	ctx, cancel := context.WithTimeout(t.Context(), notNow)
	defer cancel()
	if addresses, err := resolver.LookupHost(ctx, name); !errors.As(err, &failed) || !failed.IsTimeout {
		t.Errorf("got %v, %v, want silence", addresses, err)
	}
}
