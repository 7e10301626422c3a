package main

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"runtime/debug"
	"time"

	"example.com/grpc-health-http/internal/app"
	"example.com/grpc-health-http/internal/creds"
	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/internal/memory"
	"example.com/grpc-health-http/internal/platform"
	"example.com/grpc-health-http/internal/settings"
	"example.com/grpc-health-http/internal/version"
	"example.com/grpc-health-http/internal/web"
	"example.com/grpc-health-http/lambda/secrets"
)

// function answers invocations.
type function struct {
	logger *slog.Logger
	// http answers what came through HTTP.
	http http.Handler
	// direct answers invocations, which IAM has let in: they need no token.
	direct http.Handler
	// settle waits for fetches of secrets that are still under way: the platform freezes the process after the last answer, and
	// the next invocation needs them.
	settle func(ctx context.Context)
	budget func() time.Duration // of a whole answer, settle included
	close  func()
}

// settleFor is the longest time that settle delays an answer.
const settleFor = time.Second

// newFunction puts the function together from the environment. It makes no connection and reads no
// secret yet. With wrong settings it returns a function that answers so: if the process exited, the
// platform would start it again and again. Metrics go to stdout, the log to stderr.
func newFunction(stdout, stderr io.Writer) *function {
	s, err := settings.FromEnvironment()
	if err != nil {
		return misconfigured(app.NewFallbackLogger(stderr), err)
	}
	logger := app.NewLogger(stderr, s)
	app.Announce(logger, s)
	reader := secrets.New(logger)
	a, err := app.New(s, app.Platform{
		Logger:      logger,
		Memory:      memory.Process(),
		Credentials: creds.Options{Read: reader.Read},
		Observe: func(t *settings.Target) app.Observer {
			m := newMetrics(stdout, os.Getenv("AWS_LAMBDA_FUNCTION_NAME"), t)
			return app.Observer{
				Trace: health.Trace{
					Dial:            reader.Dialed,
					PeerCertificate: func(leaf *x509.Certificate) { m.certificateEnds("upstream", leaf.NotAfter) },
				},
				Verdict:           m.observe,
				ClientCertificate: func(notAfter time.Time) { m.certificateEnds("client", notAfter) },
			}
		},
	})
	if err != nil {
		return misconfigured(logger, err)
	}
	logger.Info("answering health checks", "version", version.Get().String())
	return &function{
		logger: a.Logger,
		http:   a.AtRequests(a.Handler),
		direct: a.AtRequests(a.Open),
		settle: reader.Settle,
		budget: a.Budget,
		close:  a.Close,
	}
}

// misconfigured is a function that answers every invocation with an error about its settings.
func misconfigured(logger *slog.Logger, err error) *function {
	handler := app.Misconfigured(logger, err)
	return &function{logger: logger, http: handler, direct: handler, settle: func(context.Context) {}, budget: func() time.Duration { return settleFor }, close: func() {}}
}

// Invoke answers one invocation with the JSON that its kind of event needs. It never returns an error:
// every outcome of a check is a result.
func (f *function) Invoke(ctx context.Context, payload []byte) ([]byte, error) {
	ctx, cancel := platform.WithMargin(ctx)
	defer cancel()
	began := time.Now()
	result, err := json.Marshal(f.result(ctx, payload))
	ctx, cancel = context.WithTimeout(ctx, min(settleFor, f.budget()-time.Since(began)))
	defer cancel()
	f.settle(ctx)
	return result, err
}

// result is the result of an invocation. A panic while the event is read or the result is made is caught here, one of the
// handler in serve, which knows the kind of answer.
func (f *function) result(ctx context.Context, payload []byte) (result any) {
	defer func() {
		if cause := recover(); cause != nil {
			result = refusal{f.panicked(cause)}
		}
	}()
	e, err := parse(payload)
	if err != nil {
		return refusal{err.Error()}
	}
	handler := f.http
	if e.direct {
		handler = f.direct
	}
	return e.result(f.serve(handler, e.request.WithContext(ctx)))
}

// panicked logs a panic, and returns what the caller gets to read.
func (f *function) panicked(cause any) string {
	f.logger.Error("panic", "cause", fmt.Sprint(cause), "stack", string(debug.Stack()))
	return "the health check failed inside: its log says how"
}

// serve lets the handler answer. A panic is an answer too: it would end the process, and with it all
// invocations under way.
func (f *function) serve(handler http.Handler, r *http.Request) (a *answer) {
	a = newAnswer()
	defer func() {
		if cause := recover(); cause != nil {
			a = newAnswer()
			web.Refuse(a, r, http.StatusInternalServerError, f.panicked(cause))
		}
	}()
	handler.ServeHTTP(a, r)
	return a
}
