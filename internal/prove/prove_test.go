package prove_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"

	"example.com/grpc-health-http/internal/clock"
	"example.com/grpc-health-http/internal/dial"
	"example.com/grpc-health-http/internal/grpcconn"
	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/internal/pool"
	"example.com/grpc-health-http/internal/prove"
	"example.com/grpc-health-http/internal/target"
	"example.com/grpc-health-http/internal/turns"
	"example.com/grpc-health-http/test/healthtest"
)

const (
	ms             = time.Millisecond
	connectTimeout = time.Second
	rpcTimeout     = time.Second
	quarter        = rpcTimeout / 4
	turnsAtOnce    = 8                // dials
	instant        = time.Microsecond // that a connection takes: evidence shows one that took no time as another check's

	serving    = healthpb.HealthCheckResponse_SERVING
	notServing = healthpb.HealthCheckResponse_NOT_SERVING
)

// world is an upstream in memory in a bubble, whose time begins at 0, and what checks of it need.
type world struct {
	t        *testing.T
	up       *healthtest.Upstream
	way      *healthtest.Memory
	clock    *clock.Running
	gate     *turns.Gate
	pool     *pool.Pool
	due      time.Duration // running time at which checks need their answer; 0 is never
	o        prove.Options
	start    time.Time
	jump     atomic.Int64                  // nanoseconds for which the process was stopped
	slow     atomic.Bool                   // the clocks are slow
	reads    atomic.Int64                  // of the clocks
	onRead   atomic.Pointer[func(n int64)] // hears of each
	permit   permit
	released []func() // RPCs that hang

	mu      sync.Mutex
	retries []string
	dials   []string
}

// permit is an Extra that may be taken once at a time, unless the test denies it.
type permit struct {
	mu            sync.Mutex
	denied, taken bool
	times         int
}

func (p *permit) Take() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.denied || p.taken {
		return false
	}
	p.taken = true
	p.times++
	return true
}

func (p *permit) Return() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.taken = false
}

func (p *permit) deny(denied bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.denied = denied
}

// bubble runs a test.
func bubble(t *testing.T, test func(t *testing.T, w *world), options ...healthtest.Option) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		way := healthtest.NewMemory(t)
		w := &world{t: t, way: way, start: time.Now(), up: healthtest.Start(t, append(options, healthtest.On(way))...)}
		w.up.SetStatus("s", serving)
		w.clock = clock.NewRunning(func() clock.Moment {
			n := w.reads.Add(1)
			if hear := w.onRead.Load(); hear != nil {
				(*hear)(n)
			}
			at := int64(w.now()) + w.jump.Load()
			if w.slow.Load() {
				at /= 2
			}
			return clock.Moment{Mono: at, Wall: at}
		})
		w.clock.Begin()
		to, err := target.Parse("192.0.2.1:1")
		if err != nil {
			t.Fatal(err)
		}
		trace := (&health.Trace{
			Retry: func(reason string) { w.mu.Lock(); defer w.mu.Unlock(); w.retries = append(w.retries, reason) },
			Dial:  func(result string) { w.mu.Lock(); defer w.mu.Unlock(); w.dials = append(w.dials, result) },
		}).Complete()
		dialer := dial.New(dial.Options{Target: to, ConnectTimeout: connectTimeout, Trace: trace, Connect: func(ctx context.Context, network, address string) (net.Conn, error) {
			time.Sleep(instant)
			return way.Connect(ctx, network, address)
		}}, w.clock)
		w.gate = turns.NewGate(turnsAtOnce)
		w.pool = pool.New(pool.Options{
			Dial: dialer.Dial, Clock: w.clock, MaxAge: time.Hour, ConnectTimeout: connectTimeout, Turns: w.gate.Target(), Reserve: quarter,
		})
		w.o = prove.Options{Go: func(f func()) { go f() }, Clock: w.clock, ConnectTimeout: connectTimeout, RPCTimeout: rpcTimeout, Trace: trace}
		test(t, w)
		for _, release := range w.released {
			release()
		}
		w.pool.Close()
		time.Sleep(10 * instant) // dials that were given up end
		synctest.Wait()
		if n := way.OpenConnections(); n > 0 {
			t.Errorf("%d connections are left", n)
		}
		if w.permit.taken {
			t.Error("the permission for a second RPC was not returned")
		}
	})
}

func (w *world) now() time.Duration { return time.Since(w.start) }

// hang makes RPCs hang until the end of the test.
func (w *world) hang() { w.released = append(w.released, w.up.Hang("s")) }

// outcome is what came of a check.
type outcome struct {
	*health.Proof
	asked clock.Reading
	took  time.Duration
}

// check is one in progress.
type check struct {
	*prove.Check
	w      *world
	began  time.Duration
	cancel context.CancelFunc
	done   chan struct{}
	outcome
}

// begin begins a check.
func (w *world) begin() *check { return w.check("s", w.clock.Now(), &w.permit) }

