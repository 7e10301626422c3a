//go:build !race

package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing/synctest"
	"time"

	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/test/simnet"
)

// fault is one fault of a seed's schedule. Its random numbers depend on nothing else, so that it stays as it is where
// others are dropped.
type fault struct {
	index      int
	kind       *kind
	at, length time.Duration
	random     *rand.Rand
	told       []string // what it has drawn while it ran
	span                // in which it happened; from is zero before
}

func (f *fault) String() string {
	s := fmt.Sprintf("%2d at %v for %v: %s", f.index, f.at, f.length, f.kind.name)
	if len(f.told) > 0 {
		s += " (" + strings.Join(f.told, ", ") + ")"
	}
	return s
}

// tell adds to how the fault is shown.
func (f *fault) tell(format string, args ...any) {
	f.told = append(f.told, fmt.Sprintf(format, args...))
}

// harm is what a fault harms.
type harm int

const (
	// harmsMore is anything.
	harmsMore harm = 0
	// harmsServices: the server answers late, or not at all.
	harmsServices harm = 1 << (iota - 1)
	// harmsConnections: some that exist break at one moment.
	harmsConnections
)

// phases are some in which a check fails.
type phases int

const (
	resolving  phases = 1 << iota // dns
	loading                       // credentials
	securing                      // tls, and what follows it: a server can refuse a certificate that late
	connecting                    // connect
	calling                       // rpc
	reaching   = connecting | securing
)

// has says that a phase is among them.
func (p phases) has(one health.Phase) bool {
	switch one {
	case health.PhaseDNS:
		return p&resolving != 0
	case health.PhaseCredentials:
		return p&loading != 0
	case health.PhaseConnect:
		return p&connecting != 0
	case health.PhaseTLS, health.PhaseHTTP2:
		return p&securing != 0
	case health.PhaseRPC:
		return p&calling != 0
	}
	return false
}

// kind is a kind of fault.
type kind struct {
	name string
	// longest is the most that it takes, as a share of the budget; 0 is a moment.
	longest float64
	// harms is what it harms.
	harms harm
	// phases are those in which a check may fail because of it.
	phases phases
	// fits says whether it makes sense with the settings; nil is always.
	fits func(s *settings) bool
	// begin makes the fault, and returns what ends it; nil where nothing is to end.
	begin func(w *world, f *fault) (end func())
}

// drawFaults draws the schedule of a seed, in the order of the faults' beginning.
func drawFaults(seed uint64, s *settings) []*fault {
	r := randomOf(seed, scheduleStream)
	var possible []*kind
	for i := range kinds {
		if k := &kinds[i]; k.fits == nil || k.fits(s) {
			possible = append(possible, k)
		}
	}
	var faults []*fault
	for at := upTo(r, time.Second); at < seedLength; {
		f := &fault{index: len(faults), kind: pick(r, possible...), at: at}
		f.random = randomOf(seed, faultStream+f.index)
		f.length = upTo(r, time.Duration(f.kind.longest*float64(s.budget())))
		faults = append(faults, f)
		pause := upTo(r, 600*time.Millisecond)
		switch n := r.IntN(10); {
		case n < 3: // so that each caller meets one fault at most
			pause += s.budget()
		case n == 3: // so that all is well for a while
			pause += 2 * s.budget()
		case s.overlap && n < 9:
			pause -= f.length
		}
		at = max(at, at+f.length+pause)
	}
	return faults
}

// step is the beginning or the end of a fault.
type step struct {
	at time.Duration
	do func()
}

// play has the faults happen.
func (w *world) play() {
	var steps []step
	for _, f := range w.faults {
		if w.dropped[f.index] {
			continue
		}
		var end func()
		steps = append(steps, step{f.at, func() {
			w.mu.Lock()
			f.from = time.Now()
			w.noteLocked("fault begins:", f)
			w.mu.Unlock()
			undo := f.kind.begin(w, f)
			end = func() {
				if undo != nil {
					undo()
				}
				w.mu.Lock()
				defer w.mu.Unlock()
				w.noteLocked("fault ends:", f)
				f.to = time.Now()
			}
			if f.length == 0 {
				end()
			}
		}})
		if f.length > 0 {
			steps = append(steps, step{f.at + f.length, func() { end() }})
		}
	}
	slices.SortStableFunc(steps, func(a, b step) int { return int(a.at - b.at) })
	for _, s := range steps {
		time.Sleep(s.at - time.Since(w.start))
		s.do()
	}
}

// freeze stops the checker's machine for a while, in which no virtual time passes. What was on its way arrives, and waits to
// be read.
func (w *world) freeze(f *fault, meanwhile func()) {
	jump := 400*time.Millisecond + upTo(f.random, 2*time.Second)
	if f.random.IntN(3) == 0 {
		jump = outdatedAfter + time.Millisecond + upTo(f.random, 4*time.Second)
	}
	wallOnly := f.random.IntN(2) == 0 // the monotonic clock is stopped too
	f.tell("clocks jump by %v, the wall clock alone %v", jump, wallOnly)
	synctest.Wait()
	thaw := w.net.Freeze()
	w.mu.Lock()
	close(w.hurry)
	w.hurry = make(chan struct{})
	w.mu.Unlock()
	for range 2 { // requests, then answers
		w.net.Deliver()
		synctest.Wait()
	}
	meanwhile()
	w.mu.Lock()
	w.freezes = append(w.freezes, freeze{at: time.Now(), order: w.arrivalLocked(), jump: jump, wallOnly: wallOnly})
	w.noteLocked("frozen", nil)
	w.wall += jump
	if !wallOnly {
		w.mono += jump
	}
	w.mu.Unlock()
	thaw()
}

// impair makes new connections to addresses fail, to all where none is given.
func (w *world) impair(mode simnet.Mode, addresses ...string) (end func()) {
	undo := w.net.Impair(mode, addresses...)
	w.mu.Lock()
	defer w.mu.Unlock()
	over := w.partly.begin()
	w.updateLocked()
	return func() {
		undo()
		w.mu.Lock()
		defer w.mu.Unlock()
		over()
		w.updateLocked()
	}
}

// change changes the world's state, and later back.
func (w *world) change(to, back func()) (end func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	to()
	w.updateLocked()
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		back()
		w.updateLocked()
	}
}

// key draws what is asked, mostly a configured service.
func (w *world) key(r *rand.Rand) string {
	switch r.IntN(6) {
	case 0:
		return fmt.Sprintf("made up %d", r.IntN(8))
	case 1:
		return listKey
	}
	return pick(r, w.configured()...)
}
