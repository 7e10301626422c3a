package serve

import (
	"bufio"
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/big"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// patience bounds what a test waits for; nothing is expected to take anywhere near it.
const patience = 20 * time.Second

// brief is a time-out that a test waits for. What has to come before it has time enough on a busy machine too.
const brief = 3 * time.Second

var ok = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok\n") })

func listen(t *testing.T) net.Listener {
	t.Helper()
	return listenOn(t, "127.0.0.1")
}

// listenOn listens on an address of this machine. Its ports are given to nobody else once they are free again, where no other test
// listens on that address.
func listenOn(t *testing.T, host string) net.Listener {
	t.Helper()
	listeners, err := Listen(t.Context(), Port{"TEST_ADDR", net.JoinHostPort(host, "0")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listeners[0].Close() })
	return listeners[0]
}

// start serves until the test ends it with drain, or is over.
func start(t *testing.T, s Server) *running {
	t.Helper()
	return startLogging(t, slog.New(slog.DiscardHandler), s)
}

func startLogging(t *testing.T, logger *slog.Logger, s Server) *running {
	t.Helper()
	if s.Listener == nil {
		s.Listener = listen(t)
	}
	s.Budget = cmp.Or(s.Budget, time.Hour) // however slow this machine is
	failed := make(chan error, 1)
	r := begin(s, logger, failed)
	t.Cleanup(func() {
		r.conns.stopped.Store(true)
		r.http.Close()
		select {
		case err := <-failed:
			t.Errorf("the server failed: %v", err)
		default:
		}
	})
	return r
}

func (r *running) address() string { return r.conns.Addr().String() }

// url is without a path.
func (r *running) url() string {
	if r.conns.secure {
		return "https://" + r.address()
	}
	return "http://" + r.address()
}

// evictable is the number of connections that would make room.
func (r *running) evictable() (n int) {
	r.conns.mu.Lock()
	defer r.conns.mu.Unlock()
	for e := r.conns.order.Front(); e != nil; e = e.Next() {
		if !e.Value.(*conn).busy() {
			n++
		}
	}
	return n
}

// unanswered is the number of requests of which the table knows that bytes have been read.
func (r *running) unanswered() (n int) {
	r.conns.mu.Lock()
	defer r.conns.mu.Unlock()
	for c := range r.conns.open {
		n += c.requests.unanswered()
	}
	return n
}

// readListener counts the bytes that are read of the connections that it accepts.
type readListener struct {
	net.Listener
	mu   sync.Mutex
	read map[string]int // bytes, by the caller's address
	seen map[string]int // those of them after which the server has read on
}

func listenRead(t *testing.T) *readListener {
	return &readListener{Listener: listen(t), read: make(map[string]int), seen: make(map[string]int)}
}

func (l *readListener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.add(nc.RemoteAddr(), 0)
	return readConn{nc, l}, nil
}

func (l *readListener) add(caller net.Addr, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.read[caller.String()] += n
}

// bytes is how many have been read of a connection; -1 says that it has not been accepted.
func (l *readListener) bytes(c net.Conn) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, accepted := l.read[c.LocalAddr().String()]
	if !accepted {
		return -1
	}
	return n
}

// waitRead waits until as many bytes have been read of a connection, of all that it has sent, and the server has noted them: it reads on.
func (l *readListener) waitRead(t *testing.T, c net.Conn, n int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d bytes are read", n), func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		_, accepted := l.read[c.LocalAddr().String()]
		return accepted && l.seen[c.LocalAddr().String()] >= n
	})
}

type readConn struct {
	net.Conn
	l *readListener
}

func (c readConn) CloseWrite() error { return c.Conn.(*net.TCPConn).CloseWrite() }

func (c readConn) Read(p []byte) (int, error) {
	c.l.mu.Lock()
	c.l.seen[c.RemoteAddr().String()] = c.l.read[c.RemoteAddr().String()]
	c.l.mu.Unlock()
	n, err := c.Conn.Read(p)
	c.l.add(c.RemoteAddr(), n)
	return n, err
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for limit := time.Now().Add(patience); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

func wait(t *testing.T, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(patience):
		t.Fatalf("waited in vain: %s", what)
	}
}

// client is one connection; unlike http.Client it never tries again.
type client struct {
	net.Conn
	buffered *bufio.Reader
}

func dial(t *testing.T, address string) *client {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return &client{c, bufio.NewReader(c)}
}

