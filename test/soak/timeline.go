//go:build unix

package main

import (
	"sync"
	"time"
)

// span is the time from one moment to another. to is zero while the span has no end yet.
type span struct{ from, to time.Time }

// timeline keeps the spans during which something held, in the order of their beginnings, which is also that of their ends.
type timeline struct {
	mu    sync.Mutex
	spans []span
}

func (l *timeline) begin() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.spans = append(l.spans, span{from: time.Now()})
}

// end ends the span that the last begin began.
func (l *timeline) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.spans[len(l.spans)-1].to = time.Now()
}

// add adds a span that has ended.
func (l *timeline) add(s span) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.spans = append(l.spans, s)
}

// in returns the parts of the spans that lie in w.
func (l *timeline) in(w span) []span {
	l.mu.Lock()
	defer l.mu.Unlock()
	var found []span
	for i := len(l.spans) - 1; i >= 0; i-- {
		s := l.spans[i]
		if !s.to.IsZero() && s.to.Before(w.from) {
			break
		}
		if s.from.After(w.to) {
			continue
		}
		if s.from.Before(w.from) {
			s.from = w.from
		}
		if s.to.IsZero() || s.to.After(w.to) {
			s.to = w.to
		}
		found = append(found, s)
	}
	return found
}

// sum returns how long it held during w.
func (l *timeline) sum(w span) (d time.Duration) {
	for _, s := range l.in(w) {
		d += s.to.Sub(s.from)
	}
	return d
}

// condition is something that holds or does not hold. While it changes, both are possible: the spans of yes and no overlap.
type condition struct{ yes, no timeline }

// newCondition returns a condition that holds from now on.
func newCondition() *condition {
	c := &condition{}
	c.yes.begin()
	return c
}

// change calls do, which makes the condition hold, or not.
func (c *condition) change(to bool, do func()) {
	begins, ends := &c.yes, &c.no
	if !to {
		begins, ends = ends, begins
	}
	begins.begin()
	do()
	ends.end()
}

// may returns when the condition may have held during w.
func (c *condition) may(w span) []span { return c.yes.in(w) }

// mayNot reports whether there is a time in w when the condition may not have held.
func (c *condition) mayNot(w span) bool { return len(c.no.in(w)) > 0 }
