package grpcconn

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"

	"example.com/grpc-health-http/internal/health"
)

// Request is what one RPC asks: Check of a service, or List.
type Request struct {
	// Service is the name to check; empty is the whole server.
	Service string
	// List makes the RPC a List instead.
	List bool
}

// Outcome is what the end of an RPC means.
type Outcome int

const (
	// Lost: the connection broke, or the peer reset the stream, before the answer was whole.
	Lost Outcome = iota
	// Unprocessed: the connection broke, or the peer refused the stream, and the server had not looked at the request.
	Unprocessed
	// Unreadable: this side has ended the connection, because headers came that are larger than it takes, perhaps those of another
	// RPC's answer.
	Unreadable
	// TimedOut: the RPC's deadline passed without an answer.
	TimedOut
	// Unsendable: nothing is wrong with the connection, and yet the request does not go over it, nor would it over another:
	// its metadata is illegal, or larger than the server takes; or the caller has ended it.
	Unsendable
	// Answered: the server, or an HTTP front end of it, has spoken.
	Answered
)

// Answer is the end of one RPC.
type Answer struct {
	Outcome Outcome
	// Status is the finding, where Outcome is Answered or Unsendable.
	Status health.Status
	// Code is the RPC's status code.
	Code codes.Code
	// Err is the RPC's error; nil for status OK.
	Err error
	// List has a verdict for each service, sorted by name, of a List that was answered with OK. Of more than health.MaxServices it has
	// those with the worst statuses; the last one's LeftOut counts the rest.
	List []health.Verdict
}

// String is how evidence shows the answer.
func (a Answer) String() string {
	if a.Err != nil {
		return a.Err.Error()
	}
	return a.Status.String()
}

// Do makes one RPC. The context must have a deadline, the RPC's. p shows meanwhile how far it has come. An error
// can quote what was sent as metadata, as servers do with a token that they refuse.
func (c *Conn) Do(ctx context.Context, r Request, md metadata.MD, p *Progress) Answer {
	ctx = context.WithValue(ctx, progressKey{}, p)
	if md != nil {
		ctx = metadata.NewOutgoingContext(ctx, md)
	}
	a, err := c.do(ctx, r)
	if err != nil {
		a = c.failed(ctx, err, p)
	}
	if a.Code == codes.DeadlineExceeded || a.Code == codes.Canceled {
		// Past the deadline it is ours, and no answer, whoever reports it: grpc-go or the server.
		if deadline, ok := ctx.Deadline(); ok && !time.Now().Before(deadline) {
			a.Outcome = TimedOut
		}
	}
	return a
}

func (c *Conn) do(ctx context.Context, r Request) (Answer, error) {
	if r.List {
		response, err := c.health.List(ctx, &healthpb.HealthListRequest{})
		if err != nil {
			return Answer{}, err
		}
		statuses := response.GetStatuses()
		a := Answer{Outcome: Answered, List: list(statuses)}
		a.Status = health.Worst(a.List)
		return a, nil
	}
	response, err := c.health.Check(ctx, &healthpb.HealthCheckRequest{Service: r.Service})
	if err != nil {
		return Answer{}, err
	}
	return Answer{Outcome: Answered, Status: fromProtocol(response.GetStatus())}, nil
}

// list is the verdicts of a List's answer.
func list(statuses map[string]*healthpb.HealthCheckResponse) []health.Verdict {
	names := slices.Sorted(maps.Keys(statuses))
	leftOut := max(0, len(names)-health.MaxServices)
	if leftOut > 0 {
		ranks := health.Statuses() // the worst first, so that the worst of those that are kept is the worst of all
		rank := func(name string) int { return slices.Index(ranks, fromProtocol(statuses[name].GetStatus())) }
		slices.SortStableFunc(names, func(a, b string) int { return cmp.Compare(rank(a), rank(b)) })
		names = slices.Sorted(slices.Values(names[:health.MaxServices]))
	}
	verdicts := make([]health.Verdict, len(names))
	for i, name := range names {
		verdicts[i] = health.Verdict{Service: strings.Clone(name), Status: fromProtocol(statuses[name].GetStatus()), Asked: true}
	}
	if leftOut > 0 {
		verdicts[len(verdicts)-1].LeftOut = leftOut
	}
	return verdicts
}

// fromProtocol turns a response's status into ours; a value that the protocol does not know is Unknown.
func fromProtocol(s healthpb.HealthCheckResponse_ServingStatus) health.Status {
	switch s {
	case healthpb.HealthCheckResponse_SERVING:
		return health.Serving
	case healthpb.HealthCheckResponse_NOT_SERVING:
		return health.NotServing
	case healthpb.HealthCheckResponse_SERVICE_UNKNOWN:
		return health.ServiceUnknown
	}
	return health.Unknown
}

// Progress shows how far an RPC has come. The zero value is of one that has not begun. grpc-go sends a request a second
// time where a GOAWAY says that the server has not looked at the first, and parts of an answer to the first can still
// come: what counts is the latest sending.
type Progress struct{ latest atomic.Pointer[sending] }

// sending is one time that a request was sent: whether it got a stream, and which parts of an answer came.
type sending struct{ sent, header, trailer atomic.Bool }

// Sent says that the request is on its way to the server. One that is not waits for other RPCs on the connection, of which
// the server allows only so many at once.
func (p *Progress) Sent() bool {
	s := p.latest.Load()
	return s != nil && s.sent.Load()
}

type (
	progressKey struct{}
	sendingKey  struct{}
)

// progressRecorder is a stats.Handler that writes into each RPC's Progress.
type progressRecorder struct{}

func (progressRecorder) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context {
	s := new(sending)
	ctx.Value(progressKey{}).(*Progress).latest.Store(s)
	return context.WithValue(ctx, sendingKey{}, s)
}

func (progressRecorder) HandleRPC(ctx context.Context, event stats.RPCStats) {
	s := ctx.Value(sendingKey{}).(*sending)
	switch event.(type) {
	case *stats.OutHeader:
		s.sent.Store(true)
	case *stats.InHeader:
		s.header.Store(true)
	case *stats.InTrailer:
		s.trailer.Store(true)
	}
}

func (progressRecorder) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context {
	return ctx
}
func (progressRecorder) HandleConn(context.Context, stats.ConnStats) {}
