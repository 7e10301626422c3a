package creds

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"sync"
	"time"

	"example.com/grpc-health-http/internal/clock"
)

const (
	// freshFor is the age from which what is held is read again at its next use.
	freshFor = 5 * time.Second
	// patience is how long a use waits for a read while it has something good to go on with.
	patience = 100 * time.Millisecond
	// readTimeout bounds a read by itself, for no use that waits for it does.
	readTimeout = 10 * time.Second
)

// digest tells content from other content.
type digest [sha256.Size]byte

// loader brings a value and the digest of the content that it was made of. Where that is the digest
// of what is held already, the value is not looked at and need not be made.
type loader[T any] func(ctx context.Context, held digest) (T, digest, error)

// held is a value that is loaded again by the package's rule. A nil held has the zero value, for good.
type held[T any] struct {
	name   string // for messages
	load   loader[T]
	clock  func() clock.Moment
	report func(error)  // see Reload
	took   func(T)      // told of each new value; may be nil
	usable func(T) bool // says whether a held value is good still; may be nil
	fixed  bool         // the value came with the settings and cannot change

	patience time.Duration // of a use that has something good to go on with

	mu         sync.Mutex
	value      T
	good       bool // value is one
	content    digest
	readAt     clock.Moment // when the read began that brought value or confirmed it
	reportedAt clock.Moment // when a failure was reported last; zero after a success
	underWay   *reading     // the read under way that uses wait for, or nil
	stalled    int          // reads that nobody waits for any more, and that have not ended
}

// reading is one read.
type reading struct {
	began clock.Moment
	done  chan struct{} // closed at its end
	err   error         // set before done is closed
}

const (
	// stallsAfter is the age from which a read under way is not waited for any more: nothing ends the read
	// of a file whose mount does not answer, and what was under way when the process was frozen may be dead.
	stallsAfter = 3 * time.Second
	// maxStalled bounds the reads that are left to themselves; each can hold a thread.
	maxStalled = 4
)

func newHeld[T any](o Options, what Material, name string, load loader[T]) *held[T] {
	if o.clock == nil {
		o.clock = clock.System()
	}
	return &held[T]{
		name: name, load: load, clock: o.clock,
		report:   func(err error) { o.reloaded(what, err) },
		patience: cmp.Or(o.patience, patience),
	}
}

// get returns the value, read again where the rule says so; refresh asks for a read whatever the age.
// It fails only where no good value is held, by ctx's end at the latest.
func (h *held[T]) get(ctx context.Context, refresh bool) (T, error) {
	if h == nil {
		var none T
		return none, nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.good && h.usable != nil && !h.usable(h.value) {
		h.good, h.content = false, digest{}
	}
	if h.good && (h.fixed || !refresh && h.clock().Since(h.readAt) <= freshFor) {
		return h.value, nil
	}

	var enough <-chan time.Time // never, with nothing to go on with
	if h.good {
		timer := time.NewTimer(h.patience)
		defer timer.Stop()
		enough = timer.C
	}
	r, joined := h.join(refresh)
	done := h.await(ctx, r, enough)
	if done && joined && (refresh || !h.good) {
		// That read began before this call: it may have missed what this call is after.
		r, _ = h.join(refresh)
		done = h.await(ctx, r, enough)
	}
	switch {
	case h.good:
		return h.value, nil
	case done:
		return h.value, r.err
	default:
		return h.value, fmt.Errorf("%s: not read in time: %w", h.name, context.Cause(ctx))
	}
}

// latest is the value as it is held, without a read.
func (h *held[T]) latest() T {
	if h == nil {
		var none T
		return none
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.value
}

// join returns the read under way, or begins one. The caller holds h.mu.
func (h *held[T]) join(refresh bool) (r *reading, joined bool) {
	now := h.clock()
	if h.underWay != nil {
		if now.Since(h.underWay.began) <= stallsAfter || h.stalled == maxStalled {
			return h.underWay, true
		}
		h.stalled++
	}
	h.underWay = &reading{began: now, done: make(chan struct{})}
	go h.read(h.underWay, h.content, refresh)
	return h.underWay, false
}

// await waits for r, with h.mu unlocked, and says whether it ended.
func (h *held[T]) await(ctx context.Context, r *reading, enough <-chan time.Time) bool {
	h.mu.Unlock()
	defer h.mu.Lock()
	select {
	case <-r.done:
		return true
	case <-enough:
	case <-ctx.Done():
	}
	return false
}

// read does one read. It belongs to no single use, so no use's context ends it.
func (h *held[T]) read(r *reading, content digest, refresh bool) {
	ctx, cancel := context.WithTimeout(context.WithValue(context.Background(), refreshKey{}, refresh), readTimeout)
	defer cancel()
	began := h.clock()
	value, found, err := h.load(ctx, content)

	h.mu.Lock()
	replaced, report := false, false
	given := h.underWay != r // up, for another read
	if given {
		h.stalled--
	}
	switch {
	case given && h.good: // which is from a later read, or will be
	case err != nil:
		now := h.clock()
		if report = h.good && (h.reportedAt == clock.Moment{} || now.Since(h.reportedAt) > freshFor); report {
			h.reportedAt = now
		}
	case h.good && found == h.content:
		h.readAt, h.reportedAt = began, clock.Moment{}
	case found == content:
		// What was held turned unusable meanwhile, and this read made no value of the same content.
		err = fmt.Errorf("%s: no longer usable", h.name)
	default:
		replaced, report = true, h.good
		h.value, h.good, h.content, h.readAt, h.reportedAt = value, true, found, began, clock.Moment{}
	}
	h.mu.Unlock()

	// Reported before the read ends for those who wait, so that a use never shows what is not reported yet.
	if report {
		h.report(err)
	}
	if replaced && h.took != nil {
		h.took(value)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	r.err = err
	if h.underWay == r {
		h.underWay = nil
	}
	close(r.done)
}

// refreshKey is the key of a read's context that says whether a failure asked for it.
type refreshKey struct{}

// Refresh says of the context of an Options's Read whether a failed handshake asked for the read: what a
// cache holds is then in doubt.
func Refresh(ctx context.Context) bool {
	refresh, _ := ctx.Value(refreshKey{}).(bool)
	return refresh
}
