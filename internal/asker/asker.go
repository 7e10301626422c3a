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

// Options say what an Asker checks and for whom. Only Fleet is required.
type Options struct {
	// Fleet returns what is checked at the moment; nil where that is not known, because the targets file has never been good. It is called for each
	// request.
	Fleet func(ctx context.Context) *Fleet
	// Interval is how often everything is checked without a caller; 0 is never. Without it there are no summaries.
	Interval time.Duration
	// Authorize says whether the presented token, never empty, is the right one; nil needs no token. An
	// error, which nobody is shown, says that it cannot tell: the caller is not to blame.
	Authorize func(ctx context.Context, presented string) (bool, error)
	// Unauthorized is called for each request with a wrong token or none, and says which. nil is none.
	Unauthorized func(r *http.Request, why string)
	// Rejected is called once for each request that is refused, with the reason: "token", "query", "service", "target", or "overload" where a
	// limit of this process let a check fail; and with those that are given to Reject. nil is none.
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

// Question is what a caller asks for. The zero value is all that is configured.
type Question struct {
	Targets  []string // each once, MaxTargets at most
	Groups   []string // each once, MaxTargets at most; their members are asked for too
	Services []string // each once, without a health.NameFault, health.MaxServices at most
	List     bool     // all services that the upstream knows; no Services then
}

// Answer is what was found out.
type Answer struct {
	Verdicts []health.Verdict
	// Summary says that the verdicts are the latest ones, not those of checks that were made for the request.
	Summary bool
	// Fleet is what was checked.
	Fleet *Fleet
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
	// NoTarget says that there is no such target or group.
	NoTarget
	// TooMany says that a request would check more than MaxTargets targets, and that there is no summary of them.
	TooMany
	// NoSummary says that a summary has no part of what was asked for.
	NoSummary
	// NotConfigured says that what is to be checked cannot be found out.
	NotConfigured
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
	case NoTarget:
		return "a target or group was asked for that is not there"
	case TooMany:
		return "there are more than 100 targets: pick some with target or group; all of them can be asked for where a check interval is set"
	case NoSummary:
		return "there are more than 100 targets, and their summary has no part for each service: pick targets"
	case NotConfigured:
		return "the health check is not configured: its log says what is wrong"
	case NoRoom:
		return "too many requests wait for an answer: ask again"
	}
	return ""
}

// Asker answers questions. It keeps nothing between requests, and is safe for concurrent use.
type Asker struct {
	fleet        func(ctx context.Context) *Fleet
	interval     time.Duration
	authorize    func(ctx context.Context, presented string) (bool, error)
	unauthorized func(r *http.Request, why string)
	rejected     func(reason string)
	memory       Memory
}

// New returns an Asker.
func New(o Options) *Asker {
	a := &Asker{fleet: o.Fleet, interval: o.Interval, authorize: o.Authorize, rejected: o.Rejected, unauthorized: o.Unauthorized, memory: o.Memory}
	if a.unauthorized == nil {
		a.unauthorized = func(*http.Request, string) {}
	}
	if a.rejected == nil {
		a.rejected = func(string) {}
	}
	return a
}

// Reject counts a request that is refused for a reason of its protocol.
func (a *Asker) Reject(reason string) { a.rejected(reason) }

// Fleet is what is checked at the moment.
func (a *Asker) Fleet(ctx context.Context) *Fleet { return a.fleet(ctx) }

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
	if took := time.Since(began); took > slowAuthorize {
		fleet := a.fleet(ctx)
		if fleet == nil || fleet.budget <= 0 {
			return ctx, cancel, NotRefused
		}
		timed, stop := context.WithDeadline(ctx, began.Add(fleet.budget))
		return timed, func() { stop(); cancel() }, NotRefused
	}
	return ctx, cancel, NotRefused
}

// Ask makes the checks that a request asks for, or refuses it. The verdict of a single check is put into room, so that it need not be
// allocated; room may be nil. ctx is that of Begin.
func (a *Asker) Ask(ctx context.Context, r *http.Request, q *Question, room []health.Verdict) (Answer, Refusal) {
	fleet := a.fleet(ctx)
	if fleet == nil {
		return Answer{}, NotConfigured
	}
	chosen, refusal := fleet.choose(q)
	summary := refusal == TooMany && a.interval > 0 && len(q.Targets)+len(q.Groups) == 0
	switch {
	case summary && (q.List || len(q.Services) > 0):
		a.rejected("query")
		return Answer{}, NoSummary
	case summary:
		return Answer{Verdicts: fleet.summary(a.interval, time.Now()), Summary: true, Fleet: fleet}, NotRefused
	case refusal != NotRefused:
		a.rejected(refusal.reason())
		return Answer{}, refusal
	}
	for _, u := range chosen {
		if refusal := u.refuses(q); refusal != NotRefused {
			a.rejected(refusal.reason())
			return Answer{}, refusal
		}
	}
	share, cost, ok := a.admit(r, q, chosen)
	if !ok {
		a.rejected("overload")
		return Answer{}, NoRoom
	}
	gone := stayed
	if r.ProtoMajor < 2 && share.Crowded() {
		ctx, gone = whileHere(ctx, r)
	}
	verdicts := room[:0]
	if service, ok := only(chosen, q); ok {
		verdicts = slices.Grow(verdicts, 1)[:1]
		waitOne(ctx, chosen[0], service, share, cost, &verdicts[0])
	} else {
		verdicts = waitAll(inert.WithBudget(ctx), chosen, q, share, cost)
	}
	if gone() {
		a.rejected("overload")
		return Answer{}, NoRoom
	}
	if Overloaded(verdicts) {
		a.rejected("overload")
	}
	return Answer{Verdicts: verdicts, Fleet: fleet}, NotRefused
}

// reason is what a refusal of a question is counted under.
func (r Refusal) reason() string {
	switch r {
	case NoTarget:
		return "target"
	case NoService:
		return "service"
	}
	return "query"
}

// Overloaded reports whether a limit of this process let a check fail. Ask has counted the request then.
func Overloaded(verdicts []health.Verdict) bool {
	for i := range verdicts {
		if verdicts[i].Status == health.Overloaded {
			return true
		}
	}
	return false
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

// only is the service that is asked for where it is one of one upstream.
func only(chosen []*Upstream, q *Question) (service string, ok bool) {
	if len(chosen) != 1 || q.List {
		return "", false
	}
	services := q.Services
	if len(services) == 0 {
		services = chosen[0].Services
	}
	switch len(services) {
	case 0: // the whole server
		return "", true
	case 1:
		return services[0], true
	}
	return "", false
}

// waitOne makes the only check of a request, and gives back what it took.
func waitOne(ctx context.Context, u *Upstream, service string, share *memory.Share, cost int64, v *health.Verdict) {
	defer share.Give(cost)
	*v = u.Check(ctx, service)
	u.name(v, service)
}

// waitAll makes the checks that a question asks for, and gives back what it took.
func waitAll(ctx context.Context, chosen []*Upstream, q *Question, share *memory.Share, cost int64) []health.Verdict {
	defer share.Give(cost)
	asked := *q // q stays where the caller has it
	return slices.Concat(health.SideBySide(len(chosen), func(i int) []health.Verdict { return chosen[i].answer(ctx, &asked) })...)
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
