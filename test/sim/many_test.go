//go:build !race

package sim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"example.com/grpc-health-http/internal/check"
	"example.com/grpc-health-http/internal/dial"
	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/internal/target"
	"example.com/grpc-health-http/test/simnet"
)

// quick is within what a check of a sound target is over that need not wait: lookup, TCP, HTTP/2 and the RPC, of which each packet
// takes a millisecond and a quarter at most.
const quick = 15 * time.Millisecond

// fleet is many targets that one process checks.
type fleet struct {
	t       *testing.T
	limit   int
	net     *simnet.Net
	process *check.Process
	server  *grpc.Server
	serving sync.WaitGroup
	targets []*upstream

	mu       sync.Mutex
	dialling int // dials that are at the network
	asked    []*asked
}

// upstream is one of the targets.
type upstream struct {
	fleet   *fleet
	name    string
	options check.Options
	hangs   simnet.Mode   // what happens to connections; Pass is a target that answers
	dial    time.Duration // that a connection takes
	rpc     time.Duration // that an RPC takes
	checker *check.Checker
}

// asked is a check, and its verdict.
type asked struct {
	of       *upstream
	service  string
	from, to time.Time
	left     bool
	health.Verdict
}

func (a *asked) took() time.Duration { return a.to.Sub(a.from) }

func (a *asked) String() string {
	return fmt.Sprintf("%s %q: %v in phase %q after %v: %v", a.of.name, a.service, a.Status, a.Phase, a.took(), a.Err)
}

// many runs a test of n targets, of which up to limit are dialled at once. each may change one; then they are checked by test.
func many(t *testing.T, limit, n int, each func(i int, u *upstream), test func(f *fleet)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := &fleet{t: t, limit: limit, net: simnet.New(1, time.Millisecond), process: check.NewProcess(nil, limit, 0), server: grpc.NewServer()}
		var addresses []string
		broken := make(map[simnet.Mode][]string)
		for i := range n {
			ip := netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)})
			u := &upstream{fleet: f, name: netip.AddrPortFrom(ip, port).String()}
			u.options = check.Options{
				Options:    dial.Options{ConnectTimeout: time.Second, Connect: u.connect},
				RPCTimeout: time.Second, MaxAge: 10 * time.Second, Services: []string{"s"}, Process: f.process,
			}
			each(i, u)
			var err error
			if u.options.Target, err = target.Parse(u.name); err != nil {
				t.Fatal(err)
			}
			u.checker = check.New(u.options)
			f.targets = append(f.targets, u)
			addresses = append(addresses, u.name)
			if u.hangs != simnet.Pass {
				broken[u.hangs] = append(broken[u.hangs], u.name)
			}
		}
		for mode, of := range broken {
			f.net.Impair(mode, of...)
		}
		healthpb.RegisterHealthServer(f.server, &fleetService{fleet: f})
		listener := f.net.Listen(addresses...)
		f.serving.Go(func() { f.server.Serve(listener) })
		test(f)
		f.end()
	})
}

// end looks for what is left a while after the last check, and ends everything.
func (f *fleet) end() {
	age := time.Duration(0)
	for _, u := range f.targets {
		age = max(age, u.options.MaxAge)
	}
	time.Sleep(age + closedWithin)
	synctest.Wait()
	if n := len(f.net.Open()); n > 0 {
		f.t.Errorf("%d connections are left at their age", n)
	}
	if used, waiting := f.process.Dials(); used+waiting > 0 {
		f.t.Errorf("%d turns are left, and %d wait", used, waiting)
	}
	for _, u := range f.targets {
		u.checker.Close()
	}
	f.process.Close()
	f.server.Stop()
	f.serving.Wait()
}

