package healthtest

import (
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// Mode is what a Forwarder does with a new connection.
type Mode int

const (
	// Pass forwards to the target.
	Pass Mode = iota
	// Refuse has no listener: the system answers a dial with a reset.
	Refuse
	// Silent accepts, and never reads or writes.
	Silent
	// ResetOnAccept accepts and resets at once, so that even the dial may see the reset.
	ResetOnAccept
	// CloseOnFirstBytes accepts, and closes when the first bytes of the client arrive.
	CloseOnFirstBytes
	// CloseOnRequest forwards until the client sends a HEADERS frame, and then closes both sides:
	// the target never sees the request. The connection must be plaintext HTTP/2.
	CloseOnRequest
	// Garbage accepts and says something that is neither TLS nor HTTP.
	Garbage
	// HTTP1 accepts and answers like a server that speaks HTTP/1.1 only.
	HTTP1
	// Backlogged has a listener whose queue is full: connecting hangs. Linux only.
	Backlogged
)

const (
	garbage   = "220 mail.example ESMTP, not what was expected here\r\n"
	http1Only = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
)

const (
	pieceSize  = 32 << 10
	piecesHeld = 64 // in each direction of a connection
)

// Forwarder is a TCP proxy on loopback with faults to switch on. All methods are safe for concurrent
// use and effective at once.
type Forwarder struct {
	t       testing.TB
	address string

	accepted atomic.Int64
	running  sync.WaitGroup

	mu          sync.Mutex
	network     string // of the target
	target      string
	listener    net.Listener // nil while refusing or backlogged
	reservation *reservation
	backlog     *backlog
	mode        Mode
	hold        time.Duration
	up, down    time.Duration
	thawed      chan struct{} // closed unless frozen
	links       map[*link]struct{}
	ended       bool
}

// Forward starts a forwarder to target, as Upstream.Target gives it, that ends with the test. The
// target need not be up, and may be empty where no mode that forwards is used.
func Forward(t testing.TB, target string) *Forwarder {
	t.Helper()
	f := &Forwarder{t: t, thawed: make(chan struct{}), links: make(map[*link]struct{})}
	f.SetTarget(target)
	close(f.thawed)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("start forwarder: %v", err)
	}
	f.address = listener.Addr().String()
	f.mu.Lock()
	f.serve(listener)
	f.mu.Unlock()
	t.Cleanup(f.end)
	return f
}

// Addr is the address that the forwarder listens on, "127.0.0.1:34567"; also grpc-go's target.
func (f *Forwarder) Addr() string { return f.address }

// Connections counts the connections accepted, whatever then became of them.
func (f *Forwarder) Connections() int { return int(f.accepted.Load()) }

// OpenConnections counts the connections that the forwarder holds open towards clients now.
func (f *Forwarder) OpenConnections() int { return len(f.open()) }

