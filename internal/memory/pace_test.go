package memory

import (
	"fmt"
	"os"
	"os/exec"
	"runtime/metrics"
	"slices"
	"strings"
	"testing"
	"time"
)

// Much garbage is allowed while collections follow each other closely, and no more once they do not.
func TestPace(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	now := time.Now()
	p := &pace{percent: usual}
	for i, step := range []struct {
		after   time.Duration // of each collection after the one before it
		times   int
		percent int // at the end
	}{
		{time.Hour, 1, usual},
		{110 * ms, 30, usual}, // as with bursts of checks: not often enough to matter
		{2 * time.Second, 1, usual},
		{90 * ms, 9, usual},
		{90 * ms, 1, 2 * usual},
		{ms, 10, 4 * usual},
		{ms, 10, most},
		{ms, 100, most},
		{200 * ms, 50, most}, // with less garbage they would be frequent again
		{300 * ms, 4, most / 2},
		{600 * ms, 2, most / 4},
		{600 * ms, 2, usual},
		{ms, 1000, most},
		{2 * time.Minute, 1, usual},
		{2 * time.Minute, 5, usual},
	} {
		for range step.times {
			before := p.percent
			now = now.Add(step.after)
			if changed := p.collected(now); changed != (p.percent != before) {
				t.Errorf("step %d: %d percent after %d, changed: %v", i, p.percent, before, changed)
			}
		}
		if p.percent != step.percent {
			t.Errorf("step %d: %d percent, want %d", i, p.percent, step.percent)
		}
	}
}

// keepPace sets the runtime's percentage, unless GOGC is set: in processes of their own, because the program does this once.
func TestKeepPace(t *testing.T) {
	const child, goGC = "TEST_KEEP_PACE", "GOGC"
	if os.Getenv(child) != "" {
		keepPace(os.Getenv)
		for range 30 {
			allocate(3)
			if percent() > usual {
				fmt.Println("more garbage")
				return
			}
		}
		fmt.Println("as before")
		return
	}
	for value, want := range map[string]string{"": "more garbage", "50": "as before"} {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKeepPace$")
		cmd.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, goGC+"=") }), child+"=1", goGC+"="+value)
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), want) {
			t.Errorf("with %s=%s: %v, want %q of\n%s", goGC, value, err, want, out)
		}
	}
}

var sink []byte // what is assigned to it is on the heap

// allocate has garbage collected so many times.
func allocate(times uint64) {
	for end := collections() + times; collections() < end; {
		sink = make([]byte, 1<<20)
	}
}

func collections() uint64 { return read("/gc/cycles/total:gc-cycles") }

func percent() uint64 { return read("/gc/gogc:percent") }

func read(name string) uint64 {
	sample := []metrics.Sample{{Name: name}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}
