package serve

import (
	"container/list"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"example.com/grpc-health-http/internal/memory"
)

// connections is the table of a server's open connections, and the listener that fills it. It keeps their number below the
// limit, and drains them.
type connections struct {
	net.Listener
	limit    int
	memory   int64                            // for connections and what they carry; 0 is no bound
	headers  int64                            // for bytes of requests that no handler has yet; 0 is no bound
	secure   bool                             // with TLS, so that what a conn reads is ciphertext
	patience time.Duration                    // for the headers of a request, and for a body that a handler reads
	answer   time.Duration                    // the longest that an answer to a request that has been read takes
	failed   func(error)                      // Accept calls it with an error
	refused  func(client net.Addr, err error) // called for client certificates that were refused; may be nil
	stopped  atomic.Bool                      // the listener was closed on purpose
	cut      atomic.Bool                      // what is open is to be closed without delay
	draining atomic.Bool                      // set under the lock
	drained  context.Context                  // ends when draining and no HTTP/1 connection is open
	signal   context.CancelFunc               // ends drained

	mu      sync.Mutex // guards the fields below, and those of each conn
	open    map[*conn]struct{}
	http1   int                // how many of them are not known to speak HTTP/2
	order   list.List          // of *conn: those that can be evicted, first the one that has been so for longest
	closing bool               // draining, and the linger time is over
	clients map[netip.Addr]int // how many of them each address has
	used    int64              // of memory
	excess  int64              // of headers
}

// Accept returns the next connection for which there is room.
func (cs *connections) Accept() (net.Conn, error) {
	for {
		nc, err := cs.Listener.Accept()
		if err != nil {
			if !cs.stopped.Load() {
				cs.failed(err)
			}
			return nil, err
		}
		bound(nc)
		c := &conn{Conn: nc, table: cs, cost: memory.HTTP2Connection} // until it begins with something else
		if cs.secure {
			c.cost = memory.SecureConnection
		}
		c.outer = c
		if tcp, ok := nc.RemoteAddr().(*net.TCPAddr); ok {
			c.from = tcp.AddrPort().Addr().Unmap()
		}
		if cs.take(c) {
			return c, nil
		}
		_ = nc.Close()
	}
}

// take makes room for c and adds it, and reports whether it could. It waits where there will be room in a moment. Other new connections
// wait in the system's queue meanwhile: so each that was taken has some time for its request, however many come.
func (cs *connections) take(c *conn) bool {
	for deadline := time.Now().Add(takeFor); ; time.Sleep(takeAgain) {
		surplus, room, soon := cs.add(c)
		closeAll(surplus)
		if room {
			return true
		}
		if !soon || cs.stopped.Load() || time.Now().After(deadline) {
			return false
		}
	}
}

// bound keeps what the system holds for a connection small: a request is short, and what an answer needs beyond this waits here.
func bound(nc net.Conn) {
	if tcp, ok := nc.(*net.TCPConn); ok { // errors say that the connection is broken
		_ = tcp.SetReadBuffer(receiveBuffer)
		_ = tcp.SetWriteBuffer(sendBuffer)
	}
}

// add takes c into the table if there is room for it, and returns the connections that have made room. soon says that there may be
// room in a moment.
func (cs *connections) add(c *conn) (surplus []*conn, room, soon bool) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	surplus, room, soon = cs.makeRoomLocked(c, c.cost, len(cs.open)-cs.limit+1, restFor)
	if !room {
		return surplus, false, soon
	}
	cs.open[c] = struct{}{}
	cs.clients[c.from]++
	cs.used += c.cost
	cs.http1++
	cs.placeLocked(c)
	return surplus, true, false
}

func (cs *connections) remove(c *conn) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if _, open := cs.open[c]; open {
		cs.removeLocked(c)
	}
}

func (cs *connections) removeLocked(c *conn) {
	delete(cs.open, c)
	if cs.clients[c.from]--; cs.clients[c.from] == 0 {
		delete(cs.clients, c.from)
	}
	cs.used -= c.cost
	cs.excess -= c.excess
	c.cost, c.excess = 0, 0
	cs.unlistLocked(c)
	if !c.http2 {
		cs.http1--
		cs.signalLocked()
	}
}

// signalLocked ends drained when it is time.
func (cs *connections) signalLocked() {
	if cs.draining.Load() && cs.http1 == 0 {
		cs.signal()
	}
}

