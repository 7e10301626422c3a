package coalesce

import (
	"context"
	"slices"
	"sync"
	"time"

	"example.com/grpc-health-http/internal/clock"
)

// Work does what a call is for.
type Work[R any] interface {
	// Run returns the call's result, and when it was found out: the result serves everyone who arrived before. A zero reading
	// serves only those whom the call serves anyway. Run must return soon after the call's context has ended.
	Run() (result R, asOf clock.Reading)
}

// Options say how calls are shared. All but Shared, Queued and Finish are required.
type Options[K comparable, R any, W Work[R]] struct {
	Clock *clock.Running
	// Budget is the time from a caller's arrival to its result.
	Budget time.Duration
	// Window is the age of the latest call from which another one may start beside it.
	Window time.Duration
	// Prompt is how many calls of a key may run side by side, and Max how many where callers would time out otherwise.
	Prompt, Max int
	// Reserve is how long before its deadline a caller's call starts at the latest.
	Reserve time.Duration

	// Start makes the work of a call that begins now. It must not block.
	Start func(ctx context.Context, key K, now clock.Reading) W
	// Finish completes a result before any caller gets it. ctx has the values of the first caller's context, and
	// began is when the call did.
	Finish func(ctx context.Context, key K, began clock.Reading, result R) R
	// Unanswered is the result of callers whose time is up, or of one whose ctx has ended. work is the
	// call's; started says that it was theirs, and not one that they waited for. It is the zero W where no call runs. arrived is when
	// the first of them did.
	Unanswered func(ctx context.Context, key K, arrived clock.Reading, work W, started bool) R
	// Queued hears of a caller who waits for running calls.
	Queued func(ctx context.Context, key K)
	// Shared hears of a caller who shares a call with an earlier one.
	Shared func()
}

// Group is safe for concurrent use.
type Group[K comparable, R any, W Work[R]] struct {
	o Options[K, R, W]

	mu    sync.Mutex
	lines map[K]*line[K, R, W] // those with callers
}

// line is the calls of one key. The Group's mutex guards it and what follows.
type line[K comparable, R any, W Work[R]] struct {
	group   *Group[K, R, W]
	key     K
	running []*call[K, R, W] // in the order of their start
	next    *call[K, R, W]   // not started: gathers callers; nil where there are none
	alarm   *clock.Alarm     // for the next start, or the next deadline
}

// call serves callers who arrived before it began.
type call[K comparable, R any, W Work[R]] struct {
	line    *line[K, R, W]
	ctx     context.Context
	cancel  context.CancelFunc
	cohorts []*cohort[R] // in the order of their arrival
	began   clock.Reading
	work    W
	ended   bool // its callers have their result, or have left
}

// cohort is callers who arrived within a short time and share a deadline and a result.
type cohort[R any] struct {
	first, last clock.Reading // arrivals
	callers     int
	done        chan struct{} // closed once result is set
	result      R
}

// New returns a Group.
func New[K comparable, R any, W Work[R]](o Options[K, R, W]) *Group[K, R, W] {
	return &Group[K, R, W]{o: o, lines: make(map[K]*line[K, R, W])}
}

// Do returns the result of a call that begins after the caller has arrived. It does so within the Budget, and earlier where
// the context ends.
func (g *Group[K, R, W]) Do(ctx context.Context, key K) R {
	arrived := g.o.Clock.Begin()
	defer g.o.Clock.End()
	c, mine, shared, queued := g.join(ctx, key, arrived)
	if shared {
		g.o.Shared()
	}
	if queued {
		g.o.Queued(ctx, key)
	}
	select {
	case <-mine.done:
		return mine.result
	case <-ctx.Done():
		return g.leave(ctx, c, mine, arrived)
	}
}

