package pool

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"example.com/grpc-health-http/internal/clock"
	"example.com/grpc-health-http/internal/dial"
	"example.com/grpc-health-http/internal/grpcconn"
	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/internal/turns"
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

	brief *Pool // gives the connection up once it is not in use; nil where that is kept

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
	if c.released() {
		c.brief.Discard(c)
	}
}

// released counts an RPC off. It says whether the pool is to give the connection up, whose mutex may be held here.
func (c *Conn) released() bool {
	c.mu.Lock()
	c.users--
	last, evicted := c.users == 0, c.evicted
	c.mu.Unlock()
	if last && evicted {
		c.Close()
	}
	return last && !evicted && c.brief != nil
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

// Options say how a pool keeps and dials connections. Dial, Clock and ConnectTimeout are required.
type Options struct {
	Dial  DialFunc
	Clock *clock.Running
	// MaxAge is the age from which a kept connection serves no more. With 0 every connection is exclusive.
	MaxAge time.Duration
	// ConnectTimeout is how long a dial takes at most.
	ConnectTimeout time.Duration
	// AskedEvery is how often connections are wanted at least; 0 is not known. From MaxAge on a connection that has been used is
	// closed at once, unless others want connections more often.
	AskedEvery time.Duration
	// Turns gives each dial its turn; nil always does at once.
	Turns *turns.Target
	// MadeUp says that the pool is for what callers made up: others' dials come first.
	MadeUp bool
	// Reserve is how long before a caller needs its answer a dial must have had its turn.
	Reserve time.Duration
	// Reaper closes the kept connection when it is too old; nil keeps it until the next Get.
	Reaper *Reaper
}

// longAgo is before everything.
var longAgo = clock.Moment{Mono: math.MinInt64 / 2, Wall: math.MinInt64 / 2}

// ErrNoTurn is the cause of a failure to dial that says nothing about the upstream.
var ErrNoTurn = errors.New("as many dials as this process may make at once were in progress")

// Pool is safe for concurrent use.
type Pool struct {
	o Options

	mu      sync.Mutex
	kept    *Conn         // nil where there is none
	watched int64         // what the Reaper needs to forget the pool; 0 where it does not look at it
	dials   []*dialing    // in progress, in the order of their start; the last may wait for its turn
	changed chan struct{} // closed when a dial begins, ends or has no callers any more; nil where nobody waits for that
	waiting int32         // callers of Get that wait
	queued  int32         // dials that wait for their turn
	redials bool          // a Redial waits for the distance to the latest dial
	closed  bool          // no connection is kept any more

	asked    clock.Moment // when a caller got a connection last
	unqueued clock.Moment // when one of them did not any more, at last
}

// dialing is a dial in progress, which those who wait for it share.
type dialing struct {
	cancel   context.CancelFunc
	turn     *turns.Turn
	began    clock.Moment
	progress *dial.Progress // nil while the dial waits for its turn; began is not set then
	waiting  int            // callers to whom its failure counts
	ended    bool
	conn     *Conn // nil where it failed
	result   health.Dial
}

// New returns a pool.
func New(o Options) *Pool {
	return &Pool{o: o, asked: longAgo, unqueued: longAgo}
}

// ForMadeUp returns a pool with the same Options, for what callers made up.
func (p *Pool) ForMadeUp() *Pool {
	o := p.o
	o.AskedEvery, o.MadeUp = 0, true
	return New(o)
}

// Kept returns the kept connection for an RPC, nil where there is none that is usable.
func (p *Pool) Kept(now clock.Moment) *Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.usableLocked(now) {
		return nil
	}
	return p.useLocked(now)
}

// useLocked hands the kept connection to a caller.
func (p *Pool) useLocked(now clock.Moment) *Conn {
	p.asked = now
	p.kept.use()
	return p.kept
}

func (p *Pool) usableLocked(now clock.Moment) bool {
	return p.kept != nil && !p.kept.Lost() && now.Since(p.kept.Began) <= p.o.MaxAge
}

