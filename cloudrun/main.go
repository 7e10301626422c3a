// Command grpc_health_proxy answers HTTP requests with the health of a gRPC server. It listens with
// HTTP, HTTPS or mutual TLS, exposes Prometheus metrics on a port of their own, and with -runcli
// checks once and exits with a code that says how the server is.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"example.com/grpc-health-http/internal/app"
	"example.com/grpc-health-http/internal/inert"
	"example.com/grpc-health-http/internal/settings"
	"example.com/grpc-health-http/internal/version"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run is main without the process. It serves until ctx ends.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	stdout, stderr = inert.Writer(stdout), inert.Writer(stderr)
	s, err := settings.ParseProxy(args, stdout)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintf(stderr, "wrong settings (-help lists them all):\n%v\n", indented(err))
		return exitSettings
	}
	if s.Version {
		fmt.Fprintln(stdout, version.Get())
		return 0
	}
	if s.CheckSelf {
		return checkSelf(ctx, s, stdout, stderr)
	}
	target, done, err := logTarget(s, stderr)
	if err != nil {
		fmt.Fprintf(stderr, "wrong settings (-help lists them all):\n%v\n", indented(err))
		return exitSettings
	}
	defer done()
	logger := app.NewLogger(target, s)
	if s.RunCLI {
		return runOnce(ctx, s, logger, stdout, stderr)
	}
	serve, err := prepare(ctx, s, logger)
	if err != nil {
		fmt.Fprintf(stderr, "cannot serve:\n%v\n", indented(err))
		return exitSettings
	}
	if err := serve(ctx); err != nil {
		fmt.Fprintf(stderr, "cannot go on serving:\n%v\n", indented(err))
		return exitFailed
	}
	return exitServing
}

// logTarget opens what the log is written to. done closes it.
func logTarget(s *settings.Settings, stderr io.Writer) (w io.Writer, done func(), err error) {
	if s.LogTarget == "" {
		return stderr, func() {}, nil
	}
	file, err := os.OpenFile(s.LogTarget, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		if failed, ok := errors.AsType[*fs.PathError](err); ok && !settings.PathForm(s.LogTarget) {
			err = failed.Err // without the value
		}
		return nil, nil, fmt.Errorf("-logTarget: %w", err)
	}
	return file, func() { file.Close() }, nil
}

// indented is an error with each of its lines indented.
func indented(err error) string {
	return "  " + strings.ReplaceAll(err.Error(), "\n", "\n  ")
}
