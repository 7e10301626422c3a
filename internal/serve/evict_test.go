package serve

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// At the limit, a connection of which no handler answers a request makes room, the one that has been so for longest
// first: whether it sent nothing, a byte, unfinished headers, or has had its answer.
func TestEvictOldestFirst(t *testing.T) {
	t.Parallel()
	l := listenRead(t)
	const limit = 6
	begun, release := make(chan struct{}, limit), make(chan struct{})
	r := start(t, Server{Listener: l, MaxConnections: limit, HeaderTimeout: patience, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			begun <- struct{}{}
			<-release
		}
	})})
	slow := strings.Replace(get, "/", "/slow", 1)
	// sent opens a connection over which that is sent, and read.
	sent := func(request string) *client {
		c := dial(t, r.address())
		io.WriteString(c, request)
		l.waitRead(t, c, len(request))
		return c
	}
	used, busy := sent(""), sent("")
	headers, oneByte, silent := sent(get[:len(get)-2]), sent(get[:1]), sent("")
	keptUnfinished := sent("")
	// What counts is when the last request ended, not when the connection began.
	for _, c := range []*client{used, keptUnfinished} {
		before := r.evictable()
		if _, err := c.ask(get); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the connection is idle", func() bool { return r.evictable() == before })
	}
	io.WriteString(busy, slow)
	wait(t, "the request arrives", begun)
	io.WriteString(keptUnfinished, get[:3])
	l.waitRead(t, keptUnfinished, len(get)+3)

	evicted := []struct {
		name string
		*client
	}{{"unfinished headers", headers}, {"one byte", oneByte}, {"silent", silent}, {"used", used}, {"used, and three bytes", keptUnfinished}}
	for i, next := range evicted {
		newcomer := dial(t, r.address())
		io.WriteString(newcomer, slow)
		wait(t, "the newcomer is served", begun)
		eventually(t, next.name+" makes room", func() bool { return next.closed(t) })
		for _, later := range evicted[i+1:] {
			if later.closed(t) {
				t.Errorf("%q made room before its turn, which is that of %q", later.name, next.name)
			}
		}
	}
	// All are busy.
	if _, err := dial(t, r.address()).ask(get); err == nil {
		t.Error("a connection beyond the limit is served")
	}
	close(release)
	if response, err := busy.answer(); err != nil || response.StatusCode != 200 {
		t.Errorf("the busy connection: %v, %v", response, err)
	}
}

// Where there are as many connections as there may be, one that is idle makes room for the next, and one that
// has a request does not.
func TestConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	begun, release := make(chan struct{}, 3), make(chan struct{})
	r := start(t, Server{MaxConnections: 3, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
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
		if n := r.conns.count(); n > 3 {
			t.Errorf("%d connections", n)
		}
	}
	eventually(t, "all but two of them made room", func() bool {
		closed := 0
		for _, c := range idle {
			if c.closed(t) {
				closed++
			}
		}
		return closed >= 18
	})
	eventually(t, "those two are idle", func() bool { return r.evictable() == 2 })

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

// Over HTTP/2 it is the same.
func TestConnectionsAreBoundedHTTP2(t *testing.T) {
	t.Parallel()
	overHTTP2(t, func(t *testing.T, config *tls.Config) {
		begun, release := make(chan struct{}), make(chan struct{})
		r := start(t, Server{MaxConnections: 2, TLS: config, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/slow" {
				close(begun)
				<-release
			}
			io.WriteString(w, r.Proto)
		})})
		fetch := func(c *http.Client, path string) string {
			response, err := c.Get(r.url() + path)
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
	})
}

// A request that its HTTP/2 caller has cancelled holds its connection for as long as the handler runs, and no longer.
func TestCancelledRequestHTTP2(t *testing.T) {
	t.Parallel()
	overHTTP2(t, func(t *testing.T, config *tls.Config) {
		begun, cancelled, release := make(chan struct{}), make(chan struct{}), make(chan struct{})
		r := start(t, Server{MaxConnections: 1, TLS: config, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			close(begun)
			<-r.Context().Done()
			close(cancelled)
			<-release
		})})
		c := dialHTTP2(t, r)
		c.request(1)
		wait(t, "the request arrives", begun)
		if err := c.WriteRSTStream(1, http2.ErrCodeCancel); err != nil {
			t.Fatal(err)
		}
		wait(t, "the request is cancelled", cancelled)
		if _, err := dial(t, r.address()).buffered.ReadByte(); err == nil {
			t.Error("a second connection is served")
		}
		close(release)
		eventually(t, "the connection can make room", func() bool { return r.evictable() == 1 })
		dial(t, r.address())
		for {
			if _, err := c.ReadFrame(); err != nil {
				break // it has made room
			}
		}
	})
}

