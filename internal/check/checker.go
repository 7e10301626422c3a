package check

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"example.com/grpc-health-http/internal/clock"
)

// Checker checks one upstream. It is safe for concurrent use, and does nothing between checks.
type Checker struct {
	o          Options
	clock      *runtimeClock
	configured *link // for the configured services
	others     *link // for the rest, which so cannot use up the streams of the configured ones

	beat time.Duration // between two looks at the flights that nobody controls

	mu      sync.Mutex
	lanes   map[question]*lane
	madeUp  int         // RPCs under way for names that callers made up
	looks   *time.Timer // nil before the first check
	looking bool        // the timer runs
	direct  bool        // a flight has begun since the last look that nobody controls
}

// New returns a Checker. It makes no connection yet.
func New(o Options) *Checker { return newChecker(o, clock.System()) }

func newChecker(o Options, read func() moment) *Checker {
	if o.ConnectTimeout <= 0 {
		o.ConnectTimeout = time.Second
	}
	if o.RPCTimeout <= 0 {
		o.RPCTimeout = time.Second
	}
	if o.MaxConcurrent <= 0 {
		o.MaxConcurrent = 100
	}
	if len(o.Services) == 0 {
		o.Services = []string{""}
	}
	c := &Checker{o: o, clock: &runtimeClock{read: read}, lanes: make(map[question]*lane), beat: min(slice, o.RPCTimeout/4)}
	d := &dialer{o: &c.o, clock: c.clock}
	c.configured = newLink(d, c.clock, o.MaxAge)
	c.others = newLink(d, c.clock, o.MaxAge)
	for _, name := range c.o.Services {
		q := question{service: name}
		c.lanes[q] = &lane{question: q, link: c.configured, kept: true}
	}
	return c
}

// Close gives the connections up; those that checks are using are closed when these end.
func (c *Checker) Close() {
	c.configured.close()
	c.others.close()
}

// Check asks how the service is; the empty name is the whole server. It answers within ConnectTimeout +
// RPCTimeout, and earlier where the context has a deadline. It is a Func.
func (c *Checker) Check(ctx context.Context, service string) Verdict {
	return c.ask(ctx, question{service: service}).verdict
}

// List asks for all the services that the server knows, sorted by name. Where that fails, the one
// verdict it returns has no name.
func (c *Checker) List(ctx context.Context) []Verdict {
	r := c.ask(ctx, question{list: true})
	if r.list != nil {
		return r.list
	}
	return []Verdict{r.verdict}
}

// ask waits for the result of a flight that starts after the caller has arrived.
func (c *Checker) ask(ctx context.Context, q question) result {
	arrived := c.clock.begin()
	defer c.clock.end()
	f, co, shared, alone := c.board(ctx, q, arrived)
	if shared && c.o.Trace.Shared != nil {
		c.o.Trace.Shared()
	}
	if alone {
		// The flight runs here: a goroutine of its own would have to be woken, and to wake this one. It ends early
		// where the caller leaves.
		stay := context.AfterFunc(ctx, func() { c.leave(ctx, f, co, arrived) })
		if next := f.run(); next != nil {
			go fly(next)
		}
		<-co.done
		stay()
		return co.result
	}
	select {
	case <-co.done:
		return co.result
	case <-ctx.Done():
		return c.leave(ctx, f, co, arrived)
	}
}

// board puts a caller on the question's next flight; shared says that others are on it already, and alone that it
// has begun with this caller only, who is to run it.
func (c *Checker) board(ctx context.Context, q question, arrived reading) (f *flight, co *cohort, shared, alone bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.lanes[q]
	if l == nil {
		l = &lane{question: q, link: c.others, madeUp: !q.list}
		c.lanes[q] = l
	}
	if l.next == nil {
		ctx, cancel := context.WithCancel(context.WithoutCancel(ctx)) // of whom it serves, the caller may leave first
		l.next = &flight{checker: c, lane: l, ctx: ctx, cancel: cancel, events: make(chan *event, 4)}
	}
	f = l.next
	budget := c.o.ConnectTimeout + c.o.RPCTimeout
	if n := len(f.cohorts); n > 0 {
		co, shared = f.cohorts[n-1], true
	}
	if co == nil || arrived.running-co.first.running > min(shareFor, budget/16) {
		co = &cohort{first: arrived, deadline: arrived.running + budget, done: make(chan struct{})}
		f.cohorts = append(f.cohorts, co)
	}
	if co.last.Before(arrived.moment) {
		co.last = arrived
	}
	co.waiting++
	begun := c.start(l, arrived)
	alone = begun == f && len(f.cohorts) == 1 && co.waiting == 1
	if begun != nil && !alone {
		go fly(begun)
	}
	return f, co, shared, alone
}

