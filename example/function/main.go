// Function runs the Google Cloud function on this machine, as the platform does. Its settings come from the environment. If
// GRPC_HEALTH_ADDR is not set, it starts a gRPC server and checks that.
package main

import (
	"cmp"
	"fmt"
	"net"
	"os"

	"github.com/GoogleCloudPlatform/functions-framework-go/funcframework"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	// Registers HealthCheck.
	_ "example.com/grpc-health-http"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintf(os.Stderr, "function: %v\n", err)
		os.Exit(1)
	}
}

// run serves until the process ends: the framework cannot be stopped.
func run() error {
	if os.Getenv("GRPC_HEALTH_ADDR") == "" {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return fmt.Errorf("listen for gRPC: %w", err)
		}
		server := grpc.NewServer()
		healthpb.RegisterHealthServer(server, health.NewServer())
		go server.Serve(listener)
		os.Setenv("GRPC_HEALTH_ADDR", listener.Addr().String())
	}
	os.Setenv("FUNCTION_TARGET", "HealthCheck")
	port := cmp.Or(os.Getenv("PORT"), "8080")
	// The framework does not say when it listens. So check first that it can, before announcing it.
	free, err := net.Listen("tcp", net.JoinHostPort("localhost", port))
	if err != nil {
		return fmt.Errorf("listen for HTTP (PORT sets another port): %w", err)
	}
	free.Close()
	fmt.Printf("HealthCheck for %s: try curl -i http://localhost:%s/ (Ctrl-C ends it)\n", os.Getenv("GRPC_HEALTH_ADDR"), port)
	return funcframework.StartHostPort("localhost", port)
}
