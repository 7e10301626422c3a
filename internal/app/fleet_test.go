package app

import (
	"log/slog"
	"slices"
	"strconv"
	"testing"

	"example.com/grpc-health-http/internal/settings"
)

// A change of the targets tells which of them came, changed and went.
func TestChanges(t *testing.T) {
	t.Parallel()
	a, err := New(&settings.Settings{Process: settings.Process{TargetsFile: "targets.yaml"}}, Platform{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	target := func(name, addr string) settings.Target {
		return settings.Target{Name: name, Upstream: settings.Upstream{Addr: addr}}
	}
	for i, step := range []struct {
		targets                 []settings.Target
		added, changed, removed []string
	}{
		{[]settings.Target{target("a", "localhost:1"), target("b", "localhost:1")}, []string{"a", "b"}, nil, nil},
		{[]settings.Target{target("a", "localhost:1"), target("b", "localhost:1")}, nil, nil, nil},
		{[]settings.Target{target("a", "localhost:2"), target("c", "localhost:1")}, []string{"c"}, []string{"a"}, []string{"b"}},
		{nil, nil, nil, []string{"a", "c"}},
	} {
		c, err := a.fleet.set(step.targets)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(c.added, step.added) || !slices.Equal(c.changed, step.changed) || !slices.Equal(c.removed, step.removed) {
			t.Errorf("step %d: %+v", i, c)
		}
	}
	var many []string
	for i := range 12 {
		many = append(many, strconv.Itoa(i))
	}
	for n, want := range map[int]string{0: "", 1: "0", 10: "0, 1, 2, 3, 4, 5, 6, 7, 8, 9", 12: "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more"} {
		if got := few(many[:n]); got != want {
			t.Errorf("%d names: %q", n, got)
		}
	}
}
