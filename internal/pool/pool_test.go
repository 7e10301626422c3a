package pool_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	"example.com/grpc-health-http/internal/clock"
	"example.com/grpc-health-http/internal/dial"
	"example.com/grpc-health-http/internal/grpcconn"
	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/internal/pool"
	"example.com/grpc-health-http/internal/target"
	"example.com/grpc-health-http/test/healthtest"
)

const (
	ms             = time.Millisecond
	connectTimeout = time.Second
	// share is how long a dial is young, and most how many there are at once: as doc.go says.
	share = 25 * ms
	most  = 8
)

var errRefused = errors.New("refused by the test")

// world is a Pool in a bubble, whose time begins at 0, with an upstream in memory. The test ends each of its dials.
type world struct {
	*pool.Pool
	t          *testing.T
	up         *healthtest.Upstream
	way        *healthtest.Memory
	dialer     *dial.Dialer
	clock      *clock.Running
	start      time.Time
	mono, wall atomic.Int64 // by which the clocks are ahead of the bubble's time

	mu    sync.Mutex
	dials []*dialled
}

// dialled is a dial of the pool.
type dialled struct {
	ctx           context.Context
	ends          chan error
	beforeFailing func() // nil does nothing
}

// succeed makes the dial connect, and fail ends it; both wait for what follows from it.
func (d *dialled) succeed()      { d.ends <- nil; synctest.Wait() }
func (d *dialled) fail(as error) { d.ends <- as; synctest.Wait() }

// bubble runs a test.
func bubble(t *testing.T, maxAge time.Duration, test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		way := healthtest.NewMemory(t)
		w := &world{t: t, way: way, up: healthtest.Start(t, healthtest.On(way)), start: time.Now()}
		at, err := target.Parse("127.0.0.1:1")
		if err != nil {
			t.Fatal(err)
		}
		running := clock.NewRunning(func() clock.Moment {
			now := int64(w.now())
			return clock.Moment{Mono: now + w.mono.Load(), Wall: now + w.wall.Load()}
		})
		w.clock = running
		w.dialer = dial.New(dial.Options{Target: at, ConnectTimeout: time.Hour, Connect: way.Connect}, running)
		w.Pool = pool.New(pool.Options{Dial: w.dial, Clock: running, MaxAge: maxAge, ConnectTimeout: connectTimeout})
		t.Cleanup(func() {
			w.Close()
			synctest.Wait()
			if n := w.up.OpenConnections(); n > 0 {
				t.Errorf("%d connections are left", n)
			}
		})
		test(t, w)
	})
}

func (w *world) dial(ctx context.Context, p *dial.Progress) (*grpcconn.Conn, health.Dial) {
	d := &dialled{ctx: ctx, ends: make(chan error)}
	w.mu.Lock()
	w.dials = append(w.dials, d)
	w.mu.Unlock()
	select {
	case err := <-d.ends:
		if err != nil {
			if d.beforeFailing != nil {
				d.beforeFailing()
			}
			return nil, health.Dial{Phase: health.PhaseConnect, Err: err}
		}
		return w.dialer.Dial(context.WithoutCancel(ctx), p)
	case <-ctx.Done():
		return nil, health.Dial{Phase: health.PhaseConnect, Err: context.Cause(ctx)}
	}
}

func (w *world) now() time.Duration { return time.Since(w.start) }

func (w *world) moment() clock.Moment { return clock.Moment{Mono: int64(w.now())} }

func (w *world) until(at time.Duration) {
	w.t.Helper()
	if now := w.now(); now > at {
		w.t.Fatalf("it is %v already, and not %v", now, at)
	}
	time.Sleep(at - w.now())
	synctest.Wait()
}

// dialled checks how many dials have begun, and returns the latest.
func (w *world) dialled(n int) *dialled {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.dials) != n {
		w.t.Fatalf("at %v %d dials have begun, want %d", w.now(), len(w.dials), n)
	}
	return w.dials[n-1]
}

