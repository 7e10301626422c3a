package app

import (
	"sync"
	"time"

	"example.com/grpc-health-http/internal/bounded"
	"example.com/grpc-health-http/internal/health"
)

// standings remember each service's status and since when it has it: what this process has seen, and
// gone with it. Names that callers made up have none, for there is no end of them.
type standings struct {
	services *bounded.Services[*standing]
}

// standing is one service's.
type standing struct {
	mu     sync.Mutex
	status health.Status
	since  time.Time // zero before the first verdict
}

func newStandings(configured []string) standings {
	return standings{bounded.New(configured, func(string) *standing { return new(standing) })}
}

// note takes a verdict in, and returns since when the service has its status; zero where nobody keeps it. turned says that
// the service had another status before.
func (s standings) note(v health.Verdict) (since time.Time, turned bool) {
	if v.List {
		return time.Time{}, false
	}
	of := s.services.Find(v)
	if of == s.services.Others() || v.Status == health.Overloaded { // nobody asked the server
		return time.Time{}, false
	}
	of.mu.Lock()
	defer of.mu.Unlock()
	turned = !of.since.IsZero() && of.status != v.Status
	if turned || of.since.IsZero() {
		of.status, of.since = v.Status, v.At
	}
	return of.since, turned
}
