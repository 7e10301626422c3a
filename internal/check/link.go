package check

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// shareFor is how young an RPC, or a dial, may be for those who arrive to wait for it or the
	// next one rather than start their own beside it.
	shareFor = 25 * time.Millisecond
	// maxDials bounds the dials under way at once, however many wait.
	maxDials = 8
)

// link keeps one standing connection to the upstream, and dials when there is none that will do.
type link struct {
	dialer *dialer
	clock  *runtimeClock
	maxAge time.Duration

	mu      sync.Mutex
	current *conn
	dials   []*dialing    // under way, in the order of their start
	changed chan struct{} // closed, and made anew, when a dial ends
	waiting int           // callers of acquire
	closed  bool          // no connection is kept any more
}

// dialing is a dial under way, which those who wait for it share.
type dialing struct {
	began    moment
	cancel   context.CancelFunc
	waiting  int // callers whose dial this is
	progress *dialProgress
	finished bool
	conn     *conn
	dial     Dial
}

func newLink(d *dialer, clock *runtimeClock, maxAge time.Duration) *link {
	return &link{dialer: d, clock: clock, maxAge: maxAge, changed: make(chan struct{})}
}

// standing returns the standing connection for an RPC, nil where there is none that may serve a new check.
func (l *link) standing(now moment) *conn {
	if l.maxAge <= 0 {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.usable(now) {
		return nil
	}
	l.current.use()
	return l.current
}

// usable says whether the current connection may serve a new check: it stands, and is not too old.
func (l *link) usable(now moment) bool {
	return l.current != nil && !l.current.gone.Load() && now.Since(l.current.began) <= l.maxAge
}

// acquire returns a connection for one RPC, counted in with use: the standing one, or with fresh set
// one whose dial began no earlier than since. It shares the dials of others as far as that is right:
// success of any dial serves, but a failure counts only where the dial began no earlier than since.
// The connection is nil where the Dial failed, or the context ended. stage is set to the
// progress of the dial that is waited for.
func (l *link) acquire(ctx context.Context, since moment, fresh bool, stage *atomic.Pointer[dialProgress]) (*conn, Dial) {
	if l.maxAge <= 0 {
		return l.dialAlone(ctx, stage)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting++
	defer func() {
		if l.waiting--; l.waiting == 0 {
			for _, d := range l.dials {
				d.cancel()
			}
			l.dials = nil
		}
	}()
	var mine *dialing
	for {
		now := l.clock.tick()
		if mine != nil && mine.finished {
			return mine.conn, mine.dial // counted in when the dial ended
		}
		if l.usable(now.moment) && (!fresh || !l.current.began.Before(since)) {
			if mine != nil {
				mine.waiting--
			}
			l.current.use()
			return l.current, Dial{}
		}
		var older <-chan time.Time
		if mine == nil {
			var youngest *dialing
			if len(l.dials) > 0 {
				youngest = l.dials[len(l.dials)-1]
			}
			switch {
			case youngest != nil && !youngest.began.Before(since):
				mine = youngest
				mine.waiting++
				stage.Store(mine.progress)
			case youngest != nil && now.Since(youngest.began) < shareFor:
				older = time.After(shareFor - now.Since(youngest.began))
			case l.makeRoom():
				mine = l.start(ctx, now)
				stage.Store(mine.progress)
			}
		}
		changed := l.changed
		l.mu.Unlock()
		select {
		case <-changed:
		case <-older:
		case <-ctx.Done():
		}
		l.mu.Lock()
		if ctx.Err() != nil {
			switch {
			case mine == nil:
			case !mine.finished:
				mine.waiting--
			case mine.conn != nil:
				mine.conn.done()
			}
			return nil, Dial{Phase: PhaseConnect, Err: context.Cause(ctx)}
		}
	}
}

// makeRoom says whether a dial may begin, and ends one whose callers have all left where that takes it.
func (l *link) makeRoom() bool {
	if len(l.dials) < maxDials {
		return true
	}
	i := slices.IndexFunc(l.dials, func(d *dialing) bool { return d.waiting == 0 })
	if i < 0 {
		return false
	}
	l.dials[i].cancel()
	l.dials = slices.Delete(l.dials, i, i+1)
	return true
}

// dialAlone dials for one RPC, which shares the connection with no other; it is closed when the RPC is done.
func (l *link) dialAlone(ctx context.Context, stage *atomic.Pointer[dialProgress]) (*conn, Dial) {
	p := newProgress(l.clock.tick())
	stage.Store(p)
	c, d := l.dialer.dial(ctx, p)
	if c != nil {
		c.use()
		c.retire()
	}
	return c, d
}

// start begins a dial for those who wait. It outlives ctx, whose caller may leave before others do.
func (l *link) start(ctx context.Context, now reading) *dialing {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	d := &dialing{began: now.moment, cancel: cancel, waiting: 1, progress: newProgress(now)}
	l.dials = append(l.dials, d)
	go func() {
		defer cancel()
		c, dial := l.dialer.dial(ctx, d.progress)
		l.mu.Lock()
		defer l.mu.Unlock()
		d.finished, d.conn, d.dial = true, c, dial
		if i := slices.Index(l.dials, d); i >= 0 {
			l.dials = slices.Delete(l.dials, i, i+1)
		}
		if c != nil {
			for range d.waiting {
				c.use()
			}
			l.adopt(c)
		}
		close(l.changed)
		l.changed = make(chan struct{})
	}()
	return d
}

// adopt makes c the standing connection, unless a newer one stands, or none is kept.
func (l *link) adopt(c *conn) {
	switch {
	case l.closed:
		c.retire()
	case l.current == nil || l.current.gone.Load() || l.current.began.Before(c.began):
		if l.current != nil {
			l.current.retire()
		}
		l.current = c
	default:
		c.retire()
	}
}

// discard gives a connection up that was lost, or silent.
func (l *link) discard(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.current == c {
		l.current = nil
		c.retire()
	}
}

// close gives the standing connection up, and keeps none from now on; RPCs under way on it end first.
func (l *link) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	if l.current != nil {
		l.current.retire()
		l.current = nil
	}
}
