package addresses

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"example.com/grpc-health-http/internal/check"
	"example.com/grpc-health-http/internal/dial"
	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/internal/settings"
	"example.com/grpc-health-http/internal/target"
	"example.com/grpc-health-http/test/healthtest"
)

func TestMain(m *testing.M) { os.Exit(healthtest.RunMany(m)) }

const (
	serving    = healthpb.HealthCheckResponse_SERVING
	notServing = healthpb.HealthCheckResponse_NOT_SERVING
)

// told is what a Trace heard.
type told struct {
	mu       sync.Mutex
	verdicts []health.Verdict
	evidence []health.Evidence
	leaf     *x509.Certificate
	dials    map[string]int
	shared   int
}

func (h *told) trace() *health.Trace {
	return &health.Trace{
		Verdict: func(_ context.Context, v health.Verdict, e health.Evidence) (time.Time, string) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.verdicts, h.evidence = append(h.verdicts, v), append(h.evidence, e)
			return time.Unix(7, 0), "id" + strconv.Itoa(len(h.verdicts))
		},
		PeerCertificate: func(leaf *x509.Certificate) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.leaf = leaf
		},
		Dial: func(result string) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.dials[result]++
		},
		Shared: func() {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.shared++
		},
	}
}

// checker returns a Checker, and what its Trace gets.
func checker(t testing.TB, text, minHealthy string, change ...func(*check.Options)) (*Checker, *told) {
	t.Helper()
	to, err := target.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	heard := &told{dials: make(map[string]int)}
	o := check.Options{Options: dial.Options{Target: to, Trace: heard.trace()}, MaxAge: 10 * time.Second}
	for _, f := range change {
		f(&o)
	}
	c := New(o, (&settings.Upstream{MinHealthyAddresses: minHealthy}).MinHealthy)
	t.Cleanup(c.Close)
	return c, heard
}

// servers starts an upstream on each of the hosts, all on one port.
func servers(t *testing.T, hosts []string, options ...healthtest.Option) (all []*healthtest.Upstream, port string) {
	t.Helper()
	for range 100 {
		all = nil
		listeners, ok := []net.Listener{}, true
		port = "0"
		for _, host := range hosts { // a port that is free on all of them
			l, err := net.Listen("tcp", net.JoinHostPort(host, port))
			if err != nil {
				ok = false
				break
			}
			listeners = append(listeners, l)
			_, port, _ = net.SplitHostPort(l.Addr().String())
		}
		for _, l := range listeners {
			l.Close()
		}
		if !ok {
			continue
		}
		for _, host := range hosts {
			all = append(all, healthtest.Start(t, append(slices.Clone(options), healthtest.Listen("tcp", net.JoinHostPort(host, port)))...))
		}
		return all, port
	}
	t.Fatal("no port is free on all addresses")
	return nil, ""
}

func want(t testing.TB, v health.Verdict, status health.Status, phase health.Phase) {
	t.Helper()
	if v.Status != status || v.Phase != phase {
		t.Errorf("verdict %v, phase %q; want %v, phase %q; cause: %v", v.Status, v.Phase, status, phase, v.Err)
	}
}

// statuses are those of the addresses, by host.
func statuses(v health.Verdict) map[string]health.Status {
	all := make(map[string]health.Status)
	if v.Addresses == nil {
		return all
	}
	for _, a := range v.Addresses.All {
		host, _, _ := net.SplitHostPort(a.Address)
		all[host] = a.Status
	}
	return all
}

// The worst address decides, or whether enough are serving.
func TestWorst(t *testing.T) {
	t.Parallel()
	hosts := []string{"127.0.0.2", "127.0.0.3", "127.0.0.4"}
	up, port := servers(t, hosts)
	up[1].SetStatus("one down", notServing)
	for _, i := range []int{0, 2} {
		up[i].SetStatus("one down", serving)
		up[i].SetStatus("one without", serving)
	}
	up[0].SetStatus("two down", serving)
	up[1].SetStatus("two down", notServing)
	up[2].SetStatus("two down", healthpb.HealthCheckResponse_UNKNOWN)
	for _, u := range up {
		u.SetStatus("all", serving)
	}
	names := healthtest.StartNameServer(t, hosts...)
	for _, row := range []struct {
		service, minHealthy string
		status              health.Status
		serving, needed     int
		cause               string
	}{
		{"all", "", health.Serving, 3, 3, ""},
		{"all", "3", health.Serving, 3, 3, ""},
		{"all", "4", health.NotServing, 3, 4, "4 addresses must be serving, and the name has 3 that can be reached"},
		{"one down", "", health.NotServing, 2, 3, "1 of 3 addresses is not serving: 127.0.0.3:" + port + " NOT_SERVING"},
		{"one down", "3", health.NotServing, 2, 3, "1 of 3 addresses is not serving: 127.0.0.3:" + port + " NOT_SERVING"},
		{"one down", "2", health.Serving, 2, 2, ""},
		{"one down", "66%", health.Serving, 2, 2, ""},
		{"one down", "67%", health.NotServing, 2, 3, "1 of 3 addresses is not serving: "},
		{"one without", "", health.ServiceUnknown, 2, 3, "127.0.0.3:" + port + " SERVICE_UNKNOWN"},
		{"two down", "", health.NotServing, 1, 3, "2 of 3 addresses are not serving: 127.0.0.3:" + port + " NOT_SERVING; 127.0.0.4:" + port + " UNKNOWN"},
		{"two down", "2", health.NotServing, 1, 2, "2 of 3 addresses are not serving, 2 must be serving: "},
		{"two down", "1", health.Serving, 1, 1, ""},
		{"two down", "33%", health.Serving, 1, 1, ""},
		{"two down", "34%", health.NotServing, 1, 2, "2 of 3 addresses are not serving, 2 must be serving: "},
		{"two down", "1%", health.Serving, 1, 1, ""},
		{"nobody's", "1%", health.ServiceUnknown, 0, 1, "3 of 3 addresses are not serving, 1 must be serving: "},
		{"nobody's", "1", health.ServiceUnknown, 0, 1, "3 of 3 addresses are not serving"},
	} {
		c, heard := checker(t, names.Target(port), row.minHealthy)
		v := c.Check(t.Context(), row.service)
		a := v.Addresses
		if v.Status != row.status || v.Phase != "" || v.Service != row.service || a.Serving != row.serving || a.Needed != row.needed || a.Reachable != 3 || len(a.All) != 3 {
			t.Errorf("%q, %q: %v %+v", row.service, row.minHealthy, v.Status, a)
		}
		if row.cause == "" != (v.Err == nil) || v.Err != nil && !strings.Contains(v.Err.Error(), row.cause) {
			t.Errorf("%q, %q: cause %v, want %q", row.service, row.minHealthy, v.Err, row.cause)
		}
		if v.GRPCCode() == "" || v.At.IsZero() || v.Duration <= 0 || !v.Since.Equal(time.Unix(7, 0)) || v.EvidenceID != "id1" || len(heard.verdicts) != 1 {
			t.Errorf("%q, %q: verdict %+v, told of %d", row.service, row.minHealthy, v, len(heard.verdicts))
		}
		for _, one := range a.All {
			if one.Duration <= 0 || one.NoRoute || one.GRPCCode() == "" {
				t.Errorf("%q: %+v", row.service, one)
			}
		}
	}
}

