// Package asker answers what callers ask about the upstreams, in whatever protocol they ask: it says who is let in and what may be asked for,
// makes room for those who wait, and makes the checks. What reads a request (packages web and grpcfront) makes a Question of it, and turns the
// verdicts, or the Refusal, into an answer.
package asker

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/internal/inert"
	"example.com/grpc-health-http/internal/memory"
)

// Options say what an Asker checks and for whom. Only Upstreams is required.
type Options struct {
	// Upstreams are what is checked, one at least.
	Upstreams []Upstream
	// Authorize says whether the presented token, never empty, is the right one; nil needs no token. An
	// error, which nobody is shown, says that it cannot tell: the caller is not to blame.
	Authorize func(ctx context.Context, presented string) (bool, error)
	// Unauthorized is called for each request with a wrong token or none, and says which. nil tells nobody.
	Unauthorized func(r *http.Request, why string)
	// Rejected is called once for each request that is refused, with the reason: "token", "query", "service", or "overload" where a
	// limit of this process let a check fail; and with those that are given to Reject. nil tells nobody.
	Rejected func(reason string)
	// Memory bounds what requests take; the shares of the zero value have no bound.
	Memory Memory
}

// Memory is shares of the memory.
type Memory struct {
	// Configured is for requests that wait for checks of what is configured, and Others for those that wait for other checks.
	Configured, Others *memory.Share
	// SideBySide is how many requests of an HTTP/2 request's connection are in progress; nil where nobody knows.
	SideBySide func(*http.Request) int
	// Crowds reports whether a request's client has more than half of all connections; nil where nobody knows.
	Crowds func(*http.Request) bool
}