// getter is a caller of Get.
type getter struct {
	w        *world
	leave    context.CancelCauseFunc
	done     chan struct{}
	conn     *pool.Conn
	dial     health.Dial
	progress atomic.Pointer[dial.Progress]
}

// get calls Get in a goroutine, for someone who arrives now, and waits until that has to wait.
func (w *world) get(need pool.Need) *getter {
	ctx, leave := context.WithCancelCause(w.t.Context())
	g := &getter{w: w, leave: leave, done: make(chan struct{})}
	since := w.moment()
	go func() {
		defer leave(nil)
		g.conn, g.dial = w.Get(ctx, need, since, clock.Never, &g.progress)
		close(g.done)
	}()
	synctest.Wait()
	return g
}

func (g *getter) waits() {
	g.w.t.Helper()
	select {
	case <-g.done:
		g.w.t.Fatalf("a caller does not wait any more: connection %v, dial %v", g.conn != nil, g.dial)
	default:
	}
}

// got is the connection that the caller has got, and must have.
func (g *getter) got() *pool.Conn {
	g.w.t.Helper()
	select {
	case <-g.done:
	default:
		g.w.t.Fatal("a caller waits still")
	}
	if g.conn == nil {
		g.w.t.Fatalf("a caller has no connection: %v", g.dial.Err)
	}
	return g.conn
}

// failed checks that the caller has got an error.
func (g *getter) failed(with error) {
	g.w.t.Helper()
	select {
	case <-g.done:
	default:
		g.w.t.Fatal("a caller waits still")
	}
	if g.conn != nil || !errors.Is(g.dial.Err, with) || g.dial.Phase != health.PhaseConnect {
		g.w.t.Errorf("a caller has connection %v and %v in phase %q, want %v", g.conn != nil, g.dial.Err, g.dial.Phase, with)
	}
}

// ask makes an RPC, and checks that the server answers.
func (w *world) ask(c *pool.Conn) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Second)
	defer cancel()
	if a := c.Do(ctx, grpcconn.Request{}, nil, new(grpcconn.Progress)); a.Outcome != grpcconn.Answered || a.Code != codes.OK {
		w.t.Errorf("an RPC: %v", a)
	}
}

// open checks how many connections the server has.
func (w *world) open(n int) {
	w.t.Helper()
	synctest.Wait()
	if got := w.up.OpenConnections(); got != n {
		w.t.Errorf("at %v %d connections are open, want %d", w.now(), got, n)
	}
}

// Callers who arrive before a dial begins share it; those who come later use its connection.
func TestSharing(t *testing.T) {
	t.Parallel()
	bubble(t, time.Minute, func(t *testing.T, w *world) {
		if w.Kept(w.moment()) != nil {
			t.Error("a connection is kept before any dial")
		}
		a, b, c := w.get(pool.Any), w.get(pool.Any), w.get(pool.Fresh)
		if a.progress.Load() == nil || a.progress.Load() != b.progress.Load() {
			t.Error("callers of one dial have no progress, or different ones")
		}
		w.until(10 * ms)
		w.dialled(1).succeed()
		conn := a.got()
		if b.got() != conn || c.got() != conn {
			t.Error("the callers of one dial have different connections")
		}
		if conn.Began.Mono != 0 || a.dial.Err != nil {
			t.Errorf("began at %v: %v", conn.Began, a.dial.Err)
		}
		w.until(20 * ms)
		d := w.get(pool.Any)
		if d.got() != conn || d.dial.Took != 0 {
			t.Errorf("a later caller has another connection, dialled in %v", d.dial.Took)
		}
		kept := w.Kept(w.moment())
		if kept != conn {
			t.Error("another connection is kept")
		}
		w.ask(conn)
		for range 5 {
			conn.Release()
		}
		w.open(1)
		w.dialled(1)
	})
}

