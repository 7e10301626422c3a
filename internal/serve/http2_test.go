package serve

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"example.com/grpc-health-http/internal/memory"
)

// TestPreface: it is HTTP/2 only if all bytes are those of the preface, in whatever parts they come.
func TestPreface(t *testing.T) {
	t.Parallel()
	if clientPreface != http2.ClientPreface {
		t.Fatalf("%q", clientPreface)
	}
	for _, tt := range []struct {
		sent     string
		complete bool
		begun    bool // as HTTP/2 begins
	}{
		{"", false, true},
		{"P", false, true},
		{http2.ClientPreface[:14], false, true},
		{http2.ClientPreface[:18], false, true},
		{http2.ClientPreface[:23], false, true},
		{http2.ClientPreface, true, true},
		{http2.ClientPreface + "\x00\x00\x00\x04\x00", true, true},
		{http2.ClientPreface + get, true, true},
		{"\r\n" + http2.ClientPreface, false, false},
		{" " + http2.ClientPreface, false, false},
		{strings.ToLower(http2.ClientPreface), false, false},
		{strings.ReplaceAll(http2.ClientPreface, "\r", ""), false, false},
		{http2.ClientPreface[:18] + "XX\r\n\r\n", false, false},
		{http2.ClientPreface[:23] + "\r", false, false},
		{"PRI * HTTP/1.1\r\n\r\nSM\r\n\r\n", false, false},
		{"PRI / HTTP/2.0\r\n\r\nSM\r\n\r\n", false, false},
		{"PUT / HTTP/1.1\r\n", false, false},
		{"PRIVMSG", false, false},
		{get, false, false},
		{get + http2.ClientPreface, false, false},
		{"\x16\x03\x01", false, false},
	} {
		for _, size := range []int{1, 2, 3, 5, 7, 14, 24, 100} {
			var p preface
			for rest := tt.sent; rest != ""; {
				n := min(size, len(rest))
				p.read([]byte(rest[:n]))
				rest = rest[n:]
			}
			if p.complete() != tt.complete || p >= 0 != tt.begun {
				t.Errorf("%q by %d bytes: %d", tt.sent, size, p)
			}
		}
	}
}

// speaking is the number of connections that are open, and of those that the table does not know to speak HTTP/2.
func (r *running) speaking() (all, http1 int) {
	r.conns.mu.Lock()
	defer r.conns.mu.Unlock()
	return len(r.conns.open), r.conns.http1
}

// A client that begins with the preface speaks HTTP/2, in whatever parts it comes, and others on the same port speak HTTP/1.1.
func TestUnencryptedHTTP2(t *testing.T) {
	t.Parallel()
	l := listenRead(t)
	r := start(t, Server{Listener: l, HeaderTimeout: patience, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Proto) })})
	for n := range len(http2.ClientPreface) + 1 {
		conn := dial(t, r.address())
		c := &http2Client{http2.NewFramer(conn, conn), t, conn}
		io.WriteString(conn, http2.ClientPreface[:n])
		l.waitRead(t, conn, n)
		io.WriteString(conn, http2.ClientPreface[n:])
		if err := c.WriteSettings(); err != nil {
			t.Fatal(err)
		}
		c.request(1)
		c.until("an answer", func(f http2.Frame) bool {
			d, ok := f.(*http2.DataFrame)
			return ok && string(d.Data()) == "HTTP/2.0"
		})
		if response, err := dial(t, r.address()).ask(get); err != nil || response.Proto != "HTTP/1.1" {
			t.Errorf("beside it: %v, %v", response, err)
		}
		if all, http1 := r.speaking(); all-http1 != n+1 {
			t.Errorf("%d connections are known to speak HTTP/2, want %d", all-http1, n+1)
		}
	}
}