// Get returns a connection as needed, and how it was dialled: zero where another caller dialled it. A failure counts
// only of a dial that began no earlier than since. The connection is nil where the health.Dial has an error, which is the context's
// where that ended, and ErrNoTurn where a dial had no turn in time: due is the running time at which the caller needs its answer.
// Meanwhile progress points to the Progress of the dial that is waited for, once it has begun.
func (p *Pool) Get(ctx context.Context, need Need, since clock.Moment, due time.Duration, progress *atomic.Pointer[dial.Progress]) (*Conn, health.Dial) {
	if need == Exclusive || p.o.MaxAge <= 0 {
		return p.dialExclusive(ctx, due, progress)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiting++
	defer p.doneWaitingLocked()
	var mine *dialing
	var late context.Context // ends when it is too late for a turn; nil where none is waited for
	var queued clock.Moment  // when the caller began to wait for it
	for {
		now := p.o.Clock.Now()
		if mine != nil && mine.conn != nil {
			p.asked = now.Moment
			return mine.conn, mine.result // in use since the dial ended
		}
		if p.usableLocked(now.Moment) && (need == Any || !p.kept.Began.Before(since)) {
			if mine != nil {
				p.leaveLocked(mine)
			}
			return p.useLocked(now.Moment), health.Dial{}
		}
		if mine != nil && mine.ended {
			return nil, mine.result
		}
		var mayDial <-chan time.Time
		if mine == nil {
			mine, mayDial = p.joinLocked(ctx, now, since, due)
		}
		var noTurn <-chan struct{}
		switch {
		case mine == nil:
		case mine.progress != nil:
			progress.Store(mine.progress)
		default:
			if late == nil {
				var cancel context.CancelFunc
				queued = now.Moment
				late, cancel = p.o.Clock.WithBudget(ctx, p.turnWithin(now, due))
				defer cancel()
			}
			noTurn = late.Done()
		}
		if p.changed == nil {
			p.changed = make(chan struct{})
		}
		changed := p.changed
		p.mu.Unlock()
		select {
		case <-changed:
		case <-mayDial:
		case <-noTurn:
		case <-ctx.Done():
		}
		p.mu.Lock()
		if ctx.Err() != nil {
			switch {
			case mine == nil:
			case !mine.ended:
				p.leaveLocked(mine)
			case mine.conn != nil:
				if mine.conn.released() && p.kept == mine.conn {
					p.dropLocked()
				}
			}
			return nil, health.Dial{Phase: health.PhaseConnect, Err: context.Cause(ctx)}
		}
		if late != nil && late.Err() != nil && mine.progress == nil {
			p.leaveLocked(mine)
			return nil, noTurnWithin(p.o.Clock.Now().Since(queued))
		}
	}
}

// turnWithin is how long a caller waits for its dial's turn, at most.
func (p *Pool) turnWithin(now clock.Reading, due time.Duration) time.Duration {
	return max(due-p.o.Reserve-now.Running, 0)
}

func noTurnWithin(waited time.Duration) health.Dial {
	return health.Dial{Took: waited, Err: fmt.Errorf("no turn to dial within %v: %w", waited.Round(time.Millisecond), ErrNoTurn)}
}

// joinLocked takes part in a dial that began no earlier than since, or that has not begun, or starts one. Where it may not yet, it
// returns none; mayDial then says when to ask again.
func (p *Pool) joinLocked(ctx context.Context, now clock.Reading, since clock.Moment, due time.Duration) (d *dialing, mayDial <-chan time.Time) {
	if len(p.dials) > 0 {
		latest := p.dials[len(p.dials)-1]
		if latest.progress == nil {
			latest.turn.NeededBy(due)
			latest.waiting++
			return latest, nil
		}
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
	d = p.startLocked(ctx, now, due)
	d.waiting++
	return d, nil
}

// leaveLocked takes a caller off a dial. Once all have left, the dial makes room for that of another caller, also for one that waits for
// its turn.
func (p *Pool) leaveLocked(d *dialing) {
	if d.waiting--; d.waiting == 0 {
		if p.queued > 0 {
			p.endOneLocked()
		}
		p.wakeLocked()
	}
}

// wakeLocked has everyone who waits look again.
func (p *Pool) wakeLocked() {
	if p.changed != nil {
		close(p.changed)
		p.changed = nil
	}
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
// outage that is over. A caller who waits for other callers' RPCs calls it, since these wait for those dials. due is the running
// time at which it needs its answer.
func (p *Pool) Redial(ctx context.Context, due time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.dials) == 0 || p.redials {
		return
	}
	latest := p.dials[len(p.dials)-1]
	if latest.progress == nil { // it dials as soon as another one could
		return
	}
	if wait := max(shareWindow, p.o.ConnectTimeout/maxDials) - p.o.Clock.Now().Since(latest.began); wait > 0 {
		p.redials = true
		time.AfterFunc(wait, func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.redials = false
			p.redialLocked(ctx, latest, due)
		})
		return
	}
	p.redialLocked(ctx, latest, due)
}

// redialLocked starts another dial if the latest is in progress, and still is the latest.
func (p *Pool) redialLocked(ctx context.Context, latest *dialing, due time.Duration) {
	if n := len(p.dials); n > 0 && p.dials[n-1] == latest && p.makeRoomLocked() {
		p.startLocked(ctx, p.o.Clock.Now(), due)
	}
}

// makeRoomLocked says whether a dial may begin. It ends one whose callers have all left where the limit requires it.
func (p *Pool) makeRoomLocked() bool {
	return len(p.dials) < maxDials || p.endOneLocked()
}

// endOneLocked ends a dial whose callers have all left, and says whether there is one.
func (p *Pool) endOneLocked() bool {
	i := slices.IndexFunc(p.dials, func(d *dialing) bool { return d.waiting == 0 && d.progress != nil })
	if i < 0 {
		return false
	}
	p.dials[i].cancel()
	p.dials = slices.Delete(p.dials, i, i+1)
	return true
}

// dialExclusive dials for one RPC; the connection is closed when it is released.
func (p *Pool) dialExclusive(ctx context.Context, due time.Duration, progress *atomic.Pointer[dial.Progress]) (*Conn, health.Dial) {
	turn := p.o.Turns.Want(due, p.o.MadeUp)
	defer turn.Return()
	if turn.Waits() {
		if d := p.await(ctx, turn, due); d.Err != nil {
			return nil, d
		}
	}
	began := p.o.Clock.Now().Moment
	shown := dial.NewProgress(began)
	progress.Store(shown)
	c, d := p.o.Dial(ctx, shown)
	if c == nil {
		return nil, d
	}
	return &Conn{Conn: c, Began: began, users: 1, evicted: true}, d
}

// await waits for the turn of an exclusive dial.
func (p *Pool) await(ctx context.Context, turn *turns.Turn, due time.Duration) (failed health.Dial) {
	p.mu.Lock()
	p.queued++
	p.mu.Unlock()
	began := p.o.Clock.Now()
	within, cancel := p.o.Clock.WithBudget(ctx, p.turnWithin(began, due))
	defer cancel()
	select {
	case <-turn.Came():
	case <-within.Done():
		failed = noTurnWithin(p.o.Clock.Now().Since(began.Moment))
	}
	if ctx.Err() != nil {
		failed = health.Dial{Phase: health.PhaseConnect, Err: context.Cause(ctx)}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.unqueuedLocked()
	return failed
}

func (p *Pool) unqueuedLocked() {
	p.queued--
	p.unqueued = p.o.Clock.Now().Moment
}

// WaitedForTurn says whether a dial has waited for its turn at any time from since on.
func (p *Pool) WaitedForTurn(since clock.Moment) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.queued > 0 || !p.unqueued.Before(since)
}

// startLocked begins a dial for those who wait, when its turn has come. It outlives ctx, whose caller may leave before others do.
func (p *Pool) startLocked(ctx context.Context, now clock.Reading, due time.Duration) *dialing {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	d := &dialing{cancel: cancel, turn: p.o.Turns.Want(due, p.o.MadeUp)}
	p.dials = append(p.dials, d)
	if d.turn.Waits() {
		p.queued++
		p.endOneLocked() // whose turn is free then
	} else {
		d.beginLocked(now)
	}
	go p.run(ctx, d)
	return d
}

func (d *dialing) beginLocked(now clock.Reading) {
	d.began, d.progress = now.Moment, dial.NewProgress(now.Moment)
}

// run is the goroutine of a dial.
func (p *Pool) run(ctx context.Context, d *dialing) {
	defer d.cancel()
	defer d.turn.Return()
	if d.turn.Waits() && !p.awaitShared(ctx, d) {
		return
	}
	c, result := p.o.Dial(ctx, d.progress)
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
}

// awaitShared waits for the turn of a shared dial, and says whether it has come while somebody waits for the dial.
func (p *Pool) awaitShared(ctx context.Context, d *dialing) bool {
	select {
	case <-d.turn.Came():
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.unqueuedLocked()
	if ctx.Err() != nil { // it is no longer among the dials
		return false
	}
	d.beginLocked(p.o.Clock.Now())
	p.wakeLocked()
	return true
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
	if p.isBriefLocked(c) {
		c.brief = p
	}
	if p.watched == 0 {
		p.watchLocked()
	}
}

// isBriefLocked says that nobody will need the connection after those who use it now: the next use that is known of comes after
// its age, and so did this one after the one before.
func (p *Pool) isBriefLocked(c *Conn) bool {
	return p.o.AskedEvery >= p.o.MaxAge && c.Began.Since(p.asked) >= p.o.MaxAge/2
}

// watchLocked has the Reaper look at the kept connection when it is too old.
func (p *Pool) watchLocked() {
	if p.o.Reaper != nil {
		p.watched = p.o.Reaper.watch(p, max(p.o.MaxAge-p.o.Clock.Now().Since(p.kept.Began), 0))
	}
}

// closeOld gives the kept connection up if it is too old. The Reaper, which has forgotten the pool, calls it.
func (p *Pool) closeOld() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.watched = 0
	switch {
	case p.kept == nil:
	case p.usableLocked(p.o.Clock.Now().Moment):
		p.watchLocked()
	default:
		p.dropLocked()
	}
}

// closeSurplus gives the kept connection up because there are too many. The Reaper, which has forgotten the pool, calls it.
func (p *Pool) closeSurplus() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.watched = 0; p.kept != nil {
		p.dropLocked()
	}
}

// Discard gives a connection up that was lost, or silent, or is not needed. RPCs on it are not ended.
func (p *Pool) Discard(c *Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.kept == c {
		p.dropLocked()
	}
}

// dropLocked gives the kept connection up.
func (p *Pool) dropLocked() {
	p.kept.evict()
	p.kept = nil
	if p.watched != 0 {
		p.o.Reaper.forget(p, p.watched)
		p.watched = 0
	}
}

// Close gives the kept connection up, and keeps none from now on. RPCs on it go on.
func (p *Pool) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	if p.kept != nil {
		p.dropLocked()
	}
}
