//go:build !race

package sim

import (
	"flag"
	"fmt"
	"slices"
	"testing"
	"time"
)

var (
	firstSeed   = flag.Uint64("seed", 0, "the first seed; 0 takes one from the clock")
	seedCount   = flag.Int("seeds", 0, "how many seeds; 0 is 100, or one where -seed says which")
	runFor      = flag.Duration("for", 0, "runs new seeds for so long, instead of -seeds")
	stopAtFirst = flag.Bool("first", false, "ends at the first finding, and does not minimize its schedule")
	part        = flag.String("part", "", "k/n: every n-th seed from the k-th on; for the workers that the test starts")
)

// untilStopped is more seeds than a process runs.
const untilStopped = 1 << 30

// TestSeeds runs new seeds, or those of the flags.
func TestSeeds(t *testing.T) {
	seed, seeds := *firstSeed, *seedCount
	switch {
	case *runFor > 0:
		seeds = untilStopped
	case seeds > 0:
	case seed > 0:
		seeds = 1
	default:
		seeds = 100
	}
	if seed == 0 {
		seed = uint64(time.Now().UnixMilli())
	}
	t.Logf("seeds from %d", seed)
	t.Log(share(t, seed, seeds, *runFor))
}

// TestOldSeeds runs the seeds that once failed.
func TestOldSeeds(t *testing.T) {
	if *firstSeed > 0 || *part != "" {
		t.Skip("other seeds are wanted")
	}
	for _, old := range oldSeeds {
		if r := run(t, old.seed, nil, nil); len(r.Findings) > 0 {
			t.Errorf("%s\n%s", old.found, r.report())
		}
	}
}

// TestWorker is what share starts.
func TestWorker(t *testing.T) {
	if *part == "" {
		t.Skip("only for processes that TestSeeds starts")
	}
	var k, n int
	if _, err := fmt.Sscanf(*part, "%d/%d", &k, &n); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for i := k; i < *seedCount && (*runFor == 0 || time.Since(began) < *runFor); i += n {
		seed := *firstSeed + uint64(i)
		message{Runs: seed, CPU: cpuTime()}.send()
		r := run(t, seed, nil, nil)
		if len(r.Findings) > 0 && !*stopAtFirst {
			r = minimized(t, r)
		}
		message{Runs: seed, Result: r, CPU: cpuTime()}.send()
	}
}

// minimized is the result of a seed with as few faults as give its first finding.
func minimized(t *testing.T, r *result) *result {
	kind := r.Findings[0].Kind
	least := r
	minimize(len(drawFaults(r.Seed, drawSettings(r.Seed))), func(dropped map[int]bool) bool {
		message{Runs: r.Seed, CPU: cpuTime()}.send()
		again := run(t, r.Seed, dropped, nil)
		if !slices.ContainsFunc(again.Findings, func(f finding) bool { return f.Kind == kind }) {
			return false
		}
		least = again
		return true
	})
	return least
}

func TestMinimize(t *testing.T) {
	tries := 0
	got := minimize(5, func(dropped map[int]bool) bool {
		tries++
		return !dropped[1] && !dropped[4] && tries%2 == 0 // fails every other time
	})
	if want := map[int]bool{0: true, 2: true, 3: true}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("dropped %v, want %v", got, want)
	}
}
