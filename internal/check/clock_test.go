package check

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"example.com/grpc-health-http/internal/clock"
	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/test/healthtest"
)

// A process that stands still again and again, at every look at its clock: a check ends all the same.
func TestStopsAtEveryTick(t *testing.T) {
	t.Parallel()
	var jumps atomic.Int64
	real := clock.System()
	for name, clock := range map[string]func() clock.Moment{
		"the process": func() clock.Moment {
			j := jumps.Add(int64(time.Second))
			m := real()
			return clock.Moment{Mono: m.Mono + j, Wall: m.Wall + j}
		},
		"the machine": func() clock.Moment { m := real(); m.Wall += jumps.Add(int64(time.Second)); return m },
	} {
		for _, mode := range []healthtest.Mode{healthtest.Refuse, healthtest.Silent} {
			way := healthtest.Forward(t, "")
			way.SetMode(mode)
			c := checkerAt(t, clock, way.Addr())
			began := time.Now()
			if v := c.Check(t.Context(), ""); v.Status != health.ConnectionFailed && v.Status != health.Timeout {
				t.Errorf("%s: %v", name, v.Status)
			}
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("%s: took %v with a budget of 2 s", name, took)
			}
		}
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
	c := checkerAt(t, func() clock.Moment { m := real(); m.Mono += jump.Load(); m.Wall += jump.Load(); return m }, up.Target(),
		services("s"), func(o *Options) { o.RPCTimeout = time.Minute }) // silent after 15 s
	want(t, c.Check(t.Context(), "s"), health.Serving, health.PhaseNone)
	release := up.Hang("s")
	done := make(chan health.Verdict, 1)
	go func() { done <- c.Check(t.Context(), "s") }()
	eventually(t, "the RPC is under way", func() bool { return up.InFlightFor("s") == 1 })
	jump.Store(int64(time.Second))
	eventually(t, "a second one is, too", func() bool { return up.InFlightFor("s") == 2 })
	if n := up.RPCsFor("s"); n != 3 {
		t.Errorf("%d RPCs, want one before and two for the check", n)
	}
	release()
	want(t, <-done, health.Serving, health.PhaseNone)
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
	c := checkerAt(t, func() clock.Moment { m := real(); m.Wall += jump.Load(); return m }, way.Addr(), services("s"))
	want(t, c.Check(t.Context(), "s"), health.Serving, health.PhaseNone)
	up.SetDelay("s", 400*time.Millisecond)
	done := make(chan health.Verdict, 1)
	go func() { done <- c.Check(t.Context(), "s") }()
	eventually(t, "the RPC is under way", func() bool { return up.InFlightFor("s") > 0 })
	way.BlackHole()
	jump.Store(int64(time.Hour))
	want(t, <-done, health.Serving, health.PhaseNone)
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
	c := checkerAt(t, func() clock.Moment { m := real(); m.Wall += jump.Load(); return m }, up.Target(),
		services("s"), func(o *Options) { o.RPCTimeout = time.Minute })
	done := make(chan health.Verdict, 1)
	go func() { done <- c.Check(t.Context(), "s") }()
	eventually(t, "the RPC is under way", func() bool { return up.InFlightFor("s") > 0 })
	jump.Store(int64(time.Hour))
	close(release)
	want(t, <-done, health.NotServing, health.PhaseNone)
}
