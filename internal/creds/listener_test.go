package creds

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.com/grpc-health-http/internal/atmost"
	"example.com/grpc-health-http/internal/settings"
	"example.com/grpc-health-http/test/healthtest"
)

func newListener(t *testing.T, s *settings.Settings, o Options) string {
	t.Helper()
	config, _, err := Listener(t.Context(), s, o)
	if err != nil {
		t.Fatalf("Listener: %v", err)
	}
	return serveTLS(t, config)
}

// connect connects as a client of the CA, and returns the server certificate's serial number. A server's
// refusal of a client certificate comes with the first read.
func connect(t *testing.T, address string, config *tls.Config) (tls.ConnectionState, error) {
	t.Helper()
	config.ServerName = "localhost"
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", address, config)
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	_, err = io.ReadAll(conn)
	return conn.ConnectionState(), err
}

func wantServer(t *testing.T, address string, config *tls.Config, want *healthtest.Leaf) {
	t.Helper()
	state, err := connect(t, address, config)
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	if got := state.PeerCertificates[0].SerialNumber.String(); got != serial(want) {
		t.Fatalf("server certificate %s, want %s", got, serial(want))
	}
}

func TestNoListener(t *testing.T) {
	t.Parallel()
	config, _, err := Listener(t.Context(), &settings.Settings{}, Options{})
	if config != nil || err != nil {
		t.Errorf("Listener gave a configuration or the error %v, want neither", err)
	}
}

func TestListenerRotation(t *testing.T) {
	t.Parallel()
	ca := healthtest.NewCA(t)
	first, second := ca.Server(t), ca.Server(t)
	files := newPairFiles(t, first)
	o, c, e := newOptions()
	// The CA is accepted without verify, and not read.
	address := newListener(t, &settings.Settings{Process: settings.Process{HTTPSCert: files.cert, HTTPSKey: files.key, HTTPSCA: "/does/not/exist"}}, o)
	client := &tls.Config{RootCAs: ca.Pool()}
	wantServer(t, address, client, first)
	if got := e.lastExpiry(); !got.Equal(first.TLS.Leaf.NotAfter) {
		t.Errorf("expiry %v, want that of the first certificate", got)
	}

	files.write(t, second)
	wantServer(t, address, client, first) // not 5 s old
	c.advance(stale)
	wantServer(t, address, client, second)
	wantReload(t, e, ListenerCertificate, "")
	if got := e.lastExpiry(); !got.Equal(second.TLS.Leaf.NotAfter) {
		t.Errorf("expiry %v, want that of the second certificate", got)
	}

	write(t, files.key, first.KeyPEM)
	c.advance(stale)
	wantServer(t, address, client, second)
	wantReload(t, e, ListenerCertificate, "HTTPS_LISTEN_KEY "+files.key+": does not hold the private key of")
	wantServer(t, address, client, second)
	wantNoReload(t, e)
	write(t, files.cert, first.CertPEM)
	wantServer(t, address, client, first)
	wantReload(t, e, ListenerCertificate, "")
}

func TestListenerProtocols(t *testing.T) {
	t.Parallel()
	ca := healthtest.NewCA(t)
	files := newPairFiles(t, ca.Server(t))
	address := newListener(t, &settings.Settings{Process: settings.Process{HTTPSCert: files.cert, HTTPSKey: files.key}}, Options{})
	for _, test := range []struct {
		name     string
		min, max uint16
		offer    []string
		want     string
		wantErr  bool
	}{
		{name: "TLS 1.1", min: tls.VersionTLS10, max: tls.VersionTLS11, wantErr: true},
		{name: "TLS 1.2", max: tls.VersionTLS12, offer: []string{"h2", "http/1.1"}, want: "h2"},
		{name: "TLS 1.3", min: tls.VersionTLS13, offer: []string{"h2", "http/1.1"}, want: "h2"},
		{name: "HTTP/1.1", offer: []string{"http/1.1"}, want: "http/1.1"},
		{name: "no ALPN"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			state, err := connect(t, address, &tls.Config{RootCAs: ca.Pool(), MinVersion: test.min, MaxVersion: test.max, NextProtos: test.offer})
			if (err != nil) != test.wantErr || state.NegotiatedProtocol != test.want {
				t.Errorf("protocol %q, error %v; want %q", state.NegotiatedProtocol, err, test.want)
			}
		})
	}
}

