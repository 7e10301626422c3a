package healthtest

import (
	"context"
	"maps"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	// The upstream understands compressed requests. Note that this registers the compressor for
	// clients in the same process too.
	_ "google.golang.org/grpc/encoding/gzip"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
)

// Handler answers a Check of a service. It must return when ctx ends.
type Handler func(ctx context.Context, service string) (*healthpb.HealthCheckResponse, error)

// ListHandler answers a List. It must return when ctx ends.
type ListHandler func(ctx context.Context) (*healthpb.HealthListResponse, error)

// Call is what the server saw of an RPC.
type Call struct {
	Service   string
	Metadata  metadata.MD
	Authority string
	UserAgent string
	// Timeout is what the client's grpc-timeout left when the RPC arrived; 0 where it sent none.
	Timeout time.Duration
	// Compression is the client's grpc-encoding, empty for none.
	Compression string
}

// health is what an Upstream's health service does and has seen; its methods are the Upstream's.
type health struct {
	mu       sync.Mutex
	services map[string]*service
	statuses map[string]healthpb.HealthCheckResponse_ServingStatus
	unknown  Handler
	list     ListHandler
	lists    int
	total    int
	inFlight int
	last     Call
}

// service is how the server deals with the RPCs for one name.
type service struct {
	handler                     Handler       // nil leaves it to health.unknown
	delay                       time.Duration // before the answer
	gate                        chan struct{} // where RPCs wait; nil lets them pass
	rpcs, inFlight, maxInFlight int
}

func newHealth() *health {
	h := &health{
		services: make(map[string]*service),
		statuses: make(map[string]healthpb.HealthCheckResponse_ServingStatus),
		unknown: func(context.Context, string) (*healthpb.HealthCheckResponse, error) {
			return nil, status.Error(codes.NotFound, "unknown service")
		},
	}
	h.SetStatus("", healthpb.HealthCheckResponse_SERVING)
	return h
}

// SetStatus makes a service answer with a status; this also puts it in the answer of List. Like
// SetError and Handle it replaces what was set before, and holds for every answer from now on, also
// to RPCs that are waiting in a delay or a hang.
func (h *health) SetStatus(name string, s healthpb.HealthCheckResponse_ServingStatus) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.statuses[name] = s
	h.service(name).handler = func(context.Context, string) (*healthpb.HealthCheckResponse, error) {
		return &healthpb.HealthCheckResponse{Status: s}, nil
	}
}

// SetError makes a service answer with an RPC status other than OK.
func (h *health) SetError(name string, code codes.Code) {
	h.Handle(name, func(context.Context, string) (*healthpb.HealthCheckResponse, error) {
		return nil, status.Error(code, "set by the test")
	})
}

// Handle makes a service answer with what handler returns.
func (h *health) Handle(name string, handler Handler) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.statuses, name)
	h.service(name).handler = handler
}

// HandleUnknown makes every service for which nothing was set answer with what handler returns.
func (h *health) HandleUnknown(handler Handler) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.unknown = handler
}

// HandleList makes List answer with what handler returns, instead of the statuses set.
func (h *health) HandleList(handler ListHandler) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.list = handler
}

// SetDelay makes RPCs for a service that arrive from now on wait before they are answered.
func (h *health) SetDelay(name string, d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.service(name).delay = d
}

// Hang makes RPCs for a service that arrive from now on wait until release is called or the client
// gives up; release also lets later RPCs pass.
func (h *health) Hang(name string) (release func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	gate := make(chan struct{})
	h.service(name).gate = gate
	return sync.OnceFunc(func() { close(gate) })
}

// RPCs counts the Check RPCs that have arrived.
func (h *health) RPCs() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.total
}

// RPCsFor counts the Check RPCs that have arrived for a service.
func (h *health) RPCsFor(name string) int { return h.counters(name).rpcs }

// Lists counts the List RPCs that have arrived.
func (h *health) Lists() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.lists
}

// InFlight counts the Check RPCs that have not ended yet.
func (h *health) InFlight() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.inFlight
}

