package app

import (
	"slices"
	"sync"
	"time"

	"example.com/grpc-health-http/internal/health"
)

// historyLength is how many verdicts about a service are remembered.
const historyLength = 60

// known is what is known about the configured services of an upstream without asking.
type known struct {
	services []string

	mu  sync.Mutex
	all []past // of the services, in their order
}

// past is the verdicts about a service.
type past struct {
	latest    health.Verdict
	remembers bool
	history   []remembered // the oldest first, where verdicts are remembered
}

// remembered is a health.Past in half of the memory.
type remembered struct {
	at     int64 // Unix time in nanoseconds
	status health.Status
}

// newKnown returns what knows nothing yet. Verdicts before the latest are remembered where they come regularly.
func newKnown(configured []string, regularly bool) *known {
	k := &known{services: health.Configured(configured)}
	for _, service := range k.services {
		k.all = append(k.all, past{latest: health.Verdict{Service: service}, remembers: regularly})
	}
	return k
}

// add takes a verdict in. One of a caller who has gone is none.
func (k *known) add(v *health.Verdict) {
	i := slices.Index(k.services, v.Service)
	if i < 0 || v.List || v.At.IsZero() {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	p := &k.all[i]
	if v.At.Before(p.latest.At) {
		return
	}
	p.latest = *v
	if !p.remembers {
		return
	}
	if len(p.history) == historyLength {
		p.history = slices.Delete(p.history, 0, 1)
	}
	p.history = append(p.history, remembered{at: v.At.UnixNano(), status: v.Status})
}

// latest is asker.Upstream's Latest.
func (k *known) latest() []health.Verdict {
	k.mu.Lock()
	defer k.mu.Unlock()
	verdicts := make([]health.Verdict, len(k.all))
	for i := range k.all {
		verdicts[i] = k.all[i].latest
	}
	return verdicts
}

// history is asker.Upstream's History.
func (k *known) history(service string) []health.Past {
	i := slices.Index(k.services, service)
	if i < 0 {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	var history []health.Past
	for _, r := range k.all[i].history {
		history = append(history, health.Past{At: time.Unix(0, r.at), Status: r.status})
	}
	return history
}