// beginFor begins one of another service, which has a permission of its own, as of a time.
func (w *world) beginFor(service string, now clock.Reading) *check {
	return w.check(service, now, new(permit))
}

func (w *world) check(service string, now clock.Reading, extra prove.Extra) *check {
	ctx, cancel := context.WithCancel(w.t.Context())
	c := &check{w: w, began: w.now(), cancel: cancel, done: make(chan struct{})}
	c.Check = prove.New(ctx, w.o, w.pool, grpcconn.Request{Service: service}, now, cmp.Or(w.due, clock.Never), extra)
	go func() {
		defer cancel()
		c.Proof, c.asked = c.Run()
		c.took = (w.now() - c.began).Round(100 * instant)
		close(c.done)
	}()
	synctest.Wait()
	return c
}

// end waits for the check's end.
func (c *check) end() outcome {
	<-c.done
	synctest.Wait()
	return c.outcome
}

// until waits until so long after the check's beginning.
func (c *check) until(d time.Duration) {
	time.Sleep(c.began + d - c.w.now())
	synctest.Wait()
}

// run makes a check.
func (w *world) run() outcome { return w.begin().end() }

// reuse makes a check that leaves a connection for others to reuse.
func (w *world) reuse() {
	w.t.Helper()
	w.want(w.run(), health.Serving, health.PhaseNone, 0)
	time.Sleep(time.Second)
	w.dials = nil
}

// want checks an outcome, and after how long it came.
func (w *world) want(o outcome, status health.Status, phase health.Phase, took time.Duration) {
	w.t.Helper()
	if v := o.Verdict; v.Status != status || v.Phase != phase || o.took != took {
		w.t.Errorf("%v in phase %q after %v, want %v in %q after %v; cause: %v\n%s", v.Status, v.Phase, o.took, status, phase, took, v.Err, strings.Join(o.Evidence.Lines(), "\n"))
	}
}

// evidence checks how many attempts are shown, and that each matches.
func (w *world) evidence(e health.Evidence, attempts ...string) {
	w.t.Helper()
	lines := e.Lines()
	if len(lines) != len(attempts) {
		w.t.Errorf("shown are %d attempts, want %d:\n%s", len(lines), len(attempts), strings.Join(lines, "\n"))
		return
	}
	for i, a := range attempts {
		if !regexp.MustCompile(a).MatchString(lines[i]) {
			w.t.Errorf("attempt %d is shown as %q, want %q", i, lines[i], a)
		}
	}
}

// retried checks the reasons for which there were further attempts.
func (w *world) retried(reasons ...string) {
	w.t.Helper()
	if !slices.Equal(w.retries, reasons) {
		w.t.Errorf("further attempts for %q, want %q", w.retries, reasons)
	}
}

func TestAnswered(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, w *world) {
		w.way.Hold(100 * ms)
		w.up.SetDelay("s", 200*ms)
		o := w.run()
		w.want(o, health.Serving, health.PhaseNone, 300*ms)
		if o.asked.Mono != int64(100*ms+instant) || !o.Verdict.Asked || o.Verdict.Code != codes.OK {
			t.Errorf("asked at %v: %+v", o.asked.Mono, o.Verdict)
		}
		w.evidence(o.Evidence, "^dial 100.001ms.*connected; RPC 200ms: SERVING$")
		time.Sleep(time.Second)
		o = w.run()
		w.want(o, health.Serving, health.PhaseNone, 200*ms)
		w.evidence(o.Evidence, "^connection reused, 1.3s old; RPC 200ms: SERVING$")
		w.up.SetError("s", codes.Unavailable)
		o = w.run()
		w.want(o, health.RPCFailed, health.PhaseNone, 200*ms)
		if o.asked == (clock.Reading{}) || o.Verdict.Code != codes.Unavailable || o.Verdict.Err == nil {
			t.Errorf("asked %v: %+v", o.asked, o.Verdict)
		}
		if n := w.up.RPCsFor("s"); n != 3 {
			t.Errorf("%d RPCs, want 3: what the server said is final", n)
		}
		w.retried()
	})
}

