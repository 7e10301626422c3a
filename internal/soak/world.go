//go:build unix

package main

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"example.com/grpc-health-http/internal/healthtest"
)

// world is the upstream, the way to it, and the files of the program.
type world struct {
	testing.TB
	states *states

	up  *healthtest.Upstream
	way *healthtest.Forwarder

	clients           *healthtest.CA // of client certificates
	ca                *healthtest.CA // of the server's certificate
	caFile, cert, key string
}

func newWorld(t testing.TB, states *states) *world {
	t.Helper()
	dir := t.TempDir()
	w := &world{
		TB: t, states: states, clients: healthtest.NewCA(t), ca: healthtest.NewCA(t),
		caFile: filepath.Join(dir, "ca"), cert: filepath.Join(dir, "cert"), key: filepath.Join(dir, "key"),
	}
	w.write(w.caFile, w.ca.PEM())
	w.rewriteClient(func() {})
	w.up = healthtest.Start(t, healthtest.TLS(w.serverTLS()))
	for _, service := range services {
		w.up.SetStatus(service, healthpb.HealthCheckResponse_SERVING)
	}
	w.way = healthtest.Forward(t, w.up.Target())
	return w
}

// env are the program's settings.
func (w *world) env() []string {
	return []string{
		"GRPC_ADDR=" + w.way.Addr(), "GRPC_TLS=true", "GRPC_CA_CERT=" + w.caFile, "GRPC_CLIENT_CERT=" + w.cert, "GRPC_CLIENT_KEY=" + w.key,
		"SERVICE_NAME=" + strings.Join(services[:], ","),
		"CONNECT_TIMEOUT=" + connectTimeout.String(), "RPC_TIMEOUT=" + rpcTimeout.String(), "CONN_MAX_AGE=" + connMaxAge.String(),
	}
}

func (w *world) serverTLS() *tls.Config {
	config := w.ca.ServerTLS(w)
	config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, w.clients.Pool()
	return config
}

// say makes the server say SERVING or NOT_SERVING of a service.
func (w *world) say(service string, serving bool) {
	status := healthpb.HealthCheckResponse_NOT_SERVING
	if serving {
		status = healthpb.HealthCheckResponse_SERVING
	}
	w.states.serving[service].change(serving, func() { w.up.SetStatus(service, status) })
}

// write replaces a file at once, as a rename does.
func (w *world) write(file string, content []byte) {
	next := file + ".next"
	if err := os.WriteFile(next, content, 0o600); err != nil {
		w.Fatal(err)
	}
	if err := os.Rename(next, file); err != nil {
		w.Fatal(err)
	}
}

// rewriteClient writes a new client certificate and its key; between the two they do not match.
func (w *world) rewriteClient(between func()) {
	leaf := w.clients.Client(w)
	w.write(w.cert, leaf.CertPEM)
	between()
	w.write(w.key, leaf.KeyPEM)
}

// rotateCA moves the server to a new CA. The program's file has both before the server has the new one.
func (w *world) rotateCA() {
	before := w.ca
	w.ca = healthtest.NewCA(w)
	w.write(w.caFile, append(w.ca.PEM(), before.PEM()...))
	w.up.SetTLS(w.serverTLS())
}

// fault is one kind of them.
type fault struct {
	kind string
	// make makes it, and returns when it is over. It says whether there was anything to hit.
	make func(*soak) bool
}

// faults are the kinds. Those that hit connections spare the ones that were made for a request under way:
// where such a one fails, the program is right to say so.
var faults = []fault{
	// The upstream is out: a true alarm.
	{"restart", func(s *soak) bool {
		s.states.reachable.change(false, s.world.up.Stop)
		s.wait(600 * time.Millisecond)
		s.states.reachable.change(true, s.world.up.Restart)
		return true
	}},
	{"drain and restart", func(s *soak) bool {
		s.states.reachable.change(false, s.world.up.GracefulStop)
		s.wait(300 * time.Millisecond)
		s.states.reachable.change(true, s.world.up.Restart)
		return true
	}},
	{"nothing comes through", func(s *soak) bool {
		s.states.reachable.change(false, func() {
			s.world.way.SetMode(healthtest.Silent)
			s.world.way.Swallow()
		})
		s.wait(2500 * time.Millisecond)
		s.states.reachable.change(true, func() { s.world.way.SetMode(healthtest.Pass) })
		return true
	}},
	{"closed port", func(s *soak) bool {
		s.states.open.change(false, func() { s.world.way.SetMode(healthtest.Refuse) })
		s.wait(2 * connMaxAge)
		s.states.open.change(true, func() { s.world.way.SetMode(healthtest.Pass) })
		return true
	}},
	{"service hangs", func(s *soak) bool {
		service := s.service()
		var release func()
		s.states.answering[service].change(false, func() { release = s.world.up.Hang(service) })
		s.wait(2500 * time.Millisecond)
		s.states.answering[service].change(true, release)
		return true
	}},
	// The upstream is well.
	{"drain", func(s *soak) bool {
		s.world.up.GoAway()
		return true
	}},
	{"connections reset", func(s *soak) bool { return s.world.way.ResetOlder(s.oldest()) > 0 }},
	{"connections black-holed", func(s *soak) bool { return s.world.way.SwallowOlder(s.oldest()) > 0 }},
	{"slow service", func(s *soak) bool {
		service := s.service()
		s.world.up.SetDelay(service, s.upTo(400*time.Millisecond))
		s.wait(time.Second)
		s.world.up.SetDelay(service, 0)
		return true
	}},
	{"server certificate rotated", func(s *soak) bool {
		s.world.up.SetTLS(s.world.serverTLS())
		s.world.up.GoAway() // so that there are new connections
		return true
	}},
	{"CA rotated", func(s *soak) bool {
		s.world.rotateCA()
		s.world.up.GoAway()
		return true
	}},
	{"client certificate rotated", func(s *soak) bool {
		s.world.rewriteClient(func() {
			s.world.up.GoAway()
			s.wait(50 * time.Millisecond)
		})
		return true
	}},
	{"frozen", func(s *soak) bool {
		s.frozen(func() {})
		return true
	}},
	{"frozen, connections black-holed meanwhile", func(s *soak) bool {
		oldest := s.oldest()
		hit := 0
		s.frozen(func() { hit = s.world.way.SwallowOlder(oldest) })
		return hit > 0
	}},
	{"frozen, restart meanwhile", func(s *soak) bool {
		s.frozen(func() {
			s.states.reachable.change(false, s.world.up.Stop)
			s.states.reachable.change(true, s.world.up.Restart)
		})
		return true
	}},
}

// frozen stops the program for a while, during which something happens.
func (s *soak) frozen(meanwhile func()) {
	s.states.stopped.begin()
	s.proxy.Signal(s, syscall.SIGSTOP)
	meanwhile()
	s.wait(2500 * time.Millisecond)
	s.proxy.Signal(s, syscall.SIGCONT)
	s.states.stopped.end()
}

func (s *soak) service() string { return services[s.random.IntN(len(services))] }

// upTo is a random time.
func (s *soak) upTo(longest time.Duration) time.Duration {
	return time.Duration(s.random.Int64N(int64(longest)))
}

func (s *soak) wait(longest time.Duration) { time.Sleep(s.upTo(longest)) }