// dialTLS speaks HTTP/1.1, or the protocol given.
func dialTLS(t *testing.T, address string, protocols ...string) *client {
	t.Helper()
	c := dial(t, address)
	secure := tls.Client(c.Conn, &tls.Config{InsecureSkipVerify: true, NextProtos: protocols})
	if err := secure.Handshake(); err != nil {
		t.Fatal(err)
	}
	return &client{secure, bufio.NewReader(secure)}
}

const get = "GET / HTTP/1.1\r\nHost: test\r\n\r\n"

func (c *client) ask(request string) (*http.Response, error) {
	if _, err := io.WriteString(c, request); err != nil {
		return nil, err
	}
	return c.answer()
}

func (c *client) answer() (*http.Response, error) {
	response, err := http.ReadResponse(c.buffered, nil)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(response.Body)
	response.Body = io.NopCloser(strings.NewReader(string(body)))
	return response, err
}

func TestListen(t *testing.T) {
	t.Parallel()
	taken := listen(t).Addr().String()
	free := listenOn(t, "127.0.0.4")
	free.Close()
	address := free.Addr().String()

	_, err := Listen(t.Context(), Port{"HTTP_ADDR", address}, Port{"METRICS_ADDR", taken})
	if err == nil || err.Error() != "METRICS_ADDR: listen "+taken+": address already in use: choose another port, or stop what listens there" {
		t.Errorf("taken port: %v", err)
	}
	// All or none: the port that was free is so again. And both take connections before anything
	// is served.
	listeners, err := Listen(t.Context(), Port{"HTTP_ADDR", address}, Port{"METRICS_ADDR", "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	if listeners[0].Addr().String() != address {
		t.Errorf("the listeners are in another order: the first is %v", listeners[0].Addr())
	}
	for _, l := range listeners {
		defer l.Close()
		dial(t, l.Addr().String())
	}

	_, err = Listen(t.Context(), Port{"A", "s3cret"}, Port{"B", "127.0.0.1:s3cret"}, Port{"C", "192.0.2.1:80"}, Port{"D", taken})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"A: listen: missing port", "B: listen: ", "C: listen 192.0.2.1:80: ", "D: listen " + taken + ": ", "this machine"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error has no %q:\n%v", want, err)
		}
	}
	if strings.Contains(err.Error(), "s3cret") {
		t.Errorf("the error repeats a text that is no address:\n%v", err)
	}
}

// An error without advice of its own names the address, too.
func TestListenOtherError(t *testing.T) {
	t.Parallel()
	cause := syscall.EAFNOSUPPORT
	err := advise(&net.OpError{Op: "listen", Net: "tcp", Addr: &net.TCPAddr{Port: 4711}, Err: cause})
	if !errors.Is(err, cause) || !strings.Contains(err.Error(), "listen :4711: ") {
		t.Errorf("got %v, want %v", err, cause)
	}
}

func TestRun(t *testing.T) {
	t.Parallel()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	health, metrics := listenOn(t, "127.0.0.5"), listenOn(t, "127.0.0.5")
	done := make(chan error, 1)
	go func() {
		done <- Run(ctx, slog.New(slog.DiscardHandler), patience,
			Server{Name: "health", Listener: health, Handler: ok, TLS: &tls.Config{Certificates: []tls.Certificate{certificate(t)}}},
			Server{Name: "metrics", Listener: metrics, Handler: ok})
	}()
	for _, address := range []string{"https://" + health.Addr().String(), "http://" + metrics.Addr().String()} {
		response, err := httpClient(t, true).Get(address)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != 200 || response.ProtoMajor != 2 {
			t.Errorf("%s: got %s %s", address, response.Proto, response.Status)
		}
	}
	stop()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("the end is not clean: %v", err)
		}
	case <-time.After(patience):
		t.Fatal("Run does not return")
	}
	for _, l := range []net.Listener{health, metrics} {
		if c, err := net.Dial("tcp", l.Addr().String()); err == nil {
			c.Close()
			t.Errorf("%v still takes connections", l.Addr())
		}
	}
}

// The end of one server is the end of all, and Run says which it was.
func TestRunFails(t *testing.T) {
	t.Parallel()
	health, metrics := listenOn(t, "127.0.0.5"), listenOn(t, "127.0.0.5")
	done := make(chan error, 1)
	go func() {
		done <- Run(t.Context(), slog.New(slog.DiscardHandler), patience,
			Server{Name: "health", Listener: health, Handler: ok}, Server{Name: "metrics", Listener: metrics, Handler: ok})
	}()
	metrics.Close()
	select {
	case err := <-done:
		if !errors.Is(err, net.ErrClosed) || !strings.HasPrefix(err.Error(), "serve metrics: ") {
			t.Errorf("got %v", err)
		}
	case <-time.After(patience):
		t.Fatal("Run does not return")
	}
	if c, err := net.Dial("tcp", health.Addr().String()); err == nil {
		c.Close()
		t.Error("the other server still takes connections")
	}
}

