package target_test

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"example.com/grpc-health-http/internal/target"
	"example.com/grpc-health-http/test/healthtest"
)

// dialled is what grpc-go makes of a target: the addresses that it connects to, as it names them to a dialler, and the :authority that a
// server sees. It connects to up, whatever the target says. Where it refuses the target, there is an error.
func dialled(t *testing.T, up *healthtest.Upstream, text string) (addresses []string, authority string, err error) {
	var mu sync.Mutex
	cc, err := grpc.NewClient(text, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy(), grpc.WithDisableServiceConfig(),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			mu.Lock()
			defer mu.Unlock()
			addresses = append(addresses, address)
			if !strings.HasPrefix(address, "unix:") { // net.Dialer refuses others
				_, port, err := net.SplitHostPort(address)
				if err != nil {
					return nil, err
				}
				if n, err := net.LookupPort("tcp", port); err != nil || n == 0 {
					return nil, errors.New("no such port")
				}
			}
			return net.Dial("tcp", up.Addr())
		}))
	if err != nil {
		return nil, "", err
	}
	defer cc.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := healthpb.NewHealthClient(cc).Check(ctx, &healthpb.HealthCheckRequest{}); err != nil {
		return nil, "", err
	}
	mu.Lock()
	defer mu.Unlock()
	return addresses, up.Last().Authority, nil
}

