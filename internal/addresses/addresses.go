package addresses

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"example.com/grpc-health-http/internal/check"
	"example.com/grpc-health-http/internal/clock"
	"example.com/grpc-health-http/internal/coalesce"
	"example.com/grpc-health-http/internal/dial"
	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/internal/inert"
	"example.com/grpc-health-http/internal/target"
)

const (
	// maxAddresses is how many addresses of a name are checked, and atOnce how many of them at a time for one verdict; maxTurns for all verdicts, of
	// however many services.
	maxAddresses = 256
	atOnce       = 32
	maxTurns     = 1024
	// maxListed is how many services an answer to a List has.
	maxListed = health.MaxServices
)

// The times and numbers of package check, for checks of several addresses: see its comments.
const (
	shareWindow = 25 * time.Millisecond
	promptCalls = 3
	maxCalls    = 6
	// grace is how much later than the check itself its callers give up: the check ends in time on its own, and knows best what it has found.
	grace = 100 * time.Millisecond
	// maxLookups is how many lookups of one family may be in progress.
	maxLookups = 16
)

// errLeft is the cause of a check's context that has ended because its callers have left.
var errLeft = errors.New("the callers have left")

// Checker checks every address of one upstream. It is safe for concurrent use.
type Checker struct {
	o       check.Options
	needed  func(reachable int) int
	clock   *clock.Running
	own     bool // the Process is this Checker's alone
	dialer  *dial.Dialer
	lookups *coalesce.Group[string, found, *lookup]
	calls   *coalesce.Group[question, *health.Proof, *call]
	madeUp  atomic.Int64 // RPCs that may be in progress for names that callers made up, MaxConcurrent at most

	turns chan struct{} // has a value for each check of an address that is in progress

	mu     sync.Mutex
	places map[string]*place // by their addresses
	closed bool
}

// New returns a Checker. needed says how many addresses must be serving, 1 at least, of those that this machine has a route to. It makes no connection
// yet. Where the target is no name, or a proxy leads to it, which does the lookup, there is one address.
func New(o check.Options, needed func(reachable int) int) *Checker {
	o.ConnectTimeout = cmp.Or(o.ConnectTimeout, time.Second)
	o.RPCTimeout = cmp.Or(o.RPCTimeout, time.Second)
	o.MaxConcurrent = cmp.Or(o.MaxConcurrent, 100)
	own := o.Process == nil
	if own {
		o.Process = check.NewProcess(o.Clock, 0, 0)
	}
	o.Process = o.Process.Target()
	if o.Redact == nil {
		o.Redact = func(text string) string { return text }
	}
	o.Trace = o.Trace.Complete()
	c := &Checker{
		o: o, needed: needed, clock: o.Process.Clock(), own: own,
		turns: make(chan struct{}, maxTurns), places: make(map[string]*place),
	}
	lookups := o.Options
	lookups.Redial = 0 // what asks again at a failure is the lookup itself
	c.dialer = dial.New(lookups, c.clock)
	c.lookups = coalesce.New(coalesce.Options[string, found, *lookup]{
		Go: o.Process.Go, Clock: c.clock, Budget: o.ConnectTimeout, Left: errLeft, Window: shareWindow, Prompt: maxLookups, Max: maxLookups,
		Start: func(ctx context.Context, network string, _ clock.Reading, _ time.Duration) *lookup {
			return &lookup{c.dialer, ctx, network}
		},
		Finish:     func(_ context.Context, _ string, _ clock.Reading, f found) found { return f },
		Unanswered: func(context.Context, string, clock.Reading, *lookup, bool) found { return found{err: clock.ErrBudget} },
		Queued:     func(context.Context, string, time.Duration) {},
		Shared:     func() {},
	})
	c.calls = coalesce.New(coalesce.Options[question, *health.Proof, *call]{
		Go: o.Process.Go, Clock: c.clock, Budget: c.budget() + grace, Left: errLeft,
		Window: shareWindow, Prompt: promptCalls, Max: maxCalls, Reserve: o.RPCTimeout + 2*shareWindow + grace, // one is for the lookup
		Start: c.start, Finish: c.report, Unanswered: c.unanswered, Shared: o.Trace.Shared,
		Queued: func(ctx context.Context, _ question, due time.Duration) { c.redial(ctx, due-grace) },
	})
	return c
}

func (c *Checker) budget() time.Duration { return c.o.ConnectTimeout + c.o.RPCTimeout }

