package dial_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/credentials"

	"example.com/grpc-health-http/internal/clock"
	"example.com/grpc-health-http/internal/dial"
	"example.com/grpc-health-http/internal/grpcconn"
	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/test/healthtest"
)

// versions are those of TLS, by their names.
var versions = map[string]uint16{"TLS 1.2": tls.VersionTLS12, "TLS 1.3": tls.VersionTLS13}

// tlsServer has the way lead to a TLS server that does no more than the handshake and reads on: so what it says is
// always read, and no reset overtakes it. wrap, where there is one, stands between it and the client.
func (w *world) tlsServer(config *tls.Config, wrap func(net.Conn) net.Conn) {
	w.way.Handle(func(raw net.Conn) {
		defer raw.Close()
		through := raw
		if wrap != nil {
			through = wrap(raw)
		}
		server := tls.Server(through, config)
		if err := server.Handshake(); err == nil {
			_, _ = io.Copy(io.Discard, server) // until it has said why it reads no more
		}
		_, _ = io.Copy(io.Discard, raw)
	})
}

// An alert of the peer is the TLS phase's, also where it comes after the client's handshake has ended: under TLS 1.3 that is when a
// server refuses the client's certificate. crypto/tls marks alerts by the Op of a net.OpError, which it does not document.
func TestAlerts(t *testing.T) {
	t.Parallel()
	ca, other := healthtest.NewCA(t), healthtest.NewCA(t)
	now := at(time.Now())
	for name, version := range versions {
		server := ca.MutualTLS(t)
		server.Time = now
		server.MinVersion, server.MaxVersion, server.NextProtos = version, version, []string{"h2"}
		client := func(certificates ...tls.Certificate) credentials.TransportCredentials {
			return credentials.NewTLS(&tls.Config{RootCAs: ca.Pool(), Certificates: certificates, Time: now})
		}
		for _, row := range []struct {
			name   string
			client credentials.TransportCredentials
			wrap   func(net.Conn) net.Conn
			alert  string
		}{
			{"no client certificate", client(), nil, "certificate required"},
			{"client certificate of another CA", client(other.Client(t).TLS), nil, "unknown certificate authority"},
			{"a record that does not decrypt", client(ca.Client(t).TLS), func(raw net.Conn) net.Conn {
				return &corruptedConn{Conn: raw, from: handshakeRecords(version) + 1}
			}, "bad record MAC"},
		} {
			t.Run(name+"/"+row.name, func(t *testing.T) {
				t.Parallel()
				bubble(t, func(t *testing.T, w *world) {
					w.tlsServer(server, row.wrap)
					w.o.Credentials, w.o.ServerName = always(row.client), "localhost"
					d, took := w.dial()
					alert := row.alert
					if version == tls.VersionTLS12 && alert == "certificate required" {
						alert = "handshake failure"
					}
					want(t, d, health.PhaseTLS, "remote error: tls: "+alert)
					if took > 0 {
						t.Errorf("took %v", took)
					}
				})
			})
		}
	}
}

// handshakeRecords is how many records of the handshake the client sends, which has a certificate, that look like application
// data: under TLS 1.3 its Certificate, CertificateVerify and Finished.
func handshakeRecords(version uint16) int {
	if version == tls.VersionTLS13 {
		return 3
	}
	return 0
}

// brokenConn lets no more than so many records of application data be written, as where the peer has given up.
type brokenConn struct {
	net.Conn
	left int
}

func (c *brokenConn) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 5; rest = rest[5+int(binary.BigEndian.Uint16(rest[3:])):] {
		if rest[0] != 23 {
			continue
		}
		if c.left--; c.left < 0 {
			return 0, syscall.EPIPE
		}
	}
	return c.Conn.Write(p)
}

