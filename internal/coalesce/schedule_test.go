package coalesce_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.com/grpc-health-http/internal/clock"
	"example.com/grpc-health-http/internal/coalesce"
)

// schedule is a random schedule of callers and calls, and what came of it.
type schedule struct {
	t      *testing.T
	seed   uint64
	o      coalesce.Options[string, *outcome, *planned]
	start  time.Time
	random *rand.Rand // Start and the schedule use it in turn
	asOf   bool       // results say when they were found out

	mu    sync.Mutex // guards what follows
	calls []*planned
	all   []*outcome // completed
}

// planned is work that takes a planned time.
type planned struct {
	s     *schedule
	ctx   context.Context
	takes time.Duration

	// schedule.mu guards what follows.
	began, ended time.Duration // ended is 0 while it runs
	cut          bool          // its context ended first
	finished     bool          // Finish was called for it
	beside       []*planned    // that ran when it began
}

// outcome is a result of a schedule.
type outcome struct {
	call       *planned
	asOf       time.Duration
	unanswered bool
	started    bool
	delivered  atomic.Int32
}

// visit is one caller.
type visit struct {
	arrived, answered time.Duration
	leaves            time.Duration // when its context ended; 0 where it did not
	outcome           *outcome
}

func (s *schedule) now() time.Duration { return time.Since(s.start) }

func (p *planned) Run() (*outcome, clock.Reading) {
	s := p.s
	timer := time.NewTimer(p.takes)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-p.ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p.ended, p.cut = s.now(), p.ctx.Err() != nil
	o := &outcome{call: p}
	if p.cut || !s.asOf {
		return o, clock.Reading{}
	}
	o.asOf = p.began + time.Duration(float64(p.ended-p.began)*float64(p.takes%97)/97)
	return o, clock.Reading{Moment: clock.Moment{Mono: int64(o.asOf), Wall: 1}}
}

func newSchedule(t *testing.T, seed uint64) *schedule {
	s := &schedule{t: t, seed: seed, start: time.Now(), random: rand.New(rand.NewPCG(seed, 0))}
	between := func(from, to time.Duration) time.Duration {
		return from + time.Duration(s.random.Int64N(int64(to-from)))
	}
	s.asOf = s.random.IntN(2) == 0
	start := s.start
	o := &s.o
	o.Go = func(f func()) { go f() }
	o.Clock = clock.NewRunning(func() clock.Moment {
		now := time.Since(start)
		return clock.Moment{Mono: int64(now), Wall: int64(now)}
	})
	o.Budget = between(50*ms, 3*time.Second)
	o.Window = between(ms, o.Budget/2)
	o.Prompt = 1 + s.random.IntN(4)
	o.Max = o.Prompt + s.random.IntN(4)
	o.Reserve = between(ms, o.Budget)
	longest := o.Budget * time.Duration(1+s.random.IntN(3)) / 2
	o.Start = func(ctx context.Context, key string, now clock.Reading, _ time.Duration) *planned {
		s.mu.Lock()
		defer s.mu.Unlock()
		p := &planned{s: s, ctx: ctx, takes: between(1, longest), began: s.now()}
		if time.Duration(now.Mono) != p.began {
			s.failf("a call that begins now was told %v", time.Duration(now.Mono))
		}
		for _, c := range s.calls {
			if c.ended == 0 {
				p.beside = append(p.beside, c)
			}
		}
		s.calls = append(s.calls, p)
		return p
	}
	o.Finish = func(_ context.Context, _ string, began clock.Reading, r *outcome) *outcome {
		s.mu.Lock()
		defer s.mu.Unlock()
		if r.call.finished || time.Duration(began.Mono) != r.call.began {
			s.failf("Finish of a call that began at %v, by what it was told at %v; finished before: %v", r.call.began, began.Mono, r.call.finished)
		}
		r.call.finished = true
		s.all = append(s.all, r)
		return r
	}
	o.Unanswered = func(_ context.Context, _ string, _ clock.Reading, work *planned, started bool) *outcome {
		s.mu.Lock()
		defer s.mu.Unlock()
		r := &outcome{call: work, unanswered: true, started: started}
		s.all = append(s.all, r)
		return r
	}
	o.Shared, o.Queued = func() {}, func(context.Context, string, time.Duration) {}
	return s
}

