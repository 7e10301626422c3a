//go:build !race

package sim

import (
	"fmt"
	"strings"
	"time"

	"example.com/grpc-health-http/internal/clock"
)

// span is a time during which something held. Its end is zero while it holds.
type span struct{ from, to time.Time }

// spans are those of one kind, in the order of their beginning.
type spans []*span

// begin begins a span; end must follow.
func (s *spans) begin() (end func()) {
	one := &span{from: time.Now()}
	*s = append(*s, one)
	return func() { one.to = time.Now() }
}

// within says that the span lies in part between two times, which count too.
func (s *span) within(from, to time.Time) bool {
	return !s.from.IsZero() && !s.from.After(to) && (s.to.IsZero() || !s.to.Before(from))
}

// within counts the spans that lie in part between two times.
func (s spans) within(from, to time.Time) (n int) {
	for _, one := range s {
		if one.within(from, to) {
			n++
		}
	}
	return n
}

// measured are spans with a duration each, by which something was slower.
type measured []*measure

type measure struct {
	spans
	by time.Duration
}

func (m *measured) begin(by time.Duration) (end func()) {
	one := &measure{by: by}
	*m = append(*m, one)
	return one.begin()
}

// sum adds up the durations of the spans that lie in part between two times.
func (m measured) sum(from, to time.Time) (d time.Duration) {
	for _, one := range m {
		if one.within(from, to) > 0 {
			d += one.by
		}
	}
	return d
}

// current adds up the durations of the spans that have no end yet.
func (m measured) current() (d time.Duration) {
	for _, one := range m {
		if one.spans[0].to.IsZero() {
			d += one.by
		}
	}
	return d
}

// freeze is a time at which the machine was frozen.
type freeze struct {
	at    time.Time
	order int
	jump  time.Duration // by which the clocks were late
	// wallOnly: the monotonic clock was stopped as well.
	wallOnly bool
}

// hit is a fault of one connection.
type hit struct {
	at     time.Time
	points int
}

// Points of a hit, as internal/prove counts the losses of fresh connections.
const (
	pointsOfDrain  = 1 // the server says that it has not looked at the request
	pointsOfLoss   = 2
	pointsOfProof  = 4 // enough to be a verdict
	pointsOfUnused = pointsOfProof
)

// connection is what is known of one.
type connection struct {
	id       int
	began    time.Time
	clock    clock.Moment // when it was dialled
	hits     []hit
	first    time.Time       // when the first request was sent; zero before
	requests map[string]bool // what was asked over it
}

// rpc is one that the client has made.
type rpc struct {
	key   string
	order int // of its beginning, among all arrivals and freezes
	span
}

// handled is an RPC that the server has answered.
type handled struct {
	key        string
	order      int // of its arrival, among all arrivals and freezes
	came, gone time.Time
	said       string
	conn       *connection
}

func (h *handled) String() string {
	return fmt.Sprintf("%q, which came %v before, on connection %d: %s", h.key, h.gone.Sub(h.came), h.conn.id, h.said)
}

// event is one line of the trace of a seed. Most are never printed.
type event struct {
	at   time.Time
	what string
	more fmt.Stringer // nil for nothing
}

func (e event) text(start time.Time) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%14v  %s", e.at.Sub(start), e.what)
	if e.more != nil {
		b.WriteString(" " + strings.ReplaceAll(e.more.String(), "\n", "\n"+strings.Repeat(" ", 20)))
	}
	return b.String()
}

// text makes a string an fmt.Stringer.
type text string

func (t text) String() string { return string(t) }

// finding is something that must not be.
type finding struct {
	Kind string
	Text string // what was around it
}
