package grpcfront_test

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"example.com/grpc-health-http/internal/asker"
	"example.com/grpc-health-http/internal/grpcfront"
	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/internal/memory"
)

// secret is in the cause of each failure, and must not be told.
const secret = "10.1.2.3: the cause"

// verdict is a finding with all that a caller may be told, and more.
func verdict(s health.Status) health.Verdict {
	v := health.Verdict{Status: s, Asked: true, At: time.Now()}
	if s != health.Serving {
		v.EvidenceID = "id-" + s.String()
	}
	switch s {
	case health.ConnectionFailed:
		v.Phase = health.PhaseTLS
	case health.Timeout:
		v.Phase = health.PhaseRPC
	case health.RPCFailed:
		v.Code = codes.PermissionDenied
	}
	if s != health.Serving && s != health.NotServing {
		v.Err = errors.New(secret)
	}
	return v
}

func says(s health.Status) health.Func {
	return func(context.Context, string) health.Verdict { return verdict(s) }
}

// server is a front on loopback, over HTTP/1 and h2c.
type server struct {
	address string
	conn    *grpc.ClientConn

	mu       sync.Mutex
	rejected []string
	observed []string
}

func (s *server) rejections() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.rejected)
}

// start serves a front for one upstream, in front of a handler that answers "HTTP".
func start(t *testing.T, up asker.Upstream, change func(*asker.Options, *grpcfront.Options)) *server {
	t.Helper()
	s := new(server)
	asks := asker.Options{Fleet: asker.One(&up), Rejected: func(reason string) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.rejected = append(s.rejected, reason)
	}}
	o := grpcfront.Options{Observe: func(path string, next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s.mu.Lock()
			s.observed = append(s.observed, path)
			s.mu.Unlock()
			next.ServeHTTP(w, r)
		})
	}}
	if change != nil {
		change(&asks, &o)
	}
	o.Asker = asker.New(asks)
	next := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "HTTP") })
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := &http.Server{Handler: grpcfront.New(o, next), Protocols: new(http.Protocols)}
	h.Protocols.SetHTTP1(true)
	h.Protocols.SetUnencryptedHTTP2(true)
	go h.Serve(listener)
	t.Cleanup(func() { h.Close() })
	s.address = listener.Addr().String()
	s.conn, err = grpc.NewClient("passthrough:///"+s.address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.conn.Close() })
	return s
}

// seen is what a gRPC client saw.
type seen struct {
	code     codes.Code
	message  string
	status   string // of the protocol; empty without a message
	metadata metadata.MD
}

func (s *server) check(ctx context.Context, name string) seen {
	var header, trailer metadata.MD
	out, err := healthpb.NewHealthClient(s.conn).Check(ctx, &healthpb.HealthCheckRequest{Service: name}, grpc.Header(&header), grpc.Trailer(&trailer))
	got := seen{code: status.Code(err), message: status.Convert(err).Message(), metadata: metadata.Join(header, trailer)}
	if err == nil {
		got.status = out.GetStatus().String()
	}
	return got
}

// invoke calls a method with an empty message.
func (s *server) invoke(ctx context.Context, method string) seen {
	var header, trailer metadata.MD
	err := s.conn.Invoke(ctx, method, new(healthpb.HealthListRequest), new(healthpb.HealthListResponse), grpc.Header(&header), grpc.Trailer(&trailer))
	return seen{code: status.Code(err), message: status.Convert(err).Message(), metadata: metadata.Join(header, trailer)}
}

func first(values []string) string {
	if len(values) == 0 {
		return ""
	}
	return values[0]
}

