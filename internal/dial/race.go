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
// for all) or at once when that one has failed. The first usable connection wins; the others are closed.
func (dl *Dialer) race(ctx context.Context, routes []route, tc credentials.TransportCredentials, p *Progress) (*grpcconn.Conn, health.Dial) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends those that did not win
	type finish struct {
		conn *grpcconn.Conn
		health.AddressAttempt
	}
	finished := make(chan finish, len(routes))
	started, running := 0, 0
	start := func() {
		if started == len(routes) || started > 0 && ctx.Err() != nil {
			return
		}
		to, i := routes[started], 0
		started, running = started+1, running+1
		p.record(func(d *health.Dial) { // also in a second race: what the addresses met before stays
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
			finished <- finish{c, a}
		}()
	}
	delay := max(leastDelay, min(raceDelay, dl.o.ConnectTimeout/time.Duration(len(routes))))
	next := time.NewTicker(delay)
	defer next.Stop()
	var furthest health.AddressAttempt // says most about what is wrong
	for start(); running > 0; {
		select {
		case <-next.C:
			start()
		case f := <-finished:
			running--
			if f.conn == nil {
				if furthest.Err == nil || f.Phase.Beyond(furthest.Phase) {
					furthest = f.AddressAttempt
				}
				start()
				next.Reset(delay)
				continue
			}
			go func() {
				for range running {
					if late := <-finished; late.conn != nil {
						late.conn.Close()
					}
				}
			}()
			return f.conn, p.end(health.PhaseNone, nil)
		}
	}
	return nil, p.end(furthest.Phase, furthest.Err)
}
