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
// Everyone it answers had arrived before it started.
type flight struct {
	checker *Checker
	lane    *lane
	cohorts []*cohort // guarded by the Checker's mutex, as the next two are
	settled bool
	extra   bool // holds the lane's second RPC

	asking atomic.Bool // an RPC is under way

	ctx    context.Context
	cancel context.CancelFunc
	events chan event

	// What follows belongs to run alone.
	began   reading
	since   moment // a failure counts when its dial began no earlier
	after   moment // and a fresh connection is one whose dial began no earlier than this
	tries   []*try // under way
	beside  bool   // two of them are
	wanted  string // the reason for which a fresh connection is wanted; empty when none is
	losses  int    // fresh connections that were lost during the RPC
	failure *Verdict
	proof   Proof
}

// try is one attempt: a connection, and an RPC on it.
type try struct {
	fresh    bool // wants a connection that was dialled for it
	cancel   context.CancelFunc
	timedOut chan struct{} // closed when the RPC's time is up

	// What follows is run's.
	conn   *conn         // nil until there is one
	asked  reading       // when the RPC began
	silent time.Duration // running time from which a reused connection counts as silent
	due    time.Duration // running time at which the RPC's time is up
}

// event is what a try tells its flight.
type event struct {
	try    *try
	conn   *conn   // the RPC begins on it,
	now    reading // now
	ended  bool    // the try is over:
	failed error   // it got no connection, for this reason
	dial   Dial    // how the connection was made
	phase  Phase   // where it failed
	answer *answer // or this is what the RPC came to
	took   time.Duration
}

// lossesAllowed is how many connections that were dialled for a check may be lost under its RPC before
// that is the verdict. One would prove it; but a server that drains while it restarts may take one more with it.
const lossesAllowed = 2

// run is the flight's one goroutine of control.
func (f *flight) run() {
	c := f.checker
	f.since, f.after = f.began.moment, f.began.moment
	now := f.began
	f.launch(now, false)
	timer := time.NewTimer(f.sleep(now))
	defer timer.Stop()
	for {
		var e event
		select {
		case e = <-f.events:
		case <-timer.C:
		case <-f.ctx.Done():
			return
		}
		stops := now.stops
		now = c.clock.tick()
		stopped := now.stops != stops
		for more := true; more; {
			if e.try != nil {
				if over := f.handle(e, now, stopped); over {
					return
				}
			}
			select {
			case e = <-f.events: // what has happened goes before what the clock says
			default:
				more = false
			}
		}
		if stopped {
			f.restart(now)
		}
		if f.advance(now) {
			return
		}
		if c.expire(f, now) {
			return
		}
		timer.Reset(f.sleep(now))
	}
}

// launch starts a try.
func (f *flight) launch(now reading, fresh bool) {
	ctx, cancel := context.WithCancel(f.ctx)
	t := &try{fresh: fresh, cancel: cancel, timedOut: make(chan struct{})}
	f.tries = append(f.tries, t)
	if !fresh && f.checker.o.Metadata == nil {
		// The common case: a connection stands, and the RPC begins now.
		if standing := f.lane.link.standing(now.moment); standing != nil {
			f.beginRPC(t, standing, now)
			go f.ask(ctx, t, standing, nil, Dial{})
			return
		}
	}
	since := f.since
	if fresh {
		since = f.after
	}
	go f.connect(ctx, t, since)
}

// beginRPC notes that a try's RPC begins.
func (f *flight) beginRPC(t *try, c *conn, now reading) {
	t.conn, t.asked = c, now
	t.silent = now.running + f.checker.o.RPCTimeout/4
	t.due = now.running + f.checker.o.RPCTimeout
	f.asking.Store(true)
}

// connect is a try's goroutine: it gets what to send and a connection, and makes the RPC.
func (f *flight) connect(ctx context.Context, t *try, since moment) {
	var md metadata.MD
	if f.checker.o.Metadata != nil {
		var err error
		f.lane.link.reached(PhaseCredentials)
		if md, err = f.checker.o.Metadata(ctx); err != nil {
			f.tell(event{try: t, ended: true, failed: err, phase: PhaseCredentials})
			return
		}
	}
	c, d := f.lane.link.acquire(ctx, since, t.fresh)
	if c == nil {
		f.tell(event{try: t, ended: true, failed: d.Err, phase: d.Phase, dial: d})
		return
	}
	f.tell(event{try: t, conn: c, now: f.checker.clock.tick()})
	f.ask(ctx, t, c, md, d)
}

// ask makes a try's RPC.
func (f *flight) ask(ctx context.Context, t *try, c *conn, md metadata.MD, d Dial) {
	defer c.done()
	began := time.Now()
	// The server gets a deadline a little behind ours, so that it is bound too and yet never the
	// first to say that the time is up.
	rpc, cancel := context.WithDeadline(ctx, began.Add(f.checker.o.RPCTimeout+slice))
	defer cancel()
	a := c.ask(rpc, md, f.lane.question)
	if f.checker.o.Trace.RPC != nil {
		code := a.code
		select {
		case <-t.timedOut:
			code = codes.DeadlineExceeded
		default:
		}
		f.checker.o.Trace.RPC(code.String())
	}
	f.tell(event{try: t, ended: true, answer: &a, dial: d, took: time.Since(began)})
}

