package memory

import (
	"runtime"
	"runtime/debug"
	"sync"
	"time"
)

const (
	// often is a time between collections from which on they take a part of the processor that matters, and seldom one from which on they do not.
	often, seldom = 50 * time.Millisecond, time.Second
	// usual and most are percentages of the live heap that may be garbage: see GOGC in the documentation of package runtime.
	usual, most = 100, 400
)

// pace decides how much garbage there may be. The live heap is so small that under load it is collected dozens of times a second.
type pace struct {
	mu      sync.Mutex
	percent int
	last    time.Time // of the collections
}

// collected takes in that a collection has ended, and reports whether percent has changed.
func (p *pace) collected(now time.Time) (changed bool) {
	since := now.Sub(p.last)
	first, before := p.last.IsZero(), p.percent
	p.last = now
	switch {
	case first:
	case since < often:
		p.percent = min(2*p.percent, most)
	case since > seldom:
		p.percent = usual
	}
	return p.percent != before
}

// keepPace lets collections come less often while the process is under load. The runtime's soft limit holds all the same. It does nothing where
// GOGC says how much garbage there may be.
func keepPace(getenv func(string) string) {
	if getenv("GOGC") != "" {
		return
	}
	p := &pace{percent: usual}
	var wait func()
	wait = func() {
		runtime.AddCleanup(new(collectable), func(struct{}) {
			p.mu.Lock()
			defer p.mu.Unlock()
			if p.collected(time.Now()) {
				debug.SetGCPercent(p.percent)
			}
			wait()
		}, struct{}{})
	}
	wait()
}

// collectable is so large that it is an allocation of its own, and so garbage from the start.
type collectable [64]byte
