// Package web answers HTTP requests with checks: it reads a request, checks what the request asks for,
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
	"example.com/grpc-health-http/internal/inert"
	"example.com/grpc-health-http/internal/memory"
)

// Options say what a handler checks and for whom. Only Upstreams is required.
type Options struct {
	// Upstreams are what is checked, one at least.
	Upstreams []Upstream
	// Path is the exact path that is answered; empty answers every path.
	Path string
	// Authorize says whether the presented token, never empty, is the right one; nil needs no token. An
	// error, which nobody is shown, says that it cannot tell: the caller is not to blame.
	Authorize func(ctx context.Context, presented string) (bool, error)
	// Unauthorized is called for each request with a wrong token or none, and says which. nil tells nobody.
	Unauthorized func(r *http.Request, why string)
	// ShowCause says that answers have the cause of a failure.
	ShowCause bool
	// Rejected is called once for each request that is refused, with the reason: "path", "method", "token", "query", "service", or
	// "overload" where a limit of this process let a check fail. nil tells nobody.
	Rejected func(reason string)
	// Memory bounds what requests take; the shares of the zero value have no bound.
	Memory Memory
}

// Memory is shares of the memory.
type Memory struct {
	// Configured is for requests that wait for checks of what is configured, and Others for those that wait for other checks.
	Configured, Others *memory.Share
	// Answers is for answers on their way to their callers.
	Answers *memory.Share
	// SideBySide is how many requests of an HTTP/2 request's connection are in progress; nil where nobody knows.
	SideBySide func(*http.Request) int
	// Crowds reports whether a request's client has more than half of all connections; nil where nobody knows.
	Crowds func(*http.Request) bool
}

// Upstream is one of those that a handler checks. Only Check is required.
type Upstream struct {
	// Name is the Target of its verdicts; empty where there is one upstream only.
	Name string
	// Check checks one service.
	Check health.Func
	// List asks the upstream for all its services; nil answers ?list with 404, and so does an
	// upstream with configured Services.
	List func(ctx context.Context) []health.Verdict
	// Services are the configured names, the only ones that may be asked for. Empty lets callers
	// ask for any legal name.
	Services []string
	// CertificateEnds says when the upstream's certificate ends, as it was seen last; zero, or nil,
	// where none was seen.
	CertificateEnds func() time.Time
	// Budget is the time for an answer, from which a slow Authorize is subtracted; 0 gives the
	// check all the time that it has.
	Budget time.Duration
}

// New returns the handler. Apart from the checks themselves it keeps nothing between requests.
func New(o Options) http.Handler {
	h := &handler{upstreams: slices.Clone(o.Upstreams), path: o.Path, authorize: o.Authorize, rejected: o.Rejected, unauthorized: o.Unauthorized, showCause: o.ShowCause, memory: o.Memory}
	if h.unauthorized == nil {
		h.unauthorized = func(*http.Request, string) {}
	}
	if h.rejected == nil {
		h.rejected = func(string) {}
	}
	for _, u := range h.upstreams {
		h.budget = max(h.budget, u.Budget)
	}
	if h.byDefault = health.Configured(h.upstreams[0].Services); len(h.upstreams) == 1 && len(h.byDefault) == 1 {
		h.ready = readyPages(h.byDefault[0])
	}
	return h
}

type handler struct {
	upstreams    []Upstream
	path         string
	authorize    func(ctx context.Context, presented string) (bool, error)
	rejected     func(reason string)
	unauthorized func(r *http.Request, why string)
	showCause    bool
	memory       Memory
	budget       time.Duration // the longest of the upstreams'
	byDefault    []string      // the services that the first upstream is checked for when nothing is asked for
	// ready holds the text answers about the only default service, so that the usual request of
	// a load balancer allocates little; nil where there are several.
	ready *[len(httpCodes)]page
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	guard(w.Header())
	// "OPTIONS *" asks what the whole server can do, and is of no path (RFC 9110, section 9.3.7).
	wholeServer := r.Method == http.MethodOptions && r.URL.Path == "*"
	if !wholeServer && !h.answers(r.URL.Path) {
		h.rejected("path")
		h.refuse(w, r, http.StatusNotFound, notFound, false)
		return
	}
	if wholeServer || r.Method != http.MethodGet && r.Method != http.MethodHead && r.Method != http.MethodOptions {
		h.rejected("method")
		w.Header()["Allow"] = allowOptions
		h.refuse(w, r, http.StatusMethodNotAllowed, "use GET or HEAD", false)
		return
	}
	ctx, cancel := contextOf(r)
	defer cancel()
	if h.authorize != nil {
		began := time.Now()
		if !h.authorized(ctx, w, r) {
			h.rejected("token")
			return
		}
		if took := time.Since(began); took > slowAuthorize && h.budget > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithDeadline(ctx, began.Add(h.budget))
			defer cancel()
		}
	}
	var q query
	if r.URL.RawQuery != "" {
		var err error
		if q, err = parseQuery(r.URL.RawQuery); err != nil {
			h.rejected("query")
			h.refuse(w, r, http.StatusBadRequest, err.Error(), true)
			return
		}
	}
	for i := range h.upstreams {
		if reason := h.upstreams[i].refuses(q); reason != "" {
			if q.list {
				h.rejected("query")
			} else {
				h.rejected("service")
			}
			h.refuse(w, r, http.StatusNotFound, reason, true)
			return
		}
	}
	services := h.byDefault
	if len(q.services) > 0 {
		services = q.services
	}
	share, cost, ok := h.admit(r, q)
	if !ok {
		h.rejected("overload")
		overloaded(w, r, q.format)
		return
	}
	gone := stayed
	if r.ProtoMajor < 2 && share.Crowded() {
		ctx, gone = whileHere(ctx, r)
	}
	if len(h.upstreams) == 1 && len(services) == 1 && !q.list {
		one := [1]health.Verdict{h.waitOne(ctx, services[0], share, cost)} // the usual request's verdict stays on the stack
		if gone() {
			h.rejected("overload")
			overloaded(w, r, q.format)
			return
		}
		if one[0].Status == health.Overloaded {
			h.rejected("overload")
		}
		h.render(w, r, q, one[:])
		return
	}
	ctx = inert.WithBudget(ctx)
	verdicts := h.waitAll(ctx, q, share, cost)
	if gone() {
		h.rejected("overload")
		overloaded(w, r, q.format)
		return
	}
	if slices.ContainsFunc(verdicts, isOverloaded) {
		h.rejected("overload")
	}
	h.render(w, r, q, verdicts)
}

