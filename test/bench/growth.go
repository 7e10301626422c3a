//go:build linux

package main

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// growth makes the tables of what ours costs as its work grows.
func (b *bench) growth(ctx context.Context) error {
	for _, table := range []func(context.Context) error{b.moreServices, b.moreCallers, b.moreConnections} {
		if err := table(ctx); err != nil {
			return err
		}
	}
	return nil
}

// moreServices asks for several services in each request: of an upstream that answers at once, where what counts is the
// processors' time for that many RPCs, and of one as far away as another place.
func (b *bench) moreServices(ctx context.Context) error {
	const most, away = 100, 10 * time.Millisecond
	names := make([]string, most)
	for i := range names {
		names[i] = fmt.Sprintf("s%02d", i)
	}
	fmt.Fprintf(b.out, "\n| services per request | p50 | beside one | CPU ms per request | p50, upstream answers after %v | beside one |\n|---|---|---|---|---|---|\n", away)
	var one, oneAway float64
	for _, n := range []int{1, 10, most} {
		path := "/?service=" + strings.Join(names[:n], "&service=")
		body := strings.Join(names[:n], " SERVING\n") + " SERVING\n"
		configured := "GRPC_HEALTH_SERVICE_NAME=" + strings.Join(names, ",")
		near, err := b.underOurs(ctx, 1, 0, path, body, configured)
		if err != nil {
			return fmt.Errorf("%d services: %w", n, err)
		}
		far, err := b.underOurs(ctx, 1, away, path, body, configured)
		if err != nil {
			return fmt.Errorf("%d services, far away: %w", n, err)
		}
		if n == 1 {
			one, oneAway = near.p50.Seconds(), far.p50.Seconds()
		}
		fmt.Fprintf(b.out, "| %d | %s | %.1f× | %.2f | %s | %.1f× |\n", n,
			shown(near.p50), near.p50.Seconds()/one, near.cpu.Seconds()*1e3, shown(far.p50), far.p50.Seconds()/oneAway)
	}
	return nil
}

// moreCallers has more of them ask at once. The memory that the process takes for its limit where there is none has room for fewer
// connections than the last row has.
func (b *bench) moreCallers(ctx context.Context) error {
	fmt.Fprint(b.out, "\n| callers | requests/s | p50 | p99 | RPCs/s | CPU s per 10,000 | peak RSS |\n|---|---|---|---|---|---|---|\n")
	for callers := 1; callers <= 4096; callers *= 4 {
		f, err := b.underOurs(ctx, callers, 0, "/", serving, "GOMEMLIMIT=1GiB")
		if err != nil {
			return fmt.Errorf("%d callers: %w", callers, err)
		}
		fmt.Fprintf(b.out, "| %d | %.0f | %s | %s | %.0f | %.2f | %s |\n",
			callers, f.rate, shown(f.p50), shown(f.p99), f.rpcs*f.rate, f.cpu.Seconds()*1e4, mebibytes(f.peak))
	}
	return nil
}

// underOurs measures ours with settings of its own, in all rounds, before an upstream that answers after delay.
func (b *bench) underOurs(ctx context.Context, callers int, delay time.Duration, path, body string, settings ...string) (figures, error) {
	var rounds []figures
	for range b.rounds {
		f, err := b.onceUnderOurs(ctx, callers, delay, path, body, settings)
		if err != nil {
			return figures{}, err
		}
		rounds = append(rounds, f)
	}
	return medians(rounds), nil
}

func (b *bench) onceUnderOurs(ctx context.Context, callers int, delay time.Duration, path, body string, settings []string) (figures, error) {
	u, err := newUpstream(nil, delay)
	if err != nil {
		return figures{}, err
	}
	defer u.stop()
	s, err := b.start(ctx, ours, plain, u, settings...)
	if err != nil {
		return figures{}, err
	}
	defer s.stop()
	return newLoad(s.addr, nil, path, body).measure(ctx, s, u, callers, b.window)
}

// idle are the numbers of open connections that are measured, the first without any.
var idle = [...]int{0, 100, 1000, 10000}

// settled is how long all have been idle then.
const settled = 3 * time.Second

// moreConnections keeps connections open over which a request has come, and none comes any more.
func (b *bench) moreConnections(ctx context.Context) error {
	least, err := b.residentWith(ctx, nothing)
	if err != nil {
		return err
	}
	full, err := b.residentWith(ctx, ours)
	if err != nil {
		return err
	}
	each := func(resident []int64, i int) string {
		if i == 0 {
			return ""
		}
		return fmt.Sprintf("%.1f KiB", float64(resident[i]-resident[0])/float64(idle[i])/(1<<10))
	}
	fmt.Fprintf(b.out, "\n| idle connections | RSS of %s | for each | RSS of %s | for each |\n|---|---|---|---|---|\n", nothing, ours)
	for i, n := range idle {
		fmt.Fprintf(b.out, "| %d | %s | %s | %s | %s |\n", n, mebibytes(least[i]), each(least, i), mebibytes(full[i]), each(full, i))
	}
	return nil
}

// residentWith is a server's memory in bytes with each number of idle connections.
func (b *bench) residentWith(ctx context.Context, k kind) ([]int64, error) {
	u, err := newUpstream(nil, 0)
	if err != nil {
		return nil, err
	}
	defer u.stop()
	// The collector runs often, so that what is measured is what the connections hold, and not what it has yet to free.
	s, err := b.start(ctx, k, plain, u, "GOGC=5", "GOMEMLIMIT=1GiB")
	if err != nil {
		return nil, err
	}
	defer s.stop()
	l := newLoad(s.addr, nil, "/", serving)
	first, err := l.connectAll(1) // what a server needs once is no connection's
	if err != nil {
		return nil, err
	}
	err = first[0].ask()
	closeAll(first)
	if err != nil {
		return nil, err
	}
	var open []*caller
	defer func() { closeAll(open) }()
	var resident []int64
	for _, n := range idle {
		more, err := l.connectAll(n - len(open))
		if err != nil {
			return nil, fmt.Errorf("%d connections (see the limit of open files, ulimit -n): %w", n, err)
		}
		open = append(open, more...)
		for _, c := range more {
			c.conn.SetDeadline(time.Now().Add(patience))
			if err := c.ask(); err != nil {
				return nil, err
			}
		}
		time.Sleep(settled)
		now, err := memory(s.cmd.Process.Pid, residentNow)
		if err != nil {
			return nil, err
		}
		resident = append(resident, now)
	}
	return resident, nil
}
