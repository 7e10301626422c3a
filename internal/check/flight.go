package check

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
)

// maxFlights is how many flights one question may have under way. Each makes one RPC, and one of
// them at a time a second one as proof. That makes 7; the server may see 8 at once, for it learns of a
// cancelled one a little late.
const maxFlights = 6

// promptFlights is how many of them start as soon as they may. The others wait for the last moment at which
// those who wait for them can still be served in time: else a burst takes all for a server's slow
// answers, and who comes next is told of a time-out that was but a queue.
const promptFlights = 3

// question is what an RPC asks: Check of a service, or List.
type question struct {
	service string
	list    bool
}

// result is what a flight came to; list is set for a List that was answered.
type result struct {
	verdict Verdict
	list    []Verdict
}

// lane is where the flights of one question run. The Checker's mutex guards it.
type lane struct {
	question question
	link     *link
	madeUp   bool      // the name came from a caller: it counts against MaxConcurrent
	kept     bool      // the lane of a configured service: it is there when nobody asks, too
	flights  []*flight // under way, in the order of their start
	next     *flight   // not started: gathers those who wait; nil where nobody does
	extra    bool      // a flight makes its second RPC
	timer    *time.Timer
	rings    time.Duration // running time at which the timer rings, later than any where it does not
}

// cohort is callers who arrived within a short time and share a deadline and a result.
type cohort struct {
	first, last reading // arrivals
	deadline    time.Duration
	waiting     int
	done        chan struct{} // closed once result is set
	result      result
}

// flight is the work for callers who share it: one RPC, and what it takes to prove that it failed.
// Everyone it answers had arrived before it started. Its life:
//
//	gathering   board puts callers on it; it is its lane's next
//	under way   start has taken it off there; run, or control, makes its tries
//	settled     settle has its result, or expire and leave have taken its last callers (abandon)
//	landed      land has taken it off its lane, and the next one may start (kick)
//
// refuse answers one that the limit for made-up names keeps from getting under way.
type flight struct {
	checker  *Checker
	lane     *lane
	cohorts  []*cohort // guarded by the Checker's mutex, as the next five are
	settled  bool
	extra    bool    // holds the lane's second RPC
	direct   bool    // run makes the RPC itself
	attended bool    // control is at work, or somebody wants it to be
	began    reading // set before run begins, and zero until then

	ctx    context.Context
	cancel context.CancelFunc
	events chan *event

	// What follows belongs to run, and to control once that is at work.
	since   moment // a connection is fresh, and a failure counts, where the dial began no earlier
	tries   []*try // under way
	wanted  string // the reason for which a fresh connection is wanted; empty when none is
	losses  int    // what the losses of fresh connections during the RPC come to: see lossesAllowed
	alone   bool   // a fresh connection has failed that others used too: the next one is for this flight alone
	failure *Verdict
	proof   Proof
	after   *flight // starts with this one's end
}

// try is one attempt: a connection, and an RPC on it.
type try struct {
	fresh    bool   // wants a fresh connection
	alone    bool   // and for itself
	since    moment // the flight's, when the try began
	cancel   context.CancelFunc
	late     atomic.Bool                  // cancelled for its time was up
	progress progress                     // of the RPC
	stage    atomic.Pointer[dialProgress] // of the dial that the try waits for, or of what to send

	// What follows is the flight's.
	conn   *conn         // nil until there is one
	dial   Dial          // how it was made; zero where others had dialled
	asked  reading       // when the RPC began
	silent time.Duration // running time from which the connection counts as silent
	due    time.Duration // running time at which the RPC's time is up
}

// event is what a try tells its flight.
type event struct {
	try      *try
	conn     *conn   // the RPC begins on it,
	now      reading // now
	dial     Dial    // how the connection was made, or was not
	ended    bool    // the try is over:
	failed   error   // it got no connection, for this reason
	phase    Phase   // where it failed
	answer   answer  // or this is what the RPC came to,
	answered bool    // unless its deadline passed

	show chan<- standing // where not nil, the event is but a question: how does the flight stand?
}

// standing is what can be said of a flight before its end.
type standing struct {
	verdict Verdict
	proof   Proof
}

