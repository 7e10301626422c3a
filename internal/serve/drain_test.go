package serve

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// drain ends the server in the background. It returns when the drain has begun; the channel is closed when it is over.
func (r *running) drain(t *testing.T, grace, linger time.Duration) <-chan struct{} {
	t.Helper()
	over := make(chan struct{})
	go func() {
		defer close(over)
		ctx, cancel := context.WithTimeout(context.Background(), grace)
		defer cancel()
		r.end(ctx, linger)
	}()
	eventually(t, "the drain begins", r.conns.draining.Load)
	return over
}

// secured runs a test without TLS and with it, over HTTP/1.1.
func secured(t *testing.T, test func(t *testing.T, config *tls.Config, dial func(*testing.T, string) *client)) {
	t.Run("plain", func(t *testing.T) {
		t.Parallel()
		test(t, nil, dial)
	})
	t.Run("TLS", func(t *testing.T) {
		t.Parallel()
		config := &tls.Config{Certificates: []tls.Certificate{certificate(t)}}
		test(t, config, func(t *testing.T, address string) *client { return dialTLS(t, address) })
	})
}

// overHTTP2 runs a test over HTTP/2, with TLS and without.
func overHTTP2(t *testing.T, test func(t *testing.T, config *tls.Config)) {
	t.Run("TLS", func(t *testing.T) {
		t.Parallel()
		test(t, &tls.Config{Certificates: []tls.Certificate{certificate(t)}})
	})
	t.Run("h2c", func(t *testing.T) {
		t.Parallel()
		test(t, nil)
	})
}

// wantEnd checks that the server has closed a connection, without a byte more.
func (c *client) wantEnd(t *testing.T, name string) {
	t.Helper()
	if b, err := c.buffered.ReadByte(); err != io.EOF {
		t.Errorf("%s: got %q, %v, want the connection closed", name, b, err)
	}
}

// wantLast checks that the next answer is there, and that it is the connection's last.
func (c *client) wantLast(t *testing.T, name string) {
	t.Helper()
	response, err := c.answer()
	if err != nil || response.StatusCode != 200 || !response.Close {
		t.Errorf("%s: got %+v, %v, want 200 and Connection: close", name, response, err)
		return
	}
	c.wantEnd(t, name)
}

