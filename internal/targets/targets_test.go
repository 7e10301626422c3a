package targets_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.com/grpc-health-http/internal/clock"
	"example.com/grpc-health-http/internal/settings"
	"example.com/grpc-health-http/internal/targets"
)

// world is a File in a bubble, with what it has done. A line of its content is a target; the line "wrong" is a mistake, and "refused" one that shows only when it is used.
type world struct {
	*targets.File
	reading func(ctx context.Context) ([]byte, error)

	mu     sync.Mutex
	start  time.Time
	set    []string
	loaded []string
}

func newWorld(reading func(ctx context.Context) ([]byte, error)) *world {
	w := &world{start: time.Now(), reading: reading}
	w.File = targets.New(targets.Options{
		Read: func(ctx context.Context) ([]byte, error) { return w.reading(ctx) },
		Parse: func(content []byte) (all []settings.Target, warnings []string, err error) {
			for _, line := range strings.Fields(string(content)) {
				if line == "wrong" {
					return nil, nil, errors.New("line 1: wrong")
				}
				all = append(all, settings.Target{Name: line})
			}
			return all, nil, nil
		},
		Set: func(all []settings.Target) error {
			var names []string
			for _, t := range all {
				if t.Name == "refused" {
					return errors.New("refused")
				}
				names = append(names, t.Name)
			}
			w.mu.Lock()
			defer w.mu.Unlock()
			w.set = append(w.set, fmt.Sprintf("%v: %s", time.Since(w.start), strings.Join(names, " ")))
			return nil
		},
		Loaded: func(n int, _ []string, err error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.loaded = append(w.loaded, fmt.Sprintf("%d, %v", n, err))
		},
		Clock: func() clock.Moment {
			d := int64(time.Since(w.start))
			return clock.Moment{Mono: d, Wall: d}
		},
	})
	return w
}

func (w *world) want(t *testing.T, set, loaded []string) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if !slices.Equal(w.set, set) {
		t.Errorf("targets set:\n%s\nwant\n%s", strings.Join(w.set, "\n"), strings.Join(set, "\n"))
	}
	if !slices.Equal(w.loaded, loaded) {
		t.Errorf("told %q, want %q", w.loaded, loaded)
	}
}

// watch has Watch run for d.
func (w *world) watch(t *testing.T, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { w.Watch(ctx); close(done) }()
	time.Sleep(d)
	cancel()
	<-done
}

// timed returns what a file has at each time.
func timed(steps ...any) func(ctx context.Context) ([]byte, error) {
	start := time.Now()
	return func(context.Context) ([]byte, error) {
		var content []byte
		var err error
		for i := 0; i < len(steps); i += 2 {
			if time.Since(start) < steps[i].(time.Duration) {
				break
			}
			switch step := steps[i+1].(type) {
			case string:
				content, err = []byte(step), nil
			case error:
				content, err = nil, step
			}
		}
		return content, err
	}
}

const second = time.Second

// A change is taken within 10 s, once it has been the same for a second; a file that is wrong, or gone, changes nothing.
func TestWatch(t *testing.T) {
	t.Parallel()
	gone := &os.PathError{Op: "open", Path: "/targets", Err: os.ErrNotExist}
	for name, row := range map[string]struct {
		steps  []any
		set    []string
		loaded []string
	}{
		"no change":     {[]any{0 * second, "a b"}, []string{"0s: a b"}, []string{"2, <nil>"}},
		"a change":      {[]any{0 * second, "a b", 5 * second, "a"}, []string{"0s: a b", "7s: a"}, []string{"2, <nil>", "1, <nil>"}},
		"a half":        {[]any{0 * second, "a b", 5900 * time.Millisecond, "a", 6500 * time.Millisecond, "a c"}, []string{"0s: a b", "8s: a c"}, []string{"2, <nil>", "2, <nil>"}},
		"back again":    {[]any{0 * second, "a b", 5900 * time.Millisecond, "a", 6500 * time.Millisecond, "a b"}, []string{"0s: a b"}, []string{"2, <nil>"}},
		"wrong":         {[]any{0 * second, "a b", 5 * second, "wrong"}, []string{"0s: a b"}, []string{"2, <nil>", "0, line 1: wrong"}},
		"refused":       {[]any{0 * second, "a b", 5 * second, "refused"}, []string{"0s: a b"}, []string{"2, <nil>", "1, refused"}},
		"wrong, mended": {[]any{0 * second, "a b", 5 * second, "wrong", 10 * second, "a"}, []string{"0s: a b", "11s: a"}, []string{"2, <nil>", "0, line 1: wrong", "1, <nil>"}},
		"gone":          {[]any{0 * second, "a b", 5 * second, gone}, []string{"0s: a b"}, []string{"2, <nil>", "0, open /targets: file does not exist"}},
		"gone, back":    {[]any{0 * second, "a b", 5 * second, gone, 11 * second, "a b"}, []string{"0s: a b"}, []string{"2, <nil>", "0, open /targets: file does not exist"}},
		"gone, another": {[]any{0 * second, "a b", 5 * second, gone, 11 * second, "c"}, []string{"0s: a b", "13s: c"}, []string{"2, <nil>", "0, open /targets: file does not exist", "1, <nil>"}},
		"emptied":       {[]any{0 * second, "a b", 5 * second, "", 5500 * time.Millisecond, "c"}, []string{"0s: a b", "7s: c"}, []string{"2, <nil>", "1, <nil>"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(timed(row.steps...))
				if err := w.Load(t.Context()); err != nil {
					t.Fatal(err)
				}
				w.watch(t, 30*second)
				w.want(t, row.set, row.loaded)
			})
		})
	}
}