// lossesAllowed is what losses of fresh connections under a check's RPC may come to before that is the verdict.
// One loss is not proof: a server that drains while it restarts may take it along, and one that allows
// so many requests for a connection may have spent it on those of others. From the second on a connection is
// the check's alone. Where the server had not even looked at the request, as it says with GOAWAY, the loss
// says less still: several servers of one name may drain one after the other.
const (
	lossesAllowed = 4
	lossCounts    = 2
	unreadCounts  = 1
)

// fly runs a flight, and those that follow it. One goroutine for all of them has a stack that has grown already.
func fly(f *flight) {
	for f != nil {
		f = f.run()
	}
}

// run is the flight. Where a connection stands it makes the RPC itself, for most RPCs are answered at once, and
// goroutines that wait for one another cost more than such an RPC. It returns the flight that is to follow, if that is
// for the caller to run.
func (f *flight) run() (next *flight) {
	f.since = f.began.moment
	var standing *conn
	if f.checker.o.Metadata == nil {
		standing = f.lane.link.standing(f.began.moment)
	}
	if standing == nil {
		f.launch(false)
		f.attend(false)
		return f.control(f.sleep(f.began))
	}
	ctx, cancel := f.forRPC(f.ctx)
	t := f.newTry(false, cancel)
	f.beginRPC(t, standing, f.began)
	if !f.attend(f.sleep(f.began) >= f.checker.beat) {
		go func() { f.tell(f.ask(ctx, t, standing, nil)) }()
		return f.control(0)
	}
	e := f.ask(ctx, t, standing, nil)
	now := f.checker.clock.tick()
	switch {
	case !f.claim(): // control is at work, and what is to follow is its to run
		f.tell(e)
		return nil
	case f.ctx.Err() != nil: // nobody waits for it any more
		return nil
	case now.stops != f.began.stops: // the process has stood still: what that means is control's to judge
		go f.tell(e) // those who leave may have filled the channel, which control is the one to read
		return f.control(0)
	case !f.handle(e, now):
		return f.control(0)
	}
	return f.after
}

// attend begins the flight: direct says that run could make the RPC itself. It says whether that may go on
// without control, until the checker next looks.
func (f *flight) attend(direct bool) bool {
	c := f.checker
	c.mu.Lock()
	defer c.mu.Unlock()
	f.direct = direct && !f.attended
	f.attended = !f.direct
	if f.direct {
		c.lookSoon()
	}
	return f.direct
}

// claim says whether it is for the caller to be in control: a direct RPC is under way, or has just ended, and
// nobody is yet.
func (f *flight) claim() bool {
	f.checker.mu.Lock()
	defer f.checker.mu.Unlock()
	mine := f.direct && !f.attended
	f.attended = true
	return mine
}

// takeOver has the flight controlled beside its direct RPC, if nobody does. The Checker's mutex is held.
func (f *flight) takeOver() {
	if f.direct && !f.attended {
		go func() { fly(f.control(0)) }()
	}
	f.attended = true
}

// control sees to it that the flight comes to an end, and in time. It first looks at the flight after wait. Like
// run it returns the flight that is to follow.
func (f *flight) control(wait time.Duration) (next *flight) {
	c := f.checker
	now := f.began
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		var e *event
		select {
		case e = <-f.events:
		case <-timer.C:
		case <-f.ctx.Done():
			return nil
		}
		before := now
		now = c.clock.tick()
		stopped, still := now.stops != before.stops, now.Since(before.moment)
		if stopped && still > outdated {
			f.restart(now, still) // before what has come, for that may have waited since
		}
		for more := true; more; {
			switch {
			case e == nil:
			case e.show != nil:
				e.show <- standing{f.standing(), f.proofSoFar(now)}
			case f.handle(e, now):
				return f.after
			}
			select {
			case e = <-f.events: // what has happened goes before what the clock says
			default:
				more = false
			}
		}
		if stopped && still <= outdated {
			f.restart(now, still)
		}
		if f.advance(now) {
			return f.after
		}
		if c.expire(f, now) {
			return nil
		}
		timer.Reset(f.sleep(now))
	}
}