// An address that does not answer as the others do is named with its own cause, and the causes together are within the bound of a cause.
func TestCauses(t *testing.T) {
	t.Parallel()
	hosts := []string{"127.0.0.2", "127.0.0.3"}
	up, port := servers(t, hosts)
	up[1].Stop()
	names := healthtest.StartNameServer(t, hosts...)
	c, heard := checker(t, names.Target(port), "")
	v := c.Check(t.Context(), "")
	want(t, v, health.ConnectionFailed, health.PhaseConnect)
	if said, exact := v.Err.Error(), "1 of 2 addresses is not serving: 127.0.0.3:"+port+" CONNECTION_FAILED: connect: connection refused"; said != exact {
		t.Errorf("cause %q, want %q", said, exact)
	}
	if !errors.Is(v.Err, syscall.ECONNREFUSED) {
		t.Error("the cause has lost its kind")
	}
	lines := heard.evidence[0].Lines()
	if len(lines) == 0 || !strings.HasPrefix(lines[0], "127.0.0.3:"+port+": dial ") || slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, "127.0.0.2") }) {
		t.Errorf("evidence %q", lines)
	}
	var all []string
	for i := range 255 {
		all = append(all, fmt.Sprintf("127.0.1.%d", i+1))
	}
	names.SetAddresses(all...)
	v = c.Check(t.Context(), "")
	want(t, v, health.ConnectionFailed, health.PhaseConnect)
	if said := v.Err.Error(); len(said) > 1<<10 || !strings.HasPrefix(said, "255 of 255 addresses are not serving: 127.0.1.1:") || !strings.HasSuffix(said, "(cut)") {
		t.Errorf("cause of %d bytes: %q", len(said), said)
	}
}

// A name with more addresses than a datagram holds, on sockets: each gets a connection.
func TestMoreThanADatagramHolds(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	var all []string
	for i := range 300 {
		all = append(all, netip.AddrFrom4([4]byte{198, 51, 100 + byte(i/250), byte(i % 250)}).String())
	}
	names := healthtest.StartNameServer(t, all...)
	c, _ := checker(t, names.Target("1"), "", func(o *check.Options) {
		o.ConnectTimeout, o.RPCTimeout, o.MaxAge = time.Minute, time.Minute, time.Minute // a busy machine lets none seem silent
		o.Connect = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, up.Addr())
		}
	})
	for range 2 {
		v := c.Check(t.Context(), "")
		want(t, v, health.Serving, health.PhaseNone)
		if a := v.Addresses; a.Serving != 256 || a.LeftOut != 44 {
			t.Errorf("%d serving, %d reachable, %d left out", a.Serving, a.Reachable, a.LeftOut)
		}
		t.Logf("took %v", v.Duration)
	}
	if up.Connections() < 256 { // a machine that is too busy counts as one that was stopped: then there are more
		t.Errorf("%d connections, want 256", up.Connections())
	}
}

// The cause of an address is as short as its verdict alone would have it, and shorter where there are many.
func TestBrief(t *testing.T) {
	t.Parallel()
	expired := &health.TLSError{Fault: health.CertificateExpired, At: time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC), Err: errors.New("x509: a long sentence")}
	for _, row := range []struct {
		err  error
		most int
		want string
	}{
		{expired, 100, "the server's certificate expired 2026-11-24"},
		{errors.New("dial tcp 192.0.2.1:1: connect: connection refused"), 100, "connect: connection refused"},
		{errors.New("dial tcp 192.0.2.2:1: connect: connection refused"), 100, "dial tcp 192.0.2.2:1: connect: connection refused"},
		{errors.New("no answer to the RPC within 1s"), 9, "no answer…"},
		{errors.New("éééé"), 3, "é…"},
	} {
		if got := brief(health.AddressVerdict{Address: "192.0.2.1:1", Err: row.err}, row.most); got == nil || got.Error() != row.want {
			t.Errorf("%v: %v, want %q", row.err, got, row.want)
		}
	}
	if brief(health.AddressVerdict{}, 100) != nil {
		t.Error("a cause of nothing")
	}
}

// Addresses come and go between checks. Those that are gone are connected to no more.
func TestGrowAndShrink(t *testing.T) {
	t.Parallel()
	hosts := []string{"127.0.0.2", "127.0.0.3", "127.0.0.4", "::1"}
	up, port := servers(t, hosts)
	names := healthtest.StartNameServer(t, hosts[:1]...)
	const age = 50 * time.Millisecond
	c, _ := checker(t, names.Target(port), "", func(o *check.Options) {
		o.MaxAge, o.ConnectTimeout, o.RPCTimeout = age, 10*time.Second, 10*time.Second // a busy machine keeps them
	})
	at := func(n int, addresses ...string) {
		t.Helper()
		names.SetAddresses(addresses...)
		v := c.Check(t.Context(), "")
		want(t, v, health.Serving, health.PhaseNone)
		got := statuses(v)
		for _, a := range addresses {
			if got[a] != health.Serving {
				t.Errorf("%s: %v", a, got)
			}
		}
		if len(got) != n {
			t.Errorf("addresses %v", got)
		}
	}
	at(1, hosts[:1]...)
	at(3, hosts[:3]...)
	at(4, hosts...)
	time.Sleep(2 * age)
	at(2, hosts[2:]...)
	for i := range 2 {
		healthtest.Eventually(t, "the connections to an address that is gone are closed", func() bool { return up[i].OpenConnections() == 0 })
	}
	if n := len(c.known()); n != 2 {
		t.Errorf("%d places, want 2", n)
	}
	up[0].Stop()
	up[1].Stop()
	at(2, hosts[2:]...) // what is gone may be down
	names.SetAddresses(hosts[1:]...)
	v := c.Check(t.Context(), "")
	want(t, v, health.ConnectionFailed, health.PhaseConnect)
	up[1].Restart()
	at(3, hosts[1:]...)
	names.SetAddresses()
	want(t, c.Check(t.Context(), ""), health.ConnectionFailed, health.PhaseDNS)
	c.Close()
	for _, u := range up {
		healthtest.Eventually(t, "all connections are closed", func() bool { return u.OpenConnections() == 0 })
	}
}

