package dial

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"google.golang.org/grpc/credentials"

	"example.com/grpc-health-http/internal/grpcconn"
	"example.com/grpc-health-http/internal/health"
)

const (
	// raceDelay is the head start that an address has before the next one is tried beside it: the Connection Attempt Delay that
	// RFC 8305, section 5, recommends.
	raceDelay = 250 * time.Millisecond
	// maxAddresses is how many addresses of a name are tried.
	maxAddresses = 64
)

// queue holds the routes that wait for their turn.
type queue struct {
	found [families][]route // those that the lookup has found
	taken int               // how many of those had their turn, maxAddresses at most
	turn  family            // whose turn it is
	last  []route           // those that come after them, or need no lookup
}

func (q *queue) len() int {
	return min(len(q.found[ipv6])+len(q.found[ipv4]), maxAddresses-q.taken) + len(q.last)
}

// next takes the next route: the families alternate, IPv6 first, so that one without a route delays the other by one step
// only (RFC 8305, section 4).
func (q *queue) next() (to route, ok bool) {
	for _, f := range [...]family{q.turn, families - 1 - q.turn} {
		if waiting := q.found[f]; len(waiting) > 0 && q.taken < maxAddresses {
			q.taken++
			q.found[f], q.turn = waiting[1:], families-1-f
			return waiting[0], true
		}
	}
	if len(q.last) == 0 {
		return route{}, false
	}
	to, q.last = q.last[0], q.last[1:]
	return to, true
}

// race is the routes to one target, tried side by side: those that it begins with, and those to the addresses that the lookup finds.
// Each begins raceDelay after the one before (earlier where the budget would not suffice for all) or at once when that one has
// failed. IPv4 addresses wait for the answer about IPv6 ones for resolutionDelay at most. Where TLS has failed, reading the
// credentials again comes last in this order, and then, if it brings new ones, the routes on which TLS has failed: routes that lead
// nowhere do not hold that up.
type race struct {
	*Dialer
	ctx   context.Context
	p     *Progress
	tc    credentials.TransportCredentials
	began time.Time

	errs       [families]error  // why a family has no addresses
	unanswered int              // families
	held       <-chan time.Time // not nil while the IPv4 addresses wait for the answer about IPv6 ones

	waiting          queue
	started, running int
	latest           time.Time   // when the latest one started
	timer            *time.Timer // for the next one
	due              bool        // the next one may start
	finished         chan finish // what has run

	again     []route               // on which TLS has failed
	refreshed bool                  // the credentials are read again, or have been
	furthest  health.AddressAttempt // says most about what is wrong
	outdated  bool                  // furthest was met with credentials that have been replaced
}

// finish is the end of a connection attempt, or of reading the credentials again.
type finish struct {
	conn *grpcconn.Conn
	health.AddressAttempt
	to    route
	fresh credentials.TransportCredentials // set where the credentials were read
}

// race returns the first usable connection; the others are closed. An empty host needs no lookup.
func (dl *Dialer) race(ctx context.Context, host string, routes []route, tc credentials.TransportCredentials, p *Progress) (*grpcconn.Conn, health.Dial) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends those that did not win
	r := &race{
		Dialer: dl, ctx: ctx, p: p, tc: tc, began: time.Now(), waiting: queue{last: routes}, timer: time.NewTimer(0), finished: make(chan finish),
	}
	defer r.timer.Stop()
	var answers <-chan answer
	if host != "" {
		answers, r.unanswered = dl.lookup(ctx, host), int(families)
	}
	for r.due = true; ; {
		if r.due {
			r.begin()
		}
		if r.running == 0 && r.unanswered == 0 {
			return nil, r.failure()
		}
		select {
		case <-r.timer.C:
			r.due = true
		case <-r.held:
			r.held = nil
		case a := <-answers:
			r.add(a)
		case f := <-r.finished:
			r.running--
			r.due = true
			if f.conn != nil {
				go r.closeLosers(r.running)
				return f.conn, p.end(health.PhaseNone, nil)
			}
			r.take(f)
		}
	}
}

// closeLosers closes what connects although another one has won.
func (r *race) closeLosers(running int) {
	for range running {
		if f := <-r.finished; f.conn != nil {
			f.conn.Close()
		}
	}
}

