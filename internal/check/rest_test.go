package check

import (
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"example.com/grpc-health-http/internal/dial"
	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/internal/target"
	"example.com/grpc-health-http/test/healthtest"
)

// atRest is what a checker may take that nobody asks, in bytes: 1,000 of them take 0.8 MB.
const atRest = 955

// TestAtRest is not parallel: what other tests allocate would count.
func TestAtRest(t *testing.T) {
	if never, asked, goroutines := restOf(t, 2000); never > atRest || asked > atRest || goroutines > 0 {
		t.Errorf("a checker that was never asked takes %d bytes, and one that was asked %d and %d goroutines; want %d bytes at most and no goroutines",
			never, asked, goroutines, atRest)
	}
}

// BenchmarkAtRest is what checkers of one process take at rest.
func BenchmarkAtRest(b *testing.B) {
	for _, n := range []int{1000, 10000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				never, asked, _ := restOf(b, n)
				b.ReportMetric(float64(never), "B/never-asked")
				b.ReportMetric(float64(asked), "B/asked")
			}
		})
	}
}

// restOf is what one of n checkers takes before it was asked for the first time, in bytes, and after that, when its connection is
// closed; and how many goroutines there are more.
func restOf(t testing.TB, n int) (never, asked, goroutines int) {
	up := healthtest.Start(t)
	up.SetStatus("s", serving)
	to, err := target.Parse(up.Target())
	if err != nil {
		t.Fatal(err)
	}
	p := NewProcess(nil, MaxDials, 0)
	defer p.Close()
	o := Options{
		Options: dial.Options{Target: to, ConnectTimeout: 10 * time.Second}, RPCTimeout: 10 * time.Second, Services: []string{"s"},
		MaxAge: 10 * time.Second, CheckedEvery: 10 * time.Second, Process: p,
	}
	first := New(o) // what the process takes but once
	defer first.Close()
	want(t, first.Check(t.Context(), "s"), health.Serving, health.PhaseNone)
	for range 20 {
		runtime.Gosched()
	}
	checkers := make([]*Checker, n)
	before, running := heap(), runtime.NumGoroutine()
	for i := range checkers {
		checkers[i] = New(o)
	}
	never = (heap() - before) / n
	for _, c := range checkers {
		want(t, c.Check(t.Context(), "s"), health.Serving, health.PhaseNone)
	}
	for end := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > running && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond) // connections and workers end
	}
	asked = (heap() - before) / n
	goroutines = max(runtime.NumGoroutine()-running, 0)
	for _, c := range checkers {
		c.Close()
	}
	return never, asked, goroutines
}

func heap() int {
	runtime.GC()
	runtime.GC() // finalizers have run, and pools are empty
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// A checker that nobody asks any more closes its connections at their age, also one of its own process: what is left waits for nothing,
// or else the bubble would not end.
func TestIdleConnectionsEnd(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		every time.Duration
		open  int // connections before their age: one for what is configured, and one for what is not
	}{{0, 2}, {5 * time.Second, 2}, {10 * time.Second, 1}, {time.Minute, 1}} {
		idle(t, tt.every, tt.open)
	}
}

func idle(t *testing.T, every time.Duration, open int) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		way := healthtest.NewMemory(t)
		up := healthtest.Start(t, healthtest.On(way))
		c := checker(t, "127.0.0.1:1", services("s"), func(o *Options) { o.Connect, o.MaxAge, o.CheckedEvery = way.Connect, 10*time.Second, every })
		up.SetStatus("s", serving)
		want(t, c.Check(t.Context(), "s"), health.Serving, health.PhaseNone)
		want(t, c.Check(t.Context(), "made up"), health.ServiceUnknown, health.PhaseNone)
		time.Sleep(9 * time.Second)
		synctest.Wait()
		if n := up.OpenConnections(); n != open {
			t.Errorf("%d connections are open before their age, want %d", n, open)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if n := up.OpenConnections(); n != 0 {
			t.Errorf("%d connections are open after their age", n)
		}
	})
}
