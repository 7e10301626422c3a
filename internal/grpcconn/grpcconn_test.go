package grpcconn_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/grpclog"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	"example.com/grpc-health-http/internal/grpcconn"
	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/test/healthtest"
)

const ms = time.Millisecond

// wire is a connection that knows its first bytes.
type wire struct {
	net.Conn
	mu     sync.Mutex
	first  []byte
	closed bool
}

func (w *wire) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.first = append(w.first, p[:min(n, 4-min(len(w.first), 4))]...)
	return n, err
}

func (w *wire) SettingsSeen() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.first) == 4 && w.first[3] == byte(http2.FrameSettings)
}

func (w *wire) isClosed() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.closed
}

func (w *wire) Close() error {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	return w.Conn.Close()
}

// connect makes a Conn of a new connection to an address, which ends with the test.
func connect(t testing.TB, address string, o grpcconn.Options) (*grpcconn.Conn, error) {
	t.Helper()
	raw, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	_, auth, err := insecure.NewCredentials().ClientHandshake(t.Context(), "", raw)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if o.Authority == "" {
		o.Authority = address
	}
	w := &wire{Conn: raw}
	c, err := grpcconn.New(ctx, o, w, auth)
	if err == nil {
		t.Cleanup(c.Close)
	}
	return c, err
}

func connected(t testing.TB, address string) *grpcconn.Conn {
	t.Helper()
	c, err := connect(t, address, grpcconn.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// within is a context with the deadline of an RPC.
func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

const long = 10 * time.Second

func do(t testing.TB, c *grpcconn.Conn) grpcconn.Answer {
	return c.Do(within(t, long), grpcconn.Request{}, nil, new(grpcconn.Progress))
}

// eventually waits for a condition that something else brings about.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(long); !condition(); time.Sleep(ms) {
		if time.Now().After(end) {
			t.Fatalf("after %v still not: %s", long, what)
		}
	}
}

