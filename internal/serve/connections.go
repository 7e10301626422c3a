package serve

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

// connections is a listener that knows the connections it has taken, and which of them have no
// request, so that these alone can be closed at the end, or to make room for others.
type connections struct {
	net.Listener
	most    int           // connections at a time
	drained chan struct{} // closed when draining and no HTTP/1 connection is left

	mu       sync.Mutex
	stopped  bool      // the listener was closed on purpose
	lingers  time.Time // when idle connections end; zero before the end
	all      map[*conn]struct{}
	signaled bool

	pause     pause
	tidy      tidy
	parking   *parking
	parkAfter time.Duration // 0 is never
}

func newConnections(l net.Listener, most int, parkAfter time.Duration) *connections {
	return &connections{
		Listener: l, most: most, drained: make(chan struct{}), all: make(map[*conn]struct{}),
		parking: newParking(l), parkAfter: parkAfter,
	}
}

// Accept takes a connection. Where there are as many as there may be, one without a request ends for it, or
// else it ends itself.
func (cs *connections) Accept() (net.Conn, error) {
	for {
		nc, err := cs.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := cs.newConn(nc)
		if cs.take(c) {
			cs.tidy.connection()
			return c, nil
		}
		_ = nc.Close() // nothing was read or written that could be lost
	}
}

// take says whether there is room for the connection.
func (cs *connections) take(c *conn) bool {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if len(cs.all) >= cs.most && !cs.makeRoom() {
		return false
	}
	cs.all[c] = struct{}{}
	return true
}

// makeRoom ends any connection without a request; a map gives them in no order. The caller holds cs.mu.
func (cs *connections) makeRoom() bool {
	for c := range cs.all {
		if c.giveUp() {
			delete(cs.all, c)
			return true
		}
	}
	return false
}

// stop takes no further connections; those that are open stay so. (Close, which http.Server calls
// also when it fails, does not say that this is the wanted end.)
func (cs *connections) stop() {
	cs.mu.Lock()
	cs.stopped = true
	cs.mu.Unlock()
	// An error says that the listener is closed already.
	_ = cs.Listener.Close()
}

func (cs *connections) isStopped() bool {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	return cs.stopped
}

// drain ends each connection that still has no request after the time given. It comes after the
// last Accept.
func (cs *connections) drain(after time.Duration) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.lingers = time.Now().Add(after)
	for c := range cs.all {
		c.linger(cs.lingers)
	}
	cs.signal()
}

func (cs *connections) draining() bool {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	return !cs.lingers.IsZero()
}

// open is the number of connections.
func (cs *connections) open() int {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	return len(cs.all)
}

// state is the server's ConnState hook.
func (cs *connections) state(nc net.Conn, state http.ConnState) {
	secure, _ := nc.(*tls.Conn)
	if secure != nil {
		nc = secure.NetConn()
	}
	c, ok := nc.(*conn)
	if !ok {
		return
	}
	switch state {
	case http.StateActive, http.StateIdle:
		// The handshake is over now: asking about it does not wait.
		if secure != nil && secure.ConnectionState().NegotiatedProtocol == "h2" {
			c.setHTTP2(state == http.StateActive)
			cs.mu.Lock()
			cs.signal()
			cs.mu.Unlock()
			return
		}
		c.setActive(state == http.StateActive)
	case http.StateClosed:
		cs.forget(c)
	}
}

// forget takes a connection off those that there are.
func (cs *connections) forget(c *conn) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	delete(cs.all, c)
	cs.signal()
}

// signal closes drained when the time for it has come. The caller holds cs.mu.
func (cs *connections) signal() {
	if cs.signaled || cs.lingers.IsZero() {
		return
	}
	for c := range cs.all {
		if !c.isHTTP2() {
			return
		}
	}
	cs.signaled = true
	close(cs.drained)
}

// conn is a connection that can be told to end unless a request arrives. The read deadline does
// it: it ends only a read that has brought nothing, whereas closing would lose a request that
// arrives at the same moment.
type conn struct {
	net.Conn

	mu       sync.Mutex
	busy     bool      // a request is being read or answered
	reading  bool      // the server reads
	http2    bool      // HTTP/2 says by itself when it ends
	wanted   time.Time // the read deadline that the server has set
	lingers  time.Time // when the connection ends unless it is busy; zero before the end
	deadline time.Time // what is set

	// To pause:
	server    *connections
	answering bool      // a request's headers have been read, and its answer has not gone out
	paused    bool      // a read waits
	resume    sync.Cond // for paused
	place     int       // among those who wait; the pause's mutex guards it

	// To park:
	answered bool      // there was a request
	room     int       // the most that a read has asked for
	parks    time.Time // when the read under way has waited for long enough; zero where that does not matter
	leaving  bool      // the server was told that the connection has ended, and is about to close it
	first    [1]byte   // what was read while it was parked,
	held     bool      // if it is still to be read
}