// Watch ends at once, also while it waits for a change to be the same.
func TestWatchEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := 0
		w := newWorld(func(context.Context) ([]byte, error) { n++; return []byte(fmt.Sprint("t", n)), nil })
		began := time.Now()
		w.watch(t, 20*second)
		if took := time.Since(began); took != 20*second {
			t.Errorf("took %v", took)
		}
		w.want(t, nil, nil) // it was never the same
	})
}

// At a request the file is read again where the last reading is 5 s old; the request does not wait for a slow one where there are targets.
func TestRefresh(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var reads, slow atomic.Int64
		read := timed(0*second, "a", 7*second, "b")
		w := newWorld(func(ctx context.Context) ([]byte, error) {
			reads.Add(1)
			select {
			case <-time.After(time.Duration(slow.Load())):
				return read(ctx)
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		})
		ask := func(within time.Duration, reading int64) {
			t.Helper()
			began := time.Now()
			if err := w.Refresh(t.Context()); err != nil {
				t.Error(err)
			}
			if took := time.Since(began); took > within || reads.Load() != reading {
				t.Errorf("at %v: took %v, %d readings, want %d", time.Since(w.start), took, reads.Load(), reading)
			}
		}
		ask(0, 1)
		time.Sleep(4 * second)
		ask(0, 1)
		time.Sleep(4 * second) // 8 s
		ask(0, 2)
		slow.Store(int64(2 * second))
		time.Sleep(6 * second)
		ask(100*time.Millisecond, 3)
		ask(100*time.Millisecond, 3)
		time.Sleep(3 * second)
		w.want(t, []string{"0s: a", "8s: b"}, []string{"1, <nil>", "1, <nil>"})
		slow.Store(int64(time.Minute))
		time.Sleep(6 * second)
		ask(100*time.Millisecond, 4)
		time.Sleep(11 * second) // a reading ends after 10 s
		w.want(t, []string{"0s: a", "8s: b"}, []string{"1, <nil>", "1, <nil>", "0, context deadline exceeded"})
	})
}

// Without targets a request waits for the first ones; where there are none it gets an error, and a later request finds them.
func TestRefreshAtFirst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(timed(0*second, "wrong", 3*second, "a"))
		if err := w.Refresh(t.Context()); err == nil {
			t.Error("a wrong file has targets")
		}
		time.Sleep(4 * second)
		if err := w.Refresh(t.Context()); err == nil {
			t.Error("it was read again after 4 s")
		}
		time.Sleep(2 * second)
		if err := w.Refresh(t.Context()); err != nil {
			t.Error(err)
		}
		w.reading = func(ctx context.Context) ([]byte, error) { <-ctx.Done(); return nil, ctx.Err() }
		hangs := newWorld(w.reading)
		ctx, cancel := context.WithTimeout(t.Context(), second)
		defer cancel()
		began := time.Now()
		if err := hangs.Refresh(ctx); err == nil || time.Since(began) != second {
			t.Errorf("a reading that hangs: %v after %v", err, time.Since(began))
		}
		time.Sleep(20 * second)
	})
}

// A file that is replaced by a symlink swap, as Kubernetes does it, and one that is written in place.
func TestFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, content string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("one", "a")
	write("two", "a b")
	link := filepath.Join(dir, "targets")
	if err := os.Symlink("one", link); err != nil {
		t.Fatal(err)
	}
	w := newWorld(func(context.Context) ([]byte, error) { return os.ReadFile(link) })
	swap := func(to string) {
		if err := errors.Join(os.Symlink(to, link+".new"), os.Rename(link+".new", link)); err != nil {
			t.Fatal(err)
		}
	}
	names := func() (all []string) {
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, set := range w.set {
			_, set, _ = strings.Cut(set, ": ")
			all = append(all, set)
		}
		return all
	}
	for i, step := range []func(){func() {}, func() { swap("two") }, func() { write("two", "c") }, func() { os.Remove(link) }, func() { swap("one") }} {
		step()
		if err := w.Load(t.Context()); (err != nil) != (i == 3) {
			t.Errorf("step %d: %v", i, err)
		}
	}
	if got := names(); !slices.Equal(got, []string{"a", "a b", "c", "a"}) {
		t.Errorf("targets %q", got)
	}
}
