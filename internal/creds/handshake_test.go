package creds

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"example.com/grpc-health-http/internal/dial"
	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/internal/settings"
	"example.com/grpc-health-http/test/healthtest"
)

// authority is a CA of a test's own making.
type authority struct {
	*x509.Certificate
	key *ecdsa.PrivateKey
}

// newAuthority makes a CA that parent signed; nil signs itself.
func newAuthority(t *testing.T, name string, notAfter time.Time, parent *authority) *authority {
	t.Helper()
	a := &authority{key: ecKey(t, elliptic.P256())}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().AddDate(-2, 0, 0), NotAfter: notAfter, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	signer := a
	if parent != nil {
		signer = parent
	}
	issuer := template
	if parent != nil {
		issuer = parent.Certificate
	}
	a.Certificate = issued(t, template, issuer, a.key, signer.key)
	return a
}

func issued(t *testing.T, template, parent *x509.Certificate, key, signer *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// server is the configuration of a server that sends its certificate and then others.
func (a *authority) server(t *testing.T, change func(*x509.Certificate), others ...*x509.Certificate) *tls.Config {
	t.Helper()
	key := ecKey(t, elliptic.P256())
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	if change != nil {
		change(template)
	}
	leaf := issued(t, template, a.Certificate, key, a.key)
	pair := tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key}
	for _, c := range others {
		pair.Certificate = append(pair.Certificate, c.Raw)
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}}
}

func (a *authority) pem() []byte { return pemOf("CERTIFICATE", a.Raw) }