// What is nearly the preface, or comes after it, costs its connection alone, and nothing of it is left.
func TestRubbishHTTP2(t *testing.T) {
	t.Parallel()
	var entered atomic.Int64
	r := start(t, Server{Memory: 1 << 20, HeaderMemory: 1 << 20, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/good" {
			entered.Add(1)
			w.WriteHeader(http.StatusBadRequest)
		}
	})})
	good := httpClient(t, true)
	ask := func() {
		t.Helper()
		response, err := good.Get(r.url() + "/good")
		if err != nil || response.StatusCode != 200 || response.ProtoMajor != 2 {
			t.Fatalf("beside rubbish: %v, %v", response, err)
		}
		response.Body.Close()
	}
	ask()
	settings := "\x00\x00\x00\x04\x00\x00\x00\x00\x00"
	for name, sent := range map[string]string{
		"no SM":                    http2.ClientPreface[:18],
		"another end":              http2.ClientPreface[:18] + "XM\r\n\r\n",
		"a request in it":          http2.ClientPreface[:18] + get,
		"HTTP/1.1 after it":        http2.ClientPreface + get,
		"twice":                    http2.ClientPreface + http2.ClientPreface,
		"no SETTINGS first":        http2.ClientPreface + "\x00\x00\x08\x06\x00\x00\x00\x00\x0012345678",
		"noise":                    http2.ClientPreface + strings.Repeat("\xff", 1000),
		"noise after SETTINGS":     http2.ClientPreface + settings + strings.Repeat("\xff", 1000),
		"HEADERS that do not hold": http2.ClientPreface + settings + "\x00\x00\x04\x01\x05\x00\x00\x00\x01\xff\xff\xff\xff",
		"DATA without a stream":    http2.ClientPreface + settings + "\x00\x00\x01\x00\x01\x00\x00\x00\x01x",
		"a frame that is cut off":  http2.ClientPreface + settings + "\x00\x00\x20\x01\x05\x00\x00\x00\x01\x82",
	} {
		c := dial(t, r.address())
		io.WriteString(c, sent)
		c.Conn.(*net.TCPConn).CloseWrite()
		_, _ = io.Copy(io.Discard, c.buffered) // an error is a reset, which ends it as well
		c.Close()
		eventually(t, name+": its connection has ended", func() bool { return r.conns.count() == 1 })
		eventually(t, name+": nothing of it is in use", func() bool { // nor what the good one's last request took
			used, excess := r.usage()
			return used == memory.HTTP2Connection && excess == 0
		})
		ask()
	}
	good.CloseIdleConnections()
	r.wantNothingInUse(t)
}

// The protocol of a TLS connection is what was negotiated, and not what is sent then.
func TestNegotiated(t *testing.T) {
	t.Parallel()
	config := &tls.Config{Certificates: []tls.Certificate{certificate(t)}}
	r := start(t, Server{TLS: config, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "PRI" {
			w.WriteHeader(http.StatusMethodNotAllowed)
		}
		io.WriteString(w, r.Proto)
	})})
	for name, tt := range map[string]struct {
		protocols []string
		sent      string
		want      string // how the answer begins; "" is no answer of HTTP/1
	}{
		"no ALPN, HTTP/1.1":   {nil, get, "HTTP/1.1 200"},
		"http/1.1, HTTP/1.1":  {[]string{"http/1.1"}, get, "HTTP/1.1 200"},
		"h2, HTTP/1.1":        {[]string{"h2"}, get, ""},
		"h2, another preface": {[]string{"h2"}, strings.Replace(http2.ClientPreface, "SM", "MS", 1), ""},
		"no ALPN, preface":    {nil, http2.ClientPreface, "HTTP/1.1 405"},
		"http/1.1, preface":   {[]string{"http/1.1"}, http2.ClientPreface, "HTTP/1.1 405"},
	} {
		c := dialTLS(t, r.address(), tt.protocols...)
		io.WriteString(c, tt.sent)
		if strings.HasPrefix(tt.want, "HTTP/1.1 200") {
			c.Conn.(*tls.Conn).CloseWrite()
		}
		answer, _ := io.ReadAll(c.buffered) // an error is a reset
		if !strings.HasPrefix(string(answer), tt.want) || tt.want == "" && strings.Contains(string(answer), "HTTP/1.") {
			t.Errorf("%s: got %q, want %q", name, answer, tt.want)
		}
	}
	// A plain one is not served by a port with TLS.
	c := dial(t, r.address())
	io.WriteString(c, http2.ClientPreface)
	if answer, _ := io.ReadAll(c.buffered); strings.Contains(string(answer), "HTTP/2") {
		t.Errorf("without TLS: %q", answer)
	}
	eventually(t, "the connections have ended", func() bool { return r.conns.count() == 0 })
}

