package refresh

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"example.com/grpc-health-http/internal/clock"
)

// State is how good a value is at a moment.
type State int

const (
	// Fresh values are used as they are.
	Fresh State = iota
	// Due values are used as they are, and the next one is loaded meanwhile.
	Due
	// Stale values are used only where a load fails or takes longer than Patience.
	Stale
	// Expired values are not used.
	Expired
)

const (
	// overdue is the age from which a load gets another one beside it.
	overdue = time.Second
	// maxLoads bounds the loads under way; each can hold a thread.
	maxLoads = 5
)

// Options say what a Value is and how long it serves. Name, Load, State and Clock are required.
type Options[T any] struct {
	// Name is what errors call the value.
	Name string
	// Load brings a value. It must end by itself: ctx has no deadline, but tells Forced. current is the value in use, the
	// zero T before the first.
	Load func(ctx context.Context, current T) (T, error)
	// State judges a value. age is the time since the load began that brought it, idle that since the latest load began. It
	// must not block.
	State func(current T, age, idle time.Duration) State
	// Loaded is called once for each load that brought something new, before any caller gets it: with the values before and
	// after, or with the error. Calls do not overlap. It may be nil.
	Loaded func(before, after T, err error)
	// Clock reads the time.
	Clock func() clock.Moment
	// Patience is how long a caller waits while the value is Stale; 0 is as long as it takes.
	Patience time.Duration
	// Interval is the shortest time between the beginnings of two loads, unless the earlier one is overdue. Callers within
	// it get what the earlier one brought, its failure included.
	Interval time.Duration
}

// Value is a value that is kept and refreshed. It is safe for concurrent use.
type Value[T any] struct {
	o Options[T]

	taking sync.Mutex // results are taken one after the other

	mu      sync.Mutex
	value   T
	from    load          // brought value; zero before the first
	latest  load          // began last
	ended   load          // the latest of those that have ended
	err     error         // of ended
	running int           // loads under way
	changed chan struct{} // closed, and made anew, when a load ends
}

// load identifies a load.
type load struct {
	n     int // 1 is the first
	began clock.Moment
}

// New returns a Value. It loads nothing yet.
func New[T any](o Options[T]) *Value[T] {
	return &Value[T]{o: o, changed: make(chan struct{})}
}

// Get returns the value, loaded again where State or force asks for it. Without a usable value its error is that of the load,
// or tells that ctx ended first.
func (v *Value[T]) Get(ctx context.Context, force bool) (T, error) {
	var none T
	v.mu.Lock()
	defer v.mu.Unlock()
	now, before := v.o.Clock(), v.latest.n
	called := now
	recent := func(l load) bool { return l.n > before || called.Since(l.began) < v.o.Interval }
	var patience <-chan time.Time // never
	for ; ; now = v.o.Clock() {
		state := v.stateLocked(now)
		switch {
		case state <= Due && (!force || recent(v.from)):
			if state == Due {
				v.joinLocked(now, force)
			}
			return v.value, nil
		case recent(v.ended) && state != Expired:
			return v.value, nil
		case recent(v.ended):
			return none, cmp.Or(v.err, fmt.Errorf("%s: %w", v.o.Name, errExpired))
		}

		if state != Expired && v.o.Patience > 0 && patience == nil {
			timer := time.NewTimer(v.o.Patience)
			defer timer.Stop()
			patience = timer.C
		}
		another := time.NewTimer(v.joinLocked(now, force))
		changed, over := v.changed, false
		v.mu.Unlock()
		select {
		case <-changed:
		case <-another.C:
		case <-patience:
			over = true
		case <-ctx.Done():
			over = true
		}
		another.Stop()
		v.mu.Lock()
		switch {
		case over && v.stateLocked(v.o.Clock()) != Expired:
			return v.value, nil
		case over && ctx.Err() != nil:
			return none, fmt.Errorf("%s: not loaded in time: %w", v.o.Name, context.Cause(ctx))
		}
	}
}

var errExpired = errors.New("what was loaded has expired already")

// Latest returns the value as it is, the zero T before the first, and loads nothing.
func (v *Value[T]) Latest() T {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.value
}

// Settle waits until the latest load has ended, by the end of ctx at the latest.
func (v *Value[T]) Settle(ctx context.Context) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for v.latest.n != v.ended.n && ctx.Err() == nil {
		changed := v.changed
		v.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
		v.mu.Lock()
	}
}

func (v *Value[T]) stateLocked(now clock.Moment) State {
	if v.from.n == 0 {
		return Expired
	}
	return v.o.State(v.value, now.Since(v.from.began), now.Since(v.latest.began))
}

// joinLocked begins a load where none is under way, or where the latest one is overdue. It returns the time after which to
// call it again.
func (v *Value[T]) joinLocked(now clock.Moment, force bool) time.Duration {
	left := overdue - now.Since(v.latest.began)
	if (v.latest.n == v.ended.n || left <= 0) && v.running < maxLoads {
		v.latest = load{n: v.latest.n + 1, began: now}
		v.running++
		go v.run(v.latest, v.value, force)
	}
	if left <= 0 {
		return overdue
	}
	return left
}

func (v *Value[T]) run(l load, current T, force bool) {
	value, err := v.o.Load(context.WithValue(context.Background(), forcedKey{}, force), current)

	v.taking.Lock()
	defer v.taking.Unlock()
	v.mu.Lock()
	before, taken, failed := v.value, err == nil && l.n > v.from.n, err != nil && l.n > v.ended.n
	v.mu.Unlock()
	if v.o.Loaded != nil && (taken || failed) {
		v.o.Loaded(before, value, err)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if taken {
		v.value, v.from = value, l
	}
	if l.n > v.ended.n {
		v.ended, v.err = l, err
	}
	v.running--
	close(v.changed)
	v.changed = make(chan struct{})
}

type forcedKey struct{}

// Forced says of a Load's context whether a caller forced the load: what a cache below holds is then in doubt.
func Forced(ctx context.Context) bool {
	forced, _ := ctx.Value(forcedKey{}).(bool)
	return forced
}
