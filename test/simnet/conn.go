package simnet

import (
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Addr is an address of a connection or a listener.
type Addr struct {
	Text string
	// Conn is the client's side of the connection; nil for a listener.
	Conn *Conn
}

// Network implements net.Addr.
func (Addr) Network() string { return "tcp" }

// String implements net.Addr.
func (a Addr) String() string { return a.Text }

// Conn is one side of a connection. The faults are methods of either side, and break the connection for both.
type Conn struct {
	// ID counts the network's connections from 1.
	ID int
	// Began is when Connect was called.
	Began time.Time

	net           *Net
	in, out       *direction // out is the peer's in
	peer          *Conn
	local, remote Addr
	closed        sync.Once
	listener      *listener   // who has got the server's side; nil for nobody
	rejected      atomic.Bool // the listener was closed before it accepted it
	halfOpen      atomic.Bool // the peer has forgotten it: the next write is answered with a reset
}

// newPair returns the client's side of a new connection.
func newPair(n *Net, id int, address string, began time.Time) *Conn {
	client := &Conn{ID: id, Began: began, net: n}
	server := &Conn{ID: id, Began: began, net: n, peer: client}
	client.peer = server
	here := Addr{Text: fmt.Sprintf("10.0.0.1:%d", id), Conn: client}
	there := Addr{Text: address, Conn: client}
	client.local, client.remote = here, there
	server.local, server.remote = there, here
	client.in, server.in = newDirection(n, true), newDirection(n, false)
	client.out, server.out = server.in, client.in
	return client
}

// Server is the server's side.
func (c *Conn) Server() *Conn {
	if c.in.toClient {
		return c.peer
	}
	return c
}

// ReachedBy says whether the connection was made to the listener.
func (c *Conn) ReachedBy(l net.Listener) bool {
	return c.listener != nil && net.Listener(c.listener) == l
}

// Rejected says that the listener was closed before it accepted the connection.
func (c *Conn) Rejected() bool { return c.rejected.Load() }

// Read implements net.Conn.
func (c *Conn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	return c.in.read(p)
}

// Write implements net.Conn. It never waits.
func (c *Conn) Write(p []byte) (int, error) {
	if closed, _ := c.in.reading(); closed {
		return 0, net.ErrClosed
	}
	if err := c.in.broken(); err != nil {
		return 0, err
	}
	there, back := c.net.Delay(c.out.toClient), c.net.Delay(c.in.toClient)
	if peerClosed, _ := c.out.reading(); peerClosed || c.halfOpen.Load() {
		c.in.send(segment{end: syscall.ECONNRESET}, there+back)
		return len(p), nil
	}
	c.out.send(segment{data: append([]byte(nil), p...)}, there)
	return len(p), nil
}

// Close implements net.Conn.
func (c *Conn) Close() error {
	c.closed.Do(func() {
		c.in.stopReading()
		if !c.peer.halfOpen.Load() { // nobody is there to send it
			c.out.send(segment{end: io.EOF}, c.net.Delay(c.out.toClient))
		}
		if c.in.toClient {
			c.net.forget(c)
		}
	})
	return nil
}

// Reset breaks the connection at once: each side reads a reset.
func (c *Conn) Reset() {
	c.in.fail(syscall.ECONNRESET)
	c.out.fail(syscall.ECONNRESET)
}

// BlackHole loses all that is on its way, and all that is sent from now on.
func (c *Conn) BlackHole() {
	c.in.lose()
	c.out.lose()
}

// Deafen loses what the server sends. What the client sends arrives.
func (c *Conn) Deafen() { c.Server().out.lose() }

// HalfOpen makes the server forget the connection. The client learns of it after its next write.
func (c *Conn) HalfOpen() {
	server := c.Server()
	server.in.fail(syscall.ECONNRESET)
	server.peer.halfOpen.Store(true)
	server.out.mu.Lock()
	server.out.queue = nil
	server.out.mu.Unlock()
}

// LocalAddr implements net.Conn. It is an Addr.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr implements net.Conn. It is an Addr.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline implements net.Conn.
func (c *Conn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

// SetReadDeadline implements net.Conn.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.in.setDeadline(t)
	return nil
}

// SetWriteDeadline implements net.Conn. Writes do not wait.
func (c *Conn) SetWriteDeadline(time.Time) error { return nil }
