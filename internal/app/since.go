package app

import (
	"sync"
	"time"

	"example.com/grpc-health-http/internal/bounded"
	"example.com/grpc-health-http/internal/health"
)

// statusSince remembers the status of each service and since when it has had it, as this process has seen it. It remembers none
// for names that callers made up, because there may be any number of them.
type statusSince struct {
	services *bounded.Services[*serviceStatus]
}

// serviceStatus is one service's.
type serviceStatus struct {
	mu      sync.Mutex
	status  health.Status
	since   time.Time // zero before the first verdict
	failing time.Time // since when it has not been serving; zero while it is
}

// change is from one status of a service to another; the zero change is none.
type change struct {
	changed bool
	from    health.Status
	failing time.Duration // for how long the service was not serving, where it is again
}

func newStatusSince(configured []string) statusSince {
	return statusSince{bounded.New(configured, func(string) *serviceStatus { return new(serviceStatus) })}
}

// update takes a verdict in, and returns since when the service has its status; zero where that is not remembered.
func (s statusSince) update(v health.Verdict) (since time.Time, c change) {
	if v.List {
		return time.Time{}, change{}
	}
	of := s.services.Find(v)
	if s.services.IsOthers(of) || v.Status == health.Overloaded { // nobody asked the server
		return time.Time{}, change{}
	}
	of.mu.Lock()
	defer of.mu.Unlock()
	if !of.since.IsZero() && of.status != v.Status {
		c = change{changed: true, from: of.status}
	}
	if c.changed || of.since.IsZero() {
		of.status, of.since = v.Status, v.At
	}
	switch {
	case v.Status != health.Serving && of.failing.IsZero():
		of.failing = v.At
	case v.Status == health.Serving && !of.failing.IsZero():
		c.failing = max(v.At.Sub(of.failing), 0)
		of.failing = time.Time{}
	}
	return of.since, c
}
