package main

import (
	"context"
	"math/rand/v2"
	"sync/atomic"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// echoService is the service that this server has.
const echoService = "echo.EchoServer"

// healthService answers Check and List; Watch is unimplemented.
type healthService struct {
	healthpb.UnimplementedHealthServer

	unhealthy int // percent
	down      atomic.Bool
}

func newHealthService(unhealthy int) *healthService { return &healthService{unhealthy: unhealthy} }

// toggle toggles echo.EchoServer between SERVING and NOT_SERVING, and returns the new status. Only one goroutine may call it.
func (h *healthService) toggle() healthpb.HealthCheckResponse_ServingStatus {
	down := !h.down.Load()
	h.down.Store(down)
	if down {
		return healthpb.HealthCheckResponse_NOT_SERVING
	}
	return healthpb.HealthCheckResponse_SERVING
}

// echo returns the answer to one check of echo.EchoServer.
func (h *healthService) echo() *healthpb.HealthCheckResponse {
	if h.down.Load() || rand.IntN(100) < h.unhealthy {
		return &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_NOT_SERVING}
	}
	return &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVING}
}

// Check implements the RPC.
func (h *healthService) Check(_ context.Context, request *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	switch request.GetService() {
	case "":
		return &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVING}, nil
	case echoService:
		return h.echo(), nil
	}
	return nil, status.Error(codes.NotFound, "unknown service")
}

// List implements the RPC.
func (h *healthService) List(context.Context, *healthpb.HealthListRequest) (*healthpb.HealthListResponse, error) {
	return &healthpb.HealthListResponse{Statuses: map[string]*healthpb.HealthCheckResponse{
		"":          {Status: healthpb.HealthCheckResponse_SERVING},
		echoService: h.echo(),
	}}, nil
}
