package clock

import (
	"context"
	"errors"
	"math"
	"sync"
	"time"
)

const (
	// Slice is the longest that anything sleeps while a check is under way, so that a longer gap between
	// two readings of the clock shows that the process did not run.
	Slice = 100 * time.Millisecond
	// stoppedAfter is the gap from which the process counts as stopped; below, the machine is busy.
	stoppedAfter = Slice + 250*time.Millisecond
)

// Never is later than any time that a process runs.
const Never = time.Duration(math.MaxInt64)

// ErrBudget is the cause of a context that ended because its budget of running time was used up.
var ErrBudget = errors.New("the time ran out")

// Running tells how long the process has really run: time that it spent stopped (SIGSTOP, a frozen
// function) is left out, so that a check that was under way still has its whole budget afterwards.
type Running struct {
	read func() Moment

	mu     sync.Mutex
	active int           // checks under way: while there are any, somebody reads the clock every Slice
	last   Moment        // the latest reading
	passed time.Duration // what either clock has shown to pass from one reading to the next, in all
	lost   int64         // monotonic nanoseconds spent stopped
	stops  int
}

// Reading is what a Running clock shows.
type Reading struct {
	// Moment has in place of the wall clock the sum of what either clock has shown to pass from one reading to the
	// next: so setting the wall clock back does not hide a stop that was seen before.
	Moment
	// Running is how long the process has run.
	Running time.Duration
	// Stops counts how often the process was found to have been stopped.
	Stops int
}

// NewRunning returns a clock that reads the time from read, as System gives it.
func NewRunning(read func() Moment) *Running { return &Running{read: read, last: read()} }

// Begin says that a check begins, and reads the clock. End must follow.
func (c *Running) Begin() Reading {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.active == 0 {
		c.nowLocked() // what has passed since the last check is no stop
	}
	c.active++
	return c.nowLocked()
}

// End says that a check has ended.
func (c *Running) End() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.active--
}

// Now reads the clock.
func (c *Running) Now() Reading {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.nowLocked()
}

func (c *Running) nowLocked() Reading {
	now := c.read()
	passed := max(now.Since(c.last), 0)
	if c.active > 0 && passed > stoppedAfter {
		c.stops++
		c.lost += max(now.Mono-c.last.Mono-int64(Slice), 0)
	}
	c.passed += passed
	c.last = now
	return Reading{Moment: Moment{Mono: now.Mono, Wall: int64(c.passed)}, Running: time.Duration(now.Mono - c.lost), Stops: c.stops}
}

// Sleep is how long to wait for the running time due before reading the clock again.
func (r Reading) Sleep(due time.Duration) time.Duration {
	return max(min(due-r.Running, Slice), 0)
}

// WithBudget returns a context that ends, with ErrBudget as its cause, once the process has run for d.
func (c *Running) WithBudget(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	timer := c.NewTimer(func(Reading) { cancel(ErrBudget) })
	now := c.Now()
	timer.SetBy(now, now.Running+d)
	return ctx, func() {
		cancel(nil)
		timer.Stop()
	}
}

// Timer calls a function when the process has run for long enough.
type Timer struct {
	clock *Running
	f     func(now Reading)

	mu    sync.Mutex
	due   time.Duration // running time; Never where it is not set
	timer *time.Timer   // nil before it is first set
}

// NewTimer returns a Timer that is not set yet. f runs in a goroutine of its own.
func (c *Running) NewTimer(f func(now Reading)) *Timer {
	return &Timer{clock: c, f: f, due: Never}
}

// SetBy has the timer fire at the running time due at the latest: one that is set to an earlier time keeps it. After it has
// fired it is not set.
func (t *Timer) SetBy(now Reading, due time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if due >= t.due {
		return
	}
	t.due = due
	if t.timer == nil {
		t.timer = time.AfterFunc(now.Sleep(due), t.wake)
	} else {
		t.timer.Reset(now.Sleep(due))
	}
}

// Stop unsets the timer. It can still fire if it was just about to.
func (t *Timer) Stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.due = Never
	if t.timer != nil {
		t.timer.Stop()
	}
}

// wake fires, or sleeps again: for a Slice at most at a time.
func (t *Timer) wake() {
	now := t.clock.Now()
	t.mu.Lock()
	due := t.due
	switch {
	case due == Never:
		t.mu.Unlock()
		return
	case now.Running < due:
		t.timer.Reset(now.Sleep(due))
		t.mu.Unlock()
		return
	}
	t.due = Never
	t.mu.Unlock()
	t.f(now)
}
