package pool

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"example.com/grpc-health-http/internal/clock"
	"example.com/grpc-health-http/internal/dial"
	"example.com/grpc-health-http/internal/grpcconn"
	"example.com/grpc-health-http/internal/health"
)

const (
	// shareWindow is how young a dial may be for those who arrive after its start to wait for its end before they start their own.
	shareWindow = 25 * time.Millisecond
	// maxDials bounds the dials in progress at once, however many callers wait.
	maxDials = 8
)

// DialFunc makes a connection, as dial.Dialer's Dial does.
type DialFunc func(ctx context.Context, p *dial.Progress) (*grpcconn.Conn, health.Dial)

// Need says which connections may serve a caller.
type Need int

const (
	// Any usable connection serves.
	Any Need = iota
	// Fresh: one whose dial began no earlier than the caller's moment.
	Fresh
	// Exclusive: one that is dialled for this caller, who shares it with nobody.
	Exclusive
)

// Conn is a connection that the caller of Get uses for one RPC. Release must follow.
type Conn struct {
	*grpcconn.Conn
	// Began is when its dial began.
	Began clock.Moment

	mu      sync.Mutex
	users   int  // RPCs on it
	evicted bool // close it once users is 0
}

func (c *Conn) use() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.users++
}

// Release says that the caller's RPC has ended.
func (c *Conn) Release() {
	c.mu.Lock()
	c.users--
	last := c.evicted && c.users == 0
	c.mu.Unlock()
	if last {
		c.Close()
	}
}

// evict closes the connection once its last RPC has ended. The pool calls it once.
func (c *Conn) evict() {
	c.mu.Lock()
	c.evicted = true
	unused := c.users == 0
	c.mu.Unlock()
	if unused {
		c.Close()
	}
}

// Pool is safe for concurrent use.
type Pool struct {
	dial        DialFunc
	clock       *clock.Running
	maxAge      time.Duration
	dialSpacing time.Duration

	mu      sync.Mutex
	kept    *Conn         // nil where there is none
	dials   []*dialing    // in progress, in the order of their start
	changed chan struct{} // closed, and replaced, when a dial ends or has no callers any more
	waiting int           // callers of Get that wait
	redials bool          // a Redial waits for the distance to the latest dial
	closed  bool          // no connection is kept any more
}

// dialing is a dial in progress, which those who wait for it share.
type dialing struct {
	began    clock.Moment
	cancel   context.CancelFunc
	waiting  int // callers to whom its failure counts
	progress *dial.Progress
	ended    bool
	conn     *Conn // nil where it failed
	result   health.Dial
}

// New returns a pool that keeps no connection for longer than maxAge. connectTimeout is how long a dial takes at most.
func New(dial DialFunc, clock *clock.Running, maxAge, connectTimeout time.Duration) *Pool {
	return &Pool{
		dial: dial, clock: clock, maxAge: maxAge, changed: make(chan struct{}),
		dialSpacing: max(shareWindow, connectTimeout/maxDials),
	}
}

// Kept returns the kept connection for an RPC, nil where there is none that is usable.
func (p *Pool) Kept(now clock.Moment) *Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.usableLocked(now) {
		return nil
	}
	p.kept.use()
	return p.kept
}

func (p *Pool) usableLocked(now clock.Moment) bool {
	return p.kept != nil && !p.kept.Lost() && now.Since(p.kept.Began) <= p.maxAge
}

