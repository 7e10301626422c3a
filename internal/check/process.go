package check

import (
	"sync"

	"example.com/grpc-health-http/internal/clock"
	"example.com/grpc-health-http/internal/pool"
	"example.com/grpc-health-http/internal/turns"
	"example.com/grpc-health-http/internal/workers"
)

// MaxDials is how many dials a process makes at once for all its Checkers.
const MaxDials = 64

// Process is what the Checkers of a process share: the clock, goroutines, the limit of dials, and the timer that closes idle
// connections. It is safe for concurrent use.
type Process struct {
	clock      *clock.Running
	goroutines *workers.Group
	goroutine  func(f func()) // goroutines.Go, which each Checker would make anew
	doubled    *sync.Map      // see permits
	dials      *turns.Gate    // nil is no limit
	reaper     *pool.Reaper
	target     *turns.Target // of all its Checkers; nil where each has its own
}

// NewProcess returns a Process with a limit of dials at once, such as MaxDials, and one of connections that are kept between checks; 0 is
// no limit. read reads the machine's clocks; nil is clock.System.
func NewProcess(read func() clock.Moment, dials, kept int) *Process {
	if read == nil {
		read = clock.System()
	}
	p := &Process{clock: clock.NewRunning(read), goroutines: workers.New(), doubled: new(sync.Map), reaper: pool.NewReaper(kept)}
	p.goroutine = p.goroutines.Go
	if dials > 0 {
		p.dials = turns.NewGate(dials)
	}
	return p
}

// Target returns the same Process for Checkers that together are one target for the limit of dials: those of the addresses of one upstream.
func (p *Process) Target() *Process {
	same := *p
	same.target = p.dials.Target()
	return &same
}

// turns are those of one more Checker.
func (p *Process) turns() *turns.Target {
	if p.target != nil {
		return p.target
	}
	return p.dials.Target()
}

// Clock is the clock that the Checkers measure budgets with.
func (p *Process) Clock() *clock.Running { return p.clock }

// Go runs f in a goroutine of its own.
func (p *Process) Go(f func()) { p.goroutines.Go(f) }

// Dials is how many dials are in progress, and how many wait for their turn; 0 where there is no limit.
func (p *Process) Dials() (inProgress, waiting int) { return p.dials.Used() }

// Close ends the goroutines that wait for work. The Checkers must be closed before.
func (p *Process) Close() { p.goroutines.Close() }