// The table of the manual: for each status, what Check says, and what the code alone says.
func TestCodes(t *testing.T) {
	t.Parallel()
	type row struct {
		code     codes.Code
		status   string
		message  string
		codeOnly codes.Code
	}
	rows := map[health.Status]row{
		health.Serving:          {codes.OK, "SERVING", "", codes.OK},
		health.NotServing:       {codes.OK, "NOT_SERVING", "", codes.Unavailable},
		health.Unknown:          {codes.OK, "UNKNOWN", "", codes.Unavailable},
		health.ServiceUnknown:   {codes.NotFound, "", "SERVICE_UNKNOWN", codes.Unavailable},
		health.Unimplemented:    {codes.Unimplemented, "", "UNIMPLEMENTED", codes.Unavailable},
		health.ConnectionFailed: {codes.Unavailable, "", "CONNECTION_FAILED, phase tls", codes.Unavailable},
		health.Timeout:          {codes.DeadlineExceeded, "", "TIMEOUT, phase rpc", codes.Unavailable},
		health.RPCFailed:        {codes.PermissionDenied, "", "RPC_FAILED", codes.Unavailable},
		health.Overloaded:       {codes.ResourceExhausted, "", "OVERLOADED", codes.ResourceExhausted},
	}
	for _, s := range health.Statuses() {
		t.Run(s.String(), func(t *testing.T) {
			t.Parallel()
			want, ok := rows[s]
			if !ok {
				t.Fatal("no code is expected")
			}
			front := start(t, asker.Upstream{Check: says(s)}, nil)
			got := front.check(t.Context(), "")
			if got.code != want.code || got.status != want.status || got.message != want.message {
				t.Errorf("Check: %v %q %q, want %v %q %q", got.code, got.status, got.message, want.code, want.status, want.message)
			}
			alone := front.invoke(t.Context(), "/AWS.ALB/healthcheck")
			if alone.code != want.codeOnly {
				t.Errorf("the code alone: %v, want %v", alone.code, want.codeOnly)
			}
			for name, got := range map[string]seen{"Check": got, "the code alone": alone} {
				if id := first(got.metadata["health-evidence"]); first(got.metadata["health-status"]) != s.String() || id != verdict(s).EvidenceID {
					t.Errorf("%s: metadata %v", name, got.metadata)
				}
				if (first(got.metadata["retry-after"]) == "1") != (s == health.Overloaded) {
					t.Errorf("%s: retry-after: %v", name, got.metadata)
				}
				if strings.Contains(fmt.Sprint(got), secret) {
					t.Errorf("%s tells the cause: %v", name, got)
				}
			}
		})
	}
}

// Every code of an RPC that failed is passed on, but those that would be no failure.
func TestCodeOfTheUpstream(t *testing.T) {
	t.Parallel()
	for code := codes.OK; code < 30; code++ {
		want := code
		if code == codes.OK || code > codes.Unauthenticated {
			want = codes.Unknown
		}
		v := health.Verdict{Status: health.RPCFailed, Code: code}
		if got := grpcfront.Code(&v); got != want {
			t.Errorf("%v: %v", code, got)
		}
		if got := grpcfront.CodeOnly(v.Status); got != codes.Unavailable {
			t.Errorf("%v, the code alone: %v", code, got)
		}
	}
	if grpcfront.Code(&health.Verdict{Status: 99}) != codes.OK || grpcfront.CodeOnly(99) != codes.Unavailable {
		t.Error("an unknown status is no UNKNOWN, or healthy")
	}
}