// The failure of a dial counts only for those who had arrived when it began; the others dial as soon as it has ended, or is no
// longer young.
func TestFailureCountsForWhoHadArrived(t *testing.T) {
	t.Parallel()
	bubble(t, time.Minute, func(t *testing.T, w *world) {
		a := w.get(pool.Any)
		w.until(10 * ms)
		b := w.get(pool.Any)
		w.until(20 * ms)
		w.dialled(1).fail(errRefused)
		a.failed(errRefused)
		b.waits()
		w.until(21 * ms)
		c := w.get(pool.Any)
		w.until(20*ms + share - 1)
		w.dialled(2)
		w.until(20*ms + share)
		third := w.dialled(3)
		w.dials[1].fail(errRefused)
		b.failed(errRefused)
		c.waits()
		third.fail(errRefused)
		c.failed(errRefused)
	})
}

// The success of any dial serves everyone whom its connection may serve.
func TestSuccessOfAnyDialServes(t *testing.T) {
	t.Parallel()
	bubble(t, time.Minute, func(t *testing.T, w *world) {
		a := w.get(pool.Any)
		w.until(share)
		b, fresh := w.get(pool.Any), w.get(pool.Fresh)
		w.dialled(2)
		w.until(2 * share)
		w.dials[0].succeed()
		conn := a.got()
		if b.got() != conn || b.dial.Took != 0 {
			t.Error("an older dial's connection does not serve who may use it")
		}
		fresh.waits()
		w.until(3 * share)
		later := w.get(pool.Any)
		if later.got() != conn {
			t.Error("the connection is not kept while another dial is in progress")
		}
		w.dials[1].succeed()
		if fresh.got() == conn {
			t.Error("a connection from before serves who wants a fresh one")
		}
		if w.Kept(w.moment()) != fresh.conn {
			t.Error("the older connection is kept")
		}
		w.ask(conn) // those who use it go on
		w.open(2)
		for _, g := range []*getter{a, b, later} {
			g.conn.Release()
		}
		w.open(1)
		fresh.conn.Release()
		fresh.conn.Release()
	})
	bubble(t, time.Minute, func(t *testing.T, w *world) { // the newer one is first
		a := w.get(pool.Any)
		w.until(share)
		b := w.get(pool.Fresh)
		c := w.get(pool.Fresh)
		w.until(2 * share)
		w.dialled(2).succeed()
		if a.got() != b.got() || c.got() != b.got() {
			t.Error("a newer dial's connection does not serve all")
		}
		if w.dials[0].ctx.Err() == nil {
			t.Error("the older dial goes on, and nobody waits")
		}
		for range 3 {
			b.conn.Release()
		}
	})
}

// A newer connection stays when an older dial ends after its own.
func TestNewerConnectionIsKept(t *testing.T) {
	t.Parallel()
	bubble(t, time.Minute, func(t *testing.T, w *world) {
		a := w.get(pool.Any)
		w.until(share)
		b := w.get(pool.Fresh)
		w.until(2 * share)
		third := w.get(pool.Fresh) // so the older dials go on
		w.dialled(3)
		w.dials[1].succeed()
		kept := b.got()
		a.got().Release()
		w.dials[0].succeed()
		w.open(1)
		if w.Kept(w.moment()) != kept {
			t.Error("the older connection has replaced the newer one")
		}
		third.leave(nil)
		kept.Release()
		kept.Release()
	})
}

// An exclusive connection serves its caller alone, and ends with its RPC. Without a maximum age every connection is exclusive.
func TestExclusive(t *testing.T) {
	t.Parallel()
	exclusive := func(w *world, need pool.Need) {
		a, b := w.get(need), w.get(need)
		w.dialled(2)
		w.dials[0].succeed()
		w.dials[1].succeed()
		if a.got() == b.got() {
			t.Error("two callers have the same connection")
		}
		if a.progress.Load() == nil || a.progress.Load() == b.progress.Load() {
			t.Error("two callers have the same progress, or none")
		}
		if w.Kept(w.moment()) != nil {
			t.Error("an exclusive connection is kept")
		}
		w.ask(a.conn)
		w.Discard(a.conn)
		w.open(2)
		a.conn.Release()
		w.open(1)
		b.conn.Release()
		w.open(0)
		c := w.get(need)
		w.dialled(3).fail(errRefused)
		c.failed(errRefused)
		gone := errors.New("gone")
		d := w.get(need)
		d.leave(gone)
		synctest.Wait()
		d.failed(gone)
	}
	bubble(t, time.Minute, func(t *testing.T, w *world) { exclusive(w, pool.Exclusive) })
	bubble(t, 0, func(t *testing.T, w *world) { exclusive(w, pool.Any) })
	bubble(t, 0, func(t *testing.T, w *world) { exclusive(w, pool.Fresh) })
}