// A lookup that fails has the same status, phase and cause as in any other check.
func TestLookupFails(t *testing.T) {
	t.Parallel()
	up, port := servers(t, []string{"127.0.0.2"})
	for _, row := range []struct {
		name   string
		set    func(*healthtest.NameServer)
		status health.Status
		phase  health.Phase
		cause  string
	}{
		{"no such name", func(n *healthtest.NameServer) { n.SetAddresses() }, health.ConnectionFailed, health.PhaseDNS, "no such host"},
		{"a failing name server", func(n *healthtest.NameServer) { n.SetFailing() }, health.ConnectionFailed, health.PhaseDNS, "server misbehaving"},
		{"a silent name server", func(n *healthtest.NameServer) { n.SetSilent() }, health.Timeout, health.PhaseDNS, "not looked up"},
		{"no answer about IPv4", func(n *healthtest.NameServer) {
			n.Lose(func(q dnsmessage.Type) bool { return q == dnsmessage.TypeA })
		}, health.Timeout, health.PhaseDNS, "the IPv4 addresses of the target's host were not looked up"},
		{"no answer about IPv6", func(n *healthtest.NameServer) {
			n.Lose(func(q dnsmessage.Type) bool { return q == dnsmessage.TypeAAAA })
		}, health.Serving, health.PhaseNone, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			names := healthtest.StartNameServer(t, "127.0.0.2")
			row.set(names)
			c, heard := checker(t, names.Target(port), "", func(o *check.Options) { o.ConnectTimeout = 1500 * time.Millisecond })
			v := c.Check(t.Context(), "")
			want(t, v, row.status, row.phase)
			if row.cause == "" != (v.Err == nil) || v.Err != nil && !strings.Contains(v.Err.Error(), row.cause) {
				t.Errorf("cause %v, want %q", v.Err, row.cause)
			}
			if failed := row.status != health.Serving; failed && (heard.dials["dns"] != 1 || len(heard.evidence[0].Lines()) != 1) {
				t.Errorf("dials %v, evidence %q", heard.dials, heard.evidence)
			}
		})
	}
	t.Run("the other family is down", func(t *testing.T) {
		t.Parallel()
		names := healthtest.StartNameServer(t, "127.0.0.2", "127.0.0.3")
		names.Lose(func(q dnsmessage.Type) bool { return q == dnsmessage.TypeAAAA })
		c, _ := checker(t, names.Target(port), "", func(o *check.Options) { o.ConnectTimeout = 1500 * time.Millisecond })
		v := c.Check(t.Context(), "")
		want(t, v, health.ConnectionFailed, health.PhaseConnect)
		if v.Err == nil || !strings.Contains(v.Err.Error(), "the target's IPv6 addresses did not come within 1.5s") {
			t.Errorf("cause %v", v.Err)
		}
	})
	_ = up
}

// The name is what each address proves itself with.
func TestTLS(t *testing.T) {
	t.Parallel()
	hosts := []string{"127.0.0.2", "127.0.0.3", "127.0.0.4"}
	ca, other := healthtest.NewCA(t), healthtest.NewCA(t)
	soon := time.Now().Add(10 * time.Minute)
	up, port := servers(t, hosts, healthtest.TLS(ca.ServerTLS(t, healthtest.DNSNames("upstream.test"))))
	up[1].SetTLS(ca.ServerTLS(t, healthtest.DNSNames("upstream.test"), healthtest.ValidUntil(soon)))
	names := healthtest.StartNameServer(t, hosts...)
	tc := credentials.NewTLS(&tls.Config{RootCAs: ca.Pool()})
	secured := func(o *check.Options) {
		o.ConnectTimeout, o.RPCTimeout = 10*time.Second, 10*time.Second
		o.Credentials = func(context.Context, bool) (credentials.TransportCredentials, error) { return tc, nil }
	}
	c, heard := checker(t, names.Target(port), "", secured)
	for i := range 3 {
		want(t, c.Check(t.Context(), ""), health.Serving, health.PhaseNone)
		if i == 1 { // it is the only one that shows its certificate again
			up[0].Restart()
		}
		heard.mu.Lock()
		if heard.leaf == nil || heard.leaf.NotAfter.Sub(soon).Abs() > time.Minute {
			t.Errorf("the certificate is %+v, want the one that ends first", heard.leaf)
		}
		heard.mu.Unlock()
	}
	for _, u := range up {
		if got := u.Last().Authority; got != "upstream.test:"+port {
			t.Errorf("authority %q", got)
		}
	}
	for name, config := range map[string]*tls.Config{
		"another name":     ca.ServerTLS(t, healthtest.DNSNames("other.test")),
		"the address":      ca.ServerTLS(t, healthtest.IPs("127.0.0.4")),
		"another CA":       other.ServerTLS(t, healthtest.DNSNames("upstream.test")),
		"one that expired": ca.ServerTLS(t, healthtest.DNSNames("upstream.test"), healthtest.Expired()),
	} {
		up[2].SetTLS(config)
		up[2].Restart()
		v := c.Check(t.Context(), "")
		want(t, v, health.ConnectionFailed, health.PhaseTLS)
		if got := statuses(v); got["127.0.0.2"] != health.Serving || got["127.0.0.4"] != health.ConnectionFailed {
			t.Errorf("%s: %v", name, got)
		}
		if sentence := v.Sentence(time.Now()); !strings.HasPrefix(sentence, "2 of 3 addresses are serving. TLS handshake failed.") {
			t.Errorf("%s: %q", name, sentence)
		}
		if !strings.HasPrefix(v.Reason(), "1 of 3 addresses is not serving: 127.0.0.4:") {
			t.Errorf("%s: %q", name, v.Reason())
		}
	}
}

// A target of which nobody looks a name up is one address.
func TestWithoutAName(t *testing.T) {
	t.Parallel()
	tcp, unix := healthtest.Start(t), healthtest.Start(t, healthtest.Unix())
	_, port, _ := net.SplitHostPort(tcp.Addr())
	for text, address := range map[string]string{tcp.Target(): tcp.Addr(), unix.Target(): unix.Addr(), ":" + port: "localhost:" + port} {
		for minHealthy, status := range map[string]health.Status{"": health.Serving, "1": health.Serving, "67%": health.Serving, "2": health.NotServing} {
			c, _ := checker(t, text, minHealthy)
			v := c.Check(t.Context(), "")
			want(t, v, status, health.PhaseNone)
			if len(v.Addresses.All) != 1 || v.Addresses.All[0].Address != address {
				t.Errorf("%s: %+v", text, v.Addresses)
			}
		}
	}
	tcp.Stop()
	c, heard := checker(t, tcp.Target(), "")
	v := c.Check(t.Context(), "")
	want(t, v, health.ConnectionFailed, health.PhaseConnect)
	plain := check.New(c.o)
	defer plain.Close()
	if other := plain.Check(t.Context(), ""); v.Err.Error() != other.Err.Error() || v.Reason() != other.Reason() || v.Sentence(time.Now()) != other.Sentence(time.Now()) {
		t.Errorf("%q, %q; a check says %q, %q", v.Err, v.Sentence(time.Now()), other.Err, other.Sentence(time.Now()))
	}
	if line := heard.evidence[0].Lines()[0]; !strings.HasPrefix(line, "dial ") {
		t.Errorf("evidence %q", line)
	}
}