// Clients that ask without a pause over kept connections get an answer to each request, up to one
// that says Connection: close.
func TestDrainUnderLoad(t *testing.T) {
	t.Parallel()
	secured(t, func(t *testing.T, config *tls.Config, dial func(*testing.T, string) *client) {
		for range 20 {
			r := start(t, Server{Handler: ok, TLS: config})
			var answered atomic.Int32
			var clients sync.WaitGroup
			for range 16 {
				c := dial(t, r.address())
				clients.Go(func() {
					defer c.Close()
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
			// Connections that the server has not accepted yet are the kernel's to refuse.
			eventually(t, "the load is on", func() bool { return r.conns.count() == 16 && answered.Load() > 200 })
			over := r.drain(t, patience, patience) // however slow this machine is
			clients.Wait()
			wait(t, "the drain ends", over)
			if t.Failed() {
				return
			}
		}
	})
}

// Requests that reach open connections just after the drain began are answered, those that follow them are not.
func TestRequestsOnTheirWay(t *testing.T) {
	t.Parallel()
	secured(t, func(t *testing.T, config *tls.Config, dial func(*testing.T, string) *client) {
		r := start(t, Server{Handler: ok, TLS: config})
		used, unused := dial(t, r.address()), dial(t, r.address())
		if response, err := used.ask(get); err != nil || response.Close {
			t.Fatalf("before the drain: %v, %v", response, err)
		}
		eventually(t, "both connections are accepted", func() bool { return r.conns.count() == 2 })
		over := r.drain(t, patience, patience)
		for name, c := range map[string]*client{"used": used, "unused": unused} {
			io.WriteString(c, get)
			c.wantLast(t, name)
		}
		wait(t, "the drain ends", over)
	})
}

// Connections without a request are closed when the linger time is over, which is long before the grace period is. A
// request of which a single byte, or any part, has been read is answered however late the rest comes.
func TestRequestHalfRead(t *testing.T) {
	t.Parallel()
	secured(t, func(t *testing.T, config *tls.Config, dial func(*testing.T, string) *client) {
		l := listenRead(t)
		r := start(t, Server{Handler: ok, TLS: config, Listener: l, HeaderTimeout: patience})
		fresh := func() *client { return dial(t, r.address()) }
		kept := func() *client {
			c := fresh()
			if response, err := c.ask(get); err != nil || response.StatusCode != 200 {
				t.Fatalf("got %v, %v, want 200", response, err)
			}
			return c
		}
		arriving := make(map[*client]string) // to what is missing
		for _, c := range []func() *client{fresh, kept} {
			for _, n := range []int{1, 3, 10, len(get) - 1} {
				c := c()
				before := l.bytes(c)
				io.WriteString(c, get[:n])
				l.waitRead(t, c, before+n)
				arriving[c] = get[n:]
			}
		}
		// A part of a request that came along with the one before is seen if it is not encrypted.
		for _, n := range []int{1, 3, 10, len(get) - 1} {
			if config != nil {
				break
			}
			c := fresh()
			if _, err := c.ask(get + get[:n]); err != nil {
				t.Fatal(err)
			}
			arriving[c] = get[n:]
		}
		idle := kept()
		idle2 := kept()
		over := r.drain(t, patience, time.Millisecond)
		idle.wantEnd(t, "idle")
		idle2.wantEnd(t, "idle")
		time.Sleep(50 * time.Millisecond) // much longer than the linger time
		for c, rest := range arriving {
			io.WriteString(c, rest)
			c.wantLast(t, fmt.Sprintf("%d bytes of a request", len(get)-len(rest)))
		}
		wait(t, "the drain ends", over)
	})
}

// A connection of which no byte has been read is closed as well.
func TestDrainUnusedConnection(t *testing.T) {
	t.Parallel()
	for _, config := range []*tls.Config{nil, {Certificates: []tls.Certificate{certificate(t)}}} {
		r := start(t, Server{Handler: ok, TLS: config})
		c := dial(t, r.address())
		eventually(t, "the connection is accepted", func() bool { return r.conns.count() == 1 })
		over := r.drain(t, patience, time.Millisecond)
		c.wantEnd(t, "unused")
		wait(t, "the drain ends", over)
	}
}

// An idle TLS connection ends with TLS's own goodbye, not only with TCP's.
func TestDrainClosesTLS(t *testing.T) {
	t.Parallel()
	r := start(t, Server{Handler: ok, TLS: &tls.Config{Certificates: []tls.Certificate{certificate(t)}}})
	raw := dial(t, r.address())
	var received atomic.Int64
	secure := tls.Client(countingConn{raw.Conn, &received}, &tls.Config{InsecureSkipVerify: true})
	c := &client{secure, bufio.NewReader(secure)}
	if _, err := c.ask(get); err != nil {
		t.Fatal(err)
	}
	before := received.Load()
	over := r.drain(t, patience, time.Millisecond)
	c.wantEnd(t, "idle")
	if received.Load() == before {
		t.Error("the connection ended without close_notify")
	}
	wait(t, "the drain ends", over)
}

type countingConn struct {
	net.Conn
	received *atomic.Int64
}

func (c countingConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.received.Add(int64(n))
	return n, err
}

// A client that keeps its side open after the last answer holds the drain for a moment only.
func TestDrainClientStays(t *testing.T) {
	t.Parallel()
	begun, release := make(chan struct{}), make(chan struct{})
	r := start(t, Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		close(begun)
		<-release
	})})
	answered, unused := dial(t, r.address()), dial(t, r.address())
	io.WriteString(answered, get)
	wait(t, "the request arrives", begun)
	eventually(t, "the other connection is accepted", func() bool { return r.conns.count() == 2 })
	over := r.drain(t, 5*patience, 200*time.Millisecond) // the answer is out before the linger time ends
	close(release)
	answered.wantLast(t, "the request")
	unused.wantEnd(t, "unused")
	wait(t, "the drain ends", over)
}

