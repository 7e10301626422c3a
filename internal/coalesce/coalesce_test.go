package coalesce_test

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"example.com/grpc-health-http/internal/clock"
	"example.com/grpc-health-http/internal/coalesce"
)

const (
	ms = time.Millisecond

	budget  = 2 * time.Second
	window  = 25 * ms
	prompt  = 3
	most    = 6
	reserve = time.Second + window
)

type (
	options = coalesce.Options[string, *result, *call]
)

// result is what a caller gets.
type result struct {
	call *call // that it came from; of one that was not answered, the one that Unanswered got
	// asOf is when it was found out: zero where the call did not say.
	asOf time.Duration
	// completed counts the calls of Finish or Unanswered for it.
	completed int

	unanswered, started bool
	arrived, began      time.Duration // as Unanswered and Finish were told
	err                 error         // of the context that Unanswered got
	value               any           // of the context that Finish or Unanswered got
}

// call is the work of a test. Its Run returns when the test ends it, or its context ends.
type call struct {
	number int // from 1
	key    string
	ctx    context.Context
	began  time.Duration
	due    time.Duration
	ends   chan clock.Reading
}

func (c *call) Run() (*result, clock.Reading) {
	select {
	case asOf := <-c.ends:
		return &result{call: c, asOf: time.Duration(asOf.Mono)}, asOf
	case <-c.ctx.Done():
		return &result{call: c}, clock.Reading{}
	}
}

// end has the call's Run return. asOf is when its result was found out; 0 does not say.
func (c *call) end(asOf time.Duration) {
	var r clock.Reading
	r.Mono = int64(asOf)
	c.ends <- r
}

// group is a Group of a test in a bubble, whose time begins at 0.
type group struct {
	*coalesce.Group[string, *result, *call]
	t     *testing.T
	start time.Time
	jump  atomic.Int64 // nanoseconds for which the process was stopped

	mu      sync.Mutex // guards what follows
	calls   []*call
	reads   int
	results []*result // that were completed
	shared  int
	queued  []time.Duration
	dues    []time.Duration // as Queued was told
}

type valueKey struct{}

var errLeft = errors.New("all have left")

func newGroup(t *testing.T, change ...func(*options)) *group {
	g := &group{t: t, start: time.Now()}
	o := options{
		Go:    func(f func()) { go f() },
		Clock: clock.NewRunning(g.read),
		Left:  errLeft, Budget: budget, Window: window, Prompt: prompt, Max: most, Reserve: reserve,
		Start: func(ctx context.Context, key string, now clock.Reading, due time.Duration) *call {
			g.mu.Lock()
			defer g.mu.Unlock()
			c := &call{number: len(g.calls) + 1, key: key, ctx: ctx, began: time.Duration(now.Mono), due: due, ends: make(chan clock.Reading)}
			g.calls = append(g.calls, c)
			return c
		},
		Finish: func(ctx context.Context, key string, began clock.Reading, r *result) *result {
			r.completed++
			r.began, r.value = time.Duration(began.Mono), ctx.Value(valueKey{})
			g.completed(r)
			return r
		},
		Unanswered: func(ctx context.Context, key string, arrived clock.Reading, work *call, started bool) *result {
			r := &result{
				call: work, completed: 1, unanswered: true, started: started,
				arrived: time.Duration(arrived.Mono), err: context.Cause(ctx), value: ctx.Value(valueKey{}),
			}
			g.completed(r)
			return r
		},
		Shared: func() { g.mu.Lock(); defer g.mu.Unlock(); g.shared++ },
		Queued: func(_ context.Context, _ string, due time.Duration) {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.queued, g.dues = append(g.queued, g.now()), append(g.dues, due)
		},
	}
	for _, f := range change {
		f(&o)
	}
	g.Group = coalesce.New(o)
	return g
}

func (g *group) completed(r *result) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.results = append(g.results, r)
}

func (g *group) now() time.Duration { return time.Since(g.start) }

func (g *group) read() clock.Moment {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.reads++; g.reads > 1e6 {
		panic("the clock is read over and over")
	}
	at := int64(g.now()) + g.jump.Load()
	return clock.Moment{Mono: at, Wall: at}
}

// until waits for a time, and until everything that is due by then has happened.
func (g *group) until(at time.Duration) {
	g.t.Helper()
	if now := g.now(); now > at {
		g.t.Fatalf("it is %v already, and not %v", now, at)
	}
	time.Sleep(at - g.now())
	synctest.Wait()
}