// A request that offers to change to HTTP/2 stays one of HTTP/1.1.
func TestUpgradeIsNotTaken(t *testing.T) {
	t.Parallel()
	r := start(t, Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Proto) })})
	for _, offer := range []string{
		"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
		"Connection: Upgrade\r\nUpgrade: h2c\r\n",
		"Connection: upgrade\r\nUpgrade: websocket, h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
	} {
		c := dial(t, r.address())
		for range 2 { // and so does the connection
			response, err := c.ask("GET / HTTP/1.1\r\nHost: test\r\n" + offer + "\r\n")
			if err != nil || response.StatusCode != 200 || response.Proto != "HTTP/1.1" {
				t.Fatalf("%q: %v, %v", offer, response, err)
			}
			if body, _ := io.ReadAll(response.Body); string(body) != "HTTP/1.1" {
				t.Errorf("%q: the handler got %s", offer, body)
			}
		}
	}
}

// A connection that is in the middle of the preface when the drain begins gets GOAWAY once it has sent it, and one that
// never does holds the drain no longer than headers may take.
func TestDrainPreface(t *testing.T) {
	t.Parallel()
	t.Run("complete", func(t *testing.T) {
		t.Parallel()
		l := listenRead(t)
		r := start(t, Server{Listener: l, Handler: ok, HeaderTimeout: patience})
		arriving := make(map[int]*client)
		for _, n := range []int{1, 3, 13, 14, 15, 16, 18, 20, 22, 23} {
			c := dial(t, r.address())
			io.WriteString(c, http2.ClientPreface[:n])
			l.waitRead(t, c, n)
			arriving[n] = c
		}
		over := r.drain(t, patience, time.Millisecond)
		eventually(t, "the linger time is over", func() bool {
			r.conns.mu.Lock()
			defer r.conns.mu.Unlock()
			return r.conns.closing
		})
		for n, conn := range arriving {
			c := &http2Client{http2.NewFramer(conn, conn), t, conn}
			io.WriteString(conn, http2.ClientPreface[n:])
			if err := c.WriteSettings(); err != nil {
				t.Fatal(err)
			}
			if n%2 == 0 {
				c.request(1)
			}
		}
		// A request that came before GOAWAY is answered, one that came after it is said to be not.
		for _, conn := range arriving {
			c := &http2Client{http2.NewFramer(conn, conn), t, conn}
			c.until("GOAWAY", func(f http2.Frame) bool {
				g, ok := f.(*http2.GoAwayFrame)
				if ok && g.ErrCode != http2.ErrCodeNo {
					t.Errorf("GOAWAY: %v", g)
				}
				return ok
			})
		}
		wait(t, "the drain ends", over)
	})
	for _, n := range []int{1, 14, 23} {
		t.Run(fmt.Sprintf("%d bytes", n), func(t *testing.T) {
			t.Parallel()
			l := listenRead(t)
			r := start(t, Server{Listener: l, Handler: ok, HeaderTimeout: brief})
			c := dial(t, r.address())
			io.WriteString(c, http2.ClientPreface[:n])
			l.waitRead(t, c, n)
			wait(t, "the drain ends", r.drain(t, patience, time.Millisecond))
		})
	}
}

// deadlines notes the read deadlines of its connections.
type deadlines struct {
	net.Listener
	mu   sync.Mutex
	last time.Time // the latest of a connection, of any that has one
	none bool      // a deadline was lifted
}

func (l *deadlines) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return deadlineConn{nc, l}, nil
}

type deadlineConn struct {
	net.Conn
	l *deadlines
}

