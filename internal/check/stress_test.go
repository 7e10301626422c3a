//go:build long

package check

import (
	"context"
	"flag"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"

	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/test/healthtest"
)

var stressSeed = flag.Uint64("stress.seed", 0, "seed of TestStress; 0 takes one from the clock")

// timeline keeps the times at which something began and ended to be so.
type timeline struct {
	mu    sync.Mutex
	spans []span
}

// span is from a time to another; an open one has no end yet.
type span struct{ from, to time.Time }

func (l *timeline) begin() (end func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := len(l.spans)
	l.spans = append(l.spans, span{from: time.Now()})
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.spans[i].to = time.Now()
	}
}

// within says whether it was so at any time from from to to.
func (l *timeline) within(from, to time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.spans {
		if !s.from.After(to) && (s.to.IsZero() || !s.to.Before(from)) {
			return true
		}
	}
	return false
}

// add keeps a span that has ended.
func (l *timeline) add(from time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.spans = append(l.spans, span{from, time.Now()})
}

// whole says whether any span began and ended between from and to.
func (l *timeline) whole(from, to time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.spans, func(s span) bool { return !s.from.Before(from) && !s.to.After(to) })
}

// TestStress lets callers check while the upstream restarts and flips and the way to it is reset,
// swallowed, told GOAWAY and closed, at random. It judges every verdict: SERVING, or NOT_SERVING, only
// where an RPC that came to the server after the request's arrival was answered so; a failure only where
// between arrival and answer the way in was closed to new connections, or a connection made for the request was hit.
func TestStress(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*Options){
		"connections last":          func(o *Options) { o.MaxAge = 700 * time.Millisecond },
		"connections hardly last":   func(o *Options) { o.MaxAge = time.Millisecond },
		"a connection for each RPC": func(o *Options) { o.MaxAge = 0 },
		"metadata takes its time": func(o *Options) {
			o.Metadata = func(ctx context.Context) (metadata.MD, error) {
				select {
				case <-time.After(time.Millisecond):
				case <-ctx.Done():
				}
				return metadata.Pairs("key", "value"), ctx.Err()
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			stress(t, change)
		})
	}
}

func stress(t *testing.T, change func(*Options)) {
	seed := *stressSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("go test -run TestStress -stress.seed=%d", seed)
	random := rand.New(rand.NewPCG(seed, 0))

	up := healthtest.Start(t)
	way := healthtest.Forward(t, up.Target())
	names := []string{"a", "b", "c"}
	var said [2]map[string]*timeline // the RPCs, from coming in to the answer: NOT_SERVING and SERVING, by service
	isServing := make(map[string]*atomic.Bool)
	for i := range said {
		said[i] = make(map[string]*timeline)
		for _, name := range names {
			said[i][name] = &timeline{}
		}
	}
	for _, name := range names {
		isServing[name] = &atomic.Bool{}
		up.Handle(name, func(ctx context.Context, _ string) (*healthpb.HealthCheckResponse, error) {
			came := time.Now()
			select {
			case <-time.After(time.Millisecond):
			case <-ctx.Done():
			}
			if isServing[name].Load() {
				said[1][name].add(came)
				return &healthpb.HealthCheckResponse{Status: serving}, nil
			}
			said[0][name].add(came)
			return &healthpb.HealthCheckResponse{Status: notServing}, nil
		})
	}

	var broken, hits timeline
	c := checker(t, way.Addr(), services(names...), change, func(o *Options) {
		o.Trace.Verdict = func(_ context.Context, _ health.Verdict, proof health.Evidence) (time.Time, string) {
			return time.Time{}, strings.Join(proof.Lines(), "\n")
		}
	})
	ctx, stop := context.WithCancel(t.Context())
	var callers sync.WaitGroup
	var verdicts [9]atomic.Int64
	for i := range 32 {
		name, random := names[i%len(names)], rand.New(rand.NewPCG(seed, uint64(i+1)))
		callers.Go(func() {
			for ctx.Err() == nil {
				leaving, cancel := context.WithCancel(ctx)
				left := random.IntN(10) == 0
				if left {
					time.AfterFunc(time.Duration(random.IntN(int(5*time.Millisecond))), cancel)
				}
				arrived := time.Now()
				v := c.Check(leaving, name)
				answered := time.Now()
				left = left && leaving.Err() != nil || ctx.Err() != nil
				cancel()
				if took := answered.Sub(arrived); took > c.options.ConnectTimeout+c.options.RPCTimeout+2*time.Second {
					t.Errorf("%s: %v took %v", name, v.Status, took)
				}
				verdicts[v.Status].Add(1)
				switch v.Status {
				case health.Serving, health.NotServing:
					i := map[health.Status]int{health.Serving: 1}[v.Status]
					if !said[i][name].whole(arrived, answered) {
						t.Errorf("%s: %v after %v, of an RPC that came to the server before the request", name, v.Status, answered.Sub(arrived))
					}
				case health.ConnectionFailed, health.Timeout:
					proven := strings.Contains(v.EvidenceID, "dial") // reused connections prove nothing
					if !left && !broken.within(arrived, answered) && !(proven && hits.within(arrived, answered)) {
						t.Errorf("%s: %v in phase %q after %v, while the way in was open: %v\n%s", name, v.Status, v.Phase, answered.Sub(arrived), v.Err, v.EvidenceID)
					}
				default:
					t.Errorf("%s: %v in phase %q: %v", name, v.Status, v.Phase, v.Err)
				}
				time.Sleep(time.Duration(random.IntN(int(3 * time.Millisecond))))
			}
		})
	}

	hit := func(fault func()) func() {
		return func() {
			defer hits.begin()()
			fault()
		}
	}
	closed := func(begin, end func()) {
		mended := broken.begin()
		begin()
		time.Sleep(time.Duration(random.IntN(int(150 * time.Millisecond))))
		end()
		mended()
	}
	faults := []func(){
		hit(way.Reset),
		hit(way.BlackHole),
		hit(way.CloseOnBytes),
		func() { way.GoAway(0, http2.ErrCodeNo) },
		func() {
			end, drained := hits.begin(), up.GoAway() // closes the connections that it has only just accepted
			callers.Go(func() { <-drained; end() })
		},
		func() { closed(up.Stop, up.Restart) },
		func() {
			mode := []healthtest.Mode{healthtest.Refuse, healthtest.Silent, healthtest.ResetOnAccept, healthtest.CloseOnRequest}[random.IntN(4)]
			closed(func() { way.SetMode(mode); way.Reset() }, func() { way.SetMode(healthtest.Pass) })
		},
		func() { closed(way.Pause, way.Resume) },
	}
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); {
		faults[random.IntN(len(faults))]()
		for range 4 {
			name := names[random.IntN(len(names))]
			isServing[name].Store(!isServing[name].Load())
			time.Sleep(time.Duration(random.IntN(int(60 * time.Millisecond))))
		}
	}
	stop()
	callers.Wait()
	for _, name := range names {
		isServing[name].Store(true)
		want(t, c.Check(t.Context(), name), health.Serving, health.PhaseNone)
		if n := up.MaxInFlightFor(name); n > 8 {
			t.Errorf("%s: %d RPCs at once, want 8 at most", name, n)
		}
	}
	eventually(t, "every RPC has ended", func() bool { return up.InFlight() == 0 })
	eventually(t, "one connection is left at most", func() bool { return up.OpenConnections() <= 1 })
	for s := range verdicts {
		if n := verdicts[s].Load(); n > 0 {
			t.Logf("%v: %d", health.Status(s), n)
		}
	}
	t.Logf("%d RPCs, %d connections", up.RPCs(), way.Connections())
}