// What front ends do is what the conclusions of outcome.go rest on; a text is one of grpc-go's that it looks for.
func TestOutcomes(t *testing.T) {
	t.Parallel()
	const answered, lost, unprocessed, unreadable = grpcconn.Answered, grpcconn.Lost, grpcconn.Unprocessed, grpcconn.Unreadable
	for _, row := range []struct {
		name    string
		fault   healthtest.Fault
		outcome grpcconn.Outcome
		code    codes.Code
		text    string // of the error
		status  health.Status
		sent    int // how often the request arrived
	}{
		// An HTTP front end has spoken.
		{"HTTP 400", healthtest.HTTPStatus(400), answered, codes.Internal, "unexpected HTTP status code received from server: 400", health.RPCFailed, 1},
		{"HTTP 401", healthtest.HTTPStatus(401), answered, codes.Unauthenticated, "unexpected HTTP status code received from server: 401", health.RPCFailed, 1},
		{"HTTP 403", healthtest.HTTPStatus(403), answered, codes.PermissionDenied, "unexpected HTTP status code received from server: 403", health.RPCFailed, 1},
		{"HTTP 404", healthtest.HTTPStatus(404), answered, codes.Unimplemented, "unexpected HTTP status code received from server: 404", health.RPCFailed, 1},
		{"HTTP 429", healthtest.HTTPStatus(429), answered, codes.Unavailable, "unexpected HTTP status code received from server: 429", health.RPCFailed, 1},
		{"HTTP 500", healthtest.HTTPStatus(500), answered, codes.Unknown, "unexpected HTTP status code received from server: 500", health.RPCFailed, 1},
		{"HTTP 502", healthtest.HTTPStatus(502), answered, codes.Unavailable, "unexpected HTTP status code received from server: 502", health.RPCFailed, 1},
		{"HTTP 503", healthtest.HTTPStatus(503), answered, codes.Unavailable, "unexpected HTTP status code received from server: 503", health.RPCFailed, 1},
		{"HTTP 504", healthtest.HTTPStatus(504), answered, codes.Unavailable, "unexpected HTTP status code received from server: 504", health.RPCFailed, 1},
		{"HTTP 200", healthtest.ContentType("text/html"), answered, codes.Unknown, "unexpected HTTP status code received from server: 200", health.RPCFailed, 1},
		{"no HTTP status", healthtest.WithoutHTTPStatus(), answered, codes.Internal, "malformed header: missing HTTP status", health.RPCFailed, 1},

		// The server has spoken, for there are trailers.
		{"trailers only", healthtest.TrailersOnly(codes.Unavailable, "no back end"), answered, codes.Unavailable, "no back end", health.RPCFailed, 1},
		{"trailers only", healthtest.TrailersOnly(codes.NotFound, "what?"), answered, codes.NotFound, "what?", health.ServiceUnknown, 1},
		{"trailers only", healthtest.TrailersOnly(codes.Unimplemented, "what?"), answered, codes.Unimplemented, "what?", health.Unimplemented, 1},
		{"trailers only", healthtest.TrailersOnly(codes.DeadlineExceeded, "of its own"), answered, codes.DeadlineExceeded, "of its own", health.RPCFailed, 1},
		{"trailers only", healthtest.TrailersOnly(codes.Canceled, "of its own"), answered, codes.Canceled, "of its own", health.RPCFailed, 1},
		{"SERVING", healthtest.Message("\x08\x01", ""), answered, codes.OK, "", health.Serving, 1},

		// It has answered, and the answer is unusable.
		{"too large", healthtest.TooLarge(2 << 20), answered, codes.ResourceExhausted, "larger than max", health.RPCFailed, 1},
		{"without trailers", healthtest.WithoutTrailers(), answered, codes.Internal, "without sending trailers", health.RPCFailed, 1},
		{"not the protocol's", healthtest.Message("\xff\xff", ""), answered, codes.Internal, "unmarshal", health.RPCFailed, 1},
		{"compressed in an unknown way", healthtest.Message("x", "snappy"), answered, codes.Internal, "snappy", health.RPCFailed, 1},

		{"a status that is no number", healthtest.TrailersWith("grpc-status", "x"), answered, codes.Unknown, "malformed grpc-status", health.RPCFailed, 1},
		{"metadata that is not base64", healthtest.TrailersWith("x-bin", "?", "grpc-status", "0"), answered, codes.Internal, "malformed x-bin", health.RPCFailed, 1},
		{"an informational status that ends it", healthtest.Informational(103), answered, codes.Internal, "informational header", health.RPCFailed, 1},
		{"no message", healthtest.TrailersWith("grpc-status", "0"), answered, codes.Internal, "cardinality violation", health.RPCFailed, 1},

		// Its headers are larger than this side takes: it says so. Beyond what HTTP/2 lets it skip, the connection ends.
		{"a page as the message", healthtest.TrailersOnly(codes.NotFound, strings.Repeat("x", 200<<10)), answered, codes.NotFound, "xxx", health.ServiceUnknown, 1},
		{"many trailers", healthtest.TrailersWith(fields(255, 1000)...), answered, codes.ResourceExhausted, "larger than 256 KiB", health.RPCFailed, 1},
		{"trailers that unfold", healthtest.TrailersWith(slices.Repeat([]string{"k", strings.Repeat("v", 3900)}, 1000)...), answered, codes.ResourceExhausted, "larger than 256 KiB", health.RPCFailed, 1},
		{"a megabyte of trailers", healthtest.TrailersWith(fields(1000, 1000)...), unreadable, codes.ResourceExhausted, "larger than 256 KiB", 0, 1},
		{"a message of 300 KB", healthtest.TrailersOnly(codes.NotFound, strings.Repeat("x", 300<<10)), unreadable, codes.ResourceExhausted, "larger than 256 KiB", 0, 1},
		{"a message of 4 MB", healthtest.TrailersOnly(codes.NotFound, strings.Repeat("x", 4<<20)), unreadable, codes.ResourceExhausted, "larger than 256 KiB", 0, 1},
		{"a body of 513 KB", healthtest.TooLarge(513 << 10), answered, codes.ResourceExhausted, "larger than max", health.RPCFailed, 1},

		// The answer was lost.
		{"reset", healthtest.ResetStream(http2.ErrCodeInternal), lost, codes.Internal, "stream terminated by RST_STREAM", 0, 1},
		{"reset in the middle", healthtest.ResetStreamAfterHeaders(http2.ErrCodeInternal), lost, codes.Internal, "stream terminated by RST_STREAM", 0, 1},
		{"reset in the middle", healthtest.ResetStreamAfterHeaders(http2.ErrCodeEnhanceYourCalm), lost, codes.ResourceExhausted, "stream terminated by RST_STREAM", 0, 1},
		{"reset in the middle", healthtest.ResetStreamAfterHeaders(http2.ErrCodeCancel), lost, codes.Canceled, "stream terminated by RST_STREAM", 0, 1},
		{"closed", healthtest.CloseOnEveryRequest(), lost, codes.Unavailable, "", 0, 1},
		{"closed in the middle", healthtest.CloseAfterHeaders(), lost, codes.Unavailable, "", 0, 1},

		// The server had not looked at the request.
		{"refused", healthtest.ResetStream(http2.ErrCodeRefusedStream), unprocessed, codes.Unavailable, "stream terminated by RST_STREAM with error code: REFUSED_STREAM", 0, 2},
		{"GOAWAY before the request", healthtest.GoAwayAtOnce(http2.ErrCodeNo), unprocessed, codes.Unavailable, "the connection is gone", 0, -1},
		{"GOAWAY on the request", healthtest.GoAwayOnRequest(http2.ErrCodeNo), unprocessed, codes.Unavailable, "the connection is gone", 0, 1},
		{"GOAWAY on the second sending", healthtest.RefuseThenGoAway(), unprocessed, codes.Unavailable, "the connection is draining", 0, 2},
		{"GOAWAY in the middle of an answer", healthtest.GoAwayBeforeTrailers(), unprocessed, codes.Unavailable, "the connection is draining", 0, 1},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			server := healthtest.StartFrontEnd(t, row.fault)
			for range 20 {
				c, before := connected(t, server.Addr()), server.Requests()
				a := do(t, c)
				if a.Outcome != row.outcome || a.Code != row.code || row.outcome == answered && a.Status != row.status || !strings.Contains(a.String(), row.text) {
					t.Fatalf("outcome %d, code %v, status %v: %v\nwant %d, %v, %v and %q", a.Outcome, a.Code, a.Status, a, row.outcome, row.code, row.status, row.text)
				}
				if n := server.Requests() - before; row.sent >= 0 && n != row.sent {
					t.Fatalf("the request arrived %d times, want %d", n, row.sent)
				}
				c.Close()
			}
		})
	}
}