// The worst of what is configured decides, and the answer has its code and phase.
func TestWorst(t *testing.T) {
	t.Parallel()
	s := start(t, asker.Upstream{Services: []string{"a", "b", "c"}, Check: func(_ context.Context, service string) health.Verdict {
		return verdict(map[string]health.Status{"a": health.Serving, "b": health.RPCFailed, "c": health.NotServing}[service])
	}}, nil)
	for name, want := range map[string]codes.Code{"": codes.PermissionDenied, "a": codes.OK, "b": codes.PermissionDenied, "c": codes.OK, "d": codes.NotFound} {
		if got := s.check(t.Context(), name); got.code != want {
			t.Errorf("%q: %v, want %v", name, got.code, want)
		}
	}
	got := s.check(t.Context(), "")
	if ids := first(got.metadata["health-evidence"]); ids != "id-RPC_FAILED, id-NOT_SERVING" {
		t.Errorf("evidence %q", ids)
	}
	for path, want := range map[string]codes.Code{
		"/AWS.ALB/healthcheck": codes.Unavailable, "/a/healthcheck": codes.OK, "/b/healthcheck": codes.Unavailable, "/d/healthcheck": codes.Unavailable,
	} {
		if got := s.invoke(t.Context(), path); got.code != want {
			t.Errorf("%s: %v, want %v", path, got.code, want)
		}
	}
	if got := s.rejections(); !slices.Equal(got, []string{"service", "service"}) {
		t.Errorf("rejected %q", got)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, path := range []string{"/grpc.health.v1.Health/Check", "/AWS.ALB/healthcheck", "/a/healthcheck", "other"} {
		if !slices.Contains(s.observed, path) {
			t.Errorf("%s is not observed: %q", path, s.observed)
		}
	}
	if slices.Contains(s.observed, "/d/healthcheck") {
		t.Error("a path that a caller made up is observed")
	}
}

// Names obey the rules of HTTP; each refusal has its code, and is counted once.
func TestNames(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var asked []string
	s := start(t, asker.Upstream{Check: func(_ context.Context, service string) health.Verdict {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, service)
		return verdict(health.Serving)
	}}, nil)
	long := strings.Repeat("n", 256)
	for name, want := range map[string]codes.Code{
		"": codes.OK, "echo.EchoServer": codes.OK, "ü/x y": codes.OK, strings.Repeat("n", 255): codes.OK,
		long: codes.InvalidArgument, "a\nb": codes.InvalidArgument, "\x00": codes.InvalidArgument, strings.Repeat("n", 5000): codes.ResourceExhausted,
	} {
		got := s.check(t.Context(), name)
		if got.code != want {
			t.Errorf("%.20q: %v %s, want %v", name, got.code, got.message, want)
		}
		if want == codes.InvalidArgument && strings.Contains(got.message, name) {
			t.Errorf("%.20q is repeated: %q", name, got.message)
		}
	}
	for path, want := range map[string]codes.Code{
		"/healthcheck": codes.OK, "/a.B/healthcheck": codes.OK, "/a/b/healthcheck": codes.OK, "/" + long + "/healthcheck": codes.Unavailable,
	} {
		if got := s.invoke(t.Context(), path); got.code != want {
			t.Errorf("%.20s: %v %s, want %v", path, got.code, got.message, want)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	slices.Sort(asked)
	if want := []string{"", "", "a.B", "a/b", "echo.EchoServer", strings.Repeat("n", 255), "ü/x y"}; !slices.Equal(asked, want) {
		t.Errorf("asked %.300q", asked)
	}
	if got := s.rejections(); len(got) != 5 || slices.ContainsFunc(got, func(r string) bool { return r != "query" }) {
		t.Errorf("rejected %q", got)
	}
}

func TestList(t *testing.T) {
	t.Parallel()
	var answer []health.Verdict
	listing := func(context.Context) []health.Verdict { return slices.Clone(answer) }
	list := func(s *server) (map[string]string, seen) {
		var header, trailer metadata.MD
		out, err := healthpb.NewHealthClient(s.conn).List(t.Context(), new(healthpb.HealthListRequest), grpc.Header(&header), grpc.Trailer(&trailer))
		got := make(map[string]string)
		for name, r := range out.GetStatuses() {
			got[name] = r.GetStatus().String()
		}
		return got, seen{code: status.Code(err), message: status.Convert(err).Message(), metadata: metadata.Join(header, trailer)}
	}
	s := start(t, asker.Upstream{Check: says(health.Serving), List: listing}, nil)
	for _, row := range []struct {
		name   string
		answer []health.Verdict
		code   codes.Code
		want   string
		status string
	}{
		{"two", []health.Verdict{{Service: "", Status: health.Serving}, {Service: "a", Status: health.NotServing}}, codes.OK, "map[:SERVING a:NOT_SERVING]", "NOT_SERVING"},
		{"every status", []health.Verdict{{Service: "a", Status: health.Unknown}, {Service: "b", Status: health.ServiceUnknown}}, codes.OK, "map[a:UNKNOWN b:SERVICE_UNKNOWN]", "UNKNOWN"},
		{"none", nil, codes.OK, "map[]", "UNKNOWN"},
		{"too many", []health.Verdict{{Service: "a", Status: health.Serving, LeftOut: 7}}, codes.ResourceExhausted, "map[]", ""},
		{"not implemented", []health.Verdict{{List: true, Status: health.Unimplemented}}, codes.Unimplemented, "map[]", "UNIMPLEMENTED"},
		{"not reached", []health.Verdict{{List: true, Status: health.ConnectionFailed, Phase: health.PhaseDNS}}, codes.Unavailable, "map[]", "CONNECTION_FAILED"},
	} {
		answer = row.answer
		got, saw := list(s)
		if fmt.Sprint(got) != row.want || saw.code != row.code || first(saw.metadata["health-status"]) != row.status {
			t.Errorf("%s: %v, %+v", row.name, got, saw)
		}
	}
	answer = []health.Verdict{{Service: "a", Status: health.Serving}}
	answers := memory.NewShare(100)
	answers.Take(50)
	s = start(t, asker.Upstream{Check: says(health.Serving), List: listing}, func(_ *asker.Options, o *grpcfront.Options) { o.Answers = answers })
	if _, saw := list(s); saw.code != codes.ResourceExhausted || first(saw.metadata["retry-after"]) != "1" {
		t.Errorf("without memory: %+v", saw)
	}
	answers.Give(50)
	if _, saw := list(s); saw.code != codes.OK || answers.Used() != 0 {
		t.Errorf("with memory: %+v, %d bytes are left", saw, answers.Used())
	}
	for name, up := range map[string]asker.Upstream{
		"not allowed": {Check: says(health.Serving)}, "configured": {Check: says(health.Serving), Services: []string{"a"}, List: listing},
	} {
		s := start(t, up, nil)
		if _, saw := list(s); saw.code != codes.Unimplemented || !slices.Equal(s.rejections(), []string{"query"}) {
			t.Errorf("%s: %+v, rejected %q", name, saw, s.rejections())
		}
	}
}

// Every other method is UNIMPLEMENTED, as gRPC wants it.
func TestOtherMethods(t *testing.T) {
	t.Parallel()
	s := start(t, asker.Upstream{Check: says(health.Serving)}, nil)
	watch, err := healthpb.NewHealthClient(s.conn).Watch(t.Context(), new(healthpb.HealthCheckRequest))
	if err == nil {
		_, err = watch.Recv()
	}
	if status.Code(err) != codes.Unimplemented {
		t.Errorf("Watch: %v", err)
	}
	for _, method := range []string{
		"/grpc.health.v1.Health/check", "/grpc.health.v1.Health/", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "/AWS.ALB/healthCheck",
		"/AWS.ALB/healthcheck/", "/AWS.ALB/healthchecks", "/",
	} {
		if got := s.invoke(t.Context(), method); got.code != codes.Unimplemented || got.message != "this method is not offered here" {
			t.Errorf("%s: %+v", method, got)
		}
	}
	if got := s.rejections(); len(got) != 8 || slices.ContainsFunc(got, func(r string) bool { return r != "path" }) {
		t.Errorf("rejected %q", got)
	}
}

// A method needs the token as an HTTP request does, and gets gRPC's code.
func TestToken(t *testing.T) {
	t.Parallel()
	s := start(t, asker.Upstream{Check: says(health.Serving), List: func(context.Context) []health.Verdict { return nil }}, func(o *asker.Options, _ *grpcfront.Options) {
		o.Authorize = func(_ context.Context, presented string) (bool, error) {
			if presented == "unreadable" {
				return false, errors.New(secret)
			}
			return presented == "right", nil
		}
	})
	methods := []string{"/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/List", "/AWS.ALB/healthcheck", "/made.up/healthcheck"}
	for _, method := range methods {
		for header, want := range map[string]codes.Code{
			"": codes.Unauthenticated, "Bearer wrong": codes.Unauthenticated, "right": codes.Unauthenticated, "Bearer right": codes.OK, "bearer right": codes.OK,
			"Basic eDpyaWdodA==": codes.OK, "Bearer unreadable": codes.Unavailable,
		} {
			ctx := t.Context()
			if header != "" {
				ctx = metadata.AppendToOutgoingContext(ctx, "authorization", header)
			}
			if got := s.invoke(ctx, method); got.code != want || strings.Contains(got.message, secret) {
				t.Errorf("%s, %q: %+v, want %v", method, header, got, want)
			}
		}
	}
	if got := s.rejections(); len(got) != 4*len(methods) || slices.ContainsFunc(got, func(r string) bool { return r != "token" }) {
		t.Errorf("rejected %q", got)
	}
}

// An answer waits for the end of its request: a stream that net/http resets behind the answer costs some clients the answer.
func TestAnswersWaitForTheRequest(t *testing.T) {
	t.Parallel()
	for name, q := range map[string]struct{ path, token, code string }{
		"the code OK":            {"/AWS.ALB/healthcheck", "right", "0"},
		"another code":           {"/down/healthcheck", "right", "14"},
		"an illegal name":        {"/" + strings.Repeat("a", 256) + "/healthcheck", "right", "14"},
		"a method that is not":   {"/a.B/C", "right", "12"},
		"a token that is wrong":  {"/AWS.ALB/healthcheck", "wrong", "16"},
		"a token cannot be read": {"/AWS.ALB/healthcheck", "unreadable", "14"},
	} {
		asks := asker.New(asker.Options{
			Fleet: asker.One(&asker.Upstream{Check: func(_ context.Context, name string) health.Verdict {
				if name == "down" {
					return verdict(health.NotServing)
				}
				return verdict(health.Serving)
			}}),
			Authorize: func(_ context.Context, presented string) (bool, error) {
				if presented == "unreadable" {
					return false, errors.New(secret)
				}
				return presented == "right", nil
			},
		})
		message := bytes.NewReader(make([]byte, 5))
		r := httptest.NewRequest("POST", q.path, message)
		r.ProtoMajor = 2
		r.Header = http.Header{"Content-Type": {"application/grpc"}, "Authorization": {"Bearer " + q.token}}
		left := -1
		w := recorder{header: make(http.Header), begun: func() { left = message.Len() }}
		grpcfront.New(grpcfront.Options{Asker: asks}, http.NotFoundHandler()).ServeHTTP(&w, r)
		code := cmp.Or(w.header.Get("Grpc-Status"), w.header.Get(http.TrailerPrefix+"Grpc-Status"))
		if left != 0 || code != q.code {
			t.Errorf("%s: the answer with code %q, want %q, began with %d bytes of the request left", name, code, q.code, left)
		}
	}
}

// A request without an end gets its answer all the same.
func TestRequestWithoutAnEnd(t *testing.T) {
	t.Parallel()
	s := start(t, asker.Upstream{Check: says(health.Serving)}, nil)
	h2 := &http.Transport{Protocols: new(http.Protocols)}
	h2.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(h2.CloseIdleConnections)
	for path, want := range map[string]string{"/AWS.ALB/healthcheck": "0", "/a.B/C": "12"} {
		body, end := io.Pipe()
		t.Cleanup(func() { end.Close() })
		r, err := http.NewRequestWithContext(t.Context(), "POST", "http://"+s.address+path, body)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/grpc")
		answer, err := h2.RoundTrip(r)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		_, err = io.Copy(io.Discard, answer.Body)
		answer.Body.Close()
		if length := answer.Header.Get("Content-Length"); want == "0" && length != "" {
			t.Errorf("%s: a client may stop reading behind %s bytes, before the trailers", path, length)
		}
		if code := cmp.Or(answer.Header.Get("Grpc-Status"), answer.Trailer.Get("Grpc-Status")); err != nil || code != want {
			t.Errorf("%s: %q, %v", path, code, err)
		}
	}
}

// The caller's deadline ends the wait, and the check can tell whose it is.
func TestDeadline(t *testing.T) {
	t.Parallel()
	causes, begun := make(chan error, 10), make(chan struct{}, 20)
	s := start(t, asker.Upstream{Check: func(ctx context.Context, _ string) health.Verdict {
		begun <- struct{}{}
		<-ctx.Done()
		causes <- context.Cause(ctx)
		return verdict(health.Timeout)
	}}, nil)
	for _, method := range []string{"/grpc.health.v1.Health/Check", "/AWS.ALB/healthcheck"} {
		a := s.raw(t, rawRequest{path: method, header: http.Header{"Grpc-Timeout": {"50m"}}})
		if cause := <-causes; !errors.Is(cause, health.ErrCallerDeadline) {
			t.Errorf("%s: the check ended with %v", method, cause)
		}
		want := "4"
		if method == "/AWS.ALB/healthcheck" {
			want = "14"
		}
		if a.code != want {
			t.Errorf("%s: %+v", method, a)
		}
	}
	for _, timeout := range []string{"soon", "1", "S", "-1S", "1s", "1.5S", "123456789S", "1 S", "x1S"} {
		if a := s.raw(t, rawRequest{path: "/grpc.health.v1.Health/Check", header: http.Header{"Grpc-Timeout": {timeout}}}); a.code != "3" || !strings.Contains(a.message, "grpc-timeout") {
			t.Errorf("time-out %q: %+v", timeout, a)
		}
	}
	for _, timeout := range []string{"0S", "0n", "1n", "1u", "00000001m"} { // they are over at once
		if a := s.raw(t, rawRequest{header: http.Header{"Grpc-Timeout": {timeout}}}); a.code != "4" {
			t.Errorf("time-out %q: %+v", timeout, a)
		}
		if cause := <-causes; !errors.Is(cause, health.ErrCallerDeadline) {
			t.Errorf("time-out %q: the check ended with %v", timeout, cause)
		}
	}
	// A caller who leaves ends its wait.
	for len(begun) > 0 { // what has ended
		<-begun
	}
	ctx, cancel := context.WithCancel(t.Context())
	go s.check(ctx, "")
	<-begun
	cancel()
	if cause := <-causes; !errors.Is(cause, context.Canceled) {
		t.Errorf("a caller who leaves: %v", cause)
	}
}

// rawRequest is a request that no gRPC client would send. The zero value is a Check of all that is configured.
type rawRequest struct {
	path        string
	method      string
	contentType string
	header      http.Header
	body        []byte // nil is an empty message
	http1       bool
}

// raw is an answer as it came; code is empty where it is not gRPC's.
type raw struct {
	http    int
	code    string
	message string
	body    []byte
	header  http.Header
}

func (s *server) raw(t *testing.T, q rawRequest) raw {
	t.Helper()
	transport := &http.Transport{Protocols: new(http.Protocols), DisableCompression: true}
	defer transport.CloseIdleConnections()
	transport.Protocols.SetHTTP1(q.http1)
	transport.Protocols.SetUnencryptedHTTP2(!q.http1)
	if q.method == "" {
		q.method = http.MethodPost
	}
	if q.contentType == "" {
		q.contentType = "application/grpc"
	}
	if q.path == "" {
		q.path = "/grpc.health.v1.Health/Check"
	}
	if q.body == nil {
		q.body = make([]byte, 5)
	}
	r, err := http.NewRequestWithContext(t.Context(), q.method, "http://"+s.address+q.path, bytes.NewReader(q.body))
	if err != nil {
		t.Fatal(err)
	}
	for name, values := range q.header {
		r.Header[name] = values
	}
	r.Header.Set("Content-Type", q.contentType)
	r.Header.Set("Te", "trailers")
	response, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatalf("%s: %v", q.path, err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatalf("%s: %v", q.path, err)
	}
	a := raw{http: response.StatusCode, body: body, header: response.Header, code: response.Trailer.Get("Grpc-Status"), message: response.Trailer.Get("Grpc-Message")}
	if a.code == "" {
		a.code, a.message = response.Header.Get("Grpc-Status"), response.Header.Get("Grpc-Message")
	}
	if response.Header.Get("Cache-Control") != "no-store" || response.Header.Get("X-Content-Type-Options") != "nosniff" {
		if string(body) != "HTTP" {
			t.Errorf("%s: headers %v", q.path, response.Header)
		}
	}
	return a
}

// frame is a gRPC message with its flags.
func frame(flags byte, message []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{flags}, uint32(len(message))), message...)
}