// launch starts a try that gets a connection.
func (f *flight) launch(fresh bool) {
	ctx, cancel := context.WithCancel(f.ctx)
	go f.connect(ctx, f.newTry(fresh, cancel))
}

// newTry begins a try.
func (f *flight) newTry(fresh bool, cancel context.CancelFunc) *try {
	t := &try{fresh: fresh, alone: f.alone, since: f.since, cancel: cancel}
	f.tries = append(f.tries, t)
	return t
}

// forRPC is the context of an RPC that begins now. The server gets a deadline a little behind the flight's, so
// that it is bound too and yet not the first to say that the time is up.
func (f *flight) forRPC(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithDeadline(ctx, time.Now().Add(f.checker.o.RPCTimeout+slice))
}

// beginRPC notes that a try's RPC begins.
func (f *flight) beginRPC(t *try, c *conn, now reading) {
	t.conn, t.asked = c, now
	t.silent = now.running + f.checker.o.RPCTimeout/4
	t.due = now.running + f.checker.o.RPCTimeout
}

// connect is a try's goroutine: it gets what to send and a connection, and makes the RPC.
func (f *flight) connect(ctx context.Context, t *try) {
	var md metadata.MD
	if f.checker.o.Metadata != nil {
		var err error
		t.stage.Store(newProgress(f.checker.clock.tick()))
		budget, cancel := f.checker.clock.withBudget(ctx, f.checker.o.ConnectTimeout)
		md, err = f.checker.o.Metadata(budget)
		if err != nil && errors.Is(context.Cause(budget), errBudget) && !errors.Is(err, errBudget) {
			if errors.Is(err, context.Canceled) {
				err = fmt.Errorf("what to send with the RPC did not come within %v", f.checker.o.ConnectTimeout)
			}
			err = fmt.Errorf("%w: %w", err, errBudget)
		}
		cancel()
		if err != nil {
			f.tell(&event{try: t, ended: true, failed: err, phase: PhaseCredentials})
			return
		}
	}
	var c *conn
	var d Dial
	if t.alone {
		c, d = f.lane.link.dialAlone(ctx, &t.stage)
	} else {
		c, d = f.lane.link.acquire(ctx, t.since, t.fresh, &t.stage)
	}
	if c == nil {
		f.tell(&event{try: t, ended: true, failed: d.Err, phase: d.Phase, dial: d})
		return
	}
	if !f.tell(&event{try: t, conn: c, now: f.checker.clock.tick(), dial: d}) {
		c.done()
		return
	}
	ctx, cancel := f.forRPC(ctx)
	defer cancel()
	f.tell(f.ask(ctx, t, c, md))
}

// ask makes a try's RPC, whose deadline is the context's, and returns its end.
func (f *flight) ask(ctx context.Context, t *try, c *conn, md metadata.MD) *event {
	defer c.done()
	e := &event{try: t, ended: true, answered: true, answer: c.ask(ctx, md, f.lane.question, &t.progress)}
	code := e.answer.code
	if f.checker.o.Trace.RPC != nil {
		counted := code
		if t.late.Load() {
			counted = codes.DeadlineExceeded
		}
		f.checker.o.Trace.RPC(counted.String())
	}
	if code == codes.DeadlineExceeded || code == codes.Canceled {
		// Past the deadline the flight was late to look at its clock, or the process was stopped. Whoever says that
		// the deadline has passed, grpc-go or the server: it is ours, and no answer.
		deadline, _ := ctx.Deadline()
		e.answered = time.Now().Before(deadline)
	}
	return e
}

// tell says whether the flight is still there to hear it. Who is told no must tell no more: run may take
// in one thing more before it ends, and must not take it for the one before.
func (f *flight) tell(e *event) (told bool) {
	select {
	case f.events <- e:
		return true
	case <-f.ctx.Done():
		return false
	}
}