// fields are so many different ones with values of a length, and a status.
func fields(n, length int) []string {
	all := []string{"grpc-status", "5"}
	for i := range n {
		all = append(all, fmt.Sprintf("f-%d", i), strings.Repeat("v", length))
	}
	return all
}

// RPCs cost no PINGs, of which servers allow only so many.
func TestNoPings(t *testing.T) {
	t.Parallel()
	server := healthtest.StartFrontEnd(t, healthtest.Message("\x08\x01", ""))
	c := connected(t, server.Addr())
	for range 50 {
		if a := do(t, c); a.Outcome != grpcconn.Answered {
			t.Fatalf("%+v", a)
		}
	}
	if n := server.Pings(); n > 0 {
		t.Errorf("%d PINGs for %d RPCs", n, server.Requests())
	}
}

// What the server says is final, whatever the code.
func TestEveryStatusAndCode(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	c := connected(t, up.Addr())
	ask := func(name string) grpcconn.Answer {
		return c.Do(within(t, long), grpcconn.Request{Service: name}, nil, new(grpcconn.Progress))
	}
	for said, want := range map[healthpb.HealthCheckResponse_ServingStatus]health.Status{
		healthpb.HealthCheckResponse_UNKNOWN: health.Unknown, healthpb.HealthCheckResponse_SERVING: health.Serving,
		healthpb.HealthCheckResponse_NOT_SERVING: health.NotServing, healthpb.HealthCheckResponse_SERVICE_UNKNOWN: health.ServiceUnknown,
		42: health.Unknown,
	} {
		up.SetStatus("s", said)
		if a := ask("s"); a.Outcome != grpcconn.Answered || a.Status != want || a.Code != codes.OK || a.Err != nil || a.String() != want.String() {
			t.Errorf("%v: %+v", said, a)
		}
	}
	for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
		want := health.RPCFailed
		switch code {
		case codes.NotFound:
			want = health.ServiceUnknown
		case codes.Unimplemented:
			want = health.Unimplemented
		}
		up.SetError("s", code)
		if a := ask("s"); a.Outcome != grpcconn.Answered || a.Status != want || a.Code != code || a.Err == nil {
			t.Errorf("%v: %+v", code, a)
		}
	}
	if c.Lost() {
		t.Error("the connection is lost")
	}
}

