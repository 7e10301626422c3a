package serve

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"time"
)

const (
	// wave is from how many new connections it pays to tidy up after them.
	wave = 100
	// idleFor is how long a process must have nothing to do before.
	idleFor = time.Second
	// idleBytes is what it may allocate in that time and still count as idle: some 300 requests.
	idleBytes = 1 << 20
)

// tidy gives back the memory that a wave of connections leaves behind: an idle process collects but once in two minutes.
type tidy struct {
	mu        sync.Mutex
	came      int         // connections since it was tidied up
	timer     *time.Timer // nil before the first wave
	waits     bool        // the timer runs
	allocated uint64      // bytes that the process had allocated when it was last looked at
}

// connection counts one that has come.
func (t *tidy) connection() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.came++
	switch {
	case t.came < wave || t.waits:
		return
	case t.timer == nil:
		t.timer = time.AfterFunc(idleFor, t.look)
	default:
		t.timer.Reset(idleFor)
	}
	t.waits = true
}

// look tidies up if the process has had nothing to do of late.
func (t *tidy) look() {
	allocated := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(allocated)
	t.mu.Lock()
	before := t.allocated
	t.allocated = allocated[0].Value.Uint64()
	if t.allocated-before > idleBytes {
		t.timer.Reset(idleFor)
		t.mu.Unlock()
		return
	}
	t.came, t.waits = 0, false
	t.mu.Unlock()
	runtime.GC()         // what is pooled, net/http's buffers above all, is free after the second collection only,
	debug.FreeOSMemory() // which is this one
}