// connect opens a connection, and counts it.
func (u *upstream) connect(ctx context.Context, network, address string) (net.Conn, error) {
	f := u.fleet
	f.mu.Lock()
	f.dialling++
	if f.dialling > f.limit {
		f.t.Errorf("%d dials at once, want %d at most", f.dialling, f.limit)
	}
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.dialling--
	}()
	if err := simnet.Sleep(ctx, u.dial); err != nil {
		return nil, err
	}
	return f.net.Connect(ctx, network, address)
}

// fleetService is the health service of all targets.
type fleetService struct {
	healthpb.UnimplementedHealthServer
	fleet *fleet
}

// Check implements the RPC.
func (s *fleetService) Check(ctx context.Context, _ *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	name := strings.Join(md.Get(":authority"), "")
	i := slices.IndexFunc(s.fleet.targets, func(u *upstream) bool { return u.name == name })
	if err := simnet.Sleep(ctx, s.fleet.targets[i].rpc); err != nil {
		return nil, status.FromContextError(err).Err()
	}
	return &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVING}, nil
}

// ask checks a service of a target.
func (u *upstream) ask(ctx context.Context, service string) *asked {
	a := &asked{of: u, service: service, from: time.Now()}
	a.Verdict = u.checker.Check(ctx, service)
	a.to = time.Now()
	if limit := u.options.ConnectTimeout + u.options.RPCTimeout; a.took() > limit {
		u.fleet.t.Errorf("late: %v", a)
	}
	u.fleet.mu.Lock()
	defer u.fleet.mu.Unlock()
	u.fleet.asked = append(u.fleet.asked, a)
	return a
}

// want checks a verdict, and that it came within a time.
func (a *asked) want(status health.Status, phase health.Phase, within time.Duration) {
	if a.Status != status || a.Phase != phase || a.took() > within {
		a.of.fleet.t.Errorf("%v; want %v in phase %q within %v", a, status, phase, within)
	}
}

// sizes of the everyday run, and with -tags long those of a process.
type sizes struct{ limit, targets, hanging, atOnce, hangingAtOnce int }

// At an interval of 10 s a fifth of the targets hang, and the others do not notice; nor that callers make names up all the time, for
// which one of those that hang is dialled over and over.
func TestManyAtAnInterval(t *testing.T) {
	const interval = 10 * time.Second
	hangs := func(i int) bool { return i%(size.targets/size.hanging) == 0 }
	many(t, size.limit, size.targets, func(i int, u *upstream) {
		u.options.CheckedEvery = interval
		if hangs(i) {
			u.hangs = []simnet.Mode{simnet.LoseSYN, simnet.Mute}[i%2]
		}
		if i == 0 {
			u.options.MaxAge = 0
		}
	}, func(f *fleet) {
		over := time.Now().Add(3 * interval)
		var all sync.WaitGroup
		for i := range min(2*f.limit, 96) { // RPCs for made-up names have a limit of their own, above this
			all.Go(func() {
				for time.Now().Before(over) {
					if a := f.targets[0].ask(f.t.Context(), fmt.Sprint("made up ", i)); a.Status != health.Overloaded {
						a.want(health.Timeout, health.PhaseConnect, 2*time.Second)
					}
				}
			})
		}
		for i, u := range f.targets {
			all.Go(func() {
				time.Sleep(interval * time.Duration(i) / time.Duration(len(f.targets)))
				for range 3 {
					next := time.Now().Add(interval)
					a := u.ask(f.t.Context(), "s")
					switch {
					case u.hangs == simnet.LoseSYN:
						a.want(health.Timeout, health.PhaseConnect, time.Second)
					case u.hangs == simnet.Mute:
						a.want(health.Timeout, health.PhaseHTTP2, time.Second)
					default:
						a.want(health.Serving, health.PhaseNone, quick)
					}
					synctest.Wait()
					if u.hangs == simnet.Pass && len(f.net.Open()) > f.limit {
						t.Errorf("%d connections are kept until the next check, which comes at their age", len(f.net.Open()))
					}
					time.Sleep(time.Until(next))
				}
			})
		}
		all.Wait()
	})
}