// Past the deadline it is ours, whoever reports it.
func TestTimedOut(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	defer up.Hang("hung")()
	up.Handle("late", func(ctx context.Context, _ string) (*healthpb.HealthCheckResponse, error) {
		<-ctx.Done()
		return nil, status.Error(codes.DeadlineExceeded, "the server is the first to say so")
	})
	for _, name := range []string{"hung", "late"} {
		c := connected(t, up.Addr())
		for range 10 {
			if a := c.Do(within(t, 20*ms), grpcconn.Request{Service: name}, nil, new(grpcconn.Progress)); a.Outcome != grpcconn.TimedOut || a.Code != codes.DeadlineExceeded {
				t.Errorf("%s: %+v", name, a)
			}
		}
		if c.Lost() {
			t.Error("the connection is lost")
		}
	}
	// Where the deadline has passed before the RPC begins.
	c := connected(t, up.Addr())
	ctx := within(t, ms)
	<-ctx.Done()
	if a := c.Do(ctx, grpcconn.Request{}, nil, new(grpcconn.Progress)); a.Outcome != grpcconn.TimedOut {
		t.Errorf("%+v", a)
	}
	// Who cancels an RPC before its deadline has no answer, and no time-out.
	ctx, cancel := context.WithCancel(within(t, long))
	ended := make(chan grpcconn.Answer, 1)
	go func() { ended <- c.Do(ctx, grpcconn.Request{Service: "hung"}, nil, new(grpcconn.Progress)) }()
	eventually(t, "the RPC has arrived", func() bool { return up.InFlightFor("hung") == 1 })
	cancel()
	if a := <-ended; a.Outcome != grpcconn.Unsendable || a.Code != codes.Canceled {
		t.Errorf("%+v", a)
	}
}

// What fails on this side of a sound connection is no loss: it is RPC_FAILED with its code, and nothing goes over the wire.
func TestUnsendable(t *testing.T) {
	t.Parallel()
	big := strings.Repeat("x", 200)
	limit := func(n uint32) healthtest.Fault {
		return healthtest.WithSettings(healthtest.Message("\x08\x01", ""), http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: n})
	}
	for _, row := range []struct {
		name  string
		fault healthtest.Fault
		md    metadata.MD
		code  codes.Code
		text  string
	}{
		{"metadata beyond the server's limit", limit(500), metadata.Pairs("a", big, "b", big), codes.ResourceExhausted, "maximum size (500 bytes) set by server"},
		{"a server that takes none", limit(1), nil, codes.ResourceExhausted, "maximum size (1 bytes) set by server"},
		{"many small ones", limit(1000), metadata.MD{"a": make([]string, 50)}, codes.ResourceExhausted, "maximum size"},
		{"a line break in a value", limit(5000), metadata.Pairs("key", "a\nb"), codes.Internal, "non-printable"},
		{"a letter that is not ASCII", limit(5000), metadata.Pairs("key", "caf\u00e9"), codes.Internal, "non-printable"},
		{"an illegal name", limit(5000), metadata.MD{"a b": {"some"}}, codes.Internal, "illegal characters"},
		{"an empty name", limit(5000), metadata.MD{"": {"some"}}, codes.Internal, "empty key"},
		{"cancelled", limit(5000), nil, codes.Canceled, "canceled"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancel(within(t, long))
			defer cancel()
			if row.code == codes.Canceled {
				cancel()
			}
			server := healthtest.StartFrontEnd(t, row.fault)
			for range 20 {
				c := connected(t, server.Addr())
				// The limit is known when the first RPC begins.
				a := c.Do(ctx, grpcconn.Request{}, row.md, new(grpcconn.Progress))
				if a.Outcome != grpcconn.Unsendable || a.Status != health.RPCFailed || a.Code != row.code || status.Code(a.Err) != row.code || !strings.Contains(a.String(), row.text) {
					t.Fatalf("outcome %d, code %v, status %v: %v", a.Outcome, a.Code, a.Status, a)
				}
				if c.Lost() {
					t.Fatal("the connection is lost")
				}
			}
			if n := server.Requests(); n != 0 {
				t.Errorf("%d requests arrived", n)
			}
		})
	}
	// A message that cannot be made is found when the request has begun.
	up := healthtest.Start(t)
	c := connected(t, up.Addr())
	if a := c.Do(within(t, long), grpcconn.Request{Service: "\xff"}, nil, new(grpcconn.Progress)); a.Outcome != grpcconn.Answered || a.Status != health.RPCFailed || a.Code != codes.Internal || c.Lost() {
		t.Errorf("outcome %d, code %v: %v", a.Outcome, a.Code, a)
	}
}