// A check whose dial has no turn says nothing about the upstream, unless another attempt does.
func TestNoTurn(t *testing.T) {
	t.Parallel()
	const overloaded = "^no dial: no turn to dial within "
	bubble(t, func(t *testing.T, w *world) { // the first dial
		defer w.takeTurns(2 * time.Second)()
		o := w.run()
		w.want(o, health.Overloaded, health.PhaseNone, 2*time.Second-quarter)
		if v := o.Verdict; v.Asked || v.Code != codes.OK || !errors.Is(v.Err, pool.ErrNoTurn) || o.asked != (clock.Reading{}) {
			t.Errorf("%+v as of %v", v, o.asked)
		}
		w.evidence(o.Evidence, overloaded+"1.75s")
	})
	bubble(t, func(t *testing.T, w *world) { // that of a hedge: the first RPC is not ended, and proves nothing
		w.reuse()
		w.hang()
		defer w.takeTurns(2 * time.Second)()
		w.want(w.run(), health.Overloaded, health.PhaseNone, 2*time.Second-quarter)
	})
	bubble(t, func(t *testing.T, w *world) { // or is answered, also when it is too late for a turn
		w.reuse()
		w.up.SetDelay("s", 900*ms)
		defer w.takeTurns(700 * ms)()
		o := w.run()
		w.want(o, health.Serving, health.PhaseNone, 900*ms)
		w.evidence(o.Evidence, overloaded+"200ms", "^connection reused.*RPC 900ms: SERVING")
	})
	bubble(t, func(t *testing.T, w *world) { // that of a retry
		w.reuse()
		w.up.SetDelay("s", 200*ms)
		defer w.takeTurns(time.Second)()
		c := w.begin()
		c.until(100 * ms)
		w.way.Reset()
		o := c.end()
		w.want(o, health.Overloaded, health.PhaseNone, time.Second-quarter)
		w.evidence(o.Evidence, "^connection reused.*RPC 100ms: .*Unavailable", overloaded)
	})
	bubble(t, func(t *testing.T, w *world) { // a turn in time gives a dial its whole budget
		release := w.takeTurns(3 * time.Second)
		w.way.SetMode(healthtest.Silent)
		time.AfterFunc(1500*ms, release)
		w.want(w.run(), health.Timeout, health.PhaseHTTP2, 1500*ms+connectTimeout)
	})
}

// takeTurns takes all turns; checks that begin now need their answer after d.
func (w *world) takeTurns(d time.Duration) (release func()) {
	w.due = w.clock.Now().Running + d
	var all []*turns.Turn
	for range turnsAtOnce {
		all = append(all, w.gate.Target().Want(0, false))
	}
	return func() {
		for _, turn := range all {
			turn.Return()
		}
	}
}

// A reused connection that is silent for a quarter of the RPC's budget gets a fresh one beside it, and the first answer wins.
func TestHedge(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, w *world) { // the fresh one's
		w.reuse()
		w.way.BlackHole()
		w.way.Hold(150 * ms)
		w.up.SetDelay("s", 900*ms)
		o := w.run()
		w.want(o, health.Serving, health.PhaseNone, quarter+150*ms+900*ms)
		w.retried("silent")
		w.evidence(o.Evidence, "^connection reused.*RPC 1s: no answer in time", "^dial 150.001ms.*connected; RPC 900ms: SERVING")
	})
	bubble(t, func(t *testing.T, w *world) { // the reused one's
		w.reuse()
		w.up.SetDelay("s", 600*ms)
		o := w.run()
		w.want(o, health.Serving, health.PhaseNone, 600*ms)
		w.retried("silent")
		if n := w.up.RPCsFor("s"); n != 3 {
			t.Errorf("%d RPCs, want 1 + 2", n)
		}
		if w.permit.times != 1 {
			t.Errorf("%d times was a second RPC permitted", w.permit.times)
		}
	})
	bubble(t, func(t *testing.T, w *world) { // also where no fresh one comes about
		w.reuse()
		w.up.SetDelay("s", 600*ms)
		w.way.SetMode(healthtest.Refuse)
		c := w.begin()
		c.until(300 * ms)
		if w.permit.times != 1 || w.permit.taken {
			t.Error("a check that is down to one RPC keeps the permission for a second one")
		}
		o := c.end()
		w.want(o, health.Serving, health.PhaseNone, 600*ms)
		w.evidence(o.Evidence, "failed in connect", "^connection reused.*RPC 600ms: SERVING$")
	})
	bubble(t, func(t *testing.T, w *world) { // a fresh connection gets none
		w.up.SetDelay("s", 600*ms)
		w.want(w.run(), health.Serving, health.PhaseNone, 600*ms)
		w.retried()
	})
	bubble(t, func(t *testing.T, w *world) { // an answer just in time needs none
		w.reuse()
		w.up.SetDelay("s", quarter-ms)
		w.want(w.run(), health.Serving, health.PhaseNone, quarter-ms)
		w.retried()
	})
}

// A second RPC beside the first takes a permission: without it, the second one waits for that, or for the end of the first.
func TestHedgeTakesAPermission(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, w *world) {
		w.permit.deny(true)
		w.reuse()
		w.way.BlackHole()
		c := w.begin()
		w.want(c.end(), health.Serving, health.PhaseNone, rpcTimeout)
		w.retried("silent")
		if w.permit.times > 0 {
			t.Error("a second RPC was permitted")
		}
	})
	bubble(t, func(t *testing.T, w *world) {
		w.permit.deny(true)
		w.reuse()
		w.way.BlackHole()
		c := w.begin()
		c.until(600 * ms)
		w.permit.deny(false)
		o := c.end()
		if o.Verdict.Status != health.Serving || o.took < 600*ms || o.took > 600*ms+clock.Slice {
			t.Errorf("%v after %v", o.Verdict.Status, o.took)
		}
	})
	bubble(t, func(t *testing.T, w *world) { // a lost connection needs none
		w.permit.deny(true)
		w.reuse()
		w.hang()
		c := w.begin()
		c.until(100 * ms)
		w.up.Restart()
		w.released[0]()
		w.want(c.end(), health.Serving, health.PhaseNone, 100*ms)
		w.retried("lost")
	})
}

