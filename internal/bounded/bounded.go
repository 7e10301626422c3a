// Package bounded limits how many service names are counted one by one. Names come from callers, and each new one costs memory,
// or money where metrics are billed.
package bounded

import (
	"cmp"
	"slices"
	"sync"

	"google.golang.org/grpc/codes"

	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/internal/inert"
)

// Other is the name under which all services without a T of their own are counted.
const Other = "other"

// maxAcknowledged bounds the names that get a T of their own because the upstream knows them.
const maxAcknowledged = 100

// Services holds one T for each configured service, one for each of the first 100 other services that the upstream has
// acknowledged, and one for all the rest. It is safe for concurrent use.
type Services[T comparable] struct {
	create func(name string) T

	mu           sync.Mutex
	others       T          // the zero T before it is needed
	known        []named[T] // sorted by name; for few names, which are the rule, it takes much less than a map
	acknowledged int
}

type named[T comparable] struct {
	name string
	t    T
}

// New returns the Services of the configured names (see health.Configured). create makes a name's T; it is called once for
// each, and for Other when that is first needed. It must not return the zero T.
func New[T comparable](configured []string, create func(name string) T) *Services[T] {
	s := &Services[T]{create: create}
	configured = health.Configured(configured)
	s.known = make([]named[T], 0, len(configured))
	for _, name := range configured {
		if i, ok := s.search(name); !ok {
			s.known = slices.Insert(s.known, i, named[T]{name, create(name)})
		}
	}
	return s
}

// Others returns the T that all other names share.
func (s *Services[T]) Others() T {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.othersLocked()
}

func (s *Services[T]) othersLocked() T {
	if !s.madeLocked() {
		s.others = s.create(Other)
	}
	return s.others
}

func (s *Services[T]) madeLocked() bool {
	var none T
	return s.others != none
}

// IsOthers reports whether t is what all other names share.
func (s *Services[T]) IsOthers(t T) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.madeLocked() && t == s.others
}

// All returns every T that there is.
func (s *Services[T]) All() []T {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]T, 0, len(s.known)+1)
	for _, one := range s.known {
		all = append(all, one.t)
	}
	if s.madeLocked() {
		all = append(all, s.others)
	}
	return all
}

// Find returns the T of the verdict's service. It creates one where the verdict is the first to acknowledge the service.
func (s *Services[T]) Find(v health.Verdict) T {
	found, ok, full := s.find(v.Service)
	if ok {
		return found
	}
	if full || !acknowledges(v) {
		return s.Others()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	i, ok := s.search(v.Service)
	if ok {
		return s.known[i].t
	}
	if s.acknowledged >= maxAcknowledged {
		return s.othersLocked()
	}
	s.acknowledged++
	found = s.create(v.Service)
	s.known = slices.Insert(s.known, i, named[T]{v.Service, found})
	return found
}

// find returns the T of a name, if there is one, and whether no more names get one.
func (s *Services[T]) find(name string) (found T, ok, full bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, ok := s.search(name)
	if ok {
		found = s.known[i].t
	}
	return found, ok, s.acknowledged >= maxAcknowledged
}

// search says where a name is, or belongs.
func (s *Services[T]) search(name string) (at int, found bool) {
	return slices.BinarySearchFunc(s.known, name, func(n named[T], name string) int { return cmp.Compare(n.name, name) })
}

// acknowledges reports whether the verdict shows that the upstream knows the service. Some servers know every name: one with
// characters that must not be shown as they are, which a caller made up, is counted with the rest.
func acknowledges(v health.Verdict) bool {
	return v.Asked && v.Code == codes.OK && v.Status != health.ServiceUnknown && inert.Text(v.Service) == v.Service
}
