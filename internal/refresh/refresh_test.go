package refresh

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.com/grpc-health-http/internal/clock"
)

// result is how a load ends.
type result struct {
	text string
	err  error
}

// fixture is a Value whose loads wait for a result of the test's. It runs in a synctest bubble, whose clock it reads.
type fixture struct {
	*Value[string]
	t      *testing.T
	loads  chan *pending // begun, in order
	state  atomic.Int32  // of every value, a State
	frozen time.Duration // by which the wall clock is ahead
	loaded []string
}

// pending is a load under way.
type pending struct {
	current string
	forced  bool
	result  chan result
}

// in runs test in a bubble, with a Value that change may alter.
func in(t *testing.T, change func(*Options[string]), test func(*testing.T, *fixture)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := &fixture{t: t, loads: make(chan *pending, 100)}
		over := make(chan struct{})
		defer close(over)
		system := clock.System()
		o := Options[string]{
			Name: "thing",
			Load: func(ctx context.Context, current string) (string, error) {
				p := &pending{current: current, forced: Forced(ctx), result: make(chan result, 1)}
				f.loads <- p
				select {
				case r := <-p.result:
					return r.text, r.err
				case <-over:
					return "", errors.New("over")
				}
			},
			State: func(string, time.Duration, time.Duration) State { return State(f.state.Load()) },
			Loaded: func(before, after string, err error) {
				f.loaded = append(f.loaded, fmt.Sprintf("%s→%s %v", before, after, err))
			},
			Clock: func() clock.Moment {
				now := system()
				now.Wall += int64(f.frozen)
				return now
			},
		}
		if change != nil {
			change(&o)
		}
		f.Value = New(o)
		test(t, f)
	})
}

func (p *pending) end(text string, err error) {
	p.result <- result{text, err}
	synctest.Wait()
}

// get calls Get in a goroutine of its own, and returns when it waits or has returned.
func (f *fixture) get(ctx context.Context, force bool) <-chan result {
	c := make(chan result, 1)
	go func() {
		text, err := f.Get(ctx, force)
		c <- result{text, err}
	}()
	synctest.Wait()
	return c
}

// next is the load that has begun.
func (f *fixture) next() *pending {
	f.t.Helper()
	select {
	case p := <-f.loads:
		return p
	default:
		f.t.Fatal("no load has begun")
		return nil
	}
}

// hold makes the value hold text.
func (f *fixture) hold(text string) {
	f.t.Helper()
	got := f.get(f.t.Context(), false)
	f.next().end(text, nil)
	f.want(got, text)
	f.loaded = nil
}

// want checks that a Get has returned text, or an error with wantErr in it.
func (f *fixture) want(c <-chan result, text string, wantErr ...string) {
	f.t.Helper()
	select {
	case r := <-c:
		if len(wantErr) == 0 && (r.err != nil || r.text != text) {
			f.t.Fatalf("got %q (err %v), want %q", r.text, r.err, text)
		}
		for _, part := range wantErr {
			if r.err == nil || r.text != "" || !strings.Contains(r.err.Error(), part) {
				f.t.Fatalf("got %q (err %v), want an error with %q", r.text, r.err, part)
			}
		}
	default:
		f.t.Fatal("Get still waits")
	}
}

func (f *fixture) waits(c <-chan result) {
	f.t.Helper()
	select {
	case r := <-c:
		f.t.Fatalf("Get returned %q (err %v), want it to wait", r.text, r.err)
	default:
	}
}

func (f *fixture) noLoad() {
	f.t.Helper()
	if len(f.loads) != 0 {
		f.t.Fatalf("%d loads have begun, want none", len(f.loads))
	}
}

func patient(o *Options[string]) { o.Patience = 100 * time.Millisecond }

func TestFresh(t *testing.T) {
	in(t, nil, func(t *testing.T, f *fixture) {
		if got := f.Latest(); got != "" {
			t.Errorf("latest %q before the first load", got)
		}
		f.hold("a")
		f.want(f.get(t.Context(), false), "a")
		f.noLoad()
		if got := f.Latest(); got != "a" {
			t.Errorf("latest %q", got)
		}
	})
}

func TestDueIsLoadedBesideTheCaller(t *testing.T) {
	in(t, nil, func(t *testing.T, f *fixture) {
		f.hold("a")
		f.state.Store(int32(Due))
		f.want(f.get(t.Context(), false), "a")
		f.want(f.get(t.Context(), false), "a")
		p := f.next()
		f.noLoad() // but one
		f.state.Store(int32(Fresh))
		p.end("b", nil)
		f.want(f.get(t.Context(), false), "b")
	})
}

