package simnet

import (
	"net"
	"sync"
)

// queueLength is how many connections wait to be accepted.
const queueLength = 1024

// listener takes the connections to some addresses.
type listener struct {
	net       *Net
	addresses []string
	accepted  chan *Conn // the servers' sides
	closed    chan struct{}
	once      sync.Once
}

// Listen takes new connections to the addresses, at least one, from whoever has listened there before, as SO_REUSEPORT and a load
// balancer do. Closing the listener resets those that were not accepted.
func (n *Net) Listen(addresses ...string) net.Listener {
	l := &listener{net: n, addresses: addresses, accepted: make(chan *Conn, queueLength), closed: make(chan struct{})}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, a := range addresses {
		n.listeners[a] = l
	}
	return l
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case <-l.closed:
		return nil, net.ErrClosed
	default:
	}
	select {
	case c := <-l.accepted:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *listener) Close() error {
	l.once.Do(func() {
		close(l.closed)
		l.net.mu.Lock()
		for _, a := range l.addresses {
			if l.net.listeners[a] == l {
				delete(l.net.listeners, a)
			}
		}
		l.net.mu.Unlock()
		for {
			select {
			case c := <-l.accepted:
				c.peer.rejected.Store(true)
				c.peer.Reset()
			default:
				return
			}
		}
	})
	return nil
}

// Addr implements net.Listener.
func (l *listener) Addr() net.Addr { return Addr{Text: l.addresses[0]} }
