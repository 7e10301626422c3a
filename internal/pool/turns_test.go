package pool_test

import (
	"context"
	"errors"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"example.com/grpc-health-http/internal/clock"
	"example.com/grpc-health-http/internal/dial"
	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/internal/pool"
	"example.com/grpc-health-http/internal/turns"
)

var errLeft = errors.New("the caller has left")

// limited runs a test of a pool whose process makes one dial at once. Callers' turns must have come 100 ms before they need their
// answer.
func limited(t *testing.T, maxAge time.Duration, test func(t *testing.T, w *world, gate *turns.Gate)) {
	t.Helper()
	gate := turns.NewGate(1)
	bubble(t, maxAge, func(t *testing.T, w *world) {
		w.Pool = pool.New(pool.Options{
			Dial: w.dial, Clock: w.clock, MaxAge: maxAge, ConnectTimeout: connectTimeout, Turns: gate.Target(), Reserve: 100 * ms,
		})
		test(t, w, gate)
		synctest.Wait()
		if used, waiting := gate.Used(); used+waiting > 0 {
			t.Errorf("%d turns are left, and %d wait", used, waiting)
		}
	})
}

// getBy calls Get for someone who needs an answer by a time.
func (w *world) getBy(need pool.Need, due time.Duration) *getter {
	ctx, leave := context.WithCancelCause(w.t.Context())
	g := &getter{w: w, leave: leave, done: make(chan struct{})}
	since := w.moment()
	go func() {
		defer leave(nil)
		g.conn, g.dial = w.Get(ctx, need, since, due, &g.progress)
		close(g.done)
	}()
	synctest.Wait()
	return g
}

// noTurn checks that the caller was told so, at the time that it is.
func (g *getter) noTurn() {
	g.w.t.Helper()
	g.dial.Phase = health.PhaseConnect // which says nothing here
	g.failed(pool.ErrNoTurn)
}

// A dial that waits for its turn is one for all who come until then, and as young as if the first of them had not waited.
func TestTurn(t *testing.T) {
	t.Parallel()
	limited(t, time.Second, func(t *testing.T, w *world, gate *turns.Gate) {
		taken := gate.Target().Want(0, false)
		a := w.getBy(pool.Any, 10*time.Second)
		w.until(500 * ms)
		b := w.getBy(pool.Fresh, 10*time.Second)
		if a.progress.Load() != nil || b.progress.Load() != nil || !w.WaitedForTurn(w.moment()) {
			t.Error("a dial that waits has begun")
		}
		w.Redial(t.Context(), clock.Never) // no dial is stuck
		w.until(600 * ms)
		if used, waiting := gate.Used(); used != 1 || waiting != 1 {
			t.Errorf("%d turns are used and %d waited for, want one each", used, waiting)
		}
		taken.Return()
		synctest.Wait()
		if a.progress.Load() == nil || a.progress.Load() != b.progress.Load() {
			t.Error("callers of a dial that has begun have no progress, or different ones")
		}
		w.until(700 * ms)
		w.dialled(1).succeed()
		conn := a.got()
		if b.got() != conn || conn.Began.Mono != int64(600*ms) {
			t.Errorf("the callers of one dial have different connections, or one that began at %v", conn.Began)
		}
		conn.Release()
		conn.Release()
		if w.until(1500 * ms); w.Kept(w.moment()) == nil {
			t.Fatal("the connection is too old, after a second since its dial has begun")
		}
		conn.Release()
		if !w.WaitedForTurn(clock.Moment{Mono: int64(600 * ms)}) || w.WaitedForTurn(clock.Moment{Mono: int64(601 * ms)}) {
			t.Error("a dial has waited until another time")
		}
	})
}