// A request counts as sent when it has a stream, and not while it waits for one. A GOAWAY that comes while it waits says that it was
// not looked at.
func TestSent(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t, healthtest.MaxConcurrentStreams(1))
	release := up.Hang("hung")
	c := connected(t, up.Addr())
	var first, second, third grpcconn.Progress
	if first.Sent() {
		t.Error("a request was sent before its RPC began")
	}
	answers := make(chan grpcconn.Answer, 3)
	rpc := func(service string, p *grpcconn.Progress) {
		answers <- c.Do(within(t, long), grpcconn.Request{Service: service}, nil, p)
	}
	go rpc("hung", &first)
	eventually(t, "the first RPC has arrived", func() bool { return up.InFlight() == 1 })
	if !first.Sent() {
		t.Error("a request that has arrived was not sent")
	}
	go rpc("", &second)
	for range 20 {
		time.Sleep(ms)
		if second.Sent() {
			t.Fatal("a second request was sent beside the one RPC that the server allows")
		}
	}
	release()
	for range 2 {
		if a := <-answers; a.Outcome != grpcconn.Answered {
			t.Errorf("%+v", a)
		}
	}
	if !second.Sent() {
		t.Error("a request that was answered was not sent")
	}

	release = up.Hang("hung")
	go rpc("hung", &first)
	eventually(t, "the RPC has arrived", func() bool { return up.InFlight() == 1 })
	go rpc("", &third)
	time.Sleep(10 * ms) // until it waits; where it does not yet, the GOAWAY precedes it, with the same outcome
	drained := up.GoAway()
	if a := <-answers; a.Outcome != grpcconn.Unprocessed {
		t.Errorf("an RPC that waited for a stream: %+v", a)
	}
	if third.Sent() {
		t.Error("a request that waited for a stream was sent")
	}
	release()
	if a := <-answers; a.Outcome != grpcconn.Answered {
		t.Errorf("an RPC that was in progress when GOAWAY came: %+v", a)
	}
	<-drained
}

// events records what grpc-go tells a stats.Handler of an RPC.
type events struct {
	mu   sync.Mutex
	told []string
}

func (e *events) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (e *events) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (e *events) HandleConn(context.Context, stats.ConnStats)                       {}
func (e *events) HandleRPC(_ context.Context, s stats.RPCStats) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch s.(type) {
	case *stats.OutHeader, *stats.InHeader, *stats.InTrailer, *stats.End:
		e.told = append(e.told, strings.TrimPrefix(fmt.Sprintf("%T", s), "*stats."))
	}
}

// The order of grpc-go's statistics, from which Progress tells how far an RPC came: the request's headers when it has a stream; the
// answer's headers; its trailers, only where they came from the server; and the end.
func TestStatsOfGRPC(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name  string
		fault healthtest.Fault
		told  []string
	}{
		{"answered", healthtest.Message("\x08\x01", ""), []string{"OutHeader", "InHeader", "InTrailer", "End"}},
		{"trailers only", healthtest.TrailersOnly(codes.Unavailable, "x"), []string{"OutHeader", "InTrailer", "End"}},
		{"reset", healthtest.ResetStream(http2.ErrCodeInternal), []string{"OutHeader", "End"}},
		{"reset in the middle", healthtest.ResetStreamAfterHeaders(http2.ErrCodeInternal), []string{"OutHeader", "InHeader", "End"}},
		{"closed in the middle", healthtest.CloseAfterHeaders(), []string{"OutHeader", "InHeader", "End"}},
		{"HTTP status", healthtest.HTTPStatus(503), []string{"OutHeader", "End"}},
		{"without trailers", healthtest.WithoutTrailers(), []string{"OutHeader", "InHeader", "End"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			e := new(events)
			cc, err := grpc.NewClient("passthrough:///"+healthtest.StartFrontEnd(t, row.fault).Addr(),
				grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithStatsHandler(e), grpc.WithDisableRetry())
			if err != nil {
				t.Fatal(err)
			}
			defer cc.Close()
			_, _ = healthpb.NewHealthClient(cc).Check(within(t, long), &healthpb.HealthCheckRequest{}) // what it comes to is not the subject
			if !slices.Equal(e.told, row.told) {
				t.Errorf("told %v, want %v", e.told, row.told)
			}
		})
	}
}

