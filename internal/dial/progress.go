package dial

import (
	"slices"
	"sync"
	"time"

	"example.com/grpc-health-http/internal/clock"
	"example.com/grpc-health-http/internal/health"
)

// Progress shows how far a dial has come, to those who cannot wait for its end.
type Progress struct {
	began clock.Moment

	mu   sync.Mutex
	dial health.Dial
}

// NewProgress returns the Progress of a dial that begins now, with the credentials.
func NewProgress(now clock.Moment) *Progress {
	return &Progress{began: now, dial: health.Dial{Phase: health.PhaseCredentials}}
}

// enter notes that a phase begins that precedes all addresses.
func (p *Progress) enter(phase health.Phase) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dial = health.Dial{Phase: phase}
}

func (p *Progress) lookedUp(took time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dial.Lookup = took
}

// address notes how far an address has come. A winner ends the race, and how the others end changes nothing.
func (p *Progress) address(i int, a health.AddressAttempt) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.dial.Addresses) <= i {
		p.dial.Addresses = append(p.dial.Addresses, health.AddressAttempt{})
	}
	p.dial.Addresses[i] = a
	if a.Err == nil {
		p.dial.Phase = a.Phase
	}
}

// Phase is where the dial is now.
func (p *Progress) Phase() health.Phase {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dial.Phase
}

// Snapshot is the dial up to now: its Err is health.ErrInProgress, and so is that of each address that has not ended.
func (p *Progress) Snapshot(now clock.Moment) health.Dial {
	p.mu.Lock()
	defer p.mu.Unlock()
	d := p.dial
	d.Addresses = slices.Clone(d.Addresses)
	for i := range d.Addresses {
		if a := &d.Addresses[i]; a.Phase != health.PhaseNone && a.Err == nil {
			a.Err = health.ErrInProgress
		}
	}
	d.Took, d.Err = now.Since(p.began), health.ErrInProgress
	return d
}
