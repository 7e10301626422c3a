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
	release := up.Hang("s")
	done := make(chan health.Verdict, 1)
	go func() { done <- c.Check(t.Context(), "s") }()
	eventually(t, "the RPC is under way", func() bool { return up.InFlightFor("s") > 0 })
	way.BlackHole()
	jump.Store(int64(time.Hour))
	release()
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
