package check

import (
	"context"
	"errors"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/encoding/gzip"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
)

const (
	// maxAnswer bounds an answer's bytes: health messages are tiny, and List holds 100 names at most.
	maxAnswer = 1 << 20
	// bufferSize is what a connection's read and write buffers hold; grpc-go's 32 KiB are for traffic.
	bufferSize = 4 << 10
	// windowSize is what a server may send of an answer before it is read: the protocol's default, more or less.
	windowSize = 64 << 10
)

// conn is one connection to the upstream: a grpc.ClientConn that is handed an established network
// connection, makes HTTP/2 of it, and never connects a second time. So a broken connection is known as
// one, no back-off is inherited, and a dial has no time-outs but ours.
type conn struct {
	cc     *grpc.ClientConn
	health healthpb.HealthClient
	began  moment // when its dial began
	gone   atomic.Bool

	mu      sync.Mutex
	users   int  // RPCs under way
	retired bool // close once users is 0
}

// errSpent is what grpc-go gets when it would connect again.
var errSpent = errors.New("the connection is gone")

// newConn makes HTTP/2 of an established connection and waits for the server's SETTINGS. It closes raw on failure.
func newConn(ctx context.Context, o *Options, authority string, raw *watchedConn, auth credentials.AuthInfo) (*conn, error) {
	var handed atomic.Bool
	opts := []grpc.DialOption{
		grpc.WithTransportCredentials(established{auth}),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
			if handed.Swap(true) {
				return nil, errSpent
			}
			return raw, nil
		}),
		grpc.WithAuthority(authority),
		grpc.WithDisableServiceConfig(),
		grpc.WithDisableRetry(),
		grpc.WithDisableHealthCheck(),
		grpc.WithIdleTimeout(0),
		grpc.WithNoProxy(),
		// The time-out is ours alone: grpc-go's own must not come first.
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: o.ConnectTimeout + time.Hour}),
		grpc.WithReadBufferSize(bufferSize),
		grpc.WithWriteBufferSize(bufferSize),
		// A window of a fixed size: to find a better one grpc-go would send a PING with every answer.
		grpc.WithInitialWindowSize(windowSize),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)),
		grpc.WithStatsHandler(replyWatcher{}),
	}
	if o.UserAgent != "" {
		opts = append(opts, grpc.WithUserAgent(o.UserAgent))
	}
	if o.Gzip {
		opts = append(opts, grpc.WithDefaultCallOptions(grpc.UseCompressor(gzip.Name)))
	}
	cc, err := grpc.NewClient("passthrough:///upstream", opts...)
	if err != nil {
		raw.Close()
		return nil, err
	}
	cc.Connect()
	for state := cc.GetState(); state != connectivity.Ready; state = cc.GetState() {
		if raw.stood() && state != connectivity.Connecting {
			break // it was READY for a moment, and has ended already, with GOAWAY perhaps: the RPC will tell
		}
		if state == connectivity.TransientFailure || state == connectivity.Shutdown {
			err = errSpent
			break
		}
		if !cc.WaitForStateChange(ctx, state) {
			err = context.Cause(ctx)
			break
		}
	}
	if err != nil {
		cc.Close()
		raw.Close() // where grpc-go had not asked for it yet
		return nil, err
	}
	c := &conn{cc: cc, health: healthpb.NewHealthClient(cc)}
	go func() {
		// Whatever comes after READY is the end: GOAWAY, a lost connection, our own Close.
		cc.WaitForStateChange(context.Background(), connectivity.Ready)
		c.gone.Store(true)
	}()
	return c, nil
}

// use counts an RPC in; done must follow.
func (c *conn) use() {
	c.mu.Lock()
	c.users++
	c.mu.Unlock()
}

func (c *conn) done() {
	c.mu.Lock()
	c.users--
	last := c.retired && c.users == 0
	c.mu.Unlock()
	if last {
		c.cc.Close()
	}
}

// retire closes the connection once its last RPC has ended.
func (c *conn) retire() {
	c.mu.Lock()
	first := !c.retired
	c.retired = true
	last := first && c.users == 0
	c.mu.Unlock()
	if last {
		c.cc.Close()
	}
}

// established hands grpc-go a connection whose handshake is already done.
type established struct{ auth credentials.AuthInfo }

func (e established) ClientHandshake(_ context.Context, _ string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return raw, e.auth, nil
}

func (e established) ServerHandshake(net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("not a server's credentials")
}

func (e established) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: e.auth.AuthType()}
}

func (e established) Clone() credentials.TransportCredentials { return e }

func (e established) OverrideServerName(string) error { return nil }

// reply is how far a request came: it was given a stream, and the parts of an answer came.
type reply struct{ sent, header, trailer atomic.Bool }

// progress is the reply to an RPC's request, nil before there is one. grpc-go makes the request a second
// time where a GOAWAY says that the server has not looked at the first, and parts of an answer to
// that one can still come.
type progress struct{ atomic.Pointer[reply] }

// sent says that the request is on its way to the server.
func (p *progress) sent() bool {
	r := p.Load()
	return r != nil && r.sent.Load()
}

type (
	progressKey struct{}
	replyKey    struct{}
)

// replyWatcher notes how far each request came: a status that came with trailers is the server's own
// word, one without them is made up by the transport; and a request that was not sent waits for others on
// its connection, of which the server allows so many at once and no more.
type replyWatcher struct{}

func (replyWatcher) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context {
	r := new(reply)
	ctx.Value(progressKey{}).(*progress).Store(r)
	return context.WithValue(ctx, replyKey{}, r)
}

func (replyWatcher) HandleRPC(ctx context.Context, s stats.RPCStats) {
	r := ctx.Value(replyKey{}).(*reply)
	switch s.(type) {
	case *stats.OutHeader:
		r.sent.Store(true)
	case *stats.InHeader:
		r.header.Store(true)
	case *stats.InTrailer:
		r.trailer.Store(true)
	}
}