// state is the server's ConnState hook. Accept has seen a new connection before, and Close sees one that ends.
func (cs *connections) state(nc net.Conn, state http.ConnState) {
	if state == http.StateClosed && cs.refused != nil {
		if err := refusedCertificate(nc); err != nil {
			cs.refused(nc.RemoteAddr(), err)
		}
	}
	if state != http.StateActive && state != http.StateIdle {
		return
	}
	c := tableConn(nc)
	secure, _ := nc.(*tls.Conn)
	http2 := secure != nil && secure.ConnectionState().NegotiatedProtocol == "h2"
	cs.mu.Lock()
	defer cs.mu.Unlock()
	// Not before: Shutdown, which is called when no HTTP/1 connection is left, sends GOAWAY only to an HTTP/2 connection that has a state.
	http2 = http2 || c.preface.complete()
	if _, open := cs.open[c]; open && http2 && !c.http2 {
		c.http2 = true
		c.gathers.Store(true)
		cs.http1--
		cs.signalLocked()
	}
	if c.idle = state == http.StateIdle; c.idle {
		c.requests.whole = max(c.requests.whole-1, 0)
		c.owed--
		cs.readLocked(c, -c.unread)
		cs.settleLocked(c)
		cs.enlistLocked(c)
		cs.closeIdleLocked(c)
	}
}

// room is what there is for a request.
type room int

const (
	enough room = iota
	little      // for an answer that says that there is too little
	none
)

// begin notes that a handler has a request of c. It returns what the request takes of the memory, or that there is none for it.
// There is none on a connection that is closed.
func (cs *connections) begin(c *conn, r *http.Request) (cost int64, _ room) {
	cost = max(0, int64(len(r.Header))*memory.HeaderField-freeFields)
	leaves := int64(0) // what the requests of HTTP/2 connections leave to connections, so that there is always room for another one
	if r.ProtoMajor > 1 {
		leaves = cs.memory / 4
		cost += memory.Stream
		if r.ContentLength != 0 {
			cost += memory.Body
		}
	}
	cs.mu.Lock()
	if cs.secure { // what has been read is this request, and what will be is another one
		c.requests = requests{whole: 1}
	}
	c.handlers++
	cs.unlistLocked(c)
	cost += c.excess
	cs.readLocked(c, -c.unread)
	var surplus []*conn
	got := none
	if _, open := cs.open[c]; open {
		got = enough
		if cost > 0 {
			var fits bool
			if surplus, fits, _ = cs.makeRoomLocked(c, cost+leaves, 0, askFor); !fits {
				switch got = little; {
				case r.ProtoMajor == 1: // it has its connection, and will soon have ended
					cost = 0
				case cs.used+cost+leaves/2 > cs.memory:
					got = none
				}
			}
		}
	}
	if got == none {
		cost = 0
	}
	c.cost += cost
	cs.used += cost
	cs.mu.Unlock()
	closeAll(surplus)
	return cost, got
}

// leaves reports whether a handler of c may leave the end of its answer to net/http. With HTTP/2 that can take long after the handler
// has returned, for as long as the client wants no more data; so a connection may have only a few such answers.
func (cs *connections) leaves(c *conn) bool {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	return c.left < maxLeft
}

// end notes that a handler of c has returned, and what its request has taken. With HTTP/2, c may have become idle before: callers can
// cancel requests. left says that the answer may still be on its way: then the request keeps what it has until all of the connection's
// answers have ended.
func (cs *connections) end(c *conn, cost int64, left, answered bool) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	c.handlers--
	c.answered = c.answered || answered
	if left && !c.idle {
		c.left++
		c.leftCost += cost
	} else {
		cs.giveLocked(c, cost)
		if left {
			c.answers.end()
		}
	}
	if c.handlers == 0 {
		cs.unlistLocked(c) // its answer may be on its way
	}
	cs.enlistLocked(c)
	cs.waitsLocked(c)
}

// awaits notes that a handler of c waits for a part of a body. Where all of them do, c is as one whose request is arriving.
func (cs *connections) awaits(c *conn) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	c.waiting++
	cs.waitsLocked(c)
}

// arrived notes that a handler of c has n bytes of a body, and what the body no longer takes of the memory.
func (cs *connections) arrived(c *conn, n int, cost int64) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	c.waiting--
	cs.readLocked(c, -min(int64(n), c.unread))
	cs.giveLocked(c, cost)
}

func (cs *connections) giveLocked(c *conn, cost int64) {
	if _, open := cs.open[c]; open {
		c.cost -= cost
		cs.used -= cost
	}
}