func (f *flight) tell(e event) {
	select {
	case f.events <- e:
	case <-f.ctx.Done():
	}
}

// handle takes in what a try tells. It says whether the flight is over.
func (f *flight) handle(e event, now reading, stopped bool) (over bool) {
	if !slices.Contains(f.tries, e.try) {
		return false // given up before
	}
	if !e.ended {
		f.beginRPC(e.try, e.conn, e.now)
		return false
	}
	f.drop(e.try)
	a := Attempt{Dial: e.dial}
	if e.answer == nil {
		f.proof.Attempts = append(f.proof.Attempts, a)
		if e.phase != PhaseCredentials && e.dial.began.before(f.since) {
			f.want("lost") // a dial for others, which had begun before
			return false
		}
		f.fail(dialVerdict(e))
		return false
	}
	reused := e.try.conn.began.before(f.since)
	a.Reused, a.RPC, a.Result = reused, e.took, e.answer.text()
	if reused {
		a.Age = now.since(e.try.conn.began)
	}
	f.proof.Attempts = append(f.proof.Attempts, a)
	if e.answer.final {
		// While the process stood still the server's own deadline for the RPC passed: that says nothing.
		if stopped && (e.answer.code == codes.DeadlineExceeded || e.answer.code == codes.Canceled) {
			return false
		}
		f.settle(result{
			verdict: Verdict{Status: e.answer.status, Code: e.answer.code, Asked: true, Err: e.answer.err},
			list:    e.answer.list,
		}, e.try.asked)
		return true
	}
	f.lane.link.discard(e.try.conn)
	f.asking.Store(false)
	if !reused {
		f.losses++
		f.after = now.moment
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

// dialVerdict is the verdict of a try that got no connection.
func dialVerdict(e event) Verdict {
	v := Verdict{Status: ConnectionFailed, Phase: e.phase, Err: e.failed}
	if errors.Is(e.failed, errBudget) {
		v.Status = Timeout
	}
	return v
}

// restart begins anew after the process was stopped: nothing from before it says how the server is now.
func (f *flight) restart(now reading) {
	for _, t := range f.tries {
		t.cancel()
	}
	f.tries, f.failure, f.losses = nil, nil, 0
	f.asking.Store(false)
	f.since, f.after = now.moment, now.moment
	f.want("frozen")
}

// want asks for a try on a fresh connection, unless one is under way or has failed.
func (f *flight) want(reason string) {
	if f.failure != nil || f.wanted != "" || slices.ContainsFunc(f.tries, func(t *try) bool { return t.fresh }) {
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
		if t.conn == nil {
			continue
		}
		reused := t.conn.began.before(f.since)
		switch {
		case now.running >= t.due:
			close(t.timedOut)
			f.drop(t)
			f.lane.link.discard(t.conn)
			a := Attempt{Reused: reused, RPC: now.since(t.asked.moment), Result: "no answer in time"}
			if reused {
				a.Age = now.since(t.conn.began)
				f.want("silent")
			} else {
				f.fail(Verdict{
					Status: Timeout, Code: codes.DeadlineExceeded, Asked: true, Phase: PhaseRPC,
					Err: fmt.Errorf("no answer to the RPC within %v", f.checker.o.RPCTimeout),
				})
			}
			f.proof.Attempts = append(f.proof.Attempts, a)
		case reused && now.running >= t.silent:
			f.want("silent")
		}
	}
	if f.wanted != "" && (len(f.tries) == 0 || f.checker.takeExtra(f)) {
		f.beside = len(f.tries) > 0
		if f.checker.o.Trace.Retry != nil {
			f.checker.o.Trace.Retry(f.wanted)
		}
		f.wanted = ""
		f.launch(now, true)
	}
	if f.beside && len(f.tries) < 2 {
		f.beside = false
		f.checker.giveExtra(f)
	}
	if len(f.tries) > 0 || f.wanted != "" {
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
		case t.conn.began.before(f.since) && now.running < t.silent:
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
	v := Verdict{Status: Timeout, Phase: f.lane.link.phase.Load().(Phase)}
	if f.asking.Load() {
		v.Phase, v.Asked, v.Code = PhaseRPC, true, codes.DeadlineExceeded
	}
	v.Err = errTime
	return v
}

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
		c.report(f.lane.question, &r, f.began, f.proof)
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
		c.kick(f.lane)
		return
	}
	for _, g := range slices.Clone(f.lane.flights) {
		if !g.settled && !asked.before(g.began.moment) {
			g.settled = true
			for _, co := range g.cohorts {
				co.finish(r)
			}
			c.land(g)
		}
	}
	if next := f.lane.next; next != nil {
		for len(next.cohorts) > 0 && next.cohorts[0].last.before(asked.moment) {
			next.cohorts[0].finish(r)
			next.cohorts = next.cohorts[1:]
		}
		if len(next.cohorts) == 0 {
			f.lane.next = nil
		}
	}
	c.kick(f.lane)
}

func (co *cohort) finish(r result) {
	co.result = r
	close(co.done)
}