// TestHandshakeReasons makes each fault with a real server.
func TestHandshakeReasons(t *testing.T) {
	t.Parallel()
	later, before := time.Now().AddDate(1, 0, 0), time.Now().AddDate(0, 0, -40)
	root := newAuthority(t, "Root", later, nil)
	sameName := newAuthority(t, "Root", later, nil)
	stranger := newAuthority(t, "Stranger", later, nil)
	outdated := newAuthority(t, "Outdated Root", before, nil)
	middle := newAuthority(t, "Middle", later, root)
	outdatedMiddle := newAuthority(t, "Outdated Middle", before, root)
	wantsClient := func(version uint16, config *tls.Config) *tls.Config {
		config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
		config.ClientCAs.AddCert(root.Certificate)
		config.MinVersion, config.MaxVersion = version, version
		return config
	}
	client := func(change func(*x509.Certificate), of *authority) (cert, key []byte) {
		config := of.server(t, change)
		der, err := x509.MarshalPKCS8PrivateKey(config.Certificates[0].PrivateKey)
		if err != nil {
			t.Fatal(err)
		}
		return pemOf("CERTIFICATE", config.Certificates[0].Certificate[0]), pemOf("PRIVATE KEY", der)
	}
	strangersCert, strangersKey := client(nil, stranger)
	expiredCert, expiredKey := client(func(c *x509.Certificate) { c.NotBefore, c.NotAfter = before, before.AddDate(0, 0, 1) }, root)
	serverCert, serverKey := client(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }, root)
	futureCert, futureKey := client(func(c *x509.Certificate) { c.NotBefore, c.NotAfter = later, later.AddDate(1, 0, 0) }, root)
	without := func(change func(*tls.Config), config *tls.Config) *tls.Config { change(config); return config }
	names := func(dns []string, ips ...string) func(*x509.Certificate) {
		return func(c *x509.Certificate) {
			c.DNSNames = dns
			for _, ip := range ips {
				c.IPAddresses = append(c.IPAddresses, net.ParseIP(ip))
			}
		}
	}
	many := make([]string, 60)
	for i := range many {
		many[i] = strings.Repeat("n", 60) + string(rune('a'+i%26)) + ".example"
	}
	for _, test := range []struct {
		name      string
		server    *tls.Config
		roots     []byte
		cert, key []byte
		host      string // localhost where empty
		want      health.TLSFault
		issuer    bool
		at        time.Time
		says      []string
		not       []string
	}{
		{name: "expired", server: root.server(t, func(c *x509.Certificate) { c.NotBefore, c.NotAfter = before.AddDate(0, -1, 0), before }), want: health.CertificateExpired, at: before, says: []string{"has expired"}},
		{name: "not yet valid", server: root.server(t, func(c *x509.Certificate) { c.NotBefore, c.NotAfter = later, later.AddDate(1, 0, 0) }), want: health.CertificateNotYetValid, at: later, says: []string{"not yet valid"}},
		{name: "an intermediate has expired", server: outdatedMiddle.server(t, nil, outdatedMiddle.Certificate), want: health.CertificateExpired, issuer: true, at: before, says: []string{`the authority "Outdated Middle"`}},
		{name: "the root has expired", server: outdated.server(t, nil), roots: outdated.pem(), want: health.CertificateExpired, issuer: true, at: before, says: []string{`the authority "Outdated Root"`}},
		{name: "the root of an intermediate has expired", server: newAuthority(t, "Below", later, outdated).server(t, nil), roots: outdated.pem(), want: health.UnknownAuthority, says: []string{`its issuer is "Below"`}},
		{name: "another authority", server: stranger.server(t, nil), want: health.UnknownAuthority, says: []string{`its issuer is "Stranger"`, "CA_CERT says whom to trust"}, not: []string{"another key"}},
		{name: "an authority of the same name", server: sameName.server(t, nil), want: health.UnknownAuthority, says: []string{"CA_CERT has an authority of that name with another key"}},
		{name: "no intermediate", server: middle.server(t, nil), want: health.UnknownAuthority, says: []string{`its issuer is "Middle"`}},
		{name: "the system's roots", server: middle.server(t, nil, middle.Certificate, root.Certificate), roots: []byte("none"), want: health.UnknownAuthority, says: []string{`its root is "Root"`}},
		{name: "beside a root that is not used", server: stranger.server(t, nil), roots: join(root.pem(), pemOf("CERTIFICATE", negative(t))), want: health.UnknownAuthority, says: []string{"not used: block 2 (CERTIFICATE): it has a negative serial number"}},
		{name: "another name", server: root.server(t, names([]string{"a.example", "*.b.example"})), want: health.WrongName, says: []string{`is for "a.example", "*.b.example", not for "localhost"`, "SNI_SERVER_NAME says which name to expect"}},
		{name: "addresses alone, asked by name", server: root.server(t, names(nil, "127.0.0.1", "::1")), want: health.WrongName, says: []string{`is for 127.0.0.1, ::1, not for "localhost"`, "SNI_SERVER_NAME"}},
		{name: "names alone, asked by address", server: root.server(t, names([]string{"a.example"})), host: "127.0.0.1", want: health.WrongName, says: []string{`is for "a.example", not for "127.0.0.1"`, "SNI_SERVER_NAME"}},
		{name: "many names", server: root.server(t, names(many)), want: health.WrongName, says: []string{"and 55 more"}},
		{name: "no names", server: root.server(t, names(nil)), want: health.NoName, says: []string{"has no subject alternative names", "issued again"}, not: []string{"SNI_SERVER_NAME"}},
		{name: "no names, asked by address", server: root.server(t, names(nil)), host: "127.0.0.1", want: health.NoName, not: []string{"SNI_SERVER_NAME"}},
		{name: "a SPIFFE ID alone", server: root.server(t, func(c *x509.Certificate) {
			c.DNSNames, c.URIs = nil, []*url.URL{{Scheme: "spiffe", Host: "example.org", Path: "/a"}}
		}), want: health.NoName, says: []string{`it names "spiffe://example.org/a"`}, not: []string{"SNI_SERVER_NAME"}},
		{name: "a mail address alone", server: root.server(t, func(c *x509.Certificate) { c.DNSNames, c.EmailAddresses = nil, []string{"a@b.example"} }), want: health.NoName, not: []string{"SNI_SERVER_NAME"}},
		{name: "a client's certificate", server: root.server(t, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }), want: health.WrongUsage, says: []string{"does not have server authentication"}},
		{name: "an extension that nobody knows", server: root.server(t, func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: []int{1, 2, 3, 4}, Critical: true, Value: []byte{5, 0}}}
		}), want: health.InvalidCertificate},
		{name: "no client certificate, TLS 1.2", server: wantsClient(tls.VersionTLS12, root.server(t, nil)), want: health.ClientCertificateRequired, says: []string{"none was sent: set CLIENT_CERT and CLIENT_KEY"}},
		{name: "no client certificate, TLS 1.3", server: wantsClient(tls.VersionTLS13, root.server(t, nil)), want: health.ClientCertificateRequired, says: []string{"none was sent: set CLIENT_CERT and CLIENT_KEY"}},
		{name: "a stranger's, TLS 1.2", server: wantsClient(tls.VersionTLS12, root.server(t, nil)), cert: strangersCert, key: strangersKey, want: health.ClientCertificateRefused, says: []string{`does not accept the certificate of CLIENT_CERT, issued by "Stranger"`}},
		{name: "a stranger's, TLS 1.3", server: wantsClient(tls.VersionTLS13, root.server(t, nil)), cert: strangersCert, key: strangersKey, want: health.ClientCertificateRefused, says: []string{`issued by "Stranger"`}},
		{name: "one that has expired", server: wantsClient(tls.VersionTLS13, root.server(t, nil)), cert: expiredCert, key: expiredKey, want: health.ClientCertificateRefused, says: []string{"the certificate of CLIENT_CERT expired " + before.AddDate(0, 0, 1).UTC().Format(time.DateOnly)}},
		{name: "one that is not valid yet", server: wantsClient(tls.VersionTLS12, root.server(t, nil)), cert: futureCert, key: futureKey, want: health.ClientCertificateRefused, says: []string{"the certificate of CLIENT_CERT is not valid before " + later.UTC().Format(time.DateOnly)}},
		{name: "a server's", server: wantsClient(tls.VersionTLS13, root.server(t, nil)), cert: serverCert, key: serverKey, want: health.ClientCertificateRefused, says: []string{"is not meant for clients"}},
		{name: "TLS 1.1 alone", server: without(func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 }, root.server(t, nil)), want: health.WrongVersion},
		{name: "no ALPN", server: without(func(c *tls.Config) { c.NextProtos = []string{} }, root.server(t, nil)), want: health.NoALPN, says: []string{"the server does not offer h2 with ALPN"}, not: []string{"grpc-go"}},
		{name: "no ALPN, TLS 1.2", server: without(func(c *tls.Config) { c.NextProtos, c.MaxVersion = []string{}, tls.VersionTLS12 }, root.server(t, nil)), want: health.NoALPN},
		{name: "HTTP/1.1 alone", server: without(func(c *tls.Config) { c.NextProtos = []string{"http/1.1"} }, root.server(t, nil)), want: health.NoALPN},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := &settings.Upstream{TLS: true, CACert: string(root.pem()), ClientCert: string(test.cert), ClientKey: string(test.key)}
			switch {
			case string(test.roots) == "none":
				s.CACert = ""
			case test.roots != nil:
				s.CACert = string(test.roots)
			}
			tc, err := newTransport(t, s, Options{})(t.Context(), false)
			if err != nil {
				t.Fatal(err)
			}
			host := test.host
			if host == "" {
				host = "localhost"
			}
			_, _, err = handshake(t, tc, serveTLS(t, test.server), host)
			told := health.Verdict{Err: err}.TLSError()
			if told == nil || told.Fault != test.want || told.Issuer != test.issuer || told.Sentence(time.Now()) == "" {
				t.Fatalf("error %v with the reason %+v, want the fault %d", err, told, test.want)
			}
			if got := told.At.Sub(test.at).Abs(); got > time.Second && !(told.At.IsZero() && test.at.IsZero()) {
				t.Errorf("at %v, want %v", told.At, test.at)
			}
			wantError(t, err, test.says...)
			for _, not := range test.not {
				if strings.Contains(err.Error(), not) {
					t.Errorf("error %q, want no %q in it", err, not)
				}
			}
			if len(err.Error()) > 1024 {
				t.Errorf("an error of %d bytes: %q", len(err.Error()), err)
			}
		})
	}
}

