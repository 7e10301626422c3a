package serve

import (
	"bufio"
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
	"runtime/metrics"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// patience bounds what a test waits for; nothing is expected to take anywhere near it.
const patience = 20 * time.Second

// parkTimes are when connections park: as they do where nothing is set, and whenever they are idle.
var parkTimes = [2]time.Duration{0, 1}

var ok = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok\n") })

func listen(t *testing.T) net.Listener {
	t.Helper()
	listeners, err := Listen(t.Context(), Port{"TEST_ADDR", "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listeners[0].Close() })
	return listeners[0]
}

// start serves until the test ends it with end, or is over.
func start(t *testing.T, s Server) *running {
	t.Helper()
	s.Listener = listen(t)
	failed := make(chan error, 1)
	r := begin(s, slog.New(slog.DiscardHandler), failed)
	t.Cleanup(func() {
		r.conns.stop()
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

// endInBackground drains the server and returns when the drain has begun; the channel is closed
// when it is over.
func (r *running) endInBackground(t *testing.T, grace, linger time.Duration) <-chan struct{} {
	t.Helper()
	over := make(chan struct{})
	go func() {
		defer close(over)
		ctx, cancel := context.WithTimeout(context.Background(), grace)
		defer cancel()
		r.end(ctx, linger)
	}()
	eventually(t, "the drain begins", r.conns.draining)
	return over
}

// idle is the number of connections without a request.
func (cs *connections) idle() (n int) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	for c := range cs.all {
		c.mu.Lock()
		if !c.busy {
			n++
		}
		c.mu.Unlock()
	}
	return n
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
	free := listen(t)
	free.Close()
	address := free.Addr().String()

	_, err := Listen(t.Context(), Port{"HTTP_ADDR", address}, Port{"METRICS_ADDR", taken})
	if err == nil || err.Error() != "METRICS_ADDR: listen: address already in use: choose another port, or stop what listens there" {
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
	for _, want := range []string{"A: listen: missing port", "B: listen: ", "C: listen: ", "D: listen: ", "this machine"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error has no %q:\n%v", want, err)
		}
	}
	for _, value := range []string{"s3cret", "192.0.2.1", taken} {
		if strings.Contains(err.Error(), value) {
			t.Errorf("the error repeats %q:\n%v", value, err)
		}
	}
}

// An error without advice of its own does not repeat the address either.
func TestListenOtherError(t *testing.T) {
	t.Parallel()
	cause := syscall.EAFNOSUPPORT
	err := advise(&net.OpError{Op: "listen", Net: "tcp", Addr: &net.TCPAddr{Port: 4711}, Err: cause})
	if !errors.Is(err, cause) || strings.Contains(err.Error(), "4711") {
		t.Errorf("got %v, want %v", err, cause)
	}
}

func TestRun(t *testing.T) {
	t.Parallel()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	health, metrics := listen(t), listen(t)
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
		if response.StatusCode != 200 {
			t.Errorf("%s: got %s", address, response.Status)
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
	health, metrics := listen(t), listen(t)
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

// Clients that ask without a pause over kept connections get an answer to each request, up to one
// that says Connection: close.
func TestDrainUnderLoad(t *testing.T) {
	t.Parallel()
	for i := range 40 {
		r := start(t, Server{Handler: ok, parkAfter: parkTimes[i%2]})
		var answered atomic.Int32
		var clients sync.WaitGroup
		for range 16 {
			c := dial(t, r.address())
			clients.Go(func() {
				for n := 1; ; n++ {
					response, err := c.ask(get)
					if err != nil {
						t.Errorf("request %d is lost: %v", n, err)
						return
					}
					answered.Add(1)
					if response.Close {
						return
					}
				}
			})
		}
		// Connections that the server has not taken yet are the kernel's to refuse.
		eventually(t, "the load is on", func() bool { return r.conns.open() == 16 && answered.Load() > 200 })
		over := r.endInBackground(t, patience, linger)
		clients.Wait()
		wait(t, "the drain ends", over)
		if t.Failed() {
			return
		}
	}
}

// Requests that reach open connections just after the end began are answered.
func TestRequestsOnTheirWay(t *testing.T) {
	t.Parallel()
	for _, parkAfter := range parkTimes {
		t.Run(parkAfter.String(), func(t *testing.T) {
			t.Parallel()
			requestsOnTheirWay(t, parkAfter)
		})
	}
}

func requestsOnTheirWay(t *testing.T, parkAfter time.Duration) {
	r := start(t, Server{Handler: ok, parkAfter: parkAfter})
	used, unused := dial(t, r.address()), dial(t, r.address())
	if response, err := used.ask(get); err != nil || response.Close {
		t.Fatalf("before the end: %v, %v", response, err)
	}
	eventually(t, "both connections are taken", func() bool { return r.conns.open() == 2 })
	over := r.endInBackground(t, patience, patience)
	for name, c := range map[string]*client{"used": used, "unused": unused} {
		response, err := c.ask(get)
		if err != nil || response.StatusCode != 200 || !response.Close {
			t.Errorf("%s connection: got %+v, %v, want 200 and Connection: close", name, response, err)
		}
		if _, err := c.buffered.ReadByte(); err != io.EOF {
			t.Errorf("%s connection: got %v, want it closed", name, err)
		}
	}
	wait(t, "the drain ends", over)
}

// Idle connections are closed long before the grace period ends, a request that has begun to
// arrive is not.
func TestHeadersHalfRead(t *testing.T) {
	t.Parallel()
	for _, parkAfter := range parkTimes {
		t.Run(parkAfter.String(), func(t *testing.T) {
			t.Parallel()
			headersHalfRead(t, parkAfter)
		})
	}
}

func headersHalfRead(t *testing.T, parkAfter time.Duration) {
	r := start(t, Server{Handler: ok, HeaderTimeout: patience, parkAfter: parkAfter})
	idle, unused, halfway := dial(t, r.address()), dial(t, r.address()), dial(t, r.address())
	if _, err := idle.ask(get); err != nil {
		t.Fatal(err)
	}
	io.WriteString(halfway, get[:10])
	eventually(t, "the first bytes are read", func() bool { return r.conns.open() == 3 && r.conns.idle() == 2 })
	over := r.endInBackground(t, patience, time.Millisecond)
	for name, c := range map[string]*client{"idle": idle, "unused": unused} {
		if _, err := c.buffered.ReadByte(); err != io.EOF {
			t.Errorf("%s connection: got %v, want it closed", name, err)
		}
	}
	if response, err := halfway.ask(get[10:]); err != nil || response.StatusCode != 200 || !response.Close {
		t.Errorf("got %+v, %v, want 200 and Connection: close", response, err)
	}
	wait(t, "the drain ends", over)
}

// An answer under way when the end comes is sent, and says that it is the last.
func TestRequestUnderWay(t *testing.T) {
	t.Parallel()
	tests := map[string]http.HandlerFunc{
		"explicit status": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) },
		"body":            func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok\n") },
		"nothing":         func(http.ResponseWriter, *http.Request) {},
	}
	for name, answer := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			begun, release := make(chan struct{}), make(chan struct{})
			r := start(t, Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				close(begun)
				<-release
				if r.Context().Err() != nil {
					w.Header().Set("Cancelled", "yes")
				}
				answer(w, r)
			})})
			c := dial(t, r.address())
			io.WriteString(c, get)
			wait(t, "the request arrives", begun)
			idle := dial(t, r.address())
			over := r.endInBackground(t, patience, time.Millisecond)
			if _, err := idle.buffered.ReadByte(); err == nil {
				t.Error("the idle connection got bytes")
			}
			close(release)
			response, err := c.answer()
			if err != nil || !response.Close || response.Header.Get("Cancelled") != "" {
				t.Errorf("got %+v, %v, want an answer with Connection: close", response, err)
			}
			wait(t, "the drain ends", over)
		})
	}
}

