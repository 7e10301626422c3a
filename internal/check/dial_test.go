package check

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"

	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/test/healthtest"
)

// tlsFrom uses a client configuration as it is.
func tlsFrom(config *tls.Config) func(*Options) {
	tc := credentials.NewTLS(config)
	return func(o *Options) {
		o.Credentials = func(context.Context, bool) (credentials.TransportCredentials, error) {
			return tc, nil
		}
	}
}

// short budgets, for what can only end by time-out.
func brief(o *Options) { o.ConnectTimeout, o.RPCTimeout = 300*time.Millisecond, 300*time.Millisecond }

func TestTLSRightAndWrong(t *testing.T) {
	t.Parallel()
	ca, otherCA := healthtest.NewCA(t), healthtest.NewCA(t)
	trust := func() *tls.Config { return &tls.Config{RootCAs: ca.Pool()} }
	client := func(l *healthtest.Leaf) *tls.Config {
		c := trust()
		c.Certificates = []tls.Certificate{l.TLS}
		return c
	}
	server := func(options ...healthtest.LeafOption) healthtest.Option {
		return healthtest.TLS(ca.ServerTLS(t, options...))
	}
	name := func(n string) func(*Options) { return func(o *Options) { o.ServerName = n } }
	none := func(*Options) {}
	old := ca.ServerTLS(t)
	old.MaxVersion = tls.VersionTLS11
	old.MinVersion = tls.VersionTLS10
	mutual12 := ca.MutualTLS(t)
	mutual12.MaxVersion = tls.VersionTLS12
	for _, row := range []struct {
		name    string
		server  []healthtest.Option
		client  *tls.Config // nil is plaintext
		change  func(*Options)
		status  health.Status
		phases  []health.Phase
		cause   string
		showing bool // the evidence holds the certificate
	}{
		{"right", []healthtest.Option{server()}, trust(), none, health.Serving, []health.Phase{health.PhaseNone}, "", false},
		{"right by name", []healthtest.Option{server(healthtest.DNSNames("grpc.test"))}, trust(), name("grpc.test"), health.Serving, []health.Phase{health.PhaseNone}, "", false},
		{"right, mutual", []healthtest.Option{healthtest.TLS(ca.MutualTLS(t))}, client(ca.Client(t)), none, health.Serving, []health.Phase{health.PhaseNone}, "", false},
		{"right, unverified", []healthtest.Option{server(healthtest.Expired())}, &tls.Config{InsecureSkipVerify: true}, none, health.Serving, []health.Phase{health.PhaseNone}, "", false},
		{"wrong CA", []healthtest.Option{server()}, &tls.Config{RootCAs: otherCA.Pool()}, none, health.ConnectionFailed, []health.Phase{health.PhaseTLS}, "unknown authority", true},
		{"expired", []healthtest.Option{server(healthtest.Expired())}, trust(), none, health.ConnectionFailed, []health.Phase{health.PhaseTLS}, "expired", true},
		{"not yet valid", []healthtest.Option{server(healthtest.NotYetValid())}, trust(), none, health.ConnectionFailed, []health.Phase{health.PhaseTLS}, "not yet valid", true},
		{"host mismatch", []healthtest.Option{server(healthtest.DNSNames("other.test"))}, trust(), none, health.ConnectionFailed, []health.Phase{health.PhaseTLS}, "127.0.0.1", true},
		{"name mismatch", []healthtest.Option{server()}, trust(), name("grpc.test"), health.ConnectionFailed, []health.Phase{health.PhaseTLS}, "grpc.test", true},
		// Under TLS 1.3 a reset can overtake the alert.
		{"missing client certificate", []healthtest.Option{healthtest.TLS(ca.MutualTLS(t))}, trust(), none, health.ConnectionFailed, []health.Phase{health.PhaseTLS, health.PhaseHTTP2}, "", true},
		{"missing client certificate, TLS 1.2", []healthtest.Option{healthtest.TLS(mutual12)}, trust(), none, health.ConnectionFailed, []health.Phase{health.PhaseTLS}, "", false},
		{"client certificate of another CA", []healthtest.Option{healthtest.TLS(ca.MutualTLS(t))}, client(otherCA.Client(t)), none, health.ConnectionFailed, []health.Phase{health.PhaseTLS, health.PhaseHTTP2}, "", true},
		{"TLS to plaintext", nil, trust(), none, health.ConnectionFailed, []health.Phase{health.PhaseTLS}, "", false},
		{"plaintext to TLS", []healthtest.Option{server()}, nil, none, health.ConnectionFailed, []health.Phase{health.PhaseHTTP2}, "TLS", false},
		{"no ALPN", []healthtest.Option{server(), healthtest.WithoutALPN()}, trust(), none, health.ConnectionFailed, []health.Phase{health.PhaseTLS}, "ALPN", false},
		{"TLS 1.1", []healthtest.Option{healthtest.TLS(old)}, trust(), none, health.ConnectionFailed, []health.Phase{health.PhaseTLS}, "", false},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			up := healthtest.Start(t, row.server...)
			change := []func(*Options){row.change}
			if row.client != nil {
				change = append(change, tlsFrom(row.client))
			}
			c := checker(t, up.Target(), change...)
			v := c.Check(t.Context(), "")
			ok := false
			for _, p := range row.phases {
				ok = ok || v.Phase == p
			}
			if v.Status != row.status || !ok {
				t.Fatalf("%v in phase %q, want %v in %q; cause: %v", v.Status, v.Phase, row.status, row.phases, v.Err)
			}
			if row.status == health.Serving {
				return
			}
			if v.Err == nil || !strings.Contains(v.Err.Error(), row.cause) || strings.Contains(v.Err.Error(), "deadline") {
				t.Errorf("cause %v, want one with %q", v.Err, row.cause)
			}
			if n := c.dials.Load(); n != 1 && c.retried("frozen") == 0 { // a busy machine may have stopped this process
				t.Errorf("%d dials", n)
			}
			if shown := c.proofs[0].Attempts[0].Dial.Addresses[0].Certificate != nil; row.showing && !shown {
				t.Error("the evidence does not hold the certificate that the server showed")
			}
			t.Log(v.Err)
		})
	}
}

