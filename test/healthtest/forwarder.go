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
	// Refuse stops listening: the system refuses new connections.
	Refuse
	// Silent accepts, and neither reads nor writes.
	Silent
	// ResetOnAccept accepts and resets at once. The client may see the reset before its dial returns.
	ResetOnAccept
	// CloseOnFirstBytes accepts, and closes when the client's first bytes arrive.
	CloseOnFirstBytes
	// CloseOnRequest forwards until the client sends a HEADERS frame, and then closes both sides, so that the target does
	// not receive the request. The connection must be plaintext HTTP/2.
	CloseOnRequest
	// Garbage accepts and sends text that is neither TLS nor HTTP.
	Garbage
	// HTTP1 accepts and answers like a server that supports only HTTP/1.1.
	HTTP1
	// Backlogged listens with a full accept queue, so that connecting hangs. Linux only.
	Backlogged
	// ResetOnFirstBytes accepts, and resets when the client's first bytes arrive.
	ResetOnFirstBytes
)

const (
	garbage   = "220 mail.example ESMTP, not what was expected here\r\n"
	http1Only = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
)

const (
	pieceSize = 32 << 10
	maxPieces = 64 // read and not yet written, in each direction of a connection
)

// Forwarder is a TCP proxy on loopback that a test can give faults. Its methods take effect at once, and are safe for concurrent
// use.
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
	resumed     chan struct{} // closed unless paused
	links       map[*link]struct{}
	ended       bool
}

// Forward starts a forwarder to target, which has the form of Upstream.Target. It ends with the test. The target need not be
// running, and may be empty if no mode is used that forwards.
func Forward(t testing.TB, target string) *Forwarder {
	t.Helper()
	f := &Forwarder{t: t, resumed: make(chan struct{}), links: make(map[*link]struct{})}
	f.SetTarget(target)
	close(f.resumed)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("start forwarder: %v", err)
	}
	f.address = listener.Addr().String()
	f.mu.Lock()
	f.serveLocked(listener)
	f.mu.Unlock()
	t.Cleanup(f.end)
	return f
}

// Addr returns the address that the forwarder listens on, "127.0.0.1:34567". It is also a target for grpc-go.
func (f *Forwarder) Addr() string { return f.address }

// Connections returns how many connections were accepted since the start.
func (f *Forwarder) Connections() int { return int(f.accepted.Load()) }

// OpenConnections returns how many connections with clients are open.
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

// SetMode sets what happens to new connections. Established ones are not affected.
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
			f.t.Errorf("make the forwarder drop SYNs: %v", err)
		}
	case listens && f.listener == nil:
		listener, err := listenAgain("tcp", f.address)
		if err != nil {
			f.t.Errorf("make the forwarder listen again: %v", err)
			return
		}
		f.reservation.release()
		f.reservation = nil
		f.serveLocked(listener)
	}
}

// Hold delays the forwarding of new connections by d. The client is connected at once, but what it and the target send arrives
// late.
func (f *Forwarder) Hold(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hold = d
}

// Delay delays all bytes towards the target and towards the client, on every connection. It keeps their order.
func (f *Forwarder) Delay(towardsTarget, towardsClient time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.up, f.down = towardsTarget, towardsClient
}

// BlackHole makes the established connections lose everything that is sent, in both directions. If the target closes such a
// connection, the client does not learn of it. If the client closes it, it ends.
func (f *Forwarder) BlackHole() {
	for _, l := range f.open() {
		l.blackHoled.Store(true)
	}
}

// BlackHoleOlder does the same to the connections that were accepted before a time. It returns how many they are.
func (f *Forwarder) BlackHoleOlder(than time.Time) int {
	return f.older(than, func(l *link) { l.blackHoled.Store(true) })
}

// Deafen makes the established connections lose what the target sends. What the client sends arrives.
func (f *Forwarder) Deafen() {
	for _, l := range f.open() {
		l.deaf.Store(true)
	}
}

// HalfOpen makes the established connections such as a machine leaves behind that has restarted: nothing comes any more, and the
// next bytes of the client are answered with a reset.
func (f *Forwarder) HalfOpen() {
	for _, l := range f.open() {
		l.deaf.Store(true)
		l.resetOnBytes.Store(true)
	}
}

// CloseOnBytes closes each of the established connections when its client sends the next bytes. The target does not receive
// them.
func (f *Forwarder) CloseOnBytes() {
	for _, l := range f.open() {
		l.closeOnBytes.Store(true)
	}
}

// Reset resets both sides of the established connections.
func (f *Forwarder) Reset() {
	for _, l := range f.open() {
		l.reset()
	}
}

// ResetOlder does the same to the connections that were accepted before a time. It returns how many they are.
func (f *Forwarder) ResetOlder(than time.Time) int { return f.older(than, (*link).reset) }