// Asked all at once, those that hang come first.
func TestManyAtOnce(t *testing.T) {
	many(t, size.limit, size.atOnce, func(i int, u *upstream) {
		if i < size.hangingAtOnce {
			u.hangs = simnet.LoseSYN
		}
	}, func(f *fleet) {
		var all sync.WaitGroup
		for _, u := range f.targets {
			all.Go(func() {
				if a := u.ask(f.t.Context(), "s"); u.hangs == simnet.Pass {
					a.want(health.Serving, health.PhaseNone, 3*quick) // the second or third to get a turn
				} else {
					a.want(health.Timeout, health.PhaseConnect, time.Second)
				}
			})
			synctest.Wait()
		}
		all.Wait()
	})
}

// A target that would take all turns leaves those to others that they need, and so do callers who make names up.
func TestManyBesideOneThatDialsMuch(t *testing.T) {
	for _, tt := range []struct {
		name     string
		services []string
		greedy   int
	}{
		{"what is configured", []string{"0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15"}, 1},
		{"a made-up name", []string{"s"}, 1},
		{"made-up names of several targets", []string{"s"}, 4},
	} {
		t.Run(tt.name, func(t *testing.T) {
			many(t, 8, 20, func(i int, u *upstream) {
				if i < tt.greedy {
					u.hangs, u.options.MaxAge, u.options.Services = simnet.LoseSYN, 0, tt.services
				}
			}, func(f *fleet) {
				var all sync.WaitGroup
				for _, u := range f.targets[:tt.greedy] {
					for i := range 16 {
						all.Go(func() {
							a := u.ask(f.t.Context(), fmt.Sprint(i))
							if a.Status != health.Overloaded {
								a.want(health.Timeout, health.PhaseConnect, 2*time.Second)
							}
						})
					}
				}
				synctest.Wait()
				for _, u := range f.targets[tt.greedy:] {
					all.Go(func() { u.ask(f.t.Context(), "s").want(health.Serving, health.PhaseNone, 8*quick) })
				}
				all.Wait()
			})
		})
	}
}

// Dials come in the order of the times by which they are needed, and not of their arrival.
func TestManyWithDifferentBudgets(t *testing.T) {
	const patient = 40
	many(t, 8, patient+8, func(i int, u *upstream) {
		u.dial = 300 * time.Millisecond
		u.options.ConnectTimeout, u.options.RPCTimeout = 20*time.Second, 10*time.Second
		if i >= patient {
			u.options.ConnectTimeout, u.options.RPCTimeout = 500*time.Millisecond, 500*time.Millisecond
		}
	}, func(f *fleet) {
		var all sync.WaitGroup
		for _, u := range f.targets {
			all.Go(func() { u.ask(f.t.Context(), "s").want(health.Serving, health.PhaseNone, 30*time.Second) })
			synctest.Wait()
		}
		all.Wait()
	})
}

// A target that gets no turn does not count as failed, whatever comes of the others: it is OVERLOADED once it is too late for a turn.
func TestManyWithoutATurn(t *testing.T) {
	many(t, 8, 16, func(i int, u *upstream) {
		if i < 8 {
			u.hangs, u.options.ConnectTimeout = simnet.LoseSYN, 10*time.Second
		}
	}, func(f *fleet) {
		var all sync.WaitGroup
		for _, u := range f.targets {
			all.Go(func() {
				if a := u.ask(f.t.Context(), "s"); u.hangs == simnet.Pass {
					a.want(health.Overloaded, health.PhaseNone, 1500*time.Millisecond)
				} else {
					a.want(health.Timeout, health.PhaseConnect, 10*time.Second)
				}
			})
			synctest.Wait()
		}
		all.Wait()
		for _, u := range f.targets[8:] { // now there are turns
			u.ask(f.t.Context(), "s").want(health.Serving, health.PhaseNone, quick)
		}
	})
}

