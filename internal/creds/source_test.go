package creds

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// newText has the content of "name.pem" as text, read through r.
func newText(o Options, r *reader) *source[string] {
	o.Read = r.read
	return fromFile(o, HeaderValue, o.file("X", "name.pem"), func(content []byte) (string, error) {
		if string(content) == "torn" {
			return "", errors.New("X: torn")
		}
		return string(content), nil
	})
}

func wantValue(t *testing.T, s *source[string], force bool, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	got, err := s.get(ctx, force)
	if err != nil || got != want {
		t.Fatalf("got %q (err %v), want %q", got, err, want)
	}
}

func TestReadAgain(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name       string
		wall, mono time.Duration
		force      bool
		want       string
	}{
		{name: "at once", want: "old"},
		{name: "5 s later", wall: freshFor, mono: freshFor, want: "old"},
		{name: "later still", wall: stale, mono: stale, want: "new"},
		{name: "after a freeze, which stops the monotonic clock", wall: stale, want: "new"},
		{name: "after the wall clock was set back", wall: -time.Hour, mono: stale, want: "new"},
		{name: "at once, where a use forces it", force: true, want: "new"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			o, c, _ := newOptions()
			r := newReader()
			s := newText(o, r)
			r.set("name.pem", []byte("old"))
			wantValue(t, s, false, "old")
			r.set("name.pem", []byte("new"))
			c.move(test.wall, test.mono)
			wantValue(t, s, test.force, test.want)
		})
	}
}

func TestUnchangedContentIsFreshAgain(t *testing.T) {
	t.Parallel()
	o, c, e := newOptions()
	r := newReader()
	s := newText(o, r)
	r.set("name.pem", []byte("same"))
	wantValue(t, s, false, "same")
	c.advance(stale)
	wantValue(t, s, false, "same")
	wantValue(t, s, false, "same")
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
		s := newText(o, r)
		r.set("name.pem", []byte("old"))
		wantValue(t, s, false, "old")

		c.advance(stale)
		r.set("name.pem", []byte("new"))
		release := r.hold()
		began := time.Now()
		var uses sync.WaitGroup
		for range 16 {
			uses.Go(func() {
				if got, err := s.get(t.Context(), false); err != nil || got != "old" {
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
		wantValue(t, s, false, "new")
		wantReload(t, e, HeaderValue, "")
		if n := r.count(); n != 2 {
			t.Errorf("%d reads, want 2", n)
		}
	})
}

func TestReadHasAnEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o, _, _ := newOptions()
		r := newReader()
		s := newText(o, r)
		release := r.hold()
		defer release()
		_, err := s.get(t.Context(), false)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v, want the deadline of the read", err)
		}
	})
}

func TestFailureKeepsTheLastGoodOne(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		spoil func(*reader)
		want  string
	}{
		{"unreadable", func(r *reader) { r.fail("name.pem", errors.New("permission denied")) }, "X name.pem: permission denied"},
		{"torn", func(r *reader) { r.set("name.pem", []byte("torn")) }, "X: torn"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			o, c, e := newOptions()
			r := newReader()
			s := newText(o, r)

			test.spoil(r)
			_, err := s.get(t.Context(), false)
			wantError(t, err, test.want)
			wantNoReload(t, e) // it is the use's error

			r.set("name.pem", []byte("good")) // and the next use tries again
			wantValue(t, s, false, "good")
			wantNoReload(t, e)

			test.spoil(r)
			c.advance(stale)
			wantValue(t, s, false, "good")
			wantReload(t, e, HeaderValue, test.want)
			wantValue(t, s, false, "good")
			wantNoReload(t, e) // reported already
			c.advance(stale)
			wantValue(t, s, false, "good")
			wantReload(t, e, HeaderValue, test.want)

			r.set("name.pem", []byte("better"))
			wantValue(t, s, false, "better") // although 5 s have not passed since the failure
			wantReload(t, e, HeaderValue, "")
		})
	}
}

func TestUnusableIsNotUsed(t *testing.T) {
	t.Parallel()
	o, _, _ := newOptions()
	r := newReader()
	s := newText(o, r)
	usable := true
	s.usable = func(string) bool { return usable }
	r.set("name.pem", []byte("content"))
	wantValue(t, s, false, "content")
	r.fail("name.pem", errors.New("gone"))
	wantValue(t, s, true, "content")
	usable = false
	_, err := s.get(t.Context(), false)
	wantError(t, err, "gone")
	usable = true
	r.set("name.pem", []byte("content")) // the same content as before is looked at again
	wantValue(t, s, false, "content")
}

func TestNoSettingHasTheZeroValue(t *testing.T) {
	t.Parallel()
	var s *source[string]
	wantValue(t, s, true, "")
	if got := s.latest(); got != "" {
		t.Errorf("latest %q, want nothing", got)
	}
}
