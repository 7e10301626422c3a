package creds

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/credentials"

	"example.com/grpc-health-http/internal/clock"
	"example.com/grpc-health-http/internal/settings"
	"example.com/grpc-health-http/test/healthtest"
)

// testClock is a pair of clocks that only a test moves.
type testClock struct {
	mu  sync.Mutex
	now clock.Moment
}

func newClock() *testClock { return &testClock{now: clock.Moment{Wall: time.Now().UnixNano()}} }

func (c *testClock) read() clock.Moment {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *testClock) advance(d time.Duration) { c.move(d, d) }

func (c *testClock) move(wall, mono time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now.Wall += int64(wall)
	c.now.Mono += int64(mono)
}

// stale is the age of what is read again.
const stale = freshFor + time.Second

// events are the calls of Options' callbacks.
type events struct {
	mu      sync.Mutex
	reloads []reload
	expires []time.Time
}

type reload struct {
	what Kind
	err  error
}

func (e *events) reloaded(what Kind, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.reloads = append(e.reloads, reload{what, err})
}

func (e *events) expiry(_ Kind, notAfter time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.expires = append(e.expires, notAfter)
}

// take returns the reloads since the last take.
func (e *events) take() []reload {
	e.mu.Lock()
	defer e.mu.Unlock()
	taken := e.reloads
	e.reloads = nil
	return taken
}

func (e *events) lastExpiry() time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.expires) == 0 {
		return time.Time{}
	}
	return e.expires[len(e.expires)-1]
}

// newOptions returns options for tests: a use waits for its read, however busy the machine is.
func newOptions() (Options, *testClock, *events) {
	c, e := newClock(), &events{}
	return Options{Reload: e.reloaded, Expiry: e.expiry, clock: c.read, patience: 10 * time.Second}, c, e
}

// wantReload checks that one reload of what was reported, which failed with wantErr in its text; with an empty wantErr it
// brought new content.
func wantReload(t *testing.T, e *events, what Kind, wantErr string) {
	t.Helper()
	got := e.take()
	if len(got) != 1 || got[0].what != what {
		t.Fatalf("reloads %v, want one of %s", got, what)
	}
	switch err := got[0].err; {
	case wantErr == "" && err != nil:
		t.Fatalf("reload of %s failed: %v", what, err)
	case wantErr != "" && (err == nil || !strings.Contains(err.Error(), wantErr)):
		t.Fatalf("reload of %s: error %v, want %q in it", what, err, wantErr)
	}
}

func wantNoReload(t *testing.T, e *events) {
	t.Helper()
	if got := e.take(); len(got) != 0 {
		t.Fatalf("reloads %v, want none", got)
	}
}

func wantError(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", parts)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q, want %q in it", err, part)
		}
	}
}

func write(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// pairFiles are a certificate and its key, each in a directory of its own.
type pairFiles struct{ cert, key string }

func newPairFiles(t *testing.T, leaf *healthtest.Leaf) pairFiles {
	t.Helper()
	files := pairFiles{cert: filepath.Join(t.TempDir(), "tls.crt"), key: filepath.Join(t.TempDir(), "tls.key")}
	files.write(t, leaf)
	return files
}

func (f pairFiles) write(t *testing.T, leaf *healthtest.Leaf) {
	t.Helper()
	write(t, f.cert, leaf.CertPEM)
	write(t, f.key, leaf.KeyPEM)
}

func serial(leaf *healthtest.Leaf) string { return leaf.TLS.Leaf.SerialNumber.String() }

// serveTLS serves TLS on loopback and returns the address. It sends each client that it accepts the serial
// number of the client's certificate, or "none".
func serveTLS(t *testing.T, config *tls.Config) string {
	t.Helper()
	config = config.Clone()
	if config.NextProtos == nil {
		config.NextProtos = []string{"h2"}
	}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	t.Cleanup(func() {
		listener.Close()
		serving.Wait()
	})
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
				secured := conn.(*tls.Conn)
				if secured.Handshake() != nil {
					return
				}
				told := "none"
				if peers := secured.ConnectionState().PeerCertificates; len(peers) > 0 {
					told = peers[0].SerialNumber.String()
				}
				fmt.Fprint(secured, told)
			})
		}
	})
	return listener.Addr().String()
}

// handshake connects with tc and returns what serveTLS' server sent.
func handshake(t *testing.T, tc credentials.TransportCredentials, address, serverName string) (told string, info credentials.TLSInfo, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	raw, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	_ = raw.SetDeadline(time.Now().Add(10 * time.Second))
	conn, auth, err := tc.ClientHandshake(ctx, serverName, raw)
	if err != nil {
		return "", credentials.TLSInfo{}, err
	}
	answer, err := io.ReadAll(conn)
	return string(answer), auth.(credentials.TLSInfo), err
}