// A service is as bad in the list as at its worst address; one that an address does not list is unknown there.
func TestList(t *testing.T) {
	t.Parallel()
	hosts := []string{"127.0.0.2", "127.0.0.3"}
	up, port := servers(t, hosts)
	up[0].SetStatus("a", serving)
	up[1].SetStatus("a", serving)
	up[0].SetStatus("b", serving)
	up[1].SetStatus("b", notServing)
	up[1].SetStatus("c", serving)
	names := healthtest.StartNameServer(t, hosts...)
	list := func(c *Checker) string {
		var all []string
		for _, v := range c.List(t.Context()) {
			all = append(all, fmt.Sprintf("%s %v", v.Service, v.Status))
			if v.List != (v.Status == health.ConnectionFailed) || (v.Addresses == nil) != (v.Status == health.Serving && len(all) < 3) && v.Service != "c" {
				t.Errorf("%+v", v)
			}
		}
		return strings.Join(all, ", ")
	}
	every, _ := checker(t, names.Target(port), "")
	one, _ := checker(t, names.Target(port), "1")
	if got, want := list(every), " SERVING, a SERVING, b NOT_SERVING, c SERVICE_UNKNOWN"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got, want := list(one), " SERVING, a SERVING, b SERVING, c SERVING"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := every.Names(t.Context()); !slices.Contains(got, "a") {
		t.Errorf("names %q", got)
	}
	up[0].Stop()
	if got := list(every); got != " CONNECTION_FAILED" {
		t.Errorf("%q", got)
	}
	if got, want := one.List(t.Context()), "b"; len(got) != 4 || got[2].Service != want || got[2].Status != health.ConnectionFailed || got[3].Status != health.Serving {
		t.Errorf("%+v", got)
	}
}

// What a cut list does not have is no worse than what it has.
func TestLongList(t *testing.T) {
	t.Parallel()
	hosts := []string{"127.0.0.2", "127.0.0.3"}
	up, port := servers(t, hosts)
	for i := range 150 {
		up[0].SetStatus(fmt.Sprintf("s%03d", i), serving)
		up[1].SetStatus(fmt.Sprintf("s%03d", 149-i), serving)
	}
	up[1].SetStatus("s149", notServing)
	names := healthtest.StartNameServer(t, hosts...)
	c, _ := checker(t, names.Target(port), "")
	all := c.List(t.Context())
	if len(all) != 100 || all[99].LeftOut == 0 || health.Worst(all) != health.NotServing {
		t.Fatalf("%d verdicts, %d left out, %v", len(all), all[len(all)-1].LeftOut, health.Worst(all))
	}
	for _, v := range all {
		if bad := v.Service == "s149"; bad != (v.Status == health.NotServing) || !bad && v.Status != health.Serving {
			t.Errorf("%s %v", v.Service, v.Status)
		}
	}
}

// memories is a network in memory for each address of a name, in a bubble.
type memories struct {
	byAddress map[string]*healthtest.Memory
	noRoute   map[string]error // what connecting to an address fails with; an error for "udp "+address is for the search of a route
	mu        sync.Mutex
	list      []netip.Addr
	lookups   int
	slow      time.Duration // a lookup takes
	refuses   bool          // an address without a Memory refuses connections; else it says nothing
	open      atomic.Int32
	most      atomic.Int32
}

func (m *memories) options(o *check.Options) {
	o.Connect = func(ctx context.Context, network, address string) (net.Conn, error) {
		if network == "udp" {
			if err := m.noRoute["udp "+address]; err != nil {
				return nil, &net.OpError{Op: "dial", Net: network, Err: err}
			}
			a, b := net.Pipe()
			b.Close()
			return a, nil
		}
		if err := m.noRoute[address]; err != nil {
			return nil, &net.OpError{Op: "dial", Net: network, Err: err}
		}
		if way := m.byAddress[address]; way != nil {
			return way.Connect(ctx, network, address)
		}
		if m.refuses {
			return nil, &net.OpError{Op: "dial", Net: network, Err: syscall.ECONNREFUSED}
		}
		n := m.open.Add(1)
		defer m.open.Add(-1)
		for most := m.most.Load(); n > most && !m.most.CompareAndSwap(most, n); most = m.most.Load() {
		}
		<-ctx.Done()
		return nil, ctx.Err()
	}
	o.Lookup = func(context.Context, string, string, bool) ([]netip.Addr, error) {
		time.Sleep(m.slow)
		m.mu.Lock()
		defer m.mu.Unlock()
		m.lookups++
		return slices.Clone(m.list), nil
	}
}

// bubble runs a test with upstreams in memory at 192.0.2.1, 192.0.2.2 and so on. It fails where a connection or a goroutine is left.
func bubble(t *testing.T, n int, minHealthy string, test func(t *testing.T, m *memories, up []*healthtest.Upstream, c *Checker, heard *told), change ...func(*check.Options)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		m := &memories{byAddress: make(map[string]*healthtest.Memory), noRoute: make(map[string]error)}
		var up []*healthtest.Upstream
		for i := range n {
			a := netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)})
			way := healthtest.NewMemory(t)
			m.list = append(m.list, a)
			m.byAddress[netip.AddrPortFrom(a, 1).String()] = way
			up = append(up, healthtest.Start(t, healthtest.On(way)))
		}
		c, heard := checker(t, "upstream.test:1", minHealthy, append([]func(*check.Options){m.options}, change...)...)
		test(t, m, up, c, heard)
		c.Close()
		synctest.Wait()
		if turns, madeUp := len(c.turns), c.madeUp.Load(); turns != 0 || madeUp != 0 {
			t.Errorf("%d turns and %d of the limit for made-up names are not given back", turns, madeUp)
		}
		for i, u := range up {
			if n := u.OpenConnections(); n > 0 {
				t.Errorf("%d connections to address %d are left", n, i+1)
			}
		}
	})
}

func (m *memories) way(i int) *healthtest.Memory { return m.byAddress[fmt.Sprintf("192.0.2.%d:1", i)] }

func (m *memories) setList(addresses ...string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.list = nil
	for _, a := range addresses {
		m.list = append(m.list, netip.MustParseAddr(a))
	}
}