func (s *schedule) failf(format string, args ...any) {
	s.t.Helper()
	s.t.Errorf("seed %d: %s", s.seed, fmt.Sprintf(format, args...))
}

// run lets callers come and go, and returns them once all have their results.
func (s *schedule) run() (visits []*visit) {
	g := coalesce.New(s.o)
	var callers sync.WaitGroup
	for range 5 + s.random.IntN(60) {
		s.mu.Lock()
		pause := time.Duration(s.random.ExpFloat64() * float64(s.o.Budget) / 20)
		leaves := time.Duration(s.random.Int64N(int64(s.o.Budget)*3/2)) + 1
		how := s.random.IntN(4)
		s.mu.Unlock()
		time.Sleep(pause)
		v := &visit{arrived: s.now()}
		visits = append(visits, v)
		ctx, cancel := context.WithCancel(s.t.Context())
		switch how {
		case 0:
			ctx, cancel = context.WithTimeout(s.t.Context(), leaves)
			v.leaves = v.arrived + leaves
		case 1:
			timer := time.AfterFunc(leaves, cancel)
			v.leaves = v.arrived + leaves
			end := cancel
			cancel = func() { timer.Stop(); end() }
		}
		callers.Go(func() {
			defer cancel()
			v.outcome = g.Do(ctx, "k")
			v.answered = s.now()
			v.outcome.delivered.Add(1)
		})
	}
	callers.Wait()
	synctest.Wait()
	return visits
}

// runningAt counts the calls that run at a time.
func (s *schedule) runningAt(at time.Duration) (n int) {
	for _, c := range s.calls {
		if c.began <= at && (c.ended == 0 || c.ended >= at) {
			n++
		}
	}
	return n
}

// check holds what came of a schedule against the promises of the package.
func (s *schedule) check(visits []*visit) {
	s.t.Helper()
	share := min(s.o.Window, s.o.Budget/16)
	byCall := make(map[*planned][]*visit) // of whom it is certain
	for i, v := range visits {
		o, deadline := v.outcome, v.arrived+s.o.Budget
		if v.leaves > 0 {
			deadline = min(deadline, v.leaves)
		}
		if v.answered > deadline {
			s.failf("caller %d of %v was answered at %v, later than %v", i, v.arrived, v.answered, deadline)
		}
		switch {
		case o.unanswered:
			if v.answered != v.leaves && v.answered < v.arrived+s.o.Budget-share {
				s.failf("caller %d of %v was given up at %v", i, v.arrived, v.answered)
			}
			if !o.started && v.answered == v.arrived+s.o.Budget && s.runningAt(v.answered) < s.o.Max {
				s.failf("the call of caller %d of %v did not begin, and %d ran", i, v.arrived, s.runningAt(v.answered))
			}
		case o.call.began < v.arrived && o.asOf < v.arrived:
			s.failf("caller %d of %v has a result of a call that began at %v, found out at %v", i, v.arrived, o.call.began, o.asOf)
		}
		if o.unanswered && o.started || !o.unanswered && !s.asOf {
			byCall[o.call] = append(byCall[o.call], v)
		}
	}
	for _, o := range s.all {
		if n := o.delivered.Load(); n == 0 {
			s.failf("a result was completed that nobody got: unanswered %v", o.unanswered)
		}
	}
	for i, c := range s.calls {
		if c.ended == 0 {
			s.failf("call %d runs, and all callers have left", i)
		}
		if !c.cut && !c.finished {
			s.failf("call %d ended by itself, and nobody was there", i)
		}
		if n := len(c.beside); n >= s.o.Max {
			s.failf("call %d began beside %d", i, n)
		} else if n > 0 && c.began-c.beside[n-1].began < s.o.Window {
			s.failf("call %d began %v after the one before it, which still ran", i, c.began-c.beside[n-1].began)
		}
		if len(byCall[c]) == 0 {
			continue
		}
		first := byCall[c][0].arrived
		for _, v := range byCall[c] {
			first = min(first, v.arrived)
			if v.answered > c.ended {
				s.failf("call %d ended at %v, and a caller was there until %v", i, c.ended, v.answered)
			}
		}
		// With asOf the first caller can have been served by another call's result.
		if n := len(c.beside); n >= s.o.Prompt && !s.asOf && c.began < first-share+s.o.Budget-s.o.Reserve {
			s.failf("call %d began beside %d at %v, and its first caller came at %v", i, n, c.began, first)
		}
		if latest := first + max(s.o.Window, s.o.Budget-s.o.Reserve); c.began > latest && s.runningAt(latest) < s.o.Max {
			s.failf("call %d began at %v, its first caller came at %v, and only %d ran", i, c.began, first, s.runningAt(latest))
		}
	}
}

