package clock

import (
	"context"
	"errors"
	"testing"
	"time"
)

func TestRunning(t *testing.T) {
	t.Parallel()
	var now Moment
	c := NewRunning(func() Moment { return now })
	pass := func(d time.Duration) { now.Mono += int64(d); now.Wall += int64(d) }

	pass(time.Hour) // nobody checks: no gap is a stop
	begin := c.Begin()
	if begin.Stops != 0 {
		t.Fatalf("%d stops while idle", begin.Stops)
	}
	for range 20 {
		pass(Slice)
		c.Now()
	}
	if r := c.Now(); r.Stops != 0 || r.Running-begin.Running != 20*Slice {
		t.Errorf("ran for %v with %d stops, want %v and none", r.Running-begin.Running, r.Stops, 20*Slice)
	}
	before := c.Now()
	pass(5 * time.Second)
	if r := c.Now(); r.Stops != 1 || r.Running-before.Running != Slice {
		t.Errorf("a stopped process ran for %v with %d stops, want %v and 1", r.Running-before.Running, r.Stops, Slice)
	}
	before = c.Now()
	now.Wall += int64(time.Hour) // a frozen machine: its monotonic clock did not run
	if r := c.Now(); r.Stops != 2 || r.Running != before.Running {
		t.Errorf("a frozen machine ran for %v with %d stops in all, want 0 and 2", r.Running-before.Running, r.Stops)
	}
	now.Wall -= int64(2 * time.Hour) // somebody set the clock back
	if r := c.Now(); r.Stops != 2 || r.Running != before.Running {
		t.Errorf("setting the clock back counts as a stop")
	}
	if age := c.Now().Since(begin.Moment); age < time.Hour {
		t.Errorf("an age of %v, after a freeze of an hour that setting the clock back must not hide", age)
	}
	c.End()
	pass(time.Hour)
	if r := c.Begin(); r.Stops != 2 {
		t.Errorf("%d stops, want 2: nobody was checking", r.Stops)
	}
}

func TestWithBudget(t *testing.T) {
	t.Parallel()
	c := NewRunning(System())
	c.Begin()
	began := time.Now()
	ctx, cancel := c.WithBudget(t.Context(), 250*time.Millisecond)
	defer cancel()
	<-ctx.Done()
	if took := time.Since(began); took < 250*time.Millisecond || !errors.Is(context.Cause(ctx), ErrBudget) {
		t.Errorf("ended after %v with %v", took, context.Cause(ctx))
	}
}

// A timer set to an earlier time fires then, one set to a later time does not move, and a stopped one does not fire.
func TestTimer(t *testing.T) {
	t.Parallel()
	c := NewRunning(System())
	c.Begin()
	defer c.End()
	fired := make(chan Reading, 2)
	a := c.NewTimer(func(now Reading) { fired <- now })
	now := c.Now()
	early := now.Running + 150*time.Millisecond
	a.SetBy(now, now.Running+time.Hour)
	a.SetBy(now, early)
	a.SetBy(now, early+time.Hour)
	if at := <-fired; at.Running < early {
		t.Errorf("fired %v early", early-at.Running)
	}
	a.SetBy(c.Now(), c.Now().Running+time.Hour)
	a.Stop()
	a.SetBy(c.Now(), c.Now().Running) // after Stop any time is the earliest
	<-fired
	if len(fired) > 0 {
		t.Error("fired once more")
	}
}
