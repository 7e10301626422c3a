package healthtest

import (
	"crypto/tls"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// readsWithin bounds how long GoAway waits until a server has begun to read from all of its connections.
const readsWithin = time.Second

// restartWithin bounds how long Restart tries to listen at its address again.
const restartWithin = 10 * time.Second

// Upstream is a gRPC server on loopback whose health service answers as the test says. Its methods are safe for concurrent use.
type Upstream struct {
	*health

	t                testing.TB
	network, address string
	tls              atomic.Pointer[tls.Config]
	noALPN           bool
	withoutHealth    bool
	maxStreams       uint32
	memory           *Memory // nil is a socket

	lifecycle   sync.Mutex // held while the server starts or stops
	listener    net.Listener
	reservation *reservation // of the address, while there is no listener
	servers     []*grpc.Server
	running     sync.WaitGroup

	mu     sync.Mutex // guards intake and open
	intake *intake
	open   map[*countedConn]struct{}

	accepted atomic.Int64
}

// Option configures an Upstream before it starts.
type Option func(*Upstream)

// Listen serves at an address instead of 127.0.0.1:0; network is "tcp" or "unix".
func Listen(network, address string) Option {
	return func(u *Upstream) { u.network, u.address = network, address }
}

// IPv6 serves on [::1].
func IPv6() Option { return Listen("tcp", "[::1]:0") }

// Unix serves on a unix socket. Its directory has a short path, since the length of a socket's path is limited.
func Unix() Option {
	return func(u *Upstream) {
		dir, err := os.MkdirTemp("", "ht")
		if err != nil {
			u.t.Fatalf("directory of the unix socket: %v", err)
		}
		u.t.Cleanup(func() { os.RemoveAll(dir) })
		u.network, u.address = "unix", filepath.Join(dir, "s")
	}
}

// TLS serves TLS; the configuration can be replaced with SetTLS.
func TLS(config *tls.Config) Option {
	return func(u *Upstream) { u.tls.Store(config) }
}

// WithoutALPN makes a TLS upstream not negotiate an application protocol (ALPN), which HTTP/2 requires.
func WithoutALPN() Option { return func(u *Upstream) { u.noALPN = true } }

// WithoutHealth makes the upstream a gRPC server that has no health service.
func WithoutHealth() Option { return func(u *Upstream) { u.withoutHealth = true } }

// MaxConcurrentStreams limits how many RPCs may be in flight on one connection.
func MaxConcurrentStreams(n uint32) Option { return func(u *Upstream) { u.maxStreams = n } }

// Start starts an upstream. It ends with the test. At first the whole server (the empty name) is SERVING, and every other
// service NOT_FOUND.
func Start(t testing.TB, options ...Option) *Upstream {
	t.Helper()
	u := &Upstream{
		health:  newHealth(),
		t:       t,
		network: "tcp",
		address: "127.0.0.1:0",
		open:    make(map[*countedConn]struct{}),
	}
	for _, option := range options {
		option(u)
	}
	listener, err := u.listen(net.Listen)
	if err != nil {
		t.Fatalf("start upstream: %v", err)
	}
	u.address = listener.Addr().String()
	u.lifecycle.Lock()
	u.serveLocked(listener)
	u.lifecycle.Unlock()
	t.Cleanup(func() {
		u.Stop()
		u.reservation.release()
	})
	return u
}

// Addr returns the address that the upstream listens on: "127.0.0.1:34567", or a socket's path.
func (u *Upstream) Addr() string { return u.address }

// Target returns the upstream's target for grpc-go: the address, or "unix://" and the socket's path.
func (u *Upstream) Target() string {
	if u.network == "unix" {
		return "unix://" + u.address
	}
	return u.address
}

// SetTLS replaces the TLS configuration for new connections. The upstream must have been started
// with TLS.
func (u *Upstream) SetTLS(config *tls.Config) { u.tls.Store(config) }

// Connections returns how many connections were accepted since Start.
func (u *Upstream) Connections() int { return int(u.accepted.Load()) }

// OpenConnections returns how many connections the server has not closed.
func (u *Upstream) OpenConnections() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.open)
}

// Stop closes the listener and every connection at once. The address stays reserved for Restart.
func (u *Upstream) Stop() {
	u.lifecycle.Lock()
	defer u.lifecycle.Unlock()
	u.stopLocked()
}

// stopLocked does what Stop says. The caller holds lifecycle.
func (u *Upstream) stopLocked() {
	u.closeListenerLocked()
	// grpc-go waits for handshakes in progress before it stops, and would wait for a silent client.
	for _, conn := range u.openConns() {
		conn.Close()
	}
	for _, s := range u.servers {
		s.Stop()
	}
	u.servers = nil
	u.running.Wait()
}

// GracefulStop closes the listener, sends GOAWAY, and returns when the RPCs in flight have ended.
func (u *Upstream) GracefulStop() {
	u.lifecycle.Lock()
	u.closeListenerLocked()
	servers := u.servers
	u.lifecycle.Unlock()
	for _, s := range servers {
		s.GracefulStop()
	}
}

// Restart stops the server, if it runs, and starts it again at the same address, with the same services and counters.
func (u *Upstream) Restart() {
	u.t.Helper()
	u.lifecycle.Lock()
	defer u.lifecycle.Unlock()
	u.stopLocked()
	listener, err := u.listen(listenAgain)
	if err != nil {
		u.t.Errorf("restart upstream: %v", err)
		return
	}
	u.reservation.release()
	u.reservation = nil
	u.serveLocked(listener)
}