func TestList(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	up.SetStatus("b", healthpb.HealthCheckResponse_SERVING)
	up.SetStatus("a", healthpb.HealthCheckResponse_NOT_SERVING)
	c := connected(t, up.Addr())
	list := func() grpcconn.Answer {
		return c.Do(within(t, long), grpcconn.Request{List: true}, nil, new(grpcconn.Progress))
	}
	a := list()
	want := []health.Verdict{
		{Status: health.Serving, Asked: true}, {Service: "a", Status: health.NotServing, Asked: true}, {Service: "b", Status: health.Serving, Asked: true},
	}
	if a.Outcome != grpcconn.Answered || a.Status != health.NotServing || !slices.Equal(a.List, want) {
		t.Errorf("%+v", a)
	}
	// An answer that is larger than a stream's window, and smaller than the limit.
	up.HandleList(func(context.Context) (*healthpb.HealthListResponse, error) {
		return &healthpb.HealthListResponse{Statuses: map[string]*healthpb.HealthCheckResponse{strings.Repeat("x", 450<<10): {}}}, nil
	})
	if a := list(); a.Outcome != grpcconn.Answered || len(a.List) != 1 {
		t.Errorf("a large answer: outcome %d, %d services, %v", a.Outcome, len(a.List), a.Err)
	}
	up.HandleList(func(context.Context) (*healthpb.HealthListResponse, error) {
		return nil, status.Error(codes.PermissionDenied, "no")
	})
	if a := list(); a.Outcome != grpcconn.Answered || a.Code != codes.PermissionDenied || a.List != nil {
		t.Errorf("a List that the server refuses: %+v", a)
	}
	up.HandleList(func(context.Context) (*healthpb.HealthListResponse, error) {
		return &healthpb.HealthListResponse{}, nil
	})
	if a := list(); a.Outcome != grpcconn.Answered || a.List == nil || len(a.List) != 0 {
		t.Errorf("an empty List: %+v", a)
	}
}

