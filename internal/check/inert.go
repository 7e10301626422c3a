package check

import (
	"errors"
	"slices"

	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/internal/inert"
	"example.com/grpc-health-http/internal/prove"
)

// inert is a text from outside without secrets, and then safe to read: a secret that lies across the place of a cut is taken
// out before.
func (c *Checker) inert(text string) string { return inert.Text(c.redact(text)) }

// makeInert makes the texts of a result inert that come from outside, before anybody gets it.
func (c *Checker) makeInert(r *prove.Result) {
	r.Verdict.Err = c.inertError(r.Verdict.Err)
	for i := range r.List {
		r.List[i].Service = c.inert(r.List[i].Service)
	}
	shown := make([]health.Attempt, 0, len(r.Evidence.Attempts)) // others may read the attempts
	for _, a := range r.Evidence.Attempts {
		a.Result = c.inert(a.Result)
		a.Dial.Err = c.inertError(a.Dial.Err)
		a.Dial.Addresses = slices.Clone(a.Dial.Addresses)
		for i := range a.Dial.Addresses {
			a.Dial.Addresses[i].Err = c.inertError(a.Dial.Addresses[i].Err)
		}
		shown = append(shown, a)
	}
	r.Evidence.Attempts = shown
}

// inertError is the error with an inert text.
func (c *Checker) inertError(err error) error {
	if err == nil {
		return nil
	}
	said := err.Error()
	text := c.inert(said)
	switch {
	case text == said:
		return err
	case len(said) > 4*inert.Most: // not kept for its kind: it may be of any length
		return errors.New(text)
	}
	return &inertError{text, err}
}

// inertError is an error with another text.
type inertError struct {
	text string
	err  error
}

func (e *inertError) Error() string { return e.text }
func (e *inertError) Unwrap() error { return e.err }
