package check

import (
	"errors"
	"slices"

	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/internal/inert"
)

// inert is a text from outside without secrets, and then safe to read: a secret that lies across the place of a cut is taken
// out before.
func (c *Checker) inert(text string) string { return inert.Text(c.redact(text)) }

// makeInert makes the texts of a result inert that come from outside, before anybody gets it.
func (c *Checker) makeInert(r *health.Proof) {
	r.Verdict.Err, _ = c.inertError(r.Verdict.Err)
	for i := range r.List {
		r.List[i].Service = c.inert(r.List[i].Service)
	}
	copied := false // others may read the attempts
	for i, a := range r.Evidence.Attempts {
		if !c.inertAttempt(&a) {
			continue
		}
		if !copied {
			r.Evidence.Attempts, copied = slices.Clone(r.Evidence.Attempts), true
		}
		r.Evidence.Attempts[i] = a
	}
}

// inertAttempt makes an attempt's texts inert, and says whether that has changed one.
func (c *Checker) inertAttempt(a *health.Attempt) (changed bool) {
	result := c.inert(a.Result)
	changed = result != a.Result
	a.Result = result
	err, other := c.inertError(a.Dial.Err)
	a.Dial.Err, changed = err, changed || other
	copied := false
	for i := range a.Dial.Addresses {
		err, other := c.inertError(a.Dial.Addresses[i].Err)
		if !other {
			continue
		}
		if !copied {
			a.Dial.Addresses, copied = slices.Clone(a.Dial.Addresses), true
		}
		a.Dial.Addresses[i].Err, changed = err, true
	}
	return changed
}

// inertError is the error with an inert text, and whether that is another one.
func (c *Checker) inertError(err error) (shown error, changed bool) {
	if err == nil {
		return nil, false
	}
	said := err.Error()
	text := c.inert(said)
	switch {
	case text == said:
		return err, false
	case len(said) > 4*inert.Most: // not kept for its kind: it may be of any length
		return errors.New(text), true
	}
	return &inertError{text, err}, true
}

// inertError is an error with another text.
type inertError struct {
	text string
	err  error
}

func (e *inertError) Error() string { return e.text }
func (e *inertError) Unwrap() error { return e.err }