// SetTarget replaces the target for new connections.
func (f *Forwarder) SetTarget(target string) {
	network := "tcp"
	if path, ok := strings.CutPrefix(target, "unix://"); ok {
		network, target = "unix", path
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.network, f.target = network, target
}

// SetMode says what is done with new connections. Those established go on as they are.
func (f *Forwarder) SetMode(mode Mode) {
	f.t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended {
		return
	}
	f.mode = mode
	f.backlog.close()
	f.backlog = nil
	listens := mode != Refuse && mode != Backlogged
	if !listens && f.listener != nil {
		stopListening(f.listener)
		f.listener = nil
		f.reservation = reserve(f.address)
	}
	switch {
	case mode == Backlogged:
		var err error
		if f.backlog, err = listenBacklogged(f.address); err != nil {
			f.t.Errorf("forwarder drops SYNs: %v", err)
		}
	case listens && f.listener == nil:
		listener, err := listenAgain("tcp", f.address)
		if err != nil {
			f.t.Errorf("forwarder listens again: %v", err)
			return
		}
		f.reservation.release()
		f.reservation = nil
		f.serve(listener)
	}
}

// Hold makes new connections wait for d before they are forwarded: the client is connected, and
// what it and the target send is late.
func (f *Forwarder) Hold(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hold = d
}

// Delay makes bytes towards the target and towards the client take that much longer, on every
// connection. Their order stays.
func (f *Forwarder) Delay(towardsTarget, towardsClient time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.up, f.down = towardsTarget, towardsClient
}

// Swallow makes the connections that are established now lose everything, in both directions, the
// end of the target's side included. A client that closes its side ends such a connection.
func (f *Forwarder) Swallow() {
	for _, l := range f.open() {
		l.swallowed.Store(true)
	}
}

// SwallowOlder does the same to those of them that were accepted before a time, and counts them.
func (f *Forwarder) SwallowOlder(than time.Time) int {
	return f.older(than, func(l *link) { l.swallowed.Store(true) })
}

// CloseOnBytes closes each connection that is established now when its client sends the next bytes,
// which the target never sees.
func (f *Forwarder) CloseOnBytes() {
	for _, l := range f.open() {
		l.closeOnBytes.Store(true)
	}
}

// Reset resets both sides of the connections that are established now.
func (f *Forwarder) Reset() {
	for _, l := range f.open() {
		l.reset()
	}
}

// ResetOlder does the same to those of them that were accepted before a time, and counts them.
func (f *Forwarder) ResetOlder(than time.Time) int { return f.older(than, (*link).reset) }

// GoAway sends the clients of the connections that are established now a GOAWAY, between two frames
// of the target, which knows nothing of it. They must be plaintext HTTP/2.
func (f *Forwarder) GoAway(lastStreamID uint32, code http2.ErrCode) {
	for _, l := range f.open() {
		// A connection that just broke has nobody to tell.
		_ = l.towardsClient.inject(goAwayFrame(lastStreamID, code))
	}
}

// Freeze stops all bytes on all connections, new ones included, until Thaw lets them go on.
func (f *Forwarder) Freeze() {
	f.mu.Lock()
	defer f.mu.Unlock()
	select {
	case <-f.thawed:
		f.thawed = make(chan struct{})
	default:
	}
}

// Thaw ends Freeze; nothing was lost.
func (f *Forwarder) Thaw() {
	f.mu.Lock()
	defer f.mu.Unlock()
	select {
	case <-f.thawed:
	default:
		close(f.thawed)
	}
}

func (f *Forwarder) end() {
	f.mu.Lock()
	f.ended = true
	if f.listener != nil {
		f.listener.Close()
		f.listener = nil
	}
	f.reservation.release()
	f.backlog.close()
	f.mu.Unlock()
	for _, l := range f.open() {
		l.close()
	}
	f.running.Wait()
}

// serve accepts on listener until it is closed. The caller holds mu.
func (f *Forwarder) serve(listener net.Listener) {
	f.listener = listener
	f.running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				if !errors.Is(err, net.ErrClosed) {
					f.t.Errorf("forwarder %s: accept: %v", f.address, err)
				}
				return
			}
			f.accepted.Add(1)
			f.running.Go(func() { f.connection(conn) })
		}
	})
}

func (f *Forwarder) connection(client net.Conn) {
	l := &link{forwarder: f, client: client, accepted: time.Now(), towardsClient: &injector{w: client}, done: make(chan struct{})}
	f.mu.Lock()
	mode, hold, ended := f.mode, f.hold, f.ended
	l.network, l.address = f.network, f.target
	f.links[l] = struct{}{}
	f.mu.Unlock()
	defer func() {
		l.close()
		f.mu.Lock()
		delete(f.links, l)
		f.mu.Unlock()
	}()
	if ended {
		return
	}
	switch mode {
	case Pass, CloseOnRequest:
		l.forward(mode == CloseOnRequest, hold)
	case Refuse, Backlogged, ResetOnAccept: // the first two: accepted just before the listener was closed
		l.reset()
	case Silent:
		<-l.done
	case CloseOnFirstBytes:
		// What is left unread would turn the close into a reset.
		_, _ = client.Read(make([]byte, pieceSize))
	case Garbage:
		l.say(garbage)
	case HTTP1:
		_, _ = client.Read(make([]byte, pieceSize))
		l.say(http1Only)
	}
}

func (f *Forwarder) open() []*link {
	f.mu.Lock()
	defer f.mu.Unlock()
	links := make([]*link, 0, len(f.links))
	for l := range f.links {
		links = append(links, l)
	}
	return links
}

func (f *Forwarder) older(than time.Time, do func(*link)) (count int) {
	for _, l := range f.open() {
		if l.accepted.Before(than) {
			do(l)
			count++
		}
	}
	return count
}

func (f *Forwarder) gate() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.thawed
}

func (f *Forwarder) delay(towardsClient bool) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	if towardsClient {
		return f.down
	}
	return f.up
}

// link is one connection of a client, and the one to the target that belongs to it.
type link struct {
	forwarder     *Forwarder
	client        net.Conn
	accepted      time.Time
	network       string // of the target
	address       string // of the target
	towardsClient *injector

	swallowed    atomic.Bool
	closeOnBytes atomic.Bool

	mu     sync.Mutex
	target net.Conn // nil until dialled
	ended  bool
	done   chan struct{}
}

func (l *link) close() { l.end(false) }
func (l *link) reset() { l.end(true) }

