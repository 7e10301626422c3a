package prove

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"example.com/grpc-health-http/internal/clock"
	"example.com/grpc-health-http/internal/dial"
	"example.com/grpc-health-http/internal/grpcconn"
	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/internal/pool"
)

// attempt is a connection, and an RPC on it.
type attempt struct {
	need     pool.Need
	since    clock.Moment // the check's beginning when the attempt began
	cancel   context.CancelFunc
	timedOut atomic.Bool                   // it was cancelled because its time was up
	progress grpcconn.Progress             // of the RPC
	dialling atomic.Pointer[dial.Progress] // of what the attempt waits for before its RPC

	// The Check's mutex guards what follows.
	conn   *pool.Conn    // nil until there is one
	dial   health.Dial   // how it was made; zero where others had dialled
	asked  clock.Reading // when the RPC began
	silent time.Duration // running time from which the connection counts as silent
	due    time.Duration // running time at which the RPC's time is up
}

// reuses says whether the attempt's connection was dialled before the check began.
func (a *attempt) reuses(c *Check) bool { return a.conn.Began.Before(c.began.Moment) }

// event is what an attempt reports to Run.
type event interface {
	handleLocked(c *Check, now clock.Reading)
}

// connected: the attempt has a connection, and its RPC begins.
type connected struct {
	attempt *attempt
	conn    *pool.Conn
	dial    health.Dial
	now     clock.Reading
}

// notConnected: the attempt got no connection.
type notConnected struct {
	attempt *attempt
	dial    health.Dial
}

// nothingToSend: the attempt did not get the metadata.
type nothingToSend struct {
	attempt *attempt
	err     error
}

// answered: the attempt's RPC has ended.
type answered struct {
	attempt *attempt
	answer  grpcconn.Answer
}

// startLocked starts an attempt. Where it can use the kept connection at once, its RPC begins now.
func (c *Check) startLocked(now clock.Reading, need pool.Need) {
	a := &attempt{need: need, since: c.began.Moment}
	c.attempts = append(c.attempts, a)
	if need == pool.Any && c.o.Metadata == nil {
		if conn := c.pool.Kept(now.Moment); conn != nil {
			ctx, cancel := c.rpcContext(c.ctx)
			a.cancel = cancel
			a.beginRPC(c, conn, now)
			go func() { c.report(c.rpc(ctx, a, conn, nil)) }()
			return
		}
	}
	ctx, cancel := context.WithCancel(c.ctx)
	a.cancel = cancel
	go c.attempt(ctx, a)
}

// beginRPC notes that the attempt's RPC begins; the Check's mutex is held.
func (a *attempt) beginRPC(c *Check, conn *pool.Conn, now clock.Reading) {
	a.conn, a.asked = conn, now
	a.silent = now.Running + c.o.RPCTimeout/4
	a.due = now.Running + c.o.RPCTimeout
}

// rpcContext is the context of an RPC that begins now. Its deadline is a little behind the attempt's, so
// that the server has one too and yet is not the first to say that the time is up.
func (c *Check) rpcContext(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithDeadline(ctx, time.Now().Add(c.o.RPCTimeout+clock.Slice))
}

// attempt is an attempt's goroutine: it gets what to send and a connection, and makes the RPC.
func (c *Check) attempt(ctx context.Context, a *attempt) {
	md, err := c.metadata(ctx, a)
	if err != nil {
		c.report(nothingToSend{a, err})
		return
	}
	conn, d := c.pool.Get(ctx, a.need, a.since, &a.dialling)
	if conn == nil {
		c.report(notConnected{a, d})
		return
	}
	if !c.report(connected{a, conn, d, c.o.Clock.Now()}) {
		conn.Release()
		return
	}
	ctx, cancel := c.rpcContext(ctx)
	defer cancel()
	c.report(c.rpc(ctx, a, conn, md))
}

