//go:build long

package check

import (
	"context"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/test/healthtest"
)

// short budgets, for what can only end by time-out.
func brief(o *Options) { o.ConnectTimeout, o.RPCTimeout = 300*time.Millisecond, 300*time.Millisecond }

func TestFirstRequestAfterAnOutageOverSockets(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	c := checker(t, up.Target())
	want(t, c.Check(t.Context(), ""), health.Serving, health.PhaseNone)
	up.Stop()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		want(t, c.Check(t.Context(), ""), health.ConnectionFailed, health.PhaseConnect)
	}
	up.Restart()
	want(t, c.Check(t.Context(), ""), health.Serving, health.PhaseNone)
}

// After every kind of fault, and Close, nothing is left: no goroutine, no connection, no RPC. It
// does not run beside other tests, whose goroutines it would count.
func TestNothingIsLeftBehind(t *testing.T) {
	base := runtime.NumGoroutine()
	t.Run("faults", func(t *testing.T) {
		up := healthtest.Start(t)
		up.SetStatus("s", serving)
		way := healthtest.Forward(t, up.Target())
		c := checker(t, way.Addr(), services("s", "hung"), brief)
		release := up.Hang("hung")
		var callers sync.WaitGroup
		for _, fault := range []func(){
			func() {},
			way.BlackHole,
			way.Reset,
			func() { way.GoAway(0, http2.ErrCodeNo) },
			func() { way.SetMode(healthtest.Silent); way.Reset() },
			func() { way.SetMode(healthtest.Refuse) },
			func() { way.SetMode(healthtest.CloseOnRequest) },
			func() { way.SetMode(healthtest.Pass) },
		} {
			fault()
			for i := range 40 {
				callers.Go(func() {
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					if i%4 == 3 {
						time.AfterFunc(time.Duration(i)*time.Millisecond, cancel)
					}
					c.Check(ctx, []string{"s", "hung", "made-up", strconv.Itoa(i)}[i%4])
				})
			}
			callers.Wait()
		}
		release()
		want(t, c.Check(t.Context(), "s"), health.Serving, health.PhaseNone)
		eventually(t, "only the kept connections are open", func() bool { return up.OpenConnections() <= 2 })
		eventually(t, "no RPC is under way", func() bool { return up.InFlight() == 0 })
		c.Close()
		eventually(t, "no connection is open", func() bool { return up.OpenConnections() == 0 })
	})
	eventually(t, "the goroutines have ended", func() bool { return runtime.NumGoroutine() <= base })
}

// TestFaultMatrixOverSockets runs the matrix on real connections.
func TestFaultMatrixOverSockets(t *testing.T) {
	t.Parallel()
	const margin = 1250 * time.Millisecond
	for _, cell := range faultMatrix() {
		t.Run(cell.String(), func(t *testing.T) {
			t.Parallel()
			for try := 1; ; try++ {
				up := healthtest.Start(t)
				way := healthtest.Forward(t, up.Target())
				freeze := func(forever bool) {
					way.Pause()
					if !forever {
						way.Resume()
						way.BlackHole() // those there were stay as they are, new ones move
					}
				}
				longest := watchGaps()
				faults := cell.try(t, up, way, freeze, checker(t, way.Addr(), services("s"), budgets(time.Second, time.Second)), margin)
				if len(faults) == 0 {
					return
				}
				// A machine so busy that this process did not run for a while has made another test of it.
				if gap := longest(); gap > 20*time.Millisecond && try < 10 {
					t.Logf("this process was kept from running for %v: once more, after %q", gap, faults)
					continue
				}
				for _, fault := range faults {
					t.Error(fault)
				}
				return
			}
		})
	}
}

// watchGaps watches how this process gets to run, until its result is called, which says for how long it did
// not at most.
func watchGaps() (longest func() time.Duration) {
	stop, found := make(chan struct{}), make(chan time.Duration)
	go func() {
		const every = time.Millisecond
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		var longest time.Duration
		for last := time.Now(); ; {
			select {
			case now := <-ticker.C:
				longest = max(longest, time.Since(last)-every)
				last = now
			case <-stop:
				found <- max(longest, time.Since(last)-every)
				return
			}
		}
	}()
	return func() time.Duration { close(stop); return <-found }
}
