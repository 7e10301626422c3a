package app

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/grpc-health-http/internal/creds"
	"example.com/grpc-health-http/internal/serve"
	"example.com/grpc-health-http/internal/settings"
	"example.com/grpc-health-http/test/healthtest"
)

// record keeps reasons and log lines.
type record struct {
	mu      sync.Mutex
	log     bytes.Buffer
	reasons []string
}

func (r *record) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.log.Write(p)
}

func (r *record) rejected(reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reasons = append(r.reasons, reason)
}

// told returns how many were rejected, and the log's lines about callers.
func (r *record) told(t *testing.T) (reasons []string, lines []map[string]any) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for text := range strings.Lines(r.log.String()) {
		var line map[string]any
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(line["msg"].(string), "turned away") {
			lines = append(lines, line)
		}
	}
	return slices.Clone(r.reasons), lines
}

// TestClientCertificates: each handshake that fails because of the client's certificate is a warning that says why, and is counted;
// no other is.
func TestClientCertificates(t *testing.T) {
	t.Parallel()
	ca, other := healthtest.NewCA(t), healthtest.NewCA(t)
	dir := t.TempDir()
	cert, key := ca.Server(t).WriteFiles(t, dir, "listener")
	s := settings.Settings{
		Upstream: settings.Upstream{Addr: "127.0.0.1:1", ConnectTimeout: time.Second, RPCTimeout: time.Second},
		Process:  settings.Process{HTTPSCert: cert, HTTPSKey: key, HTTPSVerify: true, HTTPSCA: ca.WriteFile(t, dir, "ca")},
	}
	told := new(record)
	a, err := New(&s, Platform{Logger: slog.New(slog.NewJSONHandler(told, nil)), Rejected: told.rejected})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	https, admit, err := creds.Listener(t.Context(), &s, a.Credentials)
	if err != nil {
		t.Fatal(err)
	}
	listeners, err := serve.Listen(t.Context(), serve.Port{Setting: "TEST_ADDR", Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- serve.Run(ctx, slog.New(slog.DiscardHandler), time.Second, serve.Server{
			Name: "health", Listener: listeners[0], Handler: a.Handler, TLS: https, Admit: admit, Budget: time.Minute, Refused: a.RefusedCertificate,
		})
	}()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	address := listeners[0].Addr().String()

	// connect returns when the server has closed the connection.
	connect := func(config *tls.Config) {
		t.Helper()
		conn, err := tls.Dial("tcp", address, config)
		if err != nil {
			return
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		_, _ = io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n")
		_, _ = io.Copy(io.Discard, conn)
	}
	raw := func(text string) {
		t.Helper()
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if text != "" {
			_, _ = io.WriteString(conn, text)
			_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
			_, _ = io.Copy(io.Discard, conn)
		}
	}
	of := func(leaf *healthtest.Leaf, version uint16) *tls.Config {
		config := &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost", MinVersion: version, MaxVersion: version}
		if leaf != nil { // also one of an authority that the server does not name
			config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &leaf.TLS, nil }
		}
		return config
	}

	// What a client certificate has not caused.
	connect(of(ca.Client(t), tls.VersionTLS13))
	raw("")
	raw("GET / HTTP/1.0\r\n\r\n")
	raw("\x16\x03\x01\x00\x05hello")
	distrusts := of(ca.Client(t), tls.VersionTLS13)
	distrusts.RootCAs = other.Pool()
	connect(distrusts)
	old := of(nil, tls.VersionTLS11)
	connect(old)

	broken := ca.Client(t)
	broken.TLS.PrivateKey = other.Client(t).TLS.PrivateKey
	broken.TLS.Leaf = nil
	want := 0
	for _, test := range []struct {
		name string
		leaf *healthtest.Leaf
		want string
	}{
		{"none", nil, `^a caller was turned away: it sent no client certificate$`},
		{"other authority", other.Client(t), `its client certificate ".+" is signed by an authority that is not trusted: its issuer is ".+"$`},
		{"expired", ca.Client(t, healthtest.Expired()), `its client certificate ".+" expired \d{4}-\d\d-\d\d$`},
		{"not yet valid", ca.Client(t, healthtest.NotYetValid()), `its client certificate ".+" is not valid before \d{4}-\d\d-\d\d$`},
		{"of a server", ca.Server(t), `its client certificate ".+" is not meant for clients: its extended key usage does not have client authentication$`},
		{"another's", broken, `its client certificate cannot be used: invalid signature by the client certificate: `},
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			connect(of(test.leaf, version))
			want++
			healthtest.Eventually(t, test.name, func() bool { reasons, _ := told.told(t); return len(reasons) >= want })
			reasons, lines := told.told(t)
			if len(reasons) != want || reasons[want-1] != "client_certificate" {
				t.Fatalf("%s, %s: %q, want client_certificate, as rejection number %d", test.name, tls.VersionName(version), reasons, want)
			}
			if want > turnedAwayBurst {
				continue // not logged any more
			}
			line := lines[len(lines)-1]
			if !regexp.MustCompile(test.want).MatchString(line["msg"].(string)) || len(lines) != want || line["level"] != "WARN" ||
				line["reason"] != "client_certificate" || !strings.HasPrefix(line["caller"].(string), "127.0.0.1:") {
				t.Errorf("%s, %s: %d lines, the last is %v, want %s", test.name, tls.VersionName(version), len(lines), line, test.want)
			}
		}
	}
}

