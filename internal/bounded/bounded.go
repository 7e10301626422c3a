// Package bounded keeps the services that are counted a closed set: names come from callers, and every new
// one would cost memory, or money.
package bounded

import (
	"sync"

	"google.golang.org/grpc/codes"

	"example.com/grpc-health-http/internal/health"
)

// Other is the name of all services that have none of their own.
const Other = "other"

// maxAcknowledged bounds the names that get a T of their own because the upstream knows them.
const maxAcknowledged = 100

// Services holds a T for each configured service, for each of the first 100 others that the upstream
// has acknowledged, and one for all the rest. Its methods may be called from many goroutines.
type Services[T any] struct {
	create func(name string) T
	others T

	mu           sync.RWMutex
	byName       map[string]T
	acknowledged int
}

// New returns the Services of the configured names (see health.Configured). create makes a name's T; it is called once for
// each, and for Other.
func New[T any](configured []string, create func(name string) T) *Services[T] {
	s := &Services[T]{create: create, others: create(Other), byName: make(map[string]T)}
	for _, name := range health.Configured(configured) {
		s.byName[name] = create(name)
	}
	return s
}

// Others is what all names without a T of their own share.
func (s *Services[T]) Others() T { return s.others }

// Find returns the T of the verdict's service, a new one where the verdict is the first to acknowledge it.
func (s *Services[T]) Find(v health.Verdict) T {
	s.mu.RLock()
	found, ok := s.byName[v.Service]
	full := s.acknowledged >= maxAcknowledged
	s.mu.RUnlock()
	if ok {
		return found
	}
	if full || !acknowledges(v) {
		return s.others
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if found, ok = s.byName[v.Service]; ok {
		return found
	}
	if s.acknowledged >= maxAcknowledged {
		return s.others
	}
	s.acknowledged++
	found = s.create(v.Service)
	s.byName[v.Service] = found
	return found
}

// acknowledges says whether the verdict shows that the upstream knows the service.
func acknowledges(v health.Verdict) bool {
	return v.Asked && v.Code == codes.OK && v.Status != health.ServiceUnknown
}
