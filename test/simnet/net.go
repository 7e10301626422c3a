package simnet

import (
	"context"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"
)

// Mode is what happens to a new connection.
type Mode int

const (
	// Pass: it reaches the listener.
	Pass Mode = iota
	// Refuse: the answer is a reset, as where nobody listens.
	Refuse
	// LoseSYN: nothing ever comes back.
	LoseSYN
	// Mute: it is accepted, and then nothing ever comes.
	Mute
	// ResetOnAccept: it is accepted, and reset at once. Connect fails where the client sees the reset first.
	ResetOnAccept
	// ResetLater: it is accepted, and reset after another round trip. Nothing comes before that.
	ResetLater

	// Modes is how many there are.
	Modes = int(iota)
)

// Net is a network. Make it in the bubble. All methods are safe for concurrent use.
type Net struct {
	seed uint64

	mu          sync.Mutex
	latency     time.Duration
	impairments []*impairment
	listeners   map[string]*listener // by address
	conns       []*Conn              // the clients' sides, those that are open
	count       int                  // connections ever made
	onConnect   func()
	frozen      chan struct{} // not nil while the clients cannot read; closed when they can again
}

type impairment struct {
	mode      Mode
	addresses []string // none: all
}

// New returns a network. Latency is how long a packet takes one way, to which a quarter at most is added.
func New(seed uint64, latency time.Duration) *Net {
	return &Net{seed: seed, latency: latency, listeners: make(map[string]*listener)}
}

// SetLatency changes the latency of what is sent from now on.
func (n *Net) SetLatency(d time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.latency = d
}

// Impair sets what happens to new connections to the addresses, to all where none is given, until end is called. Of several
// impairments of an address the latest counts.
func (n *Net) Impair(mode Mode, addresses ...string) (end func()) {
	i := &impairment{mode, addresses}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.impairments = append(n.impairments, i)
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.impairments = slices.DeleteFunc(n.impairments, func(o *impairment) bool { return o == i })
	}
}

// Mode says what happens to a new connection to the address, if somebody listens there.
func (n *Net) Mode(address string) Mode {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, i := range slices.Backward(n.impairments) {
		if len(i.addresses) == 0 || slices.Contains(i.addresses, address) {
			return i.mode
		}
	}
	return Pass
}

// OnConnect has f called, in a goroutine of its own, whenever a connection reaches a listener; nil ends that.
func (n *Net) OnConnect(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.onConnect = f
}

// Conns returns the clients' sides of the connections that no client has closed and that can still carry something, in
// the order of their making.
func (n *Net) Conns() []*Conn {
	n.mu.Lock()
	defer n.mu.Unlock()
	var usable []*Conn
	for _, c := range n.conns {
		if !c.in.dead() && !c.out.dead() {
			usable = append(usable, c)
		}
	}
	return usable
}

// Open returns the clients' sides of the connections that no client has closed, broken ones too.
func (n *Net) Open() []*Conn {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.conns)
}

// Freeze keeps the clients from reading, and from learning that a connection was made, until thaw is called.
func (n *Net) Freeze() (thaw func()) {
	frozen := make(chan struct{})
	n.mu.Lock()
	defer n.mu.Unlock()
	n.frozen = frozen
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.frozen = nil
		close(frozen)
	}
}

// WaitThawed waits until the clients are not frozen.
func (n *Net) WaitThawed() {
	n.mu.Lock()
	frozen := n.frozen
	n.mu.Unlock()
	if frozen != nil {
		<-frozen
	}
}

// Deliver makes everything that is on its way over a connection arrive now.
func (n *Net) Deliver() {
	for _, c := range n.Open() {
		c.in.deliver()
		c.out.deliver()
	}
}

// Delay is how long a packet takes that is sent now.
func (n *Net) Delay(toClient bool) time.Duration {
	n.mu.Lock()
	latency := n.latency
	n.mu.Unlock()
	seed := n.seed << 1
	if toClient {
		seed++
	}
	jitter := rand.NewPCG(seed, uint64(time.Now().UnixNano())).Uint64() % uint64(latency/4+1)
	return latency + time.Duration(jitter)
}

// Sleep waits for a time, or until the context ends.
func Sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Connect opens a connection to an address at which somebody listens.
func (n *Net) Connect(ctx context.Context, network, address string) (net.Conn, error) {
	began := time.Now()
	fail := func(err error) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: network, Addr: Addr{Text: address}, Err: err}
	}
	if err := Sleep(ctx, n.Delay(false)); err != nil {
		return fail(err)
	}
	var c *Conn
	mode := n.Mode(address)
	switch mode {
	case LoseSYN:
		<-ctx.Done()
		return fail(ctx.Err())
	case Refuse:
	default:
		c = n.accept(mode, address, began)
	}
	back := n.Delay(true)
	err := Sleep(ctx, back)
	n.WaitThawed()
	switch {
	case err == nil && mode == ResetOnAccept && back%2 == 0:
		c.Close()
		return fail(syscall.ECONNRESET)
	case err != nil && c != nil:
		c.Close()
		return fail(err)
	case err != nil:
		return fail(err)
	case c == nil:
		return fail(syscall.ECONNREFUSED)
	}
	return c, nil
}

// accept makes a connection; nil where nobody listens.
func (n *Net) accept(mode Mode, address string, began time.Time) *Conn {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := n.listeners[address]
	if mode == Pass && l == nil {
		return nil
	}
	n.count++
	client := newPair(n, n.count, address, began)
	n.conns = append(n.conns, client)
	switch mode {
	case Pass:
		client.listener = l
		select {
		case l.accepted <- client.peer:
			if n.onConnect != nil {
				go n.onConnect()
			}
		default: // the queue is full
			client.BlackHole()
		}
	case Mute:
		client.BlackHole()
	case ResetOnAccept, ResetLater:
		client.out.lose()
		client.in.send(segment{end: syscall.ECONNRESET}, n.latency)
		if mode == ResetLater {
			client.in.postpone(2 * n.latency)
		}
	}
	return client
}

// forget drops a connection that its client has closed.
func (n *Net) forget(c *Conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.conns = slices.DeleteFunc(n.conns, func(o *Conn) bool { return o == c })
}
