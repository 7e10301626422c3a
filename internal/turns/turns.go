// Package turns limits how much is done at once in a process, and says who comes next. It is for dials: many targets may want to
// dial at the same time, and some of them hang.
//
// A Gate has so many turns. Who finds none waits, in this order: what is configured before what callers made up, and then by the
// time by which each needs its turn. Two rules keep one target from taking what others need:
//
//   - While others wait a target has 4 turns at most. Beyond these it gets one only while more than half of all turns are free.
//   - What callers made up never takes the second half of all turns, nor does it keep its target from one turn for what is configured.
//
// A turn is never taken away: what a target has begun while nobody waited is not ended.
package turns

import (
	"cmp"
	"slices"
	"sync"
	"time"
)

// each is how many turns a target has while others wait.
const each = 4

// Gate gives turns. It is safe for concurrent use.
type Gate struct {
	limit, reserve int

	mu      sync.Mutex
	used    int     // turns that are taken
	waiting []*Turn // in the order of before
}

// NewGate returns a Gate with so many turns.
func NewGate(limit int) *Gate { return &Gate{limit: limit, reserve: limit / 2} }

// Used is how many turns are taken, and how many are waited for. A nil Gate does not know.
func (g *Gate) Used() (used, waiting int) {
	if g == nil {
		return 0, 0
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.used, len(g.waiting)
}

// Target is one of those who share a Gate. Of a nil one everybody has a turn at once.
type Target struct {
	gate *Gate

	// The Gate's mutex guards what follows.
	configured, madeUp int // turns that are taken
}

// Target returns one more target. A nil Gate has no limit.
func (g *Gate) Target() *Target {
	if g == nil {
		return nil
	}
	return &Target{gate: g}
}

// Turn is one turn, or the wish for it. Return must follow. A nil one is there at once.
type Turn struct {
	target *Target
	due    time.Duration
	madeUp bool
	came   chan struct{} // closed when the turn has come; nil where it came at once
	state  state         // the Gate's mutex guards it
}

type state int

const (
	waits state = iota
	taken
	returned
)

// Want asks for a turn that is needed by due, on any clock that the Gate's targets share. madeUp says that a caller
// made up what it is for.
func (t *Target) Want(due time.Duration, madeUp bool) *Turn {
	if t == nil {
		return nil
	}
	wanted := &Turn{target: t, due: due, madeUp: madeUp}
	g := t.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	if wanted.mayLocked() {
		wanted.takeLocked() // nobody who waits may, and so nobody is overtaken
		return wanted
	}
	wanted.came = make(chan struct{})
	g.queueLocked(wanted)
	return wanted
}

// Waits says that the turn has not come at once. Came is closed when it has come.
func (t *Turn) Waits() bool           { return t != nil && t.came != nil }
func (t *Turn) Came() <-chan struct{} { return t.came }

// NeededBy moves a turn that has not come forward, where somebody needs it earlier than was said before.
func (t *Turn) NeededBy(due time.Duration) {
	if t == nil {
		return
	}
	g := t.target.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	if t.state == waits && due < t.due {
		g.forgetLocked(t)
		t.due = due
		g.queueLocked(t)
	}
}

// Return gives the turn back, or the wish for it up. Further calls do nothing.
func (t *Turn) Return() {
	if t == nil {
		return
	}
	g := t.target.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	switch t.state {
	case waits:
		g.forgetLocked(t)
	case taken:
		t.target.addLocked(t.madeUp, -1)
		g.nextLocked()
	}
	t.state = returned
}

// nextLocked gives the turns that are free to those who wait for them.
func (g *Gate) nextLocked() {
	for g.used < g.limit {
		next := -1
		for i, t := range g.waiting {
			if !t.mayLocked() {
				continue
			}
			if !t.beyondLocked() {
				next = i
				break
			}
			if next < 0 {
				next = i
			}
		}
		if next < 0 {
			return
		}
		t := g.waiting[next]
		g.removeLocked(next)
		t.takeLocked()
		close(t.came)
	}
}

// beyondLocked says that the target already has all that it gets while others wait.
func (t *Turn) beyondLocked() bool {
	if t.madeUp {
		return t.target.configured+t.target.madeUp >= each-1
	}
	return t.target.configured+min(t.target.madeUp, each-1) >= each
}

// mayLocked says whether the turn could be taken now.
func (t *Turn) mayLocked() bool {
	free := t.target.gate.limit - t.target.gate.used
	if t.madeUp || t.beyondLocked() {
		free -= t.target.gate.reserve
	}
	return free > 0
}

func (t *Turn) takeLocked() {
	t.state = taken
	t.target.addLocked(t.madeUp, 1)
}

func (t *Target) addLocked(madeUp bool, n int) {
	t.gate.used += n
	if madeUp {
		t.madeUp += n
	} else {
		t.configured += n
	}
}

// before is the order in which turns come.
func (t *Turn) before(other *Turn) int {
	if t.madeUp != other.madeUp {
		if t.madeUp {
			return 1
		}
		return -1
	}
	return cmp.Compare(t.due, other.due)
}

// queueLocked puts a turn behind those that come before it or at the same time.
func (g *Gate) queueLocked(t *Turn) {
	i, _ := slices.BinarySearchFunc(g.waiting, t, func(one, t *Turn) int {
		if one.before(t) > 0 {
			return 1
		}
		return -1
	})
	g.waiting = slices.Insert(g.waiting, i, t)
}

func (g *Gate) forgetLocked(t *Turn) {
	if i := slices.Index(g.waiting, t); i >= 0 {
		g.removeLocked(i)
	}
}

// removeLocked moves none of the others where the first one goes, which is the usual case.
func (g *Gate) removeLocked(i int) {
	if i == 0 {
		g.waiting[0] = nil
		g.waiting = g.waiting[1:]
		return
	}
	g.waiting = slices.Delete(g.waiting, i, i+1)
}