// Every schedule keeps every promise.
func TestRandomSchedules(t *testing.T) {
	t.Parallel()
	var shared, late, max, cut int
	for seed := range uint64(400) {
		synctest.Test(t, func(t *testing.T) {
			s := newSchedule(t, seed)
			s.o.Shared = func() { s.mu.Lock(); defer s.mu.Unlock(); shared++ }
			s.check(s.run())
			for _, c := range s.calls {
				if len(c.beside) >= s.o.Prompt {
					late++
				}
				if len(c.beside) == s.o.Max-1 {
					max++
				}
				if c.cut {
					cut++
				}
			}
		})
	}
	t.Logf("%d callers shared, %d calls began late, %d were the last that may run, %d were cut", shared, late, max, cut)
	if shared == 0 || late == 0 || max == 0 || cut == 0 {
		t.Error("the schedules do not reach everything")
	}
}

// Many callers at once on real time, for the race detector: each gets a result of a call that began after it arrived.
func TestManyCallers(t *testing.T) {
	t.Parallel()
	read := clock.System()
	var bad, running, most atomic.Int64
	g := coalesce.New(coalesce.Options[int, int64, counted]{
		Go:    func(f func()) { go f() },
		Clock: clock.NewRunning(read), Budget: 20 * ms, Window: ms, Prompt: 2, Max: 4, Reserve: 10 * ms,
		Start: func(ctx context.Context, _ int, now clock.Reading, _ time.Duration) counted {
			return counted{ctx, now.Mono, &running, &most}
		},
		Finish:     func(_ context.Context, _ int, _ clock.Reading, r int64) int64 { return r },
		Unanswered: func(context.Context, int, clock.Reading, counted, bool) int64 { return -1 },
		Shared:     func() {},
		Queued:     func(context.Context, int, time.Duration) {},
	})
	var callers sync.WaitGroup
	for i := range 64 {
		random := rand.New(rand.NewPCG(uint64(i), 1))
		callers.Go(func() {
			for range 300 {
				ctx, cancel := context.WithCancel(t.Context())
				if random.IntN(3) == 0 {
					time.AfterFunc(time.Duration(random.Int64N(int64(2*ms))), cancel)
				}
				arrived := read().Mono
				if began := g.Do(ctx, random.IntN(3)); began >= 0 && began < arrived {
					bad.Add(1)
				}
				cancel()
			}
		})
	}
	callers.Wait()
	if n := bad.Load(); n > 0 {
		t.Errorf("%d callers got a result of a call that began before they arrived", n)
	}
	if n := most.Load(); n > 3*4 {
		t.Errorf("%d calls of 3 keys ran at once, want 4 of each at most", n)
	}
	for end := time.Now().Add(10 * time.Second); running.Load() != 0; time.Sleep(ms) {
		if time.Now().After(end) {
			t.Fatalf("%d calls still run", running.Load())
		}
	}
}

// counted is work of which the calls are counted.
type counted struct {
	ctx           context.Context
	began         int64
	running, most *atomic.Int64
}

func (c counted) Run() (int64, clock.Reading) {
	n := c.running.Add(1)
	defer c.running.Add(-1)
	for m := c.most.Load(); n > m && !c.most.CompareAndSwap(m, n); m = c.most.Load() {
	}
	select {
	case <-time.After(time.Duration(c.began%7) * ms / 2):
	case <-c.ctx.Done():
	}
	return c.began, clock.Reading{}
}
