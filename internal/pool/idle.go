package pool

import (
	"maps"
	"slices"
	"sync"
	"time"
)

// grain is how much later than at their maximum age connections may be closed: those that are due within it are closed
// together, so that many pools wake the process up rarely.
const grain = 500 * time.Millisecond

// Reaper closes the kept connections of many pools once they are too old to serve, and the oldest where there are too many: with one timer,
// which runs only while a connection is kept. It is safe for concurrent use.
type Reaper struct {
	most int // connections that are kept; 0 is no limit

	mu    sync.Mutex
	start time.Time
	kept  int                          // pools in due
	due   map[int64]map[*Pool]struct{} // by the end of a grain, counted from start: the pools to look at then
	timer *time.Timer                  // nil before it is first set
	next  int64                        // the grain for which the timer is set; 0 is none
}

// NewReaper returns a Reaper that lets so many connections be kept; 0 is no limit. Those in use do not end because there are too many.
func NewReaper(most int) *Reaper {
	return &Reaper{most: most, start: time.Now(), due: make(map[int64]map[*Pool]struct{})}
}

// watch has the Reaper look at a pool after d, and returns the grain for forget.
func (r *Reaper) watch(p *Pool, d time.Duration) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	at := int64((time.Since(r.start)+d)/grain) + 1
	if r.due[at] == nil {
		r.due[at] = make(map[*Pool]struct{})
	}
	if _, known := r.due[at][p]; !known {
		r.due[at][p] = struct{}{}
		r.kept++
	}
	if r.next == 0 || at < r.next || r.surplusLocked() > 0 {
		r.setLocked(r.firstLocked())
	}
	return at
}

// forget takes a pool off those to look at.
func (r *Reaper) forget(p *Pool, at int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.deleteLocked(at, p)
	if at == r.next && r.due[at] == nil {
		r.setLocked(r.firstLocked())
	}
}

func (r *Reaper) deleteLocked(at int64, p *Pool) {
	if _, known := r.due[at][p]; !known {
		return
	}
	r.kept--
	delete(r.due[at], p)
	if len(r.due[at]) == 0 {
		delete(r.due, at)
	}
}

// surplusLocked is how many connections are too many.
func (r *Reaper) surplusLocked() int {
	if r.most == 0 {
		return 0
	}
	return max(r.kept-r.most, 0)
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

// setLocked sets the timer for a grain, or for now where there are too many connections: who keeps one holds the lock of its pool.
func (r *Reaper) setLocked(at int64) {
	r.next = at
	wait := time.Duration(at)*grain - time.Since(r.start)
	if r.surplusLocked() > 0 {
		wait = 0
	}
	switch {
	case at == 0:
		r.timer.Stop()
	case r.timer == nil:
		r.timer = time.AfterFunc(wait, r.reap)
	default:
		r.timer.Reset(wait)
	}
}

// reap looks at the pools that are due, and has those of the oldest connections give them up where there are too many.
func (r *Reaper) reap() {
	r.mu.Lock()
	passed := int64(time.Since(r.start) / grain)
	var due, surplus []*Pool
	for at, pools := range r.due {
		if at <= passed {
			due = slices.AppendSeq(due, maps.Keys(pools))
			r.kept -= len(pools)
			delete(r.due, at)
		}
	}
	if r.surplusLocked() > 0 {
		for _, at := range slices.Sorted(maps.Keys(r.due)) {
			for p := range r.due[at] {
				if r.surplusLocked() == 0 {
					break
				}
				surplus = append(surplus, p)
				r.deleteLocked(at, p)
			}
		}
	}
	r.setLocked(r.firstLocked())
	r.mu.Unlock()
	for _, p := range due {
		p.closeOld()
	}
	for _, p := range surplus {
		p.closeSurplus()
	}
}
