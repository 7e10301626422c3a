package check

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"

	"example.com/grpc-health-http/internal/clock"
	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/test/healthtest"
)

// bubble runs a test of a checker in a bubble, whose time is exact and costs none, with an upstream in memory. It fails
// where the test leaves a connection, an RPC or a goroutine.
func bubble(t *testing.T, test func(t *testing.T, up *healthtest.Upstream, way *healthtest.Memory, c *counted), change ...func(*Options)) {
	t.Helper()
	bubbleOf(t, nil, test, change...)
}

func bubbleOf(t *testing.T, options []healthtest.Option, test func(t *testing.T, up *healthtest.Upstream, way *healthtest.Memory, c *counted), change ...func(*Options)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		way := healthtest.NewMemory(t)
		up := healthtest.Start(t, append(options, healthtest.On(way))...)
		c := checker(t, "192.0.2.1:1", append([]func(*Options){func(o *Options) { o.Connect = way.Connect }}, change...)...)
		test(t, up, way, c)
		c.Close()
		synctest.Wait()
		if n := up.OpenConnections(); n > 0 {
			t.Errorf("%d connections are left", n)
		}
		if n := up.InFlight(); n > 0 {
			t.Errorf("%d RPCs are left", n)
		}
	})
}

// afterLeaving is how long RPCs of a configured service go on after their callers have left: the default time-out, and a little more.
const afterLeaving = 1200 * time.Millisecond

func budgets(connect, rpc time.Duration) func(*Options) {
	return func(o *Options) { o.ConnectTimeout, o.RPCTimeout = connect, rpc }
}

// The first request after an outage is served at once, however long that was, and whatever requests that came before wait for.
func TestFirstRequestAfterAnOutage(t *testing.T) {
	t.Parallel()
	t.Run("refused", func(t *testing.T) {
		t.Parallel()
		bubble(t, func(t *testing.T, up *healthtest.Upstream, _ *healthtest.Memory, c *counted) {
			want(t, c.Check(t.Context(), ""), health.Serving, health.PhaseNone)
			up.Stop()
			for end := time.Now().Add(10 * time.Minute); time.Now().Before(end); time.Sleep(time.Second) {
				want(t, c.Check(t.Context(), ""), health.ConnectionFailed, health.PhaseConnect)
			}
			up.Restart()
			began := time.Now()
			want(t, c.Check(t.Context(), ""), health.Serving, health.PhaseNone)
			if took := time.Since(began); took > 0 {
				t.Errorf("took %v", took)
			}
		})
	})
	t.Run("a few are stuck", func(t *testing.T) {
		t.Parallel()
		bubble(t, func(t *testing.T, _ *healthtest.Upstream, way *healthtest.Memory, c *counted) {
			way.SetMode(healthtest.Silent)
			var callers sync.WaitGroup
			for range promptCalls {
				callers.Go(func() { want(t, c.Check(t.Context(), ""), health.Serving, health.PhaseNone) })
				time.Sleep(30 * time.Millisecond)
			}
			way.SetMode(healthtest.Pass)
			began := time.Now()
			want(t, c.Check(t.Context(), ""), health.Serving, health.PhaseNone)
			callers.Wait() // they are served with it
			if took := time.Since(began); took > time.Second/8 {
				t.Errorf("took %v, and a dial of the outage takes 1 s", took)
			}
		})
	})
	for _, mode := range []healthtest.Mode{healthtest.Silent, healthtest.Backlogged} {
		t.Run(fmt.Sprintf("silent, mode %d", mode), func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T, _ *healthtest.Upstream, way *healthtest.Memory, c *counted) {
				want(t, c.Check(t.Context(), ""), health.Serving, health.PhaseNone)
				way.SetMode(mode)
				way.BlackHole()
				ended := time.Now().Add(20 * time.Second)
				var callers sync.WaitGroup
				for time.Now().Before(ended) {
					callers.Go(func() {
						if v := c.Check(t.Context(), ""); v.Status != health.Timeout && time.Now().Before(ended) {
							t.Errorf("%v during the outage", v.Status)
						}
					})
					time.Sleep(70 * time.Millisecond)
				}
				way.SetMode(healthtest.Pass)
				began := time.Now()
				want(t, c.Check(t.Context(), ""), health.Serving, health.PhaseNone)
				// A dial of the outage would take until 1 s after its start.
				if took := time.Since(began); took > 150*time.Millisecond {
					t.Errorf("took %v", took)
				}
				callers.Wait()
			})
		})
	}
}