func TestListenerClientCertificates(t *testing.T) {
	t.Parallel()
	ca, before, after := healthtest.NewCA(t), healthtest.NewCA(t), healthtest.NewCA(t)
	server := ca.Server(t)
	files := newPairFiles(t, server)
	roots := before.WriteFile(t, t.TempDir(), "ca")
	o, c, e := newOptions()
	address := newListener(t, &settings.Settings{Process: settings.Process{HTTPSCert: files.cert, HTTPSKey: files.key, HTTPSVerify: true, HTTPSCA: roots}}, o)

	sessions := tls.NewLRUClientSessionCache(8) // a session must not outlive the roots
	as := func(leaf *healthtest.Leaf) *tls.Config {
		// Whatever authorities the server lists.
		return &tls.Config{
			RootCAs: ca.Pool(), ClientSessionCache: sessions,
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &leaf.TLS, nil },
		}
	}
	old, next := before.Client(t), after.Client(t)
	wantServer(t, address, as(old), server)
	if _, err := connect(t, address, as(next)); err == nil {
		t.Error("a client of another CA got in")
	}
	if _, err := connect(t, address, &tls.Config{RootCAs: ca.Pool()}); err == nil {
		t.Error("a client without a certificate got in")
	}

	write(t, roots, after.PEM())
	c.advance(stale)
	wantServer(t, address, as(next), server)
	wantReload(t, e, ListenerRoots, "")
	if _, err := connect(t, address, as(old)); err == nil {
		t.Error("a client of the CA that is gone got in")
	}
}

func TestListenerErrorsAtStart(t *testing.T) {
	t.Parallel()
	ca := healthtest.NewCA(t)
	leaf := ca.Server(t)
	files := newPairFiles(t, leaf)
	torn := newPairFiles(t, leaf)
	write(t, torn.key, ca.Server(t).KeyPEM)
	missing := filepath.Join(t.TempDir(), "missing.pem")
	for _, test := range []struct {
		name     string
		settings settings.Settings
		want     []string
	}{
		{"missing files", settings.Settings{Process: settings.Process{HTTPSCert: missing, HTTPSKey: missing, HTTPSVerify: true, HTTPSCA: missing}}, []string{
			"HTTPS_LISTEN_CERT " + missing + ": no such file or directory",
			"HTTPS_LISTEN_KEY " + missing + ": no such file or directory",
			"HTTPS_LISTEN_CA " + missing + ": no such file or directory",
		}},
		{"torn pair", settings.Settings{Process: settings.Process{HTTPSCert: torn.cert, HTTPSKey: torn.key}}, []string{"does not hold the private key of"}},
		{"no roots", settings.Settings{Process: settings.Process{HTTPSCert: files.cert, HTTPSKey: files.key, HTTPSVerify: true, HTTPSCA: files.key}}, []string{
			"HTTPS_LISTEN_CA " + files.key + ": holds no PEM certificate",
		}},
		{"wrong inline PEM", settings.Settings{Process: settings.Process{HTTPSCert: string(leaf.KeyPEM), HTTPSKey: string(leaf.KeyPEM), HTTPSVerify: true, HTTPSCA: string(leaf.KeyPEM)}}, []string{
			"HTTPS_LISTEN_CERT inline PEM: holds no PEM certificate",
			"HTTPS_LISTEN_CA inline PEM: holds no PEM certificate",
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			config, _, err := Listener(t.Context(), &test.settings, Options{})
			wantError(t, err, test.want...)
			wantNoContent(t, err, leaf.KeyPEM, leaf.CertPEM)
			if config != nil {
				t.Error("a configuration came with the error")
			}
		})
	}
}

