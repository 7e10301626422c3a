package schedule

import (
	"context"
	"testing"
	"time"
)

// After a pause of the process, the jobs that are due begin a part at each tick, once each, those first that have waited for longest. In an interval all have
// their turn, however many there are.
func TestAtOnce(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		interval     time.Duration
		jobs         int
		tick         time.Duration
		usual, after int // how many begin at a tick at most, and after a pause
	}{
		{time.Second, 10, 50 * time.Millisecond, 1, 10},
		{time.Second, 3000, 50 * time.Millisecond, 151, 300},
		{4 * time.Second, 640, 100 * time.Millisecond, 17, 64},
		{10 * time.Second, 500, 250 * time.Millisecond, 14, 64},
		{10 * time.Second, 1000, 10 * time.Second / 64, 17, 64},
		{10 * time.Second, 10000, 50 * time.Millisecond, 52, 100},
		{10 * time.Second, 4000, 50 * time.Millisecond, 22, 64},
		{time.Hour, 1000, 250 * time.Millisecond, 2, 64},
	} {
		s := New(test.interval, func(context.Context, int) {})
		jobs := make([]int, test.jobs)
		for i := range jobs {
			jobs[i] = i
		}
		s.Set(jobs)
		if s.tick() != test.tick {
			t.Errorf("every %v: a tick of %v, want %v", test.interval, s.tick(), test.tick)
		}
		q := queue[int]{Schedule: s, done: -1}
		now, times := time.Duration(0), make([]int, test.jobs)
		run := func(until time.Duration, most int) {
			t.Helper()
			for ; now < until; now += test.tick {
				begin := q.next(now + test.tick - 1)
				if len(begin) > most {
					t.Fatalf("%d jobs every %v: %d at %v, want %d at most", test.jobs, test.interval, len(begin), now, most)
				}
				for _, e := range begin {
					times[e.job]++
				}
			}
		}
		run(test.interval, test.usual)
		for job, n := range times {
			if n != 1 {
				t.Fatalf("%d jobs every %v: job %d began %d times in an interval", test.jobs, test.interval, job, n)
			}
		}
		now += 3*test.interval - test.tick // a pause
		first := q.next(now + test.tick - 1)
		if len(first) != test.after {
			t.Errorf("%d jobs every %v: %d begin after a pause, want %d", test.jobs, test.interval, len(first), test.after)
		}
		for i := 1; i < len(first); i++ {
			if first[i-1].phase > first[i].phase {
				t.Errorf("a job of phase %v begins before one of %v", first[i-1].phase, first[i].phase)
			}
		}
		now += test.tick
		run(now+test.interval, test.after)
		for job, n := range times {
			if n < 2 {
				t.Errorf("%d jobs every %v: job %d did not begin after the pause", test.jobs, test.interval, job)
			}
		}
	}
}
