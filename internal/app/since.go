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
	mu     sync.Mutex
	status health.Status
	since  time.Time // zero before the first verdict
}

func newStatusSince(configured []string) statusSince {
	return statusSince{bounded.New(configured, func(string) *serviceStatus { return new(serviceStatus) })}
}

// update takes a verdict in, and returns since when the service has its status; zero where that is not remembered. changed says
// that the service had another status before.
func (s statusSince) update(v health.Verdict) (since time.Time, changed bool) {
	if v.List {
		return time.Time{}, false
	}
	of := s.services.Find(v)
	if of == s.services.Others() || v.Status == health.Overloaded { // nobody asked the server
		return time.Time{}, false
	}
	of.mu.Lock()
	defer of.mu.Unlock()
	changed = !of.since.IsZero() && of.status != v.Status
	if changed || of.since.IsZero() {
		of.status, of.since = v.Status, v.At
	}
	return of.since, changed
}