// Upstream is one of those that are checked. Only Check is required.
type Upstream struct {
	// Name is the Target of its verdicts; empty where there is one upstream only.
	Name string
	// Check checks one service.
	Check health.Func
	// List asks the upstream for all its services; nil where that is not offered, and it is not where Services are configured.
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

// Question is what a caller asks for. The zero value is all that is configured.
type Question struct {
	Services []string // each once, without a health.NameFault, health.MaxServices at most
	List     bool     // all services that the upstream knows; no Services then
}

// Refusal is why a request gets no verdict.
type Refusal int

const (
	// NotRefused is the zero value.
	NotRefused Refusal = iota
	// Unauthorized needs the token.
	Unauthorized
	// NoToken says that it cannot be told whether the token is the right one.
	NoToken
	// NoList says that the upstream's services may not be listed.
	NoList
	// NoService says that a service may not be asked for.
	NoService
	// NoRoom says that there is no memory for those who wait.
	NoRoom
)

// String says to the caller why, and repeats nothing of the request.
func (r Refusal) String() string {
	switch r {
	case Unauthorized:
		return "send the token as a Bearer token or as the Basic password"
	case NoToken:
		return "there is no token to compare yours with: the log says why"
	case NoList:
		return "the list of services is not offered here"
	case NoService:
		return "a service was asked for that is not offered here"
	case NoRoom:
		return "too many requests wait for an answer: ask again"
	}
	return ""
}

// Asker answers questions. It keeps nothing between requests, and is safe for concurrent use.
type Asker struct {
	upstreams    []Upstream
	authorize    func(ctx context.Context, presented string) (bool, error)
	unauthorized func(r *http.Request, why string)
	rejected     func(reason string)
	memory       Memory
	budget       time.Duration // the longest of the upstreams'
	byDefault    []string      // the services that the first upstream is checked for when nothing is asked for
}

// New returns an Asker.
func New(o Options) *Asker {
	a := &Asker{upstreams: slices.Clone(o.Upstreams), authorize: o.Authorize, rejected: o.Rejected, unauthorized: o.Unauthorized, memory: o.Memory}
	if a.unauthorized == nil {
		a.unauthorized = func(*http.Request, string) {}
	}
	if a.rejected == nil {
		a.rejected = func(string) {}
	}
	for _, u := range a.upstreams {
		a.budget = max(a.budget, u.Budget)
	}
	a.byDefault = health.Configured(a.upstreams[0].Services)
	return a
}

// Reject counts a request that is refused for a reason of its protocol.
func (a *Asker) Reject(reason string) { a.rejected(reason) }

// Only returns the service of which alone the answer to the zero Question is; ok is false where there are several, or several upstreams.
func (a *Asker) Only() (service string, ok bool) {
	return a.byDefault[0], len(a.upstreams) == 1 && len(a.byDefault) == 1
}

// Configured are the names of all configured services, in the order of the upstreams.
func (a *Asker) Configured() (services []string) {
	for _, u := range a.upstreams {
		services = append(services, u.Services...)
	}
	return services
}

// Lists reports whether an upstream offers its list of services.
func (a *Asker) Lists() bool {
	return slices.ContainsFunc(a.upstreams, func(u Upstream) bool { return u.lists() })
}

// CertificateEnds is when the first of the upstreams' certificates ends; zero where none was seen.
func (a *Asker) CertificateEnds() (first time.Time) {
	for _, u := range a.upstreams {
		if u.CertificateEnds == nil {
			continue
		}
		if ends := u.CertificateEnds(); first.IsZero() || !ends.IsZero() && ends.Before(first) {
			first = ends
		}
	}
	return first
}

// Begin lets a request in, or refuses it. It returns the context of the work for the request, and what ends this, which must be called.
func (a *Asker) Begin(r *http.Request) (context.Context, context.CancelFunc, Refusal) {
	ctx, cancel := contextOf(r)
	if a.authorize == nil {
		return ctx, cancel, NotRefused
	}
	began := time.Now()
	if refusal := a.authorized(ctx, r); refusal != NotRefused {
		a.rejected("token")
		return ctx, cancel, refusal
	}
	if took := time.Since(began); took > slowAuthorize && a.budget > 0 {
		timed, stop := context.WithDeadline(ctx, began.Add(a.budget))
		return timed, func() { stop(); cancel() }, NotRefused
	}
	return ctx, cancel, NotRefused
}

// Ask makes the checks that a request asks for, or refuses it. The verdict of a single check is put into room, so that it need not be
// allocated; room may be nil. ctx is that of Begin.
func (a *Asker) Ask(ctx context.Context, r *http.Request, q Question, room []health.Verdict) ([]health.Verdict, Refusal) {
	for i := range a.upstreams {
		switch refusal := a.upstreams[i].refuses(q); refusal {
		case NotRefused:
		case NoList:
			a.rejected("query")
			return nil, refusal
		default:
			a.rejected("service")
			return nil, refusal
		}
	}
	services := a.byDefault
	if len(q.Services) > 0 {
		services = q.Services
	}
	share, cost, ok := a.admit(r, q)
	if !ok {
		a.rejected("overload")
		return nil, NoRoom
	}
	gone := stayed
	if r.ProtoMajor < 2 && share.Crowded() {
		ctx, gone = whileHere(ctx, r)
	}
	verdicts := room[:0]
	if len(a.upstreams) == 1 && len(services) == 1 && !q.List {
		verdicts = append(verdicts, a.waitOne(ctx, services[0], share, cost))
	} else {
		verdicts = a.waitAll(inert.WithBudget(ctx), q, share, cost)
	}
	if gone() {
		a.rejected("overload")
		return nil, NoRoom
	}
	if slices.ContainsFunc(verdicts, IsOverloaded) {
		a.rejected("overload")
	}
	return verdicts, NotRefused
}

// IsOverloaded reports whether a limit of this process let a check fail. Ask has counted the request then.
func IsOverloaded(v health.Verdict) bool { return v.Status == health.Overloaded }

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

// waitOne makes the only check of a request, and gives back what it took.
func (a *Asker) waitOne(ctx context.Context, service string, share *memory.Share, cost int64) health.Verdict {
	defer share.Give(cost)
	return a.upstreams[0].check(ctx, service)
}

// waitAll makes the checks that a question asks for, and gives back what it took.
func (a *Asker) waitAll(ctx context.Context, q Question, share *memory.Share, cost int64) []health.Verdict {
	defer share.Give(cost)
	return slices.Concat(health.SideBySide(len(a.upstreams), func(i int) []health.Verdict {
		return a.upstreams[i].answer(ctx, q)
	})...)
}

func (u *Upstream) lists() bool { return u.List != nil && len(u.Services) == 0 }

// refuses says why the upstream does not answer a question.
func (u *Upstream) refuses(q Question) Refusal {
	switch {
	case q.List && !u.lists():
		return NoList
	case len(u.Services) > 0 && slices.ContainsFunc(q.Services, func(s string) bool { return !slices.Contains(u.Services, s) }):
		return NoService
	}
	return NotRefused
}

// answer makes the checks that a question asks for.
func (u *Upstream) answer(ctx context.Context, q Question) []health.Verdict {
	switch {
	case q.List:
		verdicts := u.List(ctx)
		for i := range verdicts {
			verdicts[i].Target = u.Name
		}
		return verdicts
	case len(q.Services) > 0:
		return health.All(ctx, u.check, q.Services)
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

// authorized says whether the caller presents the token.
func (a *Asker) authorized(ctx context.Context, r *http.Request) Refusal {
	ok, err := false, error(nil)
	why := "it sent no token"
	if token := presentedToken(r); token != "" {
		why = "it sent a wrong token"
		ok, err = a.authorize(ctx, token)
	}
	switch {
	case err != nil:
		return NoToken
	case !ok:
		a.unauthorized(r, why)
		return Unauthorized
	}
	return NotRefused
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