func (c deadlineConn) SetReadDeadline(t time.Time) error {
	c.l.mu.Lock()
	defer c.l.mu.Unlock()
	c.l.none = c.l.none || t.IsZero()
	if t.After(c.l.last) {
		c.l.last = t
	}
	return c.Conn.SetReadDeadline(t)
}

// Whether it is HTTP/2 that a client begins with is found out within the time for headers, which does not begin anew.
func TestPrefaceTakesNoTimeOfItsOwn(t *testing.T) {
	t.Parallel()
	const timeout = 200 * time.Millisecond
	for _, sent := range []string{"", "G", "PRI", http2.ClientPreface[:14], http2.ClientPreface[:17], get[:13], get[:len(get)-2]} {
		l := &deadlines{Listener: listen(t)}
		r := start(t, Server{Listener: l, Handler: ok, HeaderTimeout: timeout})
		c := dial(t, r.address())
		io.WriteString(c, sent)
		eventually(t, "the connection is accepted", func() bool { l.mu.Lock(); defer l.mu.Unlock(); return !l.last.IsZero() })
		accepted := time.Now()
		// A reset, where bytes came after the time was up already.
		if _, err := io.Copy(io.Discard, c.buffered); err != nil && !strings.Contains(err.Error(), "reset") {
			t.Errorf("%q: %v", sent, err)
		}
		l.mu.Lock()
		if l.none || l.last.After(accepted.Add(timeout)) {
			t.Errorf("%q: the connection may take %v longer than the time for headers", sent, l.last.Sub(accepted.Add(timeout)))
		}
		l.mu.Unlock()
	}
	// Once that is known, other time-outs hold.
	l := &deadlines{Listener: listen(t)}
	release := make(chan struct{})
	r := start(t, Server{Listener: l, HeaderTimeout: brief, Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release })})
	plain, two := dial(t, r.address()), dialHTTP2(t, r)
	io.WriteString(plain, get)
	two.request(1)
	time.Sleep(2 * brief)
	close(release)
	if response, err := plain.answer(); err != nil || response.StatusCode != 200 {
		t.Errorf("HTTP/1.1: %v, %v", response, err)
	}
	two.until("the answer", func(f http2.Frame) bool {
		return f.Header().StreamID == 1 && f.Header().Flags.Has(http2.FlagHeadersEndStream)
	})
}

// A port with little memory has as many HTTP/2 connections as that allows, and a request finds room where others are idle.
func TestHTTP2ConnectionsAreBoundedByMemory(t *testing.T) {
	t.Parallel()
	overHTTP2(t, func(t *testing.T, config *tls.Config) {
		limit := 4 * http2Cost(config)
		r := start(t, Server{Handler: ok, TLS: config, Memory: limit, Overloaded: busy})
		var clients []*http.Client
		for range 6 {
			c := httpClient(t, true)
			clients = append(clients, c)
			eventually(t, "an answer", func() bool {
				response, err := c.Get(r.url())
				if err != nil {
					return false
				}
				response.Body.Close()
				if used, _ := r.usage(); used > limit {
					t.Errorf("%d bytes are in use", used)
				}
				return response.StatusCode == 200
			})
		}
		if n := r.conns.count(); n > 4 {
			t.Errorf("%d connections", n)
		}
		for _, c := range clients {
			c.CloseIdleConnections()
		}
		r.wantNothingInUse(t)
	})
}