// A connection serves until it is as old as the maximum age, by either clock.
func TestMaxAge(t *testing.T) {
	t.Parallel()
	for name, jump := range map[string]func(*world) *atomic.Int64{
		"wall":      func(w *world) *atomic.Int64 { return &w.wall },
		"monotonic": func(w *world) *atomic.Int64 { return &w.mono },
	} {
		bubble(t, 10*time.Second, func(t *testing.T, w *world) {
			a := w.get(pool.Any)
			w.dialled(1).succeed()
			a.got().Release()
			w.until(time.Second)
			jump(w).Add(int64(9 * time.Second))
			w.get(pool.Any).got().Release()
			w.until(time.Second + 1)
			b := w.get(pool.Any)
			w.dialled(2).succeed()
			if b.got() == a.conn {
				t.Errorf("%s: an old connection serves", name)
			}
			w.open(1)
			b.conn.Release()
		})
	}
}

// A lost connection serves nobody any more.
func TestLost(t *testing.T) {
	t.Parallel()
	bubble(t, time.Minute, func(t *testing.T, w *world) {
		a := w.get(pool.Any)
		w.dialled(1).succeed()
		a.got().Release()
		w.way.Reset()
		synctest.Wait()
		if w.Kept(w.moment()) != nil {
			t.Error("a lost connection is kept")
		}
		b := w.get(pool.Any)
		w.dialled(2).succeed()
		w.ask(b.got())
		b.conn.Release()
	})
}

// A discarded connection serves nobody any more, but those who use it; it is closed with the last RPC, and discarding it
// again changes nothing.
func TestDiscard(t *testing.T) {
	t.Parallel()
	bubble(t, time.Minute, func(t *testing.T, w *world) {
		a, b := w.get(pool.Any), w.get(pool.Any)
		w.dialled(1).succeed()
		w.Discard(a.got())
		w.Discard(b.got())
		c := w.get(pool.Any)
		w.dialled(2).succeed()
		w.Discard(a.conn)
		if w.Kept(w.moment()) != c.got() {
			t.Error("discarding a connection of before has discarded the kept one")
		}
		c.conn.Release()
		c.conn.Release()
		w.ask(a.conn)
		a.conn.Release()
		w.ask(b.conn)
		w.open(2)
		b.conn.Release()
		w.open(1)
	})
}

// Close leaves the RPCs there are, and no connection after them, those of dials in progress included.
func TestClose(t *testing.T) {
	t.Parallel()
	bubble(t, time.Minute, func(t *testing.T, w *world) {
		a := w.get(pool.Any)
		w.dialled(1).succeed()
		w.until(share)
		b := w.get(pool.Fresh)
		w.Close()
		w.ask(a.got())
		a.conn.Release()
		w.open(0)
		w.dialled(2).succeed()
		w.ask(b.got())
		w.open(1)
		b.conn.Release()
		w.open(0)
		c := w.get(pool.Any)
		w.dialled(3).succeed()
		w.ask(c.got())
		c.conn.Release()
		w.open(0)
	})
}