// A caller that hangs up ends its request, over connections that paused before as well.
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

// A request that comes while another one is answered is answered after it, no matter whether net/http has read ahead.
func TestRequestBesideAnother(t *testing.T) {
	t.Parallel()
	for name, reads := range map[string]bool{"in the pause": false, "after it": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			begun, release := make(chan struct{}), make(chan struct{})
			var requests atomic.Int32
			r := start(t, Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if requests.Add(1) == 1 {
					close(begun)
					<-release
				}
				io.WriteString(w, "ok\n")
			})})
			c := dial(t, r.address())
			io.WriteString(c, get)
			wait(t, "the request arrives", begun)
			if reads {
				eventually(t, "net/http reads ahead", func() bool {
					r.conns.mu.Lock()
					defer r.conns.mu.Unlock()
					for c := range r.conns.all {
						c.mu.Lock()
						defer c.mu.Unlock()
						return c.reading && !c.paused
					}
					return false
				})
			}
			io.WriteString(c, get)
			close(release)
			for i := range 2 {
				if response, err := c.answer(); err != nil || response.StatusCode != 200 {
					t.Errorf("request %d: got %+v, %v, want 200", i, response, err)
				}
			}
		})
	}
}

// A connection that parks between its requests is the same one to its caller, and its last request is the last.
func TestParked(t *testing.T) {
	t.Parallel()
	r := start(t, Server{Handler: ok, parkAfter: 1})
	c := dial(t, r.address())
	for i := range 5 {
		if response, err := c.ask(get); err != nil || response.StatusCode != 200 || response.Close {
			t.Fatalf("request %d: got %+v, %v, want 200", i, response, err)
		}
		eventually(t, "the connection parks", func() bool { return r.reads(func(c *conn) bool { return !c.busy && !c.answered }) })
	}
	if response, err := c.ask(strings.Replace(get, "\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1)); err != nil || !response.Close {
		t.Errorf("got %+v, %v, want an answer with Connection: close", response, err)
	}
	if _, err := c.buffered.ReadByte(); err != io.EOF {
		t.Errorf("got %v, want the connection closed", err)
	}
	eventually(t, "the connection is forgotten", func() bool { return r.conns.open() == 0 })
	gone := dial(t, r.address())
	gone.ask(get)
	eventually(t, "another one parks", func() bool { return r.reads(func(c *conn) bool { return !c.busy && !c.answered }) })
	gone.Close()
	eventually(t, "what its caller has closed is forgotten", func() bool { return r.conns.open() == 0 })
}

// reads says whether there is one connection, from which the server reads, and for which that holds.
func (r *running) reads(holds func(*conn) bool) bool {
	r.conns.mu.Lock()
	defer r.conns.mu.Unlock()
	for c := range r.conns.all {
		c.mu.Lock()
		defer c.mu.Unlock()
		return len(r.conns.all) == 1 && c.reading && holds(c)
	}
	return false
}

// What came along with the request before is not lost where a connection could park: too few bytes for net/http to
// begin, the first of a line, and a whole line, after which net/http holds none that it has not taken in.
func TestRestIsKept(t *testing.T) {
	t.Parallel()
	for _, rest := range []int{3, 5, len("GET / HTTP/1.1\r\n")} {
		r := start(t, Server{Handler: ok, parkAfter: 1})
		c := dial(t, r.address())
		request := get
		for i := range 3 {
			response, err := c.ask(request + get[:rest])
			if err != nil || response.StatusCode != 200 {
				t.Fatalf("%d bytes, request %d: got %+v, %v, want 200", rest, i, response, err)
			}
			eventually(t, "the server reads on", func() bool { return r.reads(func(c *conn) bool { return !c.answering }) })
			request = get[rest:]
		}
	}
}

// What a wave of connections has taken is given back.
func TestTidy(t *testing.T) {
	read := func(name string) int64 {
		s := []metrics.Sample{{Name: name}}
		metrics.Read(s)
		return int64(s[0].Value.Uint64())
	}
	resident := func() int64 { return read("/memory/classes/total:bytes") - read("/memory/classes/heap/released:bytes") }
	const forced = "/gc/cycles/forced:gc-cycles" // without these it takes the runtime longer
	before, collected := resident(), read(forced)
	var deep func(n int) byte
	deep = func(n int) byte {
		var frame [1 << 10]byte
		if n > 0 {
			frame[n] = deep(n - 1)
		}
		return frame[n]
	}
	r := start(t, Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Write([]byte{deep(200)})
	})})
	for range 2 * wave {
		if _, err := dial(t, r.address()).ask(get); err != nil {
			t.Fatal(err)
		}
	}
	most := resident() - before
	eventually(t, "most of the memory is given back", func() bool { return resident()-before < most/2 && read(forced) > collected })
}

