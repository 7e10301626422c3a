package schedule_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.com/grpc-health-http/internal/schedule"
)

const interval = 10 * time.Second

// record is when jobs began, since the start.
type record struct {
	mu    sync.Mutex
	start time.Time
	began map[int][]time.Duration
}

func newRecord() *record { return &record{start: time.Now(), began: make(map[int][]time.Duration)} }

func (r *record) note(job int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.began[job] = append(r.began[job], time.Since(r.start))
}

func (r *record) of(job int) []time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.began[job])
}

func numbers(from, to int) (all []int) {
	for i := from; i < to; i++ {
		all = append(all, i)
	}
	return all
}

// runFor runs a schedule in a bubble.
func runFor(t *testing.T, d time.Duration, s *schedule.Schedule[int], meanwhile func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { s.Run(ctx); close(done) }()
	if meanwhile != nil {
		meanwhile()
	}
	time.Sleep(d)
	cancel()
	<-done
}

// Each job begins once in an interval, the first time within the first one, and they are spread evenly: however many there are, no part of the interval has
// many more than another.
func TestEvenly(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 2, 7, 100, 1000} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r := newRecord()
				s := schedule.New(interval, func(_ context.Context, job int) { r.note(job) })
				s.Set(numbers(0, n))
				runFor(t, 5*interval-time.Nanosecond, s, nil)
				var slots [20]int // of the first interval
				for job := range n {
					began := r.of(job)
					if len(began) != 5 {
						t.Fatalf("job %d began at %v", job, began)
					}
					for i, at := range began {
						if at-began[0] != time.Duration(i)*interval {
							t.Fatalf("job %d began at %v", job, began)
						}
					}
					slots[began[0]*20/interval]++
				}
				if most := slices.Max(slots[:]); most > n/20+n/60+2 { // a tick more or less
					t.Errorf("%d of %d jobs in a twentieth of the interval", most, n)
				}
			})
		})
	}
}

// Of the many jobs of a tick few run side by side, where they are short: what each takes meanwhile adds up.
func TestSideBySide(t *testing.T) {
	t.Parallel()
	for jobs, most := range map[int]int{40: 2, 1000: 18, 4000: 22, 10000: 52} {
		synctest.Test(t, func(t *testing.T) {
			r := newRecord()
			var running, seen atomic.Int64
			s := schedule.New(10*time.Second, func(_ context.Context, job int) {
				r.note(job)
				if now := running.Add(1); now > seen.Load() {
					seen.Store(now)
				}
				time.Sleep(10 * time.Millisecond)
				running.Add(-1)
			})
			s.Set(numbers(0, jobs))
			runFor(t, 20*time.Second-time.Nanosecond, s, nil)
			if n := int(seen.Load()); n > most {
				t.Errorf("%d of %d jobs ran at once, want %d at most", n, jobs, most)
			}
			for job := range jobs {
				if n := len(r.of(job)); n != 2 {
					t.Fatalf("of %d jobs, one began %d times in two intervals", jobs, n)
				}
			}
		})
	}
}

// A slow job delays no other, and does not run twice at once.
func TestSlowJob(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRecord()
		running, most := make(map[int]int), 0
		var mu sync.Mutex
		s := schedule.New(interval, func(ctx context.Context, job int) {
			r.note(job)
			mu.Lock()
			running[job]++
			most = max(most, running[job])
			mu.Unlock()
			if job%5 == 0 {
				time.Sleep(interval + interval/2)
			}
			mu.Lock()
			running[job]--
			mu.Unlock()
		})
		s.Set(numbers(0, 500))
		runFor(t, 4*interval-time.Nanosecond, s, nil)
		if most != 1 {
			t.Errorf("a job ran %d times at once", most)
		}
		for job := range 500 {
			want := 4
			if job%5 == 0 {
				want = 2 // every other time it still runs
			}
			if n := len(r.of(job)); n != want {
				t.Errorf("job %d began %d times, want %d", job, n, want)
			}
		}
	})
}

// A job that stays keeps its time when others come and go.
func TestChange(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRecord()
		s := schedule.New(interval, func(_ context.Context, job int) { r.note(job) })
		s.Set(numbers(0, 100))
		runFor(t, 2*interval-time.Nanosecond, s, func() {
			time.Sleep(2*interval - time.Nanosecond)
			s.Set(numbers(50, 300))
		})
		for job := range 300 {
			began, want := r.of(job), 4
			switch {
			case job < 50:
				want = 2
			case job >= 100:
				want = 2
			}
			if len(began) != want {
				t.Errorf("job %d began at %v", job, began)
			}
			for i := 1; i < len(began); i++ {
				if began[i]-began[i-1] != interval {
					t.Errorf("job %d began at %v", job, began)
				}
			}
		}
	})
}