// GoAway sends a GOAWAY with NO_ERROR on every open connection, and keeps accepting new ones. RPCs in flight and handshakes in
// progress are completed. The channel is closed when the old connections are.
func (u *Upstream) GoAway() <-chan struct{} {
	u.lifecycle.Lock()
	defer u.lifecycle.Unlock()
	drained := make(chan struct{})
	if u.listener == nil {
		close(drained)
		return drained
	}
	old, in := u.servers[len(u.servers)-1], u.intake
	u.startServerLocked()
	u.running.Go(func() {
		defer close(drained)
		// grpc-go would close a connection that it does not read from yet without a GOAWAY.
		for end := time.Now().Add(readsWithin); u.unread(in) && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		old.GracefulStop()
	})
	return drained
}

// listen listens at the upstream's address, on a socket in the given way.
func (u *Upstream) listen(onSocket func(network, address string) (net.Listener, error)) (net.Listener, error) {
	if u.memory != nil {
		return u.memory.listen(), nil
	}
	return onSocket(u.network, u.address)
}

// serveLocked starts a server on listener. The caller holds lifecycle.
func (u *Upstream) serveLocked(listener net.Listener) {
	u.listener = listener
	u.startServerLocked()
	u.running.Go(func() { u.accept(listener) })
}

// startServerLocked makes a new grpc.Server serve new connections. The caller holds lifecycle.
func (u *Upstream) startServerLocked() {
	options := []grpc.ServerOption{grpc.StatsHandler(rpcs{health: u.health})}
	if u.maxStreams > 0 {
		options = append(options, grpc.MaxConcurrentStreams(u.maxStreams))
	}
	in := &intake{addr: u.listener.Addr(), conns: make(chan net.Conn), closed: make(chan struct{})}
	var listener net.Listener = in
	if u.tls.Load() != nil {
		current := &tls.Config{
			MinVersion:         tls.VersionTLS12,
			GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return u.tls.Load(), nil },
		}
		if u.noALPN {
			// grpc-go's own credentials always offer h2.
			listener = tls.NewListener(in, current)
		} else {
			options = append(options, grpc.Creds(credentials.NewTLS(current)))
		}
	}
	server := grpc.NewServer(options...)
	if !u.withoutHealth {
		healthpb.RegisterHealthServer(server, rpcs{health: u.health})
	}
	u.servers = append(u.servers, server)
	u.running.Go(func() {
		if err := server.Serve(listener); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			u.t.Errorf("upstream %s: serve: %v", u.address, err)
		}
	})
	u.mu.Lock()
	u.intake = in
	u.mu.Unlock()
}

// accept gives new connections to the current server until the listener is closed.
func (u *Upstream) accept(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				u.t.Errorf("upstream %s: accept: %v", u.address, err)
			}
			return
		}
		u.accepted.Add(1)
		u.give(conn)
	}
}

func (u *Upstream) give(conn net.Conn) {
	counted := &countedConn{Conn: conn, upstream: u}
	u.mu.Lock()
	in := u.intake
	counted.intake = in
	if in != nil {
		u.open[counted] = struct{}{}
	}
	u.mu.Unlock()
	if in == nil || !in.deliver(counted) {
		counted.Close()
	}
}

// closeListenerLocked closes the listener and reserves its address. The caller holds lifecycle.
func (u *Upstream) closeListenerLocked() {
	if u.listener == nil {
		return
	}
	if u.memory != nil {
		u.memory.listenNoMore()
	} else {
		stopListening(u.listener)
	}
	u.listener = nil
	if u.network == "tcp" {
		u.reservation = reserve(u.address)
	}
	u.mu.Lock()
	u.intake = nil
	u.mu.Unlock()
}

func (u *Upstream) openConns() []*countedConn {
	u.mu.Lock()
	defer u.mu.Unlock()
	conns := make([]*countedConn, 0, len(u.open))
	for conn := range u.open {
		conns = append(conns, conn)
	}
	return conns
}

// unread reports whether there is a connection from which the server of an intake has not begun to read.
func (u *Upstream) unread(in *intake) bool {
	return slices.ContainsFunc(u.openConns(), func(c *countedConn) bool { return c.intake == in && !c.read.Load() })
}

// listenAgain listens at an address that was in use a moment ago.
func listenAgain(network, address string) (net.Listener, error) {
	deadline := time.Now().Add(restartWithin)
	for {
		listener, err := net.Listen(network, address)
		if err == nil || time.Now().After(deadline) {
			return listener, err
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// countedConn is a connection that its upstream counts until it is closed.
type countedConn struct {
	net.Conn
	upstream *Upstream
	intake   *intake     // of the server that serves it
	read     atomic.Bool // the server has begun to read from it
}

func (c *countedConn) Read(p []byte) (int, error) {
	c.read.Store(true)
	return c.Conn.Read(p)
}

func (c *countedConn) Close() error {
	c.upstream.mu.Lock()
	delete(c.upstream.open, c)
	c.upstream.mu.Unlock()
	return c.Conn.Close()
}

// intake is the listener of one grpc.Server. Its connections come from the upstream's own listener, which stays open for the next
// server when an intake is closed.
type intake struct {
	addr   net.Addr
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func (in *intake) deliver(conn net.Conn) bool {
	select {
	case in.conns <- conn:
		return true
	case <-in.closed:
		return false
	}
}

func (in *intake) Accept() (net.Conn, error) {
	select {
	case conn := <-in.conns:
		return conn, nil
	case <-in.closed:
		return nil, net.ErrClosed
	}
}

func (in *intake) Close() error {
	in.once.Do(func() { close(in.closed) })
	return nil
}

func (in *intake) Addr() net.Addr { return in.addr }