// GoAway sends a GOAWAY to the clients of the established connections, between two frames of the target. The target does not
// know of it. The connections must be plaintext HTTP/2.
func (f *Forwarder) GoAway(lastStreamID uint32, code http2.ErrCode) {
	for _, l := range f.open() {
		// Ignore errors: the connection may just have broken.
		_ = l.towardsClient.inject(goAwayFrame(lastStreamID, code))
	}
}

// Pause stops all bytes on all connections, also on new ones, until Resume. No byte is lost.
func (f *Forwarder) Pause() {
	f.mu.Lock()
	defer f.mu.Unlock()
	select {
	case <-f.resumed:
		f.resumed = make(chan struct{})
	default:
	}
}

// Resume ends Pause.
func (f *Forwarder) Resume() {
	f.mu.Lock()
	defer f.mu.Unlock()
	select {
	case <-f.resumed:
	default:
		close(f.resumed)
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

// serveLocked accepts on listener until it is closed. The caller holds mu.
func (f *Forwarder) serveLocked(listener net.Listener) {
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
	case Refuse, Backlogged, ResetOnAccept: // Refuse and Backlogged: accepted just before the listener was closed
		l.reset()
	case Silent:
		<-l.done
	case ResetOnFirstBytes:
		_, _ = client.Read(make([]byte, pieceSize))
		l.reset()
	case CloseOnFirstBytes:
		// Closing with unread bytes would send a reset.
		_, _ = client.Read(make([]byte, pieceSize))
	case Garbage:
		l.send(garbage)
	case HTTP1:
		_, _ = client.Read(make([]byte, pieceSize))
		l.send(http1Only)
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

// whenResumed returns a channel that is closed unless the forwarder is paused.
func (f *Forwarder) whenResumed() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.resumed
}

func (f *Forwarder) delay(towardsClient bool) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	if towardsClient {
		return f.down
	}
	return f.up
}

// link is a client's connection together with the connection to the target that belongs to it.
type link struct {
	forwarder     *Forwarder
	client        net.Conn
	accepted      time.Time
	network       string // of the target
	address       string // of the target
	towardsClient *injector

	blackHoled   atomic.Bool
	deaf         atomic.Bool // towards the client
	closeOnBytes atomic.Bool
	resetOnBytes atomic.Bool

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
			_ = tcp.SetLinger(0) // makes Close send RST; it fails only if the connection is broken already
		}
		conn.Close()
	}
}

// wait waits for d. It returns false if the link ended first.
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

// waitResumed waits while the forwarder is paused. It returns false if the link ended first.
func (l *link) waitResumed() bool {
	select {
	case <-l.forwarder.whenResumed():
		return true
	case <-l.done:
		return false
	}
}

// send sends text to the client, and then reads until the client closes or the link ends.
func (l *link) send(text string) {
	if _, err := io.WriteString(l.client, text); err != nil {
		return
	}
	closeWrite(l.client)
	_, _ = io.Copy(io.Discard, l.client)
}

func (l *link) forward(untilRequest bool, hold time.Duration) {
	if !l.wait(hold) || !l.waitResumed() {
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

// direction forwards the bytes of a link in one direction.
type direction struct {
	link       *link
	from, to   net.Conn
	fromTarget bool
	write      func([]byte) error
}

// piece is the result of one read: bytes, or the end of the stream.
type piece struct {
	bytes []byte
	at    time.Time
	err   error
}

func (d direction) run() {
	pieces := make(chan piece, maxPieces)
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
		if n > 0 && !d.fromTarget && d.link.resetOnBytes.Load() {
			d.link.reset()
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

// deliver writes the pieces. It returns true if the other direction may continue: the stream ended with an orderly close.
func (d direction) deliver(pieces <-chan piece) bool {
	for {
		var p piece
		select {
		case p = <-pieces:
		case <-d.link.done:
			return false
		}
		if !d.link.wait(time.Until(p.at.Add(d.link.forwarder.delay(d.fromTarget)))) || !d.link.waitResumed() {
			return false
		}
		switch blackHoled := d.link.blackHoled.Load() || d.fromTarget && d.link.deaf.Load(); {
		case blackHoled && p.err != nil:
			// The client must not see that the target has closed.
			return d.fromTarget
		case blackHoled:
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
		_ = half.CloseWrite() // fails only if the connection is broken already
	}
}

func writeAll(w io.Writer) func([]byte) error {
	return func(p []byte) error {
		_, err := w.Write(p)
		return err
	}
}

// requestCutter forwards what a client sends, up to its first HEADERS frame.
type requestCutter struct {
	w       io.Writer
	preface int // remaining bytes of the connection preface
	frames  frames
}

var errRequestCut = errors.New("the client begins a request")

func (c *requestCutter) write(p []byte) error {
	from := min(c.preface, len(p))
	c.preface -= from
	for from < len(p) {
		n, started := c.frames.next(p[from:])
		if started && c.frames.kind() == http2.FrameHeaders {
			// Earlier pieces may have contained a part of the frame's header. The target ignores it.
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