// An address that swallows everything costs itself alone, and the verdict comes in time.
func TestOneSwallows(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name       string
		minHealthy string
		swallow    func(m *memories)
		status     health.Status
		phase      health.Phase
		took       time.Duration
	}{
		{"new connections", "", func(m *memories) { m.way(2).SetMode(healthtest.Silent); m.way(2).BlackHole() }, health.Timeout, health.PhaseHTTP2, 1250 * time.Millisecond},
		{"SYNs", "", func(m *memories) { m.way(2).SetMode(healthtest.Backlogged); m.way(2).BlackHole() }, health.Timeout, health.PhaseConnect, 1250 * time.Millisecond},
		{"the connection of before", "", func(m *memories) { m.way(2).BlackHole() }, health.Serving, health.PhaseNone, 250 * time.Millisecond},
		{"enough are left", "2", func(m *memories) { m.way(2).SetMode(healthtest.Silent); m.way(2).BlackHole() }, health.Serving, health.PhaseNone, 1250 * time.Millisecond},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, 3, row.minHealthy, func(t *testing.T, m *memories, _ []*healthtest.Upstream, c *Checker, _ *told) {
				want(t, c.Check(t.Context(), ""), health.Serving, health.PhaseNone)
				time.Sleep(time.Millisecond)
				row.swallow(m)
				began := time.Now()
				v := c.Check(t.Context(), "")
				want(t, v, row.status, row.phase)
				if took := time.Since(began); took != row.took || v.Duration != took {
					t.Errorf("took %v, %v; want %v", took, v.Duration, row.took)
				}
				for _, a := range v.Addresses.All {
					if slow := a.Address == "192.0.2.2:1"; !slow && (a.Status != health.Serving || a.Duration != 0) {
						t.Errorf("%+v", a)
					}
				}
			})
		})
	}
}

// The same on sockets, where the peer accepts and says nothing.
func TestOneSwallowsOnSockets(t *testing.T) {
	t.Parallel()
	hosts := []string{"127.0.0.2", "127.0.0.3", "127.0.0.4"}
	up, port := servers(t, hosts)
	way := healthtest.Forward(t, up[2].Addr())
	names := healthtest.StartNameServer(t, hosts...)
	c, _ := checker(t, names.Target(port), "", func(o *check.Options) {
		o.ConnectTimeout, o.RPCTimeout = 2*time.Second, 2*time.Second
		o.Connect = func(ctx context.Context, network, address string) (net.Conn, error) {
			if address == up[2].Addr() {
				address = way.Addr()
			}
			return new(net.Dialer).DialContext(ctx, network, address)
		}
	})
	want(t, c.Check(t.Context(), ""), health.Serving, health.PhaseNone)
	way.SetMode(healthtest.Silent)
	way.Reset()
	began := time.Now()
	v := c.Check(t.Context(), "")
	want(t, v, health.Timeout, health.PhaseHTTP2)
	if took := time.Since(began); took > 14*time.Second { // the times are those of TestOneSwallows; this machine may be busy
		t.Errorf("took %v", took)
	}
	if got := statuses(v); got["127.0.0.2"] != health.Serving || got["127.0.0.3"] != health.Serving || got["127.0.0.4"] != health.Timeout {
		t.Errorf("%v", got)
	}
	way.SetMode(healthtest.Pass)
	want(t, c.Check(t.Context(), ""), health.Serving, health.PhaseNone)
}

// Each address keeps its connection, and all are used again.
func TestConnectionsAreKept(t *testing.T) {
	t.Parallel()
	bubble(t, 3, "", func(t *testing.T, m *memories, _ []*healthtest.Upstream, c *Checker, heard *told) {
		for range 9 {
			want(t, c.Check(t.Context(), ""), health.Serving, health.PhaseNone)
			time.Sleep(time.Second)
		}
		for i := range 3 {
			if n := m.way(i + 1).Dials(); n != 1 {
				t.Errorf("%d dials to address %d", n, i+1)
			}
		}
		time.Sleep(2 * time.Second) // they are older than MaxAge
		want(t, c.Check(t.Context(), ""), health.Serving, health.PhaseNone)
		if n := heard.dials["ok"]; n != 6 {
			t.Errorf("%d dials, want 6", n)
		}
	})
}

// An address has all the time that a check has.
func TestAllTheTime(t *testing.T) {
	t.Parallel()
	bubble(t, 2, "", func(t *testing.T, m *memories, up []*healthtest.Upstream, c *Checker, _ *told) {
		m.way(2).Hold(970 * time.Millisecond)
		up[1].SetDelay("", 990*time.Millisecond)
		v := c.Check(t.Context(), "")
		want(t, v, health.Serving, health.PhaseNone)
		if v.Duration != 1960*time.Millisecond {
			t.Errorf("took %v", v.Duration)
		}
		m.way(2).Reset()
		up[1].SetDelay("", 1100*time.Millisecond)
		v = c.Check(t.Context(), "")
		want(t, v, health.Timeout, health.PhaseRPC)
		if v.Duration > 2*time.Second {
			t.Errorf("took %v", v.Duration)
		}
	})
}

// Callers who come all the time while an address hangs are answered in time, and share the RPCs.
func TestManyCallersWhileOneHangs(t *testing.T) {
	t.Parallel()
	bubble(t, 3, "", func(t *testing.T, m *memories, up []*healthtest.Upstream, c *Checker, heard *told) {
		for _, u := range up {
			u.SetStatus("s", serving)
		}
		want(t, c.Check(t.Context(), "s"), health.Serving, health.PhaseNone)
		release := up[1].Hang("s")
		var callers sync.WaitGroup
		for range 1000 {
			callers.Go(func() {
				began := time.Now()
				v := c.Check(t.Context(), "s")
				if took := time.Since(began); took > 2*time.Second || v.Status != health.Timeout {
					t.Errorf("%v after %v: %v", v.Status, took, v.Err)
				}
				if got := statuses(v); got["192.0.2.1"] != health.Serving || got["192.0.2.3"] != health.Serving || got["192.0.2.2"] != health.Timeout {
					t.Errorf("%v", got)
				}
			})
			time.Sleep(3 * time.Millisecond)
		}
		callers.Wait()
		for i, u := range up {
			if n := u.MaxInFlightFor("s"); n > 8 {
				t.Errorf("%d RPCs at once to address %d", n, i+1)
			}
		}
		if n := len(heard.verdicts); n > 20 || heard.shared < 900 {
			t.Errorf("%d verdicts for 1000 callers, of whom %d shared", n, heard.shared)
		}
		release()
		began := time.Now()
		want(t, c.Check(t.Context(), "s"), health.Serving, health.PhaseNone)
		if took := time.Since(began); took > 250*time.Millisecond {
			t.Errorf("took %v", took)
		}
	}, func(o *check.Options) { o.Services = []string{"s"} })
}

