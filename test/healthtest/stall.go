package healthtest

import (
	"sync"
	"time"
)

// stallAtLeast is how late this process must wake up for that to count as a stall.
const stallAtLeast = 50 * time.Millisecond

// WatchStalls reports each stall until stop is called: a time in which this process did not run because the machine was busy.
func WatchStalls(report func(from, to time.Time)) (stop func()) {
	const tick = 5 * time.Millisecond
	stopping := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		for before := time.Now(); ; {
			select {
			case <-stopping:
				return
			case <-time.After(tick):
			}
			now := time.Now()
			if now.Sub(before) >= stallAtLeast {
				report(before, now)
			}
			before = now
		}
	})
	return func() {
		close(stopping)
		watching.Wait()
	}
}