// Where the write of a request fails before the alert was read that explains it, the alert is waited for.
func TestAlertAfterAFailedWrite(t *testing.T) {
	t.Parallel()
	ca, other := healthtest.NewCA(t), healthtest.NewCA(t)
	now := at(time.Now())
	server := ca.MutualTLS(t)
	server.Time, server.NextProtos = now, []string{"h2"}
	server.ClientAuth = tls.RequireAnyClientCert
	server.VerifyPeerCertificate = func([][]byte, [][]*x509.Certificate) error {
		time.Sleep(5 * ms)
		return errors.New("not you")
	}
	client := credentials.NewTLS(&tls.Config{RootCAs: ca.Pool(), Time: now, Certificates: []tls.Certificate{other.Client(t).TLS}})
	bubble(t, func(t *testing.T, w *world) {
		w.tlsServer(server, nil)
		w.o.Credentials, w.o.ServerName = always(client), "localhost"
		connect := w.o.Connect
		w.o.Connect = func(ctx context.Context, network, address string) (net.Conn, error) {
			raw, err := connect(ctx, network, address)
			return &brokenConn{Conn: raw, left: handshakeRecords(tls.VersionTLS13)}, err
		}
		d, took := w.dial()
		want(t, d, health.PhaseTLS, "remote error: tls: bad certificate")
		if took != 5*ms {
			t.Errorf("took %v", took)
		}
	})
}

// at is a clock that always shows the same time: in a bubble it is the year 2000, and the certificates are of today.
func at(now time.Time) func() time.Time { return func() time.Time { return now } }

// corruptedConn changes the TLS records of application data that are read, from one on.
type corruptedConn struct {
	net.Conn
	from   int
	record []byte // what has not been read yet
}

func (c *corruptedConn) Read(p []byte) (int, error) {
	const headerSize, applicationData = 5, 23
	if len(c.record) == 0 {
		header := make([]byte, headerSize)
		if _, err := io.ReadFull(c.Conn, header); err != nil {
			return 0, err
		}
		body := make([]byte, binary.BigEndian.Uint16(header[3:]))
		if _, err := io.ReadFull(c.Conn, body); err != nil {
			return 0, err
		}
		if header[0] == applicationData {
			if c.from--; c.from <= 0 {
				body[len(body)-1] ^= 1
			}
		}
		c.record = append(header, body...)
	}
	n := copy(p, c.record)
	c.record = c.record[n:]
	return n, nil
}

// A handshake that fails on this side ends the dial at once.
func TestHandshakeFailsAtOnce(t *testing.T) {
	t.Parallel()
	ca, other := healthtest.NewCA(t), healthtest.NewCA(t)
	now := at(time.Now())
	for name, version := range versions {
		server := ca.ServerTLS(t)
		server.MinVersion, server.MaxVersion = version, version
		bubble(t, func(t *testing.T, w *world) {
			w.tlsServer(server, nil)
			w.o.Credentials, w.o.ServerName = always(credentials.NewTLS(&tls.Config{RootCAs: other.Pool(), Time: now})), "localhost"
			var shown []*x509.Certificate
			w.o.Trace.PeerCertificate = func(leaf *x509.Certificate) { shown = append(shown, leaf) }
			d, took := w.dial()
			want(t, d, health.PhaseTLS, "unknown authority")
			if took > 0 {
				t.Errorf("%s: took %v", name, took)
			}
			if len(shown) != 1 || d.Addresses[0].Certificate != shown[0] || shown[0].Subject.CommonName != "healthtest server" {
				t.Errorf("%s: the Trace was shown %d certificates, the evidence %v", name, len(shown), d.Addresses[0].Certificate)
			}
		})
	}
}

