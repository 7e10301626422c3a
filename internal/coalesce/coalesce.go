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

// Options say how calls are shared. All but Left, Shared, Queued and Finish are required.
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

	// Left is the cause with which a call's context ends when its last caller has left, and not got a result.
	Left error

	// Go runs a call in a goroutine of its own.
	Go func(f func())
	// Start makes the work of a call that begins now, and of which the first caller's time is up at the running time due. It must not
	// block.
	Start func(ctx context.Context, key K, now clock.Reading, due time.Duration) W
	// Finish completes a result before any caller gets it. ctx has the values of the first caller's context, and
	// began is when the call did.
	Finish func(ctx context.Context, key K, began clock.Reading, result R) R
	// Unanswered is the result of callers whose time is up, or of one whose ctx has ended. work is the
	// call's; started says that it was theirs, and not one that they waited for. It is the zero W where no call runs. arrived is when
	// the first of them did.
	Unanswered func(ctx context.Context, key K, arrived clock.Reading, work W, started bool) R
	// Queued is called for a caller who waits for running calls, and until which running time; of those who arrive within a short time,
	// only of the first.
	Queued func(ctx context.Context, key K, due time.Duration)
	// Shared hears of a caller who shares a call with an earlier one.
	Shared func()
}

// Group is safe for concurrent use.
type Group[K comparable, R any, W Work[R]] struct {
	o Options[K, R, W]

	mu     sync.Mutex
	queues map[K]*queue[K, R, W] // those with callers; nil where there are none, for an empty map keeps its memory
}

// queue is the calls of one key. The Group's mutex guards it and what follows.
type queue[K comparable, R any, W Work[R]] struct {
	group   *Group[K, R, W]
	key     K
	running []*call[K, R, W] // in the order of their start
	next    *call[K, R, W]   // not started: gathers callers; nil where there are none
	timer   *clock.Timer     // for the next start, or the next deadline
}

// call serves callers who arrived before it began.
type call[K comparable, R any, W Work[R]] struct {
	queue   *queue[K, R, W]
	ctx     context.Context
	cancel  context.CancelCauseFunc
	batches []*batch[R] // in the order of their arrival
	began   clock.Reading
	work    W
	ended   bool // its callers have their result, or have left
}

// batch is callers who arrived within a short time and share a deadline and a result.
type batch[R any] struct {
	first, last clock.Reading // arrivals
	callers     int
	done        chan struct{} // closed once result is set
	result      R
}

// New returns a Group.
func New[K comparable, R any, W Work[R]](o Options[K, R, W]) *Group[K, R, W] {
	return &Group[K, R, W]{o: o}
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
		g.o.Queued(ctx, key, arrived.Running+g.o.Budget)
	}
	select {
	case <-mine.done:
		return mine.result
	case <-ctx.Done():
		return g.leave(ctx, c, mine, arrived)
	}
}

// join puts a caller on the key's next call, and starts that if it may start. shared says that there were others before, and
// queued that the caller is the first of a batch that has to wait for running calls.
func (g *Group[K, R, W]) join(ctx context.Context, key K, arrived clock.Reading) (c *call[K, R, W], mine *batch[R], shared, queued bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	q := g.queues[key]
	if q == nil {
		q = &queue[K, R, W]{group: g, key: key}
		q.timer = g.o.Clock.NewTimer(q.fire)
		if g.queues == nil {
			g.queues = make(map[K]*queue[K, R, W])
		}
		g.queues[key] = q
	}
	if q.next == nil {
		ctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx)) // the first caller may leave before others
		q.next = &call[K, R, W]{queue: q, ctx: ctx, cancel: cancel}
	}
	c = q.next
	if n := len(c.batches); n > 0 {
		mine, shared = c.batches[n-1], true
	}
	first := mine == nil || arrived.Running-mine.first.Running > min(g.o.Window, g.o.Budget/16)
	if first {
		mine = &batch[R]{first: arrived, done: make(chan struct{})}
		c.batches = append(c.batches, mine)
	}
	if mine.last.Before(arrived.Moment) {
		mine.last = arrived
	}
	mine.callers++
	if first { // for those who join a batch the timer is set already
		if started := q.startLocked(arrived); started != nil {
			g.o.Go(func() { g.run(started) })
		}
	}
	return c, mine, shared, first && q.next == c
}

// fire starts what may start and answers whom no call has answered in time.
func (q *queue[K, R, W]) fire(now clock.Reading) {
	q.group.expire(q, now)
	q.group.mu.Lock()
	started := q.startLocked(now)
	q.group.mu.Unlock()
	if started != nil {
		q.group.run(started)
	}
}

// startLocked begins the queue's next call if it may start, and otherwise sets the timer. The caller must run the call.
func (q *queue[K, R, W]) startLocked(now clock.Reading) *call[K, R, W] {
	o := &q.group.o
	var started *call[K, R, W]
	if q.next != nil && len(q.running) < o.Max && q.waitLocked(now) <= 0 {
		started, q.next = q.next, nil
		started.began = o.Clock.Now() // now may be the arrival of one of its callers, and others arrived later
		started.work = o.Start(started.ctx, q.key, started.began, started.batches[0].first.Running+o.Budget)
		q.running = append(q.running, started)
	}
	q.setTimerLocked(now)
	return started
}

// waitLocked is how long the queue's next call must wait because of those that run.
func (q *queue[K, R, W]) waitLocked(now clock.Reading) time.Duration {
	n := len(q.running)
	if n == 0 {
		return 0
	}
	o := &q.group.o
	wait := o.Window - (now.Running - q.running[n-1].began.Running)
	if n >= o.Prompt {
		latest := q.next.batches[0].first.Running + o.Budget - o.Reserve
		wait = max(wait, latest-now.Running)
	}
	return wait
}