// Bad input gets the code that says what is wrong, and costs nobody else anything.
func TestBadInput(t *testing.T) {
	t.Parallel()
	s := start(t, asker.Upstream{Check: says(health.Serving)}, nil)
	named, err := proto.Marshal(&healthpb.HealthCheckRequest{Service: "a"})
	if err != nil {
		t.Fatal(err)
	}
	var packed, bomb bytes.Buffer
	for out, message := range map[*bytes.Buffer][]byte{&packed: named, &bomb: bytes.Repeat([]byte{0}, 10<<20)} {
		z := gzip.NewWriter(out)
		_, _ = z.Write(message)
		z.Close()
	}
	compressed := func(how string) http.Header { return http.Header{"Grpc-Encoding": {how}} }
	for name, row := range map[string]struct {
		rawRequest
		code, message string
	}{
		"no message":           {rawRequest{body: []byte{}}, "12", "has no message"},
		"two messages":         {rawRequest{body: make([]byte, 10)}, "12", "more than one message"},
		"half a prefix":        {rawRequest{body: make([]byte, 3)}, "13", ""},
		"half a message":       {rawRequest{body: []byte{0, 0, 0, 0, 9, 1}}, "13", ""},
		"rubbish":              {rawRequest{body: frame(0, []byte("\xff\xff\xff"))}, "3", ""},
		"another field":        {rawRequest{body: frame(0, []byte{0x12, 1, 'x'})}, "0", ""},
		"a name that is bytes": {rawRequest{body: frame(0, []byte{0x0a, 1, 0xff})}, "3", ""},
		"too large":            {rawRequest{body: frame(0, make([]byte, 4<<10+1))}, "8", "4096"},
		"says to be 4 GB":      {rawRequest{body: []byte{0, 0xff, 0xff, 0xff, 0xff, 1, 2}}, "8", "4096"},
		"gzip":                 {rawRequest{body: frame(1, packed.Bytes()), header: compressed("gzip")}, "0", ""},
		"a gzip bomb":          {rawRequest{body: frame(1, bomb.Bytes()), header: compressed("gzip")}, "8", "4096"},
		"gzip that is none":    {rawRequest{body: frame(1, named), header: compressed("gzip")}, "3", ""},
		"compressed, not said": {rawRequest{body: frame(1, packed.Bytes())}, "13", ""},
		"unknown compression":  {rawRequest{body: frame(1, named), header: compressed("snappy")}, "12", "gzip"},
		"identity":             {rawRequest{body: frame(0, named), header: compressed("identity")}, "0", ""},
		"identity, compressed": {rawRequest{body: frame(1, named), header: compressed("identity")}, "13", ""},
		"another flag":         {rawRequest{body: frame(2, named)}, "13", ""},
		"gzip cut short":       {rawRequest{body: frame(1, packed.Bytes()[:packed.Len()-3]), header: compressed("gzip")}, "3", ""},
		"a charset":            {rawRequest{contentType: "application/grpc+proto;charset=utf-8", body: frame(0, named)}, "0", ""},
	} {
		a := s.raw(t, row.rawRequest)
		if a.http != 200 || a.code != row.code || !strings.Contains(a.message, row.message) {
			t.Errorf("%s: HTTP %d, code %s %q, want %s", name, a.http, a.code, a.message, row.code)
		}
		if row.code == "12" && name == "unknown compression" && a.header.Get("Grpc-Accept-Encoding") != "gzip" {
			t.Errorf("%s: headers %v", name, a.header)
		}
		// Where the code alone counts, none of this can make the answer one about anything but the upstream.
		row.path = "/AWS.ALB/healthcheck"
		if a := s.raw(t, row.rawRequest); a.code != "0" {
			t.Errorf("%s, the code alone: %+v", name, a)
		}
	}
	// A stream of rubbish costs one connection.
	conn, err := net.Dial("tcp", s.address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, http2.ClientPreface+strings.Repeat("rubbish", 1000))
	if _, err := io.Copy(io.Discard, conn); err != nil && !strings.Contains(err.Error(), "reset") {
		t.Errorf("the connection was not closed: %v", err)
	}
	if got := s.check(t.Context(), ""); got.status != "SERVING" {
		t.Errorf("after rubbish: %+v", got)
	}
}