// A caller who leaves gets its context's cause; a dial lasts as long as anybody waits for a connection, and no longer.
func TestLeaving(t *testing.T) {
	t.Parallel()
	gone := errors.New("gone")
	bubble(t, time.Minute, func(t *testing.T, w *world) {
		a, b := w.get(pool.Any), w.get(pool.Any)
		a.leave(gone)
		synctest.Wait()
		a.failed(gone)
		first := w.dialled(1)
		if first.ctx.Err() != nil {
			t.Fatal("the dial has ended, and somebody waits for it")
		}
		w.until(share)
		c := w.get(pool.Any)
		b.leave(gone)
		synctest.Wait()
		if first.ctx.Err() != nil {
			t.Error("the dial has ended, and could serve who waits for another one")
		}
		c.leave(gone)
		synctest.Wait()
		if first.ctx.Err() == nil || w.dialled(2).ctx.Err() == nil {
			t.Error("a dial goes on, and nobody waits")
		}
		d := w.get(pool.Any)
		w.dialled(3).succeed()
		d.got().Release()
	})
}

// No more than so many dials are in progress. Those whose callers have left make room for others: for one who comes then, and for one who
// has waited for room already.
func TestAbandonedDialsMakeRoom(t *testing.T) {
	t.Parallel()
	gone := errors.New("gone")
	bubble(t, time.Minute, func(t *testing.T, w *world) {
		var stuck []*getter
		for n := range most {
			w.until(time.Duration(n) * share)
			stuck = append(stuck, w.get(pool.Any))
			w.dialled(n + 1)
		}
		w.until(most * share)
		waiting := w.get(pool.Any)
		w.until(20 * share)
		w.dialled(most)
		stuck[3].leave(gone)
		synctest.Wait()
		stuck[3].failed(gone)
		mine := w.dialled(most + 1)
		if w.dials[3].ctx.Err() == nil {
			t.Error("the dial of who has left goes on")
		}
		stuck[5].leave(gone)
		w.until(21 * share)
		next := w.get(pool.Any)
		latest := w.dialled(most + 2)
		if w.dials[5].ctx.Err() == nil {
			t.Error("the dial of who has left goes on")
		}
		mine.fail(errRefused)
		waiting.failed(errRefused)
		latest.succeed()
		next.got()
		for _, g := range stuck {
			if g != stuck[3] && g != stuck[5] {
				g.got().Release()
			}
		}
		next.conn.Release()
	})
}

// One who waits for room dials as soon as a dial has failed.
func TestFailedDialMakesRoom(t *testing.T) {
	t.Parallel()
	bubble(t, time.Minute, func(t *testing.T, w *world) {
		var stuck []*getter
		for n := range most {
			w.until(time.Duration(n) * share)
			stuck = append(stuck, w.get(pool.Any))
		}
		w.until(most * share)
		waiting := w.get(pool.Any)
		w.dialled(most)
		w.dials[0].fail(errRefused)
		stuck[0].failed(errRefused)
		w.dialled(most + 1).succeed()
		waiting.got().Release()
		for _, g := range stuck[1:] {
			g.got().Release()
		}
	})
}

