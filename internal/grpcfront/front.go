// Package grpcfront answers the gRPC Health Checking Protocol, over gRPC and gRPC-Web, with the checks that package asker makes: for
// checkers that speak gRPC and still cannot ask the upstream itself. A checker that judges the gRPC code alone asks a method of which the path
// ends in /healthcheck.
//
// connectrpc.com/connect speaks the protocols: it is made for net/http, on which grpc-go's ServeHTTP is experimental.
package grpcfront

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"connectrpc.com/connect"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"example.com/grpc-health-http/internal/asker"
	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/internal/memory"
)

// Options say what a front answers with. Only Asker is required.
type Options struct {
	// Asker lets callers in, and makes the checks. It counts requests that are refused: for a method that there is not with the reason "path", for
	// a message that is none, or an illegal name, with "query".
	Asker *asker.Asker
	// Observe wraps the handler of a method's requests; path is the method, of those that are answered, or "other". nil wraps nothing.
	Observe func(path string, next http.Handler) http.Handler
	// Answers bounds what lists take on their way to their callers; nil is no bound.
	Answers *memory.Share
}

const (
	serviceName = "/grpc.health.v1.Health/"
	checkPath   = serviceName + "Check"
	listPath    = serviceName + "List"
	// codeOnly ends the path of methods that are answered by the code alone, and everything is the one that asks for all that is configured:
	// AWS' default path
	// (https://docs.aws.amazon.com/elasticloadbalancing/latest/application/target-group-health-checks.html).
	codeOnly   = "/healthcheck"
	everything = "/AWS.ALB"
	// maxMessage is the most bytes of a request's message: a service's name is far shorter.
	maxMessage = 4 << 10
)

// front answers gRPC requests.
type front struct {
	asker   *asker.Asker
	answers *memory.Share
	methods map[string]http.Handler
	other   http.Handler // of methods for which there is no metric of their own
}

// New returns a handler that answers gRPC requests, and leaves the others to next.
func New(o Options, next http.Handler) http.Handler {
	f := &front{asker: o.Asker, answers: o.Answers}
	observe := o.Observe
	if observe == nil {
		observe = func(_ string, next http.Handler) http.Handler { return next }
	}
	options := []connect.HandlerOption{
		connect.WithReadMaxBytes(maxMessage),
		// An answer about one service is smaller than a compressed one.
		connect.WithCompressMinBytes(1 << 10),
	}
	f.methods = map[string]http.Handler{
		checkPath: observe(checkPath, f.begins(f.usual(f.message(connect.NewUnaryHandler(checkPath, f.check, options...))))),
		listPath:  observe(listPath, f.begins(f.message(connect.NewUnaryHandler(listPath, f.list, options...)))),
	}
	byCode := f.begins(http.HandlerFunc(f.code))
	f.methods[everything+codeOnly] = observe(everything+codeOnly, byCode)
	for _, service := range o.Asker.Configured() {
		path := "/" + service + codeOnly
		f.methods[path] = observe(path, byCode)
	}
	f.other = observe("other", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, codeOnly) {
			byCode.ServeHTTP(w, r)
			return
		}
		f.asker.Reject("path")
		refuse(w, r, codes.Unimplemented, "this method is not offered here")
	}))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !isGRPC(r) {
			next.ServeHTTP(w, r)
			return
		}
		w.Header()["Cache-Control"] = noStore
		w.Header()["X-Content-Type-Options"] = noSniff
		if method := f.methods[r.URL.Path]; method != nil {
			method.ServeHTTP(w, r)
			return
		}
		f.other.ServeHTTP(w, r)
	})
}

// Overloaded returns the handler of requests for which there is no memory left: it answers gRPC requests, and leaves the others to next. rejected
// is that of asker.Options.
func Overloaded(rejected func(reason string), next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !isGRPC(r) {
			next.ServeHTTP(w, r)
			return
		}
		if rejected != nil {
			rejected("overload")
		}
		w.Header()["Cache-Control"] = noStore
		w.Header()["X-Content-Type-Options"] = noSniff
		refuse(w, r, codes.ResourceExhausted, asker.NoRoom.String())
	})
}

// request is a request whose caller has been let in.
type request struct {
	*http.Request
	header http.Header // of the answer
	asked  bool        // a message was read, so that it is counted
	taken  int64       // of Answers
}

type requestKey struct{}

// begins lets a request in, and passes it on with the context of its work, which has the caller's deadline.
func (f *front) begins(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel, refusal := f.asker.Begin(r)
		defer cancel()
		switch refusal {
		case asker.NotRefused:
		case asker.Unauthorized:
			refuse(w, r, codes.Unauthenticated, "send the token as authorization metadata: Bearer TOKEN")
			return
		default:
			refuse(w, r, codes.Unavailable, refusal.String())
			return
		}
		if timeout, ok := timeoutOf(r); ok {
			var stop context.CancelFunc
			ctx, stop = context.WithTimeoutCause(ctx, timeout, health.ErrCallerDeadline)
			defer stop()
		}
		if ctx != r.Context() {
			r = r.WithContext(ctx)
		}
		next.ServeHTTP(w, r)
	})
}