// begun is the calls that have begun.
func (g *group) begun() []*call {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.calls)
}

// wantBegun checks how many calls have begun, and returns the latest.
func (g *group) wantBegun(n int) *call {
	g.t.Helper()
	calls := g.begun()
	if len(calls) != n {
		g.t.Fatalf("at %v %d calls have begun, want %d", g.now(), len(calls), n)
	}
	return calls[n-1]
}

// caller is a caller of Do.
type caller struct {
	t       *testing.T
	arrived time.Duration
	leave   context.CancelCauseFunc
	done    chan struct{} // closed when Do has returned
	at      time.Duration // when Do has returned
	result  *result
}

// call calls Do in a goroutine, and waits until that has to wait.
func (g *group) call(ctx context.Context, key string) *caller {
	ctx, leave := context.WithCancelCause(ctx)
	c := &caller{t: g.t, arrived: g.now(), leave: leave, done: make(chan struct{})}
	go func() {
		defer leave(nil)
		c.result = g.Do(ctx, key)
		c.at = g.now()
		close(c.done)
	}()
	synctest.Wait()
	return c
}

// answered is the result of a caller, who must have one by now.
func (c *caller) answered() *result {
	c.t.Helper()
	select {
	case <-c.done:
	default:
		c.t.Fatal("a caller has no result yet")
	}
	if c.result.completed != 1 {
		c.t.Errorf("a result was completed %d times", c.result.completed)
	}
	return c.result
}

// from checks that a caller has the result of a call.
func (c *caller) from(want *call) {
	c.t.Helper()
	if r := c.answered(); r.call != want || r.unanswered {
		c.t.Errorf("a caller who arrived at %v has a result of call %+v, unanswered %v; want one of call %+v", c.arrived, r.call, r.unanswered, want)
	}
}

func (c *caller) waits() {
	c.t.Helper()
	select {
	case <-c.done:
		c.t.Fatalf("a caller who arrived at %v has a result already: %+v", c.arrived, *c.result)
	default:
	}
}

// bubble runs a test with a Group in a bubble of its own time.
func bubble(t *testing.T, test func(t *testing.T, g *group), change ...func(*options)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, newGroup(t, change...)) })
}

// A caller gets no result of a call that began before it arrived.
func TestCallBeginsAfterTheArrival(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, g *group) {
		a := g.call(t.Context(), "k")
		first := g.wantBegun(1)
		g.until(1 * ms)
		b := g.call(t.Context(), "k")
		g.until(10 * ms)
		g.wantBegun(1)
		first.end(0)
		synctest.Wait()
		a.from(first)
		b.waits()
		second := g.wantBegun(2) // at once
		second.end(0)
		synctest.Wait()
		b.from(second)
		if first.ctx.Err() == nil || second.ctx.Err() == nil {
			t.Error("the context of a call that has ended has not")
		}
		if r := b.answered(); r.began != 10*ms || b.at != 10*ms {
			t.Errorf("the call began at %v, and was answered at %v; want both at 10 ms", r.began, b.at)
		}
		if g.shared != 0 || !slices.Equal(g.queued, []time.Duration{1 * ms}) {
			t.Errorf("%d callers shared, and %v queued; want none, and one at 1 ms", g.shared, g.queued)
		}
	})
}

// Keys have nothing to do with one another.
func TestKeys(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, g *group) {
		a, b := g.call(t.Context(), "a"), g.call(t.Context(), "b")
		calls := g.begun()
		if len(calls) != 2 || calls[0].key != "a" || calls[1].key != "b" {
			t.Fatalf("begun: %+v", calls)
		}
		calls[1].end(5 * ms)
		synctest.Wait()
		a.waits()
		b.from(calls[1])
		calls[0].end(0)
		synctest.Wait()
		a.from(calls[0])
	})
}

// The next call begins beside a running one exactly when that is as old as the window; Prompt run side by side this way, and
// further ones begin only at the last moment for those who wait.
func TestWindowPromptAndLateStart(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, g *group) {
		var callers []*caller
		arrive := func() { callers = append(callers, g.call(t.Context(), "k")) }
		arrive()
		g.wantBegun(1)
		for n := 2; n <= prompt; n++ {
			g.until(time.Duration(n-2)*window + 1*ms)
			arrive()
			g.until(time.Duration(n-1)*window - 1)
			g.wantBegun(n - 1)
			g.until(time.Duration(n-1) * window)
			g.wantBegun(n)
		}
		for n := prompt + 1; n <= most; n++ {
			g.until(time.Duration(n) * 100 * ms)
			arrive()
		}
		// All of these wait for one call, whose start the first of them determines.
		start := (prompt+1)*100*ms + budget - reserve
		g.until(start - 1)
		g.wantBegun(prompt)
		g.until(start)
		late := g.wantBegun(prompt + 1)
		late.end(0)
		synctest.Wait()
		for _, c := range callers[prompt:] {
			c.from(late)
		}
		for i, c := range callers[:prompt] {
			c.waits()
			g.calls[i].end(0)
			synctest.Wait()
			c.from(g.calls[i])
		}
	})
}

