package check

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"example.com/grpc-health-http/internal/clock"
	"example.com/grpc-health-http/test/healthtest"
)

func TestRuntimeClock(t *testing.T) {
	t.Parallel()
	var now moment
	c := &runtimeClock{read: func() moment { return now }}
	pass := func(d time.Duration) { now.Mono += int64(d); now.Wall += int64(d) }

	pass(time.Hour) // nobody checks: no gap is a stop
	begin := c.begin()
	if begin.stops != 0 {
		t.Fatalf("%d stops while idle", begin.stops)
	}
	for range 20 {
		pass(slice)
		c.tick()
	}
	if r := c.tick(); r.stops != 0 || r.running-begin.running != 20*slice {
		t.Errorf("ran for %v with %d stops, want %v and none", r.running-begin.running, r.stops, 20*slice)
	}
	before := c.tick()
	pass(5 * time.Second)
	if r := c.tick(); r.stops != 1 || r.running-before.running != slice {
		t.Errorf("a stopped process ran for %v with %d stops, want %v and 1", r.running-before.running, r.stops, slice)
	}
	before = c.tick()
	now.Wall += int64(time.Hour) // a frozen machine: its monotonic clock stood still
	if r := c.tick(); r.stops != 2 || r.running != before.running {
		t.Errorf("a frozen machine ran for %v with %d stops in all, want 0 and 2", r.running-before.running, r.stops)
	}
	now.Wall -= int64(2 * time.Hour) // somebody set the clock back
	if r := c.tick(); r.stops != 2 || r.running != before.running {
		t.Errorf("setting the clock back counts as a stop")
	}
	c.end()
	pass(time.Hour)
	if r := c.begin(); r.stops != 2 {
		t.Errorf("%d stops, want 2: nobody was checking", r.stops)
	}
}

// A process that stands still again and again, at every look at its clock: a check ends all the same.
func TestStopsAtEveryTick(t *testing.T) {
	t.Parallel()
	var jumps atomic.Int64
	real := clock.System()
	for name, clock := range map[string]func() moment{
		"the process": func() moment {
			j := jumps.Add(int64(time.Second))
			m := real()
			return moment{Mono: m.Mono + j, Wall: m.Wall + j}
		},
		"the machine": func() moment { m := real(); m.Wall += jumps.Add(int64(time.Second)); return m },
	} {
		for _, mode := range []healthtest.Mode{healthtest.Refuse, healthtest.Silent} {
			way := healthtest.Forward(t, "")
			way.SetMode(mode)
			c := checkerAt(t, clock, way.Addr())
			began := time.Now()
			if v := c.Check(t.Context(), ""); v.Status != ConnectionFailed && v.Status != Timeout {
				t.Errorf("%s: %v", name, v.Status)
			}
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("%s: took %v with a budget of 2 s", name, took)
			}
		}
	}
}

func TestWithBudget(t *testing.T) {
	t.Parallel()
	c := &runtimeClock{read: clock.System()}
	c.begin()
	began := time.Now()
	ctx, cancel := c.withBudget(t.Context(), 250*time.Millisecond)
	defer cancel()
	<-ctx.Done()
	if took := time.Since(began); took < 250*time.Millisecond || !errors.Is(context.Cause(ctx), errBudget) {
		t.Errorf("ended after %v with %v", took, context.Cause(ctx))
	}
}

// A process that stands still for a moment while the server works on its answer: what the server has done by
// then is not lost, for a second RPC goes beside the first.
func TestStallDuringASlowAnswer(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	up.SetStatus("s", serving)
	var jump atomic.Int64
	real := clock.System()
	c := checkerAt(t, func() moment { m := real(); m.Mono += jump.Load(); m.Wall += jump.Load(); return m }, up.Target(),
		services("s"), func(o *Options) { o.RPCTimeout = time.Minute }) // silent after 15 s
	want(t, c.Check(t.Context(), "s"), Serving, PhaseNone)
	release := up.Hang("s")
	done := make(chan Verdict, 1)
	go func() { done <- c.Check(t.Context(), "s") }()
	eventually(t, "the RPC is under way", func() bool { return up.InFlightFor("s") == 1 })
	jump.Store(int64(time.Second))
	eventually(t, "a second one is, too", func() bool { return up.InFlightFor("s") == 2 })
	if n := up.RPCsFor("s"); n != 3 {
		t.Errorf("%d RPCs, want one before and two for the check", n)
	}
	release()
	want(t, <-done, Serving, PhaseNone)
}

// A machine that was frozen while an RPC was under way: only its wall clock shows it. What the
// server's own deadline for the RPC did meanwhile is no answer.
func TestMachineFrozenDuringACheck(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	up.SetStatus("s", serving)
	way := healthtest.Forward(t, up.Target())
	var jump atomic.Int64
	real := clock.System()
	c := checkerAt(t, func() moment { m := real(); m.Wall += jump.Load(); return m }, way.Addr(), services("s"))
	want(t, c.Check(t.Context(), "s"), Serving, PhaseNone)
	up.SetDelay("s", 400*time.Millisecond)
	done := make(chan Verdict, 1)
	go func() { done <- c.Check(t.Context(), "s") }()
	eventually(t, "the RPC is under way", func() bool { return up.InFlightFor("s") > 0 })
	way.Swallow()
	jump.Store(int64(time.Hour))
	want(t, <-done, Serving, PhaseNone)
	if c.retried("frozen") == 0 { // a busy machine may have stopped this process besides
		t.Error("no retry for the freeze")
	}
}

// An answer that has waited since long before the process went on is no answer, also where it is the first that is
// heard of.
func TestAnswerFromBeforeALongFreeze(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	release := make(chan struct{})
	var rpcs atomic.Int32
	up.Handle("s", func(ctx context.Context, _ string) (*healthpb.HealthCheckResponse, error) {
		if rpcs.Add(1) > 1 {
			return &healthpb.HealthCheckResponse{Status: notServing}, nil
		}
		select {
		case <-release:
		case <-ctx.Done():
		}
		return &healthpb.HealthCheckResponse{Status: serving}, nil
	})
	var jump atomic.Int64
	real := clock.System()
	c := checkerAt(t, func() moment { m := real(); m.Wall += jump.Load(); return m }, up.Target(),
		services("s"), func(o *Options) { o.RPCTimeout = time.Minute })
	done := make(chan Verdict, 1)
	go func() { done <- c.Check(t.Context(), "s") }()
	eventually(t, "the RPC is under way", func() bool { return up.InFlightFor("s") > 0 })
	jump.Store(int64(time.Hour))
	close(release)
	want(t, <-done, NotServing, PhaseNone)
}
