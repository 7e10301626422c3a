package healthtest

import (
	"context"
	"maps"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	// Lets the upstream accept compressed requests. It also registers the compressor for clients in the same process.
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

// Call is an RPC as the server received it.
type Call struct {
	Service   string
	Metadata  metadata.MD
	Authority string
	UserAgent string
	// Timeout is the remaining time of the client's deadline when the RPC arrived; 0 if there was no deadline.
	Timeout time.Duration
	// Compression is the client's grpc-encoding, empty for none.
	Compression string
}

// health is the state of an Upstream's health service: the answers to give, and the RPCs so far. Upstream embeds it.
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

// service is how to answer the RPCs for one name, and how many there were.
type service struct {
	handler                     Handler       // nil: health.unknown answers
	delay                       time.Duration // before the answer
	gate                        chan struct{} // RPCs wait until it is closed; nil: they do not wait
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

// SetStatus makes a service answer with a status, and List include the service. Like SetError and Handle it replaces what was
// set before. It applies to every answer from now on, also to RPCs that are in flight because of SetDelay or Hang.
func (h *health) SetStatus(name string, s healthpb.HealthCheckResponse_ServingStatus) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.statuses[name] = s
	h.serviceLocked(name).handler = func(context.Context, string) (*healthpb.HealthCheckResponse, error) {
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
	h.serviceLocked(name).handler = handler
}

// HandleUnknown makes every service that has no answer of its own answer with what handler returns.
func (h *health) HandleUnknown(handler Handler) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.unknown = handler
}

// HandleList makes List answer with what handler returns, instead of the statuses of SetStatus.
func (h *health) HandleList(handler ListHandler) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.list = handler
}

// SetDelay delays the answers to RPCs for a service that arrive from now on.
func (h *health) SetDelay(name string, d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.serviceLocked(name).delay = d
}

// Hang leaves RPCs for a service that arrive from now on without an answer, until release is called or the client gives up.
// After release, later RPCs are answered at once.
func (h *health) Hang(name string) (release func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	gate := make(chan struct{})
	h.serviceLocked(name).gate = gate
	return sync.OnceFunc(func() { close(gate) })
}

// RPCs returns how many Check RPCs have arrived.
func (h *health) RPCs() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.total
}

// RPCsFor returns how many Check RPCs have arrived for a service.
func (h *health) RPCsFor(name string) int { return h.counters(name).rpcs }

// Lists returns how many List RPCs have arrived.
func (h *health) Lists() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.lists
}

// InFlight returns how many Check RPCs are in flight.
func (h *health) InFlight() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.inFlight
}

// InFlightFor returns how many Check RPCs for a service are in flight.
func (h *health) InFlightFor(name string) int { return h.counters(name).inFlight }

// MaxInFlightFor returns the largest number of RPCs for a service that were in flight at the same time.
func (h *health) MaxInFlightFor(name string) int { return h.counters(name).maxInFlight }

// Last returns the Check RPC that arrived last, or the zero Call.
func (h *health) Last() Call {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.last
}

// rpcs implements grpc-go's interfaces for health: the health service, without Watch, and a stats handler.
type rpcs struct {
	healthpb.UnimplementedHealthServer
	*health
}

// Check implements the RPC.
func (h rpcs) Check(ctx context.Context, request *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	name := request.GetService()
	delay, gate := h.begin(ctx, name)
	defer h.end(name)
	if err := wait(ctx, delay, gate); err != nil {
		return nil, err
	}
	return h.handlerFor(name)(ctx, name)
}

// List implements the RPC.
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

// serviceLocked returns the entry for a name. The caller holds mu.
func (h *health) serviceLocked(name string) *service {
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
	return *h.serviceLocked(name)
}

func (h *health) handlerFor(name string) Handler {
	h.mu.Lock()
	defer h.mu.Unlock()
	if handler := h.serviceLocked(name).handler; handler != nil {
		return handler
	}
	return h.unknown
}

func (h *health) begin(ctx context.Context, name string) (delay time.Duration, gate chan struct{}) {
	call := callOf(ctx, name)
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.serviceLocked(name)
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
	h.serviceLocked(name).inFlight--
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

// compressionKey is the context key of an RPC's compression, which grpc-go reports to stats handlers only.
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