// Of a List of more than 100 names those with the worst statuses are kept, so that the worst of them is the worst of all.
func TestLongList(t *testing.T) {
	t.Parallel()
	const good, bad, odd = healthpb.HealthCheckResponse_SERVING, healthpb.HealthCheckResponse_NOT_SERVING, healthpb.HealthCheckResponse_SERVICE_UNKNOWN
	for _, row := range []struct {
		name    string
		n       int
		special map[int]healthpb.HealthCheckResponse_ServingStatus
		worst   health.Status
		leftOut int
		first   string
	}{
		{"100", 100, nil, health.Serving, 0, "s00000"},
		{"101", 101, nil, health.Serving, 1, "s00000"},
		{"the last one is bad", 101, map[int]healthpb.HealthCheckResponse_ServingStatus{100: bad}, health.NotServing, 1, "s00000"},
		{"of each kind", 5000, map[int]healthpb.HealthCheckResponse_ServingStatus{4999: bad, 4998: odd, 4997: 42}, health.NotServing, 4900, "s00000"},
		{"more bad ones than are kept", 1000, map[int]healthpb.HealthCheckResponse_ServingStatus{0: good, 1: odd, 2: good}, health.NotServing, 900, "s00003"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			up := healthtest.Start(t)
			up.HandleList(func(context.Context) (*healthpb.HealthListResponse, error) {
				statuses := make(map[string]*healthpb.HealthCheckResponse)
				for i := range row.n {
					s, special := row.special[i]
					if !special {
						s = good
						if row.first != "s00000" {
							s = bad
						}
					}
					statuses[fmt.Sprintf("s%05d", i)] = &healthpb.HealthCheckResponse{Status: s}
				}
				return &healthpb.HealthListResponse{Statuses: statuses}, nil
			})
			a := connected(t, up.Addr()).Do(within(t, long), grpcconn.Request{List: true}, nil, new(grpcconn.Progress))
			if a.Outcome != grpcconn.Answered || a.Status != row.worst || health.Worst(a.List) != row.worst || len(a.List) != 100 || a.List[0].Service != row.first {
				t.Fatalf("outcome %d, status %v, %d services, the first %q: %v", a.Outcome, a.Status, len(a.List), a.List[0].Service, a.Err)
			}
			if n := a.List[99].LeftOut; n != row.leftOut {
				t.Errorf("%d left out, want %d", n, row.leftOut)
			}
			kept := make(map[string]bool)
			for i, v := range a.List {
				kept[v.Service] = true
				if i > 0 && v.Service < a.List[i-1].Service {
					t.Errorf("%q comes after %q", v.Service, a.List[i-1].Service)
				}
			}
			for i, s := range row.special {
				if name := fmt.Sprintf("s%05d", i); s != good && row.first == "s00000" && !kept[name] {
					t.Errorf("%s, which says %v, was left out", name, s)
				}
			}
		})
	}
	// The longest names of a thousand services fit; 70,000 services do not, and the server is not asked again for that.
	up := healthtest.Start(t)
	var size, length int
	up.HandleList(func(context.Context) (*healthpb.HealthListResponse, error) {
		statuses := make(map[string]*healthpb.HealthCheckResponse, size)
		for i := range size {
			statuses[fmt.Sprintf("%0*d", length, i)] = &healthpb.HealthCheckResponse{Status: good}
		}
		return &healthpb.HealthListResponse{Statuses: statuses}, nil
	})
	c := connected(t, up.Addr())
	size, length = 1000, health.MaxNameLength
	if a := c.Do(within(t, long), grpcconn.Request{List: true}, nil, new(grpcconn.Progress)); a.Status != health.Serving || a.List[99].LeftOut != 900 {
		t.Errorf("a thousand long names: %+v", a)
	}
	size, length = 70_000, 6
	if a := c.Do(within(t, long), grpcconn.Request{List: true}, nil, new(grpcconn.Progress)); a.Outcome != grpcconn.Answered ||
		a.Status != health.RPCFailed || a.Code != codes.ResourceExhausted || !strings.Contains(a.String(), "larger than max") || a.List != nil {
		t.Errorf("70,000 names: outcome %d, status %v, %v", a.Outcome, a.Status, a)
	}
}

// A connection that has ended is known as lost, and an RPC on it was not looked at.
func TestLost(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	for name, end := range map[string]func(*grpcconn.Conn){
		"the server stops": func(*grpcconn.Conn) { up.Stop() },
		"GOAWAY":           func(*grpcconn.Conn) { up.GoAway() },
		"Close":            func(c *grpcconn.Conn) { c.Close() },
	} {
		c := connected(t, up.Addr())
		if a := do(t, c); a.Outcome != grpcconn.Answered || c.Lost() {
			t.Errorf("%s: before: %+v, lost %v", name, a, c.Lost())
		}
		end(c)
		eventually(t, name+": the connection is lost", c.Lost)
		if a := do(t, c); a.Outcome == grpcconn.Answered || name != "Close" && a.Outcome != grpcconn.Unprocessed {
			t.Errorf("%s: an RPC afterwards: %+v", name, a)
		}
		up.Restart()
	}
}

// Close ends the RPCs, and gives the connection back.
func TestClose(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	defer up.Hang("hung")()
	c := connected(t, up.Addr())
	ended := make(chan grpcconn.Answer, 1)
	go func() {
		ended <- c.Do(within(t, time.Minute), grpcconn.Request{Service: "hung"}, nil, new(grpcconn.Progress))
	}()
	eventually(t, "the RPC has arrived", func() bool { return up.InFlight() == 1 })
	c.Close()
	if a := <-ended; a.Outcome == grpcconn.Answered {
		t.Errorf("%+v", a)
	}
	eventually(t, "the connection is closed", func() bool { return up.OpenConnections() == 0 })
}

