//go:build unix

// Command soak looks for false verdicts. It runs grpc_health_proxy with 32 callers. Meanwhile it causes what goes wrong in practice:
// faults of the upstream, the network, the certificates and the process. It judges each verdict by the state of the upstream between
// the request and the answer.
//
//	go run ./test/soak -for 2m
//
// The exit code is 1 if a verdict was false or late, and 2 if the run failed.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"example.com/grpc-health-http/test/scripttest"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(command(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// command runs the soak, and returns the exit code.
func command(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("soak", flag.ContinueOnError)
	flags.SetOutput(stderr)
	length := flags.Duration("for", 2*time.Minute, "how long the callers make requests")
	seed := flags.Uint64("seed", 0, "repeats the faults of a run; 0 takes a seed from the clock")
	program := flags.String("program", "", "the `path` of the proxy to run; empty builds it")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	if *seed == 0 {
		*seed = uint64(time.Now().UnixNano())
	}
	fmt.Fprintf(stdout, "seed %d\n", *seed)
	o := &standalone{stderr: stderr}
	var r *report
	done := make(chan struct{})
	go func() { // Fatal ends this goroutine
		defer close(done)
		defer o.end()
		c := config{program: *program, length: *length, seed: *seed}
		if c.program == "" {
			c.program = scripttest.Build(o, "example.com/grpc-health-http/cloudrun", "grpc_health_proxy")
		}
		r = run(ctx, o, c)
	}()
	<-done
	if r != nil {
		r.print(stdout)
	}
	switch {
	case r == nil || o.failed:
		return 2
	case r.faulty():
		return 1
	}
	return 0
}

// standalone implements what the shared test packages use of testing.TB, for a program that is not a test.
type standalone struct {
	testing.TB // nil: no other method is called
	stderr     io.Writer

	mu       sync.Mutex
	failed   bool
	cleanups []func()
}

func (o *standalone) Helper() {}

func (o *standalone) Cleanup(f func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.cleanups = append(o.cleanups, f)
}

func (o *standalone) Errorf(format string, args ...any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.failed = true
	fmt.Fprintf(o.stderr, format+"\n", args...)
}

func (o *standalone) Fatalf(format string, args ...any) {
	o.Errorf(format, args...)
	runtime.Goexit()
}

func (o *standalone) Fatal(args ...any) { o.Fatalf("%s", fmt.Sprintln(args...)) }

func (o *standalone) TempDir() string {
	dir, err := os.MkdirTemp("", "soak")
	if err != nil {
		o.Fatal(err)
	}
	o.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// end runs the cleanup functions, the last one first.
func (o *standalone) end() {
	for {
		o.mu.Lock()
		n := len(o.cleanups)
		if n == 0 {
			o.mu.Unlock()
			return
		}
		f := o.cleanups[n-1]
		o.cleanups = o.cleanups[:n-1]
		o.mu.Unlock()
		f()
	}
}
