//go:build linux

// Command attack attacks grpc_health_proxy as a hostile caller, or a hostile upstream, would: it takes memory, connections and
// time, sends what no client sends, and looks for secrets in everything that the program prints. The program runs in a memory
// cgroup of 64 MiB, the limit of our own manifests. Where no cgroup can be made it runs with GOMEMLIMIT=64MiB, and the peak of its
// resident memory is judged.
//
//	go run ./test/attack
//	go run ./test/attack -only 'slow|reset'
//
// Each attack has a program of its own, and is a row of the table that is printed: what was sent, what it cost, and whether probes
// from the side got the right answers in time. The exit code is 1 if an attack did not hold, and 2 if the attacks could not run.
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
	"regexp"
	"slices"
	"sync"
	"syscall"
	"time"
)

func main() {
	if takesMemory() {
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(command(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// command makes the attacks, and returns the exit code.
func command(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("attack", flag.ContinueOnError)
	flags.SetOutput(stderr)
	program := flags.String("program", "", "the `path` of the proxy to attack; empty builds it")
	only := flags.String("only", "", "make only the attacks whose names match this regular `expression`")
	slow := flags.Bool("slow", false, "make also the attacks that take longer: rights that end within 15 s")
	inCgroup := flags.Bool("cgroup", true, "run the proxy in a memory cgroup, where one can be made")
	slack := flags.Duration("slack", time.Second, "the time that a busy machine may add to an answer")
	list := flags.Bool("list", false, "print the names of the attacks, and make none")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	chosen, err := choose(*only, *slow)
	if err != nil {
		fmt.Fprintln(stderr, err)
		return 2
	}
	if *list {
		for _, a := range chosen {
			fmt.Fprintf(stdout, "%-26s %s\n", a.name, a.what)
		}
		return 0
	}
	if err := enoughFiles(); err != nil {
		fmt.Fprintln(stderr, err)
		return 2
	}
	if *program == "" {
		dir, err := os.MkdirTemp("", "attack")
		if err != nil {
			fmt.Fprintln(stderr, err)
			return 2
		}
		defer os.RemoveAll(dir)
		if *program, err = build(ctx, dir, "cloudrun"); err != nil {
			fmt.Fprintln(stderr, err)
			return 2
		}
	}
	var where *cgroups
	err = errors.New("not wanted")
	if *inCgroup {
		where, err = findCgroups()
	}
	if err == nil {
		fmt.Fprintf(stdout, "Each attacked program runs in a memory cgroup of %d MiB (%s), which ended a program that took more.\n", limit>>20, where.root)
	} else {
		fmt.Fprintf(stdout, "No memory cgroup: %v. Each attacked program runs with GOMEMLIMIT, and its peak of resident memory must stay within %d MiB.\n", err, limit>>20)
	}
	results := make([]result, len(chosen))
	var waiting sync.WaitGroup // of those that are slow because they wait
	for i, a := range chosen {
		if a.slow {
			waiting.Go(func() { results[i] = run(ctx, a, *program, where, *slack) })
		}
	}
	waiting.Wait()
	for i, a := range chosen {
		if !a.slow && ctx.Err() == nil {
			results[i] = run(ctx, a, *program, where, *slack)
		}
	}
	printTable(stdout, results)
	if slices.ContainsFunc(results, func(r result) bool { return !r.holds() }) || ctx.Err() != nil {
		return 1
	}
	return 0
}

// build builds a package of this module as a release is built, without the race detector, which takes memory, and returns the
// program's path.
func build(ctx context.Context, dir, pkg string) (string, error) {
	program := filepath.Join(dir, "program")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-tags", "grpcnotrace", "-o", program, "example.com/grpc-health-http/"+pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", pkg, err, out)
	}
	return program, nil
}

// attacks returns the table of all attacks.
func attacks() []attack {
	var all []attack
	for _, a := range slices.Concat(memoryAttacks(), http2Attacks(), upstreamAttacks(), callerAttacks(), secretAttacks()) {
		if all = append(all, a); a.h2c {
			a.name, a.what, a.https, a.short = a.name+", h2c", "the same without TLS", false, true
			all = append(all, a)
		}
	}
	return all
}

// choose returns the attacks whose names match.
func choose(only string, slow bool) ([]attack, error) {
	match, err := regexp.Compile(only)
	if err != nil {
		return nil, fmt.Errorf("-only: %w", err)
	}
	chosen := slices.DeleteFunc(attacks(), func(a attack) bool { return !match.MatchString(a.name) || a.slow && !slow })
	if len(chosen) == 0 {
		return nil, errors.New("no attack has such a name: -list prints them")
	}
	return chosen, nil
}

// enoughFiles reports whether this process may open as many connections as an attack has. Go has raised the limit as far as it may.
func enoughFiles() error {
	const wanted = 8_000
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return fmt.Errorf("limit of open files: %w", err)
	}
	if files.Cur < wanted {
		return fmt.Errorf("this machine allows %d open files, the attacks need %d: raise the hard limit (ulimit -Hn)", files.Cur, wanted)
	}
	return nil
}
