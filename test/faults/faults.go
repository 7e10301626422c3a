// Package faults is the table of what can go wrong between a checker and its upstream, and of the verdict that each fault must
// lead to.
//
// Table returns the rows, which the manual shows. Run causes each fault for a program, and compares the verdict, its phase and the
// time that it took. The tests of the HTTP variants' handler and of the container's and Lambda's programs call it. Only tests
// import the package.
package faults

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
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
	// Name says what is wrong. Rows with the same name want the same verdict, and differ in Detail.
	Name, Detail string
	// Fresh is the verdict of the program's first check. Reused is the verdict of a check that could reuse the connection of an
	// earlier one; the fault also breaks that connection, unless the row says otherwise. Nil if there is no such case.
	Fresh, Reused *Want

	// prepare makes the fixture; nil makes a plaintext upstream behind a forwarder.
	prepare func(*fixture)
	// begin causes the fault before the check; nil does nothing.
	begin func(*fixture)
	// during runs when the check's RPC has arrived; nil does nothing.
	during func(*fixture)
}

// Want is an expected verdict.
type Want struct {
	Status health.Status
	// Phases are the phases that the check may end in. There are several where that depends on a race; none means that the
	// server answers.
	Phases []health.Phase
	// Within is how long the verdict may take on an idle machine.
	Within Bound
}

// String returns the Want as the manual shows it.
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

// Bound is how long a verdict may take, in terms of the settings.
type Bound string

const (
	// AtOnce: the check waits for nothing.
	AtOnce Bound = "at once"
	// Raced: the head start of the first address.
	Raced Bound = "0.25 s"
	// Connect: CONNECT_TIMEOUT.
	Connect Bound = "connect timeout"
	// RPC: RPC_TIMEOUT.
	RPC Bound = "RPC timeout"
	// Silence: how long a reused connection may be silent before the check also tries a new one.
	Silence Bound = "RPC timeout / 4"
	// SilenceConnect: Silence, and then a dial that times out.
	SilenceConnect Bound = "RPC timeout / 4 + connect timeout"
	// SilenceRPC: Silence, and then an RPC that times out.
	SilenceRPC Bound = "RPC timeout / 4 + RPC timeout"
	// Slow: as long as the server or the network takes.
	Slow Bound = "as slow as the server"
)

// The values of CONNECT_TIMEOUT and RPC_TIMEOUT. They are short for rows that want a timeout. For the others they are so long that a
// check that waits for one takes longer than it may.
const (
	shortTimeout = 500 * time.Millisecond
	longTimeout  = 4 * time.Second
)

// tolerance is how much longer a verdict may take on a busy machine.
const tolerance = 2500 * time.Millisecond

// slowness is how long a slow server takes to answer: longer than a reused connection may be silent.
const slowness = 1300 * time.Millisecond

// timeout returns the value of both timeouts for this row.
func (w *Want) timeout() time.Duration {
	if w.Status == health.Timeout {
		return shortTimeout
	}
	return longTimeout
}

// duration returns the Bound if both settings have the value timeout.
func (b Bound) duration(timeout time.Duration) time.Duration {
	return map[Bound]time.Duration{
		AtOnce:         0,
		Raced:          250 * time.Millisecond,
		Connect:        timeout,
		RPC:            timeout,
		Silence:        timeout / 4,
		SilenceConnect: timeout/4 + timeout,
		SilenceRPC:     timeout/4 + timeout,
		Slow:           slowness,
	}[b]
}

// Start runs a program until the test ends, with these settings as environment variables.
type Start func(t *testing.T, env ...string) Ask

// Ask makes one check, and returns the answer in JSON.
type Ask func(t *testing.T) []byte

// OverHTTP asks with a GET of the URL.
func OverHTTP(url string) Ask {
	return func(t *testing.T) []byte {
		t.Helper()
		response, err := http.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return body
	}
}

// Run checks the program against all rows of the table, in parallel.
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

// run checks one row. If the machine stalled meanwhile, a failure counts only after several tries: the program may have
// taken the stall for a freeze of its process, which is another fault.
func (f Fault) run(t *testing.T, start Start, want *Want, reused bool) {
	t.Helper()
	const tries = 5
	for try := 1; ; try++ {
		var stalled atomic.Bool
		stop := healthtest.WatchStalls(func(time.Time, time.Time) { stalled.Store(true) })
		err := f.try(t, start, want, reused)
		stop()
		if err == nil {
			return
		}
		if !stalled.Load() || try == tries {
			t.Error(err)
			return
		}
		t.Logf("trying again, because the machine stalled: %v", err)
	}
}