// begin begins what is next, if there is anything.
func (r *race) begin() {
	if r.held != nil || r.started > 0 && r.ctx.Err() != nil {
		return
	}
	to, ok := r.waiting.next()
	switch {
	case ok:
		r.try(to)
	case len(r.again) > 0 && !r.refreshed:
		r.refresh()
	default:
		return
	}
	r.running++
	r.due, r.latest = false, time.Now()
	r.timer.Reset(r.delay())
}

// delay is the time between two routes, so that the rest of the budget suffices for all, also for reading the credentials again
// and the routes that may follow from that.
func (r *race) delay() time.Duration {
	left := r.o.ConnectTimeout - r.clock.Now().Since(r.p.began)
	steps := r.waiting.len()
	if len(r.again) > 0 && !r.refreshed {
		steps += 1 + len(r.again)
	}
	return min(raceDelay, left/time.Duration(steps+1))
}

// add takes the answer about a family. The more addresses there are, the sooner the next one begins.
func (r *race) add(a answer) {
	r.unanswered--
	r.errs[a.family] = a.err
	for _, ip := range a.ips[:min(len(a.ips), maxAddresses)] {
		r.waiting.found[a.family] = append(r.waiting.found[a.family], route{Address: r.o.Target.At(ip)})
	}
	switch {
	case a.family == ipv6:
		r.held = nil
	case len(a.ips) > 0 && r.unanswered > 0:
		r.held = time.After(min(resolutionDelay, r.o.ConnectTimeout/4))
	}
	if !r.due {
		r.timer.Reset(r.delay() - time.Since(r.latest))
	}
}

// try begins to connect.
func (r *race) try(to route) {
	if r.started++; r.started == 1 && r.waiting.taken > 0 {
		r.p.record(func(d *health.Dial) { d.Lookup = time.Since(r.began) })
	}
	i, tc := 0, r.tc
	r.p.record(func(d *health.Dial) { // also a second time: what the address met before stays
		i = len(d.Addresses)
		d.Addresses = append(d.Addresses, health.AddressAttempt{Address: to.String()})
	})
	record := func(a health.AddressAttempt) {
		r.p.record(func(d *health.Dial) {
			d.Addresses[i] = a
			if a.Err == nil {
				d.Phase = a.Phase
			}
		})
	}
	go func() {
		c, a := r.connect(r.ctx, to, tc, record)
		record(a)
		r.finished <- finish{conn: c, AddressAttempt: a, to: to}
	}()
}

// refresh begins to read the credentials again.
func (r *race) refresh() {
	r.refreshed = true
	tc := r.tc
	go func() {
		fresh, err := r.credentials(r.ctx, true)
		if err != nil {
			fresh = tc
		}
		r.finished <- finish{fresh: fresh}
	}()
}

// take takes what has run and brought no connection.
func (r *race) take(f finish) {
	switch {
	case f.fresh == nil:
		if r.furthest.Err == nil || r.outdated || f.Phase.Beyond(r.furthest.Phase) || noRoute(r.furthest.Err) && !noRoute(f.Err) {
			r.furthest, r.outdated = f.AddressAttempt, false
		}
		if f.Phase == health.PhaseTLS && !r.refreshed {
			r.again = append(r.again, f.to)
		}
	case f.fresh != r.tc:
		r.o.Trace.Retry("credentials")
		r.tc, r.outdated = f.fresh, true // what was met with the old ones says nothing about the peer
		r.waiting.last = append(r.waiting.last, r.again...)
	}
}

// failure is what to tell where no route led to a connection.
func (r *race) failure() health.Dial {
	if r.started == 0 {
		r.p.record(func(d *health.Dial) { d.Lookup = time.Since(r.began) })
		return r.p.end(health.PhaseDNS, r.lookupError(r.ctx, r.errs))
	}
	switch missing := r.without(r.ctx, r.errs); {
	case missing == nil:
		return r.p.end(r.furthest.Phase, r.furthest.Err)
	case noRoute(r.furthest.Err):
		return r.p.end(health.PhaseDNS, fmt.Errorf("%w; and %w", missing, r.furthest.Err))
	default:
		return r.p.end(r.furthest.Phase, fmt.Errorf("%w; %v", r.furthest.Err, missing))
	}
}

// noRoute says that this machine has no way to an address, as one without IPv6 has none to an IPv6 address.
func noRoute(err error) bool {
	return errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EAFNOSUPPORT)
}