func TestToken(t *testing.T) {
	t.Parallel()
	if Token(&settings.Settings{}, Options{}) != nil {
		t.Error("there is a token to present, want none")
	}
	path := filepath.Join(t.TempDir(), "token")
	o, c, e := newOptions()
	allowed := Token(&settings.Settings{Process: settings.Process{AuthTokenFile: path}}, o)
	present := func(presented string, want bool) {
		t.Helper()
		got, err := allowed(t.Context(), presented)
		if err != nil || got != want {
			t.Errorf("presented %q: %v (err %v), want %v", presented, got, err, want)
		}
	}
	deny := func(presented, wantErr string) {
		t.Helper()
		got, err := allowed(t.Context(), presented)
		wantError(t, err, "HTTP_AUTH_TOKEN_FILE "+path+": "+wantErr)
		if got {
			t.Errorf("presented %q: got in although there is no token", presented)
		}
	}
	deny("", "no such file or directory")
	write(t, path, []byte(" \n"))
	deny("", "is empty")
	write(t, path, []byte("one\ntwo"))
	deny("one", "holds something else than one line")

	for _, short := range []string{"x", "12345", "\n 54321 \n"} {
		write(t, path, []byte(short))
		deny(strings.TrimSpace(short), "holds a token of fewer than 6 characters")
	}
	write(t, path, []byte("123456"))
	c.advance(stale)
	present("123456", true)
	wantNoReload(t, e)
	c.advance(stale)

	write(t, path, []byte("\tfirst token\n"))
	for presented, want := range map[string]bool{
		"first token": true, "first": false, "first token\n": false, "": false, "First token": false, "second": false,
	} {
		present(presented, want)
	}
	wantReload(t, e, AuthToken, "")
	write(t, path, []byte("second"))
	present("first token", true) // not 5 s old
	present("second", false)     // another wrong one had it read again within the last 5 s
	c.advance(stale)
	present("second", true)
	present("first token", false)
	wantReload(t, e, AuthToken, "")
	c.advance(freshFor - 1)
	write(t, path, []byte("third token"))
	c.advance(1)
	present("second", true) // 5 s old, and no more
	present("third token", true)
	present("second", false)
	wantReload(t, e, AuthToken, "")

	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	c.advance(stale)
	deny("third token", "no such file or directory")
	wantNoReload(t, e) // the last good one does not stay in use
}