func TestBrokenWaysIn(t *testing.T) {
	t.Parallel()
	mode := func(m healthtest.Mode) string {
		way := healthtest.Forward(t, "")
		way.SetMode(m)
		return way.Addr()
	}
	silent := healthtest.StartNameServer(t)
	silent.SetSilent()
	withTLS := tlsFrom(&tls.Config{InsecureSkipVerify: true})
	none := func(*Options) {}
	for _, row := range []struct {
		name, target string
		change       func(*Options)
		status       health.Status
		phases       []health.Phase
	}{
		{"refused", mode(healthtest.Refuse), none, health.ConnectionFailed, []health.Phase{health.PhaseConnect}},
		{"no such socket", "unix://" + t.TempDir() + "/none", none, health.ConnectionFailed, []health.Phase{health.PhaseConnect}},
		{"silent", mode(healthtest.Silent), brief, health.Timeout, []health.Phase{health.PhaseHTTP2}},
		{"silent, TLS", mode(healthtest.Silent), func(o *Options) { brief(o); withTLS(o) }, health.Timeout, []health.Phase{health.PhaseTLS}},
		{"reset on accept", mode(healthtest.ResetOnAccept), none, health.ConnectionFailed, []health.Phase{health.PhaseConnect, health.PhaseHTTP2}},
		{"closed on the first bytes", mode(healthtest.CloseOnFirstBytes), none, health.ConnectionFailed, []health.Phase{health.PhaseHTTP2}},
		{"closed on the first bytes, TLS", mode(healthtest.CloseOnFirstBytes), withTLS, health.ConnectionFailed, []health.Phase{health.PhaseTLS}},
		{"garbage", mode(healthtest.Garbage), none, health.ConnectionFailed, []health.Phase{health.PhaseHTTP2}},
		{"garbage, TLS", mode(healthtest.Garbage), withTLS, health.ConnectionFailed, []health.Phase{health.PhaseTLS}},
		{"HTTP/1", mode(healthtest.HTTP1), none, health.ConnectionFailed, []health.Phase{health.PhaseHTTP2}},
		{"no such name", healthtest.StartNameServer(t).Target("50051"), none, health.ConnectionFailed, []health.Phase{health.PhaseDNS}},
		{"silent name server", silent.Target("50051"), brief, health.Timeout, []health.Phase{health.PhaseDNS}},
		{"full back-log", healthtest.DropSYNs(t, "127.0.0.1:0"), brief, health.Timeout, []health.Phase{health.PhaseConnect}},
		{"no credentials", mode(healthtest.Pass), func(o *Options) {
			o.Credentials = func(context.Context, bool) (credentials.TransportCredentials, error) {
				return nil, errors.New("torn")
			}
		}, health.ConnectionFailed, []health.Phase{health.PhaseCredentials}},
		{"credentials that do not come", mode(healthtest.Pass), func(o *Options) {
			brief(o)
			o.Credentials = func(ctx context.Context, _ bool) (credentials.TransportCredentials, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			}
		}, health.Timeout, []health.Phase{health.PhaseCredentials}},
		{"no metadata", mode(healthtest.Pass), func(o *Options) {
			o.Metadata = func(context.Context) (metadata.MD, error) { return nil, errors.New("no token") }
		}, health.ConnectionFailed, []health.Phase{health.PhaseCredentials}},
		{"metadata that does not come", mode(healthtest.Pass), func(o *Options) {
			brief(o)
			o.Metadata = func(ctx context.Context) (metadata.MD, error) { <-ctx.Done(); return nil, ctx.Err() }
		}, health.Timeout, []health.Phase{health.PhaseCredentials}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			c := checker(t, row.target, row.change)
			began := time.Now()
			v := c.Check(t.Context(), "")
			took := time.Since(began)
			ok := false
			for _, p := range row.phases {
				ok = ok || v.Phase == p
			}
			if v.Status != row.status || !ok {
				t.Errorf("%v in phase %q, want %v in %q; cause: %v", v.Status, v.Phase, row.status, row.phases, v.Err)
			}
			if v.Err == nil || v.Err.Error() == "context deadline exceeded" || v.Asked {
				t.Errorf("cause %v, asked %v", v.Err, v.Asked)
			}
			if took > c.options.ConnectTimeout+c.options.RPCTimeout+2*time.Second {
				t.Errorf("took %v", took)
			}
			t.Log(v.Err)
		})
	}
}

