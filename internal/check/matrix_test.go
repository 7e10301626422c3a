package check

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/test/healthtest"
)

const (
	slowDial   = 300 * time.Millisecond
	slowServer = 600 * time.Millisecond
	forever    = "new connections fail too"
	once       = "new connections work"
)

// TestFaultMatrix is the core's proof: what breaks × on which connection × what is slow besides. The
// way in works again for new connections where the row says so; then the answer is SERVING, for a
// fault of one connection is no fault of the server. dials and rpcs count what it took, after the
// connection that the fault hit: for a reused connection that one's dial is not counted.
func TestFaultMatrix(t *testing.T) {
	t.Parallel()
	var cells []cell
	for _, slow := range []string{"nothing", "server", "dial"} {
		// How long a healthy check takes on a fresh connection.
		healthy := map[string]time.Duration{"nothing": 0, "server": slowServer, "dial": slowDial}[slow]
		const quarter, margin = 250 * time.Millisecond, 250 * time.Millisecond
		cells = append(cells,
			// A connection from before goes bad, and a new one works: never a false alarm.
			cell{"silent", "reused", slow, once, health.Serving, []health.Phase{health.PhaseNone}, 1, 2, quarter + healthy + margin},
			cell{"reset", "reused", slow, once, health.Serving, []health.Phase{health.PhaseNone}, 1, 2, healthy + margin},
			cell{"reset in the RPC", "reused", slow, once, health.Serving, []health.Phase{health.PhaseNone}, 1, 2, healthy + margin},
			cell{"GOAWAY", "reused", slow, once, health.Serving, []health.Phase{health.PhaseNone}, 1, 2, healthy + margin},
			cell{"GOAWAY in the RPC", "reused", slow, once, health.Serving, []health.Phase{health.PhaseNone}, 1, 2, healthy + margin},
			cell{"frozen", "reused", slow, once, health.Serving, []health.Phase{health.PhaseNone}, 1, 2, quarter + healthy + margin},
			// The new one fails too: that is the proof.
			cell{"silent", "reused", slow, forever, health.Timeout, []health.Phase{health.PhaseHTTP2}, 1, 1, 1250*time.Millisecond + margin},
			cell{"reset", "reused", slow, forever, health.ConnectionFailed, []health.Phase{health.PhaseConnect}, 1, 1, margin},
			cell{"reset in the RPC", "reused", slow, forever, health.ConnectionFailed, []health.Phase{health.PhaseConnect}, 1, 1, margin},
			cell{"GOAWAY in the RPC", "reused", slow, forever, health.ConnectionFailed, []health.Phase{health.PhaseConnect}, 1, 1, margin},
			cell{"frozen", "reused", slow, forever, health.Timeout, []health.Phase{health.PhaseHTTP2}, 1, 1, 1250*time.Millisecond + margin},
			// A connection that was dialled for the check.
			cell{"silent", "fresh", slow, forever, health.Timeout, []health.Phase{health.PhaseHTTP2}, 1, 0, time.Second + margin},
			cell{"silent in the RPC", "fresh", slow, forever, health.Timeout, []health.Phase{health.PhaseRPC}, 1, 1, time.Second + healthy + margin},
			cell{"reset", "fresh", slow, forever, health.ConnectionFailed, []health.Phase{health.PhaseConnect, health.PhaseHTTP2}, 1, 0, healthy + margin},
			cell{"reset in the RPC", "fresh", slow, forever, health.ConnectionFailed, []health.Phase{health.PhaseRPC}, 2, 2, 2*healthy + margin},
			cell{"reset in the RPC", "fresh", slow, once, health.Serving, []health.Phase{health.PhaseNone}, 2, 2, 2*healthy + margin},
			cell{"GOAWAY in the RPC", "fresh", slow, once, health.Serving, []health.Phase{health.PhaseNone}, 2, 2, 2*healthy + margin},
			cell{"frozen", "fresh", slow, forever, health.Timeout, []health.Phase{health.PhaseHTTP2}, 1, 0, time.Second + margin},
		)
	}
	for _, cell := range cells {
		name := fmt.Sprintf("%s/%s/%s slow/%s", cell.fault, cell.connection, cell.slow, cell.then)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for try := 1; ; try++ {
				faults, longest := cell.try(t)
				if len(faults) == 0 {
					return
				}
				// A machine so busy that this process did not run for a while has made another test of it.
				if longest > 20*time.Millisecond && try < 10 {
					t.Logf("this process was kept from running for %v: once more, after %q", longest, faults)
					continue
				}
				for _, fault := range faults {
					t.Error(fault)
				}
				return
			}
		})
	}
}