func TestDeadlineOfTheCaller(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, up *healthtest.Upstream, _ *healthtest.Memory, c *counted) {
		defer up.Hang("hung")()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		v := c.Check(ctx, "hung")
		want(t, v, health.Timeout, health.PhaseRPC)
		if v.Service != "hung" || v.GRPCCode() != "DEADLINE_EXCEEDED" || v.Duration != 2*time.Second {
			t.Errorf("service %q, code %q, after %v", v.Service, v.GRPCCode(), v.Duration)
		}
	}, budgets(time.Second, time.Minute))
	bubble(t, func(t *testing.T, _ *healthtest.Upstream, way *healthtest.Memory, c *counted) {
		way.SetMode(healthtest.Silent)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		want(t, c.Check(ctx, ""), health.Timeout, health.PhaseHTTP2)
	}, budgets(time.Minute, time.Second))
}

// A deadline that the caller has chosen ends the wait of this caller alone: no failure is logged or counted, and others get their answer.
func TestDeadlineThatTheCallerHasChosen(t *testing.T) {
	t.Parallel()
	for name, configured := range map[string][]string{"configured": {"slow"}, "made up": nil} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T, up *healthtest.Upstream, way *healthtest.Memory, c *counted) {
				up.SetStatus("slow", serving)
				up.SetDelay("slow", 300*time.Millisecond)
				brief := func(after time.Duration) health.Verdict {
					ctx, cancel := context.WithTimeoutCause(t.Context(), after, health.ErrCallerDeadline)
					defer cancel()
					began := time.Now()
					v := c.Check(ctx, "slow")
					if took := time.Since(began); took != after {
						t.Errorf("the wait took %v, want %v", took, after)
					}
					return v
				}
				var other sync.WaitGroup
				other.Go(func() { want(t, c.Check(t.Context(), "slow"), health.Serving, health.PhaseNone) })
				for _, after := range []time.Duration{100 * time.Millisecond, 50 * time.Millisecond} {
					v := brief(after)
					if v.Status != health.Timeout || !errors.Is(v.Err, health.ErrCallerDeadline) || !v.At.IsZero() || v.EvidenceID != "" {
						t.Errorf("verdict %+v", v)
					}
				}
				other.Wait()
				way.SetMode(healthtest.Silent)
				way.Reset()
				if v := brief(200 * time.Millisecond); v.Status != health.Timeout || !errors.Is(v.Err, health.ErrCallerDeadline) {
					t.Errorf("verdict %+v", v)
				}
				if len(c.proofs) != 0 {
					t.Errorf("told of %d failures: %+v", len(c.proofs), c.proofs)
				}
				way.SetMode(healthtest.Pass)
			}, services(configured...), budgets(time.Second, time.Second))
		})
	}
}

// Every caller of a server that hangs is answered when its budget is used up, and few RPCs are made for all of them.
func TestBoundedWhileTheServerHangs(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, up *healthtest.Upstream, _ *healthtest.Memory, c *counted) {
		defer up.Hang("hung")()
		var callers sync.WaitGroup
		for range 2000 {
			time.Sleep(500 * time.Microsecond)
			callers.Go(func() {
				began := time.Now()
				want(t, c.Check(t.Context(), "hung"), health.Timeout, health.PhaseRPC)
				if took := time.Since(began); took > time.Second {
					t.Errorf("an answer took %v with a budget of 1 s", took)
				}
			})
		}
		callers.Wait()
		if n := up.MaxInFlightFor("hung"); n > 8 {
			t.Errorf("%d RPCs at once, want 8 at most", n)
		}
	}, services("hung"), budgets(500*time.Millisecond, 500*time.Millisecond))
}

