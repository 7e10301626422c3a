// Package web answers HTTP requests with checks: it reads a request, checks what the request asks for,
// and answers with the verdicts as an HTTP status and a body of text, JSON or HTML.
package web

import (
	"context"
	"net/http"
	"strconv"

	"example.com/grpc-health-http/internal/asker"
	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/internal/inert"
	"example.com/grpc-health-http/internal/memory"
)

// Options say what a handler answers with. Only Asker is required.
type Options struct {
	// Asker lets callers in, and makes the checks.
	Asker *asker.Asker
	// Path is the exact path that is answered; empty answers every path.
	Path string
	// ShowCause says that answers have the cause of a failure.
	ShowCause bool
	// PageTitle is what the page says that it is about; empty where that is what was asked for.
	PageTitle string
	// Answers bounds what answers take on their way to their callers; nil is no bound.
	Answers *memory.Share
}

// New returns the handler. Its Asker counts each request that is refused, here with the reasons "path", "method" and "query".
func New(o Options) http.Handler {
	h := &handler{asker: o.Asker, path: o.Path, showCause: o.ShowCause, pageTitle: inert.Text(o.PageTitle), answerMemory: o.Answers}
	if f := o.Asker.Fleet(context.Background()); f != nil && !f.Named() {
		if only, ok := f.Only(); ok {
			h.ready, h.readyFor = readyPages(only), only
		}
	}
	return h
}

type handler struct {
	asker        *asker.Asker
	path         string
	showCause    bool
	pageTitle    string
	answerMemory *memory.Share
	// ready holds the text answers about readyFor, the only service that is checked when nothing is asked for, so that the usual request of
	// a load balancer allocates little; nil where there are several.
	ready    *[len(httpCodes)]page
	readyFor string
	sharing  sharing
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	guard(w.Header())
	// "OPTIONS *" asks what the whole server can do, and is of no path (RFC 9110, section 9.3.7).
	wholeServer := r.Method == http.MethodOptions && r.URL.Path == "*"
	if !wholeServer && !h.answers(r.URL.Path) {
		h.asker.Reject("path")
		h.refuse(w, r, http.StatusNotFound, notFound, false)
		return
	}
	if wholeServer || r.Method != http.MethodGet && r.Method != http.MethodHead && r.Method != http.MethodOptions {
		h.asker.Reject("method")
		w.Header()["Allow"] = allowOptions
		h.refuse(w, r, http.StatusMethodNotAllowed, "use GET or HEAD", false)
		return
	}
	ctx, cancel, refusal := h.asker.Begin(r)
	defer cancel()
	if refusal != asker.NotRefused {
		h.refuseAsk(w, r, query{}, refusal)
		return
	}
	var q query
	if r.URL.RawQuery != "" {
		var err error
		if q, err = parseQuery(r.URL.RawQuery); err != nil {
			h.asker.Reject("query")
			h.refuse(w, r, http.StatusBadRequest, err.Error(), true)
			return
		}
	}
	var one [1]health.Verdict // the usual request's verdict stays on the stack
	found, refusal := h.asker.Ask(ctx, r, &q.Question, one[:])
	if refusal != asker.NotRefused {
		h.refuseAsk(w, r, q, refusal)
		return
	}
	h.render(w, r, q, found)
}

// refuseAsk answers a request that the Asker has refused, and counted.
func (h *handler) refuseAsk(w http.ResponseWriter, r *http.Request, q query, refusal asker.Refusal) {
	switch refusal {
	case asker.NoRoom:
		overloaded(w, r, q.format)
	case asker.NoToken:
		refuse(w, r, http.StatusServiceUnavailable, refusal.String())
	case asker.NotConfigured:
		refuse(w, r, http.StatusInternalServerError, refusal.String())
	case asker.TooMany, asker.NoSummary:
		h.refuse(w, r, http.StatusBadRequest, refusal.String(), true)
	case asker.Unauthorized:
		w.Header()["Www-Authenticate"] = challenges
		h.refuse(w, r, http.StatusUnauthorized, refusal.String(), false)
	default:
		h.refuse(w, r, http.StatusNotFound, refusal.String(), true)
	}
}

// answers says whether the path is ours. What browsers and crawlers ask for by themselves is not,
// wherever the check is served: each would cost an RPC.
func (h *handler) answers(path string) bool {
	if path == "/favicon.ico" || path == "/robots.txt" {
		return false
	}
	return h.path == "" || path == h.path
}

// Livez returns the handler that says that the process is up. It never asks the upstream: otherwise a
// liveness probe would restart a healthy proxy because of a failing server.
func Livez() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		guard(w.Header())
		if readOnly(w, r) {
			send(w, r, http.StatusOK, contentText, page{body: []byte("ok\n")})
		}
	})
}

// Only answers GET and HEAD of one path with next, and refuses all else. http.ServeMux would redirect some other paths.
func Only(path string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		guard(w.Header())
		if r.URL.Path != path {
			refuse(w, r, http.StatusNotFound, notFound)
		} else if readOnly(w, r) {
			next.ServeHTTP(w, r)
		}
	})
}

// Refuse answers a request that led to no verdict, with the headers that every answer carries. The reason must repeat nothing of
// the request.
func Refuse(w http.ResponseWriter, r *http.Request, code int, reason string) {
	guard(w.Header())
	refuse(w, r, code, reason)
}

const notFound = "not found"

// Header values are made once and only read.
var (
	noStore = []string{"no-store"}
	noSniff = []string{"nosniff"}
	allow   = []string{"GET, HEAD"}
	// HAProxy's "option httpchk" asks with OPTIONS, and judges by the status alone.
	allowOptions = []string{"GET, HEAD, OPTIONS"}
	noLength     = []string{"0"}
	challenges   = []string{`Bearer realm="grpc-health-http"`, `Basic realm="grpc-health-http", charset="UTF-8"`}
	contentText  = []string{"text/plain; charset=utf-8"}
	contentJSON  = []string{"application/json"}
	contentHTML  = []string{"text/html; charset=utf-8"}
)

// guard sets the headers that every answer carries.
func guard(header http.Header) {
	header["Cache-Control"] = noStore
	header["X-Content-Type-Options"] = noSniff
}

// readOnly says whether the method is GET or HEAD. It answers every other method.
func readOnly(w http.ResponseWriter, r *http.Request) bool {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return true
	}
	w.Header()["Allow"] = allow
	refuse(w, r, http.StatusMethodNotAllowed, "use GET or HEAD")
	return false
}

// page is a body with its Content-Length; a nil length is worked out when the page is sent.
type page struct {
	body   []byte
	length []string
}

// send writes the answer. HEAD gets the headers that GET would get, the length included.
func send(w http.ResponseWriter, r *http.Request, code int, contentType []string, p page) {
	if p.length == nil {
		p.length = []string{strconv.Itoa(len(p.body))}
	}
	header := w.Header()
	header["Content-Type"] = contentType
	header["Content-Length"] = p.length
	w.WriteHeader(code)
	if r.Method != http.MethodHead {
		// An error means that the caller has gone.
		_, _ = w.Write(p.body)
	}
}
