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
	// A Schedule wakes up ticks times in an interval, or as often as usual jobs are due, but not more often than every leastTick, nor less often than every
	// mostTick: a process that wakes up for each of a thousand jobs by itself needs two to three times the CPU time, and jobs that run side by side take memory.
	ticks, usual        = 40, 16
	leastTick, mostTick = 50 * time.Millisecond, 250 * time.Millisecond
	// side is how many jobs may begin at a tick in any case. Where more than that are due in a tick as a rule, twice as many as a rule may.
	side = 64
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
	queued  bool // it is due and has not begun; only a queue looks at it
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
			e = &entry[J]{job: j, phase: time.Duration((part - math.Floor(part)) * float64(s.interval))}
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
	timer := time.NewTimer(0)
	defer timer.Stop()
	began := time.Now()
	queue := queue[J]{Schedule: s, done: -time.Nanosecond}
	for {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		now, tick := time.Since(began), s.tick()
		for _, e := range queue.next(now + tick - 1) { // all that are due before the next tick
			if e.running.Swap(true) {
				continue
			}
			running.Go(func() {
				defer e.running.Store(false)
				s.run(ctx, e.job)
			})
		}
		timer.Reset(tick - now%s.interval%tick) // at the same times of each interval, so that a job always begins at its own
	}
}

// tick is how often the Schedule looks at what is due.
func (s *Schedule[J]) tick() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	least := min(s.interval/ticks, mostTick)
	if n := len(s.jobs); n > 0 {
		least = min(least, s.interval*usual/time.Duration(n))
	}
	parts := s.interval / min(s.interval, max(leastTick, least))
	for exact := parts; exact < 2*parts; exact++ { // so that all ticks of an interval are equal
		if s.interval%exact == 0 {
			return s.interval / exact
		}
	}
	return s.interval / parts
}

// atOnce is how many jobs begin at a tick; the others wait for the next one. They are that many only when the process did not run for a while.
func (s *Schedule[J]) atOnce() int {
	tick := s.tick()
	s.mu.Lock()
	defer s.mu.Unlock()
	return max(side, 2*int(int64(len(s.jobs))*int64(tick)/int64(s.interval)))
}

// queue is the jobs that are due and have not begun.
type queue[J comparable] struct {
	*Schedule[J]
	done time.Duration // what is due up to then has been looked at
	due  []*entry[J]
}

// next returns the jobs that begin now: those that are due so long after the start.
func (q *queue[J]) next(until time.Duration) []*entry[J] {
	for _, e := range q.between(max(q.done, until-q.interval), until) {
		if !e.queued {
			e.queued = true
			q.due = append(q.due, e)
		}
	}
	q.done = until
	n := min(len(q.due), q.atOnce())
	begin := q.due[:n:n]
	for _, e := range begin {
		e.queued = false
	}
	q.due = slices.Clone(q.due[n:])
	return begin
}

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
