package healthtest

import (
	"sync"
	"time"
)

// standstill is from when on a process that was late to wake up counts as one that did not run.
const standstill = 50 * time.Millisecond

// WatchStandstills tells of each time for which this process did not run, because the machine was busy, until
// stop is called.
func WatchStandstills(tell func(from, to time.Time)) (stop func()) {
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
			if now.Sub(before) >= standstill {
				tell(before, now)
			}
			before = now
		}
	})
	return func() {
		close(stopping)
		watching.Wait()
	}
}