// The last good token lets nobody in once the file holds none, and stays in use where the file only cannot be read.
func TestTokenRightEnds(t *testing.T) {
	t.Parallel()
	const token = "the first token"
	type mount struct {
		dir, path string
		err       error // of each read, where not nil
	}
	must := func(err error) {
		if err != nil {
			t.Error(err)
		}
	}
	holds := func(content string) func(*mount) {
		return func(m *mount) { must(os.WriteFile(m.path, []byte(content), 0o600)) }
	}
	fails := func(err error) func(*mount) { return func(m *mount) { m.err = err } }
	aged := func(change func(*mount), age time.Duration) func(*mount) {
		return func(m *mount) {
			change(m)
			at := time.Now().Add(age)
			must(os.Chtimes(m.path, at, at))
		}
	}
	// The test's clock is 6 s ahead when the file is read again: what was written "just now" has that time.
	now := stale
	for _, test := range []struct {
		name   string
		change func(*mount)
		in     bool // at once
		later  bool // a second later, without a change
	}{
		{"nothing changes", func(*mount) {}, true, true},
		{"written again", holds(" " + token + "\n"), true, true},
		{"removed", func(m *mount) { must(os.Remove(m.path)) }, false, false},
		{"its directory removed", func(m *mount) { must(os.RemoveAll(m.dir)) }, false, false},
		{"its directory replaced by a file", func(m *mount) { must(os.RemoveAll(m.dir)); must(os.WriteFile(m.dir, nil, 0o600)) }, false, false},
		{"replaced by a directory", func(m *mount) { must(os.Remove(m.path)); must(os.Mkdir(m.path, 0o700)) }, false, false},
		{"a link to nothing", func(m *mount) { must(os.Remove(m.path)); must(os.Symlink("nothing", m.path)) }, false, false},
		{"a link to itself", func(m *mount) { must(os.Remove(m.path)); must(os.Symlink("token", m.path)) }, false, false},
		{"not permitted", fails(&fs.PathError{Op: "open", Path: "token", Err: syscall.EACCES}), false, false},
		{"not permitted by policy", fails(&fs.PathError{Op: "open", Path: "token", Err: syscall.EPERM}), false, false},
		{"a secret that is gone", fails(fmt.Errorf("secret: %w", fs.ErrNotExist)), false, false},
		{"emptied some time ago", aged(holds(""), 0), false, false},
		{"only white space, for some time", aged(holds(" \n"), 0), false, false},
		{"too short, for some time", aged(holds("short"), 0), false, false},
		{"two lines, for some time", aged(holds(token+"\n"+token), 0), false, false},
		{"a log by mistake, for some time", aged(holds(strings.Repeat("x", atmost.FileLimit+1)), 0), false, false},
		{"a log by mistake", aged(holds(strings.Repeat("x", atmost.FileLimit+1)), now), true, false},
		{"a device", func(m *mount) { must(os.Remove(m.path)); must(os.Symlink("/dev/zero", m.path)) }, false, false},
		{"being rewritten", aged(holds(""), now), true, false},
		{"being rewritten, line by line", aged(holds("\n"), now), true, false},
		{"being rewritten, character by character", aged(holds("sh"), now), true, false},
		{"rewritten on a machine whose clock is ahead", aged(holds(""), now+time.Hour), true, false},
		{"an I/O error", fails(&fs.PathError{Op: "read", Path: "token", Err: syscall.EIO}), true, true},
		{"a stale handle", fails(&fs.PathError{Op: "open", Path: "token", Err: syscall.ESTALE}), true, true},
		{"too many open files", fails(&fs.PathError{Op: "open", Path: "token", Err: syscall.EMFILE}), true, true},
		{"a time-out", fails(context.DeadlineExceeded), true, true},
		{"a service that does not answer", fails(errors.New("AWS Secrets Manager does not answer")), true, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			m := &mount{dir: filepath.Join(t.TempDir(), "mount")}
			m.path = filepath.Join(m.dir, "token")
			if err := os.Mkdir(m.dir, 0o700); err != nil {
				t.Fatal(err)
			}
			write(t, m.path, []byte(token))
			o, c, e := newOptions()
			o.Read = func(_ context.Context, name string) ([]byte, error) {
				if m.err != nil {
					return nil, m.err
				}
				return atmost.File(name)
			}
			allowed := Token(&settings.Settings{Process: settings.Process{AuthTokenFile: m.path}}, o)
			in := func(when, presented string, want bool) {
				t.Helper()
				got, err := allowed(t.Context(), presented)
				if got != want || want && err != nil {
					t.Errorf("%s %q: let in %t (err %v), want %t", when, presented, got, err, want)
				}
			}
			in("before", token, true)
			test.change(m)
			c.advance(stale)
			in("at once", token, test.in)
			in("at once, another", "some other token", false)
			c.advance(rewriting)
			in("a second later", token, test.later)
			if !test.in && len(e.take()) != 0 {
				t.Error("it says that the last good token stays in use")
			}
			if m.err = nil; os.RemoveAll(m.path) != nil || os.MkdirAll(m.dir, 0o700) != nil {
				return // a file stands in the way of the directory
			}
			write(t, m.path, []byte("the next token"))
			c.advance(stale)
			in("once it holds one again", "the next token", true)
			in("once it holds one again", token, false)
		})
	}
}

// What a slow read has found is no news where a later one has ended.
func TestSlowReadOfTheToken(t *testing.T) {
	t.Parallel()
	r := tokenRight{}
	slow, quick := r.begin(), r.begin()
	r.with(quick)
	if r.unread(slow, fs.ErrNotExist); r.over() {
		t.Error("an earlier read ends the right")
	}
	r.unread(r.begin(), fs.ErrNotExist)
	if r.with(slow); !r.over() {
		t.Error("an earlier read gives the right back")
	}
}

func TestTokenWithinTheContext(t *testing.T) {
	t.Parallel()
	r := newReader()
	defer r.hold()()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	got, err := Token(&settings.Settings{Process: settings.Process{AuthTokenFile: "token"}}, Options{Read: r.read})(ctx, "")
	if got || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "not loaded in time") {
		t.Errorf("let in: %v (err %v), want an error of the deadline", got, err)
	}
}