// leave takes a caller whose context has ended off its flight, and ends a flight that nobody waits for.
func (c *Checker) leave(ctx context.Context, f *flight, co *cohort, arrived reading) result {
	s := c.standing(f, co) // before leaving, which may end the flight
	c.mu.Lock()
	select {
	case <-co.done:
		c.mu.Unlock()
		return co.result
	default:
	}
	co.waiting--
	last := co.waiting == 0
	if last {
		// Somebody else may be about to answer it: then its time was up at this very moment.
		last = slices.Contains(f.cohorts, co)
		f.cohorts = slices.DeleteFunc(f.cohorts, func(o *cohort) bool { return o == co })
		c.abandon(f)
	}
	c.mu.Unlock()
	r := c.unanswered(ctx, f, s, arrived)
	if last {
		co.finish(r)
	}
	return r
}

// unanswered is what a caller gets whose context has ended while the flight stood like that.
func (c *Checker) unanswered(ctx context.Context, f *flight, s standing, arrived reading) result {
	r := result{verdict: s.verdict}
	if !errors.Is(ctx.Err(), context.DeadlineExceeded) { // nobody is there to read it, but a command's exit code may come of it
		r.verdict.Service, r.verdict.Err = f.lane.question.service, context.Cause(ctx)
		return r
	}
	if errors.Is(r.verdict.Err, errTime) {
		r.verdict.Err = fmt.Errorf("no answer before the request's own deadline, %v after it arrived", rounded(c.clock.tick().Since(arrived.moment)))
	}
	c.report(ctx, f.lane.question, &r, arrived, s.proof)
	return r
}

// standing is how the flight stands; for one that has not started, the verdict is of those who wait,
// and the proof of the flight before it.
func (c *Checker) standing(f *flight, co *cohort) standing {
	c.mu.Lock()
	asked := f
	if f.lane.next == f && len(f.lane.flights) > 0 {
		asked = f.lane.flights[len(f.lane.flights)-1]
	}
	asked.takeOver()
	c.mu.Unlock()
	shown := make(chan standing, 1)
	s := standing{verdict: unmet()}
	select {
	case asked.events <- &event{show: shown}:
	case <-asked.ctx.Done():
		return s
	case <-co.done:
		return s
	}
	select {
	case shown := <-shown:
		s.proof = shown.proof
		if asked == f {
			s.verdict = shown.verdict
		}
	case <-asked.ctx.Done():
	case <-co.done:
	}
	return s
}

// kick runs the lane's next flight if it may start. What is under way kicks again when it ends. The mutex is held,
// here and in what follows.
func (c *Checker) kick(l *lane) {
	if f := c.start(l, c.clock.tick()); f != nil {
		go fly(f)
	}
}

// start takes the lane's next flight, which is to be run, if it may start, and otherwise sees to it that it will.
func (c *Checker) start(l *lane, now reading) *flight {
	if l.next == nil {
		// The timer of a lane that was given up can bring it here once more, when the name has a new one.
		if len(l.flights) == 0 && !l.kept && c.lanes[l.question] == l {
			delete(c.lanes, l.question)
		}
		return nil
	}
	if len(l.flights) >= maxFlights {
		return nil
	}
	if wait := c.wait(l, now); wait > 0 {
		l.ring(c, now, wait)
		return nil
	}
	f := l.next
	l.next = nil
	f.began = c.clock.tick() // now may be the arrival of one of those on it, and others arrived later
	if l.madeUp {
		if c.madeUp >= c.o.MaxConcurrent {
			f.settled = true
			go c.refuse(f, f.cohorts)
			f.cohorts = nil // refuse has them now
			return c.start(l, now)
		}
		c.madeUp++
	}
	l.flights = append(l.flights, f)
	return f
}

// ring kicks the lane after wait. A timer that rings earlier kicks it then, and is set again where that was too early:
// to set it for every caller who comes would cost more.
func (l *lane) ring(c *Checker, now reading, wait time.Duration) {
	due := now.running + wait
	switch {
	case l.timer == nil:
		l.timer = time.AfterFunc(wait, func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			l.rings = never
			c.kick(l)
		})
	case l.rings <= due:
		return
	default:
		l.timer.Reset(wait)
	}
	l.rings = due
}

// never is later than any time that a process runs.
const never = time.Duration(math.MaxInt64)

// lookSoon has the checker look at its flights a beat from now, or earlier. It is one timer for all of them: one for each,
// earlier than all others of the process, would wake the thread that waits for the network.
func (c *Checker) lookSoon() {
	c.direct = true
	switch {
	case c.looking:
		return
	case c.looks == nil:
		c.looks = time.AfterFunc(c.beat, c.look)
	default:
		c.looks.Reset(c.beat)
	}
	c.looking = true
}

// look has those flights controlled whose direct RPC is still under way.
func (c *Checker) look() {
	c.clock.tick()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.looking = false
	if !c.direct {
		return
	}
	for _, l := range c.lanes {
		for _, f := range l.flights {
			if f.direct {
				f.takeOver()
			}
		}
	}
	c.lookSoon()
	c.direct = false
}