// A reused connection that is lost is replaced at once, and proves nothing.
func TestRetryOfALostConnection(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, w *world) { // before the check
		w.reuse()
		w.way.Reset()
		synctest.Wait()
		w.want(w.run(), health.Serving, health.PhaseNone, 0)
		w.retried()
	})
	bubble(t, func(t *testing.T, w *world) { // during the RPC
		w.reuse()
		w.up.SetDelay("s", 200*ms)
		c := w.begin()
		c.until(100 * ms)
		w.way.Reset()
		o := c.end()
		w.want(o, health.Serving, health.PhaseNone, 300*ms)
		w.retried("lost")
		w.evidence(o.Evidence, "^connection reused.*RPC 100ms: .*Unavailable", "connected; RPC 200ms: SERVING$")
	})
	bubble(t, func(t *testing.T, w *world) { // and the fresh one is the proof
		w.reuse()
		w.up.SetDelay("s", 200*ms)
		c := w.begin()
		c.until(100 * ms)
		w.way.SetMode(healthtest.Refuse)
		w.way.Reset()
		o := c.end()
		w.want(o, health.ConnectionFailed, health.PhaseConnect, 100*ms)
		w.evidence(o.Evidence, "^connection reused.*RPC 100ms: .*Unavailable", "failed in connect")
		if o.asked != (clock.Reading{}) {
			t.Errorf("a failure was asked at %v", o.asked)
		}
	})
	bubble(t, func(t *testing.T, w *world) { // lost after the hedge has begun: the fresh one stays in progress
		w.reuse()
		w.up.SetDelay("s", 600*ms)
		c := w.begin()
		c.until(300 * ms)
		w.way.ResetFirst()
		w.want(c.end(), health.Serving, health.PhaseNone, quarter+600*ms)
		w.retried("silent")
	})
}

// front has connections go to a server that does to each request what the test says, in turn; after the last one they
// go to the upstream.
func (w *world) front(faults ...healthtest.Fault) *int {
	taken := 0
	w.way.Handle(func(server net.Conn) {
		w.mu.Lock()
		n := taken
		taken++
		w.mu.Unlock()
		if n < len(faults) {
			faults[n].Serve(server)
			return
		}
		w.way.Deliver(server)
	})
	return &taken
}

// Losses of fresh connections come to a verdict by points: two that broke, or four that a GOAWAY ended with the request
// not looked at, or something between.
func TestLosses(t *testing.T) {
	t.Parallel()
	lost, drained := healthtest.CloseOnEveryRequest(), healthtest.GoAwayOnRequest(http2.ErrCodeNo)
	reset, refused := healthtest.ResetStream(http2.ErrCodeInternal), healthtest.ResetStream(http2.ErrCodeRefusedStream)
	for _, row := range []struct {
		name   string
		faults []healthtest.Fault
		serves bool
		taken  int
	}{
		{"one loss", []healthtest.Fault{lost}, true, 2},
		{"two losses", []healthtest.Fault{lost, lost, lost}, false, 2},
		{"two resets", []healthtest.Fault{reset, reset, reset}, false, 2},
		{"three GOAWAYs", []healthtest.Fault{drained, drained, drained}, true, 4},
		{"four GOAWAYs", []healthtest.Fault{drained, drained, drained, drained, drained}, false, 4},
		{"three refusals", []healthtest.Fault{refused, refused, refused}, true, 4},
		{"four refusals", []healthtest.Fault{refused, refused, refused, refused, refused}, false, 4},
		{"a refusal and a loss", []healthtest.Fault{refused, lost}, true, 3},
		{"a loss and a GOAWAY", []healthtest.Fault{lost, drained}, true, 3},
		{"a loss and two GOAWAYs", []healthtest.Fault{lost, drained, drained, drained}, false, 3},
		{"two GOAWAYs and a loss", []healthtest.Fault{drained, drained, lost, lost}, false, 3},
		{"three GOAWAYs and a loss", []healthtest.Fault{drained, drained, drained, lost, lost}, false, 4},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			for _, reused := range []bool{false, true} {
				bubble(t, func(t *testing.T, w *world) {
					if reused {
						w.reuse()
						w.way.Reset() // noticed, or during the check
					}
					taken := w.front(row.faults...)
					o := w.run()
					if row.serves {
						w.want(o, health.Serving, health.PhaseNone, 0)
					} else {
						w.want(o, health.ConnectionFailed, health.PhaseRPC, 0)
						if !o.Verdict.Asked || o.Verdict.Code == codes.OK || !strings.Contains(o.Verdict.Err.Error(), "lost before an answer came") {
							t.Errorf("%+v", o.Verdict)
						}
					}
					if conn := w.pool.Kept(w.clock.Now().Moment); conn != nil {
						t.Error("a connection is kept: after the first loss each is the check's alone")
						conn.Release()
					}
					if *taken != row.taken {
						t.Errorf("%d fresh connections, want %d", *taken, row.taken)
					}
				})
			}
		})
	}
}