// Redial dials beside dials that are stuck, with some distance to the latest: who waits behind these has a connection long before
// they time out.
func TestRedial(t *testing.T) {
	t.Parallel()
	const spacing = connectTimeout / most
	bubble(t, time.Minute, func(t *testing.T, w *world) {
		w.Redial(t.Context(), clock.Never)
		synctest.Wait()
		if len(w.dials) > 0 {
			t.Error("a dial that nobody waits for")
		}
		stuck := w.get(pool.Any)
		w.until(spacing / 2)
		for range 3 {
			w.Redial(t.Context(), clock.Never) // too early: it happens when it may
		}
		w.until(spacing - 1)
		w.dialled(1)
		w.until(spacing)
		w.dialled(2)
		w.until(2*spacing - 1)
		w.dialled(2).fail(errRefused) // nobody's
		stuck.waits()
		w.until(2 * spacing)
		w.Redial(t.Context(), clock.Never)
		synctest.Wait()
		w.dialled(3)
		w.until(5*spacing/2 + 1)
		w.Redial(t.Context(), clock.Never)
		w.until(3*spacing - 1)
		other := w.get(pool.Any) // whose own dial is as good
		w.dialled(4)
		w.until(4 * spacing)
		w.dialled(4).succeed()
		stuck.got()
		if other.got() != stuck.conn {
			t.Error("different connections")
		}
		for i, d := range w.dials {
			if d.ctx.Err() == nil {
				t.Errorf("dial %d goes on", i)
			}
		}
		stuck.conn.Release()
		stuck.conn.Release()
		w.open(1)
	})
	bubble(t, time.Minute, func(t *testing.T, w *world) { // the dials end before it may: so there is nothing to do
		stuck := w.get(pool.Any)
		w.until(spacing / 2)
		w.Redial(t.Context(), clock.Never)
		w.dialled(1).succeed()
		stuck.got().Release()
		w.until(2 * spacing)
		w.dialled(1)
	})
	bubble(t, time.Minute, func(t *testing.T, w *world) { // one who redials can leave
		stuck := w.get(pool.Any)
		w.until(spacing)
		ctx, cancel := context.WithCancel(t.Context())
		w.Redial(ctx, clock.Never)
		synctest.Wait()
		cancel()
		synctest.Wait()
		w.dialled(2).succeed()
		stuck.got().Release()
	})
	bubble(t, time.Minute, func(t *testing.T, w *world) { // it too is within the limit
		stuck := w.get(pool.Any)
		for n := 2; n <= 3*most; n++ {
			w.until(time.Duration(n) * spacing)
			w.Redial(t.Context(), clock.Never)
			synctest.Wait()
			w.dialled(n)
			inProgress := 0
			for _, d := range w.dials {
				if d.ctx.Err() == nil {
					inProgress++
				}
			}
			if inProgress > most {
				t.Fatalf("%d dials in progress", inProgress)
			}
		}
		if w.dials[0].ctx.Err() != nil {
			t.Error("the dial for which somebody waits has ended")
		}
		stuck.leave(nil)
	})
}

// A dial that fails just after another one has succeeded is no failure for who waits: the connection serves.
func TestSuccessBesideFailure(t *testing.T) {
	t.Parallel()
	for range 100 {
		bubble(t, time.Minute, func(t *testing.T, w *world) {
			a := w.get(pool.Any)
			w.until(share)
			b := w.get(pool.Any)
			w.dialled(2).beforeFailing = func() { // and who waits has not noticed yet, if the test is lucky
				for conn := w.Kept(w.moment()); ; conn = w.Kept(w.moment()) {
					if conn != nil {
						conn.Release()
						return
					}
					runtime.Gosched()
				}
			}
			w.dials[1].ends <- errRefused
			w.dials[0].succeed()
			if b.got() != a.got() {
				t.Error("different connections")
			}
			a.conn.Release()
			b.conn.Release()
		})
	}
}

// Callers come and go in any order, with every kind of outcome: in the end no connection is left.
func TestNothingIsLeft(t *testing.T) {
	t.Parallel()
	for seed := range uint64(40) {
		bubble(t, 40*ms, func(t *testing.T, w *world) {
			random := rand.New(rand.NewPCG(seed, 0))
			var callers sync.WaitGroup
			for range 60 {
				time.Sleep(time.Duration(random.Int64N(int64(10 * ms))))
				leaves, uses := time.Duration(random.Int64N(int64(200*ms))), time.Duration(random.Int64N(int64(50*ms)))
				need, discards := pool.Need(random.IntN(3)), random.IntN(3) == 0
				ctx, cancel := context.WithTimeout(t.Context(), leaves)
				since := w.moment()
				callers.Go(func() {
					defer cancel()
					conn, d := w.Get(ctx, need, since, clock.Never, new(atomic.Pointer[dial.Progress]))
					if (conn == nil) != (d.Err != nil) {
						t.Errorf("seed %d: connection %v with error %v", seed, conn != nil, d.Err)
					}
					if conn == nil {
						return
					}
					if need == pool.Fresh && conn.Began.Before(since) {
						t.Errorf("seed %d: a connection from %v for who came at %v", seed, conn.Began, since)
					}
					time.Sleep(uses)
					if discards {
						w.Discard(conn)
					}
					conn.Release()
				})
				w.mu.Lock()
				for _, d := range w.dials {
					if random.IntN(10) == 0 {
						var err error
						if random.IntN(2) == 0 {
							err = errRefused
						}
						select {
						case d.ends <- err:
						default:
						}
					}
				}
				w.mu.Unlock()
				if random.IntN(10) == 0 {
					w.Redial(ctx, clock.Never)
				}
				if random.IntN(20) == 0 {
					w.way.Reset()
				}
			}
			callers.Wait()
			synctest.Wait()
			for i, d := range w.dials {
				if d.ctx.Err() == nil {
					t.Errorf("seed %d: dial %d goes on", seed, i)
				}
			}
			if n := w.up.OpenConnections(); n > 1 {
				t.Errorf("seed %d: %d connections are open, want one at most", seed, n)
			}
		})
	}
}

