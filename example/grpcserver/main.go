// Grpcserver is a gRPC server for trying a health checker. The whole server is always SERVING. The service echo.EchoServer can be
// NOT_SERVING at random, and SIGUSR1 toggles it between SERVING and NOT_SERVING (not on Windows).
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	// Accepts compressed requests.
	_ "google.golang.org/grpc/encoding/gzip"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

const (
	exitFailed = 1
	exitUsage  = 2 // as package flag
)

// stopWithin is how long RPCs in flight may take after SIGINT or SIGTERM.
const stopWithin = 5 * time.Second

// handshakeWithin is how long the handshake of a new connection may take. grpc-go's Stop also waits for handshakes, and its own
// limit is two minutes.
const handshakeWithin = 3 * time.Second

func main() { os.Exit(realMain()) }

// realMain is main with an exit code, so that deferred calls run before the exit.
func realMain() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	toggles := make(chan os.Signal, 1)
	notifyToggle(toggles)
	defer signal.Stop(toggles)
	return run(ctx, os.Args[1:], toggles, os.Stderr)
}

// run serves until ctx ends. Each value from toggles toggles echo.EchoServer.
func run(ctx context.Context, args []string, toggles <-chan os.Signal, stderr io.Writer) int {
	options, err := parse(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case errors.Is(err, errPrinted):
		return exitUsage
	case err != nil:
		fmt.Fprintf(stderr, "grpcserver: %v\n", err)
		return exitUsage
	}
	if err := serve(ctx, options, toggles, stderr); err != nil {
		fmt.Fprintf(stderr, "grpcserver: %v\n", err)
		return exitFailed
	}
	return 0
}

// options are the flags.
type options struct {
	address   string
	insecure  bool
	cert, key string // paths
	mutual    bool
	clientCA  string // a path
	unhealthy int    // percent
}

// errPrinted stands for an error that package flag has already printed.
var errPrinted = errors.New("wrong flags")

func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("grpcserver", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.address, "grpcport", ":50051", "`address` to listen on, such as :50051 or localhost:50051")
	flags.BoolVar(&o.insecure, "insecure", false, "serve without TLS")
	flags.StringVar(&o.cert, "tlsCert", "", "`file` of the server's certificate, PEM")
	flags.StringVar(&o.key, "tlsKey", "", "`file` of its private key, PEM")
	flags.BoolVar(&o.mutual, "backendMTLS", false, "require a client certificate")
	flags.StringVar(&o.clientCA, "mtlsBackendCA", "", "`file` of the CA of the client certificates, PEM")
	// The first one is spelled as in the earlier tool.
	for _, name := range []string{"unhealthyproability", "unhealthyprobability"} {
		flags.IntVar(&o.unhealthy, name, 0, "how many `percent` of the checks of "+echoService+" answer NOT_SERVING")
	}
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return o, err
	} else if err != nil {
		return o, errPrinted
	}
	var problems []error
	if flags.NArg() > 0 {
		problems = append(problems, fmt.Errorf("unexpected argument %q: there are only flags, see -help", flags.Arg(0)))
	}
	return o, errors.Join(append(problems, o.problems()...)...)
}

func (o options) problems() []error {
	var problems []error
	add := func(wrong bool, text string) {
		if wrong {
			problems = append(problems, errors.New(text))
		}
	}
	if _, _, err := net.SplitHostPort(o.address); err != nil {
		problems = append(problems, fmt.Errorf("--grpcport: want host:port or :port: %w", err))
	}
	withTLS := o.cert != "" || o.key != "" || o.mutual || o.clientCA != ""
	add(o.insecure && withTLS, "--insecure serves without TLS: leave it out, or --tlsCert, --tlsKey, --backendMTLS and --mtlsBackendCA")
	add(!o.insecure && o.cert == "", "--tlsCert is missing: name the certificate's file, or use --insecure")
	add(!o.insecure && o.key == "", "--tlsKey is missing: name the key's file, or use --insecure")
	add(o.mutual && o.clientCA == "", "--backendMTLS needs --mtlsBackendCA: the CA that client certificates must come from")
	add(!o.mutual && o.clientCA != "", "--mtlsBackendCA has no effect without --backendMTLS: add it, or leave both out")
	add(o.unhealthy < 0 || o.unhealthy > 100, "--unhealthyproability must be from 0 (never) to 100 (always)")
	return problems
}

func serve(ctx context.Context, o options, toggles <-chan os.Signal, stderr io.Writer) error {
	serverOptions := []grpc.ServerOption{grpc.ConnectionTimeout(handshakeWithin)}
	if !o.insecure {
		config, err := tlsConfig(o)
		if err != nil {
			return err
		}
		serverOptions = append(serverOptions, grpc.Creds(credentials.NewTLS(config)))
	}
	listener, err := net.Listen("tcp", o.address)
	if err != nil {
		return fmt.Errorf("--grpcport: %w", err)
	}
	health := newHealthService(o.unhealthy)
	server := grpc.NewServer(serverOptions...)
	healthpb.RegisterHealthServer(server, health)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	fmt.Fprintf(stderr, "gRPC server listening on %s\n", listener.Addr())
	for {
		select {
		case <-toggles:
			fmt.Fprintf(stderr, "%s is %s now\n", echoService, health.toggle())
		case err := <-served:
			return fmt.Errorf("serve: %w", err)
		case <-ctx.Done():
			stop(server)
			return <-served
		}
	}
}

// stop waits for RPCs in flight, but not longer than stopWithin.
func stop(server *grpc.Server) {
	hard := time.AfterFunc(stopWithin, server.Stop)
	defer hard.Stop()
	server.GracefulStop()
}

func tlsConfig(o options) (*tls.Config, error) {
	certificate, err := tls.LoadX509KeyPair(o.cert, o.key)
	if err != nil {
		return nil, fmt.Errorf("--tlsCert %s, --tlsKey %s: %w", o.cert, o.key, err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12}
	if !o.mutual {
		return config, nil
	}
	pem, err := os.ReadFile(o.clientCA)
	if err != nil {
		return nil, fmt.Errorf("--mtlsBackendCA: %w", err)
	}
	config.ClientCAs = x509.NewCertPool()
	if !config.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("--mtlsBackendCA %s: no PEM certificate in it", o.clientCA)
	}
	config.ClientAuth = tls.RequireAndVerifyClientCert
	return config, nil
}