func (replyWatcher) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (replyWatcher) HandleConn(context.Context, stats.ConnStats)                       {}

// answer is what one RPC came to.
type answer struct {
	// final says that the server (or a front end of it) has spoken; otherwise the RPC was lost.
	final bool
	// unread says of a lost RPC that the server had not looked at it.
	unread bool
	status Status
	code   codes.Code
	err    error
	list   []Verdict // of a List that was answered
}

// ask makes one RPC: Check of the service, or List. p tells meanwhile how far it has come. Where an error
// quotes what was sent as metadata, as servers do with a token they refuse, it does so no more.
func (c *conn) ask(ctx context.Context, md metadata.MD, what question, p *progress) answer {
	a := c.rpc(ctx, md, what, p)
	if a.err != nil {
		a.err = redacted(a.err, md)
	}
	return a
}

// redacted is the error without the values, and without their last words: "Bearer TOKEN" is quoted as TOKEN, too.
func redacted(err error, md metadata.MD) error {
	text := err.Error()
	for _, values := range md {
		for _, value := range values {
			for _, secret := range []string{value, value[strings.LastIndex(value, " ")+1:]} {
				if secret != "" {
					text = strings.ReplaceAll(text, secret, "(redacted)")
				}
			}
		}
	}
	if text == err.Error() {
		return err
	}
	return errors.New(text)
}

func (c *conn) rpc(ctx context.Context, md metadata.MD, what question, p *progress) answer {
	ctx = context.WithValue(ctx, progressKey{}, p)
	if md != nil {
		ctx = metadata.NewOutgoingContext(ctx, md)
	}
	if what.list {
		response, err := c.health.List(ctx, &healthpb.HealthListRequest{})
		if err != nil {
			return c.refused(err, p)
		}
		return listed(response)
	}
	response, err := c.health.Check(ctx, &healthpb.HealthCheckRequest{Service: what.service})
	if err != nil {
		return c.refused(err, p)
	}
	return answer{final: true, status: fromProtocol(response.GetStatus())}
}

// text is how evidence shows the answer.
func (a answer) text() string {
	if a.err != nil {
		return a.err.Error()
	}
	return a.status.String()
}

// listed turns a List's answer into verdicts, sorted by name.
func listed(response *healthpb.HealthListResponse) answer {
	statuses := response.GetStatuses()
	a := answer{final: true, status: Serving, list: make([]Verdict, 0, len(statuses))}
	for _, name := range slices.Sorted(maps.Keys(statuses)) {
		a.list = append(a.list, Verdict{Service: name, Status: fromProtocol(statuses[name].GetStatus()), Asked: true})
	}
	a.status = Worst(a.list)
	return a
}

// refused judges an RPC's error.
func (c *conn) refused(err error, p *progress) answer {
	a := answer{status: RPCFailed, code: status.Code(err), err: err, unread: unread(err)}
	r := p.Load()
	switch {
	case r == nil || drained(err): // its context had ended before, or a GOAWAY had excluded it
	case r.trailer.Load():
		a.final = true
		switch a.code {
		case codes.NotFound:
			a.status = ServiceUnknown
		case codes.Unimplemented:
			a.status = Unimplemented
		}
	case frontEnd(err):
		a.final = true
	case reset(err): // the answer had begun, and was cut off
	case r.header.Load() && !c.gone.Load() && (a.code == codes.ResourceExhausted || a.code == codes.Internal || a.code == codes.Unimplemented):
		// The server answered, and the answer is unusable: too large, not the protocol's message, or
		// compressed in an unknown way. Nothing was lost on the way.
		a.final = true
	}
	return a
}

// frontEnd tells an HTTP answer that is no gRPC answer. grpc-go gives it no type and no stats event
// (internal/transport/http2_client.go, operateHeaders), only this text; a test holds the text to it.
func frontEnd(err error) bool {
	message := status.Convert(err).Message()
	return strings.HasPrefix(message, "unexpected HTTP status code received from server") ||
		strings.HasPrefix(message, "malformed header: missing HTTP status")
}

// reset tells an RPC whose stream the peer has reset, as a proxy does that loses its server in the middle of an
// answer. grpc-go gives it no type (internal/transport/http2_client.go, handleRSTStream), only this text; a test
// holds the text to it.
func reset(err error) bool {
	return strings.HasPrefix(status.Convert(err).Message(), "stream terminated by RST_STREAM")
}

// drained tells an RPC that a GOAWAY has ended, as not looked at. Its answer's trailers can still come
// then, and change nothing about that. grpc-go gives it no type (internal/transport/transport.go,
// errStreamDrain and statusGoAway), only these texts; a test holds the texts to it.
func drained(err error) bool {
	message := status.Convert(err).Message()
	return message == "the connection is draining" ||
		message == "the stream is rejected because server is draining the connection"
}

// unread tells a lost RPC that the server has not looked at: a GOAWAY has said so, or the connection was gone
// before the request was sent. grpc-go would make such a request once more, on a connection that it does not get.
func unread(err error) bool {
	return drained(err) || strings.Contains(status.Convert(err).Message(), errSpent.Error())
}

// fromProtocol turns an answer's status into ours; a value that the protocol does not know is Unknown.
func fromProtocol(s healthpb.HealthCheckResponse_ServingStatus) Status {
	switch s {
	case healthpb.HealthCheckResponse_SERVING:
		return Serving
	case healthpb.HealthCheckResponse_NOT_SERVING:
		return NotServing
	case healthpb.HealthCheckResponse_SERVICE_UNKNOWN:
		return ServiceUnknown
	}
	return Unknown
}
