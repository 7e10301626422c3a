//go:build linux

// Command bench measures what a check costs, beside servers that do the same in simpler ways:
//
//	go run ./test/bench
//
// It runs on Linux, on loopback alone, and takes less than three minutes once everything is built. Two processes share
// the machine: the server under test, and this one, which holds the callers and the upstream. The upstream
// is here so that its RPCs are counted without asking anybody, and so that no third process competes
// for a small machine's processors; it is so for all servers alike. Each figure is the median of three
// rounds, in each of which the servers take turns, every time in a new process; and each ratio the median of
// the ratios in these rounds. The simpler servers are this program, but built a second time: run
// from the same file as the callers, they would be faster than a server of another file.
//
// With -fleet it measures checks of many targets instead, beside programs that do the same, whose paths flags name. The targets are a third
// process, so that what they cost is not counted.
//
// Ratios say something about the code, absolute figures about the machine, too: everything competes for
// its processors, the callers as well.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(os.Args) > 1 && os.Args[1] == peerCommand {
		os.Exit(runPeer(os.Args[2:], os.Stderr))
	}
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// plan is how long and how often is measured.
type plan struct {
	window time.Duration // of one measurement
	rounds int
	only   transport // "" is all, and the other tables
	before string    // a grpc_health_proxy that was built earlier, or ""
	fleet  fleetPlan
}

// run is main without the process.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	var p plan
	flags.DurationVar(&p.window, "window", 500*time.Millisecond, "how long one measurement takes")
	flags.IntVar(&p.rounds, "rounds", 3, "how often each is made; the median counts")
	flags.Func("only", "measure throughput alone, of plain, TLS, mTLS or gRPC", func(value string) error {
		p.only = transport(value)
		if !slices.ContainsFunc(cells(), func(c cell) bool { return c.transport == p.only }) {
			return errors.New("there is no such transport")
		}
		return nil
	})
	flags.StringVar(&p.before, "before", "", "a grpc_health_proxy that was built earlier in the same way: how ours is beside it")
	many := flags.Bool("fleet", false, "measure checks of many targets instead, beside the programs that these flags name")
	flags.StringVar(&p.fleet.peers.blackbox, "blackbox", "", "blackbox_exporter's program, for -fleet")
	flags.StringVar(&p.fleet.peers.gatus, "gatus", "", "gatus's program, for -fleet")
	flags.StringVar(&p.fleet.peers.cloudprober, "cloudprober", "", "cloudprober's program, for -fleet")
	p.fleet.targets = fleetTargets
	flags.Func("targets", "how many targets -fleet checks, separated by commas; the first with all peers (default 1000,10000)", func(value string) error {
		p.fleet.targets = nil
		for text := range strings.SplitSeq(value, ",") {
			n, err := strconv.Atoi(text)
			if err != nil || n < 1 {
				return errors.New("want numbers above zero")
			}
			p.fleet.targets = append(p.fleet.targets, n)
		}
		return nil
	})
	flags.DurationVar(&p.fleet.interval, "interval", 10*time.Second, "how often -fleet checks each, 1s or more")
	flags.DurationVar(&p.fleet.window, "fleet-window", 30*time.Second, "how long one measurement of -fleet takes")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	case flags.NArg() > 0 || p.window <= 0 || p.rounds < 1 || p.fleet.window <= 0 || p.fleet.interval < time.Second:
		fmt.Fprintln(stderr, "windows and -rounds must be above zero, -interval 1s at least, and there are no arguments (-help lists the flags)")
		return 2
	}
	b, err := newBench(ctx, p, stdout, shipped)
	if err == nil {
		defer b.close()
		if *many {
			err = b.manyTargets(ctx)
		} else {
			err = b.all(ctx)
		}
	}
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return 1
	}
	return 0
}

// bench is what the measurements share.
type bench struct {
	plan
	out          io.Writer
	programs     programs
	certificates certificates
}

// newBench builds what is measured, with these flags of go build.
func newBench(ctx context.Context, p plan, out io.Writer, flags []string) (*bench, error) {
	programs, err := build(ctx, flags)
	if err != nil {
		return nil, err
	}
	b := &bench{plan: p, out: out, programs: programs, certificates: certificates(filepath.Join(programs.dir, "certificates"))}
	if out, err := exec.CommandContext(ctx, programs.certs, "-dir", string(b.certificates)).CombinedOutput(); err != nil {
		b.close()
		return nil, fmt.Errorf("make certificates: %w\n%s", err, out)
	}
	return b, nil
}

func (b *bench) close() { os.RemoveAll(b.programs.dir) }

// all makes every table.
func (b *bench) all(ctx context.Context) error {
	fmt.Fprintf(b.out, "%s/%s, %d processors, %s, %d rounds of %v\n",
		runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version(), b.rounds, b.window)
	tables := []func(context.Context) error{b.throughput, b.commands, b.growth}
	if b.only != "" {
		tables = tables[:1]
	}
	for _, table := range tables {
		if err := table(ctx); err != nil {
			return err
		}
	}
	return nil
}