// What is no gRPC request gets HTTP's answer.
func TestNotGRPC(t *testing.T) {
	t.Parallel()
	s := start(t, asker.Upstream{Check: says(health.Serving)}, nil)
	for name, q := range map[string]rawRequest{
		"GET":                  {method: "GET"},
		"PUT":                  {method: "PUT"},
		"no type":              {contentType: "text/plain"},
		"Connect's JSON":       {contentType: "application/json"},
		"Connect's proto":      {contentType: "application/proto"},
		"another type":         {contentType: "application/grpcx"},
		"gRPC with JSON":       {contentType: "application/grpc+json"},
		"gRPC over HTTP/1.1":   {http1: true},
		"gRPC-Web in base64":   {contentType: "application/grpc-web-text"},
		"HTTP, the code alone": {path: "/AWS.ALB/healthcheck", method: "GET"},
	} {
		if a := s.raw(t, q); string(a.body) != "HTTP" || a.code != "" {
			t.Errorf("%s: %d %q, code %q", name, a.http, a.body, a.code)
		}
	}
}

// gRPC-Web works over both versions of HTTP.
func TestWeb(t *testing.T) {
	t.Parallel()
	good := start(t, asker.Upstream{Check: says(health.Serving)}, nil)
	bad := start(t, asker.Upstream{Check: says(health.ConnectionFailed)}, nil)
	trailers := func(a raw) string {
		for b := a.body; len(b) >= 5; {
			n := binary.BigEndian.Uint32(b[1:])
			if b[0] == 1<<7 {
				return string(b[5 : 5+n])
			}
			b = b[5+n:]
		}
		return fmt.Sprintf("Grpc-Status: %s\r\nGrpc-Message: %s", a.code, a.message)
	}
	for _, http1 := range []bool{true, false} {
		for _, contentType := range []string{"application/grpc-web", "application/grpc-web+proto"} {
			q := rawRequest{http1: http1, contentType: contentType}
			for path, code := range map[string]string{"/grpc.health.v1.Health/Check": "14", "/AWS.ALB/healthcheck": "14", "/x/y": "12"} {
				q.path = path
				a := bad.raw(t, q)
				if got := strings.ToLower(trailers(a)); !strings.Contains(got, "grpc-status: "+code) || code == "14" && !strings.Contains(got, "connection_failed, phase tls") {
					t.Errorf("%+v: %q", q, got)
				}
				if !strings.HasPrefix(a.header.Get("Content-Type"), "application/grpc-web") {
					t.Errorf("%+v: %v", q, a.header)
				}
			}
			for _, q.path = range []string{"/grpc.health.v1.Health/Check", "/AWS.ALB/healthcheck"} {
				a := good.raw(t, q)
				if got := strings.ToLower(trailers(a)); !strings.Contains(got, "grpc-status: 0") {
					t.Errorf("%+v: %q", q, got)
				}
				if q.path == "/grpc.health.v1.Health/Check" && !bytes.HasPrefix(a.body, []byte{0, 0, 0, 0, 2, 8, 1}) {
					t.Errorf("%+v: %q", q, a.body)
				}
			}
		}
	}
}