// join puts a caller on the key's next call, and starts that if it may start. shared says that there were others before, and
// queued that the call does not start yet.
func (g *Group[K, R, W]) join(ctx context.Context, key K, arrived clock.Reading) (c *call[K, R, W], mine *cohort[R], shared, queued bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	l := g.lines[key]
	if l == nil {
		l = &line[K, R, W]{group: g, key: key}
		l.alarm = g.o.Clock.NewAlarm(l.ring)
		g.lines[key] = l
	}
	if l.next == nil {
		ctx, cancel := context.WithCancel(context.WithoutCancel(ctx)) // the first caller may leave before others
		l.next = &call[K, R, W]{line: l, ctx: ctx, cancel: cancel}
	}
	c = l.next
	if n := len(c.cohorts); n > 0 {
		mine, shared = c.cohorts[n-1], true
	}
	if mine == nil || arrived.Running-mine.first.Running > min(g.o.Window, g.o.Budget/16) {
		mine = &cohort[R]{first: arrived, done: make(chan struct{})}
		c.cohorts = append(c.cohorts, mine)
	}
	if mine.last.Before(arrived.Moment) {
		mine.last = arrived
	}
	mine.callers++
	if started := l.startLocked(arrived); started != nil {
		go g.run(started)
	}
	return c, mine, shared, l.next == c
}

// ring starts what may start and answers whom no call has answered in time.
func (l *line[K, R, W]) ring(now clock.Reading) {
	l.group.expire(l, now)
	l.group.mu.Lock()
	started := l.startLocked(now)
	l.group.mu.Unlock()
	if started != nil {
		l.group.run(started)
	}
}

// startLocked begins the line's next call if it may start, and otherwise sets the alarm. The caller must run the call.
func (l *line[K, R, W]) startLocked(now clock.Reading) *call[K, R, W] {
	o := &l.group.o
	var started *call[K, R, W]
	if l.next != nil && len(l.running) < o.Max && l.waitLocked(now) <= 0 {
		started, l.next = l.next, nil
		started.began = o.Clock.Now() // now may be the arrival of one of its callers, and others arrived later
		started.work = o.Start(started.ctx, l.key, started.began)
		l.running = append(l.running, started)
	}
	l.setAlarmLocked(now)
	return started
}

// waitLocked is how long the line's next call must wait because of those that run.
func (l *line[K, R, W]) waitLocked(now clock.Reading) time.Duration {
	n := len(l.running)
	if n == 0 {
		return 0
	}
	o := &l.group.o
	wait := o.Window - (now.Running - l.running[n-1].began.Running)
	if n >= o.Prompt {
		latest := l.next.cohorts[0].first.Running + o.Budget - o.Reserve
		wait = max(wait, latest-now.Running)
	}
	return wait
}

// setAlarmLocked has the line look again when something is due. A line without callers ends.
func (l *line[K, R, W]) setAlarmLocked(now clock.Reading) {
	due := clock.Never
	for _, c := range l.running {
		if len(c.cohorts) > 0 && !c.ended {
			due = c.cohorts[0].first.Running + l.group.o.Budget
			break // earlier calls have earlier callers
		}
	}
	if l.next != nil {
		due = min(due, l.next.cohorts[0].first.Running+l.group.o.Budget)
		if len(l.running) < l.group.o.Max {
			due = min(due, now.Running+l.waitLocked(now))
		}
	}
	if due < clock.Never {
		l.alarm.SetBy(now, due)
	} else if len(l.running) == 0 {
		l.alarm.Stop()
		if l.group.lines[l.key] == l {
			delete(l.group.lines, l.key)
		}
	}
}

// run runs a call, and those that may follow it: a goroutine for several calls has a stack that has grown already.
func (g *Group[K, R, W]) run(c *call[K, R, W]) {
	for c != nil {
		result, asOf := c.work.Run()
		c = g.finish(c, result, asOf)
	}
}

