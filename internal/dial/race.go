package dial

import (
	"context"
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

// race tries the routes, each raceDelay after the one before (earlier where the budget would not suffice
// for all) or at once when that one has failed. The first usable connection wins; the others are closed. Where TLS has failed, reading
// the credentials again comes last in this order, and then, if it brings new ones, the routes on which TLS has failed: routes that
// lead nowhere do not hold that up.
func (dl *Dialer) race(ctx context.Context, routes []route, tc credentials.TransportCredentials, p *Progress) (*grpcconn.Conn, health.Dial) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends those that did not win
	type finish struct {
		conn *grpcconn.Conn
		health.AddressAttempt
		to    route
		fresh credentials.TransportCredentials // set where the credentials were read again
	}
	finished := make(chan finish, 2*len(routes)+1)
	delay := max(leastDelay, min(raceDelay, dl.o.ConnectTimeout/time.Duration(len(routes))))
	started, running := 0, 0
	var again []route // on which TLS has failed
	refreshed := false
	start := func() {
		switch {
		case started > 0 && ctx.Err() != nil:
			return
		case started < len(routes):
		case len(again) > 0 && !refreshed:
			refreshed = true
			running++
			go func() {
				fresh, err := dl.credentials(ctx, true)
				if err != nil {
					fresh = tc
				}
				finished <- finish{fresh: fresh}
			}()
			return
		default:
			return
		}
		to, tc, i := routes[started], tc, 0
		started, running = started+1, running+1
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
	next := time.NewTicker(delay)
	defer next.Stop()
	var furthest health.AddressAttempt // says most about what is wrong
	for start(); running > 0; {
		select {
		case <-next.C:
			start()
		case f := <-finished:
			running--
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
				if furthest.Err == nil || f.Phase.Beyond(furthest.Phase) {
					furthest = f.AddressAttempt
				}
				if f.Phase == health.PhaseTLS && !refreshed {
					again = append(again, f.to)
				}
			case f.fresh != tc:
				dl.o.Trace.Retry("credentials")
				tc, routes = f.fresh, append(routes, again...)
				furthest = health.AddressAttempt{} // with the old ones it says nothing about the peer
			}
			start()
			next.Reset(delay)
		}
	}
	return nil, p.end(furthest.Phase, furthest.Err)
}