// A request that never becomes whole holds the drain no longer than its headers may take.
func TestDrainUnfinishedRequest(t *testing.T) {
	t.Parallel()
	l := listenRead(t)
	r := start(t, Server{Handler: ok, Listener: l, HeaderTimeout: brief})
	c := dial(t, r.address())
	io.WriteString(c, get[:10])
	l.waitRead(t, c, 10)
	wait(t, "the drain ends", r.drain(t, patience, time.Millisecond))
	if response, err := c.answer(); err == nil && response.StatusCode == 200 {
		t.Errorf("got %+v for a part of a request", response)
	}
}

// Requests that came while the first was being answered are answered after it, in order, and the last answer alone says
// that it is the last. So is one of which only a part had been read.
func TestDrainPipelined(t *testing.T) {
	t.Parallel()
	const requests = 5
	for _, part := range []int{0, 1, len(get) - 1} {
		t.Run(fmt.Sprintf("and %d bytes", part), func(t *testing.T) {
			t.Parallel()
			begun, release := make(chan struct{}, 1), make(chan struct{})
			r := start(t, Server{HeaderTimeout: patience, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/0" {
					begun <- struct{}{}
					<-release
				}
				io.WriteString(w, r.URL.Path)
			})})
			c := dial(t, r.address())
			last := 0
			request := func() string {
				s := strings.Replace(get, "/", fmt.Sprintf("/%d", last), 1)
				last++
				return s
			}
			var all string
			for range requests {
				all += request()
			}
			partial := request()
			io.WriteString(c, all+partial[:part])
			wait(t, "the first request arrives", begun)
			over := r.drain(t, patience, time.Millisecond)
			close(release)
			if part > 0 {
				io.WriteString(c, partial[part:])
			} else {
				last--
			}
			for i := range last {
				response, err := c.answer()
				if err != nil {
					t.Fatalf("request %d is lost: %v", i, err)
				}
				body, _ := io.ReadAll(response.Body)
				if want := fmt.Sprintf("/%d", i); string(body) != want || response.Close != (i == last-1) {
					t.Errorf("got %q, last: %v, want %q", body, response.Close, want)
				}
			}
			c.wantEnd(t, "after the last answer")
			wait(t, "the drain ends", over)
		})
	}
}

// A request of which bytes were read while another one was being answered is not lost.
func TestDrainRequestBesideAnother(t *testing.T) {
	t.Parallel()
	secured(t, func(t *testing.T, config *tls.Config, dial func(*testing.T, string) *client) {
		begun, release := make(chan struct{}, 2), make(chan struct{})
		r := start(t, Server{TLS: config, HeaderTimeout: patience, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			begun <- struct{}{}
			<-release
			io.WriteString(w, "ok\n")
		})})
		c := dial(t, r.address())
		io.WriteString(c, get)
		wait(t, "the request arrives", begun)
		io.WriteString(c, get[:3])
		eventually(t, "bytes of the second request are read", func() bool { return r.unanswered() == 2 })
		over := r.drain(t, patience, time.Millisecond)
		close(release)
		if response, err := c.answer(); err != nil || response.StatusCode != 200 || response.Close {
			t.Errorf("got %+v, %v, want 200, and more to come", response, err)
		}
		io.WriteString(c, get[3:])
		c.wantLast(t, "the second request")
		wait(t, "the drain ends", over)
	})
}