// finish gives the call's callers their result. It returns the call that may start now, which the caller must run.
func (g *Group[K, R, W]) finish(c *call[K, R, W], result R, asOf clock.Reading) (next *call[K, R, W]) {
	g.mu.Lock()
	served := !c.ended && len(c.cohorts) > 0 // the last caller may be leaving
	c.ended = true
	g.mu.Unlock()
	if served {
		result = g.o.Finish(c.ctx, c.line.key, c.began, result)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	l := c.line
	if served {
		c.answerLocked(result, len(c.cohorts))
		if asOf != (clock.Reading{}) {
			l.serveOthersLocked(result, asOf)
		}
	}
	c.cancel()
	l.running = slices.DeleteFunc(l.running, func(o *call[K, R, W]) bool { return o == c })
	return l.startLocked(g.o.Clock.Now())
}

// serveOthersLocked gives a result to all who had arrived when it was found out.
func (l *line[K, R, W]) serveOthersLocked(result R, asOf clock.Reading) {
	for _, c := range l.running {
		if !c.ended && !asOf.Before(c.began.Moment) {
			c.answerLocked(result, len(c.cohorts))
			c.endIfUnusedLocked()
		}
	}
	if next := l.next; next != nil {
		n := 0
		for n < len(next.cohorts) && next.cohorts[n].last.Before(asOf.Moment) {
			n++
		}
		next.answerLocked(result, n)
		next.endIfUnusedLocked()
	}
}

// answerLocked gives the call's first n cohorts their result.
func (c *call[K, R, W]) answerLocked(result R, n int) {
	for _, o := range c.cohorts[:n] {
		o.finish(result)
	}
	c.cohorts = c.cohorts[n:]
}

func (o *cohort[R]) finish(result R) {
	o.result = result
	close(o.done)
}

// endIfUnusedLocked ends a call that has no callers. A running one leaves the line when its Run returns.
func (c *call[K, R, W]) endIfUnusedLocked() {
	if len(c.cohorts) > 0 || c.ended {
		return
	}
	c.ended = true
	c.cancel()
	if c.line.next == c {
		c.line.next = nil
	}
}

// leave takes a caller whose context has ended off its call.
func (g *Group[K, R, W]) leave(ctx context.Context, c *call[K, R, W], mine *cohort[R], arrived clock.Reading) R {
	g.mu.Lock()
	i := slices.Index(c.cohorts, mine)
	if i < 0 || c.ended { // its result is there, or is being completed
		g.mu.Unlock()
		<-mine.done
		return mine.result
	}
	work, started := c.line.workOfLocked(c)
	if mine.callers--; mine.callers == 0 {
		c.removeLocked(i, 1)
	}
	g.mu.Unlock()
	result := g.o.Unanswered(ctx, c.line.key, arrived, work, started) // before the work ends
	g.mu.Lock()
	defer g.mu.Unlock()
	c.endIfUnusedLocked()
	c.line.setAlarmLocked(g.o.Clock.Now())
	return result
}

// removeLocked takes n cohorts off the call. One that has not started ends with the last of them.
func (c *call[K, R, W]) removeLocked(first, n int) {
	c.cohorts = slices.Delete(slices.Clone(c.cohorts), first, first+n)
	if c.line.next == c {
		c.endIfUnusedLocked()
	}
}

// workOfLocked is the work of the call; for one that has not started, that of the latest which runs.
func (l *line[K, R, W]) workOfLocked(c *call[K, R, W]) (work W, started bool) {
	if l.next != c {
		return c.work, true
	}
	if n := len(l.running); n > 0 {
		work = l.running[n-1].work
	}
	return work, false
}

// expire answers the callers of a line whose time is up.
func (g *Group[K, R, W]) expire(l *line[K, R, W], now clock.Reading) {
	type late struct {
		call    *call[K, R, W]
		cohorts []*cohort[R]
		work    W
		started bool
	}
	var all []late
	g.mu.Lock()
	calls := slices.Clone(l.running)
	if l.next != nil {
		calls = append(calls, l.next)
	}
	for _, c := range calls {
		if c.ended {
			continue
		}
		n := 0
		for n < len(c.cohorts) && c.cohorts[n].first.Running+g.o.Budget <= now.Running {
			n++
		}
		if n > 0 {
			work, started := l.workOfLocked(c)
			all = append(all, late{c, c.cohorts[:n], work, started})
			c.removeLocked(0, n)
		}
	}
	g.mu.Unlock()
	for _, e := range all {
		result := g.o.Unanswered(context.WithoutCancel(e.call.ctx), l.key, e.cohorts[0].first, e.work, e.started)
		g.mu.Lock()
		for _, o := range e.cohorts {
			o.finish(result)
		}
		e.call.endIfUnusedLocked()
		g.mu.Unlock()
	}
}
