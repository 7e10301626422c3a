package workers_test

import (
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"example.com/grpc-health-http/internal/workers"
)

// id is the calling goroutine's, as a stack trace begins with it.
func id() string {
	trace := make([]byte, 64)
	trace = trace[:runtime.Stack(trace, false)]
	for i, c := range trace {
		if c == '[' {
			return string(trace[:i])
		}
	}
	return string(trace)
}

func TestGroup(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := workers.New()
		ran := make(chan string, 2)
		run := func() string {
			g.Go(func() { ran <- id() })
			defer synctest.Wait()
			return <-ran
		}
		first := run()
		time.Sleep(900 * time.Millisecond)
		if second := run(); second != first {
			t.Errorf("ran in %sand then in %s", first, second)
		}
		time.Sleep(1100 * time.Millisecond)
		if third := run(); third == first {
			t.Error("the goroutine still waits after more than a second")
		}

		// Functions do not wait for one another.
		release := make(chan struct{})
		for range 2 {
			g.Go(func() { <-release; ran <- "" })
		}
		if other := run(); other == "" {
			t.Error("a function waited")
		}
		close(release)
		<-ran
		<-ran
		g.Close()
		g.Close()
		if last := run(); last == "" {
			t.Error("a closed Group runs nothing")
		}
	}) // which wants all goroutines to have ended
}

// Only as many goroutines are kept as run side by side: what comes one after the other uses one, however many there were.
func TestFewAreKept(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := workers.New()
		release := make(chan struct{})
		for range 100 {
			g.Go(func() { <-release })
		}
		close(release)
		before := runtime.NumGoroutine()
		used := make(map[string]bool)
		for range 50 {
			synctest.Wait()
			g.Go(func() { used[id()] = true })
			synctest.Wait()
			time.Sleep(50 * time.Millisecond)
		}
		if ended := before - runtime.NumGoroutine(); len(used) != 1 || ended < 50 {
			t.Errorf("%d goroutines ran what came one after the other, and %d of 100 have ended", len(used), ended)
		}
		g.Close()
	})
}

// No function is lost between one goroutine's end and another's beginning.
func TestNoneIsLost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := workers.New()
		ran := make(chan struct{}, 1)
		for range 1000 {
			g.Go(func() { ran <- struct{}{} })
			<-ran
			time.Sleep(time.Second) // as long as a goroutine waits
		}
		g.Close()
		g.Go(func() { ran <- struct{}{} })
		<-ran
	})
}
