package serve

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"example.com/grpc-health-http/internal/memory"
)

// usage is what the connections have of the memory, and what the requests that are arriving have.
func (r *running) usage() (used, excess int64) {
	r.conns.mu.Lock()
	defer r.conns.mu.Unlock()
	return r.conns.used, r.conns.excess
}

func (r *running) wantNothingInUse(t *testing.T) {
	t.Helper()
	eventually(t, "nothing is in use", func() bool {
		used, excess := r.usage()
		return used == 0 && excess == 0
	})
}

// busy tells its clients that there is no memory.
var busy = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })

// Connections are bounded by what they cost, with TLS too: the one that has been idle for longest makes room.
func TestConnectionsAreBoundedByMemory(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		config *tls.Config
		memory int64
		dial   func(*testing.T, string, ...string) *client
	}{
		"plain": {nil, 2*memory.Connection + memory.HTTP2Connection, func(t *testing.T, address string, _ ...string) *client { return dial(t, address) }},
		"TLS":   {&tls.Config{Certificates: []tls.Certificate{certificate(t)}}, 3 * memory.SecureConnection, dialTLS},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, Server{Handler: ok, TLS: test.config, Memory: test.memory})
			var clients []*client
			for range 5 {
				c := test.dial(t, r.address())
				if _, err := c.ask(get); err != nil {
					t.Fatal(err)
				}
				clients = append(clients, c)
			}
			// Which of those that are idle was so first, only the server knows: an answer is read before it notes this.
			var open []*client
			eventually(t, "two of the earlier ones made room", func() bool {
				open = slices.DeleteFunc(slices.Clone(clients), func(c *client) bool { return c.closed(t) })
				return len(open) == 3
			})
			if open[2] != clients[4] {
				t.Error("the latest one made room")
			}
			for _, c := range open {
				if _, err := c.ask(get); err != nil {
					t.Error(err)
				}
				c.Close()
			}
			r.wantNothingInUse(t)
		})
	}
}

// Of requests that never end, the largest makes room; requests of a usual size are answered, whatever else arrives.
func TestHeadersAreBounded(t *testing.T) {
	t.Parallel()
	l := listenRead(t)
	r := start(t, Server{Listener: l, Handler: ok, HeaderTimeout: patience, HeaderMemory: 20 << 10 * memory.HeaderByte})
	unfinished := func(n int) *client {
		c := dial(t, r.address())
		request := "GET / HTTP/1.1\r\nHost: test\r\nX: " + strings.Repeat("a", n)
		io.WriteString(c, request)
		l.waitRead(t, c, len(request))
		return c
	}
	small, large, medium := unfinished(6<<10), unfinished(9<<10), unfinished(7<<10)
	if used, excess := r.usage(); excess < 18<<10*memory.HeaderByte || used != 3*memory.Connection {
		t.Errorf("%d bytes are in use, %d for headers", used, excess)
	}
	unfinished(8 << 10)
	eventually(t, "the largest made room", func() bool { return large.closed(t) })
	for range 50 {
		if _, err := dial(t, r.address()).ask(get); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]*client{"small": small, "medium": medium} {
		if response, err := c.ask("\r\n\r\n"); err != nil || response.StatusCode != 200 {
			t.Errorf("%s: %v, %v", name, response, err)
		}
	}
}

// A request that waits keeps what its headers cost; one for which there is no memory gets an answer that says so.
func TestHeadersOfWaitingRequestsAreBounded(t *testing.T) {
	t.Parallel()
	begun, release := make(chan struct{}), make(chan struct{})
	r := start(t, Server{
		Memory: 3*memory.Connection + 10<<10*memory.HeaderByte, Overloaded: busy,
		Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/slow" {
				begun <- struct{}{}
				<-release
			}
		}),
	})
	long := "GET /slow HTTP/1.1\r\nHost: test\r\nX: " + strings.Repeat("a", 8<<10) + "\r\n\r\n"
	first := dial(t, r.address())
	io.WriteString(first, long)
	wait(t, "the first request", begun)
	second := dial(t, r.address())
	if response, err := second.ask(long); err != nil || response.StatusCode != 503 {
		t.Errorf("another one: %v, %v", response, err)
	}
	if response, err := dial(t, r.address()).ask(get); err != nil || response.StatusCode != 200 {
		t.Errorf("a usual request: %v, %v", response, err)
	}
	close(release)
	if response, err := first.answer(); err != nil || response.StatusCode != 200 {
		t.Errorf("the first: %v, %v", response, err)
	}
	eventually(t, "what it took is given back", func() bool { used, _ := r.usage(); return used <= 3*memory.Connection })
}

// A client that does not read its answer makes room for others, and no other one does.
func TestClientsThatDoNotReadMakeRoom(t *testing.T) {
	t.Parallel()
	begun, release := make(chan struct{}, 2), make(chan struct{})
	r := start(t, Server{Memory: memory.Connection + memory.HTTP2Connection, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/slow":
			begun <- struct{}{}
			<-release
		case "/large":
			begun <- struct{}{}
			_, _ = w.Write(make([]byte, 32<<20)) // an error says that the client made room
		}
	})})
	slow := dial(t, r.address())
	io.WriteString(slow, strings.Replace(get, "/", "/slow", 1))
	wait(t, "the slow request", begun)
	large := dial(t, r.address()) // not before: there is no room for two connections that have not begun
	io.WriteString(large, strings.Replace(get, "/", "/large", 1))
	wait(t, "the large answer", begun)
	eventually(t, "the large answer begins", func() bool {
		r.conns.mu.Lock()
		defer r.conns.mu.Unlock()
		stuck, soon := r.conns.stuckLocked(nil)
		return soon || len(stuck) > 0
	})
	if _, err := dial(t, r.address()).ask(get); err != nil {
		t.Error(err)
	}
	close(release)
	if _, err := slow.answer(); err != nil {
		t.Error(err)
	}
	if n, _ := io.Copy(io.Discard, large.buffered); n >= 32<<20 {
		t.Error("the client got its answer, so it made no room")
	}
}

