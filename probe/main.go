// Command grpc_health_probe asks a gRPC server for its health once and exits with a code that says
// how it is; for exec probes. It takes the flags of the tool of the same name and keeps its exit codes.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc/codes"

	"example.com/grpc-health-http/internal/answer"
	"example.com/grpc-health-http/internal/check"
	"example.com/grpc-health-http/internal/creds"
	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/internal/inert"
	"example.com/grpc-health-http/internal/near"
	"example.com/grpc-health-http/internal/settings"
	"example.com/grpc-health-http/internal/upstream"
	"example.com/grpc-health-http/internal/version"
)

func main() {
	// One check needs one processor: with more the runtime starts threads that find nothing to do, 3 % of the whole time.
	runtime.GOMAXPROCS(1)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// The exit codes.
const (
	exitServing    = 0
	exitArguments  = 1  // wrong arguments
	exitConnection = 2  // no usable connection, in time
	exitRPC        = 3  // an RPC status other than OK, or the connection was lost, or the time ran out, during the RPC
	exitUnhealthy  = 4  // the server answered, and the answer is not SERVING
	exitSPIFFE     = 20 // the SPIFFE credentials could not be obtained
)

// redial is the time between two attempts to connect to a server that does not listen yet.
const redial = 50 * time.Millisecond

// run is main without the process. It ends early when ctx does.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	stdout, stderr = inert.Writer(stdout), inert.Writer(stderr)
	s, err := settings.ParseProbe(args, stdout)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		for problem := range strings.Lines(err.Error()) {
			fmt.Fprintf(stderr, "error: %s\n", strings.TrimSuffix(problem, "\n"))
		}
		return exitArguments
	}
	if s.Version {
		fmt.Fprintln(stdout, version.Get())
		return 0
	}
	for _, warning := range s.Warnings {
		fmt.Fprintf(stderr, "warning: %s\n", warning)
	}
	options, err := upstream.Options(&s.Upstream, creds.Options{
		Setting: s.Name,
		Warning: func(_ creds.Kind, text string) { fmt.Fprintf(stderr, "warning: %s\n", text) },
	}, nil)
	if err != nil {
		fmt.Fprintf(stderr, "error: %v\n", err)
		return exitArguments
	}
	options.Redial = redial
	var noIdentity atomic.Bool // the dial's credentials could not be obtained
	options.Trace = &health.Trace{Verdict: func(_ context.Context, v health.Verdict, evidence health.Evidence) (time.Time, string) {
		for _, a := range evidence.Attempts {
			if a.Dial.Phase == health.PhaseCredentials {
				noIdentity.Store(true)
			}
		}
		if s.Verbose {
			fmt.Fprintf(stderr, "%s: took %v\n", about(v), v.Duration.Round(time.Microsecond))
			for _, line := range evidence.Lines() {
				fmt.Fprintf(stderr, "> %s\n", line)
			}
		}
		return time.Time{}, ""
	}}
	if s.Verbose {
		fmt.Fprintf(stderr, "checking %s: connect timeout %v, RPC timeout %v\n", s.ShownAddr(), s.ConnectTimeout, s.RPCTimeout)
		if len(s.FromEnvironment) > 0 {
			fmt.Fprintf(stderr, "> settings from the environment: %s\n", strings.Join(s.FromEnvironment, " "))
		}
	}
	checker := check.New(options)
	defer checker.Close()
	// What names are near is asked within the budget of the check.
	within, cancel := context.WithTimeout(ctx, s.ConnectTimeout+s.RPCTimeout)
	defer cancel()
	verdicts := health.All(ctx, checker.Check, s.Services)
	if s.Format == "json" {
		stdout.Write(answer.JSON(verdicts, false, true))
	}
	for _, v := range verdicts {
		fmt.Fprintln(stderr, message(s.ShownAddr(), v, len(verdicts) > 1))
		if v.Status == health.ServiceUnknown {
			if names := near.Names(v.Service, checker.Names(within)); len(names) > 0 {
				fmt.Fprintf(stderr, "the server does not know %q: did you mean %s?\n", v.Service, near.Choice(names))
			}
		}
	}
	return answer.ExitCode(verdicts, func(v health.Verdict) int { return exitCode(v, s.SPIFFE && noIdentity.Load()) })
}

// exitCodes translates the verdicts that the connection's phases do not decide.
var exitCodes = map[health.Status]int{
	health.Serving:          exitServing,
	health.NotServing:       exitUnhealthy,
	health.Unknown:          exitUnhealthy,
	health.ServiceUnknown:   exitUnhealthy,
	health.Unimplemented:    exitRPC,
	health.RPCFailed:        exitRPC,
	health.ConnectionFailed: exitConnection,
	health.Timeout:          exitConnection,
	health.Overloaded:       exitRPC,
}

// exitCode translates a verdict; noSPIFFE says that the SPIFFE credentials could not be obtained.
func exitCode(v health.Verdict, noSPIFFE bool) int {
	switch {
	case v.Phase == health.PhaseCredentials && noSPIFFE:
		return exitSPIFFE
	case v.Phase == health.PhaseRPC, v.Asked && v.Code != codes.OK:
		return exitRPC
	}
	return exitCodes[v.Status]
}

// message is the line about a verdict. It names the target as it was given, unless all is well; named puts the service's name into it.
func message(target string, v health.Verdict, named bool) string {
	var b strings.Builder
	if named {
		b.WriteString(about(v) + ": ")
	}
	if v.Status == health.Serving {
		return b.String() + "status: SERVING"
	}
	if exitCodes[v.Status] == exitUnhealthy && v.Err == nil {
		fmt.Fprintf(&b, "service unhealthy (responded with %q): %s", v.Status, target)
	} else {
		fmt.Fprintf(&b, "error: %s", v.Status)
		if v.Phase != health.PhaseNone {
			fmt.Fprintf(&b, " in phase %s", v.Phase)
		}
		b.WriteString(": " + target)
	}
	if v.Status == health.ServiceUnknown && v.Service != "" {
		fmt.Fprintf(&b, ": service %q", v.Service)
	}
	if v.Err != nil {
		fmt.Fprintf(&b, ": %s", v.Reason())
	}
	return b.String()
}

// about names what a verdict is about.
func about(v health.Verdict) string {
	if v.Service == "" {
		return "server"
	}
	return v.Service
}