type cell struct {
	fault, connection, slow, then string
	status                        health.Status
	phases                        []health.Phase
	dials, rpcs                   int32 // at most; and at least one dial for every fault
	within                        time.Duration
}

// try runs the cell once. It returns what was wrong, and for how long at most the process was kept from running.
func (cell cell) try(t *testing.T) (faults []string, longest time.Duration) {
	wrong := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	up := healthtest.Start(t)
	up.SetStatus("s", serving)
	way := healthtest.Forward(t, up.Target())
	c := checker(t, way.Addr(), services("s"))
	if cell.connection == "reused" {
		want(t, c.Check(t.Context(), "s"), health.Serving, health.PhaseNone)
	}
	switch cell.slow {
	case "server":
		up.SetDelay("s", slowServer)
	case "dial":
		way.Hold(slowDial)
	}
	rpcsBefore, dialsBefore := c.rpcs.Load(), c.dials.Load()
	arrived := func() { eventually(t, "the RPC has arrived", func() bool { return up.InFlightFor("s") > 0 }) }
	// make is done before the check begins, meanwhile while it runs.
	meanwhile := func() {}
	blockNew := func(m healthtest.Mode) {
		if cell.then == forever {
			way.SetMode(m)
		}
	}
	switch cell.fault + " " + cell.connection {
	case "silent reused":
		way.BlackHole()
		blockNew(healthtest.Silent)
	case "reset reused":
		blockNew(healthtest.Refuse)
		way.Reset()
	case "reset in the RPC reused", "GOAWAY in the RPC reused":
		up.SetDelay("s", slowServer) // the fault must come before the answer
		meanwhile = func() {
			arrived()
			blockNew(healthtest.Refuse)
			if cell.slow != "server" {
				up.SetDelay("s", 0) // for the RPC to come
			}
			if cell.fault == "reset in the RPC" {
				way.Reset()
			} else {
				way.GoAway(0, http2.ErrCodeNo)
			}
		}
	case "GOAWAY reused":
		<-up.GoAway()
	case "frozen reused":
		way.Pause()
		if cell.then == once {
			t.Cleanup(way.Resume)
			way.Resume()
			way.BlackHole() // those there were stay as they are, new ones move
		}
	case "silent fresh":
		way.SetMode(healthtest.Silent)
	case "silent in the RPC fresh":
		defer up.Hang("s")()
	case "reset fresh":
		way.SetMode(healthtest.ResetOnAccept)
	case "reset in the RPC fresh":
		if cell.then == forever {
			way.SetMode(healthtest.CloseOnRequest)
			break
		}
		up.SetDelay("s", slowServer)
		meanwhile = func() { arrived(); way.Reset() }
	case "GOAWAY in the RPC fresh":
		up.SetDelay("s", slowServer)
		meanwhile = func() { arrived(); way.GoAway(0, http2.ErrCodeNo) }
	case "frozen fresh":
		way.Pause()
	default:
		t.Fatalf("no such fault: %s %s", cell.fault, cell.connection)
	}
	done := make(chan health.Verdict, 1)
	gap := watchGaps()
	began := time.Now()
	go func() { done <- c.Check(context.Background(), "s") }()
	meanwhile()
	v := <-done
	took := time.Since(began)
	longest = gap()
	if v.Status != cell.status || !slices.Contains(cell.phases, v.Phase) {
		wrong("verdict %v, phase %q; want %v, phase %q; cause: %v", v.Status, v.Phase, cell.status, cell.phases, v.Err)
	}
	if bound := min(cell.within, 2*time.Second) + time.Second; took > bound {
		wrong("took %v, want %v at most", took, bound)
	}
	dials, rpcs := c.dials.Load()-dialsBefore, func() int32 { return c.rpcs.Load() - rpcsBefore }
	if dials < 1 || dials > cell.dials {
		wrong("%d dials, want 1 to %d", dials, cell.dials)
	}
	eventually(t, "every RPC has ended", func() bool { return up.InFlight() == 0 || cell.fault == "silent in the RPC" })
	if n := rpcs(); n > cell.rpcs {
		wrong("%d RPCs, want %d at most", n, cell.rpcs)
	}
	if v.Status != health.Serving && (v.Err == nil || len(c.proofs) != 1 || len(c.proofs[0].Attempts) == 0) {
		wrong("cause %v, proofs %+v", v.Err, c.proofs)
	}
	return faults, longest
}

