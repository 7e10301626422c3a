// Package platform tells which platform the process runs on, and what that asks for.
package platform

import (
	"context"
	"os"
	"time"
)

// CloudRun says whether the process runs on Google Cloud Run, as functions do too
// (https://cloud.google.com/run/docs/container-contract#env-vars).
func CloudRun() bool { return os.Getenv("K_SERVICE") != "" }

// Lambda says whether the process is an AWS Lambda function
// (https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html#configuration-envvars-runtime).
func Lambda() bool { return os.Getenv("AWS_LAMBDA_FUNCTION_NAME") != "" }

// Margin is how long before the platform's own deadline a request is answered.
const Margin = 200 * time.Millisecond

// WithMargin ends a request's context Margin before its deadline, where it has one.
func WithMargin(ctx context.Context) (context.Context, context.CancelFunc) {
	if deadline, ok := ctx.Deadline(); ok {
		return context.WithDeadline(ctx, deadline.Add(-Margin))
	}
	return ctx, func() {}
}