func TestHealthyBesideMadeUpNamesAndHungServices(t *testing.T) {
	t.Parallel()
	hung := []string{"hung1", "hung2", "hung3"}
	bubbleOf(t, []healthtest.Option{healthtest.MaxConcurrentStreams(100)}, func(t *testing.T, up *healthtest.Upstream, _ *healthtest.Memory, c *counted) {
		up.SetStatus("healthy", serving)
		for _, name := range hung {
			defer up.Hang(name)()
		}
		up.HandleUnknown(func(ctx context.Context, _ string) (*healthpb.HealthCheckResponse, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})
		ctx, cancel := context.WithCancel(t.Context())
		var callers sync.WaitGroup
		var overloaded atomic.Int32
		for i := range 128 {
			callers.Go(func() {
				for n := 0; ctx.Err() == nil; n++ {
					if c.Check(ctx, fmt.Sprintf("made-up-%d-%d", i, n)).Status == health.Overloaded {
						overloaded.Add(1)
						time.Sleep(50 * time.Millisecond)
					}
				}
			})
		}
		for _, name := range hung {
			for range 40 {
				callers.Go(func() {
					for ctx.Err() == nil {
						if v := c.Check(ctx, name); v.Status == health.Overloaded {
							t.Error("OVERLOADED was said of a configured service")
						}
					}
				})
			}
		}
		for range 100 {
			time.Sleep(30 * time.Millisecond)
			began := time.Now()
			want(t, c.Check(t.Context(), "healthy"), health.Serving, health.PhaseNone)
			if took := time.Since(began); took > 0 {
				t.Errorf("the healthy service took %v: made-up names take up its connection", took)
			}
		}
		cancel()
		callers.Wait()
		time.Sleep(afterLeaving)
		if overloaded.Load() == 0 {
			t.Error("no made-up name was refused")
		}
	}, services(append(hung, "healthy")...))
}

// A server that takes few RPCs at a time on a connection: services that hang do not use up what the healthy one needs.
func TestHealthyBesideHungServicesWithFewStreams(t *testing.T) {
	t.Parallel()
	hung := []string{"hung1", "hung2", "hung3"}
	for _, streams := range []uint32{1, 2, 5} {
		t.Run(strconv.Itoa(int(streams)), func(t *testing.T) {
			t.Parallel()
			bubbleOf(t, []healthtest.Option{healthtest.MaxConcurrentStreams(streams)}, func(t *testing.T, up *healthtest.Upstream, _ *healthtest.Memory, c *counted) {
				up.SetStatus("healthy", serving)
				for _, name := range hung {
					defer up.Hang(name)()
				}
				ctx, cancel := context.WithCancel(t.Context())
				var callers sync.WaitGroup
				for _, name := range hung {
					for range 20 {
						callers.Go(func() {
							for ctx.Err() == nil {
								c.Check(ctx, name)
							}
						})
					}
				}
				for range 150 {
					time.Sleep(30 * time.Millisecond)
					want(t, c.Check(t.Context(), "healthy"), health.Serving, health.PhaseNone)
				}
				for _, name := range hung {
					if n := up.MaxInFlightFor(name); n > 8 {
						t.Errorf("%s: %d RPCs at once", name, n)
					}
				}
				cancel()
				callers.Wait()
				time.Sleep(afterLeaving)
				if n := up.OpenConnections(); n > 1 {
					t.Errorf("%d connections are left, want one at most", n)
				}
			}, services(append(hung, "healthy")...))
		})
	}
}

// A slow server and a short time to connect: those who come while the first RPCs are in progress are served
// by one that starts in time for them.
func TestSlowServerUnderManyCallers(t *testing.T) {
	t.Parallel()
	const slow, budget = 2400 * time.Millisecond, 3 * time.Second
	for _, connect := range []time.Duration{900 * time.Millisecond, 1500 * time.Millisecond, 3 * time.Second} {
		t.Run(connect.String(), func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T, up *healthtest.Upstream, _ *healthtest.Memory, c *counted) {
				up.SetStatus("slow", serving)
				want(t, c.Check(t.Context(), "slow"), health.Serving, health.PhaseNone)
				up.SetDelay("slow", slow)
				var callers sync.WaitGroup
				for range 300 {
					time.Sleep(12 * time.Millisecond)
					callers.Go(func() { want(t, c.Check(t.Context(), "slow"), health.Serving, health.PhaseNone) })
				}
				callers.Wait()
				if n := up.MaxInFlightFor("slow"); n > 8 {
					t.Errorf("%d RPCs at once", n)
				}
			}, services("slow"), budgets(connect, budget))
		})
	}
}