// dialReal dials over sockets, and makes an RPC on the connection.
func dialReal(t *testing.T, address string, change ...func(*dial.Options)) (d health.Dial, told []string) {
	t.Helper()
	var mu sync.Mutex
	o := dial.Options{Target: parse(t, address), ConnectTimeout: 10 * time.Second}
	o.Trace = &health.Trace{Retry: func(reason string) { mu.Lock(); defer mu.Unlock(); told = append(told, reason) }}
	for _, f := range change {
		f(&o)
	}
	c, d := dial.New(o, clock.NewRunning(clock.System())).Dial(t.Context(), new(dial.Progress))
	if c == nil {
		if d.Err == nil || d.Err.Error() == "" || strings.Contains(d.Err.Error(), "deadline") {
			t.Errorf("no connection, and the cause is %v", d.Err)
		}
		t.Log(d.Err)
		return d, told
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if a := c.Do(ctx, grpcconn.Request{}, nil, new(grpcconn.Progress)); a.Status != health.Serving {
		t.Errorf("an RPC: %v", a)
	}
	return d, told
}

// with uses a client configuration as it is.
func with(config *tls.Config) func(*dial.Options) {
	return func(o *dial.Options) { o.Credentials = always(credentials.NewTLS(config)) }
}

// brief is a budget for what can only end by time-out.
func brief(o *dial.Options) { o.ConnectTimeout = 300 * ms }

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
	name := func(n string) func(*dial.Options) { return func(o *dial.Options) { o.ServerName = n } }
	none := func(*dial.Options) {}
	old := ca.ServerTLS(t)
	old.MaxVersion = tls.VersionTLS11
	old.MinVersion = tls.VersionTLS10
	type phases = []health.Phase
	succeeds, inTLS := phases{health.PhaseNone}, phases{health.PhaseTLS}
	for _, row := range []struct {
		name    string
		server  []healthtest.Option
		client  *tls.Config // nil is plaintext
		change  func(*dial.Options)
		phases  phases
		cause   string
		showing bool // the certificate
	}{
		{"right", []healthtest.Option{server()}, trust(), none, succeeds, "", true},
		{"right by name", []healthtest.Option{server(healthtest.DNSNames("grpc.test"))}, trust(), name("grpc.test"), succeeds, "", true},
		{"right, mutual", []healthtest.Option{healthtest.TLS(ca.MutualTLS(t))}, client(ca.Client(t)), none, succeeds, "", true},
		{"right, unverified", []healthtest.Option{server(healthtest.Expired())}, &tls.Config{InsecureSkipVerify: true}, none, succeeds, "", true},
		{"wrong CA", []healthtest.Option{server()}, &tls.Config{RootCAs: otherCA.Pool()}, none, inTLS, "unknown authority", true},
		{"expired", []healthtest.Option{server(healthtest.Expired())}, trust(), none, inTLS, "expired", true},
		{"not yet valid", []healthtest.Option{server(healthtest.NotYetValid())}, trust(), none, inTLS, "not yet valid", true},
		{"host mismatch", []healthtest.Option{server(healthtest.DNSNames("other.test"))}, trust(), none, inTLS, "127.0.0.1", true},
		{"name mismatch", []healthtest.Option{server()}, trust(), name("grpc.test"), inTLS, "grpc.test", true},
		// Under TLS 1.3 a reset can overtake the alert: this server closes, and has not read everything.
		{"missing client certificate", []healthtest.Option{healthtest.TLS(ca.MutualTLS(t))}, trust(), none, phases{health.PhaseTLS, health.PhaseHTTP2}, "", true},
		{"client certificate of another CA", []healthtest.Option{healthtest.TLS(ca.MutualTLS(t))}, client(otherCA.Client(t)), none, phases{health.PhaseTLS, health.PhaseHTTP2}, "", true},
		{"TLS to plaintext", nil, trust(), none, inTLS, "it does not speak TLS", false},
		{"plaintext to TLS", []healthtest.Option{server()}, nil, none, phases{health.PhaseHTTP2}, "TLS to the upstream", false},
		{"plaintext to TLS, with the name of a setting", []healthtest.Option{server()}, nil, func(o *dial.Options) { o.TLSSetting = "MY_TLS" }, phases{health.PhaseHTTP2}, "MY_TLS", false},
		{"no ALPN", []healthtest.Option{server(), healthtest.WithoutALPN()}, trust(), none, inTLS, "ALPN", false},
		{"TLS 1.1", []healthtest.Option{healthtest.TLS(old)}, trust(), none, inTLS, "", false},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			up := healthtest.Start(t, row.server...)
			change := []func(*dial.Options){row.change}
			if row.client != nil {
				change = append(change, with(row.client))
			}
			d, _ := dialReal(t, up.Target(), change...)
			if !slices.Contains(row.phases, d.Phase) {
				t.Fatalf("phase %q, want %q; cause: %v", d.Phase, row.phases, d.Err)
			}
			if d.Err != nil && !strings.Contains(d.Err.Error(), row.cause) {
				t.Errorf("cause %v, want one with %q", d.Err, row.cause)
			}
			if n := up.Connections(); n != 1 {
				t.Errorf("%d connections", n)
			}
			if shown := d.Addresses[0].Certificate != nil; row.showing && !shown {
				t.Error("the dial does not show the server's certificate")
			}
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
	withTLS := with(&tls.Config{InsecureSkipVerify: true})
	none := func(*dial.Options) {}
	type phases = []health.Phase
	for _, row := range []struct {
		name, target string
		change       func(*dial.Options)
		phases       phases
		budget       bool // ends it
	}{
		{"refused", mode(healthtest.Refuse), none, phases{health.PhaseConnect}, false},
		{"no such socket", "unix://" + t.TempDir() + "/none", none, phases{health.PhaseConnect}, false},
		{"silent", mode(healthtest.Silent), brief, phases{health.PhaseHTTP2}, true},
		{"silent, TLS", mode(healthtest.Silent), func(o *dial.Options) { brief(o); withTLS(o) }, phases{health.PhaseTLS}, true},
		{"reset on accept", mode(healthtest.ResetOnAccept), none, phases{health.PhaseConnect, health.PhaseHTTP2}, false},
		{"closed on the first bytes", mode(healthtest.CloseOnFirstBytes), none, phases{health.PhaseHTTP2}, false},
		{"closed on the first bytes, TLS", mode(healthtest.CloseOnFirstBytes), withTLS, phases{health.PhaseTLS}, false},
		{"garbage", mode(healthtest.Garbage), none, phases{health.PhaseHTTP2}, false},
		{"garbage, TLS", mode(healthtest.Garbage), withTLS, phases{health.PhaseTLS}, false},
		{"HTTP/1", mode(healthtest.HTTP1), none, phases{health.PhaseHTTP2}, false},
		{"no such name", healthtest.StartNameServer(t).Target("50051"), none, phases{health.PhaseDNS}, false},
		{"silent name server", silent.Target("50051"), brief, phases{health.PhaseDNS}, true},
		{"full back-log", healthtest.DropSYNs(t, "127.0.0.1:0"), brief, phases{health.PhaseConnect}, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			d, _ := dialReal(t, row.target, row.change)
			if !slices.Contains(row.phases, d.Phase) || errors.Is(d.Err, clock.ErrBudget) != row.budget {
				t.Errorf("phase %q, want %q; cause: %v", d.Phase, row.phases, d.Err)
			}
		})
	}
}

