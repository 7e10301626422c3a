package healthtest

import (
	"context"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc/test/bufconn"
)

// memoryBuffer is how many bytes wait in each direction of a connection, in a Memory, until their writer has to wait.
const memoryBuffer = 64 << 10

// Memory is a network without sockets, for tests in a bubble of testing/synctest: there time is exact and nobody
// waits, but time does not pass while a goroutine waits for a socket. It carries the bytes of real servers. It leads to
// the Upstream that was started with On, and has faults to switch on. All methods are safe for concurrent use.
type Memory struct {
	t testing.TB

	mu       sync.Mutex
	mode     Mode
	hold     time.Duration
	handle   func(net.Conn)
	listener *intake // nil while nobody listens
	dials    int
	open     map[*memoryConn]struct{}
}

// NewMemory returns a Memory whose connections end with the test.
func NewMemory(t testing.TB) *Memory {
	m := &Memory{t: t, open: make(map[*memoryConn]struct{})}
	t.Cleanup(m.Reset)
	return m
}

// On makes an upstream listen in a Memory alone.
func On(m *Memory) Option {
	return func(u *Upstream) { u.network, u.address, u.memory = "memory", "memory", m }
}

// Connect opens a connection. It has the signature of net.Dialer's DialContext, and does not look at the address.
func (m *Memory) Connect(ctx context.Context, _, _ string) (net.Conn, error) {
	m.mu.Lock()
	m.dials++
	number := m.dials
	mode, hold, handle, listener := m.mode, m.hold, m.handle, m.listener
	m.mu.Unlock()
	switch {
	case mode == Backlogged:
		<-ctx.Done()
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: ctx.Err()}
	case mode == Refuse || handle == nil && mode == Pass && listener == nil:
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	}
	client, end := memoryPipe(m.t)
	server := &memoryServer{Conn: end, towardsClient: &injector{w: end}}
	c := &memoryConn{Conn: client, server: server, memory: m, number: number, closed: make(chan struct{})}
	m.mu.Lock()
	m.open[c] = struct{}{}
	m.mu.Unlock()
	switch {
	case mode == ResetOnAccept:
		server.Close()
	case mode == Silent:
	case mode == CloseOnRequest:
		go CloseOnEveryRequest().Serve(server)
	case handle != nil:
		go handle(server)
	default:
		go func() {
			select {
			case <-time.After(hold):
			case <-c.closed:
			}
			deliver(listener, server)
		}()
	}
	return c, nil
}

// Deliver gives the server's side of a connection to the upstream, for a function of Handle that has nothing to do with it.
func (m *Memory) Deliver(server net.Conn) {
	m.mu.Lock()
	listener := m.listener
	m.mu.Unlock()
	deliver(listener, server)
}

func deliver(listener *intake, server net.Conn) {
	if listener == nil || !listener.deliver(server) {
		server.Close()
	}
}

// SetMode says what is done with new connections: Pass, Refuse, Silent, ResetOnAccept, CloseOnRequest or Backlogged.
func (m *Memory) SetMode(mode Mode) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mode, m.handle = mode, nil
}

// Handle gives the server's side of new connections to a function instead, in a goroutine for each.
func (m *Memory) Handle(handle func(server net.Conn)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mode, m.handle = Pass, handle
}

// Hold makes new connections wait for d before the upstream accepts them: the client is connected, and hears nothing.
func (m *Memory) Hold(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.hold = d
}

// Dials counts the calls of Connect.
func (m *Memory) Dials() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.dials
}

// OpenConnections counts the connections that their client has not closed.
func (m *Memory) OpenConnections() int { return len(m.conns()) }

// BlackHole makes the connections that are open now lose everything, in both directions.
func (m *Memory) BlackHole() {
	for _, c := range m.conns() {
		c.swallowed.Store(true)
	}
}

// Reset ends the connections that are open now.
func (m *Memory) Reset() {
	for _, c := range m.conns() {
		c.reset()
	}
}

// ResetFirst ends the one of them that was opened first.
func (m *Memory) ResetFirst() {
	if all := m.conns(); len(all) > 0 {
		slices.MinFunc(all, func(a, b *memoryConn) int { return a.number - b.number }).reset()
	}
}

// GoAway sends the clients of the connections that are open now a GOAWAY, between two frames of the server, which knows
// nothing of it.
func (m *Memory) GoAway(lastStreamID uint32, code http2.ErrCode) {
	for _, c := range m.conns() {
		// A connection that just broke has nobody to tell.
		_ = c.server.towardsClient.inject(goAwayFrame(lastStreamID, code))
	}
}

func (m *Memory) conns() (all []*memoryConn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for c := range m.open {
		all = append(all, c)
	}
	return all
}

// listen is how an Upstream listens.
func (m *Memory) listen() *intake {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.listener = &intake{addr: &net.UnixAddr{Name: "memory", Net: "memory"}, conns: make(chan net.Conn), closed: make(chan struct{})}
	return m.listener
}

// listenNoMore is how it ends that.
func (m *Memory) listenNoMore() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.listener.Close()
	m.listener = nil
}

// memoryPipe returns both sides of a connection.
func memoryPipe(t testing.TB) (client, server net.Conn) {
	listener := bufconn.Listen(memoryBuffer)
	accepted := make(chan net.Conn)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			t.Errorf("accept in memory: %v", err)
		}
		accepted <- conn
	}()
	client, err := listener.Dial()
	if err != nil {
		t.Errorf("connect in memory: %v", err)
	}
	return client, <-accepted
}

// memoryServer is the server's side of a connection.
type memoryServer struct {
	net.Conn
	towardsClient *injector
}

func (s *memoryServer) Write(p []byte) (int, error) { return s.towardsClient.Write(p) }

// memoryConn is the client's side of a connection.
type memoryConn struct {
	net.Conn
	server    *memoryServer
	memory    *Memory
	number    int // of the dial
	swallowed atomic.Bool
	once      sync.Once
	closed    chan struct{}
}

func (c *memoryConn) reset() {
	c.Conn.Close()
	c.server.Close()
}

func (c *memoryConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.swallowed.Load() {
		<-c.closed
	}
	select {
	case <-c.closed:
		return 0, net.ErrClosed // as sockets say
	default:
		return n, err
	}
}

func (c *memoryConn) Write(p []byte) (int, error) {
	if c.swallowed.Load() {
		return len(p), nil
	}
	return c.Conn.Write(p)
}

func (c *memoryConn) Close() error {
	c.once.Do(func() {
		close(c.closed)
		c.memory.mu.Lock()
		delete(c.memory.open, c)
		c.memory.mu.Unlock()
	})
	return c.Conn.Close()
}
