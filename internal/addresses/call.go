package addresses

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"example.com/grpc-health-http/internal/clock"
	"example.com/grpc-health-http/internal/dial"
	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/internal/target"
)

// call is one check of all addresses.
type call struct {
	question
	c     *Checker
	ctx   context.Context
	began clock.Reading
	due   time.Duration // when it must have ended, in running time

	mu      sync.Mutex // guards what follows, which Run alone changes
	ones    []*one
	leftOut int // addresses that are not checked, because there are too many
	errs    [len(dial.Families)]error
	asking  int           // families without an answer
	lookup  time.Duration // how long the lookup took
}

// one is the check of one address.
type one struct {
	place  *place
	queued bool // it had to wait for its turn
	begun  bool
	ended  bool

	health.AddressVerdict
	list     []health.Verdict // set for a List that was answered
	evidence health.Evidence
}

// Run is that of coalesce.Work.
func (w *call) Run() (*health.Proof, clock.Reading) {
	weight, ok := w.c.admit(w.question)
	if !ok {
		err := errors.New("too many checks of names that are not configured are in progress")
		return &health.Proof{Verdict: health.Verdict{Status: health.Overloaded, Err: err}}, clock.Reading{}
	}
	defer w.c.madeUp.Add(-weight)
	ctx, cancel := w.c.clock.WithBudget(w.ctx, w.due-w.c.clock.Now().Running)
	defer cancel()
	answers := make(chan answer, len(w.errs))
	var waiting []*one
	if whole, ok := w.c.whole(); ok {
		waiting = w.add([]target.Address{whole}, true)
	} else {
		w.asking = len(w.errs)
		for i, network := range dial.Families {
			go func() { answers <- answer{i, w.c.lookups.Do(ctx, network)} }()
		}
	}
	ended := make(chan *one)
	for running := 0; ; {
		for running < atOnce && len(waiting) > 0 && w.c.hasTurn(ctx, waiting, running == 0) {
			o := waiting[0]
			waiting = waiting[1:]
			w.change(func() { o.begun = true })
			running++
			w.c.o.Process.Go(func() {
				defer func() { <-w.c.turns }()
				ended <- w.check(ctx, o)
			})
		}
		for _, o := range waiting {
			o.queued = true
		}
		if running == 0 && w.asking == 0 {
			break
		}
		select {
		case a := <-answers:
			w.change(func() {
				w.asking--
				w.errs[a.family] = a.err
				w.lookup = w.c.clock.Now().Since(w.began.Moment)
			})
			waiting = append(waiting, w.add(a.addresses, false)...)
			slices.SortStableFunc(waiting, hungLast)
		case o := <-ended:
			running--
			w.change(func() { o.ended = true })
		}
	}
	defer w.c.leave(w.ones)
	return w.result(false), clock.Reading{}
}