func TestGraceEnds(t *testing.T) {
	t.Parallel()
	begun, cancelled := make(chan struct{}), make(chan struct{})
	var log lockedBuilder
	l := listen(t)
	r := begin(Server{Listener: l, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(begun)
		<-r.Context().Done()
		close(cancelled)
	})}, slog.New(slog.NewTextHandler(&log, nil)), make(chan error, 1))
	c := dial(t, l.Addr().String())
	io.WriteString(c, get)
	wait(t, "the request arrives", begun)
	wait(t, "the drain ends", r.endInBackground(t, 10*time.Millisecond, time.Millisecond))
	wait(t, "the request is cancelled", cancelled)
	if _, err := c.buffered.ReadByte(); err == nil {
		t.Error("the connection got bytes")
	}
	if !strings.Contains(log.String(), "level=WARN") || !strings.Contains(log.String(), "connections=1") {
		t.Errorf("no warning of what was cut off: %q", log.String())
	}
}

// Over HTTP/2 a request under way is answered, and clients are told to go elsewhere.
func TestDrainHTTP2(t *testing.T) {
	t.Parallel()
	for _, protocol := range []string{"HTTP/2.0", "HTTP/1.1"} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			begun, release := make(chan struct{}), make(chan struct{})
			r := start(t, Server{
				TLS: &tls.Config{Certificates: []tls.Certificate{certificate(t)}},
				Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path == "/slow" {
						close(begun)
						<-release
					}
					io.WriteString(w, r.Proto)
				}),
			})
			browser := httpClient(t, protocol == "HTTP/2.0")
			fetch := func(path string) string {
				response, err := browser.Get("https://" + r.address() + path)
				if err != nil {
					return err.Error()
				}
				defer response.Body.Close()
				body, err := io.ReadAll(response.Body)
				return fmt.Sprint(string(body), err)
			}
			want := fmt.Sprint(protocol, nil)
			if got := fetch("/"); got != want {
				t.Fatalf("before the end: got %s, want %s", got, want)
			}
			slow := make(chan string, 1)
			go func() { slow <- fetch("/slow") }()
			wait(t, "the request arrives", begun)
			over := r.endInBackground(t, patience, time.Millisecond)
			if protocol == "HTTP/2.0" {
				eventually(t, "new requests are turned away", func() bool { return strings.Contains(fetch("/"), "refused") })
			}
			close(release)
			if got := <-slow; got != want {
				t.Errorf("under way: got %s, want %s", got, want)
			}
			wait(t, "the drain ends", over)
		})
	}
}