// Each caller waits for as long as its own time lasts.
func TestNoTurnInTime(t *testing.T) {
	t.Parallel()
	for _, need := range []pool.Need{pool.Any, pool.Fresh, pool.Exclusive} {
		limited(t, time.Minute, func(t *testing.T, w *world, gate *turns.Gate) {
			taken := gate.Target().Want(0, false)
			a := w.getBy(need, 1100*ms)
			w.until(500 * ms)
			b, c := w.getBy(need, 1600*ms), w.getBy(need, 550*ms)
			c.noTurn() // for it, it was too late from the start
			w.until(999 * ms)
			a.waits()
			w.until(1000 * ms)
			a.noTurn()
			b.waits()
			w.until(1100 * ms)
			taken.Return()
			synctest.Wait()
			w.dialled(1).succeed()
			b.got().Release()
		})
	}
}

// A dial that has its turn is not ended by what the turn had to come by.
func TestTurnJustInTime(t *testing.T) {
	t.Parallel()
	for _, need := range []pool.Need{pool.Any, pool.Fresh, pool.Exclusive} {
		limited(t, time.Minute, func(t *testing.T, w *world, gate *turns.Gate) {
			taken := gate.Target().Want(0, false)
			a := w.getBy(need, 1100*ms)
			w.until(999 * ms)
			taken.Return()
			w.until(2 * time.Second)
			a.waits()
			w.dialled(1).succeed()
			a.got().Release()
		})
	}
}

// Who leaves wants no turn any more, and a dial keeps its turn until it has ended.
func TestLeavingWithoutATurn(t *testing.T) {
	t.Parallel()
	for _, need := range []pool.Need{pool.Any, pool.Fresh, pool.Exclusive} {
		limited(t, time.Minute, func(t *testing.T, w *world, gate *turns.Gate) {
			taken := gate.Target().Want(0, false)
			a := w.getBy(need, time.Hour)
			a.leave(errLeft)
			synctest.Wait()
			a.failed(errLeft)
			if _, waiting := gate.Used(); waiting > 0 {
				t.Errorf("%d turns are wanted, although nobody waits", waiting)
			}
			taken.Return()
			synctest.Wait()
			b := w.getBy(need, time.Hour)
			w.dialled(1)
			b.leave(errLeft)
			synctest.Wait()
			b.failed(errLeft)
			if used, _ := gate.Used(); used > 0 {
				t.Error("a dial that has ended has its turn still")
			}
		})
	}
}

// The one who needs an answer first moves the dial forward that it joins.
func TestJoiningMovesForward(t *testing.T) {
	t.Parallel()
	limited(t, time.Minute, func(t *testing.T, w *world, gate *turns.Gate) {
		taken := gate.Target().Want(0, false)
		a := w.getBy(pool.Any, 10*time.Second)
		other := gate.Target().Want(8*time.Second, false)
		b := w.getBy(pool.Any, 5*time.Second)
		taken.Return()
		synctest.Wait()
		w.dialled(1).succeed()
		a.got().Release()
		b.got().Release()
		synctest.Wait()
		select {
		case <-other.Came():
		default:
			t.Error("the other dial has no turn, although the first has ended")
		}
		other.Return()
	})
}

// A dial that nobody waits for any more makes room for one that waits for its turn.
func TestTurnOfALeftDial(t *testing.T) {
	t.Parallel()
	limited(t, time.Minute, func(t *testing.T, w *world, gate *turns.Gate) {
		a, b := w.getBy(pool.Any, time.Hour), w.getBy(pool.Any, time.Hour)
		w.until(30 * ms)
		c := w.getBy(pool.Any, time.Hour)
		w.dialled(1)
		a.leave(errLeft)
		synctest.Wait()
		w.until(60 * ms)
		w.dialled(1) // b waits for it
		b.leave(errLeft)
		synctest.Wait()
		c.waits()
		w.until(90 * ms)
		d := w.getBy(pool.Any, time.Hour)
		w.dialled(2).succeed()
		c.got().Release()
		d.got().Release()
	})
}