// No more than Max calls run. A caller whose time is up before its call began is shown the latest that runs.
func TestMax(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, g *group) {
		for n := range most {
			g.until(time.Duration(n) * window)
			g.call(t.Context(), "k")
			g.wantBegun(n + 1)
		}
		brief, cancel := context.WithTimeout(t.Context(), 100*ms)
		defer cancel()
		leaving, waiting := g.call(brief, "k"), g.call(t.Context(), "k")
		g.until(most*window + 100*ms)
		latest := g.wantBegun(most)
		if r := leaving.answered(); !r.unanswered || r.started || r.call != latest {
			t.Errorf("a caller whose time was up got %+v, want the latest call, which is not its own", *r)
		}
		waiting.waits()
		g.calls[1].end(0)
		synctest.Wait()
		g.wantBegun(most + 1).end(0)
		synctest.Wait()
		waiting.from(g.calls[most])
	}, func(o *options) { o.Reserve = o.Budget }) // so no start is late
}

// A caller is answered to the nanosecond when its time is up, and those who arrived up to a window after it with it.
func TestDeadline(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, g *group) {
		first := g.call(t.Context(), "k")
		g.until(1 * ms)
		second := g.call(t.Context(), "k")
		g.until(window - 1*ms)
		sharing := g.call(t.Context(), "k")
		g.until(window)
		calls := g.begun()
		g.until(budget - 1)
		first.waits()
		g.until(budget)
		if r := first.answered(); !r.unanswered || !r.started || r.call != calls[0] || r.arrived != 0 || r.err != nil {
			t.Errorf("the first caller got %+v", *r)
		}
		if calls[0].ctx.Err() == nil {
			t.Error("the call that nobody waits for goes on")
		} else if errors.Is(context.Cause(g.calls[0].ctx), errLeft) {
			t.Error("its callers got an answer, and it is told that they have left")
		}
		second.waits()
		g.until(budget + 1*ms)
		if r := second.answered(); !r.unanswered || r.arrived != 1*ms || second.at != budget+1*ms {
			t.Errorf("the second caller got %+v at %v", *r, second.at)
		}
		if sharing.answered() != second.answered() {
			t.Error("who arrived within the window has a result of its own")
		}
		if calls[1].ctx.Err() == nil {
			t.Error("the second call goes on")
		}
	})
}

// A call serves callers with different deadlines: each is answered at its own.
func TestDeadlinesOfOneCall(t *testing.T) {
	t.Parallel()
	const short = 160 * ms // who arrives within a 16th of it shares the deadline
	bubble(t, func(t *testing.T, g *group) {
		g.call(t.Context(), "k")
		var callers []*caller
		for _, at := range []time.Duration{1, 11, 12, 23} {
			g.until(at * ms)
			callers = append(callers, g.call(t.Context(), "k"))
		}
		g.until(short + 24*ms)
		for i, at := range []time.Duration{1, 1, 12, 23} {
			if callers[i].answered(); callers[i].at != at*ms+short {
				t.Errorf("caller %d was answered at %v, want %v", i, callers[i].at, at*ms+short)
			}
		}
		if last := g.wantBegun(2); last.ctx.Err() == nil {
			t.Error("the call goes on")
		}
	}, func(o *options) { o.Budget, o.Reserve = short, short })
}

// Where a call has more time than a caller, the caller is answered from a call that began in time for it.
func TestOwnDeadline(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, g *group) {
		ctx, cancel := context.WithTimeout(t.Context(), 50*ms)
		defer cancel()
		brief := g.call(ctx, "k")
		g.until(50*ms - 1)
		brief.waits()
		g.until(50 * ms)
		if r := brief.answered(); !r.unanswered || !errors.Is(r.err, context.DeadlineExceeded) || !r.started || r.call != g.calls[0] {
			t.Errorf("got %+v", *r)
		}
		if g.calls[0].ctx.Err() == nil {
			t.Error("the call goes on")
		}
	})
}