func (l *link) end(hard bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return
	}
	l.ended = true
	close(l.done)
	for _, conn := range []net.Conn{l.client, l.target} {
		if conn == nil {
			continue
		}
		if tcp, ok := conn.(*net.TCPConn); ok && hard {
			_ = tcp.SetLinger(0) // closing now sends RST; a connection that is broken needs none
		}
		conn.Close()
	}
}

// wait returns false where the link ended first.
func (l *link) wait(d time.Duration) bool {
	if d <= 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-l.done:
		return false
	}
}

// waitThawed returns false where the link ended first.
func (l *link) waitThawed() bool {
	select {
	case <-l.forwarder.gate():
		return true
	case <-l.done:
		return false
	}
}

// say sends text and then listens until the client closes or the link ends.
func (l *link) say(text string) {
	if _, err := io.WriteString(l.client, text); err != nil {
		return
	}
	closeWrite(l.client)
	_, _ = io.Copy(io.Discard, l.client)
}

func (l *link) forward(untilRequest bool, hold time.Duration) {
	if !l.wait(hold) || !l.waitThawed() {
		return
	}
	target, err := net.Dial(l.network, l.address)
	if err != nil {
		l.reset()
		return
	}
	l.mu.Lock()
	l.target = target
	ended := l.ended
	l.mu.Unlock()
	if ended {
		target.Close()
		return
	}
	up := direction{link: l, from: l.client, to: target, write: writeAll(target)}
	if untilRequest {
		up.write = (&requestCutter{w: target, preface: len(http2.ClientPreface)}).write
	}
	down := direction{link: l, from: target, to: l.client, fromTarget: true, write: writeAll(l.towardsClient)}
	var both sync.WaitGroup
	both.Go(up.run)
	both.Go(down.run)
	both.Wait()
}

// direction moves the bytes of a link one way.
type direction struct {
	link       *link
	from, to   net.Conn
	fromTarget bool
	write      func([]byte) error
}

// piece is what one read brought: bytes, or the end of the stream.
type piece struct {
	bytes []byte
	at    time.Time
	err   error
}

func (d direction) run() {
	pieces := make(chan piece, piecesHeld)
	var reader sync.WaitGroup
	reader.Go(func() { d.read(pieces) })
	if !d.deliver(pieces) {
		d.link.close()
	}
	reader.Wait()
}

func (d direction) read(pieces chan<- piece) {
	for {
		buffer := make([]byte, pieceSize)
		n, err := d.from.Read(buffer)
		if n > 0 && !d.fromTarget && d.link.closeOnBytes.Load() {
			d.link.close()
			return
		}
		if n > 0 && !d.send(pieces, piece{bytes: buffer[:n], at: time.Now()}) {
			return
		}
		if err != nil {
			d.send(pieces, piece{at: time.Now(), err: err})
			return
		}
	}
}

func (d direction) send(pieces chan<- piece, p piece) bool {
	select {
	case pieces <- p:
		return true
	case <-d.link.done:
		return false
	}
}

// deliver returns true where the other direction may go on: the stream ended in order.
func (d direction) deliver(pieces <-chan piece) bool {
	for {
		var p piece
		select {
		case p = <-pieces:
		case <-d.link.done:
			return false
		}
		if !d.link.wait(time.Until(p.at.Add(d.link.forwarder.delay(d.fromTarget)))) || !d.link.waitThawed() {
			return false
		}
		switch swallowed := d.link.swallowed.Load(); {
		case swallowed && p.err != nil:
			// The client is not to see what became of the target.
			return d.fromTarget
		case swallowed:
		case errors.Is(p.err, io.EOF):
			closeWrite(d.to)
			return true
		case p.err != nil:
			d.link.reset()
			return false
		default:
			if err := d.write(p.bytes); err != nil {
				return false
			}
		}
	}
}

func closeWrite(conn net.Conn) {
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite() // a connection that is broken has no side left to close
	}
}

func writeAll(w io.Writer) func([]byte) error {
	return func(p []byte) error {
		_, err := w.Write(p)
		return err
	}
}

// requestCutter passes on what a client sends, up to its first HEADERS frame.
type requestCutter struct {
	w       io.Writer
	preface int // bytes of the connection preface to come
	frames  frames
}

var errRequestCut = errors.New("a request begins")

func (c *requestCutter) write(p []byte) error {
	from := min(c.preface, len(p))
	c.preface -= from
	for from < len(p) {
		n, started := c.frames.next(p[from:])
		if started && c.frames.kind() == http2.FrameHeaders {
			// The part of the frame's header that is written does no harm to anybody.
			if _, err := c.w.Write(p[:from]); err != nil {
				return err
			}
			return errRequestCut
		}
		from += n
	}
	_, err := c.w.Write(p)
	return err
}
