// Package web is the HTTP face of a check: it reads a request, checks what the request asks for,
// and answers with the verdicts as an HTTP status and a body of text, JSON or HTML.
package web

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"example.com/grpc-health-http/internal/health"
)

// Options say what a handler checks and for whom. Only Check is required.
type Options struct {
	// Check checks one service.
	Check health.Func
	// List asks the upstream for all its services; nil answers ?list with 404, and so does a
	// handler with configured Services.
	List func(ctx context.Context) []health.Verdict
	// Services are the configured names, the only ones that may be asked for. Empty lets callers
	// ask for any legal name.
	Services []string
	// Path is the exact path that is answered; empty answers every path.
	Path string
	// CertificateEnds says when the upstream's certificate ends, as it was seen last; zero, or nil,
	// where none was seen.
	CertificateEnds func() time.Time
	// Authorize says whether the presented token, never empty, opens the door; nil needs no token. An
	// error, which nobody is shown, says that it cannot tell: the caller is not to blame.
	Authorize func(ctx context.Context, presented string) (bool, error)
	// Budget is the time for an answer, of which a slow Authorize takes its part from the check; 0 gives the
	// check all the time that it has.
	Budget time.Duration
}

// New returns the handler. Apart from the check itself it keeps nothing between requests.
func New(o Options) http.Handler {
	h := &handler{
		check:           o.Check,
		offered:         make(map[string]bool, len(o.Services)),
		byDefault:       slices.Clone(o.Services),
		path:            o.Path,
		authorize:       o.Authorize,
		budget:          o.Budget,
		certificateEnds: o.CertificateEnds,
	}
	for _, service := range o.Services {
		h.offered[service] = true
	}
	if len(h.offered) == 0 {
		h.list = o.List
		h.byDefault = []string{""}
	}
	if len(h.byDefault) == 1 {
		h.ready = readyPages(h.byDefault[0])
	}
	return h
}

type handler struct {
	check           health.Func
	list            func(ctx context.Context) []health.Verdict
	offered         map[string]bool // the configured names; empty offers all
	byDefault       []string        // what is checked when nothing is asked for
	path            string
	authorize       func(ctx context.Context, presented string) (bool, error)
	budget          time.Duration
	certificateEnds func() time.Time
	// ready holds the text answers about the only default service, so that the usual request of
	// a load balancer allocates little; nil where several services are configured.
	ready *[len(httpCodes)]page
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	guard(w.Header())
	if !h.answers(r.URL.Path) {
		refuse(w, r, http.StatusNotFound, notFound)
		return
	}
	if !readOnly(w, r) {
		return
	}
	if h.authorize != nil {
		began := time.Now()
		if !h.authorized(w, r) {
			return
		}
		if took := time.Since(began); took > slowAuthorize && h.budget > 0 {
			ctx, cancel := context.WithDeadline(r.Context(), began.Add(h.budget))
			defer cancel()
			r = r.WithContext(ctx)
		}
	}
	var q query
	if r.URL.RawQuery != "" {
		var err error
		if q, err = parseQuery(r.URL.RawQuery); err != nil {
			refuse(w, r, http.StatusBadRequest, err.Error())
			return
		}
	}
	services := h.byDefault
	if len(q.services) > 0 {
		services = q.services
	}
	var verdicts []health.Verdict
	var one [1]health.Verdict // so that the usual request has its verdict on the stack
	switch {
	case q.list && h.list == nil:
		refuse(w, r, http.StatusNotFound, "the list of services is not offered here")
		return
	case q.list:
		verdicts = h.list(r.Context())
	case !h.offers(q.services):
		refuse(w, r, http.StatusNotFound, "a service was asked for that is not offered here")
		return
	case len(services) == 1:
		one[0] = h.checkOne(r.Context(), services[0])
		verdicts = one[:]
	default:
		verdicts = health.All(r.Context(), h.checkOne, services)
	}
	h.render(w, r, q, verdicts)
}

// slowAuthorize is from when an authorization counts: below it is but a comparison, and a deadline would cost more.
const slowAuthorize = 10 * time.Millisecond

// authorized lets pass who presents the token, and answers everybody else.
func (h *handler) authorized(w http.ResponseWriter, r *http.Request) bool {
	ok, err := false, error(nil)
	if token := presentedToken(r); token != "" {
		ok, err = h.authorize(r.Context(), token)
	}
	switch {
	case err != nil:
		refuse(w, r, http.StatusServiceUnavailable, "there is no token to compare yours with: the log says why")
	case !ok:
		w.Header()["Www-Authenticate"] = challenges
		refuse(w, r, http.StatusUnauthorized, "send the token as a Bearer token or as the Basic password")
	}
	return ok && err == nil
}

// answers says whether the path is ours. What browsers and crawlers ask for on their own is not,
// wherever the check is served: it would cost an RPC each.
func (h *handler) answers(path string) bool {
	if path == "/favicon.ico" || path == "/robots.txt" {
		return false
	}
	return h.path == "" || path == h.path
}

// offers says whether every one of the services may be asked for.
func (h *handler) offers(services []string) bool {
	if len(h.offered) == 0 {
		return true
	}
	for _, s := range services {
		if !h.offered[s] {
			return false
		}
	}
	return true
}

func (h *handler) checkOne(ctx context.Context, service string) health.Verdict {
	v := h.check(ctx, service)
	v.Service = service
	return v
}

// Livez returns the handler that says that the process is up. It never asks the upstream: a
// liveness probe that did would restart a healthy proxy for a sick server.
func Livez() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		guard(w.Header())
		if readOnly(w, r) {
			send(w, r, http.StatusOK, contentText, page{body: []byte("ok\n")})
		}
	})
}

// Only answers GET and HEAD of one path with next. http.ServeMux would answer others too, with redirects.
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
	noStore     = []string{"no-store"}
	noSniff     = []string{"nosniff"}
	allow       = []string{"GET, HEAD"}
	challenges  = []string{`Bearer realm="grpc-health-http"`, `Basic realm="grpc-health-http", charset="UTF-8"`}
	contentText = []string{"text/plain; charset=utf-8"}
	contentJSON = []string{"application/json"}
	contentHTML = []string{"text/html; charset=utf-8"}
)

// guard sets the headers that every answer carries.
func guard(header http.Header) {
	header["Cache-Control"] = noStore
	header["X-Content-Type-Options"] = noSniff
}

// readOnly lets GET and HEAD pass, and answers every other method.
func readOnly(w http.ResponseWriter, r *http.Request) bool {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return true
	}
	w.Header()["Allow"] = allow
	refuse(w, r, http.StatusMethodNotAllowed, "use GET or HEAD")
	return false
}

func refuse(w http.ResponseWriter, r *http.Request, code int, reason string) {
	send(w, r, code, contentText, page{body: []byte(reason + "\n")})
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
		// An error says that the caller has gone: there is nobody left to tell.
		_, _ = w.Write(p.body)
	}
}

// presentedToken returns the caller's token: a Bearer token (RFC 6750), or the password of Basic
// (RFC 7617) for checkers that know nothing else. Empty where there is none.
func presentedToken(r *http.Request) string {
	if _, password, ok := r.BasicAuth(); ok {
		return password
	}
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}
