package serve

import (
	"sync"
	"time"
)

// pauseFor is how long it may take until a caller who hangs up is noticed, so that his check ends.
const pauseFor = 50 * time.Millisecond

// pause is where connections wait before they look whether their caller has hung up. While it answers, net/http
// reads ahead to learn of that: a system call that finds nothing, a place in the poller and two deadlines for every
// request, though most are answered long before. One timer ends the pause of all who wait.
type pause struct {
	mu      sync.Mutex
	waiting []*conn
	timer   *time.Timer // nil before the first
	running bool
}

// begin takes a connection in, whose mutex the caller holds.
func (p *pause) begin(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c.paused, c.place = true, len(p.waiting)
	p.waiting = append(p.waiting, c)
	switch {
	case p.running:
		return
	case p.timer == nil:
		p.timer = time.AfterFunc(pauseFor, p.over)
	default:
		p.timer.Reset(pauseFor)
	}
	p.running = true
}

// leave takes a connection off those that wait, if it still does. The caller holds the connection's mutex.
func (p *pause) leave(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	last := len(p.waiting) - 1
	if c.place > last || p.waiting[c.place] != c {
		return
	}
	moved := p.waiting[last]
	p.waiting[c.place], moved.place = moved, c.place
	p.waiting[last] = nil
	p.waiting = p.waiting[:last]
}

// over ends the pause of all.
func (p *pause) over() {
	p.mu.Lock()
	waiting := p.waiting
	p.waiting, p.running = nil, false
	p.mu.Unlock()
	for _, c := range waiting {
		c.mu.Lock()
		c.goOn()
		c.mu.Unlock()
	}
}
