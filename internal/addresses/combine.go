package addresses

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"

	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/internal/inert"
)

// combine makes a verdict of those about the addresses, of which there is one at least: the worst, or SERVING where enough are.
func (c *Checker) combine(all []health.AddressVerdict, leftOut int) health.Verdict {
	a := &health.Addresses{All: all, LeftOut: leftOut}
	for _, one := range all {
		if one.NoRoute {
			continue
		}
		a.Reachable++
		if one.Status == health.Serving {
			a.Serving++
		}
	}
	a.Needed = c.needed(a.Reachable)
	a.Sort()
	worst := all[0]
	v := health.Verdict{Addresses: a, Status: worst.Status, Code: worst.Code, Asked: worst.Asked, Phase: worst.Phase, Err: worst.Err}
	switch {
	case a.Reachable == 0:
		v.Err = fmt.Errorf("%w: %s", errNoRoutes, list(all, func(one health.AddressVerdict) string { return one.Address }))
	case a.Serving >= a.Needed:
		v = health.Verdict{Addresses: a, Status: health.Serving, Code: codes.OK, Asked: true}
	case worst.Status == health.Serving: // all of too few are
		v.Status = health.NotServing
		v.Err = fmt.Errorf("%d addresses must be serving, and the name has %d that can be reached", a.Needed, a.Reachable)
	case len(all) > 1 || leftOut > 0:
		v.Err = &textError{inert.Text(cause(a)), worst.Err}
	}
	return v
}

var errNoRoutes = errors.New("this machine has no route to any address of the name")

// cause says which addresses are not serving, and why.
func cause(a *health.Addresses) string {
	failed := a.All[:a.Reachable-a.Serving]
	var b strings.Builder
	verb := "are"
	if len(failed) == 1 {
		verb = "is"
	}
	fmt.Fprintf(&b, "%d of %d addresses %s not serving", len(failed), a.Reachable, verb)
	if a.Needed < a.Reachable {
		fmt.Fprintf(&b, ", %d must be serving", a.Needed)
	}
	most := max(inert.Most/(len(failed)+1), shortest)
	b.WriteString(": " + list(failed, func(one health.AddressVerdict) string {
		one.Err = brief(one, most)
		return one.String()
	}))
	if missing := a.All[a.Reachable:]; len(missing) > 0 {
		b.WriteString("; no route to " + list(missing, func(one health.AddressVerdict) string { return one.Address }))
	}
	if a.LeftOut > 0 {
		fmt.Fprintf(&b, "; %d more were not checked", a.LeftOut)
	}
	return b.String()
}

// list joins what f says of the addresses.
func list(all []health.AddressVerdict, f func(health.AddressVerdict) string) string {
	var b strings.Builder
	for i, one := range all {
		if b.Len() > inert.Most { // it is cut there
			break
		}
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(f(one))
	}
	return b.String()
}

// shortest is the length, in bytes, that the cause of one among many addresses has at least.
const shortest = 80

// brief is an address's cause beside others: without the address, which precedes it, and no longer than most bytes.
func brief(one health.AddressVerdict, most int) error {
	if one.Err == nil {
		return nil
	}
	text := strings.TrimPrefix(health.Verdict{Err: one.Err}.Reason(), "dial tcp "+one.Address+": ")
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return errors.New(text)
}

// servicesLocked makes a verdict about each service that an address lists. One that does not list it does not know it.
func (w *call) servicesLocked() []health.Verdict {
	statuses := make([]map[string]health.Verdict, len(w.ones))
	names := make(map[string]bool)
	leftOut := 0
	for i, o := range w.ones {
		if o.list == nil {
			continue
		}
		statuses[i] = make(map[string]health.Verdict, len(o.list))
		for _, v := range o.list {
			statuses[i][v.Service] = v
			names[v.Service] = true
			leftOut = max(leftOut, v.LeftOut)
		}
	}
	verdicts := make([]health.Verdict, 0, len(names))
	for name := range names {
		all := make([]health.AddressVerdict, len(w.ones))
		for i, o := range w.ones {
			all[i] = o.AddressVerdict
			if o.list == nil {
				continue
			}
			v, listed := statuses[i][name]
			if !listed {
				v = unlisted(o.list)
			}
			all[i].Status, all[i].Code, all[i].Asked = v.Status, v.Code, v.Asked
		}
		v := w.c.combine(all, w.leftOut)
		v.Service = name
		if v.Addresses.Serving == v.Addresses.Reachable {
			v.Addresses = nil // they are many where all is well
		}
		verdicts = append(verdicts, v)
	}
	ranks := health.Statuses()
	slices.SortFunc(verdicts, func(a, b health.Verdict) int {
		return cmp.Or(cmp.Compare(slices.Index(ranks, a.Status), slices.Index(ranks, b.Status)), cmp.Compare(a.Service, b.Service))
	})
	if n := len(verdicts) - maxListed; n > 0 {
		verdicts, leftOut = verdicts[:maxListed], leftOut+n
	}
	slices.SortFunc(verdicts, func(a, b health.Verdict) int { return cmp.Compare(a.Service, b.Service) })
	if n := len(verdicts); n > 0 {
		verdicts[n-1].LeftOut = leftOut
	}
	return verdicts
}

// unlisted is what an address says of a service that is not in its list: that it does not know it. Where the list was cut, the service may be
// there, and be no worse than those that are left.
func unlisted(list []health.Verdict) health.Verdict {
	n := len(list)
	if n == 0 || list[n-1].LeftOut == 0 {
		return health.Verdict{Status: health.ServiceUnknown, Asked: true}
	}
	ranks := health.Statuses()
	return slices.MaxFunc(list, func(a, b health.Verdict) int {
		return cmp.Compare(slices.Index(ranks, a.Status), slices.Index(ranks, b.Status))
	})
}
