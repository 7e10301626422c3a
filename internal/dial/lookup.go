package dial

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"
)

const (
	// resolutionDelay is how long the IPv4 addresses wait for the IPv6 ones: the Resolution Delay of RFC 8305, section 3.
	resolutionDelay = 50 * time.Millisecond
	// questions is how often one address family is asked for in one dial, a quarter of the budget apart, within shortestAgain and longestAgain: a
	// datagram may be lost, of the question or of the answer. Each question is listened for to the end.
	questions     = 3
	shortestAgain = 10 * time.Millisecond
	longestAgain  = time.Second
)

// family is an address family, an index into what there is for each.
type family int

const (
	ipv6 family = iota
	ipv4
	families
)

func (f family) String() string { return [...]string{"IPv6", "IPv4"}[f] }

// network is how package net names the family in a lookup.
func (f family) network() string { return [...]string{"ip6", "ip4"}[f] }

// answer is what the lookup of one family came to.
type answer struct {
	family family
	ips    []netip.Addr
	err    error // set where there are none
}

// lookup asks for the addresses of the target's host, the families apart, and gives each family's answer as it comes. The last
// one comes with the context's end at the latest.
func (dl *Dialer) lookup(ctx context.Context, host string) <-chan answer {
	answers := make(chan answer, families)
	for f := range families {
		go func() {
			ips, err := dl.ask(ctx, f, host)
			answers <- answer{f, ips, err}
		}()
	}
	return answers
}

// ask asks for one family until there is an answer that asking again does not change, or every question, two at least, has failed.
func (dl *Dialer) ask(ctx context.Context, f family, host string) ([]netip.Addr, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	lookup := dl.o.Lookup
	if lookup == nil {
		lookup = dl.o.Target.Lookup
	}
	answers := make(chan answer, questions)
	asked, failed := 0, 0
	question := func() {
		again := asked > 0
		asked++
		go func() {
			ips, err := lookup(ctx, f.network(), host, again)
			answers <- answer{ips: ofFamily(ips, f), err: err}
		}()
	}
	question()
	ticker := time.NewTicker(max(shortestAgain, min(dl.o.ConnectTimeout/4, longestAgain)))
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			if asked < questions {
				question()
			}
		case a := <-answers:
			switch {
			case ctx.Err() != nil:
				return nil, context.Cause(ctx)
			case a.err == nil && len(a.ips) == 0:
				return nil, errNoAddresses
			case !temporary(a.err):
				return a.ips, a.err
			}
			if failed++; failed == asked && (asked > 1 || dl.o.Redial > 0) { // a Redial asks again soon enough
				return nil, a.err
			}
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// ofFamily are the addresses of the family, without those that come twice.
func ofFamily(ips []netip.Addr, f family) []netip.Addr {
	var all []netip.Addr
	for _, ip := range ips {
		if ip = ip.Unmap(); ip.Is4() == (f == ipv4) && !slices.Contains(all, ip) {
			all = append(all, ip)
		}
	}
	return all
}

var errNoAddresses = errors.New("it has no addresses")

// temporary says that the name server did not say whether there are addresses: it answered with a failure of its own, or could
// not be asked.
func temporary(err error) bool {
	failed, ok := errors.AsType[*net.DNSError](err)
	return ok && !failed.IsNotFound && (failed.IsTemporary || failed.IsTimeout)
}

// noSuch says that an error of a lookup is the answer that there are no addresses.
func noSuch(err error) bool {
	if failed, ok := errors.AsType[*net.DNSError](err); ok {
		return failed.IsNotFound
	}
	_, ok := errors.AsType[*net.AddrError](err) // the hosts file has addresses of the other family
	return ok || errors.Is(err, errNoAddresses)
}

// lookupError is the cause of a dial whose lookup found no address at all. errs has an error for each family.
func (dl *Dialer) lookupError(ctx context.Context, errs [families]error) error {
	const what = "look up the target's host: "
	at := ""
	if server := dl.o.Target.NameServer(); server != "" {
		at = " by " + server
	}
	ended := context.Cause(ctx)
	var silent []family
	said := errs[ipv4] // what says most
	for f, err := range errs {
		switch {
		case ended != nil && errors.Is(err, ended):
			silent = append(silent, family(f))
		case !noSuch(err) || said == nil || ended != nil && errors.Is(said, ended):
			said = err
		}
	}
	not := "the target's host was not looked up" + at
	switch {
	case len(silent) == 0 && errors.Is(said, errNoAddresses):
		return errors.New(what + "it has no addresses")
	case len(silent) == 0:
		return fmt.Errorf(what+"%w", said)
	case len(silent) == 1 && noSuch(said):
		not = fmt.Sprintf("the %v addresses of the target's host were not looked up%s", silent[0], at)
	case len(silent) == 1:
		not = fmt.Sprintf("the target's host was not looked up%s (%v)", at, said)
	}
	return dl.orBudget(ctx, nil, not)
}

// without says which addresses a dial went without that reached nobody, where their lookup came to no answer; else it is nil.
func (dl *Dialer) without(ctx context.Context, errs [families]error) error {
	for f, err := range errs {
		switch ended := context.Cause(ctx); {
		case err == nil || noSuch(err):
		case ended != nil && errors.Is(err, ended):
			return dl.orBudget(ctx, nil, fmt.Sprintf("the target's %v addresses did not come", family(f)))
		default:
			return fmt.Errorf("the target's %v addresses were not found: %w", family(f), err)
		}
	}
	return nil
}