// handle takes in what a try tells. It says whether the flight is over.
func (f *flight) handle(e *event, now reading) (over bool) {
	t := e.try
	if !slices.Contains(f.tries, t) {
		return false // given up before
	}
	if !e.ended {
		t.dial = e.dial
		f.beginRPC(t, e.conn, e.now)
		return false
	}
	f.drop(t)
	if t.conn == nil {
		a := Attempt{Dial: e.dial}
		if e.dial.Err == nil {
			a.Result = e.failed.Error() // what to send with the RPC was not to be had
		}
		f.proof.Attempts = append(f.proof.Attempts, a)
		if !t.since.Before(f.since) { // else it proves nothing: the process has stood still
			f.fail(dialVerdict(e))
		}
		return false
	}
	if !e.answered {
		f.timeUp(t, now)
		return false
	}
	f.note(t, now, e.answer.text())
	if e.answer.final {
		f.settle(result{
			verdict: Verdict{Status: e.answer.status, Code: e.answer.code, Asked: true, Err: e.answer.err},
			list:    e.answer.list,
		}, t.asked)
		return true
	}
	f.lane.link.discard(t.conn)
	if !f.reuses(t) {
		if e.answer.unread {
			f.losses += unreadCounts
		} else {
			f.losses += lossCounts
		}
		f.alone = true
	}
	if f.losses < lossesAllowed {
		f.want("lost")
		return false
	}
	f.fail(Verdict{
		Status: ConnectionFailed, Code: e.answer.code, Asked: true, Phase: PhaseRPC,
		Err: fmt.Errorf("the connection was lost before an answer came: %w", e.answer.err),
	})
	return false
}

// timeUp deals with an RPC that got no answer in time.
func (f *flight) timeUp(t *try, now reading) {
	f.note(t, now, "no answer in time")
	f.lane.link.discard(t.conn)
	if f.reuses(t) {
		f.want("silent")
		return
	}
	f.fail(Verdict{
		Status: Timeout, Code: codes.DeadlineExceeded, Asked: true, Phase: PhaseRPC,
		Err: fmt.Errorf("no answer to the RPC within %v", f.checker.o.RPCTimeout),
	})
}

// reuses says whether a try's connection is no fresh one.
func (f *flight) reuses(t *try) bool { return t.conn.began.Before(f.since) }

// note adds a try's RPC to the proof.
func (f *flight) note(t *try, now reading, outcome string) {
	f.proof.Attempts = append(f.proof.Attempts, f.attempt(t, now, outcome))
}

// attempt is how the proof shows a try's RPC.
func (f *flight) attempt(t *try, now reading, outcome string) Attempt {
	a := Attempt{Dial: t.dial, RPC: now.Since(t.asked.moment), Result: outcome}
	if f.reuses(t) {
		a.Reused, a.Age = true, t.asked.Since(t.conn.began)
	}
	return a
}

// proofSoFar is the proof with the dials and RPCs under way.
func (f *flight) proofSoFar(now reading) Proof {
	p := Proof{Attempts: slices.Clone(f.proof.Attempts)}
	for _, t := range f.tries {
		if t.conn != nil {
			p.Attempts = append(p.Attempts, f.attempt(t, now, "no answer yet"))
		} else if stage := t.stage.Load(); stage != nil {
			p.Attempts = append(p.Attempts, Attempt{Dial: stage.soFar(now.moment)})
		}
	}
	return p
}

// dialVerdict is the verdict of a try that got no connection.
func dialVerdict(e *event) Verdict {
	v := Verdict{Status: ConnectionFailed, Phase: e.phase, Err: e.failed}
	if errors.Is(e.failed, errBudget) {
		v.Status = Timeout
	}
	return v
}

// outdated is how long the process may have stood still for an RPC from before it to count: the answer
// can have waited since then, and says how the server was, not how it is.
const outdated = 5 * time.Second

// restart begins anew after the process stood still for a while: no failure from before says how the server is
// now. The oldest try goes on beside the new one, unless it is outdated: a machine that is merely
// busy must not cost the time that the server has already worked on its answer.
func (f *flight) restart(now reading, still time.Duration) {
	kept := 1
	if still > outdated {
		kept = 0
	}
	for len(f.tries) > kept {
		f.drop(f.tries[len(f.tries)-1])
	}
	f.since = now.moment
	f.failure, f.losses, f.alone = nil, 0, false
	f.wanted = "frozen"
}

