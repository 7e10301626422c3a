package check

import (
	"sync"
	"testing"

	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/test/healthtest"
)

// The bounds are well above what is allocated today, the server's part of an RPC included (229 and 7), and far below
// an RPC for every caller.
const (
	allocsAlone  = 400
	allocsShared = 40
)

// Not parallel: what other tests allocate would count.
func TestAllocations(t *testing.T) {
	up := healthtest.Start(t)
	up.SetStatus("s", serving)
	c := checker(t, up.Target(), services("s"))
	check := func() { want(t, c.Check(t.Context(), "s"), health.Serving, health.PhaseNone) }
	check()
	if n := testing.AllocsPerRun(100, check); n > allocsAlone {
		t.Errorf("a check allocates %v times, want %d at most", n, allocsAlone)
	}
	const callers = 100
	n := testing.AllocsPerRun(20, func() {
		var all sync.WaitGroup
		for range callers {
			all.Go(check)
		}
		all.Wait()
	})
	if n /= callers; n > allocsShared {
		t.Errorf("one of %d callers at a time allocates %v times, want %d at most", callers, n, allocsShared)
	}
}
