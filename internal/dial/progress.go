package dial

import (
	"slices"
	"sync"

	"example.com/grpc-health-http/internal/clock"
	"example.com/grpc-health-http/internal/health"
)

// Progress records a dial. Those who cannot wait for its end may look at it meanwhile.
type Progress struct {
	began clock.Moment

	mu   sync.Mutex
	dial health.Dial
}

// NewProgress returns the Progress of a dial that begins now, with the credentials.
func NewProgress(now clock.Moment) *Progress {
	return &Progress{began: now, dial: health.Dial{Phase: health.PhaseCredentials}}
}

func (p *Progress) record(f func(d *health.Dial)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(&p.dial)
}

// Phase is where the dial is now.
func (p *Progress) Phase() (phase health.Phase) {
	p.record(func(d *health.Dial) { phase = d.Phase })
	return phase
}

// Snapshot is the dial up to now: its Err is health.ErrInProgress, and so is that of each address that has not ended.
func (p *Progress) Snapshot(now clock.Moment) (shown health.Dial) {
	p.record(func(d *health.Dial) { shown = copied(d) })
	for i := range shown.Addresses {
		if a := &shown.Addresses[i]; a.Phase != health.PhaseNone && a.Err == nil {
			a.Err = health.ErrInProgress
		}
	}
	shown.Took, shown.Err = now.Since(p.began), health.ErrInProgress
	return shown
}

// end records how a try ended, and returns it. What addresses record afterwards, because the race was won, changes nothing.
func (p *Progress) end(phase health.Phase, err error) (result health.Dial) {
	p.record(func(d *health.Dial) {
		d.Phase, d.Err = phase, err
		result = copied(d)
	})
	return result
}

func copied(d *health.Dial) health.Dial {
	c := *d
	c.Addresses = slices.Clone(d.Addresses)
	return c
}
