package serve

import (
	"bytes"
	"container/list"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// conn is a connection that knows of which requests bytes have been read that have no answer yet. A drain by
// http.Server.Shutdown alone would lose them: it closes a connection while a request is arriving.
type conn struct {
	net.Conn
	table *connections

	// The table's lock guards these.
	from     netip.Addr    // the client's
	outer    net.Conn      // what http.Server uses: this conn, or TLS over it
	place    *list.Element // in the table's order of eviction
	placed   time.Time     // when it got there
	listed   bool          // it is in that order
	handlers int           // that run; several with HTTP/2 only
	waiting  int           // how many of them wait for a part of their request's body
	answered bool          // a request has been answered, but with "Retry-After"
	idle     bool          // http.Server says that no request is being read or answered
	http2    bool
	preface  preface
	requests requests
	owed     int   // how many requests were unanswered when the drain began, less those answered since
	final    bool  // the last answer of a drain has begun
	cost     int64 // what it has of the table's memory
	unread   int64 // bytes of a request that no handler has yet
	excess   int64 // what these have of the table's memory for headers
	left     int   // HTTP/2: answers that may still be on their way when their handlers have returned
	leftCost int64 // what their requests have of the table's memory

	admit atomic.Pointer[func(context.Context) error] // says why the connection has no right any more; nil before its first request
	ended atomic.Bool                                 // it has none

	answers answering
	turns   turns
	gather  gather
	gathers atomic.Bool // it speaks HTTP/2

	// Read alone uses these, which net/http calls in one goroutine at a time.
	room, ahead []byte // what was read ahead is the end of room
}

// busy reports whether a handler works for c, and does not only wait for the body of its request, or will do so in a moment: without TLS
// the table knows that the server has read a whole request of HTTP/1.
func (c *conn) busy() bool {
	return c.handlers > c.waiting || c.handlers == 0 && c.requests.whole > 0 && !c.opaque()
}

// opaque reports whether what is read of c does not say where a request ends.
func (c *conn) opaque() bool { return c.table.secure || c.preface.complete() }

// answering counts the answers of a connection that have begun and not ended.
type answering struct {
	mu    sync.Mutex // so that since is never that of an answer which has ended
	n     int
	since time.Time // when n was 0 last
}

func (a *answering) begin() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.n++; a.n == 1 {
		a.since = time.Now()
	}
}

func (a *answering) end() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.n--
}

// some reports whether there are any, and stuck whether the client has not read them for some time.
func (a *answering) some(now time.Time) (some, stuck bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.n > 0, a.n > 0 && now.Sub(a.since) >= stuckAfter
}

// Read tells the table what was read. Of HTTP/2 without TLS it reads ahead: net/http reads each frame's header and its payload by themselves.
func (c *conn) Read(p []byte) (int, error) {
	if len(c.ahead) == 0 {
		if c.table.secure || len(p) >= readAhead || !c.gathers.Load() {
			return c.read(p)
		}
		if c.room == nil {
			c.room = make([]byte, readAhead)
		}
		n, err := c.read(c.room)
		if c.ahead = c.room[:n]; n == 0 {
			return 0, err
		}
	}
	n := copy(p, c.ahead)
	c.ahead = c.ahead[n:]
	return n, nil
}

// readAhead is more than a request for a check has: about 60 bytes, and 200 if it is the first of its connection.
const readAhead = 512

func (c *conn) read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.turns.read()
		if surplus := c.table.read(c, p[:n]); surplus != nil {
			_ = surplus.Conn.Close() // an error says that the connection is broken, which is as good
		}
	}
	return n, err
}

// Write notes that the client has been answered.
func (c *conn) Write(p []byte) (int, error) {
	c.turns.write()
	if c.gathers.Load() {
		return c.gather.write(c.Conn, p)
	}
	return c.Conn.Write(p)
}

// SetWriteDeadline lets what has been written before go out: crypto/tls sets a deadline that is over before it closes a connection.
func (c *conn) SetWriteDeadline(t time.Time) error {
	if c.gathers.Load() && !t.IsZero() && !t.After(time.Now()) && !c.table.cut.Load() {
		c.gather.end(c.Conn)
	}
	return c.Conn.SetWriteDeadline(t)
}

// turns tell who of a connection has to go on.
type turns struct {
	ours atomic.Bool // the client has sent something
	done atomic.Int32
}

func (t *turns) read() { t.ours.Store(true) }

func (t *turns) write() {
	if t.ours.Load() && t.ours.CompareAndSwap(true, false) {
		t.done.Add(1)
	}
}

// handshakeTurns are those of a server in a TLS handshake.
const handshakeTurns = 2

// resting reports whether the client of a connection with TLS has what it wanted: the handshake, or an answer. It need not be exact.
func (c *conn) resting() bool {
	return c.table.secure && !c.turns.ours.Load() && c.turns.done.Load() >= handshakeTurns
}

// CloseWrite lets http.Server end an answer before it has read the rest of the request.
func (c *conn) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return errors.ErrUnsupported
}

// Close also takes the connection out of the table. After the last answer of a drain the client has some time to close its
// side (RFC 9112, section 9.6): a reset because of what it is still sending could destroy answers on their way.
func (c *conn) Close() error {
	if c.table.waitsForClient(c) && c.CloseWrite() == nil && c.Conn.SetReadDeadline(time.Now().Add(closeTimeout)) == nil {
		go func() {
			_, _ = io.Copy(io.Discard, c.Conn) // an error ends the wait as well
			_ = c.Close()
		}()
		return nil
	}
	if c.gathers.Load() && !c.table.cut.Load() {
		c.gather.end(c.Conn)
	}
	c.table.remove(c)
	return c.Conn.Close()
}

// preface is how many bytes of HTTP/2's connection preface a client has sent; negative where it has begun with something else.
type preface int

// clientPreface is what a client sends first that knows that the server speaks HTTP/2 (RFC 9113, section 3.4).
const clientPreface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// read compares what a connection begins with.
func (p *preface) read(b []byte) {
	if *p < 0 || p.complete() {
		return
	}
	rest := clientPreface[*p:]
	n := min(len(b), len(rest))
	if string(b[:n]) != rest[:n] {
		*p = -1
		return
	}
	*p += preface(n)
}

// complete reports whether the client speaks HTTP/2 without TLS.
func (p *preface) complete() bool { return *p == preface(len(clientPreface)) }

// requests are those of one connection.
type requests struct {
	whole   int  // that have been read and have no answer yet
	partial bool // bytes of another one have been read
	midLine bool // the line that is being read is not empty
}

func (r *requests) unanswered() int {
	if r.partial {
		return r.whole + 1
	}
	return r.whole
}

// read counts requests: each ends with an empty line (RFC 9112, section 2.1). A body would be miscounted, which does no
// harm: the answer to a request with a body is the last of its connection.
func (r *requests) read(p []byte) {
	for len(p) > 0 {
		line, rest, ended := bytes.Cut(p, []byte("\n"))
		if len(bytes.TrimSuffix(line, []byte("\r"))) > 0 {
			r.midLine, r.partial = true, true
		}
		if !ended {
			return
		}
		if !r.midLine && r.partial {
			r.whole++
			r.partial = false
		}
		r.midLine, p = false, rest
	}
}