// TestCertificateWithHostileNames: what a caller's certificate says stays one short line.
func TestCertificateWithHostileNames(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"a\nlevel=ERROR", "\u202egnp", "a\u2028b", "\x1b[31m", strings.Repeat("x", 1<<16)} {
		leaf := &x509.Certificate{}
		leaf.Subject.CommonName, leaf.Issuer.CommonName = name, name
		text := creds.CallerFault(&tls.CertificateVerificationError{UnverifiedCertificates: []*x509.Certificate{leaf}, Err: x509.UnknownAuthorityError{Cert: leaf}})
		if len(text) > 1024 || strings.ContainsAny(text, "\n\u202e\u2028\x1b") {
			t.Errorf("%.40q gives %q", name, text)
		}
	}
}

// TestWithoutToken: 401 is a warning, whichever variant answers.
func TestWithoutToken(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	file := t.TempDir() + "/token"
	if err := os.WriteFile(file, []byte("the-right-token"), 0o600); err != nil {
		t.Fatal(err)
	}
	told := new(record)
	s := settings.Settings{
		Upstream: settings.Upstream{Addr: up.Addr(), ConnectTimeout: time.Minute, RPCTimeout: time.Minute},
		Process:  settings.Process{AuthTokenFile: file},
	}
	a, err := New(&s, Platform{Logger: slog.New(slog.NewJSONHandler(told, nil)), Rejected: told.rejected})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	for _, test := range []struct{ authorization, want string }{
		{"", "it sent no token"},
		{"Bearer the-wrong-token", "it sent a wrong token"},
		{"Basic dXNlcjp3cm9uZy10b2tlbg==", "it sent a wrong token"},
		{"Basic dXNlcjo=", "it sent no token"},
		{"Digest username=x", "it sent no token"},
		{"Bearer the-right-token", ""},
	} {
		before, _ := told.told(t)
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		if test.authorization != "" {
			r.Header.Set("Authorization", test.authorization)
		}
		w := httptest.NewRecorder()
		a.Handler.ServeHTTP(w, r)
		reasons, lines := told.told(t)
		if test.want == "" {
			if w.Code != 200 || len(reasons) != len(before) {
				t.Errorf("%s: %d, rejected %q", test.authorization, w.Code, reasons)
			}
			continue
		}
		if len(lines) == 0 {
			t.Fatalf("%q: no line", test.authorization)
		}
		last := lines[len(lines)-1]
		if w.Code != 401 || len(reasons) != len(before)+1 || last["msg"] != "a caller was turned away: "+test.want || last["reason"] != "token" || last["level"] != "WARN" {
			t.Errorf("%q: %d, rejected %q, line %v; want %s", test.authorization, w.Code, reasons, last, test.want)
		}
	}
	if log := told.log.String(); strings.Contains(log, "wrong-token") || strings.Contains(log, "dXNlcjp3cm9uZy10b2tlbg") {
		t.Errorf("the log has a token: %s", log)
	}
}

// TestCallersAreLimited: both reasons share a limit, and a line says how many callers were left out.
func TestCallersAreLimited(t *testing.T) {
	t.Parallel()
	told := new(record)
	c := newCallers(slog.New(slog.NewJSONHandler(told, nil)))
	at := time.Unix(1700000000, 0)
	c.now = func() time.Time { return at }
	for i := range 100 {
		c.turnedAway(t.Context(), []string{"token", "client_certificate"}[i%2], "", "it is a test")
	}
	if _, lines := told.told(t); len(lines) != turnedAwayBurst {
		t.Errorf("100 callers at once make %d lines, want %d", len(lines), turnedAwayBurst)
	}
	at = at.Add(turnedAwayEvery)
	c.turnedAway(t.Context(), "token", "", "it is a test")
	_, lines := told.told(t)
	if last := lines[len(lines)-1]; len(lines) != turnedAwayBurst+1 || last["not_logged_before"] != float64(100-turnedAwayBurst) {
		t.Errorf("later: %d lines, the last is %v", len(lines), last)
	}
	if _, has := lines[0]["caller"]; has {
		t.Errorf("an address that is not known: %v", lines[0])
	}
}