// Many callers at once over real sockets, for the race detector.
func TestManyCallers(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	at, err := target.Parse(up.Target())
	if err != nil {
		t.Fatal(err)
	}
	running := clock.NewRunning(clock.System())
	dialer := dial.New(dial.Options{Target: at, ConnectTimeout: time.Second}, running)
	p := pool.New(pool.Options{Dial: dialer.Dial, Clock: running, MaxAge: 20 * ms, ConnectTimeout: connectTimeout})
	var callers sync.WaitGroup
	for i := range 32 {
		random := rand.New(rand.NewPCG(uint64(i), 0))
		callers.Go(func() {
			for range 40 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				if random.IntN(4) == 0 {
					time.AfterFunc(time.Duration(random.Int64N(int64(2*ms))), cancel)
				}
				conn, d := p.Get(ctx, pool.Need(random.IntN(2)), running.Now().Moment, clock.Never, new(atomic.Pointer[dial.Progress]))
				switch {
				case conn != nil:
					if a := conn.Do(ctx, grpcconn.Request{}, nil, new(grpcconn.Progress)); a.Outcome != grpcconn.Answered && ctx.Err() == nil {
						t.Errorf("an RPC: %v", a)
					}
					if random.IntN(10) == 0 {
						p.Discard(conn)
					}
					conn.Release()
				case ctx.Err() == nil:
					t.Errorf("no connection: %v", d.Err)
				}
				p.Redial(ctx, clock.Never)
				cancel()
			}
		})
	}
	callers.Wait()
	p.Close()
	for end := time.Now().Add(10 * time.Second); up.OpenConnections() > 0; time.Sleep(ms) {
		if time.Now().After(end) {
			t.Fatalf("%d connections are left", up.OpenConnections())
		}
	}
}

// endless is a context that has ended once over is set, and whose end wakes nobody.
type endless struct {
	context.Context
	over atomic.Bool
}

func (c *endless) Err() error {
	if c.over.Load() {
		return context.Canceled
	}
	return nil
}

// A caller whose context ends at the moment at which its connection comes gives it back, and nothing stands still after that: whether
// the connection is kept, given up after use, or closed already.
func TestContextEndsWithTheDial(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		every  time.Duration
		closed bool
		open   int
	}{{"kept", 0, false, 1}, {"given up", time.Minute, false, 0}, {"of a closed pool", time.Minute, true, 0}} {
		bubble(t, time.Minute, func(t *testing.T, w *world) {
			ctx := &endless{Context: context.Background()}
			p := pool.New(pool.Options{Clock: w.clock, MaxAge: time.Minute, ConnectTimeout: connectTimeout, AskedEvery: tt.every,
				Dial: func(dialCtx context.Context, progress *dial.Progress) (*grpcconn.Conn, health.Dial) {
					defer ctx.over.Store(true)
					return w.dialer.Dial(context.WithoutCancel(dialCtx), progress)
				}})
			if tt.closed {
				p.Close()
			}
			c, d := p.Get(ctx, pool.Any, w.moment(), clock.Never, new(atomic.Pointer[dial.Progress]))
			if c != nil || !errors.Is(d.Err, context.Canceled) {
				t.Errorf("%s: connection %v, dial %v", tt.name, c != nil, d)
			}
			synctest.Wait()
			w.open(tt.open)
			p.Close()
		})
	}
}
