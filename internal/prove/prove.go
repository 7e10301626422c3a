package prove

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"example.com/grpc-health-http/internal/clock"
	"example.com/grpc-health-http/internal/grpcconn"
	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/internal/pool"
)

// Options say how checks are made. All but Metadata are required; Trace must be complete.
type Options struct {
	Clock *clock.Running
	// ConnectTimeout is the budget of Metadata; a dial has its own.
	ConnectTimeout time.Duration
	// RPCTimeout is the budget of one RPC.
	RPCTimeout time.Duration
	// Metadata returns what to send with an RPC; nil sends nothing. The result is not modified.
	// An error ends the attempt in phase "credentials".
	Metadata func(ctx context.Context) (metadata.MD, error)
	// Finish lets RPCs that were sent go on to their end when the context ends with ErrLeft: a server learns of a cancelled
	// RPC a little late, and would otherwise have any number of RPCs at once for callers who come and leave.
	Finish bool
	// Go runs an attempt in a goroutine of its own.
	Go func(f func())
	// Trace hears of RPC and Retry ("lost", "silent", "frozen").
	Trace *health.Trace
}

// Extra permits a check to make a second RPC beside its first.
type Extra interface {
	// Take says whether the check may. Where it may, Return must follow.
	Take() bool
	Return()
}

// silentPart is the part of the RPC's budget after which a connection without an answer counts as silent: a quarter.
const silentPart = 4

// A check fails when losses of fresh connections have cost it pointsAllowed: two losses, or four where the server had not even
// looked at the request, as it says with GOAWAY. One loss is not proof: a server that drains while it restarts may have caused it,
// and one that allows so many requests for a connection may have spent it on those of others. After the first loss a connection is
// the check's alone. Several servers of one name may drain one after the other, hence the four. Losses of reused connections cost
// nothing.
const (
	pointsAllowed     = 4
	pointsLost        = 2
	pointsUnprocessed = 1
)

// outdatedAfter is how long the process may have been stopped for an RPC from before the stop to count: its answer
// can have waited since then, and says how the server was, not how it is.
const outdatedAfter = 5 * time.Second

// Check is one check in progress.
type Check struct {
	o       Options
	ctx     context.Context
	pool    *pool.Pool
	request grpcconn.Request
	due     time.Duration // running time at which the first caller needs the answer
	extra   Extra
	events  chan event
	over    chan struct{} // closed when Run returns

	mu        sync.Mutex    // guards what follows, which Run alone changes
	began     clock.Reading // a connection is fresh, and a failure counts, where the dial began no earlier
	attempts  []*attempt    // in progress
	wanted    string        // the reason for which a fresh connection is wanted; empty when none is
	points    int           // that losses have cost, of pointsAllowed
	lost      *pool.Conn    // the fresh connection whose loss was counted last
	exclusive bool          // a shared fresh connection has failed: the next one is for this check alone
	hasExtra  bool
	failure   *health.Verdict // the verdict where no attempt in progress answers
	evidence  health.Evidence
	settled   *settlement
}

// ErrLeft is the cause of a check's context that has ended because its callers have left.
var ErrLeft = errors.New("the callers have left")

// settlement is a check's result, and when the RPC began that the server answered; zero for a failure.
type settlement struct {
	result *health.Proof
	asked  clock.Reading
}

// New returns a check that begins at now, of which the first caller needs the answer at the running time due. It ends with ctx, and so
// do its attempts, but for what Options.Finish says.
func New(ctx context.Context, o Options, p *pool.Pool, request grpcconn.Request, now clock.Reading, due time.Duration, extra Extra) *Check {
	return &Check{o: o, ctx: ctx, pool: p, request: request, due: due, extra: extra, began: now, events: make(chan event, 4), over: make(chan struct{})}
}

