package check

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/metadata"

	"example.com/grpc-health-http/internal/clock"
	"example.com/grpc-health-http/internal/coalesce"
	"example.com/grpc-health-http/internal/dial"
	"example.com/grpc-health-http/internal/grpcconn"
	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/internal/pool"
	"example.com/grpc-health-http/internal/prove"
)

const (
	// shareWindow is how young an RPC may be for those who arrive to wait for the next one rather than start their own
	// beside it.
	shareWindow = 25 * time.Millisecond
	// promptCalls and maxCalls are how many calls of one question run side by side. Each makes one RPC, and one of them at a
	// time a second one. So the server sees 8 at most: it hears of a cancelled one a little late.
	promptCalls = 3
	maxCalls    = 6
	// lastTurn is the part of a check's budget that must be left when it gets its turn to dial: a quarter.
	lastTurn = 4
)

// Options say what to check and how. The zero value of every field but Target is usable: a time-out of 0 is 1 s.
type Options struct {
	dial.Options
	// RPCTimeout is the budget for one RPC.
	RPCTimeout time.Duration
	// MaxAge is the age from which a connection serves no new check. 0 dials for every RPC.
	MaxAge time.Duration
	// Services are the configured names; empty configures the whole server alone. Every other
	// name was made up by a caller and comes under MaxConcurrent.
	Services []string
	// MaxConcurrent limits the RPCs in progress at once for names that callers made up. 0 is 100.
	MaxConcurrent int
	// PromptCalls is how many calls of one question run side by side before others wait for their last moment; 0 is 3. It is for callers who share calls
	// already, and is 6 at most.
	PromptCalls int
	// Metadata returns what to send with an RPC; nil sends nothing. The result is not modified.
	// An error ends the check in phase "credentials".
	Metadata func(ctx context.Context) (metadata.MD, error)
	// Redact takes secrets out of what a peer says; nil leaves it as it is. It gets text of any length.
	Redact func(text string) string
	// CheckedEvery is how often what is configured is checked at least; 0 is not known. Where that is no more often than connections
	// may serve, one is closed as soon as it has, unless others check, too.
	CheckedEvery time.Duration
	// Process is what this Checker shares with others; nil makes its own, without a limit of dials.
	Process *Process
	// Clock reads the machine's clocks; nil is clock.System. A Process has its own.
	Clock func() clock.Moment
}

// Checker checks one upstream. It is safe for concurrent use, and does nothing between checks.
type Checker struct {
	trace      *health.Trace
	redact     func(text string) string
	services   []string
	process    *Process
	own        bool // the process is this Checker's alone
	connect    time.Duration
	rpc        time.Duration
	metadata   func(ctx context.Context) (metadata.MD, error)
	calls      *coalesce.Group[grpcconn.Request, *health.Proof, *call]
	configured *pool.Pool                // for the configured services
	others     atomic.Pointer[pool.Pool] // for the rest; nil before the first of that
	maxMadeUp  int64
	madeUp     atomic.Int64 // RPCs in progress for names that callers made up, maxMadeUp at most
}

// New returns a Checker. It makes no connection yet.
func New(o Options) *Checker {
	o.ConnectTimeout = cmp.Or(o.ConnectTimeout, time.Second)
	o.RPCTimeout = cmp.Or(o.RPCTimeout, time.Second)
	own := o.Process == nil
	if own {
		o.Process = NewProcess(o.Clock, 0, 0)
	}
	o.Trace = o.Trace.Complete()
	if o.Redact == nil {
		o.Redact = func(text string) string { return text }
	}
	c := &Checker{
		trace: o.Trace, redact: o.Redact, services: health.Configured(o.Services), maxMadeUp: int64(cmp.Or(o.MaxConcurrent, 100)),
		process: o.Process, own: own, connect: o.ConnectTimeout, rpc: o.RPCTimeout, metadata: o.Metadata,
	}
	c.configured = pool.New(pool.Options{
		Dial: dial.New(o.Options, o.Process.clock).Dial, Clock: o.Process.clock, MaxAge: o.MaxAge, ConnectTimeout: o.ConnectTimeout,
		AskedEvery: o.CheckedEvery, Turns: o.Process.turns(), Reserve: c.budget() / lastTurn, Reaper: o.Process.reaper,
	})
	c.calls = coalesce.New(coalesce.Options[grpcconn.Request, *health.Proof, *call]{
		Go: o.Process.goroutine, Clock: o.Process.clock, Budget: c.budget(),
		Left: prove.ErrLeft, Window: shareWindow, Prompt: min(cmp.Or(o.PromptCalls, promptCalls), maxCalls), Max: maxCalls, Reserve: o.RPCTimeout + shareWindow,
		Start: c.start, Finish: c.report, Unanswered: c.unanswered, Shared: o.Trace.Shared,
		Queued: func(ctx context.Context, r grpcconn.Request, due time.Duration) { c.poolOf(r).Redial(ctx, due) },
	})
	return c
}