func TestStaleIsUsedAfterPatience(t *testing.T) {
	in(t, patient, func(t *testing.T, f *fixture) {
		f.hold("a")
		f.state.Store(int32(Stale))
		got := f.get(t.Context(), false)
		time.Sleep(100*time.Millisecond - time.Nanosecond)
		synctest.Wait()
		f.waits(got)
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		f.want(got, "a")
		f.state.Store(int32(Fresh))
		p := f.next()
		if p.current != "a" || p.forced {
			t.Errorf("the load got %q, forced %t", p.current, p.forced)
		}
		p.end("b", nil) // comes late, and serves the next one
		f.want(f.get(t.Context(), false), "b")
		if want := []string{"a→b <nil>"}; !slices.Equal(f.loaded, want) {
			t.Errorf("reported %q, want %q", f.loaded, want)
		}
	})
}

func TestFailureLeavesTheLastGoodOne(t *testing.T) {
	in(t, patient, func(t *testing.T, f *fixture) {
		f.hold("a")
		f.state.Store(int32(Stale))
		got := f.get(t.Context(), false)
		f.next().end("", errors.New("torn"))
		f.want(got, "a")
		if want := []string{"a→ torn"}; !slices.Equal(f.loaded, want) {
			t.Errorf("reported %q, want %q", f.loaded, want)
		}
		f.get(t.Context(), false)
		f.next() // the next one tries again at once
	})
}

func TestExpiredIsNotUsed(t *testing.T) {
	in(t, patient, func(t *testing.T, f *fixture) {
		f.hold("a")
		f.state.Store(int32(Expired))
		got := f.get(t.Context(), false)
		time.Sleep(500 * time.Millisecond)
		synctest.Wait()
		f.waits(got)
		f.next().end("", errors.New("gone"))
		f.want(got, "", "gone")

		got = f.get(t.Context(), false)
		f.next().end("b", nil) // expired too
		f.want(got, "", "thing: what was loaded has expired already")
	})
}

// A value that expires while a caller waits for its patience is not used at its end.
func TestExpiresWhileWaiting(t *testing.T) {
	in(t, patient, func(t *testing.T, f *fixture) {
		f.hold("a")
		f.state.Store(int32(Stale))
		got := f.get(t.Context(), false)
		f.state.Store(int32(Expired))
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		f.waits(got)
		f.state.Store(int32(Fresh))
		f.next().end("b", nil)
		f.want(got, "b")
	})
}

func TestCallersShareALoad(t *testing.T) {
	in(t, nil, func(t *testing.T, f *fixture) {
		var all []<-chan result
		for range 64 {
			all = append(all, f.get(t.Context(), false))
		}
		ctx, leave := context.WithCancelCause(t.Context())
		leaving := f.get(ctx, false)
		leave(errors.New("gone home"))
		synctest.Wait()
		f.want(leaving, "", "thing: not loaded in time: gone home")
		p := f.next()
		f.noLoad()
		p.end("a", nil)
		for _, got := range all {
			f.want(got, "a")
		}
	})
}

// What comes after the last caller has left serves the next one.
func TestLoadOutlivesItsCallers(t *testing.T) {
	in(t, nil, func(t *testing.T, f *fixture) {
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		got := f.get(ctx, false)
		time.Sleep(500 * time.Millisecond)
		synctest.Wait()
		f.want(got, "", "thing: not loaded in time: context deadline exceeded")
		f.next().end("a", nil)
		f.want(f.get(t.Context(), false), "a")
		f.noLoad()
	})
}

func TestFailureOfAnEarlierLoad(t *testing.T) {
	in(t, nil, func(t *testing.T, f *fixture) {
		first := f.get(t.Context(), false)
		second := f.get(t.Context(), false)
		f.next().end("", errors.New("earlier"))
		f.want(first, "", "earlier")
		f.waits(second)
		f.next().end("a", nil)
		f.want(second, "a")
	})
}

// A load that began before a caller found the value wrong may bring what was wrong.
func TestForcedWantsALoadOfItsOwn(t *testing.T) {
	in(t, nil, func(t *testing.T, f *fixture) {
		f.hold("a")
		first := f.get(t.Context(), true)
		second := f.get(t.Context(), true)
		p := f.next()
		if !p.forced {
			t.Error("the load does not know that it was forced")
		}
		p.end("b", nil)
		f.want(first, "b")
		f.waits(second)
		f.next().end("c", nil)
		f.want(second, "c")
		f.want(f.get(t.Context(), false), "c")

		third := f.get(t.Context(), true)
		f.next().end("", errors.New("no"))
		f.want(third, "c")
	})
}

func TestOverdueLoadGetsAnotherBesideIt(t *testing.T) {
	in(t, nil, func(t *testing.T, f *fixture) {
		got := f.get(t.Context(), false)
		lost := f.next()
		time.Sleep(time.Second - time.Nanosecond)
		synctest.Wait()
		f.noLoad()
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		f.next().end("a", nil)
		f.want(got, "a")
		lost.end("older", nil)
		f.want(f.get(t.Context(), false), "a")
		if want := []string{"→a <nil>"}; !slices.Equal(f.loaded, want) {
			t.Errorf("reported %q, want %q", f.loaded, want)
		}
	})
}

