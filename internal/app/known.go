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
	services  []string
	remembers bool // verdicts before the latest

	mu  sync.Mutex
	all []past // of the services, in their order
}

// past is the verdicts about a service.
type past struct {
	// What the latest says; at is zero before the first. more is all of it, where it is more than that the server answered SERVING.
	at, since time.Time
	took      time.Duration
	more      *health.Verdict
	history   []remembered // the oldest first, where verdicts are remembered
}

// remembered is a health.Past in a quarter of the memory: Unix time in nanoseconds, of which the last bits are the status.
type remembered int64

const statusBits = 1<<4 - 1

func remember(v *health.Verdict) remembered {
	return remembered(v.At.UnixNano()&^statusBits | int64(v.Status)&statusBits)
}

// newKnown returns what knows nothing yet. Verdicts before the latest are remembered where they come regularly.
func newKnown(configured []string, regularly bool) known {
	services := health.Configured(configured)
	return known{services: services, remembers: regularly, all: make([]past, len(services))}
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
	if v.At.Before(p.at) {
		return
	}
	p.at, p.since, p.took, p.more = v.At, v.Since, v.Duration, nil
	if p.latest(v.Service) != *v {
		p.more = new(*v)
	}
	if !k.remembers {
		return
	}
	if len(p.history) == historyLength {
		p.history = slices.Delete(p.history, 0, 1)
	}
	p.history = append(p.history, remember(v))
}

func (p *past) latest(service string) health.Verdict {
	switch {
	case p.more != nil:
		return *p.more
	case p.at.IsZero():
		return health.Verdict{Service: service}
	}
	return health.Verdict{Service: service, Status: health.Serving, Asked: true, At: p.at, Since: p.since, Duration: p.took}
}

// latest is asker.Upstream's Latest.
func (k *known) latest() []health.Verdict {
	k.mu.Lock()
	defer k.mu.Unlock()
	verdicts := make([]health.Verdict, len(k.all))
	for i := range k.all {
		verdicts[i] = k.all[i].latest(k.services[i])
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
		history = append(history, health.Past{At: time.Unix(0, int64(r&^statusBits)), Status: health.Status(r & statusBits)})
	}
	return history
}