func TestWaysToTheServer(t *testing.T) {
	t.Parallel()
	v4, v6, unix := healthtest.Start(t), healthtest.Start(t, healthtest.IPv6()), healthtest.Start(t, healthtest.Unix())
	_, port4, _ := net.SplitHostPort(v4.Addr())
	_, port6, _ := net.SplitHostPort(v6.Addr())
	for _, address := range []string{
		v4.Addr(), v6.Addr(), unix.Target(), "unix:" + unix.Addr(),
		":" + port4, ":" + port6, "localhost:" + port4,
		"dns:///127.0.0.1:" + port4, "dns:127.0.0.1:" + port4, "passthrough:///" + v4.Addr(), "passthrough:" + v6.Addr(),
		healthtest.StartNameServer(t, "127.0.0.1").Target(port4),
		healthtest.StartNameServer(t, "127.0.0.2", "127.0.0.1").Target(port4),
	} {
		if d, _ := dialReal(t, address); d.Err != nil {
			t.Errorf("%s: %v", address, d.Err)
		}
	}
	if authority := unix.Last().Authority; authority != "localhost" {
		t.Errorf("authority %q on a unix socket", authority)
	}
}

// The :authority is the one that is set, or the server's name, or the target.
func TestAuthority(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	for _, row := range []struct {
		change    func(*dial.Options)
		authority string
	}{
		{func(*dial.Options) {}, up.Addr()},
		{func(o *dial.Options) { o.ServerName = "name.test" }, "name.test"},
		{func(o *dial.Options) { o.ServerName, o.Authority = "name.test", "authority.test:1" }, "authority.test:1"},
	} {
		dialReal(t, up.Target(), row.change)
		if got := up.Last().Authority; got != row.authority {
			t.Errorf("authority %q, want %q", got, row.authority)
		}
	}
}

