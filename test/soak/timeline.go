//go:build unix

package main

import (
	"sync"
	"time"
)

// span is from a time to another; an open one has no end yet.
type span struct{ from, to time.Time }

// timeline keeps the spans in which something was so, in the order of their beginning and of their end.
type timeline struct {
	mu    sync.Mutex
	spans []span
}

func (l *timeline) begin() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.spans = append(l.spans, span{from: time.Now()})
}

// end ends the span that begin began last.
func (l *timeline) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.spans[len(l.spans)-1].to = time.Now()
}

// add keeps a span that has ended.
func (l *timeline) add(s span) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.spans = append(l.spans, s)
}

// in returns the spans as far as they lie in another.
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

// sum is how long it was so in a span.
func (l *timeline) sum(w span) (d time.Duration) {
	for _, s := range l.in(w) {
		d += s.to.Sub(s.from)
	}
	return d
}

// condition is something that is so or not. While it changes it may be either: the times are taken on
// both sides of each change.
type condition struct{ yes, no timeline }

// newCondition returns one that holds from now on.
func newCondition() *condition {
	c := &condition{}
	c.yes.begin()
	return c
}

// change makes it so, or not so, with do.
func (c *condition) change(to bool, do func()) {
	begins, ends := &c.yes, &c.no
	if !to {
		begins, ends = ends, begins
	}
	begins.begin()
	do()
	ends.end()
}

// may returns when in a span it may have been so.
func (c *condition) may(w span) []span { return c.yes.in(w) }

// mayNot says whether it may not have been so, at any time in a span.
func (c *condition) mayNot(w span) bool { return len(c.no.in(w)) > 0 }