// Who has most of the connections is known by its address, as long as it has them.
func TestCrowds(t *testing.T) {
	t.Parallel()
	r := start(t, Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Retry-After"] = r.Header["Retry"]
		if Crowds(r) {
			w.WriteHeader(http.StatusTeapot)
		}
	})})
	from := func(ip string) *client {
		conn, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}).Dial("tcp", r.address())
		if err != nil {
			t.Skipf("connections from %s: %v", ip, err)
		}
		t.Cleanup(func() { conn.Close() })
		_ = conn.SetDeadline(time.Now().Add(patience)) // an error is one of the next write
		return &client{conn, bufio.NewReader(conn)}
	}
	ask := func(c *client, request string) bool {
		response, err := c.ask(request)
		if err != nil {
			t.Fatal(err)
		}
		return response.StatusCode == http.StatusTeapot
	}
	crowds := func(c *client) bool { return ask(c, "GET / HTTP/1.1\r\nHost: test\r\nRetry: 1\r\n\r\n") }
	alone := from("127.0.0.2")
	if !crowds(alone) {
		t.Error("one of one connection is not most of them")
	}
	var many []*client
	for range 3 {
		many = append(many, from("127.0.0.3"))
		crowds(many[len(many)-1])
	}
	if crowds(alone) || !crowds(many[0]) {
		t.Error("three of four connections are not most of them")
	}
	if !ask(many[1], get) || ask(many[1], get) {
		t.Error("a connection that has been answered is not one of a crowd")
	}
	for _, c := range many[1:] {
		c.Close()
	}
	eventually(t, "their connections have ended", func() bool { return !crowds(many[0]) })
}

// Requests of an HTTP/2 connection are bounded by what they cost: beyond that they are told so, and then refused.
func TestStreamsAreBounded(t *testing.T) {
	t.Parallel()
	overHTTP2(t, func(t *testing.T, config *tls.Config) {
		release := make(chan struct{})
		var served atomic.Int64
		const room = 8
		r := start(t, Server{
			TLS:    config,
			Memory: withRest(http2Cost(config) + room*memory.Stream), Overloaded: busy,
			Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				if n := SideBySide(r); n < 1 || n > room+1 {
					t.Errorf("%d requests are in progress", n)
				}
				served.Add(1)
				<-release
			}),
		})
		c := dialHTTP2(t, r)
		var most uint32
		c.until("the settings", func(f http2.Frame) bool {
			s, ok := f.(*http2.SettingsFrame)
			if ok && !s.IsAck() {
				most, _ = s.Value(http2.SettingMaxConcurrentStreams)
			}
			return ok && !s.IsAck()
		})
		if most != maxStreams {
			t.Errorf("a client may have %d streams", most)
		}
		for i := range uint32(room) {
			c.request(2*i + 1)
		}
		eventually(t, "all that fit are served", func() bool { return served.Load() == room })
		c.request(2*room + 1)
		told, ended := 0, 0
		c.until("the next one's end", func(f http2.Frame) bool {
			switch f := f.(type) {
			case *http2.HeadersFrame:
				told++
			case *http2.RSTStreamFrame:
				ended++
				if f.ErrCode != http2.ErrCodeInternal && f.ErrCode != http2.ErrCodeNo {
					t.Errorf("stream %d: %v", f.StreamID, f.ErrCode)
				}
			}
			return told+ended == 1
		})
		if told != 1 || served.Load() != room {
			t.Errorf("beyond the bound, %d were told, %d refused, %d served", told, ended, served.Load()-room)
		}
		close(release)
		c.until("the first answers", func(f http2.Frame) bool {
			if h, ok := f.(*http2.HeadersFrame); ok && h.StreamID < 2*room {
				told++
			}
			return told == room+1
		})
		eventually(t, "what they took is given back", func() bool { used, _ := r.usage(); return used == http2Cost(config) })
	})
}

// Answers that an HTTP/2 client lets nobody send keep what their requests took, also when their handlers have returned.
func TestUnsentAnswersCount(t *testing.T) {
	t.Parallel()
	overHTTP2(t, func(t *testing.T, config *tls.Config) {
		r := start(t, Server{
			TLS: config, Handler: ok, Overloaded: busy,
			Memory: withRest(2*http2Cost(config) + 20*memory.Stream),
		})
		c := dialHTTP2(t, r)
		if err := c.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}); err != nil {
			t.Fatal(err)
		}
		for i := range uint32(60) {
			c.request(2*i + 1)
		}
		ended := 0
		eventually(t, "the memory is used", func() bool {
			used, _ := r.usage()
			return used > http2Cost(config)+18*memory.Stream
		})
		// The client lets them be sent after all.
		if err := c.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 16}); err != nil {
			t.Fatal(err)
		}
		c.until("the answers", func(f http2.Frame) bool {
			switch f.(type) {
			case *http2.HeadersFrame, *http2.RSTStreamFrame:
				ended++
			}
			return ended == 60
		})
		eventually(t, "what they took is given back", func() bool { used, _ := r.usage(); return used == http2Cost(config) })
	})
}

// withRest is a memory of which the requests of HTTP/2 connections may have n bytes together with these.
func withRest(n int64) int64 { return (n*4 + 2) / 3 }

// http2Cost is what a connection costs that speaks HTTP/2.
func http2Cost(config *tls.Config) int64 {
	if config == nil {
		return memory.HTTP2Connection
	}
	return memory.SecureConnection
}
