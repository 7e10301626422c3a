package check

import (
	"context"
	"errors"
	"sync"
	"time"

	"example.com/grpc-health-http/internal/clock"
)

// moment is one reading of the clocks: what judges by time says which of them it means.
type moment = clock.Moment

const (
	// slice is the longest that anything sleeps while a check is under way, so that a gap between
	// two readings of the clock is known to be one in which the process did not run.
	slice = 100 * time.Millisecond
	// stoppedAfter is the gap from which the process counts as stopped; below, the machine is busy.
	stoppedAfter = slice + 250*time.Millisecond
)

// runtimeClock tells how long the process has really run: time that it spent stopped (SIGSTOP, a frozen
// function) is left out, so that a check that was under way then has its whole budget still.
type runtimeClock struct {
	read func() moment

	mu     sync.Mutex
	active int    // checks under way: while there are any, somebody reads the clock every slice
	last   moment // the latest reading while active
	lost   int64  // monotonic nanoseconds spent stopped
	stops  int
}

// reading is what a runtimeClock shows.
type reading struct {
	moment
	// running is the time that the process has run.
	running time.Duration
	// stops counts the times that the process was found to have been stopped.
	stops int
}

// begin says that a check begins; the matching end must follow.
func (c *runtimeClock) begin() reading {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.active == 0 {
		c.last = c.read()
	}
	c.active++
	return c.tickLocked()
}

func (c *runtimeClock) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.active--
}

// tick reads the clock.
func (c *runtimeClock) tick() reading {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tickLocked()
}

func (c *runtimeClock) tickLocked() reading {
	now := c.read()
	if c.active > 0 {
		if now.Since(c.last) > stoppedAfter {
			c.stops++
			c.lost += max(now.Mono-c.last.Mono-int64(slice), 0)
		}
		c.last = now
	}
	return reading{moment: now, running: time.Duration(now.Mono - c.lost), stops: c.stops}
}

// sleep is how long to wait for the running time due before looking at the clock again.
func (r reading) sleep(due time.Duration) time.Duration {
	return max(min(due-r.running, slice), 0)
}

// errBudget is the cause of a context's end when its running time is used up.
var errBudget = errors.New("the time ran out")

// withBudget returns a context that ends, with errBudget as its cause, once the process has run for d.
func (c *runtimeClock) withBudget(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	now := c.tick()
	due := now.running + d
	var mu sync.Mutex // guards timer, which its own function resets
	var timer *time.Timer
	mu.Lock()
	defer mu.Unlock()
	timer = time.AfterFunc(now.sleep(due), func() {
		now := c.tick()
		if now.running >= due {
			cancel(errBudget)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		if ctx.Err() == nil {
			timer.Reset(now.sleep(due))
		}
	})
	return ctx, func() {
		cancel(nil)
		mu.Lock()
		defer mu.Unlock()
		timer.Stop()
	}
}
