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

// way is how connections reach the upstream, with faults to switch on.
type way interface {
	BlackHole()
	Reset()
	GoAway(lastStreamID uint32, code http2.ErrCode)
	SetMode(healthtest.Mode)
	Hold(time.Duration)
}

// faultMatrix is the core's proof: what breaks × on which connection × what is slow besides. The
// way in works again for new connections where the row says so; then the answer is SERVING, for a
// fault of one connection is no fault of the server. dials and rpcs count what it took, after the
// connection that the fault hit: for a reused connection that one's dial is not counted.
func faultMatrix() (cells []cell) {
	for _, slow := range []string{"nothing", "server", "dial"} {
		// How long a healthy check takes on a fresh connection.
		healthy := map[string]time.Duration{"nothing": 0, "server": slowServer, "dial": slowDial}[slow]
		dial := map[string]time.Duration{"dial": slowDial}[slow]
		const quarter = 250 * time.Millisecond
		cells = append(cells,
			// A connection from before goes bad, and a new one works: never a false alarm.
			cell{"silent", "reused", slow, once, health.Serving, []health.Phase{health.PhaseNone}, 1, 2, quarter + healthy},
			cell{"reset", "reused", slow, once, health.Serving, []health.Phase{health.PhaseNone}, 1, 2, healthy},
			cell{"reset in the RPC", "reused", slow, once, health.Serving, []health.Phase{health.PhaseNone}, 1, 2, healthy},
			cell{"GOAWAY", "reused", slow, once, health.Serving, []health.Phase{health.PhaseNone}, 1, 2, healthy},
			cell{"GOAWAY in the RPC", "reused", slow, once, health.Serving, []health.Phase{health.PhaseNone}, 1, 2, healthy},
			cell{"frozen", "reused", slow, once, health.Serving, []health.Phase{health.PhaseNone}, 1, 2, quarter + healthy},
			// The new one fails too: that is the proof.
			cell{"silent", "reused", slow, forever, health.Timeout, []health.Phase{health.PhaseHTTP2}, 1, 1, 1250 * time.Millisecond},
			cell{"reset", "reused", slow, forever, health.ConnectionFailed, []health.Phase{health.PhaseConnect}, 1, 1, 0},
			cell{"reset in the RPC", "reused", slow, forever, health.ConnectionFailed, []health.Phase{health.PhaseConnect}, 1, 1, 0},
			cell{"GOAWAY in the RPC", "reused", slow, forever, health.ConnectionFailed, []health.Phase{health.PhaseConnect}, 1, 1, 0},
			cell{"frozen", "reused", slow, forever, health.Timeout, []health.Phase{health.PhaseHTTP2}, 1, 1, 1250 * time.Millisecond},
			// A connection that was dialled for the check.
			cell{"silent", "fresh", slow, forever, health.Timeout, []health.Phase{health.PhaseHTTP2}, 1, 0, time.Second},
			cell{"silent in the RPC", "fresh", slow, forever, health.Timeout, []health.Phase{health.PhaseRPC}, 1, 1, time.Second + healthy},
			cell{"reset", "fresh", slow, forever, health.ConnectionFailed, []health.Phase{health.PhaseConnect, health.PhaseHTTP2}, 1, 0, healthy},
			cell{"reset in the RPC", "fresh", slow, forever, health.ConnectionFailed, []health.Phase{health.PhaseRPC}, 2, 2, 2 * healthy},
			cell{"reset in the RPC", "fresh", slow, once, health.Serving, []health.Phase{health.PhaseNone}, 2, 2, slowServer + 2*dial},
			cell{"GOAWAY in the RPC", "fresh", slow, once, health.Serving, []health.Phase{health.PhaseNone}, 2, 2, slowServer + 2*dial},
			cell{"frozen", "fresh", slow, forever, health.Timeout, []health.Phase{health.PhaseHTTP2}, 1, 0, time.Second},
		)
	}
	return cells
}

// TestFaultMatrix runs the matrix in bubbles of time.
func TestFaultMatrix(t *testing.T) {
	t.Parallel()
	for _, cell := range faultMatrix() {
		if cell.fault == "frozen" {
			continue // silence to the client; over sockets it is another thing
		}
		t.Run(cell.String(), func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T, up *healthtest.Upstream, way *healthtest.Memory, c *counted) {
				for _, fault := range cell.try(t, up, way, nil, c, 20*time.Millisecond) {
					t.Error(fault)
				}
			}, services("s"))
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

func (cell cell) String() string {
	return fmt.Sprintf("%s/%s/%s slow/%s", cell.fault, cell.connection, cell.slow, cell.then)
}

// try runs the cell once, and returns what was wrong. freeze is for the cells whose fault is "frozen". The check may take
// longer than the cell says by margin.
func (cell cell) try(t *testing.T, up *healthtest.Upstream, way way, freeze func(forever bool), c *counted, margin time.Duration) (faults []string) {
	wrong := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	up.SetStatus("s", serving)
	if cell.connection == "reused" {
		if v := c.Check(t.Context(), "s"); v.Status != health.Serving {
			wrong("before the fault: %v, %v", v.Status, v.Err)
			return faults
		}
		time.Sleep(time.Millisecond) // for the connection to be older than the next check, also in a bubble
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
	case "frozen reused", "frozen fresh":
		freeze(cell.then == forever)
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
	default:
		t.Fatalf("no such fault: %s %s", cell.fault, cell.connection)
	}
	done := make(chan health.Verdict, 1)
	began := time.Now()
	go func() { done <- c.Check(context.Background(), "s") }()
	meanwhile()
	v := <-done
	took := time.Since(began)
	if v.Status != cell.status || !slices.Contains(cell.phases, v.Phase) {
		wrong("verdict %v, phase %q; want %v, phase %q; cause: %v", v.Status, v.Phase, cell.status, cell.phases, v.Err)
	}
	if bound := min(cell.within, 2*time.Second) + margin; took > bound {
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
	return faults
}
