// Package faults is the one table of what can go wrong between a health check and its upstream, and of what
// a caller is then told. It is run against the handler that the HTTP variants share, and against the built
// container and Lambda programs. Only tests import it.
package faults

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/test/healthtest"
)

// Fault is a row of the table.
type Fault struct {
	// Name says what is wrong; rows of one name differ in Detail, and not in what they want.
	Name, Detail string
	// Fresh is what a check is told that is the program's first. Reused is what one is told that has the
	// connection of an earlier check, which the fault breaks, too, unless the row says otherwise. Nil where
	// there is no such case.
	Fresh, Reused *Want

	// place sets the stage otherwise than with a plaintext upstream behind a forwarder; nil leaves it so.
	place func(*stage)
	// begin makes the fault, before the check; nil does nothing.
	begin func(*stage)
	// during is what happens once the check's RPC has arrived; nil does nothing.
	during func(*stage)
}

// Want is what a caller is told.
type Want struct {
	Status health.Status
	// Phases are those that it may end in: which one can be a matter of a race.
	Phases []health.Phase
	// Within is how long that takes at most; the time of a machine that is busy comes on top.
	Within Bound
}

// String is the Want as the README shows it.
func (w *Want) String() string {
	if w == nil {
		return "–"
	}
	text := "`" + w.Status.String() + "`"
	if len(w.Phases) > 0 {
		names := make([]string, len(w.Phases))
		for i, p := range w.Phases {
			names[i] = string(p)
		}
		text += " in " + strings.Join(names, " or ")
	}
	return text + ", " + string(w.Within)
}

// Bound is how long an answer takes, in terms of the settings.
type Bound string

const (
	// AtOnce: nothing is waited for.
	AtOnce Bound = "at once"
	// Raced: as long as one address has before the next is tried beside it.
	Raced Bound = "0.25 s"
	// Connect: the budget for a connection.
	Connect Bound = "connect timeout"
	// RPC: the budget for the RPC.
	RPC Bound = "RPC timeout"
	// Silence: as long as a reused connection may be silent.
	Silence Bound = "RPC timeout / 4"
	// SilenceConnect: the same, and then no connection comes.
	SilenceConnect Bound = "RPC timeout / 4 + connect timeout"
	// SilenceRPC: the same, and then no answer.
	SilenceRPC Bound = "RPC timeout / 4 + RPC timeout"
	// Slow: as long as the server, or the way to it, takes.
	Slow Bound = "as slow as the server"
)

// What ends with a budget, CONNECT_TIMEOUT or RPC_TIMEOUT, has short ones; for the rest they are so long
// that who waits for one is too late.
const (
	brief = 500 * time.Millisecond
	ample = 4 * time.Second
)

// busy is what a busy machine may take besides.
const busy = 2500 * time.Millisecond

// slowness is how long a slow server takes: longer than a reused connection may be silent.
const slowness = 1300 * time.Millisecond

func (w *Want) budget() time.Duration {
	if w.Status == health.Timeout {
		return brief
	}
	return ample
}

// of is the Bound where both settings are the budget.
func (b Bound) of(budget time.Duration) time.Duration {
	return map[Bound]time.Duration{
		AtOnce:         0,
		Raced:          250 * time.Millisecond,
		Connect:        budget,
		RPC:            budget,
		Silence:        budget / 4,
		SilenceConnect: budget/4 + budget,
		SilenceRPC:     budget/4 + budget,
		Slow:           slowness,
	}[b]
}

// Start runs a program with these settings, as environment variables, until the test ends.
type Start func(t *testing.T, env ...string) Ask

// Ask makes one check, and returns the answer in JSON.
type Ask func(t *testing.T) []byte

// Run runs the table against a program, row by row side by side.
func Run(t *testing.T, start Start) {
	t.Helper()
	for _, f := range Table() {
		for _, column := range []struct {
			name string
			want *Want
		}{{"fresh", f.Fresh}, {"reused", f.Reused}} {
			if column.want == nil {
				continue
			}
			name := f.Name
			if f.Detail != "" {
				name += "/" + f.Detail
			}
			t.Run(name+"/"+column.name, func(t *testing.T) {
				t.Parallel()
				f.run(t, start, column.want, column.name == "reused")
			})
		}
	}
}

// run plays a fault. On a machine so busy that the program stood still meanwhile it is another one, which the
// program took for a freeze: then it is played again.
func (f Fault) run(t *testing.T, start Start, want *Want, reused bool) {
	t.Helper()
	const attempts = 5
	for attempt := 1; ; attempt++ {
		var stood atomic.Bool
		stop := healthtest.WatchStalls(func(time.Time, time.Time) { stood.Store(true) })
		wrong := f.play(t, start, want, reused)
		stop()
		if wrong == nil {
			return
		}
		if !stood.Load() || attempt == attempts {
			t.Error(wrong)
			return
		}
		t.Logf("once more, for the machine stood still: %v", wrong)
	}
}