// A target means what it means to grpc-go: it leads to the same address, with the same :authority, and what grpc-go cannot use is
// refused. Each row that differs says why.
func TestAsGRPC(t *testing.T) {
	t.Parallel()
	ns := healthtest.StartNameServer(t, "127.0.0.1")
	named := strings.TrimSuffix(ns.Target("x"), ":x") // dns://server/upstream.test
	const (
		same    = ""
		refused = "grpc-go refuses it"
	)
	for _, row := range []struct {
		text string
		// differs is the reason for another :authority, or for a target that one of the two refuses.
		differs string
	}{
		{"127.0.0.1:50051", same},
		{"127.0.0.1", same},
		{"[::1]:50051", same},
		{"[::1]", same},
		{"::1", "an IPv6 address in an :authority has brackets"},
		{"::1:8080", "an IPv6 address in an :authority has brackets"},
		{"[::ffff:127.0.0.1]:1", same},
		{"[127.0.0.1]:1", "an IPv4 address in an :authority has no brackets"},
		{"127.0.0.1:https", same},
		{"127.0.0.1:http", same},
		{"127.0.0.1:domain", same},
		{"[::1%25lo]:50051", "a zone goes to nobody else"},
		{"[::1%lo]:50051", "grpc-go wants the escape %25, which nobody knows"},
		{"dns:[::1]:50051", same},
		{"dns:/127.0.0.1:50051", same},
		{"dns:///127.0.0.1", same},
		{"dns:///127.0.0.1:https", same},
		{"dns:///127%2E0.0.1:1", same},
		{"DNS:///127.0.0.1:1", same},
		{"Dns:127.0.0.1:1", same},
		{named + ":50051", same},
		{named, same},
		{named + ":https", same},
		{strings.Replace(named, "upstream.test", "upstream.test.", 1) + ":1", same},
		{"dns://127.0.0.1/127.0.0.1:1", same},
		{"passthrough:///127.0.0.1:50051", same},
		{"passthrough:127.0.0.1:50051", same},
		{"passthrough:/127.0.0.1:50051", same},
		{"passthrough://ignored/127.0.0.1:50051", same},
		{"passthrough:///upstream.test:1", same},
		{"passthrough:///127.0.0.1:https", same},
		{"unix:relative.sock", same},
		{"unix:./relative.sock", same},
		{"unix:run/a%20b", same},
		{"unix:/run/absolute.sock", same},
		{"unix:///run/absolute.sock", same},
		{"unix:///run/a%20b.sock", same},
		{"unix:///run/a b.sock", same},
		{"unix:///run/a:b", same},
		{"UNIX:///run/absolute.sock", same},
		{"unix:@abstract", same},
		{"unix-abstract:name", same},
		{"unix-abstract:a:b", same},
		{"unix-abstract:a/b", same},
		{"unix-abstract:///name", same},
		{"unix-abstract:/name", same},

		{"", refused},
		{"127.0.0.1:", refused},
		{"[::1]:", refused},
		{"::1:50051", refused},
		{"127.0.0.1:no-such-service", refused},
		{"127.0.0.1:0", refused},
		{"127.0.0.1:99999", refused},
		{"https://127.0.0.1:1", refused},
		{"grpc://127.0.0.1:1", refused},
		{"127.0.0.1:1/", refused},
		{"dns:", refused},
		{"dns:///", refused},
		{"dns://127.0.0.1:1", refused},
		{"dns:///127.0.0.1:%zz", refused},
		{"passthrough:///127.0.0.1", refused},
		{"unix://run/s.sock", refused},
		{"unix-abstract://run/s", refused},
		{"unix:///run/100%", refused},
		{"xds:///127.0.0.1:1", refused},
		{"ipv4:127.0.0.1:1", refused},
		{"ipv6:[::1]:1", refused},
		{named + ":x\ny", refused},

		{"dns:///127.0.0.1:1?a=b", "grpc-go ignores a query, which nobody means"},
		{"unix:///run/a?b", "grpc-go ignores a query, which nobody means"},
		{"unix:///run/a#b", "grpc-go ignores a fragment, which nobody means"},
	} {
		t.Run(row.text, func(t *testing.T) {
			t.Parallel()
			up := healthtest.Start(t)
			theirs, authority, err := dialled(t, up, row.text)
			parsed, refusal := target.Parse(row.text)
			if row.differs == refused {
				if err == nil || refusal == nil {
					t.Errorf("grpc-go says %v, Parse %v", err, refusal)
				}
				return
			}
			if (err != nil || refusal != nil) && row.differs == same {
				t.Fatalf("grpc-go says %v, Parse %v", err, refusal)
			}
			if err != nil || refusal != nil {
				return
			}
			if authority != parsed.Authority() && row.differs == same || authority == parsed.Authority() && row.differs != same {
				t.Errorf(":authority %q, grpc-go's is %q; differs: %s", parsed.Authority(), authority, row.differs)
			}
			ours := parsed.Addresses()
			if ours == nil && strings.HasPrefix(row.text, "passthrough:") {
				if theirs[0] != net.JoinHostPort(parsed.Name(), "1") {
					t.Errorf("name %q, grpc-go's dialler got %q", parsed.Name(), theirs)
				}
				return // the dialler looks the name up
			}
			if ours == nil {
				ips, err := parsed.Lookup(t.Context(), "ip4", parsed.Name(), false)
				if err != nil {
					t.Fatal(err)
				}
				for _, ip := range ips {
					ours = append(ours, parsed.At(ip))
				}
			}
			if !slices.ContainsFunc(ours, func(a target.Address) bool { return inGRPC(t, a) == normal(t, theirs[0]) }) {
				t.Errorf("addresses %v, grpc-go's are %q", ours, theirs)
			}
		})
	}
}

// inGRPC is an address as grpc-go names it to a dialler.
func inGRPC(t *testing.T, a target.Address) string {
	if a.Network == "tcp" {
		return normal(t, a.Text)
	}
	path := a.Text
	if name, ok := strings.CutPrefix(path, "\x00"); ok {
		path = "@" + name
	}
	if strings.HasPrefix(path, "/") {
		return "unix://" + path
	}
	return "unix:" + path
}

// normal is an address with the port as a number.
func normal(t *testing.T, address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil || strings.HasPrefix(address, "unix:") {
		return address
	}
	number, err := net.LookupPort("tcp", port)
	if err != nil {
		t.Fatal(err)
	}
	addr := net.TCPAddr{Port: number}
	if ip, err := net.ResolveIPAddr("ip", host); err == nil {
		addr.IP, addr.Zone = ip.IP, ip.Zone
	}
	return addr.String()
}