func TestWaysToTheServer(t *testing.T) {
	t.Parallel()
	v4, v6, unix := healthtest.Start(t), healthtest.Start(t, healthtest.IPv6()), healthtest.Start(t, healthtest.Unix())
	_, port4, _ := net.SplitHostPort(v4.Addr())
	_, port6, _ := net.SplitHostPort(v6.Addr())
	for _, target := range []string{
		v4.Addr(), v6.Addr(), unix.Target(), "unix:" + unix.Addr(),
		":" + port4, ":" + port6, "localhost:" + port4,
		"dns:///127.0.0.1:" + port4, "dns:127.0.0.1:" + port4, "passthrough:///" + v4.Addr(), "passthrough:" + v6.Addr(),
		healthtest.StartNameServer(t, "127.0.0.1").Target(port4),
	} {
		c := checker(t, target)
		want(t, c.Check(t.Context(), ""), health.Serving, health.PhaseNone)
	}
	if authority := unix.Last().Authority; authority != "localhost" {
		t.Errorf("authority %q on a unix socket", authority)
	}
}

func TestAllAddressesFail(t *testing.T) {
	t.Parallel()
	ca := healthtest.NewCA(t)
	up := healthtest.Start(t, healthtest.TLS(ca.ServerTLS(t)))
	_, port, _ := net.SplitHostPort(up.Addr())
	c := checker(t, healthtest.StartNameServer(t, "127.0.0.2", "127.0.0.1", "127.0.0.3").Target(port), tlsFrom(&tls.Config{}),
		func(o *Options) { o.ConnectTimeout = 10 * time.Second })
	v := c.Check(t.Context(), "")
	want(t, v, health.ConnectionFailed, health.PhaseTLS) // the one that came furthest
	tried := c.proofs[0].Attempts[0].Dial.Addresses
	if len(tried) != 3 {
		t.Fatalf("tried %+v", tried)
	}
	for _, a := range tried {
		if a.Err == nil || a.Phase == health.PhaseNone {
			t.Errorf("address %s: phase %q, %v", a.Address, a.Phase, a.Err)
		}
	}
}