// The first caller after an outage does not wait for the dials of the outage.
func TestPromptAfterAnOutage(t *testing.T) {
	t.Parallel()
	for name, services := range map[string][]string{"configured": nil, "made up": {"another"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			promptAfterAnOutage(t, services)
		})
	}
}

func promptAfterAnOutage(t *testing.T, services []string) {
	bubble(t, 2, "", func(t *testing.T, m *memories, _ []*healthtest.Upstream, c *Checker, _ *told) {
		m.way(2).SetMode(healthtest.Silent)
		var callers sync.WaitGroup
		for range 12 {
			callers.Go(func() { c.Check(t.Context(), "") })
			time.Sleep(30 * time.Millisecond)
		}
		m.way(2).SetMode(healthtest.Pass)
		began := time.Now()
		want(t, c.Check(t.Context(), ""), health.Serving, health.PhaseNone)
		if took := time.Since(began); took > 150*time.Millisecond {
			t.Errorf("took %v", took)
		}
		callers.Wait()
	}, func(o *check.Options) { o.Services = services })
}

// A server that is slow, and a short time to connect: those who come while the first RPCs are in progress are served by one that begins in time for
// them.
func TestSlowServerUnderManyCallers(t *testing.T) {
	t.Parallel()
	for _, connect := range []time.Duration{900 * time.Millisecond, 1500 * time.Millisecond, 3 * time.Second} {
		t.Run(connect.String(), func(t *testing.T) {
			t.Parallel()
			bubble(t, 2, "", func(t *testing.T, m *memories, up []*healthtest.Upstream, c *Checker, _ *told) {
				for _, u := range up {
					u.SetStatus("s", serving)
				}
				want(t, c.Check(t.Context(), "s"), health.Serving, health.PhaseNone)
				up[0].SetDelay("s", 2400*time.Millisecond)
				up[1].SetDelay("s", 2900*time.Millisecond)
				var callers sync.WaitGroup
				for range 500 {
					time.Sleep(12 * time.Millisecond)
					callers.Go(func() { want(t, c.Check(t.Context(), "s"), health.Serving, health.PhaseNone) })
				}
				callers.Wait()
				for _, u := range up {
					if n := u.MaxInFlightFor("s"); n > 8 {
						t.Errorf("%d RPCs at once", n)
					}
				}
			}, func(o *check.Options) {
				o.Services, o.ConnectTimeout, o.RPCTimeout = []string{"s"}, connect, 3*time.Second
			})
		})
	}
}

// A verdict is of RPCs to addresses that were looked up after the caller had arrived.
func TestFresh(t *testing.T) {
	t.Parallel()
	bubble(t, 2, "", func(t *testing.T, m *memories, up []*healthtest.Upstream, c *Checker, _ *told) {
		for _, u := range up {
			u.SetStatus("s", serving)
		}
		up[0].SetDelay("s", 20*time.Millisecond)
		for range 20 {
			m.setList("192.0.2.1")
			up[0].SetStatus("s", serving)
			var before sync.WaitGroup
			before.Go(func() { c.Check(t.Context(), "s") })
			time.Sleep(5 * time.Millisecond)
			m.setList("192.0.2.1", "192.0.2.2")
			var later sync.WaitGroup
			for range 10 {
				later.Go(func() {
					if v := c.Check(t.Context(), "s"); len(v.Addresses.All) != 2 {
						t.Errorf("an answer of before: %+v", v.Addresses)
					}
				})
			}
			before.Wait()
			later.Wait()
		}
		if m.lookups > 2*2*20 {
			t.Errorf("%d lookups", m.lookups)
		}
	})
}

// An address without a route is not there. One that a router, or the address itself, cannot be reached at is.
func TestNoRoute(t *testing.T) {
	t.Parallel()
	const six = "[2001:db8::1]:1"
	for _, row := range []struct {
		name      string
		tcp, udp  error
		addresses []string
		status    health.Status
		noRoute   bool
		cause     string
	}{
		{"no IPv6", syscall.ENETUNREACH, syscall.ENETUNREACH, []string{"192.0.2.1", "2001:db8::1"}, health.Serving, true, ""},
		{"IPv6 is switched off", syscall.EADDRNOTAVAIL, syscall.EADDRNOTAVAIL, []string{"192.0.2.1", "2001:db8::1"}, health.Serving, true, ""},
		{"a kernel without IPv6", syscall.EAFNOSUPPORT, syscall.EAFNOSUPPORT, []string{"192.0.2.1", "2001:db8::1"}, health.Serving, true, ""},
		{"a router knows no way", syscall.ENETUNREACH, nil, []string{"192.0.2.1", "2001:db8::1"}, health.ConnectionFailed, false, "1 of 2 addresses is not serving: " + six},
		{"no ports are left", syscall.EADDRNOTAVAIL, nil, []string{"192.0.2.1", "2001:db8::1"}, health.ConnectionFailed, false, "1 of 2 addresses is not serving: " + six},
		{"the host is away", syscall.EHOSTUNREACH, syscall.EHOSTUNREACH, []string{"192.0.2.1", "2001:db8::1"}, health.ConnectionFailed, false, "no route to host"},
		{"refused", syscall.ECONNREFUSED, nil, []string{"192.0.2.1", "2001:db8::1"}, health.ConnectionFailed, false, "connection refused"},
		{"none at all", syscall.ENETUNREACH, syscall.ENETUNREACH, []string{"2001:db8::1"}, health.ConnectionFailed, true, "this machine has no route to any address of the name: " + six},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, 1, "", func(t *testing.T, m *memories, _ []*healthtest.Upstream, c *Checker, _ *told) {
				m.noRoute[six] = row.tcp
				if row.udp != nil {
					m.noRoute["udp "+six] = row.udp
				}
				m.setList(row.addresses...)
				for range 2 {
					v := c.Check(t.Context(), "")
					phase := health.PhaseConnect
					if row.status == health.Serving {
						phase = health.PhaseNone
					}
					want(t, v, row.status, phase)
					last := v.Addresses.All[len(v.Addresses.All)-1]
					if last.NoRoute != row.noRoute || last.NoRoute && last.Address != six || (v.Addresses.Reachable == len(row.addresses)) == row.noRoute {
						t.Errorf("%+v", v.Addresses)
					}
					if row.cause != "" && (v.Err == nil || !strings.Contains(v.Err.Error(), row.cause)) {
						t.Errorf("cause %v, want %q", v.Err, row.cause)
					}
				}
			})
		})
	}
	// The route is lost, and found again.
	bubble(t, 2, "", func(t *testing.T, m *memories, _ []*healthtest.Upstream, c *Checker, heard *told) {
		want(t, c.Check(t.Context(), ""), health.Serving, health.PhaseNone)
		m.way(2).Reset()
		m.noRoute["192.0.2.2:1"], m.noRoute["udp 192.0.2.2:1"] = syscall.ENETUNREACH, syscall.ENETUNREACH
		for range 3 {
			v := c.Check(t.Context(), "")
			want(t, v, health.Serving, health.PhaseNone)
			if v.Addresses.Reachable != 1 {
				t.Errorf("%+v", v.Addresses)
			}
		}
		if n := heard.dials["connect"]; n > 2 {
			t.Errorf("%d dials without a route", n)
		}
		delete(m.noRoute, "192.0.2.2:1")
		delete(m.noRoute, "udp 192.0.2.2:1")
		v := c.Check(t.Context(), "")
		want(t, v, health.Serving, health.PhaseNone)
		if v.Addresses.Reachable != 2 || v.Addresses.Serving != 2 {
			t.Errorf("%+v", v.Addresses)
		}
	})
}