// A fresh connection's RPC has its whole budget; where that is used up, that is the verdict.
func TestTimeout(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, w *world) {
		w.way.Hold(400 * ms)
		w.hang()
		o := w.run()
		w.want(o, health.Timeout, health.PhaseRPC, 400*ms+rpcTimeout)
		if v := o.Verdict; !v.Asked || v.Code != codes.DeadlineExceeded || v.Err.Error() != "no answer to the RPC within 1s" || o.asked != (clock.Reading{}) {
			t.Errorf("%+v, asked at %v", v, o.asked)
		}
		w.evidence(o.Evidence, "^dial 400.001ms.*; RPC 1s: no answer in time$")
	})
	bubble(t, func(t *testing.T, w *world) {
		w.reuse()
		w.hang()
		o := w.run()
		w.want(o, health.Timeout, health.PhaseRPC, quarter+rpcTimeout)
		w.retried("silent")
		w.evidence(o.Evidence, "^connection reused.*RPC 1s: no answer in time$", "^dial.*connected; RPC 1s: no answer in time$")
	})
	bubble(t, func(t *testing.T, w *world) { // a connection that was silent serves nobody afterwards
		w.hang()
		w.want(w.run(), health.Timeout, health.PhaseRPC, rpcTimeout)
		w.released[0]()
		before := w.way.Dials()
		w.want(w.run(), health.Serving, health.PhaseNone, 0)
		if w.way.Dials() != before+1 {
			t.Error("a connection that was silent serves on")
		}
	})
	bubble(t, func(t *testing.T, w *world) { // of a dial
		w.way.SetMode(healthtest.Silent)
		o := w.run()
		w.want(o, health.Timeout, health.PhaseHTTP2, connectTimeout)
		if o.Verdict.Asked || len(w.retries) > 0 {
			t.Errorf("%+v after %q", o.Verdict, w.retries)
		}
	})
}

// The RPC's own deadline, which its context and the server know, is a time-out and no loss, also where the check is late to notice.
func TestOwnDeadline(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, w *world) {
		w.slow.Store(true)
		w.hang()
		w.want(w.run(), health.Timeout, health.PhaseRPC, rpcTimeout+clock.Slice)
		w.retried()
	})
}

// A check can be given up at any moment, here at each at which it reads the clock: no connection is left, and bubble sees to it.
func TestGivenUp(t *testing.T) {
	t.Parallel()
	for _, finish := range []bool{false, true} {
		t.Run(fmt.Sprint("RPCs finish: ", finish), func(t *testing.T) {
			t.Parallel()
			testGivenUp(t, finish)
		})
	}
}

func testGivenUp(t *testing.T, finish bool) {
	const tries = 4 // since what is ready at the same time is taken in any order
	for n := 1; ; n++ {
		given := false
		for range tries {
			bubble(t, func(t *testing.T, w *world) {
				w.reuse()
				w.way.BlackHole()
				w.way.Hold(100 * ms)
				w.up.SetDelay("s", 100*ms)
				w.o.Finish = finish
				ctx, leave := context.WithCancelCause(t.Context())
				cancel := func() { leave(prove.ErrLeft) }
				defer cancel()
				w.reads.Store(0)
				giveUp := func(read int64) {
					if read == int64(n) {
						given = true
						cancel()
					}
				}
				w.onRead.Store(&giveUp)
				c := prove.New(ctx, w.o, w.pool, grpcconn.Request{Service: "s"}, w.clock.Now(), clock.Never, &w.permit)
				if r, _ := c.Run(); r.Verdict.Status != health.Serving && r.Verdict != (health.Verdict{}) {
					t.Errorf("%+v", r.Verdict)
				}
				cancel()
				synctest.Wait()
			})
		}
		if !given {
			if n < 10 {
				t.Errorf("a check reads the clock %d times", n)
			}
			return
		}
	}
}

