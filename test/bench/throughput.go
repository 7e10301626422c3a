//go:build linux

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// cell is one line of the table of throughput: a server, and how many callers ask it.
type cell struct {
	transport transport
	callers   int
	kind      kind
}

// cells are all lines, in the order in which a round measures them: what is compared is next to each other.
func cells() []cell {
	var all []cell
	for _, t := range []transport{plain, tlsBehind, mutualBoth} {
		for _, callers := range []int{1, 8, 64, 512} {
			for _, k := range []kind{dialEach, oneConn, nothing, before, ours, oursDial} {
				switch {
				case k == oursDial && t != plain:
				case k == before && t == tlsBehind: // it has no goal there
				case k == nothing && t == tlsBehind: // it has no upstream, and so no such line
				default:
					all = append(all, cell{t, callers, k})
				}
			}
		}
	}
	for _, callers := range []int{1, 64} {
		for _, k := range []kind{relay, nginx, itself, ours} {
			all = append(all, cell{grpcIn, callers, k})
		}
	}
	return all
}

// throughput makes the table of requests, and compares it with the goals.
func (b *bench) throughput(ctx context.Context) error {
	rounds := make(map[cell][]figures)
	all := slices.DeleteFunc(cells(), func(c cell) bool {
		return b.only != "" && c.transport != b.only || c.kind == before && b.before == "" || c.kind == nginx && b.programs.nginx == ""
	})
	if b.programs.nginx == "" {
		fmt.Fprintf(b.out, "\nnginx is not installed: without the rows of %s\n", nginx)
	}
	for range b.rounds {
		for _, c := range all {
			f, err := b.under(ctx, c, b.window)
			if err != nil {
				return fmt.Errorf("%s, %s, %d callers: %w", c.kind, c.transport, c.callers, err)
			}
			rounds[c] = append(rounds[c], f)
		}
	}
	results := make(map[cell]figures, len(rounds))
	for c, fs := range rounds {
		results[c] = medians(fs)
	}
	fmt.Fprint(b.out, "\n| | callers | server | requests/s | p50 | p99 | RPCs per request | CPU s per 10,000 | peak RSS | ours is |\n"+
		"|---|---|---|---|---|---|---|---|---|---|\n")
	for _, c := range all {
		f := results[c]
		ratio := ""
		if c.kind != ours {
			ratio = fmt.Sprintf("%.2f×", ratios(rounds[cell{c.transport, c.callers, ours}], rounds[c], rate))
		}
		fmt.Fprintf(b.out, "| %s | %d | %s | %.0f | %s | %s | %.3f | %.2f | %s | %s |\n",
			c.transport, c.callers, c.kind, f.rate, shown(f.p50), shown(f.p99), f.rpcs, f.cpu.Seconds()*1e4, mebibytes(f.peak), ratio)
	}
	b.compare(rounds)
	return nil
}

// under measures one server under load.
func (b *bench) under(ctx context.Context, c cell, window time.Duration) (figures, error) {
	config, err := b.certificates.upstream(c.transport)
	if err != nil {
		return figures{}, err
	}
	u, err := newUpstream(config, 0)
	if err != nil {
		return figures{}, err
	}
	defer u.stop()
	s, err := b.start(ctx, c.kind, c.transport, u)
	if err != nil {
		return figures{}, err
	}
	defer s.stop()
	if config, err = b.certificates.caller(c.transport); err != nil {
		return figures{}, err
	}
	l := newLoad(s.addr, config, "/", serving)
	if c.transport == grpcIn {
		l = newGRPCLoad(s.addr)
	}
	f, err := l.measure(ctx, s, u, c.callers, window)
	if errors.Is(err, errNoAnswer) { // hundreds of handshakes at once, on a machine that has other work, too
		const patiently = 4
		f, err = l.measure(ctx, s, u, c.callers, patiently*window)
	}
	return f, err
}

// start starts a server of that kind in front of the upstream; ours takes further settings.
func (b *bench) start(ctx context.Context, k kind, t transport, u *upstream, settings ...string) (*server, error) {
	switch k {
	case oursDial:
		settings = append(settings, "GRPC_HEALTH_CONN_MAX_AGE=0s")
		fallthrough
	case ours, before:
		program := b.programs.proxy
		if k == before {
			program = b.before
		}
		env := slices.Concat(b.certificates.settings(t), settings, []string{
			"GRPC_HEALTH_ADDR=" + u.addr, "GRPC_HEALTH_HTTP_LISTEN_ADDR=127.0.0.1:0", "GRPC_HEALTH_METRICS_HTTP_LISTEN_ADDR=127.0.0.1:0",
		})
		return startServer(ctx, program, nil, env)
	case relay:
		return startServer(ctx, b.programs.relay, []string{u.addr}, settings)
	case nginx:
		return startNginx(ctx, b.programs.nginx, b.programs.dir, u.addr)
	}
	return startServer(ctx, b.programs.peers, []string{peerCommand, string(k), u.addr, string(t), string(b.certificates)}, settings)
}

