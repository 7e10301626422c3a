package serve

import (
	"net"
	"sync"
	"time"
)

// parkAfter is how long a connection keeps what net/http holds for it after an answer: 18 KiB of buffers and stack,
// which it gets back with the next request.
const parkAfter = time.Second

// parking is where connections wait for their next request that have had none for a while. What waits is a
// small goroutine. For the server it is a listener, which accepts them once there is something to read.
type parking struct {
	net.Listener // for its address
	ready        chan *conn
	ended        chan struct{}
	once         sync.Once
}

func newParking(l net.Listener) *parking {
	return &parking{Listener: l, ready: make(chan *conn), ended: make(chan struct{})}
}

// Accept returns a connection that has a request.
func (p *parking) Accept() (net.Conn, error) {
	select {
	case c := <-p.ready:
		return c, nil
	case <-p.ended:
		return nil, net.ErrClosed
	}
}

// Close ends it; the real listener is not its own to close.
func (p *parking) Close() error {
	p.once.Do(func() { close(p.ended) })
	return nil
}

// park takes over a connection that net/http has let go, and gives it back when there is something to read.
func (cs *connections) park(c *conn) {
	waiting := cs.newConn(c.Conn)
	waiting.wanted = time.Now().Add(idleTimeout)
	cs.mu.Lock()
	if _, counts := cs.all[c]; !counts { // it has made room for another in the meantime
		cs.mu.Unlock()
		_ = c.Conn.Close() // an error says that it has ended already
		return
	}
	delete(cs.all, c)
	cs.all[waiting] = struct{}{}
	c.mu.Lock()
	waiting.lingers = c.lingers // it may have been told to end in the meantime
	c.mu.Unlock()
	cs.mu.Unlock()
	go func() {
		if _, err := waiting.Read(waiting.first[:]); err == nil {
			waiting.held = true
			select {
			case cs.parking.ready <- waiting:
				return
			case <-cs.parking.ended:
			}
		}
		cs.forget(waiting)
		_ = waiting.Close() // an error says that it has ended already
	}()
}