// contextOf is the context of the request's work. net/http cancels that of an HTTP/1 request when it has read to the end of what the
// caller sends: whether the caller has gone, or has closed only its own side and waits for the answer, as "nc -N" does,
// cannot be told. So an HTTP/1 request continues, within its budget and a deadline that its context has. With HTTP/2 a caller
// resets its stream, and the work for it ends.
func contextOf(r *http.Request) (context.Context, context.CancelFunc) {
	ctx := r.Context()
	if r.ProtoMajor >= 2 || ctx.Done() == nil {
		return ctx, func() {}
	}
	if deadline, ok := ctx.Deadline(); ok {
		return context.WithDeadline(context.WithoutCancel(ctx), deadline)
	}
	return context.WithoutCancel(ctx), func() {}
}

func isOverloaded(v health.Verdict) bool { return v.Status == health.Overloaded }

// waitOne makes the only check of a request, and gives back what it took.
func (h *handler) waitOne(ctx context.Context, service string, share *memory.Share, cost int64) health.Verdict {
	defer share.Give(cost)
	return h.upstreams[0].check(ctx, service)
}

// waitAll makes the checks that a query asks for, and gives back what it took.
func (h *handler) waitAll(ctx context.Context, q query, share *memory.Share, cost int64) []health.Verdict {
	defer share.Give(cost)
	return slices.Concat(health.SideBySide(len(h.upstreams), func(i int) []health.Verdict {
		return h.upstreams[i].answer(ctx, q)
	})...)
}

// refuses says why the upstream does not answer a query; empty where it does.
func (u *Upstream) refuses(q query) string {
	switch {
	case q.list && (u.List == nil || len(u.Services) > 0):
		return "the list of services is not offered here"
	case len(u.Services) > 0 && slices.ContainsFunc(q.services, func(s string) bool { return !slices.Contains(u.Services, s) }):
		return "a service was asked for that is not offered here"
	}
	return ""
}

// answer makes the checks that a query asks for.
func (u *Upstream) answer(ctx context.Context, q query) []health.Verdict {
	switch {
	case q.list:
		verdicts := u.List(ctx)
		for i := range verdicts {
			verdicts[i].Target = u.Name
		}
		return verdicts
	case len(q.services) > 0:
		return health.All(ctx, u.check, q.services)
	}
	return health.All(ctx, u.check, u.Services)
}

func (u *Upstream) check(ctx context.Context, service string) health.Verdict {
	v := u.Check(ctx, service)
	v.Target, v.Service = u.Name, service
	return v
}

// slowAuthorize is the time from which an authorization counts: a shorter one is only a comparison, and a deadline would cost more.
const slowAuthorize = 10 * time.Millisecond

// authorized says whether the caller presents the token. It answers every other caller.
func (h *handler) authorized(ctx context.Context, w http.ResponseWriter, r *http.Request) bool {
	ok, err := false, error(nil)
	why := "it sent no token"
	if token := presentedToken(r); token != "" {
		why = "it sent a wrong token"
		ok, err = h.authorize(ctx, token)
	}
	switch {
	case err != nil:
		refuse(w, r, http.StatusServiceUnavailable, "there is no token to compare yours with: the log says why")
	case !ok:
		h.unauthorized(r, why)
		w.Header()["Www-Authenticate"] = challenges
		h.refuse(w, r, http.StatusUnauthorized, "send the token as a Bearer token or as the Basic password", false)
	}
	return ok && err == nil
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