// A caller that hangs up ends its request's context, also over a connection that was kept.
func TestCallerHangsUp(t *testing.T) {
	t.Parallel()
	const before = 3 // requests that are answered
	begun, ended := make(chan struct{}), make(chan struct{})
	var requests atomic.Int32
	r := start(t, Server{Budget: time.Hour, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if requests.Add(1) <= before {
			return
		}
		close(begun)
		<-r.Context().Done()
		close(ended)
	})})
	c := dial(t, r.address())
	for range before {
		if _, err := c.ask(get); err != nil {
			t.Fatal(err)
		}
	}
	io.WriteString(c, get)
	wait(t, "the request arrives", begun)
	c.Close()
	wait(t, "the request's context ends", ended)
}

// Some files are always left for what is no connection of a caller.
func TestShare(t *testing.T) {
	t.Parallel()
	for _, files := range []int{64, 1024, 1 << 20, math.MaxInt} {
		health, aside := share(files, false), share(files, true)
		if health < files/2 || aside < 1 || health > files-aside-files/8 {
			t.Errorf("%d files: %d and %d connections", files, health, aside)
		}
	}
}

func TestSlowHeaders(t *testing.T) {
	t.Parallel()
	r := start(t, Server{Handler: ok, HeaderTimeout: brief})
	used := dial(t, r.address())
	if _, err := used.ask(get); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]*client{"first request": dial(t, r.address()), "second request": used} {
		io.WriteString(c, get[:len(get)-2])
		// A reset, where the bytes came after the time was up already.
		if _, err := c.buffered.ReadByte(); err != io.EOF && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: got %v, want the connection closed", name, err)
		}
	}
}

func TestLongHeaders(t *testing.T) {
	t.Parallel()
	r := start(t, Server{Handler: ok})
	long := func(n int) string {
		return "GET / HTTP/1.1\r\nHost: test\r\nX-Long: " + strings.Repeat("x", n) + "\r\n\r\n"
	}
	if response, err := dial(t, r.address()).ask(long(8 << 10)); err != nil || response.StatusCode != 200 {
		t.Errorf("8 KiB: got %v, %v, want 200", response, err)
	}
	c := dial(t, r.address())
	go io.WriteString(c, long(64<<10))
	if response, err := c.answer(); err != nil || response.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("64 KiB: got %v, %v, want 431", response, err)
	}
}

// Nobody waits for a body that nobody reads, neither for the answer nor, for long, to end the connection.
func TestBodyIsNotRead(t *testing.T) {
	t.Parallel()
	r := start(t, Server{Handler: ok, Budget: time.Hour})
	for _, length := range []string{"Content-Length: 1000", "Content-Length: 1000000000", "Transfer-Encoding: chunked"} {
		c := dial(t, r.address())
		response, err := c.ask("POST / HTTP/1.1\r\nHost: test\r\n" + length + "\r\n\r\n")
		if err != nil || response.StatusCode != 200 || !response.Close {
			t.Errorf("%s: got %+v, %v, want 200 and Connection: close", length, response, err)
		}
		if _, err := c.buffered.ReadByte(); err != io.EOF {
			t.Errorf("%s: after the answer got %v, want the connection closed", length, err)
		}
	}
}

func TestEveryRequestReachesTheHandler(t *testing.T) {
	t.Parallel()
	r := start(t, Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })})
	response, err := dial(t, r.address()).ask("OPTIONS * HTTP/1.1\r\nHost: test\r\n\r\n")
	if err != nil || response.StatusCode != http.StatusTeapot {
		t.Errorf("got %v, %v, want the handler's answer", response, err)
	}
}

// The time to write must not end before the handler's budget does.
func TestTimeouts(t *testing.T) {
	t.Parallel()
	s := start(t, Server{Handler: ok, Budget: time.Minute}).http
	if d := s.WriteTimeout; d <= time.Minute || d > 2*time.Minute {
		t.Errorf("the time to write is %v for a budget of a minute", d)
	}
	if s.ReadHeaderTimeout != defaultHeaderTimeout || s.IdleTimeout <= 600*time.Second {
		t.Errorf("header timeout %v, idle timeout %v", s.ReadHeaderTimeout, s.IdleTimeout)
	}
}

