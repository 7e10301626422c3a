// Package healthhttp is the Google Cloud function HealthCheck, which answers HTTP requests with the health of a gRPC server.
// Its settings come from the environment, its certificates and keys from mounted secrets.
package healthhttp

import (
	"context"
	"io"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/GoogleCloudPlatform/functions-framework-go/functions"

	"example.com/grpc-health-http/internal/app"
	"example.com/grpc-health-http/internal/settings"
)

// The Functions Framework finds the function by the name that init registers.
func init() {
	functions.HTTP("HealthCheck", newFunction(os.Stderr).ServeHTTP)
}

// answerBy is how long before a request's own deadline (CLOUD_RUN_TIMEOUT_SECONDS, which the
// framework sets) it is answered.
const answerBy = 200 * time.Millisecond

// newFunction returns the function, which logs to w. It reads the settings on the first request: if a wrong setting ended the
// process, the platform would restart it again and again.
func newFunction(w io.Writer) http.Handler {
	handler := sync.OnceValue(func() http.Handler { return build(w) })
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if deadline, ok := r.Context().Deadline(); ok {
			ctx, cancel := context.WithDeadline(r.Context(), deadline.Add(-answerBy))
			defer cancel()
			r = r.WithContext(ctx)
		}
		handler().ServeHTTP(w, r)
	})
}

// build makes the handler from the settings in the environment.
func build(w io.Writer) http.Handler {
	s, err := settings.FromEnvironment()
	if err != nil {
		return app.Misconfigured(app.NewFallbackLogger(w), err)
	}
	logger := app.NewLogger(w, s)
	app.Warn(logger, s)
	a, err := app.New(s, app.Platform{Logger: logger})
	if err != nil {
		return app.Misconfigured(logger, err)
	}
	return app.WithCloudTrace(a.Handler)
}