// Where the callers have left, an RPC that is under way continues to its end, and nothing else does.
func TestFinish(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name   string
		ready  func(w *world)
		leaves time.Duration
		ends   time.Duration // of Run
		rpcs   int           // that the server saw
		cause  error
	}{
		{"while dialling", func(w *world) { w.way.Hold(200 * ms) }, 100 * ms, 100 * ms, 0, prove.ErrLeft},
		{"before the answer", func(w *world) { w.up.SetDelay("s", 300*ms) }, 100 * ms, 300 * ms, 1, prove.ErrLeft},
		{"before the answer, on a reused connection", func(w *world) { w.reuse(); w.up.SetDelay("s", 300*ms) }, 100 * ms, 300 * ms, 1, prove.ErrLeft},
		{"before a time-out", func(w *world) { w.hang() }, 100 * ms, rpcTimeout + clock.Slice, 1, prove.ErrLeft},
		{"beside a second RPC", func(w *world) { w.reuse(); w.up.SetDelay("s", 600*ms) }, 400 * ms, 600 * ms, 2, prove.ErrLeft},
		{"for another reason", func(w *world) { w.up.SetDelay("s", 300*ms) }, 100 * ms, 100 * ms, 1, errors.New("its budget is used up")},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T, w *world) {
				row.ready(w)
				w.o.Finish = true
				before, began := w.up.RPCsFor("s"), time.Now()
				ctx, leave := context.WithCancelCause(t.Context())
				time.AfterFunc(row.leaves, func() { leave(row.cause) })
				if r, asked := prove.New(ctx, w.o, w.pool, grpcconn.Request{Service: "s"}, w.clock.Now(), clock.Never, &w.permit).Run(); r.Verdict != (health.Verdict{}) || asked != (clock.Reading{}) {
					t.Errorf("a result that nobody waits for: %+v", r)
				}
				if took := time.Since(began); took < row.ends || took > row.ends+10*ms {
					t.Errorf("it ended after %v, want %v", took, row.ends)
				}
				if n := w.up.RPCsFor("s") - before; n != row.rpcs {
					t.Errorf("%d RPCs, want %d", n, row.rpcs)
				}
			})
		})
	}
}

// Where a server allows no further RPC beside those of others on a shared connection, the check gets one of its own.
func TestNotSent(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, w *world) {
		w.hang()
		w.up.SetStatus("other", serving)
		first := w.begin() // takes the one stream, until its end
		first.until(10 * instant)
		c := w.beginFor("other", clock.Reading{}) // to which the connection is fresh
		o := c.end()
		w.want(o, health.Serving, health.PhaseNone, quarter)
		w.evidence(o.Evidence, "not sent: the server allows no further RPC", "connected; RPC .*: SERVING$")
		w.retried("silent")
		if n := w.up.Connections(); n != 2 {
			t.Errorf("%d connections, want 2", n)
		}
		w.want(first.end(), health.Timeout, health.PhaseRPC, rpcTimeout)
	}, healthtest.MaxConcurrentStreams(1))
	bubble(t, func(t *testing.T, w *world) { // on a reused one, and on the fresh one that another check's RPC has taken too
		w.reuse()
		w.hang()
		w.up.SetStatus("other", serving)
		first := w.begin()
		first.until(100 * ms)
		second := w.beginFor("other", w.clock.Now())
		o := second.end()
		w.want(o, health.Serving, health.PhaseNone, 2*quarter)
		w.evidence(o.Evidence, "for another check meanwhile; RPC 250ms: not sent", "connected; RPC 0s: SERVING$")
		first.cancel()
		first.end()
	}, healthtest.MaxConcurrentStreams(1))
	bubble(t, func(t *testing.T, w *world) { // whose callers leave: it does not wait for a stream that nobody needs
		w.reuse()
		w.hang()
		w.o.Finish = true
		first := w.begin()
		first.until(10 * instant)
		ctx, leave := context.WithCancelCause(t.Context())
		time.AfterFunc(quarter+100*ms, func() { leave(prove.ErrLeft) })
		began := time.Now()
		prove.New(ctx, w.o, w.pool, grpcconn.Request{Service: "other"}, w.clock.Now(), clock.Never, &w.permit).Run()
		if took := time.Since(began) - quarter - 100*ms; took < 0 || took > 10*ms {
			t.Errorf("it ended %v after its callers had left", took)
		}
		first.cancel()
		first.end()
	}, healthtest.MaxConcurrentStreams(1))
}