// A caller who leaves takes nothing from the others; with the last one the call's context ends, and the next call begins at once.
func TestLeaving(t *testing.T) {
	t.Parallel()
	gone := errors.New("gone")
	bubble(t, func(t *testing.T, g *group) {
		g.call(t.Context(), "k")
		first := g.call(context.WithValue(t.Context(), valueKey{}, "first"), "k")
		second := g.call(context.WithValue(t.Context(), valueKey{}, "second"), "k")
		g.until(window)
		c := g.wantBegun(2)
		first.leave(gone)
		synctest.Wait()
		if r := first.answered(); !errors.Is(r.err, gone) || r.value != "first" || !r.unanswered || !r.started {
			t.Errorf("who left got %+v", *r)
		}
		if c.ctx.Err() != nil {
			t.Fatal("the call ended, and one caller is still there")
		}
		g.until(2 * window)
		third := g.call(t.Context(), "k")
		g.until(2*window + 1*ms)
		second.leave(gone)
		synctest.Wait()
		second.answered()
		if !errors.Is(context.Cause(c.ctx), errLeft) {
			t.Errorf("nobody is there, and the call's context has the cause %v", context.Cause(c.ctx))
		}
		g.wantBegun(3).end(0)
		synctest.Wait()
		third.from(g.calls[2])
		g.calls[0].end(0)
	})
}

// A call has the values of the first caller's context also where that has left.
func TestValuesOfTheFirstCaller(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, g *group) {
		first := g.call(context.WithValue(t.Context(), valueKey{}, "first"), "k")
		running := g.call(context.WithValue(t.Context(), valueKey{}, "a"), "k")
		staying := g.call(context.WithValue(t.Context(), valueKey{}, "b"), "k")
		g.until(window)
		running.leave(nil)
		g.calls[1].end(0)
		synctest.Wait()
		if r := staying.answered(); r.value != "a" {
			t.Errorf("Finish had the values of %v", r.value)
		}
		g.until(budget)
		if r := first.answered(); r.value != "first" {
			t.Errorf("Unanswered had the values of %v", r.value)
		}
	})
}

// Callers of a call that has not begun leave before it does: it never does.
func TestLeavingBeforeTheStart(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, g *group) {
		first := g.call(t.Context(), "k")
		g.until(1 * ms)
		second := g.call(t.Context(), "k")
		g.until(2 * ms)
		second.leave(nil)
		synctest.Wait()
		if r := second.answered(); r.started || r.call != g.calls[0] {
			t.Errorf("got %+v, want the running call, which is not its own", *r)
		}
		g.until(2 * window)
		g.wantBegun(1)
		g.calls[0].end(0)
		synctest.Wait()
		first.from(g.calls[0])
		g.call(t.Context(), "k")
		g.wantBegun(2)
	})
}

// What a call found out later than a caller arrived serves that caller, whichever call it waits for.
func TestResultServesWhoArrivedBefore(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, g *group) {
		a := g.call(t.Context(), "k")
		g.until(5 * ms)
		b := g.call(t.Context(), "k") // on the second call, from 25 ms on
		g.until(30 * ms)
		c := g.call(t.Context(), "k") // waits for the third
		g.until(40 * ms)
		d := g.call(t.Context(), "k") // too, and shares the deadline with c
		g.wantBegun(2)
		g.until(45 * ms)
		g.calls[0].end(35 * ms) // after c, before d
		synctest.Wait()
		a.from(g.calls[0])
		b.from(g.calls[0])
		if g.calls[1].ctx.Err() == nil {
			t.Error("the second call goes on, and its callers have a result")
		}
		c.waits() // who shares a deadline shares the result
		d.waits()
		g.wantBegun(3).end(45 * ms)
		synctest.Wait()
		c.from(g.calls[2])
		d.from(g.calls[2])
	})
	bubble(t, func(t *testing.T, g *group) {
		g.call(t.Context(), "k")
		g.until(5 * ms)
		b := g.call(t.Context(), "k")
		g.until(10 * ms)
		g.calls[0].end(6 * ms)
		synctest.Wait()
		b.from(g.calls[0])
		g.wantBegun(1)
		g.until(time.Second)
		c := g.call(t.Context(), "k")
		g.wantBegun(2).end(0)
		synctest.Wait()
		c.from(g.calls[1])
	})
	bubble(t, func(t *testing.T, g *group) { // found out before it began
		g.call(t.Context(), "k")
		g.until(5 * ms)
		b := g.call(t.Context(), "k")
		g.until(window)
		g.wantBegun(2)
		g.until(30 * ms)
		g.calls[0].end(window - 1)
		synctest.Wait()
		b.waits()
		g.calls[1].end(0)
		synctest.Wait()
		b.from(g.calls[1])
	})
}

