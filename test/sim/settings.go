//go:build !race

package sim

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"example.com/grpc-health-http/test/simnet"
)

// Streams of random numbers: each actor has its own, so that one more number for one of them changes nothing for the others.
const (
	settingsStream = iota
	scheduleStream
	statusStream
	callerStream = 1 << 10 // and those that follow, one for each caller
	faultStream  = 1 << 20 // and those that follow, one for each fault
)

func randomOf(seed uint64, stream int) *rand.Rand {
	return rand.New(rand.NewPCG(seed, uint64(stream)))
}

// host and port are the target.
const (
	host = "upstream.test"
	port = 50051
)

// address is one of the target's.
type address struct {
	ip   netip.Addr
	dead simnet.Mode // what happens to connections; Pass for an address that the server listens on
}

func (a address) String() string {
	if a.dead == simnet.Pass {
		return a.text()
	}
	return fmt.Sprintf("%s (mode %d)", a.text(), a.dead)
}

func (a address) text() string { return netip.AddrPortFrom(a.ip, port).String() }

// settings are those of a seed: the checker's, and the world's.
type settings struct {
	services       []string // none is the whole server
	connectTimeout time.Duration
	rpcTimeout     time.Duration
	maxAge         time.Duration
	redial         time.Duration
	maxConcurrent  int
	tls            bool
	metadata       bool
	named          bool // the target is a name; else the address of the only one
	addresses      []address
	latency        time.Duration
	streams        uint32 // 0 is no limit
	callers        int
	inventive      int           // callers who ask for made-up names alone
	think          time.Duration // the longest pause of a caller
	overlap        bool          // faults may overlap
}

// shorter is the shorter of the two budgets, by which the world's times are measured.
func (s *settings) shorter() time.Duration { return min(s.connectTimeout, s.rpcTimeout) }

// budget is how long an answer may take.
func (s *settings) budget() time.Duration { return s.connectTimeout + s.rpcTimeout }

// configured are the names of the configured services.
func (s *settings) configured() []string {
	if len(s.services) == 0 {
		return []string{""}
	}
	return s.services
}

func (s *settings) String() string {
	return fmt.Sprintf("services %q, connect timeout %v, RPC timeout %v, max age %v, redial %v, max concurrent %d, TLS %v, metadata %v, addresses %v, "+
		"latency %v, streams %d, callers %d (%d of them inventive), think time %v, overlap %v", s.services, s.connectTimeout, s.rpcTimeout, s.maxAge, s.redial,
		s.maxConcurrent, s.tls, s.metadata, s.addresses, s.latency, s.streams, s.callers, s.inventive, s.think, s.overlap)
}

func pick[T any](r *rand.Rand, all ...T) T { return all[r.IntN(len(all))] }

// upTo draws a duration below longest.
func upTo(r *rand.Rand, longest time.Duration) time.Duration {
	return time.Duration(r.Int64N(int64(max(longest, 1))))
}

// drawSettings draws a seed's settings.
func drawSettings(seed uint64) *settings {
	r := randomOf(seed, settingsStream)
	s := &settings{
		services:       pick(r, nil, []string{"a"}, []string{"a", "b"}, []string{"a", "b", "c"}),
		connectTimeout: pick(r, 300*time.Millisecond, time.Second, time.Second, 2*time.Second),
		rpcTimeout:     pick(r, 400*time.Millisecond, time.Second, time.Second, 2*time.Second),
		maxAge:         pick(r, 0, time.Millisecond, 700*time.Millisecond, 700*time.Millisecond, 2*time.Second, 2*time.Second, 2*time.Second, 10*time.Second),
		redial:         pick(r, 0, 0, 0, 0, 50*time.Millisecond),
		maxConcurrent:  pick(r, 1, 3, 5, 8),
		tls:            r.IntN(4) == 0,
		metadata:       r.IntN(4) == 0,
		callers:        1 + r.IntN(16),
		think:          15*time.Millisecond + upTo(r, 200*time.Millisecond),
		overlap:        r.IntN(3) == 0,
	}
	s.latency = 100*time.Microsecond + upTo(r, s.shorter()/150)
	if r.IntN(6) == 0 {
		s.callers *= 4
	}
	if r.IntN(4) == 0 {
		s.streams = uint32(1 + r.IntN(20))
	}
	if r.IntN(3) == 0 {
		s.inventive = s.callers / 3
	}
	s.addresses = []address{{ip: netip.MustParseAddr("192.0.2.1")}}
	if s.named = r.IntN(2) == 0; s.named {
		s.drawAddresses(r)
	}
	return s
}

// drawAddresses draws up to four addresses. The server listens on one at least.
func (s *settings) drawAddresses(r *rand.Rand) {
	s.addresses = nil
	alive := false
	for i := range 1 + r.IntN(4) {
		a := address{ip: netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)})}
		if r.IntN(2) == 0 {
			a.ip = netip.AddrFrom16([16]byte{0: 0x20, 1: 0x01, 2: 0x0d, 3: 0xb8, 15: byte(i + 1)})
		}
		if r.IntN(3) == 0 {
			a.dead = pick(r, simnet.Refuse, simnet.LoseSYN, simnet.Mute)
		}
		alive = alive || a.dead == simnet.Pass
		s.addresses = append(s.addresses, a)
	}
	if !alive {
		s.addresses[r.IntN(len(s.addresses))].dead = simnet.Pass
	}
}

// alive are the addresses that the server listens on.
func (s *settings) alive() []string {
	var all []string
	for _, a := range s.addresses {
		if a.dead == simnet.Pass {
			all = append(all, a.text())
		}
	}
	return all
}

// headStart is how much later the last address is tried than the first.
func (s *settings) headStart() time.Duration {
	n := time.Duration(len(s.addresses))
	if !slices.ContainsFunc(s.addresses, func(a address) bool { return a.dead != simnet.Pass }) {
		return 0
	}
	return (n - 1) * min(250*time.Millisecond, s.connectTimeout/n)
}