// A stop of the process begins a check anew. The oldest attempt stays in progress unless its answer could be older than 5 s.
func TestStoppedProcess(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, w *world) { // the oldest one's answer counts
		w.reuse()
		w.up.SetDelay("s", 240*ms)
		c := w.begin()
		c.until(50 * ms)
		w.jump.Add(int64(time.Second))
		o := c.end()
		w.want(o, health.Serving, health.PhaseNone, 240*ms)
		w.retried("frozen")
		if n := w.up.RPCsFor("s"); n != 3 {
			t.Errorf("%d RPCs, want 1 + 2", n)
		}
		if o.asked.Mono > int64(c.began) {
			t.Errorf("asked at %v by an attempt that began at %v", o.asked.Mono, c.began)
		}
	})
	bubble(t, func(t *testing.T, w *world) { // a failure from before does not
		w.reuse()
		w.hang()
		w.way.SetMode(healthtest.Refuse)
		c := w.begin()
		c.until(quarter + 10*ms) // the fresh connection has failed
		w.retried("silent")
		w.front(healthtest.CloseOnEveryRequest()) // one loss is no proof, after the stop as before it
		w.way.BlackHole()
		w.released[0]()
		w.jump.Add(int64(time.Second))
		o := c.end()
		if o.Verdict.Status != health.Serving || o.took > quarter+10*ms+clock.Slice {
			t.Errorf("%v after %v: %v", o.Verdict.Status, o.took, o.Verdict.Err)
		}
		w.retried("silent", "frozen", "lost")
	})
	bubble(t, func(t *testing.T, w *world) { // a long stop: what was answered before does not count either
		w.up.Handle("s", func(ctx context.Context, _ string) (*healthpb.HealthCheckResponse, error) {
			if w.up.RPCsFor("s") > 1 {
				return &healthpb.HealthCheckResponse{Status: notServing}, nil
			}
			time.Sleep(100 * ms)
			return &healthpb.HealthCheckResponse{Status: serving}, nil
		})
		c := w.begin()
		c.until(50 * ms)
		w.jump.Add(int64(6 * time.Second))
		o := c.end()
		if o.Verdict.Status != health.NotServing {
			t.Errorf("%v, which was said before the stop", o.Verdict.Status)
		}
		w.retried("frozen")
		if o.asked.Mono < int64(6*time.Second) {
			t.Errorf("asked at %v", time.Duration(o.asked.Mono))
		}
	})
	bubble(t, func(t *testing.T, w *world) { // during the dial
		w.way.SetMode(healthtest.Silent)
		c := w.begin()
		c.until(900 * ms)
		w.way.SetMode(healthtest.Pass)
		w.jump.Add(int64(2 * time.Second))
		o := c.end()
		if o.Verdict.Status != health.Serving || o.took > connectTimeout {
			t.Errorf("%v after %v: %v", o.Verdict.Status, o.took, o.Verdict.Err)
		}
	})
	bubble(t, func(t *testing.T, w *world) { // a dial of before fails afterwards: that proves nothing
		w.way.SetMode(healthtest.Silent)
		c := w.begin()
		c.until(850 * ms)
		w.way.SetMode(healthtest.Pass)
		w.way.Hold(200 * ms)
		w.up.SetDelay("s", 300*ms)
		w.jump.Add(int64(time.Second)) // noticed after 900 ms
		c.until(1150 * ms)
		if !slices.Equal(w.dials, []string{"http2", "ok"}) {
			t.Errorf("dials %q", w.dials)
		}
		w.way.Reset() // so the new attempt is lost once
		w.want(c.end(), health.Serving, health.PhaseNone, 1150*ms+200*ms+300*ms)
		w.retried("frozen", "lost")
	})
	bubble(t, func(t *testing.T, w *world) { // the attempt of before gets the new one's connection: its loss counts once
		w.way.SetMode(healthtest.Silent)
		c := w.begin()
		c.until(850 * ms)
		w.way.SetMode(healthtest.Pass)
		w.up.SetDelay("s", 300*ms)
		w.jump.Add(int64(time.Second))
		c.until(950 * ms)
		if n := w.up.InFlightFor("s"); n != 2 {
			t.Errorf("%d RPCs, want one of each attempt", n)
		}
		w.way.Reset()
		w.want(c.end(), health.Serving, health.PhaseNone, 950*ms+300*ms)
		w.retried("frozen", "lost")
	})
	bubble(t, func(t *testing.T, w *world) { // again and again: it ends all the same
		w.hang()
		c := w.begin()
		for stop := time.Duration(0); ; stop += 400 * ms {
			select {
			case <-c.done:
				if o := c.end(); o.Verdict.Status != health.Timeout {
					t.Errorf("%v: %v", o.Verdict.Status, o.Verdict.Err)
				}
				return
			case <-time.After(400 * ms):
				if w.jump.Add(int64(time.Second)); stop > time.Minute {
					t.Error("it does not end")
					c.cancel()
					c.end()
					return
				}
			}
			if stop > 2*time.Second {
				c.until(w.now() - c.began + 2*time.Second) // no more stops
			}
		}
	})
}