// The callers of a call that were served by another one's result get it once, and nothing is finished for nobody.
func TestCallWhoseCallersWereServed(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, g *group) {
		g.call(t.Context(), "k")
		g.until(1 * ms)
		g.call(t.Context(), "k")
		g.until(window)
		g.wantBegun(2)
		g.calls[0].end(window)
		synctest.Wait() // and the second call's Run returned, since its context has ended
		if len(g.results) != 1 {
			t.Errorf("%d results were completed, want 1", len(g.results))
		}
	})
}

// A stop of the process counts in nobody's budget, and neither does that of a machine, whose monotonic clock stops too.
func TestStoppedProcess(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, g *group) {
		a := g.call(t.Context(), "k")
		g.until(1 * ms)
		b := g.call(t.Context(), "k")
		for n := range 5 {
			g.until(window + time.Duration(n)*273*ms)
			g.jump.Add(int64(time.Hour))
		}
		g.until(budget - 5*clock.Slice) // each stop can count as a slice
		a.waits()
		b.waits()
		g.until(budget + 2*clock.Slice)
		if a.answered().call != g.calls[0] || b.answered().call != g.calls[1] {
			t.Errorf("answered %+v and %+v", *a.result, *b.result)
		}
	})
}

// While Finish or Unanswered completes a result, a caller who leaves waits for it: nothing is completed that nobody gets, and no caller's
// verdict is reported twice.
func TestLeavingWhileTheResultIsCompleted(t *testing.T) {
	t.Parallel()
	slowly := func(o *options) {
		finish, unanswered := o.Finish, o.Unanswered
		o.Finish = func(ctx context.Context, key string, began clock.Reading, r *result) *result {
			time.Sleep(10 * ms)
			return finish(ctx, key, began, r)
		}
		o.Unanswered = func(ctx context.Context, key string, arrived clock.Reading, work *call, started bool) *result {
			time.Sleep(10 * ms)
			return unanswered(ctx, key, arrived, work, started)
		}
	}
	t.Run("Finish", func(t *testing.T) {
		t.Parallel()
		bubble(t, func(t *testing.T, g *group) {
			a := g.call(t.Context(), "k")
			g.until(1 * ms)
			g.calls[0].end(0)
			g.until(5 * ms)
			a.leave(nil)
			g.until(30 * ms)
			a.from(g.calls[0])
			if len(g.results) != 1 {
				t.Errorf("%d results were completed for one caller", len(g.results))
			}
		}, slowly)
	})
	t.Run("Unanswered", func(t *testing.T) {
		t.Parallel()
		bubble(t, func(t *testing.T, g *group) {
			a := g.call(t.Context(), "k")
			g.until(budget + 5*ms)
			a.leave(nil)
			g.until(budget + 30*ms)
			if a.answered(); len(g.results) != 1 {
				t.Errorf("%d results were completed for one caller", len(g.results))
			}
		}, slowly)
	})
	t.Run("the call ends meanwhile", func(t *testing.T) {
		t.Parallel()
		bubble(t, func(t *testing.T, g *group) {
			a := g.call(t.Context(), "k")
			g.until(1 * ms)
			a.leave(nil)
			g.until(5 * ms)
			g.calls[0].end(0)
			g.until(30 * ms)
			if r := a.answered(); !r.unanswered || len(g.results) != 1 {
				t.Errorf("got %+v, and %d results were completed for one caller", *r, len(g.results))
			}
		}, slowly)
	})
}

// A Finish that takes until after the caller's deadline costs no processor.
func TestFinishBeyondTheDeadline(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, g *group) {
		a := g.call(t.Context(), "k")
		g.until(budget - 10*ms)
		g.calls[0].end(0)
		g.until(2 * budget)
		a.from(g.calls[0])
		if g.reads > 1000 {
			t.Errorf("the clock was read %d times", g.reads)
		}
	}, func(o *options) {
		finish := o.Finish
		o.Finish = func(ctx context.Context, key string, began clock.Reading, r *result) *result {
			time.Sleep(budget / 2)
			return finish(ctx, key, began, r)
		}
	})
}