// As this machine is: where it has no route to IPv6 addresses, they are not there.
func TestNoRouteHere(t *testing.T) {
	t.Parallel()
	if conn, err := net.Dial("udp", "[2001:db8::1]:1"); err == nil {
		conn.Close()
		t.Skip("this machine has a route to IPv6 addresses")
	}
	_, port := servers(t, []string{"127.0.0.2"})
	names := healthtest.StartNameServer(t, "127.0.0.2", "2001:db8::1")
	c, heard := checker(t, names.Target(port), "")
	v := c.Check(t.Context(), "")
	want(t, v, health.Serving, health.PhaseNone)
	if a := v.Addresses; a.Reachable != 1 || len(a.All) != 2 || !a.All[1].NoRoute || heard.dials["connect"] != 0 {
		t.Errorf("%+v, dials %v", a, heard.dials)
	}
}

// However many addresses a name has, few are checked at a time, and 256 in all. The answer says which could not be checked.
func TestManyAddresses(t *testing.T) {
	t.Parallel()
	skipInRace(t)
	addresses := func(n int) (all []string) {
		for i := range n {
			all = append(all, netip.AddrFrom4([4]byte{198, 51, byte(100 + i/250), byte(i % 250)}).String())
		}
		return all
	}
	count := func(v health.Verdict) map[health.Status]int {
		all := make(map[health.Status]int)
		for _, a := range v.Addresses.All {
			all[a.Status]++
		}
		return all
	}
	t.Run("all hang", func(t *testing.T) {
		t.Parallel()
		bubble(t, 0, "", func(t *testing.T, m *memories, _ []*healthtest.Upstream, c *Checker, _ *told) {
			m.setList(addresses(300)...)
			began := time.Now()
			v := c.Check(t.Context(), "")
			want(t, v, health.Timeout, health.PhaseConnect)
			if took := time.Since(began); took > 2*time.Second {
				t.Errorf("took %v", took)
			}
			if n := m.most.Load(); n != atOnce {
				t.Errorf("%d at once, want %d", n, atOnce)
			}
			got := count(v)
			if v.Addresses.LeftOut != 44 || len(v.Addresses.All) != 256 || got[health.Timeout] < 32 || got[health.Timeout] > 64 || got[health.Timeout]+got[health.Overloaded] != 256 {
				t.Errorf("%v, %d left out", got, v.Addresses.LeftOut)
			}
			if !strings.HasPrefix(v.Err.Error(), "256 of 256 addresses are not serving: 198.51.") || len(v.Err.Error()) > 1<<10 {
				t.Errorf("cause %v", v.Err)
			}
		})
	})
	t.Run("in whatever order they come", func(t *testing.T) {
		t.Parallel()
		bubble(t, 0, "", func(t *testing.T, m *memories, _ []*healthtest.Upstream, c *Checker, _ *told) {
			m.refuses = true
			list := addresses(300)
			var before []string
			for range 2 {
				m.setList(list...)
				var now []string
				for _, a := range c.Check(t.Context(), "").Addresses.All {
					now = append(now, a.Address)
				}
				slices.Sort(now)
				if before != nil && !slices.Equal(now, before) {
					t.Error("other addresses than before")
				}
				before = now
				slices.Reverse(list)
			}
		})
	})
	t.Run("those that hung come last", func(t *testing.T) {
		t.Parallel()
		bubble(t, 10, "10", func(t *testing.T, m *memories, _ []*healthtest.Upstream, c *Checker, _ *told) {
			m.setList(append(addresses(0), append(hangers(100), "192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "192.0.2.5", "192.0.2.6", "192.0.2.7", "192.0.2.8", "192.0.2.9", "192.0.2.10")...)...)
			for range 3 {
				c.Check(t.Context(), "")
			}
			v := c.Check(t.Context(), "")
			want(t, v, health.Serving, health.PhaseNone)
			if v.Addresses.Serving != 10 {
				t.Errorf("%v", count(v))
			}
		})
	})
	t.Run("IPv4 and IPv6 together", func(t *testing.T) {
		t.Parallel()
		bubble(t, 0, "", func(t *testing.T, m *memories, _ []*healthtest.Upstream, c *Checker, _ *told) {
			m.refuses = true
			all := addresses(200)
			for i := range 200 {
				all = append(all, fmt.Sprintf("2001:db8::%x", i+1))
			}
			m.setList(all...)
			if v := c.Check(t.Context(), ""); len(v.Addresses.All) != 256 || v.Addresses.LeftOut != 144 {
				t.Errorf("%d, %d left out", len(v.Addresses.All), v.Addresses.LeftOut)
			}
		})
	})
}

// skipInRace skips a test in which dozens of dials hang: so many timers of a bubble can crash the race detector (https://github.com/golang/go/issues/78156).
func skipInRace(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector crashes when many timers of a bubble fire at once")
	}
}

// hangers are addresses that hang, and come first in the order of addresses.
func hangers(n int) (all []string) {
	for i := range n {
		all = append(all, fmt.Sprintf("10.0.0.%d", i+1))
	}
	return all
}

// The addresses of an upstream are one target for the limit of dials: they leave others their turns, and those without a turn are OVERLOADED.
func TestLimitOfDials(t *testing.T) {
	t.Parallel()
	skipInRace(t)
	process := make(chan *check.Process, 1)
	bubble(t, 1, "", func(t *testing.T, m *memories, _ []*healthtest.Upstream, c *Checker, _ *told) {
		m.setList(hangers(40)...)
		shared := <-process
		o := c.o
		o.Process, o.Lookup, o.Trace = shared, nil, nil
		o.Target, _ = target.Parse("192.0.2.1:1")
		other := check.New(o)
		defer other.Close()
		defer shared.Close()
		var callers sync.WaitGroup
		callers.Go(func() {
			v := c.Check(t.Context(), "")
			want(t, v, health.Timeout, health.PhaseConnect)
			got := make(map[health.Status]int)
			for _, a := range v.Addresses.All {
				got[a.Status]++
			}
			if got[health.Timeout] < 4 || got[health.Overloaded] < 20 || got[health.Timeout]+got[health.Overloaded] != 40 {
				t.Errorf("%v", got)
			}
		})
		time.Sleep(10 * time.Millisecond)
		began := time.Now()
		want(t, other.Check(t.Context(), ""), health.Serving, health.PhaseNone)
		if took := time.Since(began); took > 0 {
			t.Errorf("another target waited %v", took)
		}
		callers.Wait()
	}, func(o *check.Options) {
		o.Process = check.NewProcess(nil, 8, 0)
		process <- o.Process
	})
}

// A check that began too late to have its time is no failure of the address.
func TestBeganTooLate(t *testing.T) {
	t.Parallel()
	skipInRace(t)
	bubble(t, 1, "", func(t *testing.T, m *memories, up []*healthtest.Upstream, c *Checker, _ *told) {
		up[0].SetDelay("", 900*time.Millisecond) // and the time for the RPC is 1 s
		m.setList(append(hangers(64), "192.0.2.1")...)
		v := c.Check(t.Context(), "")
		want(t, v, health.Timeout, health.PhaseConnect)
		if got := statuses(v)["192.0.2.1"]; got != health.Overloaded {
			t.Errorf("%v", got)
		}
		m.setList("192.0.2.1")
		want(t, c.Check(t.Context(), ""), health.Serving, health.PhaseNone)
	})
}

// Names that callers make up take no more RPCs than they may, however many addresses there are.
func TestMadeUpNames(t *testing.T) {
	t.Parallel()
	bubble(t, 4, "", func(t *testing.T, m *memories, up []*healthtest.Upstream, c *Checker, _ *told) {
		want(t, c.Check(t.Context(), ""), health.Serving, health.PhaseNone)
		var releases []func()
		for i := range 30 {
			for _, u := range up {
				u.SetStatus(strconv.Itoa(i), serving)
				releases = append(releases, u.Hang(strconv.Itoa(i)))
			}
		}
		var overloaded atomic.Int32
		var callers sync.WaitGroup
		for i := range 30 {
			callers.Go(func() {
				began := time.Now()
				if v := c.Check(t.Context(), strconv.Itoa(i)); v.Status == health.Overloaded && time.Since(began) == 0 {
					overloaded.Add(1)
				}
			})
		}
		synctest.Wait()
		if n := up[0].InFlight() + up[1].InFlight() + up[2].InFlight() + up[3].InFlight(); n != 40 {
			t.Errorf("%d RPCs in progress, want 40", n)
		}
		want(t, c.Check(t.Context(), ""), health.Serving, health.PhaseNone)
		for _, release := range releases {
			release()
		}
		callers.Wait()
		if n := overloaded.Load(); n != 20 {
			t.Errorf("%d of 30 were refused, want 20", n)
		}
	}, func(o *check.Options) { o.MaxConcurrent = 40 })
}

// However many services hang at however many addresses, the checks of addresses in progress are bounded, and every caller is answered in time.
func TestAllServicesHang(t *testing.T) {
	t.Parallel()
	skipInRace(t)
	services := []string{"a", "b", "c", "d", "e"}
	bubble(t, 0, "", func(t *testing.T, m *memories, _ []*healthtest.Upstream, c *Checker, _ *told) {
		if cap(c.turns) != maxTurns {
			t.Errorf("%d turns", cap(c.turns))
		}
		const turns = 2 * atOnce
		c.turns = make(chan struct{}, turns)
		m.setList(hangers(40)...)
		m.slow = time.Millisecond
		var callers sync.WaitGroup
		got := make(map[health.Status]int)
		began := time.Now()
		callers.Go(func() {
			for _, v := range health.All(t.Context(), c.Check, services) {
				got[v.Status]++
			}
		})
		time.Sleep(500 * time.Millisecond)
		if n := len(c.turns); n != turns {
			t.Errorf("%d at once, want %d", n, turns)
		}
		callers.Wait()
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("took %v", took)
		}
		// A service of which the first checks had few turns may share them with another one.
		if got[health.Timeout] < 2 || got[health.Overloaded] < 1 || got[health.Timeout]+got[health.Overloaded] != len(services) {
			t.Errorf("%v", got)
		}
	}, func(o *check.Options) { o.Services = services })
}

// A caller who leaves, or has chosen a short deadline, says nothing about the upstream; the platform's deadline does.
func TestCallersWhoLeave(t *testing.T) {
	t.Parallel()
	bubble(t, 2, "1", func(t *testing.T, m *memories, up []*healthtest.Upstream, c *Checker, heard *told) {
		for _, u := range up {
			u.SetStatus("s", serving)
		}
		release := up[1].Hang("s")
		for _, cause := range []error{health.ErrCallerDeadline, context.DeadlineExceeded} {
			ctx, cancel := context.WithTimeoutCause(t.Context(), 300*time.Millisecond, cause)
			began := time.Now()
			v := c.Check(ctx, "s")
			cancel()
			if took := time.Since(began); took != 300*time.Millisecond || v.Status != health.Timeout && v.Status != health.Serving {
				t.Errorf("%v after %v", v.Status, took)
			}
			if own := errors.Is(v.Err, health.ErrCallerDeadline); own != (cause == health.ErrCallerDeadline) || own != v.At.IsZero() {
				t.Errorf("%v: %+v", cause, v)
			}
			time.Sleep(2 * time.Second)
		}
		if n := len(heard.verdicts); n != 1 || heard.verdicts[0].Status != health.Timeout {
			t.Errorf("told of %+v", heard.verdicts)
		}
		release()
	}, func(o *check.Options) { o.Services = []string{"s"} })
}

// A Checker that is closed while it checks leaves nothing.
func TestCloseDuringACheck(t *testing.T) {
	t.Parallel()
	bubble(t, 3, "", func(t *testing.T, m *memories, up []*healthtest.Upstream, c *Checker, _ *told) {
		for _, u := range up {
			u.SetDelay("", 100*time.Millisecond)
		}
		m.setList("192.0.2.1", "192.0.2.2")
		var callers sync.WaitGroup
		callers.Go(func() { want(t, c.Check(t.Context(), ""), health.Serving, health.PhaseNone) })
		time.Sleep(50 * time.Millisecond)
		c.Close()
		callers.Wait()
		m.setList("192.0.2.1", "192.0.2.3")
		want(t, c.Check(t.Context(), ""), health.Serving, health.PhaseNone) // one that came too late
		synctest.Wait()
		if n := up[2].OpenConnections(); n > 0 {
			t.Errorf("%d connections are left", n)
		}
	})
}