// Close gives the connections up; those that checks are using are closed when these end.
func (c *Checker) Close() {
	c.mu.Lock()
	c.closed = true
	for _, p := range c.places {
		p.checker.Close()
	}
	c.mu.Unlock()
	if c.own {
		c.o.Process.Close()
	}
}

// question is what a call asks each address.
type question struct {
	service string
	list    bool
}

// Check asks every address how the service is; the empty name is the whole server. It answers within ConnectTimeout + RPCTimeout. It is a
// health.Func; check.Checker.Check says what else holds.
func (c *Checker) Check(ctx context.Context, service string) health.Verdict {
	return c.Proof(ctx, service).Verdict
}

// Proof is Check, with the evidence.
func (c *Checker) Proof(ctx context.Context, service string) *health.Proof {
	return c.calls.Do(ctx, question{service: service})
}

// List asks every address for all the services that it knows, and returns a verdict about each service that one of them knows, sorted by name.
// Where too few addresses answer, the one verdict it returns has no name.
func (c *Checker) List(ctx context.Context) []health.Verdict {
	return c.calls.Do(ctx, question{list: true}).Verdicts()
}

// Names asks one address after the other which services it has, as check.Checker.Names does, until one says.
func (c *Checker) Names(ctx context.Context) []string {
	for _, p := range c.known() {
		if names := p.checker.Names(ctx); len(names) > 0 {
			return names
		}
	}
	return nil
}

// redial is for those who wait for checks that are stuck in old dials.
func (c *Checker) redial(ctx context.Context, due time.Duration) {
	for _, p := range c.known() {
		p.checker.Redial(ctx, due)
	}
}

func (c *Checker) start(ctx context.Context, q question, now clock.Reading, due time.Duration) *call {
	return &call{c: c, ctx: ctx, question: q, began: now, due: due - grace}
}

// admit takes as much of the limit for names that callers made up as a call may need, or none where there is not enough. The call gives it back.
func (c *Checker) admit(q question) (weight int64, ok bool) {
	if q.list || slices.Contains(health.Configured(c.o.Services), q.service) {
		return 0, true
	}
	weight = atOnce
	c.mu.Lock()
	if n := len(c.places); n > 0 {
		weight = min(weight, int64(n))
	}
	c.mu.Unlock()
	weight = min(weight, int64(c.o.MaxConcurrent))
	if c.madeUp.Add(weight) > int64(c.o.MaxConcurrent) {
		c.madeUp.Add(-weight)
		return 0, false
	}
	return weight, true
}

// unanswered is the result of callers whose time is up, or whose context has ended.
func (c *Checker) unanswered(ctx context.Context, q question, arrived clock.Reading, w *call, started bool) *health.Proof {
	r := &health.Proof{Verdict: health.Verdict{Status: health.Timeout, Phase: health.PhaseRPC, Err: c.late()}}
	if w != nil && started {
		r = w.result(true)
	}
	r.List = nil
	if ctx.Err() != nil && !errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
		// The caller has left, or has given less time than a check may take: this says nothing about the upstream.
		r.Verdict.Service, r.Verdict.List, r.Verdict.Err = q.service, q.list, context.Cause(ctx)
		return r
	}
	if r.Verdict.Status == health.Serving || q.list && !r.Verdict.List { // not all is known
		r.Verdict.Status, r.Verdict.Phase, r.Verdict.Err = health.Timeout, health.PhaseRPC, c.late()
	}
	return c.report(ctx, q, arrived, r)
}

// late is the cause of a verdict for which there was no more time.
func (c *Checker) late() error { return fmt.Errorf("no answer within %v", c.budget()) }

// report completes a result and tells the Trace, before any caller gets it.
func (c *Checker) report(ctx context.Context, q question, began clock.Reading, r *health.Proof) *health.Proof {
	took, at := c.clock.Now().Since(began.Moment), time.Now()
	complete := func(v *health.Verdict) {
		v.Duration, v.At = took, at
		v.Since, v.EvidenceID = c.o.Trace.Verdict(ctx, *v, r.Evidence)
	}
	if r.List == nil {
		r.Verdict.Service, r.Verdict.List = q.service, q.list
		complete(&r.Verdict)
	}
	for i := range r.List {
		complete(&r.List[i])
	}
	return r
}

// lookup asks for the addresses of one family.
type lookup struct {
	dialer  *dial.Dialer
	ctx     context.Context
	network string
}

// found is what a lookup came to.
type found struct {
	addresses []target.Address
	err       error // set where there are none
}

