// Command bootstrap is the AWS Lambda function: it answers HTTP events (function URL, HTTP API, REST
// API, load balancer, VPC Lattice), direct invocations and schedules with the health of a gRPC server. Its
// settings come from the environment, its certificates, keys and tokens from files or from AWS Secrets Manager.
package main

import (
	"context"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/aws/aws-lambda-go/lambda"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Stdout, os.Stderr))
}

// run is main without the process. It answers invocations until ctx ends.
func run(ctx context.Context, stdout, stderr io.Writer) int {
	f := newFunction(stdout, stderr)
	defer f.close()
	slog.SetDefault(f.logger) // for the lines of the log package, which aws-lambda-go writes to
	// Lambda sends SIGTERM only to functions with an extension, so the option registers one that
	// listens to nothing. Start never returns: it ends the process when the runtime API fails.
	go lambda.StartWithOptions(f, lambda.WithEnableSIGTERM())
	<-ctx.Done()
	return 0
}