// Many callers of a connection that swallows everything: all are served by what one of them finds out.
func TestBlackHoleUnderManyCallers(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, up *healthtest.Upstream, way *healthtest.Memory, c *counted) {
		up.SetStatus("s", serving)
		want(t, c.Check(t.Context(), "s"), health.Serving, health.PhaseNone)
		way.BlackHole()
		up.SetDelay("s", 1500*time.Millisecond)
		var callers sync.WaitGroup
		for range 300 {
			time.Sleep(time.Millisecond)
			callers.Go(func() { want(t, c.Check(t.Context(), "s"), health.Serving, health.PhaseNone) })
		}
		callers.Wait()
		if n := up.MaxInFlightFor("s"); n > 8 {
			t.Errorf("%d RPCs at once", n)
		}
	}, services("s"), budgets(3*time.Second, 3*time.Second))
}

// A caller whose time is up before its call could begin waited for RPCs in progress, not for the connection.
func TestPhaseOfACallerThatWaitsForItsCall(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, up *healthtest.Upstream, _ *healthtest.Memory, c *counted) {
		defer up.Hang("hung")()
		ctx, cancel := context.WithCancel(t.Context())
		var callers sync.WaitGroup
		for n := range promptCalls {
			callers.Go(func() { c.Check(ctx, "hung") })
			time.Sleep(50 * time.Millisecond)
			if got := up.InFlightFor("hung"); got != n+1 {
				t.Fatalf("%d RPCs, want %d", got, n+1)
			}
		}
		brief, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer stop()
		v := c.Check(brief, "hung")
		want(t, v, health.Timeout, health.PhaseRPC)
		if v.Asked {
			t.Errorf("code %s, but no RPC was made for it", v.GRPCCode())
		}
		if len(c.proofs) != 1 || len(c.proofs[0].Attempts) == 0 {
			t.Errorf("proofs %+v: want one of the RPCs that it waited for", c.proofs)
		}
		cancel()
		callers.Wait()
	}, services("hung"), budgets(time.Second, time.Minute))
}

// The limit for made-up names counts second RPCs too, says OVERLOADED to the others at once, and is
// free again afterwards.
func TestLimitForMadeUpNames(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, up *healthtest.Upstream, _ *healthtest.Memory, c *counted) {
		up.SetStatus("made-up", serving)
		release := make(chan struct{})
		up.HandleUnknown(func(ctx context.Context, _ string) (*healthpb.HealthCheckResponse, error) {
			select {
			case <-release:
			case <-ctx.Done():
			}
			return &healthpb.HealthCheckResponse{Status: serving}, nil
		})
		want(t, c.Check(t.Context(), "made-up"), health.Serving, health.PhaseNone)
		time.Sleep(time.Second)
		var callers sync.WaitGroup
		for _, name := range []string{"first", "second"} {
			callers.Go(func() { want(t, c.Check(t.Context(), name), health.Serving, health.PhaseNone) })
		}
		time.Sleep(900 * time.Millisecond)
		if n := up.InFlight(); n != 2 {
			t.Errorf("%d RPCs before a quarter of the budget has passed, want 2", n)
		}
		time.Sleep(600 * time.Millisecond)
		if n := up.InFlight(); n != 3 {
			t.Errorf("%d RPCs for made-up names, with a limit of 3", n)
		}
		began := time.Now()
		want(t, c.Check(t.Context(), "third"), health.Overloaded, health.PhaseNone)
		if list := c.List(t.Context()); len(list) < 2 {
			t.Errorf("a List counts as a made-up name: %+v", list)
		}
		want(t, c.Check(t.Context(), ""), health.Serving, health.PhaseNone)
		if took := time.Since(began); took > 0 {
			t.Errorf("took %v", took)
		}
		close(release)
		callers.Wait()
		up.HandleUnknown(func(context.Context, string) (*healthpb.HealthCheckResponse, error) {
			time.Sleep(100 * time.Millisecond)
			return &healthpb.HealthCheckResponse{Status: serving}, nil
		})
		for _, name := range []string{"a", "b", "c"} {
			callers.Go(func() { want(t, c.Check(t.Context(), name), health.Serving, health.PhaseNone) })
		}
		callers.Wait()
	}, budgets(time.Second, 4*time.Second), func(o *Options) { o.MaxConcurrent = 3 })
}