// Header fields that never end make room, the most first, and no request of a usual size does.
func TestHeadersAreBoundedHTTP2(t *testing.T) {
	t.Parallel()
	overHTTP2(t, func(t *testing.T, config *tls.Config) {
		l := listenRead(t)
		r := start(t, Server{Listener: l, TLS: config, Handler: ok, HeaderMemory: 20 << 10 * memory.HeaderByte})
		unfinished := func(n int) *http2Client {
			c := dialHTTP2(t, r)
			c.until("the settings", isType(http2.FrameSettings))
			before := l.bytes(c.conn)
			// Literal fields without indexing, each of some bytes.
			if err := c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte(strings.Repeat("\x00\x01x\x05value", n/9))}); err != nil {
				t.Fatal(err)
			}
			l.waitRead(t, c.conn, before+n)
			return c
		}
		unfinished(9 << 10)
		unfinished(11 << 10)
		large := unfinished(12 << 10)
		if n := r.conns.count(); n < 2 {
			t.Errorf("%d connections", n)
		}
		unfinished(8 << 10)
		for {
			if _, err := large.ReadFrame(); err != nil {
				break // it made room
			}
		}
		for range 20 {
			c := dialHTTP2(t, r)
			c.request(1)
			c.until("an answer", answered(1))
			c.conn.Close()
		}
		if _, excess := r.usage(); excess > 20<<10*memory.HeaderByte {
			t.Errorf("%d bytes are in use for headers", excess)
		}
	})
}

// Clients ask over many streams while the server drains: each request that has a handler is answered, and GOAWAY says which have none.
func TestHammerHTTP2(t *testing.T) {
	t.Parallel()
	overHTTP2(t, func(t *testing.T, config *tls.Config) {
		for range *hammerDrains / 2 {
			hammerHTTP2(t, config)
		}
	})
}

func hammerHTTP2(t *testing.T, config *tls.Config) {
	const clients = 12
	var entered, done atomic.Int64
	r := start(t, Server{TLS: config, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		entered.Add(1)
		if entered.Load()%8 == 0 {
			time.Sleep(time.Millisecond) // a check takes its time
		}
		if body, err := io.ReadAll(r.Body); err == nil {
			w.Write(body)
		}
	})})
	var working sync.WaitGroup
	for i := range clients {
		c := dialHTTP2(t, r)
		slots := make(chan struct{}, maxStreams/2)
		var sent atomic.Int64
		var mu sync.Mutex // of writes
		ended := make(chan struct{})
		working.Go(func() {
			for stream := uint32(1); ; stream += 2 {
				select {
				case slots <- struct{}{}:
				case <-ended:
					return
				}
				mu.Lock()
				sent.Store(int64(stream))
				err := c.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: []byte("\x83\x84\x87\x41\x01t"), EndHeaders: true}) // POST / of https at t
				if i%2 == 0 {
					time.Sleep(10 * time.Microsecond)
				}
				err = errors.Join(err, c.WriteData(stream, true, []byte("sent")))
				mu.Unlock()
				if err != nil {
					return
				}
			}
		})
		working.Go(func() {
			defer close(ended)
			got, last, told := make(map[uint32]bool), uint32(0), false
			for {
				frame, err := c.ReadFrame()
				if err != nil {
					break
				}
				switch f := frame.(type) {
				case *http2.DataFrame:
					mu.Lock()
					_ = c.WriteWindowUpdate(0, max(1, uint32(len(f.Data())))) // the next write fails, too
					mu.Unlock()
					if f.StreamEnded() {
						got[f.StreamID] = true
						done.Add(1)
						<-slots
					}
				case *http2.GoAwayFrame:
					last, told = f.LastStreamID, true
				case *http2.RSTStreamFrame:
					t.Errorf("stream %d was reset: %v", f.StreamID, f.ErrCode)
				case *http2.SettingsFrame:
					if !f.IsAck() {
						mu.Lock()
						_ = c.WriteSettingsAck()
						mu.Unlock()
					}
				}
			}
			for stream := uint32(1); stream <= last; stream += 2 {
				if !got[stream] {
					t.Errorf("stream %d of %d, up to %d, has no answer", stream, sent.Load(), last)
					break
				}
			}
			if !told {
				t.Error("no GOAWAY")
			}
		})
	}
	eventually(t, "the load is on", func() bool {
		all, http1 := r.speaking()
		return all == clients && http1 == 0 && done.Load() > 500 || t.Failed()
	})
	over := r.drain(t, patience, linger)
	wait(t, "the drain ends", over)
	working.Wait()
	if entered.Load() != done.Load() {
		t.Errorf("%d requests had a handler, and %d an answer", entered.Load(), done.Load())
	}
}
