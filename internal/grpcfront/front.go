// Package grpcfront answers the gRPC Health Checking Protocol, over gRPC and gRPC-Web, with the checks that package asker makes: for
// checkers that speak gRPC and still cannot ask the upstream itself. A checker that judges the gRPC code alone asks a method of which the path
// ends in /healthcheck.
//
// The protocols are spoken here, on net/http: grpc-go's ServeHTTP is experimental, and package connect sends the code of an error in trailers behind headers,
// where nginx and HAProxy lose it, and takes as long as all else that an answer needs. What remains of gRPC for a method with one short message each way is in
// wire.go.
package grpcfront

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"

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
	f.methods = map[string]http.Handler{
		checkPath: observe(checkPath, f.begins(http.HandlerFunc(f.check))),
		listPath:  observe(listPath, f.begins(http.HandlerFunc(f.list))),
	}
	byCode := f.begins(http.HandlerFunc(f.code))
	f.methods[everything+codeOnly] = observe(everything+codeOnly, byCode)
	if fleet := o.Asker.Fleet(context.Background()); fleet != nil && !fleet.Named() { // the names of targets come and go
		for _, service := range fleet.Configured() {
			path := "/" + service + codeOnly
			f.methods[path] = observe(path, byCode)
		}
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
		answerCode(w, r, codes.ResourceExhausted, asker.NoRoom.String())
	})
}

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
		if timeout, _ := timeoutOf(r); timeout > 0 {
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

// check answers Check.
func (f *front) check(w http.ResponseWriter, r *http.Request) {
	var in healthpb.HealthCheckRequest
	if !f.read(w, r, &in) {
		return
	}
	var room [1]health.Verdict
	question := f.question(r.Context(), in.GetService())
	verdicts, ok := f.ask(w, r, &question, room[:])
	if !ok {
		return
	}
	decisive := decisive(verdicts)
	setMetadata(w.Header(), decisive, verdicts)
	status, ok := protocolStatus(decisive.Status)
	if !ok {
		refuse(w, r, Code(decisive), Message(decisive))
		return
	}
	answer(w, r, &healthpb.HealthCheckResponse{Status: status})
}

// list answers List.
func (f *front) list(w http.ResponseWriter, r *http.Request) {
	if !f.read(w, r, new(healthpb.HealthListRequest)) {
		return
	}
	verdicts, ok := f.ask(w, r, &asker.Question{List: true}, nil)
	if !ok {
		return
	}
	out := &healthpb.HealthListResponse{Statuses: make(map[string]*healthpb.HealthCheckResponse, len(verdicts))}
	cost := int64(1 << 10)
	for i := range verdicts {
		v := &verdicts[i]
		status, ok := protocolStatus(v.Status)
		switch {
		case v.List || !ok && v.Status != health.ServiceUnknown:
			setMetadata(w.Header(), v, verdicts)
			refuse(w, r, Code(v), Message(v))
			return
		case !ok:
			status = healthpb.HealthCheckResponse_SERVICE_UNKNOWN
		case v.LeftOut > 0: // as the protocol says; what is left out must not seem not to be there
			refuse(w, r, codes.ResourceExhausted, fmt.Sprintf("the server lists more than %d services: Check one", health.MaxServices))
			return
		}
		out.Statuses[v.Service] = &healthpb.HealthCheckResponse{Status: status}
		cost += 256 + 2*int64(len(v.Service))
	}
	if !f.answers.Take(cost) {
		f.asker.Reject("overload")
		refuse(w, r, codes.ResourceExhausted, asker.NoRoom.String())
		return
	}
	defer f.answers.Give(cost)
	setMetadata(w.Header(), decisive(verdicts), verdicts)
	answer(w, r, out)
}

// question is what a name asks for. Where there are targets it is "target/service", or a target alone.
func (f *front) question(ctx context.Context, name string) asker.Question {
	if name == "" {
		return asker.Question{}
	}
	if fleet := f.asker.Fleet(ctx); fleet == nil || !fleet.Named() {
		return asker.Question{Services: []string{name}}
	}
	target, service, _ := strings.Cut(name, "/")
	question := asker.Question{Targets: []string{target}}
	if service != "" {
		question.Services = []string{service}
	}
	return question
}

// read reads the message of a request. It answers a request of which it cannot be read.
func (f *front) read(w http.ResponseWriter, r *http.Request, in proto.Message) bool {
	code, fault := readMessage(w, r, in)
	if code == codes.OK {
		return true
	}
	f.asker.Reject("query")
	refuse(w, r, code, fault)
	return false
}

// ask asks. It answers a request that is refused.
func (f *front) ask(w http.ResponseWriter, r *http.Request, question *asker.Question, room []health.Verdict) (verdicts []health.Verdict, ok bool) {
	for _, name := range question.Services {
		if fault := health.NameFault(name); fault != "" {
			f.asker.Reject("query")
			refuse(w, r, codes.InvalidArgument, fault)
			return nil, false
		}
	}
	found, refusal := f.asker.Ask(r.Context(), r, question, room)
	code := codes.ResourceExhausted
	switch refusal {
	case asker.NotRefused:
		return found.Verdicts, true
	case asker.NoList:
		code = codes.Unimplemented
	case asker.NoService, asker.NoTarget:
		code = codes.NotFound
	case asker.TooMany:
		code = codes.FailedPrecondition
	case asker.NotConfigured:
		code = codes.Unavailable
	}
	refuse(w, r, code, refusal.String())
	return nil, false
}

// The metadata about a verdict. Names that begin with grpc- are gRPC's own.
const (
	statusKey   = "Health-Status"
	evidenceKey = "Health-Evidence"
)

// statusValues are the values of statusKey, made once and only read.
var statusValues = func() map[string][]string {
	values := make(map[string][]string)
	for _, s := range health.Statuses() {
		values[s.String()] = []string{s.String()}
	}
	return values
}()

// setMetadata says what HTTP's headers say about verdicts.
func setMetadata(header http.Header, decisive *health.Verdict, verdicts []health.Verdict) {
	header[statusKey] = statusValues[decisive.Status.String()]
	if ids := health.EvidenceIDs(verdicts); decisive.Status != health.Serving && len(ids) > 0 {
		header[evidenceKey] = []string{strings.Join(ids, ", ")}
	}
}

// decisive is the first of the worst verdicts; the zero Verdict, which is UNKNOWN, where there is none.
func decisive(verdicts []health.Verdict) *health.Verdict {
	worst := health.Worst(verdicts)
	for i := range verdicts {
		if verdicts[i].Status == worst {
			return &verdicts[i]
		}
	}
	return new(health.Verdict)
}