// What an overdue load brings before the later one serves everybody.
func TestOverdueLoadThatComes(t *testing.T) {
	in(t, nil, func(t *testing.T, f *fixture) {
		got := f.get(t.Context(), false)
		slow := f.next()
		time.Sleep(time.Second)
		synctest.Wait()
		another := f.next()
		slow.end("a", nil)
		f.want(got, "a")
		another.end("b", nil)
		f.want(f.get(t.Context(), false), "b")
	})
}

func TestLoadsAreBounded(t *testing.T) {
	in(t, nil, func(t *testing.T, f *fixture) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		got := f.get(ctx, false)
		time.Sleep(59 * time.Second)
		synctest.Wait()
		if n := len(f.loads); n != maxLoads {
			t.Fatalf("%d loads after a minute, want %d", n, maxLoads)
		}
		f.next().end("", errors.New("at last"))
		f.want(got, "", "at last") // although the others still hang
	})
}

// A frozen machine loses the load's answer. Its monotonic clock did not run meanwhile.
func TestFreeze(t *testing.T) {
	in(t, nil, func(t *testing.T, f *fixture) {
		ctx, cancel := context.WithCancel(t.Context())
		first := f.get(ctx, false)
		cancel()
		synctest.Wait()
		f.want(first, "", "canceled")
		lost := f.next()
		f.frozen = time.Hour
		second := f.get(t.Context(), false)
		f.next().end("a", nil)
		f.want(second, "a")
		lost.end("", errors.New("lost"))
		if want := []string{"→a <nil>"}; !slices.Equal(f.loaded, want) {
			t.Errorf("reported %q, want %q: the failure of the lost load is old", f.loaded, want)
		}
	})
}

func TestAgesAreOfTheLoadsBeginnings(t *testing.T) {
	var age, idle time.Duration
	state := func(o *Options[string]) {
		patient(o)
		o.State = func(_ string, a, i time.Duration) State {
			age, idle = a, i
			return Stale
		}
	}
	in(t, state, func(t *testing.T, f *fixture) {
		got := f.get(t.Context(), false)
		time.Sleep(300 * time.Millisecond)
		f.next().end("a", nil)
		f.want(got, "a")
		if age != 300*time.Millisecond || idle != age {
			t.Errorf("age %v, idle %v", age, idle)
		}
		got = f.get(t.Context(), false)
		f.next().end("", errors.New("no"))
		f.want(got, "a")
		f.frozen = time.Hour
		f.get(t.Context(), false)
		if age != time.Hour+300*time.Millisecond || idle != time.Hour {
			t.Errorf("after a freeze: age %v, idle %v", age, idle)
		}
	})
}

func TestInterval(t *testing.T) {
	in(t, func(o *Options[string]) { o.Interval = time.Second }, func(t *testing.T, f *fixture) {
		got := f.get(t.Context(), false)
		f.next().end("", errors.New("down"))
		f.want(got, "", "down")
		time.Sleep(time.Second - time.Nanosecond)
		f.want(f.get(t.Context(), true), "", "down")
		f.noLoad()
		time.Sleep(time.Nanosecond)
		f.hold("a")

		f.want(f.get(t.Context(), true), "a")
		f.state.Store(int32(Stale))
		f.want(f.get(t.Context(), false), "a")
		f.noLoad()
		time.Sleep(time.Second)
		got = f.get(t.Context(), false)
		f.next().end("b", nil)
		f.want(got, "b")
	})
}

func TestSettle(t *testing.T) {
	in(t, nil, func(t *testing.T, f *fixture) {
		f.Settle(t.Context()) // nothing is under way
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		f.get(ctx, false)
		f.Settle(ctx)
		if ctx.Err() == nil {
			t.Fatal("settled with a load under way")
		}
		settled := make(chan result, 1)
		go func() {
			f.Settle(t.Context())
			settled <- result{}
		}()
		synctest.Wait()
		f.waits(settled)
		f.next().end("a", nil)
		f.want(settled, "")
	})
}

func TestConcurrently(t *testing.T) {
	t.Parallel()
	n := 0
	v := New(Options[int]{
		Name: "n", Clock: clock.System(), Patience: time.Microsecond,
		Load:   func(_ context.Context, current int) (int, error) { return current + 1, nil },
		State:  func(int, time.Duration, time.Duration) State { return Stale },
		Loaded: func(before, after int, _ error) { n++ },
	})
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() {
			last := 0
			for range 500 {
				got, err := v.Get(context.Background(), i%2 == 0)
				if err != nil || got < last {
					t.Errorf("got %d after %d, %v", got, last, err)
				}
				last = got
			}
		})
	}
	all.Wait()
	v.Settle(context.Background())
	if got := v.Latest(); got == 0 || n < got {
		t.Errorf("value %d, %d reported", got, n)
	}
}