// Where TLS failed and reading the credentials again brings new ones, these are tried at once; where it does not, that is all.
func TestRefreshedCredentials(t *testing.T) {
	t.Parallel()
	ca, old := healthtest.NewCA(t), healthtest.NewCA(t)
	up := healthtest.Start(t, healthtest.TLS(ca.ServerTLS(t)))
	held, rotated := credentials.NewTLS(&tls.Config{RootCAs: old.Pool()}), credentials.NewTLS(&tls.Config{RootCAs: ca.Pool()})
	refreshedTo := func(next credentials.TransportCredentials, err error) func(*dial.Options) {
		return func(o *dial.Options) {
			o.Credentials = func(_ context.Context, refresh bool) (credentials.TransportCredentials, error) {
				if refresh {
					return next, err
				}
				return held, nil
			}
		}
	}
	d, told := dialReal(t, up.Target(), refreshedTo(rotated, nil))
	if d.Err != nil || !slices.Equal(told, []string{"credentials"}) || len(d.Addresses) != 2 {
		t.Errorf("%v; told %q; addresses %+v", d.Err, told, d.Addresses)
	}
	for name, change := range map[string]func(*dial.Options){
		"the same": refreshedTo(held, nil), "none": refreshedTo(nil, errors.New("torn")),
	} {
		before := up.Connections()
		d, told := dialReal(t, up.Target(), change)
		want(t, d, health.PhaseTLS, "unknown authority")
		if len(told) > 0 || up.Connections() != before+1 {
			t.Errorf("%s: told %q, %d connections", name, told, up.Connections()-before)
		}
	}
	way := healthtest.Forward(t, "") // what is no failure of TLS asks for no new ones
	way.SetMode(healthtest.Refuse)
	if d, told := dialReal(t, way.Addr(), refreshedTo(rotated, nil)); d.Phase != health.PhaseConnect || len(told) > 0 {
		t.Errorf("phase %q; told %q", d.Phase, told)
	}
}

// failing are credentials whose handshake fails with an error.
type failing struct {
	credentials.TransportCredentials
	err error
}

func (f failing) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, f.err
}

// The errors by which credentials say what failed are found in whatever wraps them. The connection is closed; bubble sees to it.
func TestErrorsOfCredentials(t *testing.T) {
	t.Parallel()
	leaf := healthtest.NewCA(t).Server(t).TLS.Leaf
	for _, row := range []struct {
		err   error
		phase health.Phase
		shown *x509.Certificate
	}{
		{&dial.CredentialsError{Err: errors.New("of the test")}, health.PhaseCredentials, nil},
		{fmt.Errorf("read: %w", &dial.CredentialsError{Err: errors.New("of the test")}), health.PhaseCredentials, nil},
		{&dial.HandshakeError{Err: errors.New("of the test"), Leaf: leaf}, health.PhaseTLS, leaf},
		{errors.New("of the test"), health.PhaseTLS, nil},
	} {
		bubble(t, func(t *testing.T, w *world) {
			w.o.Credentials = always(failing{credentials.NewTLS(nil), row.err})
			d, _ := w.dial()
			want(t, d, row.phase, "of the test")
			if !errors.Is(d.Err, row.err) || d.Addresses[0].Certificate != row.shown {
				t.Errorf("%v; a certificate is shown: %v", d.Err, d.Addresses[0].Certificate != nil)
			}
		})
	}
}
