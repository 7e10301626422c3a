package creds

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// newText holds the content of "name" as text, read through r.
func newText(o Options, r *reader) *held[string] {
	o.Read = r.read
	return text(o, HeaderValue, o.file("X", "name"), func(content []byte) (string, error) {
		if string(content) == "torn" {
			return "", errors.New("X: torn")
		}
		return string(content), nil
	})
}

func wantValue(t *testing.T, h *held[string], refresh bool, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	got, err := h.get(ctx, refresh)
	if err != nil || got != want {
		t.Fatalf("got %q (err %v), want %q", got, err, want)
	}
}

func TestReadAgain(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name       string
		wall, mono time.Duration
		refresh    bool
		want       string
	}{
		{name: "at once", want: "old"},
		{name: "5 s later", wall: freshFor, mono: freshFor, want: "old"},
		{name: "later still", wall: stale, mono: stale, want: "new"},
		{name: "after a freeze, which stops the monotonic clock", wall: stale, want: "new"},
		{name: "after the wall clock was set back", wall: -time.Hour, mono: stale, want: "new"},
		{name: "at once, where a use asks for it", refresh: true, want: "new"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			o, c, _ := newOptions()
			r := newReader()
			h := newText(o, r)
			r.set("name", []byte("old"))
			wantValue(t, h, false, "old")
			r.set("name", []byte("new"))
			c.move(test.wall, test.mono)
			wantValue(t, h, test.refresh, test.want)
		})
	}
}

func TestUnchangedContentIsFreshAgain(t *testing.T) {
	t.Parallel()
	o, c, e := newOptions()
	r := newReader()
	h := newText(o, r)
	r.set("name", []byte("same"))
	wantValue(t, h, false, "same")
	c.advance(stale)
	wantValue(t, h, false, "same")
	wantValue(t, h, false, "same")
	if n := r.count(); n != 2 {
		t.Errorf("%d reads, want 2", n)
	}
	wantNoReload(t, e)
}

func TestSlowReadServesTheNextUse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o, c, e := newOptions()
		o.patience = 0
		r := newReader()
		h := newText(o, r)
		r.set("name", []byte("old"))
		wantValue(t, h, false, "old")

		c.advance(stale)
		r.set("name", []byte("new"))
		release := r.hold()
		began := time.Now()
		var uses sync.WaitGroup
		for range 16 {
			uses.Go(func() {
				if got, err := h.get(t.Context(), false); err != nil || got != "old" {
					t.Errorf("got %q (err %v) while the read is under way, want the last good one", got, err)
				}
			})
		}
		uses.Wait()
		if took := time.Since(began); took != 100*time.Millisecond {
			t.Errorf("the uses took %v, want 100ms", took)
		}
		if n := r.count(); n != 2 {
			t.Errorf("%d reads, want 2: one at first, and one that the uses share", n)
		}
		release()
		synctest.Wait()
		wantValue(t, h, false, "new")
		wantReload(t, e, HeaderValue, "")
		if n := r.count(); n != 2 {
			t.Errorf("%d reads, want 2", n)
		}
	})
}

func TestFirstReadIsAwaitedWithinTheContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o, _, e := newOptions()
		o.patience = 0
		r := newReader()
		h := newText(o, r)
		r.set("name", []byte("content"))
		release := r.hold()

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := h.get(ctx, false)
		wantError(t, err, "X name: not read in time")
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v, want the context's", err)
		}

		time.AfterFunc(time.Second, release) // patience is for those who have something to go on with
		wantValue(t, h, false, "content")
		wantNoReload(t, e)
	})
}

func TestReadHasAnEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o, _, _ := newOptions()
		r := newReader()
		h := newText(o, r)
		release := r.hold()
		defer release()
		_, err := h.get(t.Context(), false)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v, want the deadline of the read", err)
		}
	})
}

// A read that began before a handshake failed may bring what failed; one that began before a use may
// fail for a reason that is gone.
func TestReadOfAnotherUseIsNotEnough(t *testing.T) {
	t.Parallel()
	for name, held := range map[string]bool{"refresh": true, "nothing held": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				o, _, _ := newOptions()
				type answer struct {
					value string
					err   error
				}
				answers := make(chan answer)
				h := newHeld(o, HeaderValue, "name", func(context.Context, digest) (string, digest, error) {
					a := <-answers
					return a.value, digest{byte(len(a.value))}, a.err
				})
				results := make(chan string, 3)
				use := func() {
					value, err := h.get(t.Context(), held)
					if err != nil {
						value = err.Error()
					}
					results <- value
				}
				if held {
					go use()
					answers <- answer{value: "first"}
					<-results
				}
				go use()
				synctest.Wait() // its read is under way
				go use()
				synctest.Wait() // and joined
				answers <- answer{err: errors.New("earlier")}
				<-results
				answers <- answer{value: "later one"}
				if got := <-results; got != "later one" {
					t.Errorf("got %q, want what the later read brought", got)
				}
			})
		})
	}
}

func TestFailureKeepsTheLastGoodOne(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		spoil func(*reader)
		want  string
	}{
		{"unreadable", func(r *reader) { r.fail("name", errors.New("permission denied")) }, "X name: permission denied"},
		{"torn", func(r *reader) { r.set("name", []byte("torn")) }, "X: torn"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			o, c, e := newOptions()
			r := newReader()
			h := newText(o, r)

			test.spoil(r)
			_, err := h.get(t.Context(), false)
			wantError(t, err, test.want)
			wantNoReload(t, e) // it is the use's error

			r.set("name", []byte("good")) // and the next use tries again
			wantValue(t, h, false, "good")
			wantNoReload(t, e)

			test.spoil(r)
			c.advance(stale)
			wantValue(t, h, false, "good")
			wantReload(t, e, HeaderValue, test.want)
			wantValue(t, h, false, "good")
			wantNoReload(t, e) // told already
			c.advance(stale)
			wantValue(t, h, false, "good")
			wantReload(t, e, HeaderValue, test.want)

			r.set("name", []byte("better"))
			wantValue(t, h, false, "better") // although 5 s have not passed since the failure
			wantReload(t, e, HeaderValue, "")
		})
	}
}

func TestUnusableIsNotHeld(t *testing.T) {
	t.Parallel()
	o, _, _ := newOptions()
	r := newReader()
	h := newText(o, r)
	usable := true
	h.usable = func(string) bool { return usable }
	r.set("name", []byte("content"))
	wantValue(t, h, false, "content")
	r.fail("name", errors.New("gone"))
	wantValue(t, h, true, "content")
	usable = false
	_, err := h.get(t.Context(), false)
	wantError(t, err, "gone")
	usable = true
	r.set("name", []byte("content")) // the same content as before is looked at again
	wantValue(t, h, false, "content")
}

func TestNothingIsHeldOfNoSetting(t *testing.T) {
	t.Parallel()
	var h *held[string]
	wantValue(t, h, true, "")
	if got := h.latest(); got != "" {
		t.Errorf("latest %q, want nothing", got)
	}
}