// Drawn fleets: targets that answer slowly but within their time-outs, or hang, and callers who come and leave. No target that answers
// fails, and OVERLOADED is what only those hear who were there while dials had to wait.
func TestManySeeds(t *testing.T) {
	for seed := range uint64(manySeeds) {
		if !t.Run(fmt.Sprint(seed), func(t *testing.T) { drawnFleet(t, seed) }) {
			return
		}
	}
}

func drawnFleet(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 0))
	limit := 4 + r.IntN(5)
	many(t, limit, 4+r.IntN(20), func(i int, u *upstream) {
		o := &u.options
		o.ConnectTimeout = pick(r, 300*time.Millisecond, time.Second, 2*time.Second)
		o.RPCTimeout = pick(r, 300*time.Millisecond, time.Second, 2*time.Second)
		o.MaxAge = pick(r, 0, 500*time.Millisecond, 2*time.Second, 10*time.Second)
		o.CheckedEvery = pick(r, 0, 2*time.Second)
		o.Services = pick(r, []string{"s"}, []string{"s", "t"})
		u.hangs = pick(r, simnet.Pass, simnet.Pass, simnet.Pass, simnet.LoseSYN, simnet.Mute, simnet.Refuse)
		u.dial = pick(r, 0, 0, upTo(r, o.ConnectTimeout*9/10))
		u.rpc = pick(r, 0, 0, upTo(r, o.RPCTimeout*9/10))
	}, func(f *fleet) {
		over := make(chan struct{})
		var waits []time.Time // when somebody waited
		var watching, all sync.WaitGroup
		watching.Go(func() {
			for {
				if used, waiting := f.process.Dials(); waiting > 0 || used >= limit-limit/2 {
					waits = append(waits, time.Now())
				}
				select {
				case <-over:
					return
				case <-time.After(time.Millisecond):
				}
			}
		})
		for i, u := range f.targets {
			for c := range 1 + r.IntN(4) {
				r := rand.New(rand.NewPCG(seed, uint64(1000*i+c+1)))
				all.Go(func() {
					for range 8 {
						u.askAsDrawn(r)
						time.Sleep(upTo(r, 1500*time.Millisecond))
					}
				})
			}
		}
		all.Wait()
		close(over)
		watching.Wait()
		for _, a := range f.asked {
			if wrong := a.judge(waits); wrong != "" {
				t.Errorf("%s: %v", wrong, a)
			}
		}
	})
}

// askAsDrawn asks as a caller does who may ask for a made-up name, and may leave.
func (u *upstream) askAsDrawn(r *rand.Rand) {
	ctx, cancel := context.WithCancel(u.fleet.t.Context())
	defer cancel()
	service := pick(r, "s", "s", "s", "t", "made up 1", "made up 2")
	if r.IntN(4) > 0 {
		u.ask(ctx, service)
		return
	}
	leaving := time.AfterFunc(upTo(r, time.Second), cancel)
	defer leaving.Stop()
	a := u.ask(ctx, service)
	a.left = ctx.Err() != nil
}

// judge says what is wrong with a verdict; empty where nothing is. waits are when dials were, or could be, kept waiting.
func (a *asked) judge(waits []time.Time) string {
	var allowed []health.Status
	switch a.of.hangs {
	case simnet.Pass:
		allowed = []health.Status{health.Serving}
	case simnet.Refuse:
		allowed = []health.Status{health.ConnectionFailed}
	default:
		allowed = []health.Status{health.Timeout}
	}
	switch {
	case a.left || slices.Contains(allowed, a.Status):
		return ""
	case a.Status != health.Overloaded:
		return "a false verdict"
	}
	i, _ := slices.BinarySearchFunc(waits, a.from.Add(-time.Millisecond), time.Time.Compare)
	if i < len(waits) && !waits[i].After(a.to.Add(time.Millisecond)) {
		return ""
	}
	return "overloaded without need"
}