// hasTurn says that the first of those who wait may begin. Where the limit of all calls is reached, it waits for that if it must; else one of the
// call's own checks will end.
func (c *Checker) hasTurn(ctx context.Context, waiting []*one, must bool) bool {
	if ctx.Err() != nil {
		return false
	}
	select {
	case c.turns <- struct{}{}:
		return true
	default:
	}
	if !must {
		return false
	}
	waiting[0].queued = true
	select {
	case c.turns <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// answer is what the lookup of a family, an index into dial.Families, came to.
type answer struct {
	family int
	found
}

func (w *call) change(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

// add takes addresses in, as many as may be checked.
func (w *call) add(addresses []target.Address, whole bool) []*one {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := min(len(addresses), maxAddresses-len(w.ones))
	w.leftOut += len(addresses) - n
	var added []*one
	for _, a := range addresses[:n] {
		added = append(added, &one{place: w.c.enter(a, whole), AddressVerdict: health.AddressVerdict{Address: a.String()}})
	}
	w.ones = append(w.ones, added...)
	return added
}

// hungLast lets those that timed out last time wait for the others: they take their time, and the others need little of it.
func hungLast(a, b *one) int {
	switch x, y := a.place.timedOut(), b.place.timedOut(); {
	case x == y:
		return 0
	case x:
		return 1
	}
	return -1
}

func (p *place) timedOut() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.hung
}

func (p *place) isReached() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.reached
}

var (
	errNotBegun = errors.New("its check could not begin in time")
	errLate     = errors.New("its check began too late to end in time")
)

// check makes the check of one address.
func (w *call) check(ctx context.Context, o *one) *one {
	p := o.place
	began := w.c.clock.Now()
	routed := p.isReached() || w.c.dialer.HasRoute(ctx, p.address)
	var v health.Verdict
	var evidence health.Evidence
	var list []health.Verdict
	if routed {
		var proof *health.Proof
		if w.list {
			proof = p.checker.ListProof(ctx)
		} else {
			proof = p.checker.Proof(ctx, w.service)
		}
		v, list, evidence = proof.Verdict, proof.List, proof.Evidence
		if list != nil {
			v.Status = health.Serving
		}
		if v.Status == health.ConnectionFailed && v.Phase == health.PhaseConnect && !p.whole {
			routed = w.c.dialer.HasRoute(ctx, p.address)
		}
	}
	p.mu.Lock()
	p.reached, p.hung = routed, v.Status == health.Timeout
	p.mu.Unlock()
	switch cut := v.Status != health.Serving && v.At.IsZero() && ctx.Err() != nil; {
	case !routed:
		v = health.Verdict{Status: health.ConnectionFailed, Phase: health.PhaseConnect, Err: health.ErrNoRoute}
	case cut && o.queued:
		v = health.Verdict{Status: health.Overloaded, Err: errLate}
	case cut:
		v.Err = w.c.late()
	}
	if v.Duration == 0 {
		v.Duration = w.c.clock.Now().Since(began.Moment)
	}
	evidence.Attempts = slices.Clone(evidence.Attempts) // others have it too
	for i := range evidence.Attempts {
		if !p.whole {
			evidence.Attempts[i].Address = o.Address
		}
	}
	w.change(func() {
		o.set(v)
		o.NoRoute, o.list, o.evidence = !routed, list, evidence
	})
	return o
}

func (o *one) set(v health.Verdict) {
	o.Status, o.Code, o.Asked, o.Phase, o.Duration, o.Err = v.Status, v.Code, v.Asked, v.Phase, v.Duration, v.Err
}

// state is what is known of an address now.
func (o *one) state(late error) health.AddressVerdict {
	a := o.AddressVerdict
	switch {
	case !o.begun:
		a.Status, a.Err = health.Overloaded, errNotBegun
	case !o.ended:
		a.Status, a.Phase, a.Err = health.Timeout, health.PhaseRPC, late
	}
	return a
}

// result makes one of what is known. early says that the check has not ended yet.
func (w *call) result(early bool) *health.Proof {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.ones) == 0 {
		return w.notFound(early)
	}
	r := new(health.Proof)
	all := make([]health.AddressVerdict, len(w.ones))
	for i, o := range w.ones {
		all[i] = o.state(w.c.late())
		if o.Status != health.Serving || w.list {
			r.Evidence.Attempts = append(r.Evidence.Attempts, o.evidence.Attempts...)
		}
	}
	r.Verdict = w.c.combine(all, w.leftOut)
	if without := w.c.dialer.Without(w.errs); without != nil && r.Verdict.Status != health.Serving {
		r.Verdict.Err = w.c.inert(join(r.Verdict.Err, without))
	}
	if w.list && r.Verdict.Status == health.Serving && !early {
		r.List = w.servicesLocked()
	}
	return r
}

// join is two errors in a line; the first may be nil.
func join(first, second error) error {
	if first == nil {
		return second
	}
	return fmt.Errorf("%w; %w", first, second)
}

// notFound is the result where no address is known.
func (w *call) notFound(early bool) *health.Proof {
	r := new(health.Proof)
	took := w.c.clock.Now().Since(w.began.Moment)
	err := w.c.late()
	if !early {
		err = w.c.inert(w.c.dialer.NotFound(w.errs))
		w.c.o.Trace.Dial(string(health.PhaseDNS))
	}
	r.Verdict = health.Verdict{Status: health.ConnectionFailed, Phase: health.PhaseDNS, Err: err}
	if early || errors.Is(err, clock.ErrBudget) {
		r.Verdict.Status = health.Timeout
	}
	r.Evidence.Attempts = []health.Attempt{{Dial: health.Dial{Phase: health.PhaseDNS, Lookup: took, Took: took, Err: err}}}
	return r
}