// metadata gets what to send with the RPC, within a budget of its own.
func (c *Check) metadata(ctx context.Context, a *attempt) (metadata.MD, error) {
	if c.o.Metadata == nil {
		return nil, nil
	}
	a.dialling.Store(dial.NewProgress(c.o.Clock.Now().Moment))
	ctx, cancel := c.o.Clock.WithBudget(ctx, c.o.ConnectTimeout)
	defer cancel()
	md, err := c.o.Metadata(ctx)
	if err != nil && errors.Is(context.Cause(ctx), clock.ErrBudget) && !errors.Is(err, clock.ErrBudget) {
		if errors.Is(err, context.Canceled) {
			err = fmt.Errorf("what to send with the RPC did not come within %v", c.o.ConnectTimeout)
		}
		err = fmt.Errorf("%w: %w", err, clock.ErrBudget)
	}
	return md, err
}

// rpc makes an attempt's RPC, and releases its connection.
func (c *Check) rpc(ctx context.Context, a *attempt, conn *pool.Conn, md metadata.MD) answered {
	defer conn.Release()
	answer := conn.Do(ctx, c.request, md, &a.progress)
	code := answer.Code
	if a.timedOut.Load() {
		code = codes.DeadlineExceeded
	}
	c.o.Trace.RPC(code.String())
	return answered{a, answer}
}

// report gives an event to Run. After false, report nothing else: the check has ended.
func (c *Check) report(e event) bool {
	select {
	case c.events <- e:
		return true
	case <-c.ctx.Done():
		return false
	}
}

// takesPart says whether an attempt has not been given up.
func (c *Check) takesPartLocked(a *attempt) bool { return slices.Contains(c.attempts, a) }

func (e connected) handleLocked(c *Check, _ clock.Reading) {
	if c.takesPartLocked(e.attempt) {
		e.attempt.dial = e.dial
		e.attempt.beginRPC(c, e.conn, e.now)
	}
}

func (e notConnected) handleLocked(c *Check, _ clock.Reading) {
	c.failedLocked(e.attempt, health.Attempt{Dial: e.dial}, e.dial.Phase, e.dial.Err)
}

func (e nothingToSend) handleLocked(c *Check, _ clock.Reading) {
	c.failedLocked(e.attempt, health.Attempt{Result: e.err.Error()}, health.PhaseCredentials, e.err)
}

// failedLocked ends an attempt that made no RPC.
func (c *Check) failedLocked(a *attempt, shown health.Attempt, phase health.Phase, err error) {
	if !c.takesPartLocked(a) {
		return
	}
	c.dropLocked(a)
	c.evidence.Attempts = append(c.evidence.Attempts, shown)
	if a.since.Before(c.began.Moment) {
		return // it proves nothing: the process was stopped in the meantime
	}
	v := health.Verdict{Status: health.ConnectionFailed, Phase: phase, Err: err}
	if errors.Is(err, clock.ErrBudget) {
		v.Status = health.Timeout
	}
	c.failure = &v
}

func (e answered) handleLocked(c *Check, now clock.Reading) {
	a := e.attempt
	if !c.takesPartLocked(a) {
		return
	}
	c.dropLocked(a)
	if e.answer.Outcome == grpcconn.TimedOut {
		c.timedOutLocked(a, now)
		return
	}
	c.noteLocked(a, now, e.answer.String())
	if e.answer.Outcome == grpcconn.Answered {
		v := health.Verdict{Status: e.answer.Status, Code: e.answer.Code, Asked: true, Err: e.answer.Err}
		c.settleLocked(v, e.answer.List, a.asked)
		return
	}
	c.pool.Discard(a.conn)
	if !a.reuses(c) && a.conn != c.lost { // two attempts can have the same connection
		c.lost, c.exclusive = a.conn, true
		c.losses += pointsOfLoss
		if e.answer.Outcome == grpcconn.Unprocessed {
			c.losses += pointsUnhandled - pointsOfLoss
		}
	}
	if c.losses < lossesAllowed {
		c.wantLocked("lost")
		return
	}
	c.failure = &health.Verdict{
		Status: health.ConnectionFailed, Code: e.answer.Code, Asked: true, Phase: health.PhaseRPC,
		Err: fmt.Errorf("the connection was lost before an answer came: %w", e.answer.Err),
	}
}