// Redials take turns as well.
func TestRedialTakesATurn(t *testing.T) {
	t.Parallel()
	limited(t, time.Minute, func(t *testing.T, w *world, gate *turns.Gate) {
		a := w.getBy(pool.Any, time.Hour)
		w.until(connectTimeout / 2)
		w.Redial(t.Context(), time.Hour)
		w.dialled(1)
		if used, waiting := gate.Used(); used != 1 || waiting != 1 {
			t.Errorf("%d turns are used and %d waited for, want one each", used, waiting)
		}
		b := w.getBy(pool.Fresh, time.Hour) // joins the one that waits
		w.dialled(1).fail(errRefused)
		a.failed(errRefused)
		w.dialled(2).succeed()
		b.got().Release()
	})
}

// An idle connection is closed at its age, and a Reaper looks at many pools with one timer.
func TestReaper(t *testing.T) {
	t.Parallel()
	bubble(t, 0, func(t *testing.T, w *world) {
		reaper := pool.NewReaper(0)
		var pools []*pool.Pool
		for _, maxAge := range []time.Duration{time.Hour, time.Second, 1100 * ms, 5 * time.Second, 5 * time.Second} {
			pools = append(pools, pool.New(pool.Options{Dial: w.dialer.Dial, Clock: w.clock, MaxAge: maxAge, ConnectTimeout: connectTimeout, Reaper: reaper}))
		}
		connect := func(p *pool.Pool) *pool.Conn {
			c, d := p.Get(t.Context(), pool.Any, w.moment(), clock.Never, new(atomic.Pointer[dial.Progress]))
			if c == nil {
				t.Fatal(d.Err)
			}
			return c
		}
		for _, p := range pools {
			connect(p).Release()
		}
		w.until(1000 * ms)
		w.open(5)
		w.until(1999 * ms)
		w.open(3)
		busy := connect(pools[3]) // an RPC on it is in progress
		old := pools[4].Kept(w.moment())
		pools[4].Discard(old)
		connect(pools[4]).Release()
		w.open(4)
		old.Release()
		w.open(3)
		w.until(6 * time.Second)
		w.open(3)
		busy.Release()
		w.open(2)
		w.until(6999 * ms)
		w.open(2)
		w.until(7500 * ms) // the younger connection of the fourth is as old now
		w.open(1)
		pools[0].Close()
		pools[0].Close()
		w.open(0)
		connect(pools[3]).Release()
		w.wall.Store(int64(time.Minute)) // of a machine that was frozen
		w.until(12500 * ms)
		w.open(1)
		w.until(13 * time.Second)
		w.open(0)
	})
}

// Of too many connections the oldest are closed, once they are not in use. A pool that has lost its own so makes a new one.
func TestTooManyConnections(t *testing.T) {
	t.Parallel()
	bubble(t, 0, func(t *testing.T, w *world) {
		reaper := pool.NewReaper(3)
		var pools []*pool.Pool
		connect := func(p *pool.Pool) *pool.Conn {
			c, d := p.Get(t.Context(), pool.Any, w.moment(), clock.Never, new(atomic.Pointer[dial.Progress]))
			if c == nil {
				t.Fatal(d.Err)
			}
			return c
		}
		kept := func(want ...bool) {
			t.Helper()
			synctest.Wait()
			for i, p := range pools {
				c := p.Kept(w.moment())
				if (c != nil) != want[i] {
					t.Errorf("pool %d keeps a connection: %v", i, c != nil)
				}
				if c != nil {
					c.Release()
				}
			}
		}
		var busy *pool.Conn
		for i := range 4 {
			pools = append(pools, pool.New(pool.Options{Dial: w.dialer.Dial, Clock: w.clock, MaxAge: time.Hour, ConnectTimeout: connectTimeout, Reaper: reaper}))
			if c := connect(pools[i]); i == 0 {
				busy = c
			} else {
				c.Release()
			}
			w.until(time.Duration(i+1) * time.Second)
		}
		kept(false, true, true, true)
		w.open(4)
		busy.Release()
		w.open(3)
		connect(pools[0]).Release()
		kept(true, false, true, true)
		pools[2].Close()
		w.until(5 * time.Second)
		connect(pools[1]).Release()
		kept(true, true, false, true)
		w.open(3)
		for _, p := range pools {
			p.Close()
		}
	})
}