// A client that never stops asking does not hold the drain: requests that were read before it began are answered, and
// no more. (Such a client may see a reset in place of the last answers: it has sent what nobody reads.)
func TestDrainEndlessPipeline(t *testing.T) {
	t.Parallel()
	r := start(t, Server{Handler: ok})
	c := dial(t, r.address())
	go func() {
		for {
			if _, err := io.WriteString(c, get+get+get); err != nil {
				return // the server has closed the connection
			}
		}
	}()
	for range 100 {
		if _, err := c.answer(); err != nil {
			t.Fatal(err)
		}
	}
	go io.Copy(io.Discard, c.buffered)
	wait(t, "the drain ends", r.drain(t, patience, time.Millisecond))
}

// An answer under way when the drain begins is sent, and says that it is the last.
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
			over := r.drain(t, patience, time.Millisecond)
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

// An answer whose headers were out before the drain began cannot say that it is the last. Its connection ends
// after it all the same.
func TestAnswerBegunBeforeDrain(t *testing.T) {
	t.Parallel()
	begun, release := make(chan struct{}), make(chan struct{})
	r := start(t, Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(200)
		close(begun)
		<-release
	})})
	c := dial(t, r.address())
	io.WriteString(c, get)
	wait(t, "the answer begins", begun)
	unused := dial(t, r.address())
	eventually(t, "the other connection is accepted", func() bool { return r.conns.count() == 2 })
	over := r.drain(t, 5*patience, time.Millisecond)
	unused.wantEnd(t, "unused") // the linger time is over
	close(release)
	if response, err := c.answer(); err != nil || response.StatusCode != 200 {
		t.Errorf("got %+v, %v, want 200", response, err)
	}
	c.wantEnd(t, "after the answer")
	wait(t, "the drain ends", over)
}

func TestGraceEnds(t *testing.T) {
	t.Parallel()
	begun, cancelled := make(chan struct{}), make(chan struct{})
	var log lockedBuilder
	r := startLogging(t, slog.New(slog.NewTextHandler(&log, nil)), Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(begun)
		<-r.Context().Done()
		close(cancelled)
	})})
	c := dial(t, r.address())
	io.WriteString(c, get)
	wait(t, "the request arrives", begun)
	wait(t, "the drain ends", r.drain(t, 10*time.Millisecond, time.Millisecond))
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
	secure := &tls.Config{Certificates: []tls.Certificate{certificate(t)}}
	for name, config := range map[string]*tls.Config{"HTTP/2.0": secure, "HTTP/1.1": secure, "HTTP/2.0 without TLS": nil, "HTTP/1.1 without TLS": nil} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			protocol, _, _ := strings.Cut(name, " ")
			begun, release := make(chan struct{}), make(chan struct{})
			r := start(t, Server{
				TLS: config,
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
				response, err := browser.Get(r.url() + path)
				if err != nil {
					return err.Error()
				}
				defer response.Body.Close()
				body, err := io.ReadAll(response.Body)
				return fmt.Sprint(string(body), err)
			}
			want := fmt.Sprint(protocol, nil)
			if got := fetch("/"); got != want {
				t.Fatalf("before the drain: got %s, want %s", got, want)
			}
			slow := make(chan string, 1)
			go func() { slow <- fetch("/slow") }()
			wait(t, "the request arrives", begun)
			over := r.drain(t, patience, time.Millisecond)
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

// An HTTP/2 client without a request gets its GOAWAY, and does not hold the drain.
func TestDrainIdleHTTP2(t *testing.T) {
	t.Parallel()
	overHTTP2(t, func(t *testing.T, config *tls.Config) {
		r := start(t, Server{Handler: ok, TLS: config})
		unused, used := dialHTTP2(t, r), dialHTTP2(t, r)
		used.request(1)
		used.until("the answer", answered(1))
		// The server's first frame says that it speaks HTTP/2 with this one, too.
		unused.until("the settings", isType(http2.FrameSettings))
		over := r.drain(t, patience, time.Millisecond)
		for _, c := range []*http2Client{unused, used} {
			c.until("GOAWAY", isType(http2.FrameGoAway))
		}
		wait(t, "the drain ends", over)
	})
}

// While a slow HTTP/1.1 request holds the drain, the next answer sends an HTTP/2 client elsewhere.
func TestDrainHTTP2BesideHTTP1(t *testing.T) {
	t.Parallel()
	overHTTP2(t, func(t *testing.T, config *tls.Config) {
		begun, release := make(chan struct{}), make(chan struct{})
		r := start(t, Server{
			TLS: config,
			Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.ProtoMajor == 1 {
					close(begun)
					<-release
				}
				io.WriteString(w, "ok\n")
			}),
		})
		slow, c := dialAs(t, r), dialHTTP2(t, r)
		io.WriteString(slow, get)
		wait(t, "the request arrives", begun)
		c.until("the settings", isType(http2.FrameSettings))
		over := r.drain(t, patience, time.Millisecond)
		c.request(1)
		done, goAway := false, false
		c.until("an answer and GOAWAY", func(f http2.Frame) bool {
			done = done || answered(1)(f)
			goAway = goAway || f.Header().Type == http2.FrameGoAway
			return done && goAway
		})
		close(release)
		slow.wantLast(t, "HTTP/1.1")
		wait(t, "the drain ends", over)
	})
}