// try causes the fault once, and checks. The error says how the verdict differs from want.
func (f Fault) try(t *testing.T, start Start, want *Want, reused bool) error {
	t.Helper()
	x := &fixture{T: t}
	if f.prepare == nil {
		x.up = healthtest.Start(t)
	} else {
		f.prepare(x)
	}
	if x.forwarder == nil {
		x.forwarder = healthtest.Forward(t, x.up.Target())
	}
	timeout := want.timeout()
	ask := start(t, append(x.env,
		"GRPC_HEALTH_ADDR="+cmp.Or(x.target, x.forwarder.Addr()),
		"GRPC_HEALTH_CONNECT_TIMEOUT="+timeout.String(),
		"GRPC_HEALTH_RPC_TIMEOUT="+timeout.String(),
		"GRPC_HEALTH_CONN_MAX_AGE=1m", // no connection becomes too old
	)...)
	if reused {
		healthtest.Eventually(t, "the upstream is SERVING before the fault", func() bool {
			return parse(t, ask(t)).Status == health.Serving.String()
		})
	}
	if f.begin != nil {
		f.begin(x)
	}
	answered := make(chan struct{})
	var during sync.WaitGroup
	if f.during != nil {
		rpcs := x.up.RPCs()
		during.Go(func() {
			for x.up.RPCs() == rpcs {
				select {
				case <-answered:
					return // no RPC was made, and the answer will not be the wanted one
				case <-time.After(time.Millisecond):
				}
			}
			f.during(x)
		})
	}
	began := time.Now()
	v := parse(t, ask(t))
	took := time.Since(began)
	close(answered)
	during.Wait()
	phases := want.Phases
	if len(phases) == 0 {
		phases = []health.Phase{health.PhaseNone}
	}
	if v.Status != want.Status.String() || !slices.Contains(phases, health.Phase(v.Phase)) {
		return fmt.Errorf("got %s in phase %q (%s), want %s in %q", v.Status, v.Phase, v.Code, want.Status, phases)
	}
	if bound := want.Within.duration(timeout) + tolerance; took > bound {
		return fmt.Errorf("took %v, want %v at most", took, bound)
	}
	return nil
}

// verdict is the JSON of a verdict.
type verdict struct {
	Status, Phase string
	Code          string `json:"grpc_code"`
}

// parse returns the verdict of an answer about one service.
func parse(t *testing.T, body []byte) verdict {
	t.Helper()
	var answer struct{ Services []verdict }
	if err := json.Unmarshal(body, &answer); err != nil || len(answer.Services) != 1 {
		t.Errorf("no answer about one service: %v: %s", err, body)
		return verdict{}
	}
	return answer.Services[0]
}

// fixture is what a fault needs: an upstream, whose whole server is SERVING, and a forwarder in front of it.
type fixture struct {
	*testing.T

	up        *healthtest.Upstream
	forwarder *healthtest.Forwarder
	ca        *healthtest.CA         // nil without TLS
	names     *healthtest.NameServer // nil if the target is an address
	target    string                 // empty for the forwarder's address
	env       []string               // further settings
	release   func()                 // ends a hang
}

// withTLS prepares an upstream with TLS.
func withTLS(x *fixture) {
	x.ca = healthtest.NewCA(x)
	x.up = healthtest.Start(x, healthtest.TLS(x.ca.ServerTLS(x)))
	x.env = []string{"GRPC_HEALTH_TLS=true", "GRPC_HEALTH_CA_CERT=" + x.ca.WriteFile(x, x.TempDir(), "ca")}
}

// withMutualTLS prepares an upstream with TLS, and gives the program a client certificate.
func withMutualTLS(x *fixture) {
	withTLS(x)
	cert, key := x.ca.Client(x).WriteFiles(x, x.TempDir(), "client")
	x.env = append(x.env, "GRPC_HEALTH_CLIENT_CERT="+cert, "GRPC_HEALTH_CLIENT_KEY="+key)
}

// withName prepares a target that is a name with one address.
func withName(x *fixture) {
	x.up = healthtest.Start(x)
	x.forwarder = healthtest.Forward(x, x.up.Target())
	x.names = healthtest.StartNameServer(x, "127.0.0.1")
	x.target = x.names.Target(x.port())
}

// port returns the forwarder's port.
func (x *fixture) port() string {
	_, port, err := net.SplitHostPort(x.forwarder.Addr())
	if err != nil {
		x.Fatal(err)
	}
	return port
}

// listen listens, and never accepts: clients are connected, and nothing more happens.
func (x *fixture) listen(address string) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		x.Fatal(err)
	}
	x.Cleanup(func() { listener.Close() })
}

// mode gives the forwarder a mode for new connections, and resets the established ones.
func mode(m healthtest.Mode) func(*fixture) {
	return func(x *fixture) {
		x.forwarder.SetMode(m)
		x.forwarder.Reset()
	}
}

// anotherServer makes new connections go to another server, and resets the established ones.
func anotherServer(other func(*fixture) (target string)) func(*fixture) {
	return func(x *fixture) {
		x.forwarder.SetTarget(other(x))
		x.forwarder.Reset()
	}
}

// anotherUpstream makes new connections go to an upstream with other options.
func anotherUpstream(options func(*fixture) []healthtest.Option) func(*fixture) {
	return anotherServer(func(x *fixture) string { return healthtest.Start(x, options(x)...).Target() })
}

// frontEnd makes new connections go to an HTTP/2 server that does not answer as a gRPC server should.
func frontEnd(f healthtest.Fault) func(*fixture) {
	return anotherServer(func(x *fixture) string { return healthtest.StartFrontEnd(x, f).Addr() })
}

// hang leaves RPCs without an answer until release is called.
func hang(x *fixture) {
	x.release = x.up.Hang("")
	x.Cleanup(x.release)
}