// New credentials, read because the handshake failed, are tried at once.
func TestRefreshedCredentials(t *testing.T) {
	t.Parallel()
	ca, old := healthtest.NewCA(t), healthtest.NewCA(t)
	up := healthtest.Start(t, healthtest.TLS(ca.ServerTLS(t)))
	held, rotated := credentials.NewTLS(&tls.Config{RootCAs: old.Pool()}), credentials.NewTLS(&tls.Config{RootCAs: ca.Pool()})
	c := checker(t, up.Target(), func(o *Options) {
		o.Credentials = func(_ context.Context, refresh bool) (credentials.TransportCredentials, error) {
			if refresh {
				return rotated, nil
			}
			return held, nil
		}
	})
	want(t, c.Check(t.Context(), ""), health.Serving, health.PhaseNone)
	if c.retried("credentials") != 1 {
		t.Errorf("retries %v", c.retries)
	}
}

// A server that is just starting is found when Redial is set, and its absence is named as the cause.
func TestRedial(t *testing.T) {
	t.Parallel()
	redial := func(o *Options) { o.ConnectTimeout, o.Redial = 10*time.Second, 20*time.Millisecond }
	up := healthtest.Start(t)
	up.Stop()
	c := checker(t, up.Target(), redial)
	go func() {
		time.Sleep(200 * time.Millisecond)
		up.Restart()
	}()
	want(t, c.Check(t.Context(), ""), health.Serving, health.PhaseNone)

	up.Stop()
	c = checker(t, up.Target(), redial, func(o *Options) { o.ConnectTimeout = 200 * time.Millisecond })
	v := c.Check(t.Context(), "")
	want(t, v, health.ConnectionFailed, health.PhaseConnect)
	if v.Err == nil || !strings.Contains(v.Err.Error(), "refused") {
		t.Errorf("cause %v", v.Err)
	}

	// Where the later attempt came further, what it met is the cause.
	way := healthtest.Forward(t, "")
	way.SetMode(healthtest.Refuse)
	c = checker(t, way.Addr(), redial, func(o *Options) { o.ConnectTimeout = 2 * time.Second })
	time.AfterFunc(200*time.Millisecond, func() { way.SetMode(healthtest.Silent) })
	want(t, c.Check(t.Context(), ""), health.Timeout, health.PhaseHTTP2)
}

func TestThroughAProxy(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	var asked atomic.Value
	proxy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { proxy.Close() })
	go func() {
		for {
			client, err := proxy.Accept()
			if err != nil {
				return
			}
			go func() {
				defer client.Close()
				r := bufio.NewReader(client)
				request, err := http.ReadRequest(r)
				if err != nil {
					return
				}
				asked.Store(request.Method + " " + request.Host + " " + request.Header.Get("Proxy-Authorization"))
				if request.Host != "upstream.test:50051" {
					fmt.Fprint(client, "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
					return
				}
				server, err := net.Dial("tcp", up.Addr())
				if err != nil {
					return
				}
				defer server.Close()
				fmt.Fprint(client, "HTTP/1.1 200 OK\r\n\r\n")
				go func() { r.WriteTo(server); server.Close() }()
				bufio.NewReader(server).WriteTo(client)
			}()
		}
	}()
	through := func(o *Options) {
		o.Proxy = func(string) (*url.URL, error) {
			return &url.URL{Scheme: "http", Host: proxy.Addr().String(), User: url.UserPassword("u", "p")}, nil
		}
	}
	// The name is the proxy's to look up.
	c := checker(t, "upstream.test:50051", through)
	want(t, c.Check(t.Context(), ""), health.Serving, health.PhaseNone)
	if got := asked.Load(); got != "CONNECT upstream.test:50051 Basic dTpw" {
		t.Errorf("the proxy was asked %q", got)
	}
	c = checker(t, "upstream.test:50051", func(o *Options) {
		o.Proxy = func(string) (*url.URL, error) { return &url.URL{Scheme: "https", Host: proxy.Addr().String()}, nil }
	})
	if v := c.Check(t.Context(), ""); v.Status != health.ConnectionFailed || v.Phase != health.PhaseConnect || !strings.Contains(v.Err.Error(), "only http://") {
		t.Errorf("an https proxy: %v in %q: %v", v.Status, v.Phase, v.Err)
	}
	c = checker(t, "forbidden.test:50051", through)
	v := c.Check(t.Context(), "")
	want(t, v, health.ConnectionFailed, health.PhaseConnect)
	if v.Err == nil || !strings.Contains(v.Err.Error(), "403") {
		t.Errorf("cause %v", v.Err)
	}
}
