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

// environment is what the program runs in: the upstream, a forwarder in front of it, and files with certificates.
type environment struct {
	testing.TB
	states *states

	up        *healthtest.Upstream
	forwarder *healthtest.Forwarder
	serving   map[string]*atomic.Bool  // by service
	slow      map[string]*atomic.Int64 // nanoseconds until an answer, by service

	clientCA          *healthtest.CA // of client certificates
	ca                *healthtest.CA // of the server's certificate
	caFile, cert, key string
}

func newEnvironment(t testing.TB, states *states) *environment {
	t.Helper()
	dir := t.TempDir()
	e := &environment{
		TB: t, states: states, clientCA: healthtest.NewCA(t), ca: healthtest.NewCA(t),
		caFile: filepath.Join(dir, "ca"), cert: filepath.Join(dir, "cert"), key: filepath.Join(dir, "key"),
		serving: make(map[string]*atomic.Bool), slow: make(map[string]*atomic.Int64),
	}
	e.write(e.caFile, e.ca.PEM())
	e.rewriteClient(func() {})
	e.up = healthtest.Start(t, healthtest.TLS(e.serverTLS()))
	for _, service := range services {
		e.serving[service], e.slow[service] = &atomic.Bool{}, &atomic.Int64{}
		e.serving[service].Store(true)
		e.up.Handle(service, e.answer)
	}
	e.forwarder = healthtest.Forward(t, e.up.Target())
	return e
}

// settings returns the program's settings.
func (e *environment) settings() []string {
	return []string{
		"GRPC_HEALTH_ADDR=" + e.forwarder.Addr(), "GRPC_HEALTH_TLS=true", "GRPC_HEALTH_CA_CERT=" + e.caFile, "GRPC_HEALTH_CLIENT_CERT=" + e.cert, "GRPC_HEALTH_CLIENT_KEY=" + e.key,
		"GRPC_HEALTH_SERVICE_NAME=" + strings.Join(services[:], ","),
		"GRPC_HEALTH_CONNECT_TIMEOUT=" + connectTimeout.String(), "GRPC_HEALTH_RPC_TIMEOUT=" + rpcTimeout.String(), "GRPC_HEALTH_CONN_MAX_AGE=" + connMaxAge.String(),
	}
}

func (e *environment) serverTLS() *tls.Config {
	config := e.ca.ServerTLS(e)
	config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, e.clientCA.Pool()
	return config
}

// say makes the server answer SERVING or NOT_SERVING for a service.
func (e *environment) say(service string, serving bool) {
	e.states.serving[service].change(serving, func() { e.serving[service].Store(serving) })
}