// Close gives the connections up; those that checks are using are closed when these end.
func (c *Checker) Close() {
	c.configured.Close()
	c.forOthers().Close() // one that was made later would keep connections
	if c.own {
		c.process.Close()
	}
}

// Check asks how the service is; the empty name is the whole server. It answers within ConnectTimeout +
// RPCTimeout, and earlier where the context has a deadline. Where that has another cause than context.DeadlineExceeded, as
// health.ErrCallerDeadline, it says nothing about the upstream, and the Trace does not get the verdict. It is a health.Func.
func (c *Checker) Check(ctx context.Context, service string) health.Verdict {
	return c.Proof(ctx, service).Verdict
}

// Proof is Check, with the evidence.
func (c *Checker) Proof(ctx context.Context, service string) *health.Proof {
	return c.calls.Do(ctx, grpcconn.Request{Service: service})
}

// List asks for all the services that the server knows, sorted by name. Where that fails, the one
// verdict it returns has no name.
func (c *Checker) List(ctx context.Context) []health.Verdict {
	return c.ListProof(ctx).Verdicts()
}

// ListProof is List, with the evidence.
func (c *Checker) ListProof(ctx context.Context) *health.Proof {
	return c.calls.Do(ctx, grpcconn.Request{List: true})
}

// Redial starts another dial where checks wait for older ones, as those do who wait for these checks: an outage may be over.
// due is the running time at which they need their answer.
func (c *Checker) Redial(ctx context.Context, due time.Duration) {
	c.configured.Redial(ctx, due)
	if others := c.others.Load(); others != nil {
		others.Redial(ctx, due)
	}
}

// isConfigured says that the request is for a configured service.
func (c *Checker) isConfigured(r grpcconn.Request) bool {
	return !r.List && slices.Contains(c.services, r.Service)
}

func (c *Checker) poolOf(r grpcconn.Request) *pool.Pool {
	if c.isConfigured(r) {
		return c.configured
	}
	return c.forOthers()
}

// forOthers is the pool for what is not configured. Most upstreams never need it.
func (c *Checker) forOthers() *pool.Pool {
	if p := c.others.Load(); p != nil {
		return p
	}
	c.others.CompareAndSwap(nil, c.configured.ForMadeUp())
	return c.others.Load()
}

// call is the work of coalesced callers: one check, within the limit for names that callers made up.
type call struct {
	*prove.Check
	permits *permits
}

func (c *Checker) start(ctx context.Context, r grpcconn.Request, now clock.Reading, due time.Duration) *call {
	configured := c.isConfigured(r)
	p := &permits{checker: c, request: r, limited: !r.List && !configured}
	o := c.options()
	o.Finish = configured // their callers may leave, and their RPCs continue
	return &call{prove.New(ctx, o, c.poolOf(r), r, now, due, p), p}
}

// options are those of a check. They are not kept between checks, because most of the many checkers of a process are at rest.
func (c *Checker) options() prove.Options {
	return prove.Options{
		Go: c.process.goroutine, Clock: c.process.clock, ConnectTimeout: c.connect, RPCTimeout: c.rpc, Metadata: c.metadata, Trace: c.trace,
	}
}

