package prove

import (
	"context"
	"errors"
	"fmt"
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

// notConnected: the attempt made no RPC.
type notConnected struct {
	attempt *attempt
	shown   health.Attempt
	phase   health.Phase
	err     error
}

// answered: the attempt's RPC has ended.
type answered struct {
	attempt *attempt
	answer  grpcconn.Answer
}

// startLocked starts an attempt, whose context ends when Run drops it. Where it can use the kept connection at once, its RPC begins now.
func (c *Check) startLocked(now clock.Reading, need pool.Need) {
	a := &attempt{need: need, since: c.began.Moment}
	c.attempts = append(c.attempts, a)
	if need == pool.Any && c.o.Metadata == nil {
		if conn := c.pool.Kept(now.Moment); conn != nil {
			ctx, cancel := c.rpcContext(context.WithoutCancel(c.ctx))
			a.cancel = cancel
			a.beginRPC(c, conn, now)
			c.o.Go(func() { c.report(c.rpc(ctx, a, conn, nil)) })
			return
		}
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(c.ctx))
	a.cancel = cancel
	c.o.Go(func() { c.attempt(ctx, a) })
}

// beginRPC notes that the attempt's RPC begins; the Check's mutex is held.
func (a *attempt) beginRPC(c *Check, conn *pool.Conn, now clock.Reading) {
	a.conn, a.asked = conn, now
	a.silent = now.Running + c.o.RPCTimeout/silentPart
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
		c.report(notConnected{a, health.Attempt{Result: err.Error()}, health.PhaseCredentials, err})
		return
	}
	conn, d := c.pool.Get(ctx, a.need, a.since, c.due, &a.dialling)
	if conn == nil {
		c.report(notConnected{a, health.Attempt{Dial: d}, d.Phase, d.Err})
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
	case <-c.over:
		return false
	}
}