// play plays a fault once. An error is what was not as wanted.
func (f Fault) play(t *testing.T, start Start, want *Want, reused bool) error {
	t.Helper()
	s := &stage{T: t}
	if f.place == nil {
		s.up = healthtest.Start(t)
	} else {
		f.place(s)
	}
	if s.way == nil {
		s.way = healthtest.Forward(t, s.up.Target())
	}
	budget := want.budget()
	ask := start(t, append(s.env,
		"GRPC_HEALTH_ADDR="+cmp.Or(s.target, s.way.Addr()),
		"GRPC_HEALTH_CONNECT_TIMEOUT="+budget.String(),
		"GRPC_HEALTH_RPC_TIMEOUT="+budget.String(),
		"GRPC_HEALTH_CONN_MAX_AGE=1m", // none is given up for its age here
	)...)
	if reused {
		eventually(t, "the upstream serves before the fault", func() bool {
			return told(t, ask(t)).Status == health.Serving.String()
		})
	}
	if f.begin != nil {
		f.begin(s)
	}
	answered := make(chan struct{})
	var during sync.WaitGroup
	if f.during != nil {
		rpcs := s.up.RPCs()
		during.Go(func() {
			for s.up.RPCs() == rpcs {
				select {
				case <-answered:
					return // without an RPC; the answer says so
				case <-time.After(time.Millisecond):
				}
			}
			f.during(s)
		})
	}
	began := time.Now()
	v := told(t, ask(t))
	took := time.Since(began)
	close(answered)
	during.Wait()
	phases := want.Phases
	if len(phases) == 0 {
		phases = []health.Phase{health.PhaseNone}
	}
	if v.Status != want.Status.String() || !slices.Contains(phases, health.Phase(v.Phase)) {
		return fmt.Errorf("told %s in phase %q (%s), want %s in %q", v.Status, v.Phase, v.Code, want.Status, phases)
	}
	if bound := want.Within.of(budget) + busy; took > bound {
		return fmt.Errorf("took %v, want %v at most", took, bound)
	}
	return nil
}

// verdict is what JSON tells of the one service that is checked here.
type verdict struct {
	Status, Phase string
	Code          string `json:"grpc_code"`
}

func told(t *testing.T, body []byte) verdict {
	t.Helper()
	var answer struct{ Services []verdict }
	if err := json.Unmarshal(body, &answer); err != nil || len(answer.Services) != 1 {
		t.Errorf("no answer about one service: %v: %s", err, body)
		return verdict{}
	}
	return answer.Services[0]
}

// stage is where a fault is played: an upstream, whose whole server is SERVING, and the way to it.
type stage struct {
	*testing.T

	up      *healthtest.Upstream
	way     *healthtest.Forwarder
	ca      *healthtest.CA         // nil without TLS
	names   *healthtest.NameServer // nil where the target is an address
	target  string                 // empty for the way's address
	env     []string               // further settings
	release func()                 // ends a hang
}

// overTLS is a stage whose upstream has TLS.
func overTLS(s *stage) {
	s.ca = healthtest.NewCA(s)
	s.up = healthtest.Start(s, healthtest.TLS(s.ca.ServerTLS(s)))
	s.env = []string{"GRPC_HEALTH_TLS=true", "GRPC_HEALTH_CA_CERT=" + s.ca.WriteFile(s, s.TempDir(), "ca")}
}

// mutually is the same, with a client certificate.
func mutually(s *stage) {
	overTLS(s)
	cert, key := s.ca.Client(s).WriteFiles(s, s.TempDir(), "client")
	s.env = append(s.env, "GRPC_HEALTH_CLIENT_CERT="+cert, "GRPC_HEALTH_CLIENT_KEY="+key)
}

// byName is a stage whose target is a name with one address.
func byName(s *stage) {
	s.up = healthtest.Start(s)
	s.way = healthtest.Forward(s, s.up.Target())
	s.names = healthtest.StartNameServer(s, "127.0.0.1")
	s.target = s.names.Target(s.port())
}

// port is that of the way.
func (s *stage) port() string {
	_, port, err := net.SplitHostPort(s.way.Addr())
	if err != nil {
		s.Fatal(err)
	}
	return port
}

// listen listens, and never accepts: the system does, and nothing more happens.
func (s *stage) listen(address string) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { listener.Close() })
}

// mode changes the way for new connections; those there are reset.
func mode(m healthtest.Mode) func(*stage) {
	return func(s *stage) {
		s.way.SetMode(m)
		s.way.Reset()
	}
}

// replaced makes new connections land at another server; those there are reset.
func replaced(other func(*stage) (target string)) func(*stage) {
	return func(s *stage) {
		s.way.SetTarget(other(s))
		s.way.Reset()
	}
}

// by is an upstream with other options.
func by(options func(*stage) []healthtest.Option) func(*stage) {
	return replaced(func(s *stage) string { return healthtest.Start(s, options(s)...).Target() })
}

// frontEnd is a server that speaks HTTP/2, and is not the one it should be.
func frontEnd(f healthtest.Fault) func(*stage) {
	return replaced(func(s *stage) string { return healthtest.StartFrontEnd(s, f).Addr() })
}

// hang leaves RPCs without an answer until release.
func hang(s *stage) {
	s.release = s.up.Hang("")
	s.Cleanup(s.release)
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	const patience = 20 * time.Second
	for end := time.Now().Add(patience); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Errorf("after %v still not: %s", patience, what)
			return
		}
	}
}