// The issue's own example: budgets 1 s + 1 s, the reused connection swallows everything, a fresh one
// takes 150 ms, the server 0.9 s to answer.
func TestSwallowedThenSlowDialThenSlowServer(t *testing.T) {
	t.Parallel()
	for try := 1; ; try++ {
		up := healthtest.Start(t)
		up.SetStatus("s", serving)
		way := healthtest.Forward(t, up.Target())
		c := checker(t, way.Addr(), services("s"))
		want(t, c.Check(t.Context(), "s"), health.Serving, health.PhaseNone)
		way.BlackHole()
		way.Hold(150 * time.Millisecond)
		up.SetDelay("s", 900*time.Millisecond)
		gap := watchGaps()
		began := time.Now()
		v := c.Check(t.Context(), "s")
		took := time.Since(began)
		// The server leaves 100 ms for all else: a machine that is busy for most of them has made another test of it.
		if longest := gap(); longest > 20*time.Millisecond && v.Status != health.Serving && try < 10 {
			t.Logf("%v after %v; this process was kept from running for %v: once more", v.Status, took, longest)
			continue
		}
		want(t, v, health.Serving, health.PhaseNone)
		t.Logf("took %v, %d dials, %d RPCs reached the server", took, way.Connections(), up.RPCsFor("s"))
		if took > 1700*time.Millisecond {
			t.Errorf("took %v, want about 1.3 s", took)
		}
		if way.Connections() != 2 || up.RPCsFor("s") != 2 {
			t.Errorf("%d connections and %d RPCs at the server, want 2 and 2", way.Connections(), up.RPCsFor("s"))
		}
		return
	}
}

// watchGaps watches how this process gets to run, until its result is called, which says for how long it did
// not at most.
func watchGaps() (longest func() time.Duration) {
	stop, found := make(chan struct{}), make(chan time.Duration)
	go func() {
		const every = time.Millisecond
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		var longest time.Duration
		for last := time.Now(); ; {
			select {
			case now := <-ticker.C:
				longest = max(longest, time.Since(last)-every)
				last = now
			case <-stop:
				found <- max(longest, time.Since(last)-every)
				return
			}
		}
	}()
	return func() time.Duration { close(stop); return <-found }
}

// Many callers of a connection that swallows everything: all are served by what one of them finds out.
func TestSwallowedUnderManyCallers(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	up.SetStatus("s", serving)
	way := healthtest.Forward(t, up.Target())
	c := checker(t, way.Addr(), services("s"), func(o *Options) { o.ConnectTimeout, o.RPCTimeout = 3*time.Second, 3*time.Second })
	want(t, c.Check(t.Context(), "s"), health.Serving, health.PhaseNone)
	way.BlackHole()
	up.SetDelay("s", 1500*time.Millisecond)
	results := make(chan health.Verdict)
	const callers = 300
	for i := range callers {
		go func() {
			time.Sleep(time.Duration(i) * time.Millisecond)
			results <- c.Check(t.Context(), "s")
		}()
	}
	for range callers {
		want(t, <-results, health.Serving, health.PhaseNone)
	}
	if n := up.MaxInFlightFor("s"); n > 8 {
		t.Errorf("%d RPCs at once", n)
	}
}

// A draining server still answers on the connections it has while it takes no new ones.
func TestSlowAnswerOnAReusedConnectionWhileNewOnesAreRefused(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	up.SetStatus("s", serving)
	way := healthtest.Forward(t, up.Target())
	c := checker(t, way.Addr(), services("s"))
	want(t, c.Check(t.Context(), "s"), health.Serving, health.PhaseNone)
	up.SetDelay("s", 600*time.Millisecond)
	way.SetMode(healthtest.Refuse)
	want(t, c.Check(t.Context(), "s"), health.Serving, health.PhaseNone)
	if c.retried("silent")+c.retried("frozen") == 0 { // a busy machine may have stopped this process first
		t.Error("no retry for the silence")
	}
}

// A slow but sound connection: the first answer wins, and both are asked at most once.
func TestSlowServerOnAReusedConnection(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	up.SetStatus("s", serving)
	c := checker(t, up.Target(), services("s"))
	want(t, c.Check(t.Context(), "s"), health.Serving, health.PhaseNone)
	up.SetDelay("s", 600*time.Millisecond)
	began := time.Now()
	want(t, c.Check(t.Context(), "s"), health.Serving, health.PhaseNone)
	if took := time.Since(began); took > 840*time.Millisecond {
		t.Errorf("took %v: the first RPC's answer after 600 ms should have won over the second's", took)
	}
	if n := up.RPCsFor("s"); n != 3 {
		t.Errorf("%d RPCs in all, want 1 + 2", n)
	}
}
