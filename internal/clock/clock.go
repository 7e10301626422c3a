package clock

import "time"

// Moment is one reading of both clocks, in nanoseconds: Mono from a fixed start, Wall from the Unix epoch.
type Moment struct{ Mono, Wall int64 }

// Since is the larger of what the two clocks say has passed.
func (m Moment) Since(earlier Moment) time.Duration {
	return time.Duration(max(m.Mono-earlier.Mono, m.Wall-earlier.Wall))
}

// Before compares monotonic time: which of two events in this process came first.
func (m Moment) Before(other Moment) bool { return m.Mono < other.Mono }

// System returns what reads the machine's clocks.
func System() func() Moment {
	start := time.Now()
	return func() Moment {
		now := time.Now()
		return Moment{Mono: int64(now.Sub(start)), Wall: now.UnixNano()}
	}
}