// alerting answers each client hello with an alert.
func alerting(t *testing.T, alert byte) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			header := make([]byte, 5)
			if _, err := io.ReadFull(conn, header); err == nil {
				_, _ = io.CopyN(io.Discard, conn, int64(header[3])<<8|int64(header[4]))
				_, _ = conn.Write([]byte{0x15, 3, 3, 0, 2, 2, alert})
			}
			conn.Close()
		}
	}()
	return listener.Addr().String()
}

// TestAlertReasons has the alerts that a server sends before it shows a certificate. Such an alert never tells of a client
// certificate: none was asked for.
func TestAlertReasons(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		alert byte
		host  string
		want  health.TLSFault // 0 is none
		says  string
	}{
		{40, "localhost", 0, "handshake failure"},
		{40, "127.0.0.1", 0, "the server was asked for no name, since the target is an IP address; SNI_SERVER_NAME says which name to send"},
		{42, "localhost", 0, "bad certificate"},
		{70, "localhost", health.WrongVersion, "protocol version"},
		{80, "localhost", 0, "internal error"},
		{86, "localhost", health.WrongVersion, "inappropriate fallback"},
		{112, "localhost", health.ServerNameUnknown, `the server was asked for the name "localhost"; SNI_SERVER_NAME says which name to send`},
		{112, "127.0.0.1", health.ServerNameUnknown, "the server was asked for no name"},
		{120, "localhost", health.NoALPN, "does not offer h2 with ALPN"},
	} {
		tc, err := newTransport(t, &settings.Upstream{TLS: true, NoVerify: true}, Options{})(t.Context(), false)
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = handshake(t, tc, alerting(t, test.alert), test.host)
		wantError(t, err, "remote error", test.says)
		told := health.Verdict{Err: err}.TLSError()
		if test.want == 0 && told != nil || test.want != 0 && (told == nil || told.Fault != test.want) {
			t.Errorf("alert %d: reason %+v, want %d", test.alert, told, test.want)
		}
	}
}

