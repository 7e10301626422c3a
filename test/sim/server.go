//go:build !race

package sim

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/test/simnet"
)

// drainWithin is how long a server that restarts lets its RPCs end.
const drainWithin = 300 * time.Millisecond

// server is one process of the server.
type server struct {
	grpc     *grpc.Server
	listener net.Listener
}

// up starts the server, or a new one that takes the addresses over.
func (w *world) up() {
	var options []grpc.ServerOption
	if w.streams > 0 {
		options = append(options, grpc.MaxConcurrentStreams(w.streams))
	}
	if w.tls {
		options = append(options, grpc.Creds(credentials.NewTLS(w.serverTLS())))
	}
	s := &server{grpc.NewServer(options...), w.net.Listen(w.alive()...)}
	healthpb.RegisterHealthServer(s.grpc, &service{world: w})
	w.serving.Go(func() { s.grpc.Serve(s.listener) })
	w.mu.Lock()
	defer w.mu.Unlock()
	w.server = s
	w.servers = append(w.servers, s)
	w.updateLocked()
}

// down takes the server down. With drain it lets RPCs end first, else it dies at once. release must follow; another one
// starts once all that took it down have done so.
func (w *world) down(drain bool) (release func()) {
	w.mu.Lock()
	s := w.server
	w.server = nil
	w.downs++
	w.updateLocked()
	w.mu.Unlock()
	switch {
	case s == nil:
	case drain:
		w.hitServer(s, pointsOfDrain)
		w.serving.Go(func() {
			stopped := make(chan struct{})
			go func() {
				s.grpc.GracefulStop()
				close(stopped)
			}()
			select {
			case <-stopped:
			case <-time.After(drainWithin):
				w.kill(s)
				<-stopped
			}
		})
	default:
		w.kill(s)
	}
	return func() {
		w.mu.Lock()
		w.downs--
		last := w.downs == 0
		w.mu.Unlock()
		if last {
			w.up()
		}
	}
}

// kill ends a server as the end of its process does: its connections are closed.
func (w *world) kill(s *server) {
	w.hitServer(s, pointsOfLoss)
	s.listener.Close()
	for _, c := range w.net.Open() {
		if c.ReachedBy(s.listener) {
			c.Server().Close()
		}
	}
	w.serving.Go(s.grpc.Stop)
}

// roll replaces the server by another one, which takes new connections from the start.
func (w *world) roll() {
	w.mu.Lock()
	old := w.server
	w.mu.Unlock()
	if old == nil {
		return
	}
	w.hitServer(old, pointsOfDrain)
	w.up()
	old.listener.Close()
	w.mu.Lock()
	for _, c := range w.net.Open() {
		if c.Rejected() {
			w.hitLocked(c, pointsOfProof)
		}
	}
	w.mu.Unlock()
	w.serving.Go(old.grpc.GracefulStop)
}

// hitServer notes a fault of all connections to a server.
func (w *world) hitServer(s *server, points int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.net.Open() {
		if c.ReachedBy(s.listener) {
			w.hitLocked(c, points)
		}
	}
}

// hitLocked notes a fault of a connection. One that is not in use yet is being dialled: a loss is a failure of the dial.
func (w *world) hitLocked(c *simnet.Conn, points int) {
	known := w.connectionLocked(c)
	if points == pointsOfLoss && len(known.requests) == 0 {
		points = pointsOfUnused
	}
	known.hits = append(known.hits, hit{time.Now(), points})
}

// service is the health service.
type service struct {
	healthpb.UnimplementedHealthServer
	world *world
}

// Check implements the RPC.
func (s *service) Check(ctx context.Context, r *healthpb.HealthCheckRequest) (response *healthpb.HealthCheckResponse, err error) {
	key := r.GetService()
	err = s.handle(ctx, key, func() string {
		st, known := s.world.statuses[key]
		if !known {
			st = health.ServiceUnknown
		}
		response, err = inProtocol(st)
		if !known {
			err = status.Error(codes.NotFound, "no such service")
		}
		return st.String()
	}, &err)
	return response, err
}

// inProtocol is how the server says a status.
func inProtocol(s health.Status) (*healthpb.HealthCheckResponse, error) {
	switch s {
	case health.Serving:
		return &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVING}, nil
	case health.NotServing:
		return &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_NOT_SERVING}, nil
	case health.ServiceUnknown:
		return &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVICE_UNKNOWN}, nil
	}
	return nil, status.Error(codes.Unavailable, "the service says so")
}

// List implements the RPC.
func (s *service) List(ctx context.Context, _ *healthpb.HealthListRequest) (response *healthpb.HealthListResponse, err error) {
	response = &healthpb.HealthListResponse{Statuses: make(map[string]*healthpb.HealthCheckResponse)}
	err = s.handle(ctx, listKey, func() string {
		var said []string
		for _, name := range slices.Sorted(maps.Keys(s.world.statuses)) {
			if one, failed := inProtocol(s.world.statuses[name]); failed == nil {
				response.Statuses[name] = one
				said = append(said, entry(name, s.world.statuses[name]))
			}
		}
		return strings.Join(said, " ")
	}, &err)
	return response, err
}

// entry is how a part of a List is compared.
func entry(name string, s health.Status) string { return fmt.Sprintf("%q=%v", name, s) }

// handle handles an RPC. say, which holds the world's mutex, decides on the answer, and sets failure where that is an error.
func (s *service) handle(ctx context.Context, key string, say func() string, failure *error) error {
	w := s.world
	p, _ := peer.FromContext(ctx)
	w.mu.Lock()
	one := &handled{key: key, order: w.arrivalLocked(), came: time.Now(), conn: w.connectionLocked(p.Addr.(simnet.Addr).Conn)}
	slow, hang, hurry := w.slow[key], w.hangs[key], w.hurry
	w.inFlight[key]++
	w.servedLocked(key)
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.inFlight[key]--
	}()
	if hang != nil {
		select {
		case <-hang:
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		}
	}
	if slow > 0 {
		timer := time.NewTimer(slow)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-hurry:
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	one.gone, one.said = time.Now(), say()
	w.handled[key] = append(w.handled[key], one)
	w.noteLocked("server answered", one)
	return *failure
}