// Where there are as many connections as there may be, one that is idle makes room for the next, and one that
// has a request does not.
func TestConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	for _, parkAfter := range parkTimes {
		t.Run(parkAfter.String(), func(t *testing.T) {
			t.Parallel()
			connectionsAreBounded(t, parkAfter)
		})
	}
}

func connectionsAreBounded(t *testing.T, parkAfter time.Duration) {
	begun, release := make(chan struct{}, 3), make(chan struct{})
	r := start(t, Server{most: 3, parkAfter: parkAfter, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			begun <- struct{}{}
			<-release
		}
	})})
	slow := strings.Replace(get, "/", "/slow", 1)
	busy := dial(t, r.address())
	io.WriteString(busy, slow)
	wait(t, "the request arrives", begun)
	// A moment after its answer a connection is not idle yet: what is refused then is tried again.
	answered := func() (c *client) {
		eventually(t, "an answer", func() bool {
			c = dial(t, r.address())
			response, err := c.ask(get)
			return err == nil && response.StatusCode == 200
		})
		return c
	}
	var idle []*client
	for range 20 {
		idle = append(idle, answered())
		if n := r.conns.open(); n > 3 {
			t.Errorf("%d connections", n)
		}
	}
	eventually(t, "all but two of them made room", func() bool {
		closed := 0
		for _, c := range idle {
			c.SetReadDeadline(time.Now().Add(time.Millisecond))
			if _, err := c.buffered.ReadByte(); err == io.EOF {
				closed++
			}
		}
		return closed >= 18
	})
	eventually(t, "those two are idle", func() bool { return r.conns.idle() == 2 })

	// All of them busy: there is no room.
	for range 2 {
		c := dial(t, r.address())
		io.WriteString(c, slow)
		wait(t, "the request arrives", begun)
	}
	if _, err := dial(t, r.address()).ask(get); err == nil {
		t.Error("a fourth connection is served")
	}
	close(release)
	if response, err := busy.answer(); err != nil || response.StatusCode != 200 {
		t.Errorf("the busy connection: %v, %v", response, err)
	}
	answered() // there is room again
}

