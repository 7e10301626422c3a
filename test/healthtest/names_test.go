package healthtest_test

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

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
	n.SetAddresses("127.0.0.1", "::1")
	for network, want := range map[string]string{"ip4": "127.0.0.1", "ip6": "::1"} {
		if addresses, err := resolver.LookupIP(t.Context(), network, name); len(addresses) != 1 || addresses[0].String() != want {
			t.Errorf("%s: got %v, %v", network, addresses, err)
		}
	}
	n.SetDelay(notNow)
	began := time.Now()
	if _, err := resolver.LookupHost(t.Context(), name); err != nil || time.Since(began) < notNow {
		t.Errorf("got %v after %v, want an answer after %v", err, time.Since(began), notNow)
	}
	n.SetDelay(0)
	n.SetAddresses()
	var failed *net.DNSError
	if addresses, err := resolver.LookupHost(t.Context(), name); !errors.As(err, &failed) || !failed.IsNotFound {
		t.Errorf("got %v, %v, want that there is no such name", addresses, err)
	}
	n.SetFailing()
	if addresses, err := resolver.LookupHost(t.Context(), name); !errors.As(err, &failed) || failed.IsNotFound || !failed.IsTemporary {
		t.Errorf("got %v, %v, want a failure of the server", addresses, err)
	}
	n.SetSilent()
	ctx, cancel := context.WithTimeout(t.Context(), notNow)
	defer cancel()
	if addresses, err := resolver.LookupHost(ctx, name); !errors.As(err, &failed) || !failed.IsTimeout {
		t.Errorf("got %v, %v, want silence", addresses, err)
	}
}
