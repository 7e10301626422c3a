package app

import (
	"context"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"cloud.google.com/go/compute/metadata"

	"example.com/grpc-health-http/internal/platform"
)

// traceKey is Cloud Logging's key for the trace that a line belongs to
// (https://cloud.google.com/trace/docs/trace-log-integration).
const traceKey = "logging.googleapis.com/trace"

// projectWithin is how long the metadata server may take to answer.
const projectWithin = time.Second

type traceContext struct{}

// WithCloudTrace lets the log lines that a request causes on Cloud Run name its trace. Elsewhere
// it is next itself. Until the project is known the lines have the trace's id alone.
func WithCloudTrace(next http.Handler) http.Handler {
	if !platform.CloudRun() {
		return next
	}
	var project atomic.Pointer[string] // nil until it is known
	if p := os.Getenv("GOOGLE_CLOUD_PROJECT"); p != "" {
		project.Store(&p)
	}
	var asking atomic.Bool
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if id := traceID(r.Header); id != "" {
			if project.Load() == nil && asking.CompareAndSwap(false, true) {
				go func() { // beside the request: no answer waits for it
					defer asking.Store(false)
					if p, err := cloudProject(); err == nil {
						project.Store(&p)
					}
				}()
			}
			trace := func() string {
				if p := project.Load(); p != nil {
					return "projects/" + *p + "/traces/" + id
				}
				return id
			}
			r = r.WithContext(context.WithValue(r.Context(), traceContext{}, trace))
		}
		next.ServeHTTP(w, r)
	})
}

// cloudProject asks the metadata server for the project, which traces are in.
func cloudProject() (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), projectWithin)
	defer cancel()
	return metadata.ProjectIDWithContext(ctx)
}

// traceID reads the trace's id from W3C's header (https://www.w3.org/TR/trace-context/) or Google's
// older one, "ID/SPAN;o=1"; empty where there is none.
func traceID(h http.Header) string {
	if parts := strings.Split(h.Get("Traceparent"), "-"); len(parts) >= 4 && isTraceID(parts[1]) {
		return parts[1]
	}
	if id, _, _ := strings.Cut(h.Get("X-Cloud-Trace-Context"), "/"); isTraceID(id) {
		return id
	}
	return ""
}

// isTraceID says whether it is 32 hexadecimal digits.
func isTraceID(id string) bool {
	return len(id) == 32 && strings.Trim(id, "0123456789abcdefABCDEF") == ""
}

// traced is a handler that adds the trace of a line's context.
type traced struct{ slog.Handler }

func (t traced) Handle(ctx context.Context, r slog.Record) error {
	if trace, ok := ctx.Value(traceContext{}).(func() string); ok {
		r.AddAttrs(slog.String(traceKey, trace()))
	}
	return t.Handler.Handle(ctx, r)
}

func (t traced) WithAttrs(attrs []slog.Attr) slog.Handler { return traced{t.Handler.WithAttrs(attrs)} }
func (t traced) WithGroup(name string) slog.Handler       { return traced{t.Handler.WithGroup(name)} }