// A process without memory says so in gRPC's words to those who speak it.
func TestOverloaded(t *testing.T) {
	t.Parallel()
	s := start(t, asker.Upstream{Services: []string{"a"}, Check: says(health.Serving)}, func(o *asker.Options, _ *grpcfront.Options) {
		full := memory.NewShare(1000)
		full.Take(1000)
		o.Memory = asker.Memory{Configured: full, Others: full}
	})
	for _, path := range []string{"/grpc.health.v1.Health/Check", "/AWS.ALB/healthcheck", "/a/healthcheck"} {
		if a := s.raw(t, rawRequest{path: path}); a.code != "8" || a.header.Get("Retry-After") != "1" {
			t.Errorf("%s: %+v", path, a)
		}
	}
	if got := s.rejections(); len(got) != 3 || got[0] != "overload" {
		t.Errorf("rejected %q", got)
	}
	var reasons []string
	h := grpcfront.Overloaded(func(reason string) { reasons = append(reasons, reason) }, http.NotFoundHandler())
	for contentType, want := range map[string]string{"application/grpc": "8", "application/grpc-web": "8", "text/plain": ""} {
		w := recorder{header: make(http.Header)}
		r := &http.Request{Method: http.MethodPost, ProtoMajor: 2, Header: http.Header{"Content-Type": {contentType}}}
		h.ServeHTTP(&w, r)
		if got := w.header.Get("Grpc-Status"); got != want {
			t.Errorf("%s: %q", contentType, got)
		}
	}
	if !slices.Equal(reasons, []string{"overload", "overload"}) {
		t.Errorf("rejected %q", reasons)
	}
}