// A Snapshot shows at any time how far a check has come.
func TestSnapshot(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name     string
		arrange  func(w *world)
		phase    health.Phase
		asked    bool
		evidence []string
	}{
		{"metadata", func(w *world) {
			w.o.Metadata = func(ctx context.Context) (metadata.MD, error) { <-ctx.Done(); return nil, ctx.Err() }
		}, health.PhaseCredentials, false, []string{"^dial 300ms.*not beyond credentials yet$"}},
		{"connect", func(w *world) { w.way.SetMode(healthtest.Backlogged) }, health.PhaseConnect, false, []string{"^dial 300ms.*192.0.2.1:1 not beyond connect yet$"}},
		{"SETTINGS", func(w *world) { w.way.SetMode(healthtest.Silent) }, health.PhaseHTTP2, false, []string{"^dial 300ms.*192.0.2.1:1 connect 1µs not beyond http2 yet$"}},
		{"RPC", func(w *world) { w.hang() }, health.PhaseRPC, true, []string{"connected; RPC 299.999ms: no answer yet$"}},
		{"hedge", func(w *world) { w.reuse(); w.hang(); w.way.SetMode(healthtest.Silent) }, health.PhaseRPC, true,
			[]string{"^connection reused, 1s old; RPC 300ms: no answer yet$", "^dial 50ms.*not beyond http2 yet$"}},
		{"retry", func(w *world) {
			w.reuse()
			w.way.SetMode(healthtest.Silent)
			w.hang()
			time.AfterFunc(50*ms, w.way.Reset)
		}, health.PhaseHTTP2, false, []string{"^connection reused, 1s old; RPC 50ms: .*Unavailable", "^dial 250ms.*not beyond http2 yet$"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T, w *world) {
				row.arrange(w)
				c := w.begin()
				c.until(300 * ms)
				v, e := c.Snapshot(w.clock.Now())
				if v.Status != health.Timeout || v.Phase != row.phase || v.Asked != row.asked || !errors.Is(v.Err, prove.ErrNoAnswer) {
					t.Errorf("%+v", v)
				}
				if row.asked && v.Code != codes.DeadlineExceeded {
					t.Errorf("code %v", v.Code)
				}
				w.evidence(e, row.evidence...)
				c.cancel()
				if o := c.end(); o.took != 300*ms || o.Verdict != (health.Verdict{}) || len(o.Evidence.Attempts) > 0 {
					t.Errorf("after the context's end: %+v after %v", *o.Proof, o.took)
				}
			})
		})
	}
	bubble(t, func(t *testing.T, w *world) { // the attempt kept after a stop says more than the one that has just begun
		w.way.SetMode(healthtest.Backlogged)
		got := 0
		w.o.Metadata = func(ctx context.Context) (metadata.MD, error) {
			if got++; got > 1 {
				<-ctx.Done()
			}
			return nil, ctx.Err()
		}
		c := w.begin()
		c.until(850 * ms)
		w.jump.Add(int64(time.Second))
		c.until(950 * ms)
		v, e := c.Snapshot(w.clock.Now())
		if v.Status != health.Timeout || v.Phase != health.PhaseConnect {
			t.Errorf("%+v", v)
		}
		w.evidence(e, "not beyond connect yet$", "not beyond credentials yet$")
		c.cancel()
		c.end()
	})
	bubble(t, func(t *testing.T, w *world) { // what has failed already is the verdict
		w.reuse()
		w.hang()
		w.way.SetMode(healthtest.Refuse)
		c := w.begin()
		c.until(300 * ms)
		v, e := c.Snapshot(w.clock.Now())
		if v.Status != health.ConnectionFailed || v.Phase != health.PhaseConnect {
			t.Errorf("%+v", v)
		}
		w.evidence(e, "failed in connect", "^connection reused.*no answer yet$")
		w.want(c.end(), health.ConnectionFailed, health.PhaseConnect, rpcTimeout)
	})
}

// Each attempt gets its metadata anew, within a budget of its own.
func TestMetadata(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, w *world) {
		got := 0
		w.o.Metadata = func(context.Context) (metadata.MD, error) {
			got++
			time.Sleep(50 * ms)
			return metadata.Pairs("key", "value"), nil
		}
		w.want(w.run(), health.Serving, health.PhaseNone, 50*ms)
		w.want(w.run(), health.Serving, health.PhaseNone, 50*ms)
		if values := w.up.Last().Metadata.Get("key"); !slices.Equal(values, []string{"value"}) || got != 2 {
			t.Errorf("sent %q, got %d times", values, got)
		}
	})
	for _, row := range []struct {
		name   string
		result func(ctx context.Context) error
		status health.Status
		took   time.Duration
		cause  string
	}{
		{"an error", func(context.Context) error { return errors.New("no token") }, health.ConnectionFailed, 0, "no token"},
		{"nothing in time", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }, health.Timeout, connectTimeout, "did not come within 1s"},
		{"an error of its own, late", func(ctx context.Context) error { <-ctx.Done(); return errors.New("gave up") }, health.Timeout, connectTimeout, "gave up"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T, w *world) {
				w.o.Metadata = func(ctx context.Context) (metadata.MD, error) { return nil, row.result(ctx) }
				o := w.run()
				w.want(o, row.status, health.PhaseCredentials, row.took)
				if !strings.Contains(o.Verdict.Err.Error(), row.cause) || o.Verdict.Asked {
					t.Errorf("%+v", o.Verdict)
				}
				w.evidence(o.Evidence, "^nothing to send: ")
				if w.way.Dials() > 0 {
					t.Error("dialled, with nothing to send")
				}
			})
		})
	}
}