// A handler's panic is an error in the log, with where it happened, and ends its connection alone. Many make one line.
func TestPanic(t *testing.T) {
	t.Parallel()
	secure := &tls.Config{Certificates: []tls.Certificate{certificate(t)}}
	for name, config := range map[string]*tls.Config{"HTTP/1.1": secure, "HTTP/2.0": secure, "HTTP/2.0 without TLS": nil} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			protocol, _, _ := strings.Cut(name, " ")
			var log lockedBuilder
			r := startLogging(t, slog.New(slog.NewTextHandler(&log, nil)), Server{
				TLS: config,
				Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path == "/broken" {
						panicsHere()
					}
					io.WriteString(w, r.Proto)
				}),
			})
			c := httpClient(t, protocol == "HTTP/2.0")
			for range 10 {
				if response, err := c.Get(r.url() + "/broken"); err == nil {
					response.Body.Close()
					t.Errorf("got %s, want no answer", response.Status)
				}
			}
			response, err := c.Get(r.url())
			if err != nil {
				t.Fatal(err)
			}
			response.Body.Close()
			if response.StatusCode != 200 || response.Proto != protocol {
				t.Errorf("after a panic: %s %s", response.Proto, response.Status)
			}
			text := log.String()
			if !strings.Contains(text, "level=ERROR") || !strings.Contains(text, "panic=broken") || !strings.Contains(text, "panicsHere") {
				t.Errorf("the log has no panic: %q", text)
			}
			if n := strings.Count(text, "\n"); n >= 10 {
				t.Errorf("10 panics at once make %d lines", n)
			}
		})
	}
}

func panicsHere() { panic("broken") }

// A handler that wants its connection cut off, as http.ErrAbortHandler does, is no error.
func TestAbortHandler(t *testing.T) {
	t.Parallel()
	var log lockedBuilder
	r := startLogging(t, slog.New(slog.NewTextHandler(&log, nil)), Server{
		Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }),
	})
	if response, err := dial(t, r.address()).ask(get); err == nil {
		t.Errorf("got %s, want no answer", response.Status)
	}
	if log.String() != "" {
		t.Errorf("the log has %q", log.String())
	}
}

// What callers do wrong is for those who debug: port scanners, load balancers that only connect.
func TestCallersDoNotFillTheLog(t *testing.T) {
	t.Parallel()
	var info, debug lockedBuilder
	for log, level := range map[*lockedBuilder]slog.Level{&info: slog.LevelInfo, &debug: slog.LevelDebug} {
		logger := slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: level}))
		r := startLogging(t, logger, Server{Handler: ok, TLS: &tls.Config{Certificates: []tls.Certificate{certificate(t)}}})
		dial(t, r.address()).Close()
		// An answer, or none, and then the end: the server has done what it does about it.
		c := dial(t, r.address())
		io.WriteString(c, get)
		io.Copy(io.Discard, c.buffered)
	}
	eventually(t, "a debug line", func() bool { return strings.Contains(debug.String(), "level=DEBUG") })
	if info.String() != "" {
		t.Errorf("the log has %q", info.String())
	}
}

// exhausted is a listener whose first calls of Accept find no free file descriptor.
type exhausted struct {
	net.Listener
	left atomic.Int32
}

func (l *exhausted) Accept() (net.Conn, error) {
	if l.left.Add(-1) >= 0 {
		return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.Addr(), Err: os.NewSyscallError("accept4", syscall.EMFILE)}
	}
	return l.Listener.Accept()
}

// A server that runs out of file descriptors says so once, and serves when it has some again.
func TestAcceptFails(t *testing.T) {
	t.Parallel()
	var log lockedBuilder
	l := &exhausted{Listener: listen(t)}
	l.left.Store(5)
	r := startLogging(t, slog.New(slog.NewTextHandler(&log, nil)), Server{Handler: ok, Listener: l})
	if response, err := dial(t, r.address()).ask(get); err != nil || response.StatusCode != 200 {
		t.Errorf("got %v, %v, want 200", response, err)
	}
	if n := strings.Count(log.String(), "\n"); n != 1 || !strings.Contains(log.String(), "level=WARN") || !strings.Contains(log.String(), "too many open files") {
		t.Errorf("5 errors make %d lines, want one warning: %s", n, log.String())
	}
}

// lockedBuilder is a log that may be read while it is written.
type lockedBuilder struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedBuilder) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuilder) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// httpClient is a client of its own that takes any certificate, and speaks HTTP/1.1, or HTTP/2 with TLS and without.
func httpClient(t *testing.T, http2 bool) *http.Client {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!http2)
	protocols.SetHTTP2(http2)
	protocols.SetUnencryptedHTTP2(http2)
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, Protocols: protocols}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: patience}
}

func certificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotAfter:     time.Now().Add(time.Hour),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
