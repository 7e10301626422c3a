package memory

import (
	"runtime"
	"runtime/debug"
	"sync"
	"time"
)

const (
	// busy is how many collections within window take a part of the processor that matters, and calm is how many do not, even if there were twice as many.
	busy, calm = 10, 4
	window     = time.Second
	// usual and most are percentages of the live heap that may be garbage: see GOGC in the documentation of package runtime.
	usual, most = 70, 400
)

// pace decides how much garbage there may be. The live heap is so small that under load it is collected dozens of times a second.
type pace struct {
	mu      sync.Mutex
	percent int
	began   time.Time // of the present window
	count   int       // of collections in it
}

// collected takes in that a collection has ended, and reports whether percent has changed.
func (p *pace) collected(now time.Time) (changed bool) {
	p.count++
	early := now.Sub(p.began) < window
	if early && p.count < busy {
		return false
	}
	before := p.percent
	switch {
	case early:
		p.percent = min(2*p.percent, most)
	case p.count == 1:
		p.percent = usual
	case p.count <= calm:
		p.percent = max(p.percent/2, usual)
	}
	p.began, p.count = now, 0
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