// goal is a ratio to reach.
type goal struct {
	name           string
	of, to         cell
	value          func(figures) float64
	least          bool // the ratio is to be at least this; else at most
	floor, stretch float64
}

func rate(f figures) float64 { return f.rate }

func slowest(f figures) float64 { return f.p99.Seconds() }

func goals() []goal {
	of := func(callers int, k kind) cell { return cell{plain, callers, k} }
	all := []goal{
		{"ours / (a), 1 caller", of(1, ours), of(1, dialEach), rate, true, 2.4, 3},
		{"ours / (a), 64", of(64, ours), of(64, dialEach), rate, true, 8, 10},
		{"ours / (a), 512", of(512, ours), of(512, dialEach), rate, true, 11, 14},
		{"ours / (b), 1", of(1, ours), of(1, oneConn), rate, true, 0.75, 0.95},
		{"ours / (b), 64", of(64, ours), of(64, oneConn), rate, true, 1.6, 2},
		{"ours / (b), 512", of(512, ours), of(512, oneConn), rate, true, 1.9, 2.4},
		{"ours / (c), 64", of(64, ours), of(64, nothing), rate, true, 0.5, 0.6},
		{"ours / (c), 512", of(512, ours), of(512, nothing), rate, true, 0.65, 0.75},
		{"ours / (a), mTLS on both sides, 64", cell{mutualBoth, 64, ours}, cell{mutualBoth, 64, dialEach}, rate, true, 15, 25},
		{"ours with `GRPC_HEALTH_CONN_MAX_AGE=0` / (a), 64", of(64, oursDial), of(64, dialEach), rate, true, 3.5, 4.5},
		{"ours / (d), gRPC, 64", cell{grpcIn, 64, ours}, cell{grpcIn, 64, relay}, rate, true, 1.5, 2},
		{"p99 of ours / (b), 64", of(64, ours), of(64, oneConn), slowest, false, 1, 0.7},
	}
	for _, c := range cells() {
		if c.kind == before {
			now := cell{c.transport, c.callers, ours}
			all = append(all, goal{fmt.Sprintf("ours / ours before, %s, %d", c.transport, c.callers), now, c, rate, true, 0.9, 1})
		}
	}
	return all
}

// compare makes the table of the goals.
func (b *bench) compare(rounds map[cell][]figures) {
	fmt.Fprint(b.out, "\n| ratio | measured | floor | stretch |\n|---|---|---|---|\n")
	for _, g := range goals() {
		if rounds[g.of] == nil || rounds[g.to] == nil {
			continue
		}
		ratio := ratios(rounds[g.of], rounds[g.to], g.value)
		verdict := "**missed**"
		if g.least == (ratio >= g.floor) || ratio == g.floor {
			verdict = ""
		}
		fmt.Fprintf(b.out, "| %s | %.2f× %s | %g× | %g× |\n", g.name, ratio, verdict, g.floor, g.stretch)
	}
}

// ratios is the median of what the one is to the other in each round: a machine that is slower for a while is so for both.
func ratios(of, to []figures, value func(figures) float64) float64 {
	all := make([]float64, len(of))
	for i := range of {
		all[i] = value(of[i]) / value(to[i])
	}
	return median(all, func(ratio float64) float64 { return ratio })
}

// medians takes each figure's median by itself.
func medians(rounds []figures) figures {
	return figures{
		rate: median(rounds, func(f figures) float64 { return f.rate }),
		p50:  median(rounds, func(f figures) time.Duration { return f.p50 }),
		p99:  median(rounds, func(f figures) time.Duration { return f.p99 }),
		rpcs: median(rounds, func(f figures) float64 { return f.rpcs }),
		cpu:  median(rounds, func(f figures) time.Duration { return f.cpu }),
		peak: median(rounds, func(f figures) int64 { return f.peak }),
	}
}

// median is the middle of the values; of an even number, the higher of the two.
func median[T any, V cmp.Ordered](all []T, value func(T) V) V {
	values := make([]V, 0, len(all))
	for _, one := range all {
		values = append(values, value(one))
	}
	slices.Sort(values)
	return values[len(values)/2]
}

// shown is a duration with the digits that mean something.
func shown(d time.Duration) string {
	switch {
	case d < 100*time.Microsecond:
		return fmt.Sprintf("%.0f µs", d.Seconds()*1e6)
	case d < 100*time.Millisecond:
		return fmt.Sprintf("%.2f ms", d.Seconds()*1e3)
	}
	return fmt.Sprintf("%.0f ms", d.Seconds()*1e3)
}

func mebibytes(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }
