package creds

import (
	"bufio"
	"context"
	"crypto/elliptic"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/grpc-health-http/internal/serve"
	"example.com/grpc-health-http/internal/settings"
	"example.com/grpc-health-http/test/healthtest"
)

// caller issues a client certificate that ends then, and comes with the certificate of its authority.
func (a *authority) caller(t *testing.T, ends time.Time) tls.Certificate {
	t.Helper()
	key := ecKey(t, elliptic.P256())
	leaf := issued(t, &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "caller"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: ends,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, a.Certificate, key, a.key)
	return tls.Certificate{Certificate: [][]byte{leaf.Raw, a.Raw}, PrivateKey: key, Leaf: leaf}
}

// kept is one connection to the listener, which asks for /path.
type kept func(path string) (int, error)

// keptHTTP1 is one that speaks HTTP/1.1.
func keptHTTP1(t *testing.T, conn *tls.Conn) kept {
	reader := bufio.NewReader(conn)
	return func(path string) (int, error) {
		fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n", path)
		response, err := http.ReadResponse(reader, nil)
		if err != nil {
			return 0, err
		}
		_, err = io.Copy(io.Discard, response.Body)
		return response.StatusCode, err
	}
}

// keptHTTP2 is one that speaks HTTP/2, with this :scheme.
func keptHTTP2(scheme string) func(t *testing.T, conn *tls.Conn) kept {
	return func(t *testing.T, conn *tls.Conn) kept {
		dial := func(context.Context, string, string) (net.Conn, error) { return conn, nil }
		transport := &http.Transport{DialContext: dial, DialTLSContext: dial, Protocols: new(http.Protocols)}
		transport.Protocols.SetHTTP2(true)
		transport.Protocols.SetUnencryptedHTTP2(true)
		c, err := transport.NewClientConn(t.Context(), scheme, "localhost:443")
		if err != nil {
			t.Fatal(err)
		}
		return func(path string) (int, error) {
			request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, scheme+"://localhost"+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			response, err := c.RoundTrip(request)
			if err != nil {
				return 0, err
			}
			defer response.Body.Close()
			_, err = io.Copy(io.Discard, response.Body)
			return response.StatusCode, err
		}
	}
}

var protocols = []struct {
	name, alpn string
	kept       func(*testing.T, *tls.Conn) kept
}{
	{"HTTP/1.1", "http/1.1", keptHTTP1},
	{"HTTP/2", "h2", keptHTTP2("https")},
	{"HTTP/2 that says http", "h2", keptHTTP2("http")},
}

// The right of an open connection ends with what it came from.
func TestRightsEndOnOpenConnections(t *testing.T) {
	t.Parallel()
	server := healthtest.NewCA(t)
	serverLeaf := server.Server(t)
	later, soon := time.Now().Add(24*time.Hour), time.Now().Add(time.Hour)
	root, other := newAuthority(t, "root", later, nil), newAuthority(t, "other", later, nil)
	sameName := newAuthority(t, "root", later, nil)
	between, betweenSoon := newAuthority(t, "between", later, root), newAuthority(t, "between, soon", soon, root)
	rootSoon := newAuthority(t, "root, soon", soon, nil)

	for _, test := range []struct {
		name    string
		roots   []byte
		client  tls.Certificate
		after   []byte        // the roots that replace them; nil leaves them
		advance time.Duration // 0 is what it takes to have the roots read again
		answers bool
	}{
		{name: "nothing changes", roots: root.pem(), client: root.caller(t, later), answers: true},
		{name: "another authority", roots: root.pem(), client: root.caller(t, later), after: other.pem()},
		{name: "another authority of the same name", roots: root.pem(), client: root.caller(t, later), after: sameName.pem()},
		{name: "its authority is one of several that remain", roots: slices.Concat(other.pem(), root.pem()), client: root.caller(t, later), after: slices.Concat(root.pem(), sameName.pem()), answers: true},
		{name: "its authority is removed from several", roots: slices.Concat(other.pem(), root.pem()), client: root.caller(t, later), after: other.pem()},
		{name: "the root above the authority between goes", roots: root.pem(), client: between.caller(t, later), after: other.pem()},
		{name: "the authority between is trusted itself now", roots: root.pem(), client: between.caller(t, later), after: between.pem(), answers: true},
		{name: "another authority between is trusted only", roots: root.pem(), client: between.caller(t, later), after: betweenSoon.pem()},
		{name: "no authority can be read", roots: root.pem(), client: root.caller(t, later), after: []byte("torn"), answers: true},
		{name: "the client's certificate ends", roots: root.pem(), client: root.caller(t, soon), advance: 2 * time.Hour},
		{name: "the client's certificate has some time left", roots: root.pem(), client: root.caller(t, soon), advance: 50 * time.Minute, answers: true},
		{name: "the certificate of the authority between ends", roots: root.pem(), client: betweenSoon.caller(t, later), advance: 2 * time.Hour},
		{name: "the root ends", roots: rootSoon.pem(), client: rootSoon.caller(t, later), advance: 2 * time.Hour},
	} {
		for _, protocol := range protocols {
			t.Run(test.name+"/"+protocol.name, func(t *testing.T) {
				t.Parallel()
				files := newPairFiles(t, serverLeaf)
				roots := filepath.Join(t.TempDir(), "callers.crt")
				write(t, roots, test.roots)
				o, c, _ := newOptions()
				l := serving(t, &settings.Settings{Process: settings.Process{HTTPSCert: files.cert, HTTPSKey: files.key, HTTPSVerify: true, HTTPSCA: roots}}, o, nil)
				idle, busy := l.connect(t, server, test.client, protocol.alpn, protocol.kept), l.connect(t, server, test.client, protocol.alpn, protocol.kept)
				for range 3 {
					if code, err := busy("/"); err != nil || code != http.StatusOK {
						t.Fatalf("before: %d, %v", code, err)
					}
				}
				if test.after != nil {
					write(t, roots, test.after)
				}
				c.advance(max(test.advance, stale))
				for name, ask := range map[string]kept{"one that has asked before": busy, "one that has not": idle} {
					code, err := ask("/")
					if answered := err == nil && code == http.StatusOK; answered != test.answers || err == nil && !answered {
						t.Errorf("%s: %d, %v; answered %t, want %t", name, code, err, answered, test.answers)
					}
					if test.answers {
						continue
					}
					_, _ = ask("/") // tells of it once more, if it could
					want := map[bool]string{false: "is signed by an authority that is not trusted", true: " expired "}[test.after == nil]
					if why := <-l.refused; !strings.Contains(why, want) {
						t.Errorf("%s: %s, want %q", name, why, want)
					}
				}
				if len(l.refused) > 0 {
					t.Errorf("told without need: %s", <-l.refused)
				}
			})
		}
	}
}

// A right that ends while the handler runs gets no answer, and neither do the other requests of the connection.
func TestRightEndsDuringARequest(t *testing.T) {
	t.Parallel()
	server, before, after := healthtest.NewCA(t), healthtest.NewCA(t), healthtest.NewCA(t)
	serverLeaf, client := server.Server(t), before.Client(t)
	for _, protocol := range protocols {
		t.Run(protocol.name, func(t *testing.T) {
			t.Parallel()
			files := newPairFiles(t, serverLeaf)
			roots := before.WriteFile(t, t.TempDir(), "ca")
			o, c, _ := newOptions()
			begun, release := make(chan struct{}), make(chan struct{})
			l := serving(t, &settings.Settings{Process: settings.Process{HTTPSCert: files.cert, HTTPSKey: files.key, HTTPSVerify: true, HTTPSCA: roots}}, o,
				func() { close(begun); <-release })
			ask := l.connect(t, server, client.TLS, protocol.alpn, protocol.kept)
			result := make(chan error, 1)
			go func() {
				code, err := ask("/slow")
				if err == nil {
					err = fmt.Errorf("answered %d", code)
				} else {
					err = nil
				}
				result <- err
			}()
			<-begun
			write(t, roots, after.PEM())
			c.advance(stale)
			close(release)
			if err := <-result; err != nil {
				t.Error(err)
			}
			if _, err := ask("/"); err == nil {
				t.Error("the connection's next request was answered")
			}
		})
	}
}

// The chain is verified once for each version of the roots, not for each request.
func TestAdmissionIsCheap(t *testing.T) { // not parallel, for it counts allocations
	ca := healthtest.NewCA(t)
	roots := ca.WriteFile(t, t.TempDir(), "ca")
	o, _, _ := newOptions()
	files := newPairFiles(t, ca.Server(t))
	_, admit, err := Listener(t.Context(), &settings.Settings{Process: settings.Process{HTTPSCert: files.cert, HTTPSKey: files.key, HTTPSVerify: true, HTTPSCA: roots}}, o)
	if err != nil {
		t.Fatal(err)
	}
	check := admit(tls.ConnectionState{PeerCertificates: []*x509.Certificate{ca.Client(t).TLS.Leaf}})
	ctx := t.Context()
	if n := testing.AllocsPerRun(100, func() { err = errors.Join(err, check(ctx)) }); err != nil || n != 0 {
		t.Errorf("%v allocations a request, want none; error %v", n, err)
	}
	if admit(tls.ConnectionState{})(ctx) == nil {
		t.Error("a connection without a certificate has a right")
	}
}

// served is a listener with a server behind it.
type served struct {
	address string
	refused chan string // why, for each connection
}

// serving serves 200 for every path; slow, where not nil, runs before the answer to /slow.
func serving(t *testing.T, s *settings.Settings, o Options, slow func()) served {
	t.Helper()
	config, admit, err := Listener(t.Context(), s, o)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			slow()
		}
		w.WriteHeader(http.StatusOK)
	})
	ctx, cancel := context.WithCancel(context.Background())
	over, refused := make(chan error, 1), make(chan string, 10)
	go func() {
		over <- serve.Run(ctx, slog.New(slog.DiscardHandler), time.Second, serve.Server{
			Name: "test", Listener: listener, Handler: handler, TLS: config, Admit: admit, Budget: time.Minute,
			Refused: func(_ net.Addr, err error) { refused <- CallerFault(err) },
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-over; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return served{listener.Addr().String(), refused}
}

func (s served) connect(t *testing.T, server *healthtest.CA, client tls.Certificate, alpn string, speak func(*testing.T, *tls.Conn) kept) kept {
	t.Helper()
	conn, err := tls.Dial("tcp", s.address, &tls.Config{
		RootCAs: server.Pool(), ServerName: "localhost", NextProtos: []string{alpn},
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &client, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	return speak(t, conn)
}