// A connection that makes room just as it is about to park does not come back.
func TestRoomWhileParking(t *testing.T) {
	t.Parallel()
	l := listen(t)
	cs := newConnections(l, 1, 1)
	dial(t, l.Addr().String())
	first, err := cs.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c := first.(*conn)
	c.setActive(true)
	c.setActive(false)
	c.SetReadDeadline(time.Now().Add(idleTimeout))
	if _, err := c.Read(make([]byte, 4<<10)); err != io.EOF || !c.leaving {
		t.Fatalf("got %v, want the connection about to park", err)
	}
	dial(t, l.Addr().String())
	second, err := cs.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	c.Close()
	if n := cs.open(); n != 1 {
		t.Errorf("%d connections where there may be one", n)
	}
	if err := c.Conn.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v, want the connection closed", err)
	}
}

// Over HTTP/2 it is the same.
func TestConnectionsAreBoundedHTTP2(t *testing.T) {
	t.Parallel()
	begun, release := make(chan struct{}), make(chan struct{})
	r := start(t, Server{most: 2, TLS: &tls.Config{Certificates: []tls.Certificate{certificate(t)}}, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			close(begun)
			<-release
		}
		io.WriteString(w, r.Proto)
	})})
	fetch := func(c *http.Client, path string) string {
		response, err := c.Get("https://" + r.address() + path)
		if err != nil {
			return err.Error()
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		return fmt.Sprint(string(body), err)
	}
	want := fmt.Sprint("HTTP/2.0", nil)
	busy := make(chan string, 1)
	go func() { busy <- fetch(httpClient(t, true), "/slow") }()
	wait(t, "the request arrives", begun)
	for range 10 {
		c := httpClient(t, true) // whose connection stays open
		eventually(t, "an answer", func() bool { return fetch(c, "/") == want })
	}
	close(release)
	if got := <-busy; got != want {
		t.Errorf("the busy connection: %s, want %s", got, want)
	}
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
	r := start(t, Server{Handler: ok, HeaderTimeout: 50 * time.Millisecond})
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

// Neither timeout may end before the handler's budget does.
func TestTimeouts(t *testing.T) {
	t.Parallel()
	s := start(t, Server{Handler: ok, Budget: time.Minute}).http
	for name, d := range map[string]time.Duration{"read": s.ReadTimeout, "write": s.WriteTimeout} {
		if d <= time.Minute || d > 2*time.Minute {
			t.Errorf("the time to %s is %v for a budget of a minute", name, d)
		}
	}
	if s.ReadHeaderTimeout != defaultHeaderTimeout || s.IdleTimeout <= 600*time.Second {
		t.Errorf("header timeout %v, idle timeout %v", s.ReadHeaderTimeout, s.IdleTimeout)
	}
}

func TestErrorLog(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	l := newErrorLog(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelInfo})))
	now := time.Unix(0, 0)
	l.now = func() time.Time { return now }
	io.WriteString(l, "http: TLS handshake error from 127.0.0.1:1: EOF\n")
	if out.String() != "" {
		t.Errorf("a failed handshake is more than a debug line: %s", out.String())
	}
	for range 1000 {
		io.WriteString(l, "http: Accept error: too many open files\n")
	}
	if n := strings.Count(out.String(), "\n"); n != 1 || !strings.Contains(out.String(), "level=WARN") {
		t.Errorf("1000 errors in a second make %d lines, want one warning: %s", n, out.String())
	}
	out.Reset()
	now = now.Add(quiet)
	io.WriteString(l, "http: panic serving 127.0.0.1:1: broken\n")
	if !strings.Contains(out.String(), "level=ERROR") || !strings.Contains(out.String(), "suppressed=999") {
		t.Errorf("got %q, want an error that tells of 999 lines left out", out.String())
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

// httpClient is a client of its own that takes any certificate.
func httpClient(t *testing.T, http2 bool) *http.Client {
	transport := &http.Transport{
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
		ForceAttemptHTTP2: http2,
	}
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
