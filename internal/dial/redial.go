package dial

import (
	"context"
	"errors"
	"io"
	"syscall"
	"time"

	"example.com/grpc-health-http/internal/health"
)

const (
	// firstPause and longestPause bound the time between two dials after other failures, which doubles.
	firstPause   = 100 * time.Millisecond
	longestPause = time.Second
)

// passing marks a failure that another dial may not meet: what answers is there before the server is, as a proxy is.
type passing struct{ error }

func (p passing) Unwrap() error { return p.error }

// notThere says that a connection was refused, or that a socket does not exist.
func notThere(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENOENT)
}

// mayPass says whether another dial may end otherwise than a failed one did.
func mayPass(d health.Dial) bool {
	switch d.Phase {
	case health.PhaseCredentials:
		return false
	case health.PhaseDNS:
		return true
	case health.PhaseConnect:
		if isBroken(d.Err) {
			return true
		}
	}
	_, marked := errors.AsType[passing](d.Err)
	return marked
}

// isBroken says that the system could not make a connection, or that one has ended.
func isBroken(err error) bool {
	_, system := errors.AsType[syscall.Errno](err)
	return system || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// backoff is how long to wait before another dial.
type backoff struct {
	refused time.Duration // where the server does not listen yet
	last    time.Duration // after another failure
}

func (b *backoff) after(d health.Dial) time.Duration {
	if d.Phase == health.PhaseConnect && notThere(d.Err) {
		return b.refused
	}
	b.last = min(max(firstPause, 2*b.last), longestPause)
	return b.last
}

// wait waits for d, and says whether the context let it.
func wait(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