// message lets the methods of a connect handler find the request, and counts one of which the message could not be read.
func (f *front) message(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := &request{header: w.Header()}
		defer func() { f.answers.Give(q.taken) }()
		q.Request = r.WithContext(context.WithValue(r.Context(), requestKey{}, q))
		next.ServeHTTP(w, q.Request)
		if !q.asked {
			f.asker.Reject("query")
		}
	})
}

// check answers Check.
func (f *front) check(ctx context.Context, in *connect.Request[healthpb.HealthCheckRequest]) (*connect.Response[healthpb.HealthCheckResponse], error) {
	verdicts, err := f.ask(ctx, question(in.Msg.GetService()))
	if err != nil {
		return nil, err
	}
	decisive := decisive(verdicts)
	status, ok := protocolStatus(decisive.Status)
	if !ok {
		return nil, failure(decisive, verdicts)
	}
	out := connect.NewResponse(&healthpb.HealthCheckResponse{Status: status})
	setMetadata(out.Header(), decisive, verdicts)
	return out, nil
}

// list answers List.
func (f *front) list(ctx context.Context, _ *connect.Request[healthpb.HealthListRequest]) (*connect.Response[healthpb.HealthListResponse], error) {
	verdicts, err := f.ask(ctx, asker.Question{List: true})
	if err != nil {
		return nil, err
	}
	out := &healthpb.HealthListResponse{Statuses: make(map[string]*healthpb.HealthCheckResponse, len(verdicts))}
	cost := int64(1 << 10)
	for _, v := range verdicts {
		status, ok := protocolStatus(v.Status)
		switch {
		case v.List || !ok && v.Status != health.ServiceUnknown:
			return nil, failure(v, verdicts)
		case !ok:
			status = healthpb.HealthCheckResponse_SERVICE_UNKNOWN
		case v.LeftOut > 0: // as the protocol says; what is left out must not seem not to be there
			return nil, connect.NewError(connect.CodeResourceExhausted, fmt.Errorf("the server lists more than %d services: Check one", health.MaxServices))
		}
		out.Statuses[v.Service] = &healthpb.HealthCheckResponse{Status: status}
		cost += 256 + 2*int64(len(v.Service))
	}
	q := ctx.Value(requestKey{}).(*request)
	if !f.answers.Take(cost) {
		f.asker.Reject("overload")
		return nil, connectError(q, codes.ResourceExhausted, asker.NoRoom.String())
	}
	q.taken = cost
	answer := connect.NewResponse(out)
	setMetadata(answer.Header(), decisive(verdicts), verdicts)
	return answer, nil
}

// question is what a name asks for.
func question(name string) asker.Question {
	if name == "" {
		return asker.Question{}
	}
	return asker.Question{Services: []string{name}}
}

// ask asks, and makes an error of a refusal.
func (f *front) ask(ctx context.Context, question asker.Question) ([]health.Verdict, error) {
	q := ctx.Value(requestKey{}).(*request)
	q.asked = true
	for _, name := range question.Services {
		if fault := health.NameFault(name); fault != "" {
			f.asker.Reject("query")
			return nil, connect.NewError(connect.CodeInvalidArgument, errors.New(fault))
		}
	}
	verdicts, refusal := f.asker.Ask(ctx, q.Request, question, nil)
	switch refusal {
	case asker.NotRefused:
		return verdicts, nil
	case asker.NoList:
		return nil, connectError(q, codes.Unimplemented, refusal.String())
	case asker.NoService:
		return nil, connectError(q, codes.NotFound, refusal.String())
	}
	return nil, connectError(q, codes.ResourceExhausted, refusal.String())
}

// connectError is an error of the front itself.
func connectError(q *request, code codes.Code, text string) error {
	if code == codes.ResourceExhausted {
		q.header["Retry-After"] = retrySoon
	}
	return connect.NewError(connect.Code(code), errors.New(text))
}

// failure is a verdict that is no status of the protocol, as an error.
func failure(decisive health.Verdict, verdicts []health.Verdict) error {
	err := connect.NewError(connect.Code(Code(decisive)), errors.New(Message(decisive)))
	setMetadata(err.Meta(), decisive, verdicts)
	if decisive.Status == health.Overloaded {
		err.Meta()["Retry-After"] = retrySoon
	}
	return err
}

// The metadata about a verdict. Names that begin with grpc- are gRPC's own.
const (
	statusKey   = "Health-Status"
	evidenceKey = "Health-Evidence"
)

// setMetadata says what HTTP's headers say about verdicts.
func setMetadata(header http.Header, decisive health.Verdict, verdicts []health.Verdict) {
	header[statusKey] = []string{decisive.Status.String()}
	if ids := health.EvidenceIDs(verdicts); decisive.Status != health.Serving && len(ids) > 0 {
		header[evidenceKey] = []string{strings.Join(ids, ", ")}
	}
}

// decisive is the first of the worst verdicts; the zero Verdict, which is UNKNOWN, where there is none.
func decisive(verdicts []health.Verdict) health.Verdict {
	worst := health.Worst(verdicts)
	if i := slices.IndexFunc(verdicts, func(v health.Verdict) bool { return v.Status == worst }); i >= 0 {
		return verdicts[i]
	}
	return health.Verdict{}
}