type recorder struct {
	header http.Header
	begun  func() // called when the answer begins; nil calls nothing
}

func (r *recorder) Header() http.Header { return r.header }

func (r *recorder) WriteHeader(int) { _, _ = r.Write(nil) }

func (r *recorder) Write(p []byte) (int, error) {
	if r.begun != nil {
		r.begun()
	}
	return len(p), nil
}

// TestTrailersOnly looks for the code in the headers of all answers without a message, since not every proxy passes on trailers after no body.
func TestTrailersOnly(t *testing.T) {
	t.Parallel()
	s := start(t, asker.Upstream{Check: says(health.ConnectionFailed)}, nil)
	for name, q := range map[string]rawRequest{
		"a verdict":              {},
		"no message":             {body: []byte{}},
		"a message that is none": {body: frame(0, []byte{0xff})},
		"too large":              {body: frame(0, make([]byte, 1<<20))},
		"an illegal name":        {body: frame(0, []byte("\x0a\x01\x07"))},
		"unknown compression":    {header: http.Header{"Grpc-Encoding": {"zstd"}}},
		"no list":                {path: "/grpc.health.v1.Health/List"},
		"another method":         {path: "/grpc.health.v1.Health/Watch"},
		"the code only":          {path: "/AWS.ALB/healthcheck"},
	} {
		a := s.raw(t, q)
		if a.code == "" || a.header.Get("Grpc-Status") != a.code || len(a.body) > 0 {
			t.Errorf("%s: the code is %q, the headers are %v", name, a.code, a.header)
		}
	}
	serving := start(t, asker.Upstream{Check: says(health.Serving)}, nil)
	if a := serving.raw(t, rawRequest{}); a.code != "0" || a.header.Get("Grpc-Status") != "" || len(a.body) == 0 {
		t.Errorf("with a message: the code is %q, the headers are %v", a.code, a.header)
	}
}