// A caller who is still about to leave when its line ends must not disturb the line that the key has by then: the callers of that
// still share calls.
func TestLineThatIsGone(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, g *group) {
		first := g.call(t.Context(), "k")
		g.until(1 * ms)
		leaving := g.call(t.Context(), "k")
		g.until(2 * ms)
		leaving.leave(nil) // until 12 ms
		g.until(5 * ms)
		g.calls[0].end(0)
		synctest.Wait()
		first.from(g.calls[0])
		g.until(6 * ms)
		second := g.call(t.Context(), "k") // in a new line
		g.wantBegun(2)
		g.until(12 * ms)
		leaving.answered()
		third := g.call(t.Context(), "k")
		g.wantBegun(2).end(0)
		synctest.Wait()
		second.from(g.calls[1])
		g.wantBegun(3).end(0)
		synctest.Wait()
		third.from(g.calls[2])
	}, func(o *options) {
		unanswered := o.Unanswered
		o.Unanswered = func(ctx context.Context, key string, arrived clock.Reading, work *call, started bool) *result {
			time.Sleep(10 * ms)
			return unanswered(ctx, key, arrived, work, started)
		}
	})
}

// Work that does not end with its context takes no time from those who wait for it to end.
func TestWorkThatGoesOn(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, g *group) {
		first := g.call(t.Context(), "k")
		g.until(1 * ms)
		second := g.call(t.Context(), "k")
		g.until(budget + 1*ms)
		if first.answered(); first.at != budget {
			t.Errorf("the first caller was answered at %v", first.at)
		}
		if r := second.answered(); r.started || second.at != budget+1*ms {
			t.Errorf("the second caller was answered at %v: %+v", second.at, *r)
		}
		g.calls[0].ends <- clock.Reading{}
	}, func(o *options) {
		o.Max = 1
		start := o.Start
		o.Start = func(ctx context.Context, key string, now clock.Reading, due time.Duration) *call {
			return start(context.WithoutCancel(ctx), key, now, due)
		}
	})
}

// Nothing is kept of a key that nobody asks for any more.
func TestKeyIsForgotten(t *testing.T) {
	t.Parallel()
	type key [64]byte
	o := coalesce.Options[*key, int, instant]{
		Go:    func(f func()) { go f() },
		Clock: clock.NewRunning(clock.System()), Budget: time.Minute, Window: ms, Prompt: 1, Max: 1, Reserve: ms,
		Start: func(context.Context, *key, clock.Reading, time.Duration) instant {
			return instant{}
		},
		Finish:     func(_ context.Context, _ *key, _ clock.Reading, r int) int { return r },
		Unanswered: func(context.Context, *key, clock.Reading, instant, bool) int { return 0 },
		Queued:     func(context.Context, *key, time.Duration) {},
		Shared:     func() {},
	}
	g := coalesce.New(o)
	var kept []weak.Pointer[key]
	for range 100 {
		k := &key{}
		kept = append(kept, weak.Make(k))
		var callers sync.WaitGroup
		for range 4 {
			callers.Go(func() { g.Do(t.Context(), k) })
		}
		callers.Wait()
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(ms) {
		runtime.GC()
		n := len(slices.DeleteFunc(slices.Clone(kept), func(p weak.Pointer[key]) bool { return p.Value() == nil }))
		if n <= 1 { // the last one can be in a register still
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d keys are still kept", n)
		}
	}
	runtime.KeepAlive(g)
}

// instant is work that is done at once.
type instant struct{}

func (instant) Run() (int, clock.Reading) { return 1, clock.Reading{} }

// A call is needed by the first of its callers, who may have waited for another one.
func TestDue(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, g *group) {
		a := g.call(t.Context(), "k")
		first := g.wantBegun(1)
		g.until(10 * ms)
		leaves, b := g.call(t.Context(), "k"), g.call(t.Context(), "k")
		leaves.leave(nil)
		g.until(20 * ms)
		c := g.call(t.Context(), "k")
		first.end(0)
		synctest.Wait()
		a.answered()
		second := g.wantBegun(2)
		second.end(0)
		synctest.Wait()
		b.from(second)
		c.from(second)
		if want := []time.Duration{budget, 10*ms + budget}; !slices.Equal([]time.Duration{first.due, second.due}, want) || !slices.Equal(g.dues, want[1:]) {
			t.Errorf("the calls are needed by %v and %v, and those who wait need an answer by %v; want %v", first.due, second.due, g.dues, want)
		}
	}, func(o *options) { o.Max = 1 })
}