// wait is how long the lane's next flight must wait beside those under way.
func (c *Checker) wait(l *lane, now reading) time.Duration {
	n := len(l.flights)
	if n == 0 {
		return 0
	}
	wait := shareFor - (now.running - l.flights[n-1].began.running)
	if n >= promptFlights {
		latest := l.next.cohorts[0].deadline - c.o.RPCTimeout - shareFor
		wait = max(wait, latest-now.running)
	}
	return wait
}

// refuse answers a flight that the limit for made-up names keeps from starting.
func (c *Checker) refuse(f *flight, cohorts []*cohort) {
	r := result{verdict: Verdict{Status: Overloaded, Err: errors.New("too many checks of names that are not configured are under way")}}
	c.report(f.ctx, f.lane.question, &r, f.began, Proof{})
	for _, co := range cohorts {
		co.finish(r)
	}
	f.cancel()
}

// land takes a started flight off its lane.
func (c *Checker) land(f *flight) {
	l := f.lane
	i := slices.Index(l.flights, f)
	if i < 0 {
		return
	}
	l.flights = slices.Delete(l.flights, i, i+1)
	f.cancel()
	if l.madeUp {
		c.madeUp--
	}
	if f.extra {
		c.returnExtra(f)
	}
}

// abandon ends a flight that has no callers left.
func (c *Checker) abandon(f *flight) {
	if len(f.cohorts) > 0 || f.settled {
		return
	}
	f.settled = true
	f.cancel()
	if f.lane.next == f {
		f.lane.next = nil
	}
	c.land(f)
	c.kick(f.lane)
}

// takeExtra lets a flight make a second RPC beside its first, if none of its lane does.
func (c *Checker) takeExtra(f *flight) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.extra {
		return true
	}
	if f.settled || f.lane.extra || f.lane.madeUp && c.madeUp >= c.o.MaxConcurrent {
		return false
	}
	f.extra, f.lane.extra = true, true
	if f.lane.madeUp {
		c.madeUp++
	}
	return true
}

// giveExtra ends a flight's right to a second RPC, where it has it.
func (c *Checker) giveExtra(f *flight) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.extra {
		c.returnExtra(f)
	}
}

func (c *Checker) returnExtra(f *flight) {
	f.extra, f.lane.extra = false, false
	if f.lane.madeUp {
		c.madeUp--
	}
}

// deadline is the running time at which the first caller of the flight, or of its lane's next one, must have its answer.
func (c *Checker) deadline(f *flight) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	due := never
	for _, g := range []*flight{f, f.lane.next} {
		if g != nil && len(g.cohorts) > 0 {
			due = min(due, g.cohorts[0].deadline)
		}
	}
	return due
}

// expire answers the callers of the flight, and of its lane's next one, whose time is up. It says whether
// the flight has none left, and so is over.
func (c *Checker) expire(f *flight, now reading) (over bool) {
	c.mu.Lock()
	if f.settled { // another flight's answer served this one's callers
		c.mu.Unlock()
		return true
	}
	late := f.takeLate(now)
	var waiting []*cohort
	if next := f.lane.next; next != nil {
		waiting = next.takeLate(now)
		c.abandon(next)
	}
	over = len(f.cohorts) == 0
	c.mu.Unlock()
	if len(late) > 0 {
		r := result{verdict: f.standing()}
		c.report(f.ctx, f.lane.question, &r, late[0].first, f.proofSoFar(now))
		for _, co := range late {
			co.finish(r)
		}
	}
	if len(waiting) > 0 {
		r := result{verdict: unmet()}
		c.report(f.ctx, f.lane.question, &r, waiting[0].first, f.proofSoFar(now))
		for _, co := range waiting {
			co.finish(r)
		}
	}
	if over {
		c.mu.Lock()
		c.abandon(f)
		c.mu.Unlock()
	}
	return over
}

// takeLate removes and returns the cohorts whose time is up.
func (f *flight) takeLate(now reading) []*cohort {
	n := 0
	for n < len(f.cohorts) && f.cohorts[n].deadline <= now.running {
		n++
	}
	late := f.cohorts[:n:n]
	f.cohorts = f.cohorts[n:]
	return late
}

// report completes a result and tells the Trace, before any caller gets it.
func (c *Checker) report(ctx context.Context, q question, r *result, began reading, proof Proof) {
	took := c.clock.tick().Since(began.moment)
	at := time.Now()
	complete := func(v *Verdict) {
		v.Duration, v.At = took, at
		if c.o.Trace.Verdict != nil {
			v.Since, v.EvidenceID = c.o.Trace.Verdict(ctx, *v, proof)
		}
	}
	for i := range r.list {
		complete(&r.list[i])
	}
	if r.list == nil {
		r.verdict.Service, r.verdict.List = q.service, q.list
		complete(&r.verdict)
	}
}
