// Quickstart demonstrates grpc_health_proxy. It starts a gRPC server with three services, one SERVING, one NOT_SERVING and one that
// toggles between the two. Then it builds the proxy, runs it in front of the server, and prints commands to try.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// toggleEvery is how long demo.Flapping keeps a status.
const toggleEvery = 5 * time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintf(os.Stderr, "quickstart: %v\n", err)
		stop()
		os.Exit(1)
	}
}

// run serves until ctx ends.
func run(ctx context.Context, stdout, stderr io.Writer) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen for gRPC: %w", err)
	}
	services := health.NewServer()
	services.SetServingStatus("demo.Serving", healthpb.HealthCheckResponse_SERVING)
	services.SetServingStatus("demo.Flapping", healthpb.HealthCheckResponse_SERVING)
	services.SetServingStatus("demo.Down", healthpb.HealthCheckResponse_NOT_SERVING)
	server := grpc.NewServer()
	healthpb.RegisterHealthServer(server, services)
	go server.Serve(listener)
	defer server.Stop()

	proxy, remove, err := build(ctx, stdout, stderr)
	if err != nil {
		return err
	}
	defer remove()
	httpAddr, err := pick("localhost:8080")
	if err != nil {
		return err
	}
	metricsAddr, err := pick("localhost:9000")
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, proxy, "-grpc-addr", listener.Addr().String(), "-allow-list",
		"-http-listen-addr", httpAddr, "-metrics-http-listen-addr", metricsAddr, "-log-level", "warn")
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start grpc_health_proxy: %w", err)
	}
	go toggle(ctx, services)
	fmt.Fprintf(stdout, manual, listener.Addr(), toggleEvery, httpAddr, metricsAddr)
	err = cmd.Wait()
	if ctx.Err() != nil {
		// Ctrl-C is the normal end. It is an error only if the proxy did not end cleanly.
		if cmd.ProcessState != nil && cmd.ProcessState.Success() {
			err = nil
		}
		fmt.Fprintln(stdout, "ended")
	} else if err == nil {
		err = errors.New("it ended unexpectedly")
	}
	if err != nil {
		return fmt.Errorf("grpc_health_proxy: %w", err)
	}
	return nil
}

// manual says what to try. Its arguments are the gRPC server's address, toggleEvery and the two HTTP addresses.
const manual = `
A gRPC server on %[1]s has three services: demo.Serving, demo.Down and demo.Flapping,
which toggles between SERVING and NOT_SERVING every %[2]v. grpc_health_proxy checks them.
Try in another terminal:

  curl -i 'http://%[3]s/?service=demo.Serving'     200, demo.Serving SERVING
  curl -i 'http://%[3]s/?service=demo.Flapping'    200 or 503, toggles every %[2]v
  curl -i 'http://%[3]s/?service=demo.Down'        503, demo.Down NOT_SERVING
  curl -i 'http://%[3]s/?service=demo.Nobody'      404, demo.Nobody SERVICE_UNKNOWN
  curl -i 'http://%[3]s/'                          200, SERVING: the whole server
  curl -s 'http://%[3]s/?list&format=json'         all services, as JSON
  curl -s 'http://%[4]s/metrics' | grep '^grpc_'   the metrics, for Prometheus

and the page in a browser: http://%[3]s/?list

Ctrl-C ends it.
`

// build builds the proxy, and returns its path. remove deletes it.
func build(ctx context.Context, stdout, stderr io.Writer) (proxy string, remove func(), err error) {
	dir, err := os.MkdirTemp("", "quickstart")
	if err != nil {
		return "", nil, fmt.Errorf("make a directory for the proxy: %w", err)
	}
	fmt.Fprintln(stdout, "building grpc_health_proxy (this takes a while the first time) ...")
	proxy = filepath.Join(dir, "grpc_health_proxy")
	if runtime.GOOS == "windows" {
		proxy += ".exe"
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-o", proxy, "example.com/grpc-health-http/cloudrun")
	cmd.Stderr = stderr
	if err := cmd.Run(); err != nil {
		os.RemoveAll(dir)
		return "", nil, fmt.Errorf("build grpc_health_proxy (run this in the repository): %w", err)
	}
	return proxy, func() { os.RemoveAll(dir) }, nil
}

// pick returns the address if its port is free, or an address with a port that is free.
func pick(address string) (string, error) {
	listener, err := net.Listen("tcp", address)
	if err == nil {
		return address, listener.Close()
	}
	listener, err = net.Listen("tcp", "localhost:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	return listener.Addr().String(), listener.Close()
}

// toggle toggles demo.Flapping between SERVING and NOT_SERVING until ctx ends.
func toggle(ctx context.Context, services *health.Server) {
	states := [2]healthpb.HealthCheckResponse_ServingStatus{healthpb.HealthCheckResponse_NOT_SERVING, healthpb.HealthCheckResponse_SERVING}
	ticks := time.NewTicker(toggleEvery)
	defer ticks.Stop()
	for i := 0; ; i++ {
		select {
		case <-ticks.C:
			services.SetServingStatus("demo.Flapping", states[i%2])
		case <-ctx.Done():
			return
		}
	}
}