// Get returns a connection as needed, and how it was dialled: zero where another caller dialled it. A failure counts
// only of a dial that began no earlier than since. The connection is nil where the health.Dial has an error, which is the context's
// where that ended. Meanwhile progress points to the Progress of the dial that is waited for.
func (p *Pool) Get(ctx context.Context, need Need, since clock.Moment, progress *atomic.Pointer[dial.Progress]) (*Conn, health.Dial) {
	if need == Exclusive || p.maxAge <= 0 {
		return p.dialExclusive(ctx, progress)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiting++
	defer p.doneWaitingLocked()
	var mine *dialing
	for {
		now := p.clock.Now()
		if mine != nil && mine.conn != nil {
			return mine.conn, mine.result // in use since the dial ended
		}
		if p.usableLocked(now.Moment) && (need == Any || !p.kept.Began.Before(since)) {
			if mine != nil {
				p.leaveLocked(mine)
			}
			p.kept.use()
			return p.kept, health.Dial{}
		}
		if mine != nil && mine.ended {
			return nil, mine.result
		}
		var mayDial <-chan time.Time
		if mine == nil {
			if mine, mayDial = p.joinLocked(ctx, now, since); mine != nil {
				progress.Store(mine.progress)
			}
		}
		changed := p.changed
		p.mu.Unlock()
		select {
		case <-changed:
		case <-mayDial:
		case <-ctx.Done():
		}
		p.mu.Lock()
		if ctx.Err() != nil {
			switch {
			case mine == nil:
			case !mine.ended:
				p.leaveLocked(mine)
			case mine.conn != nil:
				mine.conn.Release()
			}
			return nil, health.Dial{Phase: health.PhaseConnect, Err: context.Cause(ctx)}
		}
	}
}

// joinLocked takes part in a dial that began no earlier than since, or starts one. Where it may not yet, it returns
// none; mayDial then says when to ask again.
func (p *Pool) joinLocked(ctx context.Context, now clock.Reading, since clock.Moment) (d *dialing, mayDial <-chan time.Time) {
	if len(p.dials) > 0 {
		latest := p.dials[len(p.dials)-1]
		if !latest.began.Before(since) {
			latest.waiting++
			return latest, nil
		}
		if age := now.Since(latest.began); age < shareWindow {
			return nil, time.After(shareWindow - age)
		}
	}
	if !p.makeRoomLocked() {
		return nil, nil
	}
	d = p.startLocked(ctx, now)
	d.waiting++
	return d, nil
}

// leaveLocked takes a caller off a dial. Once all have left, the dial makes room for that of another caller.
func (p *Pool) leaveLocked(d *dialing) {
	if d.waiting--; d.waiting == 0 {
		p.wakeLocked()
	}
}

// wakeLocked has everyone who waits look again.
func (p *Pool) wakeLocked() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// doneWaitingLocked ends the dials when nobody waits for a connection any more.
func (p *Pool) doneWaitingLocked() {
	if p.waiting--; p.waiting > 0 {
		return
	}
	for _, d := range p.dials {
		d.cancel()
	}
	p.dials = nil
}

// Redial starts another dial where callers wait for older ones, at some distance from the latest: those can be stuck in an
// outage that is over. A caller who waits for other callers' RPCs calls it, since these wait for those dials.
func (p *Pool) Redial(ctx context.Context) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.dials) == 0 || p.redials {
		return
	}
	latest := p.dials[len(p.dials)-1]
	if wait := p.dialSpacing - p.clock.Now().Since(latest.began); wait > 0 {
		p.redials = true
		time.AfterFunc(wait, func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.redials = false
			p.redialLocked(ctx, latest)
		})
		return
	}
	p.redialLocked(ctx, latest)
}

// redialLocked starts another dial if the latest is in progress, and still is the latest.
func (p *Pool) redialLocked(ctx context.Context, latest *dialing) {
	if n := len(p.dials); n > 0 && p.dials[n-1] == latest && p.makeRoomLocked() {
		p.startLocked(ctx, p.clock.Now())
	}
}

// makeRoomLocked says whether a dial may begin. It ends one whose callers have all left where the limit requires it.
func (p *Pool) makeRoomLocked() bool {
	if len(p.dials) < maxDials {
		return true
	}
	i := slices.IndexFunc(p.dials, func(d *dialing) bool { return d.waiting == 0 })
	if i < 0 {
		return false
	}
	p.dials[i].cancel()
	p.dials = slices.Delete(p.dials, i, i+1)
	return true
}

// dialExclusive dials for one RPC; the connection is closed when it is released.
func (p *Pool) dialExclusive(ctx context.Context, progress *atomic.Pointer[dial.Progress]) (*Conn, health.Dial) {
	began := p.clock.Now().Moment
	shown := dial.NewProgress(began)
	progress.Store(shown)
	c, d := p.dial(ctx, shown)
	if c == nil {
		return nil, d
	}
	return &Conn{Conn: c, Began: began, users: 1, evicted: true}, d
}

// startLocked begins a dial for those who wait. It outlives ctx, whose caller may leave before others do.
func (p *Pool) startLocked(ctx context.Context, now clock.Reading) *dialing {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	d := &dialing{began: now.Moment, cancel: cancel, progress: dial.NewProgress(now.Moment)}
	p.dials = append(p.dials, d)
	go func() {
		defer cancel()
		c, result := p.dial(ctx, d.progress)
		p.mu.Lock()
		defer p.mu.Unlock()
		d.ended, d.result = true, result
		if i := slices.Index(p.dials, d); i >= 0 {
			p.dials = slices.Delete(p.dials, i, i+1)
		}
		if c != nil {
			d.conn = &Conn{Conn: c, Began: d.began, users: d.waiting}
			p.keepLocked(d.conn)
		}
		p.wakeLocked()
	}()
	return d
}

// keepLocked keeps the connection, unless a newer one is kept already, or the pool is closed.
func (p *Pool) keepLocked(c *Conn) {
	if p.closed || p.kept != nil && !p.kept.Lost() && !p.kept.Began.Before(c.Began) {
		c.evict()
		return
	}
	if p.kept != nil {
		p.kept.evict()
	}
	p.kept = c
}

// Discard gives a connection up that was lost, or silent. RPCs on it go on.
func (p *Pool) Discard(c *Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.kept == c {
		p.kept = nil
		c.evict()
	}
}

// Close gives the kept connection up, and keeps none from now on. RPCs on it go on.
func (p *Pool) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	if p.kept != nil {
		p.kept.evict()
		p.kept = nil
	}
}