func (cs *connections) newConn(nc net.Conn) *conn {
	c := &conn{Conn: nc, server: cs}
	c.resume.L = &c.mu
	return c
}

// Read sets the read deadline: net/http sets several for each read that it makes, of which only the last counts.
// What net/http reads ahead, a single byte, waits for a pause.
func (c *conn) Read(p []byte) (int, error) {
	c.mu.Lock()
	if c.answering && len(p) == 1 && !c.rest() {
		c.mu.Unlock()
		return 0, os.ErrDeadlineExceeded
	}
	c.room = max(c.room, len(p))
	if c.held && len(p) > 0 {
		c.held = false
		c.mu.Unlock()
		return copy(p, c.first[:]), nil
	}
	c.reading = true
	// With less room than ever net/http holds the first bytes of the next request, which would be lost.
	if c.server.parkAfter > 0 && c.answered && !c.busy && len(p) == c.room {
		c.parks = c.wanted.Add(-idleTimeout).Add(c.server.parkAfter) // the wait began idleTimeout before its deadline
	}
	err := c.apply()
	c.mu.Unlock()
	if err != nil {
		return 0, err
	}
	n, err := c.Conn.Read(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reading = false
	if n > 0 && !c.http2 { // what HTTP/2 reads need not be a request
		c.busy = true
	}
	if !c.parks.IsZero() && c.deadline.Equal(c.parks) && errors.Is(err, os.ErrDeadlineExceeded) {
		c.leaving, err = true, io.EOF
	}
	c.parks = time.Time{}
	return n, err
}

// rest waits for a pause, and says whether it is to be followed by the read: net/http sets a deadline in the past when
// the answer is ready. The caller holds c.mu.
func (c *conn) rest() (reads bool) {
	if c.over() {
		return false
	}
	c.server.pause.begin(c)
	for c.paused {
		c.resume.Wait()
	}
	c.server.pause.leave(c)
	return !c.over()
}

// goOn ends a pause, if there is one. The caller holds c.mu.
func (c *conn) goOn() {
	if c.paused {
		c.paused = false
		c.resume.Signal()
	}
}

// over says whether net/http has ended its reads, as it does with a deadline long past. The caller holds c.mu.
func (c *conn) over() bool { return !c.wanted.IsZero() && c.wanted.Before(longAgo) }

// longAgo is later than what net/http means by long ago, and earlier than any deadline.
var longAgo = time.Unix(1<<30, 0)

// SetReadDeadline is how the server times out reads, and ends the one that is under way.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	// After an answer net/http sets one deadline to wait with. One that replaces it is for a request, whose beginning no
	// read need have brought: it can have come along with the request before.
	if c.answered && !c.wanted.IsZero() && !t.IsZero() {
		c.busy = true
	}
	c.wanted = t
	if c.over() {
		c.goOn()
	}
	return c.apply()
}

// Close ends a read that waits, too. A connection that has only been idle stays open.
func (c *conn) Close() error {
	c.mu.Lock()
	c.goOn()
	leaving := c.leaving
	c.leaving = false
	c.mu.Unlock()
	if leaving {
		c.server.park(c)
		return nil
	}
	return c.Conn.Close()
}

// SetDeadline sets both deadlines.
func (c *conn) SetDeadline(t time.Time) error {
	if err := c.SetWriteDeadline(t); err != nil {
		return err
	}
	return c.SetReadDeadline(t)
}

// CloseWrite lets the server say that an answer is complete before it closes.
func (c *conn) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return nil
}

func (c *conn) linger(until time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lingers = until
	_ = c.apply()
}

// giveUp ends the connection unless it has a request, and says whether it does.
func (c *conn) giveUp() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.busy {
		return false
	}
	c.lingers = time.Unix(1, 0)
	if c.http2 {
		_ = c.Conn.SetReadDeadline(c.lingers) // an error says that it has ended
	} else {
		_ = c.apply()
	}
	return true
}

func (c *conn) setActive(active bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.busy, c.answering, c.answered = active, active, true
	_ = c.apply()
}

func (c *conn) setHTTP2(active bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.http2, c.busy = true, active
	_ = c.apply()
}

func (c *conn) isHTTP2() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.http2
}

// apply sets the read deadline that the connection's state asks for, if a read is under way: the next one
// does so otherwise. The caller holds c.mu.
func (c *conn) apply() error {
	if !c.reading {
		return nil
	}
	deadline := c.wanted
	if !c.parks.IsZero() && (deadline.IsZero() || c.parks.Before(deadline)) {
		deadline = c.parks
	}
	if !c.busy && !c.http2 && !c.lingers.IsZero() && (deadline.IsZero() || c.lingers.Before(deadline)) {
		deadline = c.lingers
	}
	if deadline.Equal(c.deadline) {
		return nil
	}
	c.deadline = deadline
	return c.Conn.SetReadDeadline(deadline)
}