// answer returns the server's answer. A slow server answers with the status at the RPC's arrival. So a checker that gives this
// answer to a later request is found out.
func (e *environment) answer(ctx context.Context, service string) (*healthpb.HealthCheckResponse, error) {
	status := healthpb.HealthCheckResponse_NOT_SERVING
	if e.serving[service].Load() {
		status = healthpb.HealthCheckResponse_SERVING
	}
	if slow := e.slow[service].Load(); slow > 0 {
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

// write replaces a file atomically.
func (e *environment) write(file string, content []byte) {
	next := file + ".next"
	if err := os.WriteFile(next, content, 0o600); err != nil {
		e.Fatal(err)
	}
	if err := os.Rename(next, file); err != nil {
		e.Fatal(err)
	}
}

// rewriteClient writes a new client certificate, calls between while certificate and key do not match, and writes the new key.
func (e *environment) rewriteClient(between func()) {
	leaf := e.clientCA.Client(e)
	e.write(e.cert, leaf.CertPEM)
	between()
	e.write(e.key, leaf.KeyPEM)
}

// rotateCA gives the server a certificate of a new CA. Before that it writes both CAs to the program's file.
func (e *environment) rotateCA() {
	before := e.ca
	e.ca = healthtest.NewCA(e)
	e.write(e.caFile, append(e.ca.PEM(), before.PEM()...))
	e.up.SetTLS(e.serverTLS())
}

// fault is a kind of fault.
type fault struct {
	kind string
	// cause causes the fault, and returns when it is over. It returns false if there was nothing to break.
	cause func(*soak) bool
}

// faults returns the kinds. Those that break connections spare the ones that were dialled for a request in flight, since a check
// may fail rightly if such a connection breaks.
func faults() []fault {
	return []fault{
		// The upstream is down or unreachable: verdicts may say so.
		{"restart", func(s *soak) bool {
			s.states.reachable.change(false, s.env.up.Stop)
			s.wait(600 * time.Millisecond)
			s.states.reachable.change(true, s.env.up.Restart)
			return true
		}},
		{"drain and restart", func(s *soak) bool {
			s.states.reachable.change(false, s.env.up.GracefulStop)
			s.wait(300 * time.Millisecond)
			s.states.reachable.change(true, s.env.up.Restart)
			return true
		}},
		{"all connections black-holed", func(s *soak) bool {
			s.states.reachable.change(false, func() {
				s.env.forwarder.SetMode(healthtest.Silent)
				s.env.forwarder.BlackHole()
			})
			s.wait(2500 * time.Millisecond)
			s.states.reachable.change(true, func() { s.env.forwarder.SetMode(healthtest.Pass) })
			return true
		}},
		{"closed port", func(s *soak) bool {
			s.states.open.change(false, func() { s.env.forwarder.SetMode(healthtest.Refuse) })
			s.wait(2 * connMaxAge)
			s.states.open.change(true, func() { s.env.forwarder.SetMode(healthtest.Pass) })
			return true
		}},
		{"service hangs", func(s *soak) bool {
			service := s.service()
			s.note("%s: hangs", service)
			var release func()
			s.states.answering[service].change(false, func() { release = s.env.up.Hang(service) })
			s.wait(2500 * time.Millisecond)
			s.states.answering[service].change(true, release)
			return true
		}},
		// The upstream is healthy: verdicts must not change.
		{"drain", func(s *soak) bool {
			s.env.up.GoAway()
			return true
		}},
		{"connections reset", func(s *soak) bool { return s.env.forwarder.ResetOlder(s.oldest()) > 0 }},
		{"connections black-holed", func(s *soak) bool { return s.env.forwarder.BlackHoleOlder(s.oldest()) > 0 }},
		{"slow service", func(s *soak) bool {
			defer s.slowDown()()
			s.wait(time.Second)
			return true
		}},
		{"server certificate rotated", func(s *soak) bool {
			s.env.up.SetTLS(s.env.serverTLS())
			s.env.up.GoAway() // makes the program dial again
			return true
		}},
		{"CA rotated", func(s *soak) bool {
			s.env.rotateCA()
			s.env.up.GoAway()
			return true
		}},
		{"client certificate rotated", func(s *soak) bool {
			s.env.rewriteClient(func() {
				s.env.up.GoAway()
				s.wait(50 * time.Millisecond)
			})
			return true
		}},
		{"stopped", func(s *soak) bool {
			s.stopped(func() {})
			return true
		}},
		{"stopped while connections are black-holed", func(s *soak) bool {
			broken := 0
			s.stopped(func() { broken = s.env.forwarder.BlackHoleOlder(s.oldest()) })
			return broken > 0
		}},
		{"stopped during a restart", func(s *soak) bool {
			s.stopped(func() {
				s.states.reachable.change(false, s.env.up.Stop)
				s.states.reachable.change(true, s.env.up.Restart)
			})
			return true
		}},
	}
}

// slowDown makes the server slow to answer for a service, until undo is called.
func (s *soak) slowDown() (undo func()) {
	service, delay := s.service(), s.upTo(400*time.Millisecond)
	s.note("%s: slow, %v", service, delay)
	slow := s.env.slow[service]
	slow.Store(int64(delay))
	return func() { slow.Store(0) }
}

// stopped stops the program for a while with RPCs in flight, and calls meanwhile.
func (s *soak) stopped(meanwhile func()) {
	defer s.slowDown()()
	s.wait(200 * time.Millisecond)
	s.states.stopped.begin()
	s.proxy.Signal(s, syscall.SIGSTOP)
	meanwhile()
	longest := 2 * time.Second
	if s.random.IntN(4) == 0 {
		longest = 7 * time.Second // long enough for the program to give up its RPCs
	}
	s.wait(longest)
	s.proxy.Signal(s, syscall.SIGCONT)
	s.states.stopped.end()
}

func (s *soak) service() string { return services[s.random.IntN(len(services))] }

// upTo returns a random duration.
func (s *soak) upTo(longest time.Duration) time.Duration {
	return time.Duration(s.random.Int64N(int64(longest)))
}

func (s *soak) wait(longest time.Duration) { time.Sleep(s.upTo(longest)) }
