//go:build !race

package reality

import (
	"reflect"
	"slices"
	"testing"

	"example.com/grpc-health-http/test/sim"
	"example.com/grpc-health-http/test/simnet"
)

// TestKinds finds kinds of faults, modes and breaks of the simulation that no scenario holds to reality.
func TestKinds(t *testing.T) {
	t.Parallel()
	all := scenarios()
	for _, kind := range sim.Kinds() {
		if !slices.ContainsFunc(all, func(s scenario) bool { return slices.Contains(s.kinds, kind) }) {
			t.Errorf("no scenario is of the kind %q", kind)
		}
	}
	for _, s := range all {
		for _, kind := range s.kinds {
			if !slices.Contains(sim.Kinds(), kind) {
				t.Errorf("%s: there is no kind %q", s.name, kind)
			}
		}
	}
	for mode := simnet.Pass + 1; int(mode) < simnet.Modes; mode++ {
		if !slices.ContainsFunc(all, func(s scenario) bool { return s.mode == mode && s.onlySimulated == "" }) {
			t.Errorf("no scenario is of the mode %d", mode)
		}
	}
	// A break is a method that takes and returns nothing.
	breaks := 0
	for method := range reflect.TypeFor[*simnet.Conn]().Methods() {
		if method.Type.NumIn() > 1 || method.Type.NumOut() > 0 {
			continue
		}
		breaks++
		if !slices.ContainsFunc(all, func(s scenario) bool { return s.how == method.Name && s.onlySimulated == "" }) {
			t.Errorf("no scenario is of the break %s", method.Name)
		}
	}
	if breaks == 0 {
		t.Error("test/simnet has no breaks any more")
	}
}