// want asks for a try on a fresh connection, unless one is under way or has failed.
func (f *flight) want(reason string) {
	underWay := func(t *try) bool { return t.fresh && !t.since.Before(f.since) }
	if f.failure != nil || f.wanted != "" || slices.ContainsFunc(f.tries, underWay) {
		return
	}
	f.wanted = reason
}

// fail keeps the verdict to give where no try under way answers.
func (f *flight) fail(v Verdict) { f.failure = &v }

// drop takes a try off those under way.
func (f *flight) drop(t *try) {
	t.cancel()
	f.tries = slices.DeleteFunc(f.tries, func(o *try) bool { return o == t })
}

// advance does what is due, and says whether the flight is over.
func (f *flight) advance(now reading) (over bool) {
	for _, t := range slices.Clone(f.tries) {
		switch {
		case t.conn == nil || now.running < t.silent:
		case now.running >= t.due:
			t.late.Store(true)
			f.drop(t)
			f.timeUp(t, now)
		case f.reuses(t):
			f.want("silent")
		case !f.alone && !t.progress.sent():
			// The server allows no further RPC beside those of others on this connection.
			f.drop(t)
			f.note(t, now, "not sent: too many RPCs are under way on the connection")
			f.alone = true
			f.want("silent")
		}
	}
	if f.wanted != "" && (len(f.tries) == 0 || f.checker.takeExtra(f)) {
		if f.checker.o.Trace.Retry != nil {
			f.checker.o.Trace.Retry(f.wanted)
		}
		f.wanted = ""
		f.launch(true)
	}
	if len(f.tries) < 2 {
		f.checker.giveExtra(f)
	}
	if len(f.tries) > 0 {
		return false
	}
	f.settle(result{verdict: *f.failure}, reading{})
	return true
}

// sleep is how long run may sleep.
func (f *flight) sleep(now reading) time.Duration {
	due := now.running + slice
	for _, t := range f.tries {
		switch {
		case t.conn == nil:
		case now.running < t.silent:
			due = min(due, t.silent)
		default:
			due = min(due, t.due)
		}
	}
	return now.sleep(min(due, f.checker.deadline(f)))
}

// standing is the verdict for callers whose time is up while the flight is under way.
func (f *flight) standing() Verdict {
	if f.failure != nil {
		return *f.failure
	}
	v := unmet()
	for _, t := range f.tries {
		if t.conn != nil {
			v.Asked, v.Code, v.Phase = true, codes.DeadlineExceeded, PhaseRPC
			return v
		}
		if stage := t.stage.Load(); stage != nil {
			v.Phase = stage.phase()
		}
	}
	return v
}

// unmet is the verdict for callers whose time is up while they wait for the RPCs of the flights before theirs.
func unmet() Verdict { return Verdict{Status: Timeout, Phase: PhaseRPC, Err: errTime} }

// errTime is the cause where a caller's time is up and nothing has failed yet.
var errTime = errors.New("no answer within the time for the connection and the RPC")

// settle gives the flight's callers their result. asked is when the RPC began that the server
// answered, zero for a failure: an answer serves everyone who had arrived by then, in other flights too.
func (f *flight) settle(r result, asked reading) {
	c := f.checker
	c.mu.Lock()
	first := !f.settled
	f.settled = true
	c.mu.Unlock()
	if first {
		c.report(f.ctx, f.lane.question, &r, f.began, f.proof)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if first {
		for _, co := range f.cohorts {
			co.finish(r)
		}
		c.land(f)
	}
	if asked == (reading{}) {
		f.after = c.start(f.lane, c.clock.tick())
		return
	}
	for _, g := range slices.Clone(f.lane.flights) { // land takes them off it
		if !g.settled && !asked.Before(g.began.moment) {
			g.settled = true
			for _, co := range g.cohorts {
				co.finish(r)
			}
			c.land(g)
		}
	}
	if next := f.lane.next; next != nil {
		for len(next.cohorts) > 0 && next.cohorts[0].last.Before(asked.moment) {
			next.cohorts[0].finish(r)
			next.cohorts = next.cohorts[1:]
		}
		if len(next.cohorts) == 0 {
			f.lane.next = nil
		}
	}
	f.after = c.start(f.lane, c.clock.tick())
}

func (co *cohort) finish(r result) {
	co.result = r
	close(co.done)
}
