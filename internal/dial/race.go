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

// raceDelay is the head start that an address has before the next one is tried beside it, and leastDelay the
// least where the budget is short: the Connection Attempt Delays that RFC 8305, section 5, recommends.
const (
	raceDelay  = 250 * time.Millisecond
	leastDelay = 10 * time.Millisecond
)

// queue holds the routes that wait for their turn.
type queue struct {
	found [families][]route // those that the lookup has found
	turn  family            // whose turn it is
	last  []route           // those that come after them, or need no lookup
	all   int               // how many there have been
}

// next takes the next route: the families alternate, IPv6 first, so that one without a route delays the other by one step
// only (RFC 8305, section 4).
func (q *queue) next() (to route, ok bool) {
	for _, f := range [...]family{q.turn, families - 1 - q.turn} {
		if waiting := q.found[f]; len(waiting) > 0 {
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

// race tries the routes, those that it begins with and those to the addresses that the lookup finds, each raceDelay after the one
// before (earlier where the budget would not suffice for all) or at once when that one has failed. The first usable
// connection wins; the others are closed. IPv4 addresses wait for the answer about IPv6 ones for resolutionDelay at most. Where TLS has
// failed, reading the credentials again comes last in this order, and then, if it brings new ones, the routes on which TLS has failed:
// routes that lead nowhere do not hold that up.
func (dl *Dialer) race(ctx context.Context, host string, routes []route, tc credentials.TransportCredentials, p *Progress) (*grpcconn.Conn, health.Dial) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends those that did not win
	type finish struct {
		conn *grpcconn.Conn
		health.AddressAttempt
		to    route
		fresh credentials.TransportCredentials // set where the credentials were read again
	}
	finished := make(chan finish)
	q := queue{last: routes, all: len(routes)}
	began := time.Now()
	var answers <-chan answer
	var errs [families]error
	unanswered := 0           // families
	var held <-chan time.Time // while the IPv4 addresses wait for the answer about IPv6 ones
	if host != "" {
		answers, unanswered = dl.lookup(ctx, host), int(families)
	}
	delay := func() time.Duration {
		return max(leastDelay, min(raceDelay, dl.o.ConnectTimeout/time.Duration(max(1, q.all))))
	}
	next := time.NewTicker(delay())
	defer next.Stop()
	due := false // the next one may start, when there is one
	started, running := 0, 0
	var again []route // on which TLS has failed
	refreshed := false
	refresh := func() {
		refreshed = true
		go func() {
			fresh, err := dl.credentials(ctx, true)
			if err != nil {
				fresh = tc
			}
			finished <- finish{fresh: fresh}
		}()
	}
	try := func(to route) {
		if started++; started == 1 && host != "" {
			p.record(func(d *health.Dial) { d.Lookup = time.Since(began) })
		}
		tc, i := tc, 0
		p.record(func(d *health.Dial) { // also a second time: what the address met before stays
			i = len(d.Addresses)
			d.Addresses = append(d.Addresses, health.AddressAttempt{Address: to.String()})
		})
		record := func(a health.AddressAttempt) {
			p.record(func(d *health.Dial) {
				d.Addresses[i] = a
				if a.Err == nil {
					d.Phase = a.Phase
				}
			})
		}
		go func() {
			c, a := dl.connect(ctx, to, tc, record)
			record(a)
			finished <- finish{conn: c, AddressAttempt: a, to: to}
		}()
	}
	begin := func() {
		if held != nil || started > 0 && ctx.Err() != nil {
			return
		}
		to, ok := q.next()
		switch {
		case ok:
			try(to)
		case len(again) > 0 && !refreshed:
			refresh()
		default:
			return
		}
		running++
		due = false
		next.Reset(delay())
	}
	start := func() { due = true; begin() }
	var furthest health.AddressAttempt // says most about what is wrong
	outdated := false                  // it was met with credentials that have been replaced
	for start(); running > 0 || unanswered > 0; {
		select {
		case <-next.C:
			start()
		case <-held:
			held = nil
		case a := <-answers:
			unanswered--
			errs[a.family] = a.err
			for _, ip := range a.ips {
				q.found[a.family] = append(q.found[a.family], route{Address: dl.o.Target.At(ip)})
				q.all++
			}
			if a.family == ipv6 {
				held = nil
			} else if len(a.ips) > 0 && unanswered > 0 {
				held = time.After(min(resolutionDelay, dl.o.ConnectTimeout/4))
			}
		case f := <-finished:
			running--
			due = true
			switch {
			case f.conn != nil:
				go func() {
					for range running {
						if late := <-finished; late.conn != nil {
							late.conn.Close()
						}
					}
				}()
				return f.conn, p.end(health.PhaseNone, nil)
			case f.fresh == nil:
				if furthest.Err == nil || outdated || f.Phase.Beyond(furthest.Phase) || noRoute(furthest.Err) && !noRoute(f.Err) {
					furthest, outdated = f.AddressAttempt, false
				}
				if f.Phase == health.PhaseTLS && !refreshed {
					again = append(again, f.to)
				}
			case f.fresh != tc:
				dl.o.Trace.Retry("credentials")
				tc, outdated = f.fresh, true // what was met with the old ones says nothing about the peer
				q.last = append(q.last, again...)
				q.all += len(again)
			}
		}
		if due {
			begin()
		}
	}
	if started == 0 {
		p.record(func(d *health.Dial) { d.Lookup = time.Since(began) })
		return nil, p.end(health.PhaseDNS, dl.lookupError(ctx, errs))
	}
	switch missing := dl.without(ctx, errs); {
	case missing == nil:
		return nil, p.end(furthest.Phase, furthest.Err)
	case noRoute(furthest.Err):
		return nil, p.end(health.PhaseDNS, fmt.Errorf("%w; and %w", missing, furthest.Err))
	default:
		return nil, p.end(furthest.Phase, fmt.Errorf("%w; %v", furthest.Err, missing))
	}
}

// noRoute says that this machine has no way to an address, as one without IPv6 has none to an IPv6 address.
func noRoute(err error) bool {
	return errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EAFNOSUPPORT)
}