// jumping is a clock of a bubble that a test lets jump: stopped stops the process, frozen the machine, whose monotonic clock
// does not show it.
type jumping struct {
	read            func() clock.Moment
	stopped, frozen atomic.Int64
}

func (j *jumping) set(o *Options) {
	j.read = clock.System()
	o.Clock = func() clock.Moment {
		m := j.read()
		return clock.Moment{Mono: m.Mono + j.stopped.Load(), Wall: m.Wall + j.stopped.Load() + j.frozen.Load()}
	}
}

// A process that is stopped again and again, whenever it has run for a moment: a check ends all the same.
func TestStopsAgainAndAgain(t *testing.T) {
	t.Parallel()
	for name, which := range map[string]func(*jumping) *atomic.Int64{
		"the process": func(j *jumping) *atomic.Int64 { return &j.stopped },
		"the machine": func(j *jumping) *atomic.Int64 { return &j.frozen },
	} {
		for _, mode := range []healthtest.Mode{healthtest.Refuse, healthtest.Silent} {
			j := new(jumping)
			bubble(t, func(t *testing.T, _ *healthtest.Upstream, way *healthtest.Memory, c *counted) {
				way.SetMode(mode)
				began := time.Now()
				if v := c.Check(t.Context(), ""); v.Status != health.ConnectionFailed && v.Status != health.Timeout {
					t.Errorf("%s: %v", name, v.Status)
				}
				// Of each stop, what passed since the last reading can count as a Slice, or not at all.
				if took := time.Since(began); took > 4*time.Second {
					t.Errorf("%s: took %v with a budget of 2 s", name, took)
				}
			}, j.set, func(o *Options) {
				read := o.Clock
				last := read().Mono
				o.Clock = func() clock.Moment {
					if m := j.read(); m.Mono-last > int64(60*time.Millisecond) {
						last = m.Mono
						which(j).Add(int64(time.Second))
					}
					return read()
				}
			})
		}
	}
}

// A check that is down to one RPC lets others of the same service make a second one.
func TestSecondRPCIsGivenBackAfterAFreeze(t *testing.T) {
	t.Parallel()
	j := new(jumping)
	bubble(t, func(t *testing.T, up *healthtest.Upstream, _ *healthtest.Memory, c *counted) {
		up.SetStatus("s", serving)
		want(t, c.Check(t.Context(), "s"), health.Serving, health.PhaseNone)
		time.Sleep(time.Second)
		release := up.Hang("s")
		var callers sync.WaitGroup
		callers.Go(func() { want(t, c.Check(t.Context(), "s"), health.Serving, health.PhaseNone) })
		time.Sleep(1100 * time.Millisecond)
		if n := up.InFlightFor("s"); n != 2 {
			t.Fatalf("%d RPCs after a quarter of the budget, want 2", n)
		}
		j.frozen.Add(int64(time.Hour))
		time.Sleep(200 * time.Millisecond)
		if n := up.InFlightFor("s"); n != 1 || c.retried("frozen") != 1 {
			t.Fatalf("%d RPCs after a freeze, want 1", n)
		}
		callers.Go(func() { want(t, c.Check(t.Context(), "s"), health.Serving, health.PhaseNone) })
		time.Sleep(1100 * time.Millisecond)
		if n := up.InFlightFor("s"); n != 3 {
			t.Fatalf("%d RPCs, want 3: another check has two", n)
		}
		release()
		callers.Wait()
	}, services("s"), budgets(time.Second, 4*time.Second), j.set)
}

// A process that is stopped for a moment while the server works on its answer: what the server has done by
// then is not lost, for a second RPC goes beside the first.
func TestStallDuringASlowAnswer(t *testing.T) {
	t.Parallel()
	j := new(jumping)
	bubble(t, func(t *testing.T, up *healthtest.Upstream, _ *healthtest.Memory, c *counted) {
		up.SetStatus("s", serving)
		want(t, c.Check(t.Context(), "s"), health.Serving, health.PhaseNone)
		up.SetDelay("s", 3*time.Second)
		began := time.Now()
		time.AfterFunc(time.Second, func() { j.stopped.Add(int64(time.Second)) })
		want(t, c.Check(t.Context(), "s"), health.Serving, health.PhaseNone)
		if took := time.Since(began); took != 3*time.Second || up.RPCsFor("s") != 3 {
			t.Errorf("took %v, with %d RPCs in all; want 3 s, and one before and two for the check", took, up.RPCsFor("s"))
		}
	}, services("s"), budgets(time.Second, time.Minute), j.set) // silent after 15 s
}