// An old server does not send an alert: it answers with the version that it has.
func TestOldVersion(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		// A ServerHello of TLS 1.1 with a cipher suite of that time (RFC 4346, section 7.4.1.3).
		hello := append([]byte{0x02, 0, 0, 38, 3, 2}, make([]byte, 32)...)
		hello = append(hello, 0, 0xc0, 0x13, 0)
		_, _ = conn.Write(append([]byte{0x16, 3, 2, 0, byte(len(hello))}, hello...))
		_, _ = io.Copy(io.Discard, conn)
	}()
	tc, err := newTransport(t, &settings.Upstream{TLS: true, NoVerify: true}, Options{})(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = handshake(t, tc, listener.Addr().String(), "localhost")
	if told := (health.Verdict{Err: err}).TLSError(); told == nil || told.Fault != health.WrongVersion {
		t.Errorf("error %v with the reason %+v, want the wrong version", err, told)
	}
}

// A server of TLS 1.3 that misses the client certificate may close the connection before its alert is read.
func TestClosedForWantOfACertificate(t *testing.T) {
	t.Parallel()
	ca := healthtest.NewCA(t)
	config := ca.ServerTLS(t)
	config.ClientAuth = tls.RequestClientCert // and continues without
	config.NextProtos = []string{"h2"}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_ = conn.(*tls.Conn).Handshake()
			conn.Close()
		}
	}()
	s := &settings.Upstream{TLS: true, CACert: string(ca.PEM())}
	client := ca.Client(t)
	for _, sends := range []bool{false, true} {
		if sends {
			s.ClientCert, s.ClientKey = string(client.CertPEM), string(client.KeyPEM)
		}
		tc, err := newTransport(t, s, Options{})(t.Context(), false)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer raw.Close()
		conn, _, err := tc.ClientHandshake(t.Context(), "localhost", raw)
		if err != nil {
			t.Fatal(err)
		}
		_, err = conn.Read(make([]byte, 1))
		if noted := isA[*dial.NotedError](err); noted == sends {
			t.Errorf("a certificate sent: %t, error %v", sends, err)
		}
	}
}