// wantHandshake gets credentials and connects with them.
func wantHandshake(t *testing.T, transport Transport, address, serverName, want string) credentials.TransportCredentials {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	tc, err := transport(ctx, false)
	if err != nil {
		t.Fatalf("credentials: %v", err)
	}
	told, _, err := handshake(t, tc, address, serverName)
	if err != nil || told != want {
		t.Fatalf("the server saw the certificate %q (err %v), want %q", told, err, want)
	}
	return tc
}

// reader is a Read of contents that a test sets; it counts, and can be made to wait.
type reader struct {
	mu       sync.Mutex
	contents map[string][]byte
	errs     map[string]error
	gate     chan struct{} // reads wait until it is closed; nil lets them pass
	reads    int
	after    int // reads until then is called; below 1 it was
	then     func()
}

func newReader() *reader {
	return &reader{contents: map[string][]byte{}, errs: map[string]error{}}
}

func (r *reader) set(name string, content []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.contents[name], r.errs[name] = content, nil
}

func (r *reader) fail(name string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.errs[name] = err
}

// hold makes reads that begin from now on wait; they bring what is there when release is called.
func (r *reader) hold() (release func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	gate := make(chan struct{})
	r.gate = gate
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.gate == gate {
			r.gate = nil
		}
		close(gate)
	}
}

// afterReads calls then, once, when n more reads have ended.
func (r *reader) afterReads(n int, then func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.after, r.then = n, then
}

func (r *reader) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.reads
}

func (r *reader) read(ctx context.Context, name string) ([]byte, error) {
	r.mu.Lock()
	gate := r.gate
	r.reads++
	r.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	r.mu.Lock()
	content, ok := r.contents[name]
	err := r.errs[name]
	r.after--
	last := r.after == 0
	r.mu.Unlock()
	if last {
		r.then()
	}
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, errors.New("no such secret")
	}
	return slices.Clone(content), nil
}

// misplaced are secrets as people write them where a path belongs.
var misplaced = []string{
	"hunter2-hunter2", "/hunter2", "./hunter2", "correct horse battery staple.key", "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
	"/Q8f3kE7m9Zr2/pX4vT6nB1cD5sG8hJ0", "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgevZzL1gdAFr88hb2OF/2NxApJCzGCEDdfSp6VQO30hyhRANCAAQ",
	"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U", strings.Repeat("long-", 1000), "with\x00zero",
}

// No error and no report shows a secret in the place of a path, whatever the system says of it.
func TestMisplacedSecretsAreNotShown(t *testing.T) {
	t.Parallel()
	ca := healthtest.NewCA(t)
	pair := newPairFiles(t, ca.Server(t))
	for _, secret := range misplaced {
		for name, use := range map[string]func(o Options) error{
			"CA_CERT": func(o Options) error {
				_, err := newTransport(t, &settings.Upstream{TLS: true, CACert: secret}, o)(t.Context(), false)
				return err
			},
			"CLIENT_CERT": func(o Options) error {
				_, err := newTransport(t, &settings.Upstream{TLS: true, ClientCert: secret, ClientKey: pair.key}, o)(t.Context(), false)
				return err
			},
			"CLIENT_KEY": func(o Options) error {
				_, err := newTransport(t, &settings.Upstream{TLS: true, ClientCert: pair.cert, ClientKey: secret}, o)(t.Context(), false)
				return err
			},
			"RPC_HEADERS x-key": func(o Options) error {
				_, err := Metadata(&settings.Upstream{Headers: []settings.Header{{Name: "x-key", File: secret}}}, o, nil)(t.Context())
				return err
			},
			"HTTP_AUTH_TOKEN_FILE": func(o Options) error {
				_, err := Token(&settings.Settings{Process: settings.Process{AuthTokenFile: secret}}, o)(t.Context(), "presented")
				return err
			},
			"HTTPS_LISTEN_KEY": func(o Options) error {
				_, _, err := Listener(t.Context(), &settings.Settings{Process: settings.Process{HTTPSCert: pair.cert, HTTPSKey: secret}}, o)
				return err
			},
			"HTTPS_LISTEN_CA": func(o Options) error {
				_, _, err := Listener(t.Context(), &settings.Settings{Process: settings.Process{HTTPSCert: pair.cert, HTTPSKey: pair.key, HTTPSVerify: true, HTTPSCA: secret}}, o)
				return err
			},
		} {
			o, _, _ := newOptions()
			err := use(o)
			wantError(t, err, name)
			if err != nil && strings.Contains(err.Error(), secret) {
				t.Errorf("%s: shown: %.200v", name, err)
			}
		}
	}
}
