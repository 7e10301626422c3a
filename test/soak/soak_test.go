//go:build unix

package main

import (
	"bytes"
	"cmp"
	"context"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"example.com/grpc-health-http/internal/asker"
	"example.com/grpc-health-http/internal/creds"
	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/internal/settings"
	"example.com/grpc-health-http/internal/web"
	"example.com/grpc-health-http/test/scripttest"
)

var seed = flag.Uint64("soak.seed", 0, "repeats the faults of a run; 0 takes a seed from the clock")

// TestNoFalseVerdict is a shorter soak than the command's. The program has the race detector if the test has it.
func TestNoFalseVerdict(t *testing.T) {
	t.Parallel()
	program := scripttest.Build(t, "../../cloudrun", "grpc_health_proxy")
	r := soaked(t, config{program: program, length: soakFor})
	if r.faulty() {
		t.Error("the soak found a false or late verdict, or the program failed")
	}
	if r.findings[sound] < 15*int(soakFor/time.Second) || len(r.faults) < 3 {
		t.Errorf("only %d sound verdicts and %d kinds of faults", r.findings[sound], len(r.faults))
	}
}

func soaked(t *testing.T, c config) *report {
	t.Helper()
	c.seed = cmp.Or(*seed, uint64(time.Now().UnixNano()))
	r := run(t.Context(), t, c)
	var text bytes.Buffer
	r.print(&text)
	t.Logf("\n%s", &text)
	return r
}

// naiveCache is the variable that makes this test binary a naive checker. Its value is how long that checker caches verdicts.
const naiveCache = "SOAK_NAIVE_CACHE"

func TestMain(m *testing.M) {
	if keep, ok := os.LookupEnv(naiveCache); ok {
		if err := naive(keep); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// naive answers like the proxy, with the same credentials, over one connection that grpc-go manages.
func naive(keep string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	cache, err := time.ParseDuration(keep)
	if err != nil {
		return err
	}
	s, err := settings.ParseProxy(nil, os.Stderr)
	if err != nil {
		return err
	}
	tc, err := creds.Upstream(&s.Upstream, creds.Options{})
	if err != nil {
		return err
	}
	current, err := tc(ctx, false)
	if err != nil {
		return err
	}
	conn, err := grpc.NewClient(s.Addr, grpc.WithTransportCredentials(rereading{current, tc}))
	if err != nil {
		return err
	}
	n := &naiveChecker{health: healthpb.NewHealthClient(conn), cache: cache, known: make(map[string]health.Verdict)}
	listener, err := net.Listen("tcp", s.ListenAddr)
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, `{"msg":"answering health checks","url":"http://%s/"}`+"\n", listener.Addr())
	go http.Serve(listener, web.New(web.Options{Asker: asker.New(asker.Options{Fleet: asker.One(&asker.Upstream{Check: n.check})})}))
	<-ctx.Done()
	return nil
}

// rereading are credentials that read their files for every handshake.
type rereading struct {
	credentials.TransportCredentials
	read func(ctx context.Context, refresh bool) (credentials.TransportCredentials, error)
}

func (r rereading) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	tc, err := r.read(ctx, true)
	if err != nil {
		return nil, nil, err
	}
	return tc.ClientHandshake(ctx, authority, raw)
}

func (r rereading) Clone() credentials.TransportCredentials { return r }

type naiveChecker struct {
	health healthpb.HealthClient
	cache  time.Duration

	mu    sync.Mutex
	known map[string]health.Verdict // by service
}

func (n *naiveChecker) check(ctx context.Context, service string) health.Verdict {
	n.mu.Lock()
	known, ok := n.known[service]
	n.mu.Unlock()
	if ok && time.Since(known.At) < n.cache {
		return known
	}
	ctx, cancel := context.WithTimeout(ctx, rpcTimeout)
	defer cancel()
	v := health.Verdict{Service: service, Asked: true}
	response, err := n.health.Check(ctx, &healthpb.HealthCheckRequest{Service: service})
	switch code := status.Code(err); {
	case code == codes.DeadlineExceeded:
		v.Status, v.Phase = health.Timeout, health.PhaseRPC
	case err != nil:
		v.Status, v.Phase = health.ConnectionFailed, health.PhaseRPC
	case response.Status == healthpb.HealthCheckResponse_SERVING:
		v.Status = health.Serving
	default:
		v.Status = health.NotServing
	}
	v.At = time.Now()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.known[service] = v
	return v
}
