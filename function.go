// Package healthhttp is the Google Cloud function HealthCheck, which answers HTTP requests with the health of a gRPC server.
// Its settings come from the environment, its certificates, keys and tokens from mounted secrets.
package healthhttp

import (
	"io"
	"net/http"
	"os"
	"sync"

	"github.com/GoogleCloudPlatform/functions-framework-go/functions"

	"example.com/grpc-health-http/internal/app"
	"example.com/grpc-health-http/internal/memory"
	"example.com/grpc-health-http/internal/platform"
	"example.com/grpc-health-http/internal/settings"
)

// The Functions Framework finds the function by the name that init registers.
func init() {
	functions.HTTP("HealthCheck", newFunction(os.Stderr).ServeHTTP)
}

// newFunction returns the function, which logs to w. It reads the settings on the first request: if a wrong setting ended the
// process, the platform would restart it again and again.
func newFunction(w io.Writer) http.Handler {
	handler := sync.OnceValue(func() http.Handler { return build(w) })
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := platform.WithMargin(r.Context()) // the framework sets CLOUD_RUN_TIMEOUT_SECONDS as the deadline
		defer cancel()
		handler().ServeHTTP(w, r.WithContext(ctx))
	})
}

// build makes the handler from the settings in the environment.
func build(w io.Writer) http.Handler {
	s, err := settings.FromEnvironment()
	if err != nil {
		return app.Misconfigured(app.NewFallbackLogger(w), err)
	}
	logger := app.NewLogger(w, s)
	app.Announce(logger, s)
	a, err := app.New(s, app.Platform{Logger: logger, Memory: memory.Process()})
	if err != nil {
		return app.Misconfigured(logger, err)
	}
	return app.WithCloudTrace(a.AtRequests(a.Handler))
}