// A time-out that is longer than any budget is no bound.
func TestLongDeadline(t *testing.T) {
	t.Parallel()
	s := start(t, asker.Upstream{Check: func(ctx context.Context, _ string) health.Verdict {
		if _, ok := ctx.Deadline(); ok {
			t.Error("the check has a deadline")
		}
		return verdict(health.Serving)
	}}, nil)
	for _, timeout := range []string{"99999999H", "8760H", "99999999M", "00000025H"} {
		if a := s.raw(t, rawRequest{header: http.Header{"Grpc-Timeout": {timeout}}}); a.code != "0" {
			t.Errorf("time-out %q: %+v", timeout, a)
		}
	}
}

// Whatever a request has, the answer is one of gRPC, and the code alone is about the upstream.
func FuzzMessage(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 0}, "", "")
	f.Add([]byte{1, 0, 0, 0, 3, 0x0a, 1, 'a'}, "gzip", "1S")
	f.Add([]byte{0, 0xff, 0xff, 0xff, 0xff}, "snappy", "99999999H")
	h := grpcfront.New(grpcfront.Options{Asker: asker.New(asker.Options{Fleet: asker.One(&asker.Upstream{Check: says(health.Serving)})})}, http.NotFoundHandler())
	f.Fuzz(func(t *testing.T, body []byte, encoding, timeout string) {
		for _, path := range []string{"/grpc.health.v1.Health/Check", "/AWS.ALB/healthcheck"} {
			r := httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(body))
			r.URL.Path, r.ProtoMajor = path, 2
			r.Header = http.Header{"Content-Type": {"application/grpc"}, "Grpc-Encoding": {encoding}, "Grpc-Timeout": {timeout}}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			code := w.Header().Get("Grpc-Status") + w.Header().Get(http.TrailerPrefix+"Grpc-Status")
			if n, err := strconv.Atoi(code); err != nil || n < 0 || n > 16 || path == "/AWS.ALB/healthcheck" && n != 0 {
				t.Errorf("%s %q, %q, %q: code %q", path, body, encoding, timeout, code)
			}
		}
	})
}
