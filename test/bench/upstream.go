//go:build linux

package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// upstream is a gRPC server that is SERVING, whatever it is asked for, and counts the RPCs.
type upstream struct {
	healthpb.UnimplementedHealthServer
	server *grpc.Server
	addr   string
	delay  time.Duration // until it answers
	rpcs   atomic.Int64
}

// newUpstream starts one, with TLS where the config is not nil.
func newUpstream(config *tls.Config, delay time.Duration) (*upstream, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start an upstream: %w", err)
	}
	var options []grpc.ServerOption
	if config != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(config)))
	}
	u := &upstream{server: grpc.NewServer(options...), addr: listener.Addr().String(), delay: delay}
	healthpb.RegisterHealthServer(u.server, u)
	go u.server.Serve(listener)
	return u, nil
}

func (u *upstream) stop() { u.server.Stop() }

// Check is the protocol's.
func (u *upstream) Check(context.Context, *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	u.rpcs.Add(1)
	time.Sleep(u.delay)
	return &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVING}, nil
}
