package dial

import (
	"context"
	"errors"

	"example.com/grpc-health-http/internal/clock"
	"example.com/grpc-health-http/internal/target"
)

// Families are the networks that Find takes.
var Families = [families]string{ipv6: ipv6.network(), ipv4: ipv4.network()}

// Find looks the target's name up in one family, as Dial does: again where there is no answer, and within the ConnectTimeout, at the end of
// which the error is clock.ErrBudget. There is an error where there are no addresses.
func (dl *Dialer) Find(ctx context.Context, network string) ([]target.Address, error) {
	ctx, cancel := dl.clock.WithBudget(ctx, dl.o.ConnectTimeout)
	defer cancel()
	f := ipv4
	if network == ipv6.network() {
		f = ipv6
	}
	ips, err := dl.ask(ctx, f, dl.o.Target.Name())
	if err != nil {
		return nil, err
	}
	addresses := make([]target.Address, len(ips))
	for i, ip := range ips {
		addresses[i] = dl.o.Target.At(ip)
	}
	return addresses, nil
}

// NotFound is the cause where Find has found no address in either family; the errors are in the order of Families.
func (dl *Dialer) NotFound(errs [families]error) error { return dl.lookupError(endedAs(errs), errs) }

// Without says which addresses are missing because their lookup came to no answer; nil where none are.
func (dl *Dialer) Without(errs [families]error) error { return dl.without(endedAs(errs), errs) }

// endedAs is a context that has ended as the lookups did; one that has not where each of them was answered.
func endedAs(errs [families]error) context.Context {
	for _, err := range errs {
		if errors.Is(err, clock.ErrBudget) {
			ctx, cancel := context.WithCancelCause(context.Background())
			cancel(clock.ErrBudget)
			return ctx
		}
	}
	return context.Background()
}

// HasRoute says whether this machine has a route to an address. It sends nothing: connecting a UDP socket only looks the route up. So an error
// that a router sent, or that this machine has no more ports, is no lack of a route.
func (dl *Dialer) HasRoute(ctx context.Context, a target.Address) bool {
	if a.Network != "tcp" {
		return true
	}
	conn, err := dl.o.Connect(ctx, "udp", a.Text)
	if err != nil {
		return !noRoute(err)
	}
	conn.Close()
	return true
}
