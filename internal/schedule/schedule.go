// Package schedule does things regularly, spread evenly over the interval.
package schedule

import (
	"context"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// tick is how often a Schedule wakes up, at most: a process that wakes up for each of a thousand jobs by itself needs two to three times the CPU time.
	tick = 50 * time.Millisecond
	// atOnce is how many jobs begin at a tick; the others wait for the next one.
	atOnce = 64
)

// Schedule runs jobs. It is safe for concurrent use.
type Schedule[J comparable] struct {
	interval time.Duration
	run      func(ctx context.Context, job J)

	mu    sync.Mutex
	jobs  []*entry[J] // by their phase
	added int         // ever
}

// entry is a job with the time in the interval at which it begins.
type entry[J comparable] struct {
	job     J
	phase   time.Duration
	queued  bool // it is due and has not begun; only Run looks at it
	running atomic.Bool
}

// New returns a Schedule without jobs. run does a job; it may take longer than the interval, and is not called for the same job again before it has returned.
func New[J comparable](interval time.Duration, run func(ctx context.Context, job J)) *Schedule[J] {
	return &Schedule[J]{interval: interval, run: run}
}

// golden is the fractional part of the golden ratio: its multiples, without their whole parts, are spread evenly however many there are.
const golden = 0.6180339887498949

// Set makes the jobs those of the schedule. One that has been there before keeps its time.
func (s *Schedule[J]) Set(jobs []J) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := make(map[J]*entry[J], len(s.jobs))
	for _, e := range s.jobs {
		before[e.job] = e
	}
	s.jobs = make([]*entry[J], 0, len(jobs))
	for _, j := range jobs {
		e := before[j]
		if e == nil {
			part := float64(s.added) * golden
			phase := time.Duration((part - math.Floor(part)) * float64(s.interval))
			e = &entry[J]{job: j, phase: phase - phase%s.tick()} // so that a job always has the same lateness
			s.added++
		}
		s.jobs = append(s.jobs, e)
	}
	slices.SortFunc(s.jobs, func(a, b *entry[J]) int { return int(a.phase - b.phase) })
}

// Run runs the jobs until ctx ends, and then waits for those that run. Each begins once in an interval, the first time within the first one. Where the process
// did not run for longer than an interval, what was missed is left out.
func (s *Schedule[J]) Run(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	ticker := time.NewTicker(s.tick())
	defer ticker.Stop()
	began := time.Now()
	done := -time.Nanosecond // what is due up to then has been looked at
	var due []*entry[J]      // that could not begin yet
	for {
		now := time.Since(began)
		for _, e := range s.between(max(done, now-s.interval), now) {
			if !e.queued {
				e.queued = true
				due = append(due, e)
			}
		}
		done = now
		n := min(len(due), atOnce)
		for _, e := range due[:n] {
			e.queued = false
			if e.running.Swap(true) {
				continue
			}
			running.Go(func() {
				defer e.running.Store(false)
				s.run(ctx, e.job)
			})
		}
		due = slices.Delete(due, 0, n)
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

func (s *Schedule[J]) tick() time.Duration { return min(tick, s.interval) }

// between returns the jobs that are due after one time and not after another, an interval later at most.
func (s *Schedule[J]) between(after, until time.Duration) (due []*entry[J]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.jobs {
		// The first time after that is at the job's phase of an interval.
		at := after - after%s.interval + e.phase
		for at <= after {
			at += s.interval
		}
		if at <= until {
			due = append(due, e)
		}
	}
	return due
}