// A connection of which a whole request has been read does not make room, though no handler has it yet. What is less than that, or
// cannot be told, does.
func TestReadRequestMakesNoRoom(t *testing.T) {
	t.Parallel()
	for sent, makes := range map[string]int{
		get: 0, get + get[:5]: 0, get + get: 0, http2.ClientPreface[:18]: 0,
		get[:len(get)-2]: 1, "\r\n\r\n": 1, "G": 1, http2.ClientPreface: 1, http2.ClientPreface + get: 1, http2.ClientPreface[:17]: 1,
	} {
		r := start(t, Server{Handler: ok})
		dial(t, r.address())
		eventually(t, "the connection is accepted", func() bool { return r.evictable() == 1 })
		r.conns.mu.Lock()
		var c *conn
		for c = range r.conns.open {
		}
		r.conns.mu.Unlock()
		r.conns.read(c, []byte(sent)) // as when the server has read it, and got no further
		if n := r.evictable(); n != makes {
			t.Errorf("%q: %d connections can make room, want %d", sent, n, makes)
		}
		r.conns.mu.Lock()
		if surplus, _, soon := r.conns.makeRoomLocked(nil, 0, 1, time.Hour); len(surplus) > 0 || soon != (makes > 0) {
			t.Errorf("%q: %d connections made room before their time, %v", sent, len(surplus), soon)
		}
		if surplus, _, _ := r.conns.makeRoomLocked(nil, 0, 1, 0); len(surplus) != makes {
			t.Errorf("%q: %d connections made room, want %d", sent, len(surplus), makes)
		}
		r.conns.mu.Unlock()
	}
}

// A request that its HTTP/2 caller cancels before it has a handler does not keep its connection from making room.
func TestCancelledBeforeHandler(t *testing.T) {
	t.Parallel()
	overHTTP2(t, func(t *testing.T, config *tls.Config) {
		r := start(t, Server{Handler: ok, TLS: config})
		client := dialHTTP2(t, r)
		client.request(1)
		client.until("an answer", answered(1))
		eventually(t, "it can make room", func() bool { return r.evictable() == 1 })
		r.conns.mu.Lock()
		var c *conn
		for c = range r.conns.open {
		}
		outer := c.outer
		r.conns.mu.Unlock()
		r.conns.state(outer, http.StateActive)
		r.conns.state(outer, http.StateIdle) // the stream has ended
		cost, _ := r.conns.begin(c, &http.Request{ProtoMajor: 2})
		if r.evictable() != 0 {
			t.Error("it makes room while a handler runs")
		}
		r.conns.end(c, cost, false, false)
		if r.evictable() != 1 {
			t.Error("it does not make room")
		}
	})
}

// Between the end of the preface and the first state a drain does not close a connection as one without a request.
func TestDrainAfterPreface(t *testing.T) {
	t.Parallel()
	r := start(t, Server{Handler: ok})
	client := dial(t, r.address())
	eventually(t, "the connection is accepted", func() bool { return r.conns.count() == 1 })
	r.conns.mu.Lock()
	var c *conn
	for c = range r.conns.open {
	}
	r.conns.mu.Unlock()
	r.conns.read(c, []byte(http2.ClientPreface))
	r.conns.drain()
	r.conns.closeIdle()
	client.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if _, err := client.buffered.ReadByte(); err == io.EOF {
		t.Error("it is closed")
	}
}

// An answer that has just begun is not late, though nobody has noted yet when it began.
func TestAnswerThatBegins(t *testing.T) {
	t.Parallel()
	for range 50_000 {
		var a answering
		before := time.Now()
		go a.begin()
		for some, late := false, false; !some; {
			if some, late = a.some(time.Now()); late && time.Since(before) < stuckAfter { // else this test did not run for so long
				t.Fatal("it is late")
			}
			runtime.Gosched()
		}
	}
}

// However many connections come and go, each request that has a handler gets its answer.
func TestEvictionLosesNoAnswer(t *testing.T) {
	t.Parallel()
	var entered, lost, answered atomic.Int64
	r := start(t, Server{MaxConnections: 4, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		entered.Add(1)
		io.WriteString(w, "ok\n")
	})})
	var callers sync.WaitGroup
	end := time.Now().Add(time.Second)
	for range 8 {
		callers.Go(func() {
			for time.Now().Before(end) {
				c := dial(t, r.address())
				for range 3 {
					if _, err := c.ask(get); err != nil {
						lost.Add(1)
						break
					}
					answered.Add(1)
				}
				c.Close()
			}
		})
	}
	callers.Wait()
	if entered.Load() != answered.Load() || answered.Load() == 0 {
		t.Errorf("%d requests had a handler, and %d an answer", entered.Load(), answered.Load())
	}
	t.Logf("%d answers, %d connections refused or evicted", answered.Load(), lost.Load())
}