// A connection that has replaced an older one, which the Reaper was to close, is closed at its own age.
func TestReaperOfAYoungerConnection(t *testing.T) {
	t.Parallel()
	bubble(t, 0, func(t *testing.T, w *world) {
		w.Pool = pool.New(pool.Options{Dial: w.dialer.Dial, Clock: w.clock, MaxAge: 1100 * ms, ConnectTimeout: connectTimeout, Reaper: pool.NewReaper(0)})
		w.get(pool.Any).got().Release()
		w.until(1200 * ms)
		w.open(1)
		w.get(pool.Any).got().Release()
		w.until(2200 * ms)
		w.open(1)
		w.until(3 * time.Second)
		w.open(0)
	})
}

// A Reaper does not keep a pool that is closed.
func TestReaperForgets(t *testing.T) {
	t.Parallel()
	bubble(t, 0, func(t *testing.T, w *world) {
		reaper := pool.NewReaper(0)
		closed := func() weak.Pointer[pool.Pool] {
			p := pool.New(pool.Options{Dial: w.dialer.Dial, Clock: w.clock, MaxAge: time.Hour, ConnectTimeout: connectTimeout, Reaper: reaper})
			c, d := p.Get(t.Context(), pool.Any, w.moment(), clock.Never, new(atomic.Pointer[dial.Progress]))
			if c == nil {
				t.Fatal(d.Err)
			}
			c.Release()
			p.Close()
			return weak.Make(p)
		}()
		w.open(0)
		runtime.GC()
		if closed.Value() != nil {
			t.Error("a pool is still known that was closed")
		}
		runtime.KeepAlive(reaper)
	})
}

// Where connections are wanted no more often than they may serve, one is closed once it has; unless others want connections, too.
func TestBriefConnections(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name          string
		every, maxAge time.Duration
		gaps          []time.Duration // between who wants a connection
		open          []int           // after each
	}{
		{"not known", 0, 10 * time.Second, []time.Duration{0, time.Second, time.Minute}, []int{1, 1, 1}},
		{"more often", 9 * time.Second, 10 * time.Second, []time.Duration{0, 9 * time.Second}, []int{1, 1}},
		{"as often", 10 * time.Second, 10 * time.Second, []time.Duration{0, 10 * time.Second, 10 * time.Second}, []int{0, 0, 0}},
		{"less often", time.Minute, 10 * time.Second, []time.Duration{0, time.Minute, time.Minute}, []int{0, 0, 0}},
		{"others come, too", 10 * time.Second, 10 * time.Second, []time.Duration{0, time.Second, time.Second, 9500 * ms, time.Second, 11 * time.Second}, []int{0, 1, 1, 0, 1, 0}},
	} {
		bubble(t, 0, func(t *testing.T, w *world) {
			w.Pool = pool.New(pool.Options{
				Dial: w.dialer.Dial, Clock: w.clock, MaxAge: tt.maxAge, ConnectTimeout: connectTimeout, AskedEvery: tt.every, Reaper: pool.NewReaper(0),
			})
			for i, gap := range tt.gaps {
				time.Sleep(gap)
				a, b := w.get(pool.Any), w.get(pool.Any)
				if a.got() != b.got() {
					t.Errorf("%s: callers of one time have different connections", tt.name)
				}
				a.conn.Release()
				b.conn.Release()
				synctest.Wait()
				if n := w.up.OpenConnections(); n != tt.open[i] {
					t.Errorf("%s: %d connections are open after number %d, want %d", tt.name, n, i, tt.open[i])
				}
			}
		})
	}
}
