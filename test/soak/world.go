//go:build unix

package main

import (
	"context"
	"crypto/tls"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"example.com/grpc-health-http/test/healthtest"
)

// world is the upstream, the way to it, and the files of the program.
type world struct {
	testing.TB
	states *states

	up      *healthtest.Upstream
	way     *healthtest.Forwarder
	serving map[string]*atomic.Bool  // by service
	slow    map[string]*atomic.Int64 // nanoseconds until an answer, by service

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
		serving: make(map[string]*atomic.Bool), slow: make(map[string]*atomic.Int64),
	}
	w.write(w.caFile, w.ca.PEM())
	w.rewriteClient(func() {})
	w.up = healthtest.Start(t, healthtest.TLS(w.serverTLS()))
	for _, service := range services {
		w.serving[service], w.slow[service] = &atomic.Bool{}, &atomic.Int64{}
		w.serving[service].Store(true)
		w.up.Handle(service, w.answer)
	}
	w.way = healthtest.Forward(t, w.up.Target())
	return w
}

// env are the program's settings.
func (w *world) env() []string {
	return []string{
		"GRPC_HEALTH_ADDR=" + w.way.Addr(), "GRPC_HEALTH_TLS=true", "GRPC_HEALTH_CA_CERT=" + w.caFile, "GRPC_HEALTH_CLIENT_CERT=" + w.cert, "GRPC_HEALTH_CLIENT_KEY=" + w.key,
		"GRPC_HEALTH_SERVICE_NAME=" + strings.Join(services[:], ","),
		"GRPC_HEALTH_CONNECT_TIMEOUT=" + connectTimeout.String(), "GRPC_HEALTH_RPC_TIMEOUT=" + rpcTimeout.String(), "GRPC_HEALTH_CONN_MAX_AGE=" + connMaxAge.String(),
	}
}

func (w *world) serverTLS() *tls.Config {
	config := w.ca.ServerTLS(w)
	config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, w.clients.Pool()
	return config
}

// say makes the server say SERVING or NOT_SERVING of a service.
func (w *world) say(service string, serving bool) {
	w.states.serving[service].change(serving, func() { w.serving[service].Store(serving) })
}

// answer is what the server says. Where it is slow it says how the service was when the RPC came: who passes
// that on to a request that came later is found out.
func (w *world) answer(ctx context.Context, service string) (*healthpb.HealthCheckResponse, error) {
	status := healthpb.HealthCheckResponse_NOT_SERVING
	if w.serving[service].Load() {
		status = healthpb.HealthCheckResponse_SERVING
	}
	if slow := w.slow[service].Load(); slow > 0 {
		timer := time.NewTimer(time.Duration(slow))
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return &healthpb.HealthCheckResponse{Status: status}, nil
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

// faults returns the kinds. Those that hit connections spare the ones that were made for a request under way:
// where such a one fails, the program is right to say so.
func faults() []fault {
	return []fault{
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
				s.world.way.BlackHole()
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
			s.note("%s: hangs", service)
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
		{"connections black-holed", func(s *soak) bool { return s.world.way.BlackHoleOlder(s.oldest()) > 0 }},
		{"slow service", func(s *soak) bool {
			defer s.slowDown()()
			s.wait(time.Second)
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
		{"frozen while connections are black-holed", func(s *soak) bool {
			hit := 0
			s.frozen(func() { hit = s.world.way.BlackHoleOlder(s.oldest()) })
			return hit > 0
		}},
		{"frozen during a restart", func(s *soak) bool {
			s.frozen(func() {
				s.states.reachable.change(false, s.world.up.Stop)
				s.states.reachable.change(true, s.world.up.Restart)
			})
			return true
		}},
	}
}

// slowDown makes the server slow to answer for a service, until mended.
func (s *soak) slowDown() (mended func()) {
	service, delay := s.service(), s.upTo(400*time.Millisecond)
	s.note("%s: slow, %v", service, delay)
	slow := s.world.slow[service]
	slow.Store(int64(delay))
	return func() { slow.Store(0) }
}

// frozen stops the program for a while, during which something happens. RPCs are under way then.
func (s *soak) frozen(meanwhile func()) {
	defer s.slowDown()()
	s.wait(200 * time.Millisecond)
	s.states.stopped.begin()
	s.proxy.Signal(s, syscall.SIGSTOP)
	meanwhile()
	longest := 2 * time.Second
	if s.random.IntN(4) == 0 {
		longest = 7 * time.Second // long enough for what was under way to be given up
	}
	s.wait(longest)
	s.proxy.Signal(s, syscall.SIGCONT)
	s.states.stopped.end()
}

func (s *soak) service() string { return services[s.random.IntN(len(services))] }

// upTo is a random time.
func (s *soak) upTo(longest time.Duration) time.Duration {
	return time.Duration(s.random.Int64N(int64(longest)))
}

func (s *soak) wait(longest time.Duration) { time.Sleep(s.upTo(longest)) }