// Credentials and metadata that cannot be had end a check in their own phase.
func TestNothingToSend(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name   string
		change func(*Options)
		status health.Status
		took   time.Duration
	}{
		{"no credentials", func(o *Options) { o.Credentials = noCredentials }, health.ConnectionFailed, 0},
		{"credentials that do not come", func(o *Options) { o.Credentials = lateCredentials }, health.Timeout, time.Second},
		{"no metadata", func(o *Options) { o.Metadata = noMetadata }, health.ConnectionFailed, 0},
		{"metadata that does not come", func(o *Options) { o.Metadata = lateMetadata }, health.Timeout, time.Second},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T, _ *healthtest.Upstream, _ *healthtest.Memory, c *counted) {
				v := c.Check(t.Context(), "")
				want(t, v, row.status, health.PhaseCredentials)
				if v.Duration != row.took || v.Err == nil || v.Asked {
					t.Errorf("after %v, asked %v: %v", v.Duration, v.Asked, v.Err)
				}
			}, row.change)
		})
	}
}

func noCredentials(context.Context, bool) (credentials.TransportCredentials, error) {
	return nil, errors.New("torn")
}

func lateCredentials(ctx context.Context, _ bool) (credentials.TransportCredentials, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func noMetadata(context.Context) (metadata.MD, error) { return nil, errors.New("no token") }

func lateMetadata(ctx context.Context) (metadata.MD, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// Callers who come and leave, as after an HTTP/2 reset, cost a server no more RPCs at once than callers who stay: those of a
// configured service go on. One who stays gets its answer in time, and those who ask when all is over get theirs at once.
func TestCallersWhoLeave(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		slow, every, leaves time.Duration
		want                health.Status
	}{
		"at once":              {300 * time.Millisecond, time.Millisecond, 0, health.Serving},
		"soon":                 {300 * time.Millisecond, 5 * time.Millisecond, 30 * time.Millisecond, health.Serving},
		"while a second waits": {800 * time.Millisecond, 10 * time.Millisecond, 300 * time.Millisecond, health.Serving},
		"from a hung server":   {time.Hour, 3 * time.Millisecond, 26 * time.Millisecond, health.Timeout},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T, up *healthtest.Upstream, _ *healthtest.Memory, c *counted) {
				up.SetStatus("s", serving)
				want(t, c.Check(t.Context(), "s"), health.Serving, health.PhaseNone)
				// The server continues with an RPC for as long as it takes, whoever cancels it.
				var now, most, all atomic.Int64
				up.Handle("s", func(ctx context.Context, _ string) (*healthpb.HealthCheckResponse, error) {
					all.Add(1)
					most.Store(max(most.Load(), now.Add(1)))
					defer now.Add(-1)
					time.Sleep(min(row.slow, 1200*time.Millisecond))
					return &healthpb.HealthCheckResponse{Status: serving}, nil
				})
				var callers sync.WaitGroup
				for range int(3 * time.Second / row.every) {
					callers.Go(func() {
						ctx, leave := context.WithCancel(t.Context())
						defer leave()
						time.AfterFunc(row.leaves, leave)
						c.Check(ctx, "s")
					})
					time.Sleep(row.every)
				}
				want(t, c.Check(t.Context(), "s"), row.want, phaseOf(row.want))
				callers.Wait()
				time.Sleep(2 * afterLeaving)
				if most.Load() > 8 {
					t.Errorf("%d RPCs at once, of %d", most.Load(), all.Load())
				}
				began := time.Now()
				up.SetStatus("s", serving)
				want(t, c.Check(t.Context(), "s"), health.Serving, health.PhaseNone)
				if took := time.Since(began); took > 300*time.Millisecond {
					t.Errorf("a check took %v when all was over", took)
				}
				t.Logf("%d RPCs at once, of %d", most.Load(), all.Load())
			}, services("s"))
		})
	}
}

func phaseOf(s health.Status) health.Phase {
	if s == health.Timeout {
		return health.PhaseRPC
	}
	return health.PhaseNone
}
