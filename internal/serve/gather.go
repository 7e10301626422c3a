package serve

import (
	"net"
	"runtime"
	"sync"
	"time"
)

// gather makes one write of several small ones: net/http writes an HTTP/2 answer in three, its headers, its message and its trailers, and each
// alone would be a packet for which the client wakes up. As with what the system holds for a connection, an error of a write may come from a later one.
type gather struct {
	mu      sync.Mutex
	changed sync.Cond // with mu: writing has ended, or pending is shorter
	pending []byte    // what is not written yet
	spare   []byte    // to be pending again
	writing bool      // a goroutine writes, or will
	err     error     // of a write; there are no more then
}

const (
	// maxGathered is how many bytes of a connection wait to be written.
	maxGathered = 4 << 10
	// maxSpare is how many an idle connection keeps room for: an answer has about 200.
	maxSpare = 1 << 10
	// endWithin is how long a client may take for the last of them.
	endWithin = 100 * time.Millisecond
)

// write writes p to the connection soon. It waits where the connection does not take so much.
func (g *gather) write(to net.Conn, p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.changed.L = &g.mu
	for g.err == nil && len(g.pending) > 0 && len(g.pending)+len(p) > maxGathered {
		g.changed.Wait()
	}
	if g.err != nil {
		return 0, g.err
	}
	g.pending = append(g.pending, p...)
	if !g.writing {
		g.writing = true
		go g.drain(to)
	}
	return len(p), nil
}

// drain writes all that is pending.
func (g *gather) drain(to net.Conn) {
	runtime.Gosched() // the goroutines that are ready to run may have more to write
	g.mu.Lock()
	defer g.mu.Unlock()
	for len(g.pending) > 0 && g.err == nil {
		p := g.pending
		g.pending = g.spare[:0]
		g.mu.Unlock()
		_, err := to.Write(p)
		g.mu.Lock()
		if g.spare = p[:0]; cap(p) > maxSpare {
			g.spare = nil
		}
		if g.err = err; err != nil {
			_ = to.Close() // so that reads fail too
		}
		g.changed.Broadcast()
	}
	g.writing = false
	g.changed.Broadcast()
}

// end waits until all has been written, for a moment at most.
func (g *gather) end(to net.Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.writing {
		return
	}
	_ = to.SetWriteDeadline(time.Now().Add(endWithin)) // an error says that the connection has ended
	for g.writing {
		g.changed.Wait()
	}
}