// Where the server's SETTINGS do not come, New says why, and closes the connection.
func TestNoSettings(t *testing.T) {
	t.Parallel()
	for _, mode := range []healthtest.Mode{healthtest.CloseOnFirstBytes, healthtest.Garbage, healthtest.HTTP1} {
		way := healthtest.Forward(t, "")
		way.SetMode(mode)
		if _, err := connect(t, way.Addr(), grpcconn.Options{}); err == nil || !strings.Contains(err.Error(), "the connection is gone") {
			t.Errorf("mode %d: %v", mode, err)
		}
		eventually(t, "the connection is closed", func() bool { return way.OpenConnections() == 0 })
	}
	for _, address := range []string{
		func() string { w := healthtest.Forward(t, ""); w.SetMode(healthtest.Silent); return w.Addr() }(),
		healthtest.StartFrontEnd(t, healthtest.NoSettings()).Addr(),
	} {
		raw, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		cause := errors.New("the time ran out")
		ctx, cancel := context.WithTimeoutCause(t.Context(), 50*ms, cause)
		defer cancel()
		w := &wire{Conn: raw}
		_, auth, _ := insecure.NewCredentials().ClientHandshake(ctx, "", raw)
		if _, err := grpcconn.New(ctx, grpcconn.Options{}, w, auth); !errors.Is(err, cause) {
			t.Errorf("a silent server: %v", err)
		}
		if !w.isClosed() {
			t.Error("the connection is not closed")
		}
	}
}

// A connection that ends right after SETTINGS is one, and the RPC tells that it is lost.
func TestGoAwayAtOnce(t *testing.T) {
	t.Parallel()
	server := healthtest.StartFrontEnd(t, healthtest.GoAwayAtOnce(http2.ErrCodeEnhanceYourCalm))
	for range 50 {
		c := connected(t, server.Addr())
		if a := do(t, c); a.Outcome != grpcconn.Unprocessed {
			t.Errorf("%+v", a)
		}
		eventually(t, "it is lost", c.Lost)
	}
}

// What the options say goes over the wire.
func TestOptions(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	c, err := connect(t, up.Addr(), grpcconn.Options{Authority: "authority.test", UserAgent: "tester/1", Gzip: true})
	if err != nil {
		t.Fatal(err)
	}
	if a := c.Do(within(t, long), grpcconn.Request{}, metadata.Pairs("key", "value"), new(grpcconn.Progress)); a.Outcome != grpcconn.Answered {
		t.Fatalf("%+v", a)
	}
	seen := up.Last()
	if seen.Authority != "authority.test" || !strings.HasPrefix(seen.UserAgent, "tester/1") || seen.Compression != "gzip" || !slices.Equal(seen.Metadata.Get("key"), []string{"value"}) {
		t.Errorf("the server saw %+v", seen)
	}
	if seen.Timeout <= 0 || seen.Timeout > long {
		t.Errorf("the server has a deadline in %v", seen.Timeout)
	}
}

// connecting counts how often grpc-go connects, by its log: nothing else tells.
type connecting struct {
	grpclog.LoggerV2
	count atomic.Int64
}

func (c *connecting) Infoln(args ...any) {
	if strings.Contains(fmt.Sprint(args...), "Subchannel Connectivity change to CONNECTING") {
		c.count.Add(1)
	}
}

var logged = connecting{LoggerV2: grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard)}

func TestMain(m *testing.M) {
	grpclog.SetLoggerV2(&logged) // before any use of grpc-go
	os.Exit(m.Run())
}

// A server that resets before its SETTINGS costs one try: without a backoff grpc-go would try again, over and over, until it is
// heard that the first has failed. Not parallel, since other tests connect too.
func TestResetBeforeSettings(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = conn.Read(make([]byte, 1)) // the client has connected
				_ = conn.(*net.TCPConn).SetLinger(0)
				conn.Close()
			}()
		}
	}()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // where nothing else runs meanwhile
	const tries = 30
	before := logged.count.Load()
	for range tries {
		if _, err := connect(t, listener.Addr().String(), grpcconn.Options{}); err == nil {
			t.Fatal("there is a connection")
		}
	}
	if n := logged.count.Load() - before; n != tries {
		t.Errorf("grpc-go connected %d times for %d connections", n, tries)
	}
}
