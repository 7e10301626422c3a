package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"

	"example.com/grpc-health-http/internal/answer"
	"example.com/grpc-health-http/internal/app"
	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/internal/near"
	"example.com/grpc-health-http/internal/settings"
	"example.com/grpc-health-http/internal/upstream"
)

// The exit codes, of -runcli and of what keeps the command from running.
const (
	exitServing        = 0
	exitConnection     = 1 // the connection failed or timed out
	exitRPC            = 2 // the RPC failed or timed out
	exitUnknownService = 3
	exitUnimplemented  = 4
	exitUnhealthy      = 5
	exitDown           = 1  // -check-self: the proxy is not up
	exitSettings       = 64 // wrong settings, an address that cannot be listened on among them (EX_USAGE of sysexits.h)
	exitFailed         = 70 // could not go on serving (EX_SOFTWARE)
)

// exitCodes translates a status; a time-out in phase rpc is exitRPC.
var exitCodes = map[health.Status]int{
	health.Serving:          exitServing,
	health.NotServing:       exitUnhealthy,
	health.Unknown:          exitUnhealthy,
	health.ServiceUnknown:   exitUnknownService,
	health.Unimplemented:    exitUnimplemented,
	health.ConnectionFailed: exitConnection,
	health.Timeout:          exitConnection,
	health.RPCFailed:        exitRPC,
	health.Overloaded:       exitRPC,
}

func exitCode(v health.Verdict) int {
	if v.Status == health.Timeout && v.Phase == health.PhaseRPC {
		return exitRPC
	}
	return exitCodes[v.Status]
}

// runOnce checks once: the verdicts go to standard output, their causes to standard error.
func runOnce(ctx context.Context, s *settings.Settings, logger *slog.Logger, stdout, stderr io.Writer) int {
	app.Warn(logger, s)
	a, err := app.New(s, app.Platform{Logger: logger})
	if err != nil {
		fmt.Fprintf(stderr, "wrong settings (-help lists them all):\n%v\n", indented(err))
		return exitSettings
	}
	defer a.Close()
	if s.TargetsFile != "" {
		if err := a.TargetsFile(nil).Load(ctx); err != nil {
			fmt.Fprintf(stderr, "wrong targets file:\n%v\n", indented(err))
			return exitSettings
		}
		if fault := unknownTarget(a, s.Names); fault != "" {
			fmt.Fprintln(stderr, fault)
			return exitSettings
		}
	}
	// What names are near is asked within the budget of the check.
	within, cancel := context.WithTimeout(ctx, a.Budget())
	defer cancel()
	verdicts := a.Check(ctx, s.Names...)
	switch {
	case ctx.Err() != nil: // nothing timed out: the exit code says how far the check came
		fmt.Fprintln(stderr, "interrupted before the verdict")
	case s.Format == "json":
		stdout.Write(answer.JSON(verdicts, false, true))
	default:
		stdout.Write(answer.Text(verdicts))
	}
	for _, v := range verdicts {
		if v.Status != health.ServiceUnknown {
			continue
		}
		if names := near.Names(v.Service, checkerOf(a, v).Names(within)); len(names) > 0 {
			fmt.Fprintf(stderr, "the server does not know %q: did you mean %s?\n", v.Service, near.Choice(names))
		}
	}
	return answer.ExitCode(verdicts, exitCode)
}

// checkerOf is the checker of the verdict's upstream.
func checkerOf(a *app.App, v health.Verdict) upstream.Checker {
	for _, u := range a.Upstreams() {
		if u.Target().Name == v.Target {
			return u.Checker
		}
	}
	panic("a verdict about no upstream")
}

// unknownTarget says which of the names is no target; empty where all are.
func unknownTarget(a *app.App, names []string) string {
	var targets []string
	for _, u := range a.Upstreams() {
		targets = append(targets, u.Target().Name)
	}
	for _, name := range names {
		if slices.Contains(targets, name) {
			continue
		}
		fault := fmt.Sprintf("the targets file has no target %q", name)
		if close := near.Names(name, targets); len(close) > 0 {
			fault += ": did you mean " + near.Choice(close) + "?"
		}
		return fault
	}
	return ""
}
