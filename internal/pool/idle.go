package pool

import (
	"sync"
	"time"
)

// grain is how much later than at their maximum age connections may be closed: those that are due within it are closed
// together, so that many pools wake the process up rarely.
const grain = 500 * time.Millisecond

// Reaper closes the kept connections of many pools once they are too old to serve: with one timer, which runs only while a
// connection is kept. It is safe for concurrent use.
type Reaper struct {
	mu    sync.Mutex
	start time.Time
	due   map[int64]map[*Pool]struct{} // by the end of a grain, counted from start: the pools to look at then
	timer *time.Timer                  // nil before it is first set
	next  int64                        // the grain for which the timer is set; 0 is none
}

// NewReaper returns a Reaper.
func NewReaper() *Reaper { return &Reaper{start: time.Now(), due: make(map[int64]map[*Pool]struct{})} }

// watch has the Reaper look at a pool after d, and returns the grain for forget.
func (r *Reaper) watch(p *Pool, d time.Duration) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	at := int64((time.Since(r.start)+d)/grain) + 1
	if r.due[at] == nil {
		r.due[at] = make(map[*Pool]struct{})
	}
	r.due[at][p] = struct{}{}
	if r.next == 0 || at < r.next {
		r.setLocked(at)
	}
	return at
}

// forget takes a pool off those to look at.
func (r *Reaper) forget(p *Pool, at int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.due[at], p)
	if len(r.due[at]) == 0 {
		delete(r.due, at)
		if at == r.next {
			r.setLocked(r.firstLocked())
		}
	}
}

// firstLocked is the first grain that has pools; 0 is none.
func (r *Reaper) firstLocked() (first int64) {
	for at := range r.due {
		if first == 0 || at < first {
			first = at
		}
	}
	return first
}

// setLocked sets the timer for a grain.
func (r *Reaper) setLocked(at int64) {
	r.next = at
	switch wait := time.Duration(at)*grain - time.Since(r.start); {
	case at == 0:
		r.timer.Stop()
	case r.timer == nil:
		r.timer = time.AfterFunc(wait, r.reap)
	default:
		r.timer.Reset(wait)
	}
}

// reap looks at the pools that are due.
func (r *Reaper) reap() {
	r.mu.Lock()
	passed := int64(time.Since(r.start) / grain)
	var due []map[*Pool]struct{}
	for at, pools := range r.due {
		if at <= passed {
			due = append(due, pools)
			delete(r.due, at)
		}
	}
	r.setLocked(r.firstLocked())
	r.mu.Unlock()
	for _, pools := range due {
		for p := range pools {
			p.closeOld()
		}
	}
}
