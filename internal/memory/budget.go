package memory

import (
	"os"
	"sync"
	"sync/atomic"
)

// Share is a part of the budget. It is safe for concurrent use. A nil Share has no bound.
type Share struct {
	limit int64
	used  atomic.Int64
}

// NewShare returns a share of so many bytes.
func NewShare(limit int64) *Share { return &Share{limit: limit} }

// Take takes n bytes, and reports whether they were there. A share of which nothing is used gives everything: what is larger than the
// share is served alone, not never.
func (s *Share) Take(n int64) bool { return s.TakeLeaving(n, 0) }

// TakeLeaving is Take for those who must leave some bytes to others.
func (s *Share) TakeLeaving(n, rest int64) bool {
	if s == nil {
		return true
	}
	if used := s.used.Add(n); used > s.limit-rest && used != n {
		s.used.Add(-n)
		return false
	}
	return true
}

// Give gives n bytes back that were taken.
func (s *Share) Give(n int64) {
	if s != nil {
		s.used.Add(-n)
	}
}

// Crowded reports whether more than half of the share is taken.
func (s *Share) Crowded() bool { return s != nil && s.used.Load() > s.limit/2 }

// Limit is the size of the share, in bytes; 0 where it has no bound.
func (s *Share) Limit() int64 {
	if s == nil {
		return 0
	}
	return s.limit
}

// Used is how many bytes are taken.
func (s *Share) Used() int64 {
	if s == nil {
		return 0
	}
	return s.used.Load()
}

// Budget is the memory that callers can make the process use. The shares together leave a quarter of it to garbage that has not been
// collected yet.
type Budget struct {
	// Limit is what was divided.
	Limit Limit
	// Connections is for connections with the requests that they carry, in bytes, and SecondaryConnections for those of the metrics
	// port.
	Connections, SecondaryConnections int64
	// Headers is for bytes of requests that are not complete, in bytes, on each port.
	Headers int64
	// Configured is for requests that wait for checks of configured services, and Others for requests that wait for other checks.
	Configured, Others *Share
	// Answers is for answers on their way to their callers.
	Answers *Share
	// Metrics is for answers to Prometheus.
	Metrics *Share
	// Upstreams is how many connections to upstreams are kept between checks. Where there are many upstreams, those of the others are made anew.
	Upstreams int
}

const (
	// own is what the program uses without callers, RPCs in progress included.
	own = 16 << 20
	// least is what callers get in any case: with less, nothing can be served.
	least = 8 << 20
	// leastUpstreams is how many connections to upstreams are kept in any case.
	leastUpstreams = 64
	// leastMetrics is four answers to Prometheus.
	leastMetrics = 4 * Scrape
)

// Process is the budget of this process. The first call tells the Go runtime its limit, and how often to collect garbage.
var Process = sync.OnceValue(func() *Budget {
	l := here(os.DirFS("/"), os.Getenv)
	l.Apply()
	keepPace(os.Getenv)
	return NewBudget(l)
})

// NewBudget divides what the Go runtime may use.
func NewBudget(l Limit) *Budget {
	part := max((l.Soft-own)/4*3, least) / 16
	return &Budget{
		Limit:                l,
		Connections:          8 * part,
		SecondaryConnections: part,
		Headers:              part,
		Configured:           NewShare(3 * part),
		Others:               NewShare(2 * part),
		Answers:              NewShare(part),
		Metrics:              NewShare(max(part, leastMetrics)),
		Upstreams:            max(leastUpstreams, int(l.Soft/8/UpstreamConnection)),
	}
}