// Run makes the check. asked is when the RPC began that the server answered; it is zero for a failure. The
// result is empty where the context ended first.
func (c *Check) Run() (result *health.Proof, asked clock.Reading) {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer close(c.over)
	now := c.began
	c.startLocked(now, pool.Any)
	timer := time.NewTimer(c.sleepLocked(now))
	defer timer.Stop()
	for c.settled == nil {
		c.mu.Unlock()
		var e event
		select {
		case e = <-c.events:
		case <-timer.C:
		case <-c.ctx.Done():
		}
		before := now
		now = c.o.Clock.Now()
		c.mu.Lock()
		if c.ctx.Err() != nil {
			if c.o.Finish && errors.Is(context.Cause(c.ctx), ErrLeft) {
				c.finishLocked(e)
			}
			break
		}
		var stopped time.Duration
		if now.Stops != before.Stops {
			stopped = now.Since(before.Moment)
		}
		if stopped > outdatedAfter {
			c.restartLocked(now, 0) // before the events, which may have waited for as long
		}
		for more := true; more && c.settled == nil; {
			if e != nil {
				e.handleLocked(c, now)
			}
			select {
			case e = <-c.events: // what has happened takes precedence over what the clock says
			default:
				more = false
			}
		}
		if c.settled == nil {
			if stopped > 0 && stopped <= outdatedAfter {
				c.restartLocked(now, 1)
			}
			c.advanceLocked(now)
			timer.Reset(c.sleepLocked(now))
		}
	}
	c.endLocked()
	if c.settled == nil {
		return new(health.Proof), clock.Reading{}
	}
	return c.settled.result, c.settled.asked
}

// finishLocked waits for the end of the RPCs that are under way: an answer, or their deadline. e is an event that was not handled, or nil.
func (c *Check) finishLocked(e event) {
	for more := true; more; { // those whose RPC has begun
		if e, ok := e.(connected); ok {
			e.handleLocked(c, e.now)
		}
		if e, ok := e.(answered); ok && c.endRPCLocked(e) {
			return
		}
		select {
		case e = <-c.events:
		default:
			more = false
		}
	}
	for _, a := range slices.Clone(c.attempts) {
		if a.conn == nil || !a.progress.Sent() { // the server has no RPC of it, and waiting for one would keep Extra from other checks
			c.dropLocked(a)
		}
	}
	for len(c.attempts) > 0 {
		if len(c.attempts) < 2 {
			c.returnExtraLocked()
		}
		c.mu.Unlock()
		e := <-c.events // each RPC has a deadline
		c.mu.Lock()
		if e, ok := e.(answered); ok && c.endRPCLocked(e) {
			return
		}
	}
}

// endRPCLocked takes an RPC that nobody waits for off those in progress, and says whether the server has answered.
func (c *Check) endRPCLocked(e answered) bool {
	if !c.takesPartLocked(e.attempt) {
		return false
	}
	c.dropLocked(e.attempt)
	switch e.answer.Outcome {
	case grpcconn.Answered, grpcconn.Unsendable:
		return true
	}
	c.pool.Discard(e.attempt.conn)
	return false
}

// endLocked ends what is in progress.
func (c *Check) endLocked() {
	for len(c.attempts) > 0 {
		c.dropLocked(c.attempts[0])
	}
	c.returnExtraLocked()
}

// takesPartLocked says whether an attempt has not been given up.
func (c *Check) takesPartLocked(a *attempt) bool { return slices.Contains(c.attempts, a) }

func (e connected) handleLocked(c *Check, _ clock.Reading) {
	if c.takesPartLocked(e.attempt) {
		e.attempt.dial = e.dial
		e.attempt.beginRPC(c, e.conn, e.now)
	}
}

func (e notConnected) handleLocked(c *Check, _ clock.Reading) {
	if !c.takesPartLocked(e.attempt) {
		return
	}
	c.dropLocked(e.attempt)
	c.evidence.Attempts = append(c.evidence.Attempts, e.shown)
	if e.attempt.since.Before(c.began.Moment) {
		return // it proves nothing: the process was stopped in the meantime
	}
	c.failure = &health.Verdict{Status: health.ConnectionFailed, Phase: e.phase, Err: e.err}
	switch {
	case errors.Is(e.err, pool.ErrNoTurn): // it proves nothing either, and there is no time for another one
		c.failure.Status = health.Overloaded
	case errors.Is(e.err, clock.ErrBudget):
		c.failure.Status = health.Timeout
	}
}

func (e answered) handleLocked(c *Check, now clock.Reading) {
	a := e.attempt
	if !c.takesPartLocked(a) {
		return
	}
	c.dropLocked(a)
	if e.answer.Outcome == grpcconn.TimedOut {
		c.timedOutLocked(a, now)
		return
	}
	c.noteLocked(a, now, e.answer.String())
	switch e.answer.Outcome {
	case grpcconn.Unsendable: // another connection changes nothing
		v := health.Verdict{Status: e.answer.Status, Code: e.answer.Code, Asked: true, Phase: health.PhaseRPC, Err: e.answer.Err}
		c.settleLocked(v, nil, a.asked)
		return
	case grpcconn.Answered:
		v := health.Verdict{Status: e.answer.Status, Code: e.answer.Code, Asked: true, Err: e.answer.Err}
		c.settleLocked(v, e.answer.List, a.asked)
		return
	}
	c.pool.Discard(a.conn)
	if !a.reuses(c) && a.conn != c.lost { // two attempts can have the same connection
		c.lost, c.exclusive = a.conn, true
		if e.answer.Outcome == grpcconn.Unprocessed {
			c.points += pointsUnprocessed
		} else {
			c.points += pointsLost
		}
	}
	if c.points < pointsAllowed {
		c.wantLocked("lost")
		return
	}
	c.failure = &health.Verdict{
		Status: health.ConnectionFailed, Code: e.answer.Code, Asked: true, Phase: health.PhaseRPC,
		Err: fmt.Errorf("the connection was lost before an answer came: %w", e.answer.Err),
	}
	if e.answer.Outcome == grpcconn.Unreadable && a.need == pool.Exclusive { // no other RPC was on the connection
		c.failure = &health.Verdict{Status: health.RPCFailed, Code: e.answer.Code, Asked: true, Err: e.answer.Err}
	}
}

// restartLocked begins anew, after a stop of the process, beside the oldest attempts that are kept: a machine that is merely
// busy must not cost the time that the server has already worked on its answer.
func (c *Check) restartLocked(now clock.Reading, kept int) {
	for len(c.attempts) > kept {
		c.dropLocked(c.attempts[len(c.attempts)-1])
	}
	c.began = now
	c.failure, c.points, c.exclusive = nil, 0, false
	c.wanted = "frozen"
}

// advanceLocked does what is due.
func (c *Check) advanceLocked(now clock.Reading) {
	for _, a := range slices.Clone(c.attempts) {
		switch {
		case a.conn == nil || now.Running < a.silent:
		case now.Running >= a.due:
			a.timedOut.Store(true)
			c.dropLocked(a)
			c.timedOutLocked(a, now)
		case a.reuses(c):
			c.wantLocked("silent")
		case !c.exclusive && !a.progress.Sent():
			// The server allows no further RPC beside those of others on this connection.
			c.dropLocked(a)
			c.noteLocked(a, now, "not sent: the server allows no further RPC on the connection")
			c.exclusive = true
			c.wantLocked("silent")
		}
	}
	if c.wanted != "" && (len(c.attempts) == 0 || c.takeExtraLocked()) {
		c.o.Trace.Retry(c.wanted)
		c.wanted = ""
		need := pool.Fresh
		if c.exclusive {
			need = pool.Exclusive
		}
		c.startLocked(now, need)
	}
	if len(c.attempts) < 2 {
		c.returnExtraLocked()
	}
	if len(c.attempts) == 0 {
		c.settleLocked(*c.failure, nil, clock.Reading{})
	}
}

// sleepLocked is how long Run may sleep.
func (c *Check) sleepLocked(now clock.Reading) time.Duration {
	due := clock.Never
	for _, a := range c.attempts {
		switch {
		case a.conn == nil:
		case now.Running < a.silent:
			due = min(due, a.silent)
		default:
			due = min(due, a.due)
		}
	}
	return now.Sleep(due)
}

// wantLocked asks for an attempt on a fresh connection, unless one is in progress or has failed.
func (c *Check) wantLocked(reason string) {
	inProgress := func(a *attempt) bool { return a.need != pool.Any && !a.since.Before(c.began.Moment) }
	if c.failure == nil && c.wanted == "" && !slices.ContainsFunc(c.attempts, inProgress) {
		c.wanted = reason
	}
}

func (c *Check) takeExtraLocked() bool {
	if !c.hasExtra {
		c.hasExtra = c.extra.Take()
	}
	return c.hasExtra
}

func (c *Check) returnExtraLocked() {
	if c.hasExtra {
		c.hasExtra = false
		c.extra.Return()
	}
}

// dropLocked takes an attempt off those in progress.
func (c *Check) dropLocked(a *attempt) {
	a.cancel()
	c.attempts = slices.DeleteFunc(c.attempts, func(o *attempt) bool { return o == a })
}

// settleLocked ends the check with a verdict.
func (c *Check) settleLocked(v health.Verdict, list []health.Verdict, asked clock.Reading) {
	c.settled = &settlement{&health.Proof{Verdict: v, List: list, Evidence: c.evidence}, asked}
}

// timedOutLocked deals with an RPC that got no answer in time.
func (c *Check) timedOutLocked(a *attempt, now clock.Reading) {
	c.noteLocked(a, now, "no answer in time")
	c.pool.Discard(a.conn)
	if a.reuses(c) {
		c.wantLocked("silent")
		return
	}
	c.failure = &health.Verdict{
		Status: health.Timeout, Code: codes.DeadlineExceeded, Asked: true, Phase: health.PhaseRPC,
		Err: fmt.Errorf("no answer to the RPC within %v", c.o.RPCTimeout),
	}
	if !a.progress.Sent() {
		c.failure.Err = fmt.Errorf("the RPC could not be sent within %v: the server allows none on the connection "+
			"(MAX_CONCURRENT_STREAMS in its SETTINGS, perhaps 0)", c.o.RPCTimeout)
	}
}

// noteLocked adds an attempt's RPC to the evidence.
func (c *Check) noteLocked(a *attempt, now clock.Reading, result string) {
	c.evidence.Attempts = append(c.evidence.Attempts, c.shownLocked(a, now, result))
}

// shownLocked is how the evidence shows an attempt's RPC.
func (c *Check) shownLocked(a *attempt, now clock.Reading, result string) health.Attempt {
	shown := health.Attempt{Dial: a.dial, Peer: a.conn.Peer, RPC: now.Since(a.asked.Moment), Result: result}
	if a.reuses(c) {
		shown.Reused, shown.Age = true, a.asked.Since(a.conn.Began)
	}
	return shown
}

// ErrNoAnswer is the cause of a Snapshot's verdict where nothing has failed yet.
var ErrNoAnswer = errors.New("no answer within the time for the connection and the RPC")

// Waiting is the verdict for a caller whose time is up before a check has begun for it.
func Waiting() health.Verdict {
	return health.Verdict{Status: health.Timeout, Phase: health.PhaseRPC, Err: ErrNoAnswer}
}

// Snapshot is the verdict for a caller whose time is up now, and the evidence with what is in progress.
func (c *Check) Snapshot(now clock.Reading) (health.Verdict, health.Evidence) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := health.Evidence{Attempts: slices.Clone(c.evidence.Attempts)}
	v := Waiting()
	dialling := false
	for _, a := range c.attempts { // the oldest first, which has come furthest
		progress := a.dialling.Load()
		switch {
		case a.conn != nil:
			e.Attempts = append(e.Attempts, c.shownLocked(a, now, "no answer yet"))
			if !v.Asked {
				v.Asked, v.Code, v.Phase = true, codes.DeadlineExceeded, health.PhaseRPC
			}
		case progress != nil:
			e.Attempts = append(e.Attempts, health.Attempt{Dial: progress.Snapshot(now.Moment)})
			if !v.Asked && !dialling {
				v.Phase = progress.Phase()
			}
			dialling = true
		}
	}
	if c.failure != nil {
		v = *c.failure
	}
	return v, e
}
