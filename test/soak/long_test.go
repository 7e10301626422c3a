//go:build long

package main

import (
	"os"
	"slices"
	"testing"
	"time"
)

// soakFor is how long the test's soak takes.
const soakFor = 20 * time.Second

// TestWithoutProof shows that the soak finds false verdicts: a checker that trusts its one connection raises false alarms, and one
// that caches verdicts also gives false comfort.
func TestWithoutProof(t *testing.T) {
	t.Parallel()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		cache string
		wants []finding
	}{
		"one connection": {"0s", []finding{falseAlarm}},
		"a cache":        {"1s", []finding{falseAlarm, falseComfort}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// Each run has other faults, so run several times.
			for range 8 {
				r := soaked(t, config{program: program, settings: []string{naiveCache + "=" + test.cache}, length: 6 * time.Second})
				test.wants = slices.DeleteFunc(test.wants, func(f finding) bool { return r.findings[f] > 0 })
				if len(test.wants) == 0 {
					return
				}
			}
			t.Errorf("never found: %v", test.wants)
		})
	}
}
