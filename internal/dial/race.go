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
// for all) or at once when that one has failed. The first usable connection wins; the others are closed. It adds
// the addresses to d, and sets its Phase and Err.
func (dl *Dialer) race(ctx context.Context, routes []route, tc credentials.TransportCredentials, d *health.Dial, p *Progress) *grpcconn.Conn {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends those that did not win
	type finish struct {
		i    int
		conn *grpcconn.Conn
		health.AddressAttempt
	}
	finished := make(chan finish, len(routes))
	first := len(d.Addresses)
	started, running := 0, 0
	start := func() {
		if started == len(routes) || started > 0 && ctx.Err() != nil {
			return
		}
		i := started
		started, running = started+1, running+1
		d.Addresses = append(d.Addresses, health.AddressAttempt{})
		go func() {
			c, a := dl.connect(ctx, routes[i], tc, func(a health.AddressAttempt) { p.address(first+i, a) })
			p.address(first+i, a)
			finished <- finish{i, c, a}
		}()
	}
	delay := max(leastDelay, min(raceDelay, dl.o.ConnectTimeout/time.Duration(len(routes))))
	next := time.NewTicker(delay)
	defer next.Stop()
	for start(); running > 0; {
		select {
		case <-next.C:
			start()
		case f := <-finished:
			running--
			d.Addresses[first+f.i] = f.AddressAttempt
			if f.conn == nil {
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
			d.Phase, d.Err = health.PhaseNone, nil
			return f.conn
		}
	}
	// The address that came furthest says most about what is wrong.
	for i, a := range d.Addresses[first:] {
		if i == 0 || a.Phase.Beyond(d.Phase) {
			d.Phase, d.Err = a.Phase, a.Err
		}
	}
	return nil
}