// setTimerLocked has the queue look again when something is due. A queue without callers ends.
func (q *queue[K, R, W]) setTimerLocked(now clock.Reading) {
	due := clock.Never
	for _, c := range q.running {
		if len(c.batches) > 0 && !c.ended {
			due = c.batches[0].first.Running + q.group.o.Budget
			break // earlier calls have earlier callers
		}
	}
	if q.next != nil {
		due = min(due, q.next.batches[0].first.Running+q.group.o.Budget)
		if len(q.running) < q.group.o.Max {
			due = min(due, now.Running+q.waitLocked(now))
		}
	}
	if due < clock.Never {
		q.timer.SetBy(now, due)
	} else if len(q.running) == 0 {
		q.timer.Stop()
		if q.group.queues[q.key] == q {
			delete(q.group.queues, q.key)
			if len(q.group.queues) == 0 {
				q.group.queues = nil
			}
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
	served := !c.ended && len(c.batches) > 0 // the last caller may be leaving
	c.ended = true
	g.mu.Unlock()
	if served {
		result = g.o.Finish(c.ctx, c.queue.key, c.began, result)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	q := c.queue
	if served {
		c.answerLocked(result, len(c.batches))
		if asOf != (clock.Reading{}) {
			q.serveOthersLocked(result, asOf)
		}
	}
	c.cancel(nil)
	q.running = slices.DeleteFunc(q.running, func(o *call[K, R, W]) bool { return o == c })
	return q.startLocked(g.o.Clock.Now())
}

// serveOthersLocked gives a result to all who had arrived when it was found out.
func (q *queue[K, R, W]) serveOthersLocked(result R, asOf clock.Reading) {
	for _, c := range q.running {
		if !c.ended && !asOf.Before(c.began.Moment) {
			c.answerLocked(result, len(c.batches))
			c.endIfUnusedLocked(nil)
		}
	}
	if next := q.next; next != nil {
		n := 0
		for n < len(next.batches) && next.batches[n].last.Before(asOf.Moment) {
			n++
		}
		next.answerLocked(result, n)
		next.endIfUnusedLocked(nil)
	}
}

// answerLocked gives the call's first n batches their result.
func (c *call[K, R, W]) answerLocked(result R, n int) {
	for _, o := range c.batches[:n] {
		o.finish(result)
	}
	c.batches = c.batches[n:]
}

func (o *batch[R]) finish(result R) {
	o.result = result
	close(o.done)
}

// endIfUnusedLocked ends a call that has no callers; the cause is its context's. A running one leaves the queue when its Run returns.
func (c *call[K, R, W]) endIfUnusedLocked(cause error) {
	if len(c.batches) > 0 || c.ended {
		return
	}
	c.ended = true
	c.cancel(cause)
	if c.queue.next == c {
		c.queue.next = nil
	}
}

// leave takes a caller whose context has ended off its call.
func (g *Group[K, R, W]) leave(ctx context.Context, c *call[K, R, W], mine *batch[R], arrived clock.Reading) R {
	g.mu.Lock()
	i := slices.Index(c.batches, mine)
	if i < 0 || c.ended { // its result is there, or is being completed
		g.mu.Unlock()
		<-mine.done
		return mine.result
	}
	work, started := c.queue.workOfLocked(c)
	if mine.callers--; mine.callers == 0 {
		c.removeLocked(i, 1)
	}
	g.mu.Unlock()
	result := g.o.Unanswered(ctx, c.queue.key, arrived, work, started) // before the work ends
	g.mu.Lock()
	defer g.mu.Unlock()
	c.endIfUnusedLocked(g.o.Left)
	c.queue.setTimerLocked(g.o.Clock.Now())
	return result
}

// removeLocked takes n batches off the call. One that has not started ends with the last of them.
func (c *call[K, R, W]) removeLocked(first, n int) {
	c.batches = slices.Delete(slices.Clone(c.batches), first, first+n)
	if c.queue.next == c {
		c.endIfUnusedLocked(nil)
	}
}

// workOfLocked is the work of the call; for one that has not started, that of the latest which runs.
func (q *queue[K, R, W]) workOfLocked(c *call[K, R, W]) (work W, started bool) {
	if q.next != c {
		return c.work, true
	}
	if n := len(q.running); n > 0 {
		work = q.running[n-1].work
	}
	return work, false
}

// expire answers the callers of a queue whose time is up.
func (g *Group[K, R, W]) expire(q *queue[K, R, W], now clock.Reading) {
	type late struct {
		call    *call[K, R, W]
		batches []*batch[R]
		work    W
		started bool
	}
	var all []late
	g.mu.Lock()
	calls := slices.Clone(q.running)
	if q.next != nil {
		calls = append(calls, q.next)
	}
	for _, c := range calls {
		if c.ended {
			continue
		}
		n := 0
		for n < len(c.batches) && c.batches[n].first.Running+g.o.Budget <= now.Running {
			n++
		}
		if n > 0 {
			work, started := q.workOfLocked(c)
			all = append(all, late{c, c.batches[:n], work, started})
			c.removeLocked(0, n)
		}
	}
	g.mu.Unlock()
	for _, e := range all {
		result := g.o.Unanswered(context.WithoutCancel(e.call.ctx), q.key, e.batches[0].first, e.work, e.started)
		g.mu.Lock()
		for _, o := range e.batches {
			o.finish(result)
		}
		e.call.endIfUnusedLocked(nil)
		g.mu.Unlock()
	}
}
