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
// the ratios in these rounds. The simpler servers are this program, but built a second time: run from the same file as
// the callers they were up to 6 % faster than from any other, most likely since they shared its pages in the
// processor's caches.
//
// Ratios say something about the code, absolute figures about the machine, too: everything competes for
// its processors, the callers as well.
//
// What was tried in grpc_health_proxy, and did not pay:
//
//   - A profile for the compiler (-pgo makes one): nothing with 1 and 64 callers, up to 4 % with 512 for 3.5 MiB more, and a second
//     build of every dependency. So none is in the repository.
//   - GOGC above 130: with 150 1 % more answers with 64 callers and none with 512, and 46 MiB there instead of 44.
//   - To start the next RPC only after those who are ready to run: 0.044 instead of 0.047 RPCs per request, and no more
//     requests. To let it go out before those who are answered run: the same.
//   - A write deadline that is set once a second, and not for every answer; no lock in the question whether the server drains.
//
// What is in the way of more: with 64 callers 38 % of the server's time is the write(2) of the answer, 11 % the read(2) of the
// request, 13 % our handler (a quarter of that net/http's copy of the headers), 10 % the shared RPCs, 5 % the collector; and of
// the two processors 17 % are idle, as they are with (b), while one process waits for the other. With one caller it is many
// small things: a bare RPC in place of the flight is 2 % faster, the statistics by which grpc-go says how far an RPC came cost
// 2 %, the connections that can be told to end 2 %; the rest of the program costs nothing that could be measured.
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
}

// run is main without the process.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	var p plan
	flags.DurationVar(&p.window, "window", 500*time.Millisecond, "how long one measurement takes")
	flags.IntVar(&p.rounds, "rounds", 3, "how often each is made; the median counts")
	pgo := flags.Bool("pgo", false, "measure nothing, and write "+profilePath+", which the compiler optimises grpc_health_proxy by")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	case flags.NArg() > 0 || p.window <= 0 || p.rounds < 1:
		fmt.Fprintln(stderr, "-window and -rounds must be above zero, and there are no arguments (-help lists the flags)")
		return 2
	}
	b, err := newBench(ctx, p, stdout, shipped)
	if err == nil {
		defer b.close()
		if *pgo {
			err = b.profile(ctx)
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
	for _, table := range []func(context.Context) error{b.throughput, b.commands, b.growth} {
		if err := table(ctx); err != nil {
			return err
		}
	}
	return nil
}