// budget is the time for a check.
func (c *Checker) budget() time.Duration { return c.connect + c.rpc }

// Run makes the check. It is coalesce's Work.
func (w *call) Run() (*health.Proof, clock.Reading) {
	if !w.permits.takeRPC() {
		err := errors.New("too many checks of names that are not configured are in progress")
		return &health.Proof{Verdict: health.Verdict{Status: health.Overloaded, Err: err}}, clock.Reading{}
	}
	defer w.permits.returnRPC()
	return w.Check.Run()
}

// unanswered is the result of callers whose time is up, or whose context has ended.
func (c *Checker) unanswered(ctx context.Context, r grpcconn.Request, arrived clock.Reading, w *call, started bool) *health.Proof {
	result := &health.Proof{Verdict: prove.Waiting()}
	if w != nil {
		v, evidence := w.Snapshot(c.process.clock.Now())
		result.Evidence = evidence
		if started {
			result.Verdict = v
		}
	}
	unproven := errors.Is(result.Verdict.Err, prove.ErrNoAnswer)
	switch {
	case ctx.Err() == nil: // the budget is used up
	case !errors.Is(context.Cause(ctx), context.DeadlineExceeded):
		// The caller has left, or has given less time than a check may take: this says nothing about the upstream. A command's exit code may still
		// depend on it.
		result.Verdict.Service, result.Verdict.List, result.Verdict.Err = r.Service, r.List, context.Cause(ctx)
		c.makeInert(result)
		return result
	case unproven:
		result.Verdict.Err = fmt.Errorf("no answer before the request's own deadline, %v after it arrived",
			c.process.clock.Now().Since(arrived.Moment).Round(time.Microsecond))
	}
	if unproven && c.poolOf(r).WaitedForTurn(arrived.Moment) { // the upstream did not have all of the time
		result.Verdict = health.Verdict{Status: health.Overloaded, Err: fmt.Errorf("%w; a dial had waited: %w", result.Verdict.Err, pool.ErrNoTurn)}
	}
	return c.report(ctx, r, arrived, result)
}

// report completes a result and tells the Trace, before any caller gets it.
func (c *Checker) report(ctx context.Context, r grpcconn.Request, began clock.Reading, result *health.Proof) *health.Proof {
	c.makeInert(result)
	took, at := c.process.clock.Now().Since(began.Moment), time.Now()
	complete := func(v *health.Verdict) {
		v.Duration, v.At = took, at
		v.Since, v.EvidenceID = c.trace.Verdict(ctx, *v, result.Evidence)
	}
	if result.List == nil {
		result.Verdict.Service, result.Verdict.List = r.Service, r.List
		complete(&result.Verdict)
	}
	for i := range result.List {
		complete(&result.List[i])
	}
	return result
}

// doubled is a request of a Checker of which a check makes a second RPC.
type doubled struct {
	checker *Checker
	request grpcconn.Request
}

// permits are a check's permission to make its RPC, and a second one beside it. The checks of names that callers made up
// share a limit; and of each request one check at a time makes a second RPC.
type permits struct {
	checker *Checker
	request grpcconn.Request
	limited bool // the name was made up
}

func (p *permits) takeRPC() bool {
	if p.limited && p.checker.madeUp.Add(1) > p.checker.maxMadeUp {
		p.checker.madeUp.Add(-1)
		return false
	}
	return true
}

func (p *permits) returnRPC() {
	if p.limited {
		p.checker.madeUp.Add(-1)
	}
}

// Take is that of prove.Extra.
func (p *permits) Take() bool {
	if !p.takeRPC() {
		return false
	}
	if _, taken := p.checker.process.doubled.LoadOrStore(doubled{p.checker, p.request}, nil); taken {
		p.returnRPC()
		return false
	}
	return true
}

// Return is that of prove.Extra.
func (p *permits) Return() {
	p.checker.process.doubled.Delete(doubled{p.checker, p.request})
	p.returnRPC()
}
