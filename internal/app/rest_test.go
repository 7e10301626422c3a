package app

import (
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"testing"
	"time"

	"example.com/grpc-health-http/internal/settings"
)

// atRest is what a target may take of which nothing is known yet, in bytes, without metrics: 10,000 of them take 19 MB.
const atRest = 2075

// TestTargetAtRest is not parallel: what other tests allocate would count.
func TestTargetAtRest(t *testing.T) {
	const n = 1000
	targets := make([]settings.Target, n)
	for i := range targets {
		targets[i] = settings.Target{Name: fmt.Sprint("t", i), Upstream: settings.Upstream{
			Addr: fmt.Sprintf("127.0.0.1:%d", i+1), ConnectTimeout: time.Second, RPCTimeout: time.Second, ConnMaxAge: 10 * time.Second,
		}}
	}
	a, err := New(&settings.Settings{Process: settings.Process{TargetsFile: "targets.yaml", CheckInterval: 10 * time.Second}},
		Platform{Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	before := heap()
	if err := a.SetTargets(targets); err != nil {
		t.Fatal(err)
	}
	if each := (heap() - before) / n; each > atRest {
		t.Errorf("a target takes %d bytes, want %d at most", each, atRest)
	} else {
		t.Logf("a target takes %d bytes", each)
	}
	runtime.KeepAlive(targets)
}

func heap() int {
	runtime.GC()
	runtime.GC() // finalizers have run, and pools are empty
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}