// InFlightFor counts the Check RPCs for a service that have not ended yet.
func (h *health) InFlightFor(name string) int { return h.counters(name).inFlight }

// MaxInFlightFor is the largest number of RPCs for a service that were in flight at the same time.
func (h *health) MaxInFlightFor(name string) int { return h.counters(name).maxInFlight }

// Last is the Check RPC that arrived last; the zero Call where none has.
func (h *health) Last() Call {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.last
}

// rpcs is the side of health that faces grpc-go. Watch is unimplemented.
type rpcs struct {
	healthpb.UnimplementedHealthServer
	*health
}

// Check is the RPC.
func (h rpcs) Check(ctx context.Context, request *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	name := request.GetService()
	delay, gate := h.begin(ctx, name)
	defer h.end(name)
	if err := wait(ctx, delay, gate); err != nil {
		return nil, err
	}
	return h.handlerFor(name)(ctx, name)
}

// List is the RPC.
func (h rpcs) List(ctx context.Context, _ *healthpb.HealthListRequest) (*healthpb.HealthListResponse, error) {
	h.mu.Lock()
	h.lists++
	handler, statuses := h.list, maps.Clone(h.statuses)
	h.mu.Unlock()
	if handler != nil {
		return handler(ctx)
	}
	response := &healthpb.HealthListResponse{Statuses: make(map[string]*healthpb.HealthCheckResponse)}
	for name, s := range statuses {
		response.Statuses[name] = &healthpb.HealthCheckResponse{Status: s}
	}
	return response, nil
}

// service returns the entry for a name. The caller holds mu.
func (h *health) service(name string) *service {
	s := h.services[name]
	if s == nil {
		s = &service{}
		h.services[name] = s
	}
	return s
}

func (h *health) counters(name string) service {
	h.mu.Lock()
	defer h.mu.Unlock()
	return *h.service(name)
}

func (h *health) handlerFor(name string) Handler {
	h.mu.Lock()
	defer h.mu.Unlock()
	if handler := h.service(name).handler; handler != nil {
		return handler
	}
	return h.unknown
}

func (h *health) begin(ctx context.Context, name string) (delay time.Duration, gate chan struct{}) {
	call := callOf(ctx, name)
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.service(name)
	h.total++
	h.inFlight++
	s.rpcs++
	s.inFlight++
	s.maxInFlight = max(s.maxInFlight, s.inFlight)
	h.last = call
	return s.delay, s.gate
}

func (h *health) end(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.inFlight--
	h.service(name).inFlight--
}

func wait(ctx context.Context, delay time.Duration, gate chan struct{}) error {
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		}
	}
	if delay > 0 {
		timer := time.NewTimer(delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		}
	}
	return nil
}

func callOf(ctx context.Context, name string) Call {
	call := Call{Service: name}
	call.Metadata, _ = metadata.FromIncomingContext(ctx)
	call.Authority = first(call.Metadata.Get(":authority"))
	call.UserAgent = first(call.Metadata.Get("user-agent"))
	if deadline, ok := ctx.Deadline(); ok {
		call.Timeout = time.Until(deadline)
	}
	if compression, ok := ctx.Value(compressionKey{}).(*string); ok {
		call.Compression = *compression
	}
	return call
}

func first(values []string) string {
	if len(values) == 0 {
		return ""
	}
	return values[0]
}

// compressionKey is the context key of what the stats handler learns about an RPC's compression,
// which grpc-go tells nobody else.
type compressionKey struct{}

// TagRPC implements stats.Handler.
func (h rpcs) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context {
	return context.WithValue(ctx, compressionKey{}, new(string))
}

// HandleRPC implements stats.Handler.
func (h rpcs) HandleRPC(ctx context.Context, s stats.RPCStats) {
	if header, ok := s.(*stats.InHeader); ok {
		*ctx.Value(compressionKey{}).(*string) = header.Compression
	}
}

// TagConn implements stats.Handler.
func (h rpcs) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn implements stats.Handler.
func (h rpcs) HandleConn(context.Context, stats.ConnStats) {}
