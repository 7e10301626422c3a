package health

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
)

// Addresses are the findings about the addresses behind an upstream's name, where each is checked on its own. Nobody changes them once a verdict
// has them.
type Addresses struct {
	// All are those that were found, the worst first, and those without a route last.
	All []AddressVerdict
	// Serving is how many are serving, Reachable how many this machine has a route to, and Needed how many must be serving.
	Serving, Reachable, Needed int
	// LeftOut is how many more the name has than are checked.
	LeftOut int
}

// AddressVerdict is what was found out about one address. Its fields mean what those of a Verdict do.
type AddressVerdict struct {
	Address  string
	Status   Status
	Code     codes.Code
	Asked    bool
	Phase    Phase
	Duration time.Duration
	Err      error
	// NoRoute says that this machine has no route to the address, as one without IPv6 has none to an IPv6 address: it counts as not there.
	NoRoute bool
}

// GRPCCode is Verdict's.
func (a AddressVerdict) GRPCCode() string { return Verdict{Asked: a.Asked, Code: a.Code}.GRPCCode() }

// String is the address in a line: what it was found to be, and why.
func (a AddressVerdict) String() string {
	switch {
	case a.NoRoute:
		return a.Address + " not there: " + ErrNoRoute.Error()
	case a.Err == nil:
		return a.Address + " " + a.Status.String()
	}
	return a.Address + " " + a.Status.String() + ": " + Verdict{Err: a.Err}.Reason()
}

// Sort brings the addresses into their order; those that are alike keep theirs.
func (a *Addresses) Sort() {
	slices.SortStableFunc(a.All, func(x, y AddressVerdict) int {
		switch {
		case x.NoRoute != y.NoRoute && x.NoRoute:
			return 1
		case x.NoRoute != y.NoRoute:
			return -1
		}
		return cmp.Compare(y.Status.severity(), x.Status.severity())
	})
}

// Lines has a line for each address.
func (a *Addresses) Lines() []string {
	lines := make([]string, 0, len(a.All)+1)
	for _, one := range a.All {
		lines = append(lines, one.String())
	}
	if a.LeftOut > 0 {
		lines = append(lines, fmt.Sprintf("%d more were not checked", a.LeftOut))
	}
	return lines
}

// NotServing are the addresses that this machine has a route to and that are not serving, in the order of their texts.
func (a *Addresses) NotServing() []string {
	var down []string
	for _, one := range a.All {
		if !one.NoRoute && one.Status != Serving {
			down = append(down, one.Address)
		}
	}
	slices.Sort(down)
	return down
}

// Sentence says how many are serving, without naming any.
func (a *Addresses) Sentence() string {
	switch {
	case a.Reachable == 0:
		return "This machine has no route to any of the server's addresses."
	case a.Needed > a.Reachable:
		return fmt.Sprintf("%d of %d addresses %s serving, and %d must be.", a.Serving, a.Reachable, are(a.Serving), a.Needed)
	case a.Needed < a.Reachable:
		return fmt.Sprintf("%d of %d addresses %s serving; %d must be.", a.Serving, a.Reachable, are(a.Serving), a.Needed)
	}
	return fmt.Sprintf("%d of %d addresses %s serving.", a.Serving, a.Reachable, are(a.Serving))
}

func are(n int) string {
	if n == 1 {
		return "is"
	}
	return "are"
}

// withAddresses is a sentence about a verdict, with how many addresses it holds for.
func (v Verdict) withAddresses(sentence string) string {
	a := v.Addresses
	switch {
	case a == nil || a.Reachable == 1 && a.Needed == 1:
		return sentence
	case a.Reachable == 0 || v.Status == Serving || a.Serving == a.Reachable: // no address is in the state that the sentence is about
		return a.Sentence()
	}
	return strings.TrimSuffix(a.Sentence()+" "+sentence, " ")
}
