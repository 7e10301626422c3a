// Command relay is the least gRPC server that asks another: what ours is measured beside. It makes an RPC for each request, over
// one connection.
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

type relay struct {
	healthpb.UnimplementedHealthServer
	upstream healthpb.HealthClient
}

// Check is the protocol's.
func (r relay) Check(ctx context.Context, request *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	return r.upstream.Check(ctx, request)
}

func main() {
	fmt.Fprintln(os.Stderr, run())
	os.Exit(1)
}

func run() error {
	conn, err := grpc.NewClient(os.Args[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	healthpb.RegisterHealthServer(server, relay{upstream: healthpb.NewHealthClient(conn)})
	fmt.Fprintf(os.Stderr, "url=http://%s/\n", listener.Addr())
	return server.Serve(listener)
}