// settleLocked ends the answers that handlers have left to net/http.
func (cs *connections) settleLocked(c *conn) {
	cs.giveLocked(c, c.leftCost)
	for ; c.left > 0; c.left-- {
		c.answers.end()
	}
	c.leftCost = 0
}

// last reports whether the answer that begins is the last of its connection.
func (cs *connections) last(c *conn) bool {
	if !cs.draining.Load() {
		return false
	}
	cs.mu.Lock()
	defer cs.mu.Unlock()
	c.final = c.http2 || c.owed <= 1
	return c.final
}

// waitsForClient reports, once, whether c has had its last answer of a drain. HTTP/2 has an end of its own.
func (cs *connections) waitsForClient(c *conn) bool {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	waits := c.final && !c.http2
	c.final = false
	return waits
}

// read notes what was read from c, and returns the connection for the headers of which there is no memory: of those that can be
// evicted, the one that has most.
func (cs *connections) read(c *conn, p []byte) (surplus *conn) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.secure {
		c.requests.partial = true
	} else {
		cs.readPlainLocked(c, p)
	}
	cs.readLocked(c, int64(len(p)))
	if cs.headers == 0 || cs.excess <= cs.headers {
		return nil
	}
	for e := cs.order.Front(); e != nil; e = e.Next() {
		if other := e.Value.(*conn); other.excess > 0 && !other.busy() && (surplus == nil || other.excess > surplus.excess) {
			surplus = other
		}
	}
	if surplus != nil {
		cs.removeLocked(surplus)
	}
	return surplus
}

// readPlainLocked notes what was read from c without TLS. Of HTTP/2 these are frames, that say as little of requests as ciphertext does.
func (cs *connections) readPlainLocked(c *conn, p []byte) {
	before := c.preface
	if c.preface.read(p); c.preface.complete() {
		c.requests = requests{partial: true}
		return
	}
	if c.preface < 0 && before >= 0 {
		cs.giveLocked(c, memory.HTTP2Connection-memory.Connection)
	}
	c.requests.read(p)
}

// readLocked counts bytes of a request that no handler has yet.
func (cs *connections) readLocked(c *conn, n int64) {
	c.unread += n
	if _, open := cs.open[c]; !open {
		return
	}
	free := int64(freeBytes)
	if cs.secure {
		free = freeSecureBytes
	}
	excess := max(0, min(c.unread, maxUnread)-free) * memory.HeaderByte
	cs.excess += excess - c.excess
	c.excess = excess
}

// drain lets each connection end with the answer to the last request of which bytes have been read, or else to the next.
// It comes after the last Accept.
func (cs *connections) drain() {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	for c := range cs.open {
		c.owed = c.requests.unanswered()
	}
	cs.draining.Store(true)
	cs.signalLocked()
}

// closeIdle closes the HTTP/1 connections that owe no answer, and each other one once it owes none.
func (cs *connections) closeIdle() {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.closing = true
	for c := range cs.open {
		cs.closeIdleLocked(c)
	}
}

func (cs *connections) closeIdleLocked(c *conn) {
	if cs.closing && !c.http2 && c.requests.unanswered() == 0 {
		go c.outer.Close() // TLS takes leave of the client, and so may have to wait
	}
}

// count is the number of open connections.
func (cs *connections) count() int {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	return len(cs.open)
}

// tableConn is the conn of the table that a connection of http.Server is, or secures.
func tableConn(nc net.Conn) *conn {
	if secure, ok := nc.(*tls.Conn); ok {
		nc = secure.NetConn()
	}
	return nc.(*conn)
}

// refusedCertificate is why the TLS handshake of a connection that has ended failed, if the client's certificate was the reason;
// else nil. Most handshakes that fail say nothing of callers: port scanners, load balancers that only connect, clients that do not
// trust our certificate.
func refusedCertificate(nc net.Conn) error {
	secure, ok := nc.(*tls.Conn)
	if !ok || secure.ConnectionState().HandshakeComplete {
		return nil
	}
	err := secure.Handshake() // which is over, and failed: this is its error again
	if _, unverified := errors.AsType[*tls.CertificateVerificationError](err); unverified {
		return err
	}
	// crypto/tls has no type for a certificate that is missing, or that it cannot use. What the client complains of begins with
	// "remote error".
	if err != nil && strings.HasPrefix(err.Error(), "tls: ") && strings.Contains(err.Error(), "client") && strings.Contains(err.Error(), "certificate") {
		return err
	}
	return nil
}
