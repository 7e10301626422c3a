//go:build unix

// Command soak looks for false verdicts: it runs grpc_health_proxy, lets 32 callers check through it while
// it does to the upstream, the way to it, the certificates and the process what goes wrong in practice, and
// judges every answer by what the upstream was between the request's arrival and the answer.
//
//	go run ./test/soak -for 2m
//
// The exit code is 1 where a verdict was false or late, 2 where the run failed.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(command(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// command is main without the process.
func command(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("soak", flag.ContinueOnError)
	flags.SetOutput(stderr)
	length := flags.Duration("for", 2*time.Minute, "how long to let callers check")
	seed := flags.Uint64("seed", 0, "repeats the faults of a run; 0 takes one from the clock")
	program := flags.String("program", "", "the `path` of the proxy to run; empty builds it")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	if *seed == 0 {
		*seed = uint64(time.Now().UnixNano())
	}
	fmt.Fprintf(stdout, "seed %d\n", *seed)
	o := &outside{stderr: stderr}
	var r *report
	done := make(chan struct{})
	go func() { // a fatal error ends it
		defer close(done)
		defer o.end()
		c := config{program: *program, length: *length, seed: *seed}
		if c.program == "" {
			c.program = build(o)
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

// build builds the proxy, as it is released.
func build(t testing.TB) string {
	program := filepath.Join(t.TempDir(), "grpc_health_proxy")
	cmd := exec.Command("go", "build", "-trimpath", "-o", program, "example.com/grpc-health-http/cloudrun")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the proxy: %v\n%s", err, out)
	}
	return program
}

// outside is what a test is for the packages that tests share, where there is no test.
type outside struct {
	testing.TB // nil: they use nothing else of it
	stderr     io.Writer

	mu       sync.Mutex
	failed   bool
	cleanups []func()
}

func (o *outside) Helper() {}

func (o *outside) Cleanup(f func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.cleanups = append(o.cleanups, f)
}

func (o *outside) Errorf(format string, args ...any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.failed = true
	fmt.Fprintf(o.stderr, format+"\n", args...)
}

func (o *outside) Fatalf(format string, args ...any) {
	o.Errorf(format, args...)
	runtime.Goexit()
}

func (o *outside) Fatal(args ...any) { o.Fatalf("%s", fmt.Sprintln(args...)) }

func (o *outside) TempDir() string {
	dir, err := os.MkdirTemp("", "soak")
	if err != nil {
		o.Fatal(err)
	}
	o.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// end runs what was to be done at the end, the latest first.
func (o *outside) end() {
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