// Run is that of coalesce.Work.
func (l *lookup) Run() (found, clock.Reading) {
	addresses, err := l.dialer.Find(l.ctx, l.network)
	slices.SortFunc(addresses, func(a, b target.Address) int { return addrPort(a).Compare(addrPort(b)) }) // name servers change the order
	return found{addresses, err}, clock.Reading{}
}

// whole is the only address of a target without a name that is looked up here; ok is false where there is one to look up.
func (c *Checker) whole() (only target.Address, ok bool) {
	t := c.o.Target
	if c.o.Proxy != nil && !t.IsUnix() {
		if proxy, err := c.o.Proxy(t.HostPort()); err != nil || proxy != nil { // the dial says the error
			return target.Address{Network: "tcp", Text: t.HostPort()}, true
		}
	}
	switch all := t.Addresses(); len(all) {
	case 0:
		return target.Address{}, false
	case 1:
		return all[0], true
	default: // this machine, by either family
		return target.Address{Network: "tcp", Text: t.HostPort()}, true
	}
}

// place is one address with its Checker. The Checker's mutex guards users and listed.
type place struct {
	address target.Address
	checker *check.Checker
	whole   bool         // it stands for the target
	users   int          // checks in progress
	listed  clock.Moment // when the name was last seen to have it

	mu      sync.Mutex
	leaf    *x509.Certificate // that it showed last
	reached bool              // the latest check found a route
	hung    bool              // the latest check timed out
}

// enter returns the place of an address for a check, which must leave it.
func (c *Checker) enter(a target.Address, whole bool) *place {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.places[a.Text]
	if p == nil {
		p = c.newPlace(a, whole)
		c.places[a.Text] = p
	}
	p.users++
	p.listed = c.clock.Now().Moment
	return p
}

// newPlace makes the place of an address.
func (c *Checker) newPlace(a target.Address, whole bool) *place {
	p := &place{address: a, whole: whole, reached: whole}
	o := c.o
	if !whole {
		o.Lookup = only(a)
	}
	o.PromptCalls = maxCalls // calls are spread already
	trace := *o.Trace
	o.Trace = &trace
	trace.Verdict, trace.Shared = nil, nil // a verdict is about all addresses
	trace.PeerCertificate = func(leaf *x509.Certificate) {
		p.mu.Lock()
		p.leaf = leaf
		p.mu.Unlock()
		c.o.Trace.PeerCertificate(c.firstToEnd(leaf))
	}
	p.checker = check.New(o)
	return p
}

// only is a lookup that finds one address. Package dial takes it for its family alone.
func only(a target.Address) target.LookupFunc {
	ips := []netip.Addr{addrPort(a).Addr()}
	return func(context.Context, string, string, bool) ([]netip.Addr, error) { return ips, nil }
}

// addrPort reads an address that a lookup has found.
func addrPort(a target.Address) netip.AddrPort { return netip.MustParseAddrPort(a.Text) }

// leave ends the use of places, and gives up those that the name has no longer.
func (c *Checker) leave(used []*one) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.clock.Now().Moment
	for _, o := range used {
		o.place.listed = now
		if o.place.users--; o.place.users == 0 && c.closed {
			o.place.checker.Close()
		}
	}
	for address, p := range c.places {
		if p.users == 0 && now.Since(p.listed) > c.o.MaxAge && !c.closed {
			p.checker.Close()
			delete(c.places, address)
		}
	}
}

// known are the places at the moment.
func (c *Checker) known() []*place {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]*place, 0, len(c.places))
	for _, p := range c.places {
		all = append(all, p)
	}
	return all
}

// firstToEnd is the certificate that ends first of those that the addresses have shown, of which this is one.
func (c *Checker) firstToEnd(leaf *x509.Certificate) *x509.Certificate {
	for _, p := range c.known() {
		p.mu.Lock()
		if p.leaf != nil && p.leaf.NotAfter.Before(leaf.NotAfter) {
			leaf = p.leaf
		}
		p.mu.Unlock()
	}
	return leaf
}

// inert is an error with a text from outside, without secrets, and safe to read.
func (c *Checker) inert(err error) error {
	said := err.Error()
	if text := inert.Text(c.o.Redact(said)); text != said {
		return &textError{text, err}
	}
	return err
}

// textError is an error with another text.
type textError struct {
	text string
	err  error
}

func (e *textError) Error() string { return e.text }
func (e *textError) Unwrap() error { return e.err }
