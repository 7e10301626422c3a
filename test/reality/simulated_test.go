//go:build !race

package reality

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/netip"
	"reflect"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"example.com/grpc-health-http/internal/check"
	"example.com/grpc-health-http/internal/clock"
	"example.com/grpc-health-http/internal/dial"
	"example.com/grpc-health-http/internal/target"
	"example.com/grpc-health-http/test/healthtest"
	"example.com/grpc-health-http/test/simnet"
)

// latency is that of the simulated network. A check takes some round trips.
const latency = 500 * time.Microsecond

// simulated is a place in a bubble. What it does, test/sim does too.
type simulated struct {
	*world
	*simnet.Net

	mu           sync.Mutex
	lookup       input
	secret, meta input
	family       int // that the lookup finds; 0 is both
	losing       int // the family about which an answer is lost; 0 is none
	losingAll    bool
	roots        *x509.CertPool
	pair         tls.Certificate
	generation   int // of the files
	jumped       time.Duration
	back         time.Duration
}

// TestSimulated has the scenarios happen in the simulated world.
func TestSimulated(t *testing.T) {
	t.Parallel()
	for _, s := range scenarios() {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(3) {
				synctest.Test(t, func(t *testing.T) {
					for _, wrong := range s.play(t, s.shape, func(w *world) place {
						return &simulated{world: w, Net: simnet.New(seed, latency)}
					}) {
						t.Error(wrong)
					}
				})
			}
		})
	}
}

// all are the addresses, in the order of the lookup.
func (s *simulated) all() (all []netip.Addr) {
	if s.families {
		return []netip.Addr{netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("192.0.2.1")}
	}
	for i := range s.addresses {
		all = append(all, netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)}))
	}
	return all
}

func at(a netip.Addr) string { return netip.AddrPortFrom(a, 50051).String() }

func (s *simulated) listen() net.Listener {
	var addresses []string
	for _, a := range s.all() {
		if !s.families || a.Is4() {
			addresses = append(addresses, at(a))
		}
	}
	return s.Listen(addresses...)
}

func (s *simulated) up() { s.serve() }

func (s *simulated) kill() {
	old := s.replace(nil)
	old.listener.Close()
	for _, c := range s.Open() {
		c.Server().Close()
	}
	s.running.Go(old.grpc.Stop)
}

func (s *simulated) checker() asker {
	name := at(s.all()[0])
	if s.named {
		name = "upstream.test:50051"
	}
	to, err := target.Parse(name)
	if err != nil {
		s.t.Fatal(err)
	}
	system := clock.System()
	o := check.Options{
		Options: dial.Options{
			Target: to, ServerName: "localhost", ConnectTimeout: s.budget, Connect: s.Connect, Credentials: s.credentials(), Lookup: s.lookUp,
		},
		RPCTimeout: s.budget, MaxAge: time.Minute, Services: []string{"", hung},
		Clock: func() clock.Moment {
			s.mu.Lock()
			defer s.mu.Unlock()
			m := system()
			return clock.Moment{Mono: m.Mono + int64(s.jumped), Wall: m.Wall + int64(s.jumped-s.back)}
		},
	}
	if s.shape.metadata {
		o.Metadata = func(ctx context.Context) (metadata.MD, error) {
			return metadata.Pairs("from", "a scenario"), s.await(ctx, &s.meta)
		}
	}
	return newLocal(o)
}

// await waits for an input.
func (s *simulated) await(ctx context.Context, in *input) error {
	s.mu.Lock()
	how := *in
	s.mu.Unlock()
	switch how {
	case fails:
		return errors.New("a simulated failure")
	case never:
		<-ctx.Done()
		return ctx.Err()
	case late:
		return simnet.Sleep(ctx, lateness)
	}
	return nil
}

func (s *simulated) lookUp(ctx context.Context, network, host string, _ bool) (found []netip.Addr, err error) {
	family := 6
	if network == "ip4" {
		family = 4
	}
	s.mu.Lock()
	lost := s.losing == family
	if lost && !s.losingAll {
		s.losing = 0
	}
	s.mu.Unlock()
	if lost {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if err := s.await(ctx, &s.lookup); err != nil {
		return nil, &net.DNSError{Err: err.Error(), Name: host, IsTemporary: true}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.all() {
		if a.Is4() == (family == 4) && (s.family == 0 || s.family == family) {
			found = append(found, a)
		}
	}
	if len(found) == 0 {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return found, nil
}

func (s *simulated) lose(family int, all bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.losing, s.losingAll = family, all
}

func (s *simulated) credentials() func(ctx context.Context, refresh bool) (credentials.TransportCredentials, error) {
	var current credentials.TransportCredentials
	held := 0
	return func(ctx context.Context, refresh bool) (credentials.TransportCredentials, error) {
		if err := s.await(ctx, &s.secret); err != nil {
			return nil, err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		switch {
		case !s.secure && current == nil:
			current = insecure.NewCredentials()
		case s.secure && (current == nil || refresh && held != s.generation):
			held = s.generation
			pair := s.pair
			current = credentials.NewTLS(&tls.Config{
				RootCAs: s.roots, MinVersion: tls.VersionTLS12,
				GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil },
			})
		}
		return current, nil
	}
}

func (s *simulated) impair(mode simnet.Mode, firstAlone bool) {
	if firstAlone {
		s.Impair(mode, at(s.all()[0]))
		return
	}
	s.Impair(mode)
}

func (s *simulated) breakAll(how string) {
	for _, c := range s.Conns() {
		breakOne(c, how)
	}
}

func (s *simulated) breakOlder(how string, than time.Time) {
	for _, c := range s.Conns() {
		if c.Began.Before(than) {
			breakOne(c, how)
		}
	}
}

func breakOne(c *simnet.Conn, how string) { reflect.ValueOf(c).MethodByName(how).Call(nil) }

func (s *simulated) slow(by time.Duration) { s.SetLatency(latency + by) }

func (s *simulated) hang() { s.service.hang() }

func (s *simulated) asked() int { return s.service.asked() }

func (s *simulated) lookups(in input)  { s.set(&s.lookup, in) }
func (s *simulated) secrets(in input)  { s.set(&s.secret, in) }
func (s *simulated) metadata(in input) { s.set(&s.meta, in) }

func (s *simulated) set(what *input, to input) {
	s.mu.Lock()
	defer s.mu.Unlock()
	*what = to
}

func (s *simulated) find(family int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.family = family
}

func (s *simulated) hold(trusts []*healthtest.CA, shows *healthtest.CA) {
	roots := x509.NewCertPool()
	for _, ca := range trusts {
		roots.AppendCertsFromPEM(ca.PEM())
	}
	pair := shows.Client(s.t).TLS
	s.mu.Lock()
	defer s.mu.Unlock()
	s.roots, s.pair = roots, pair
	s.generation++
}

func (s *simulated) freeze(d time.Duration, meanwhile func()) {
	synctest.Wait()
	thaw := s.Freeze()
	s.arrive()
	meanwhile()
	s.arrive()
	s.mu.Lock()
	s.jumped += d
	s.mu.Unlock()
	thaw()
}

// setBack sets the wall clock back.
func (s *simulated) setBack(by time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.back += by
}

// arrive makes all that is on its way arrive, and what it brings about.
func (s *simulated) arrive() {
	for range 2 { // requests, then answers
		s.Deliver()
		synctest.Wait()
	}
}

func (s *simulated) slack() time.Duration { return 40 * latency }