// http2Client is one HTTP/2 connection, frame by frame.
type http2Client struct {
	*http2.Framer
	t    *testing.T
	conn net.Conn
}

func dialHTTP2(t *testing.T, r *running) *http2Client {
	t.Helper()
	conn := dialAs(t, r, "h2")
	c := &http2Client{http2.NewFramer(conn, conn), t, conn}
	_, err := io.WriteString(conn, http2.ClientPreface)
	if err := errors.Join(err, c.WriteSettings()); err != nil {
		t.Fatal(err)
	}
	return c
}

// dialAs dials with TLS where the server speaks it, and offers the protocols then.
func dialAs(t *testing.T, r *running, protocols ...string) *client {
	t.Helper()
	if r.conns.secure {
		return dialTLS(t, r.address(), protocols...)
	}
	return dial(t, r.address())
}

// answered finds the last frame of an answer with a body.
func answered(stream uint32) func(http2.Frame) bool {
	return func(f http2.Frame) bool {
		return f.Header().StreamID == stream && f.Header().Type == http2.FrameData && f.Header().Flags.Has(http2.FlagDataEndStream)
	}
}

func isType(wanted http2.FrameType) func(http2.Frame) bool {
	return func(f http2.Frame) bool { return f.Header().Type == wanted }
}

// request asks without a body.
func (c *http2Client) request(stream uint32) {
	c.t.Helper()
	c.begin(stream, true, ":method", "GET", ":path", "/")
}

// begin sends a request's header fields, names and values in turn.
func (c *http2Client) begin(stream uint32, ends bool, fields ...string) {
	c.t.Helper()
	var block strings.Builder
	encoder := hpack.NewEncoder(&block)
	fields = append([]string{":scheme", "https", ":authority", "test"}, fields...)
	for i := 0; i < len(fields); i += 2 {
		if err := encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}); err != nil {
			c.t.Fatal(err)
		}
	}
	if err := c.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: []byte(block.String()), EndStream: ends, EndHeaders: true}); err != nil {
		c.t.Fatal(err)
	}
}

// until reads frames up to the one that is wanted.
func (c *http2Client) until(what string, wanted func(http2.Frame) bool) {
	c.t.Helper()
	for {
		frame, err := c.ReadFrame()
		if err != nil {
			c.t.Fatalf("waited in vain for %s: %v", what, err)
		}
		if wanted(frame) {
			return
		}
	}
}

// closed reports whether the server has closed a connection; a byte that it sent is an error.
func (c *client) closed(t *testing.T) bool {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(time.Millisecond))
	defer c.SetReadDeadline(time.Now().Add(patience))
	_, err := c.buffered.ReadByte()
	var timeout net.Error
	switch {
	case errors.As(err, &timeout) && timeout.Timeout():
		return false
	case err == io.EOF || errors.Is(err, syscall.ECONNRESET):
		return true
	}
	t.Errorf("the connection got a byte, or %v", err)
	return false
}
