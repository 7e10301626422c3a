package memory

import (
	"sync"
	"sync/atomic"
	"testing"
)

func TestShare(t *testing.T) {
	t.Parallel()
	s := NewShare(100)
	for i, step := range []struct {
		take, rest int64
		ok         bool
		used       int64
	}{
		{take: 60, ok: true, used: 60},
		{take: 41, used: 60},
		{take: 40, ok: true, used: 100},
		{take: 1, used: 100},
		{take: -40, used: 60},
		{take: 20, rest: 30, used: 60},
		{take: 10, rest: 30, ok: true, used: 70},
		{take: -70, used: 0},
		{take: 1000, ok: true, used: 1000}, // more than there is, but alone
		{take: 1, used: 1000},
		{take: -1000, used: 0},
		{take: 80, rest: 50, ok: true, used: 80},
	} {
		if step.take < 0 {
			s.Give(-step.take)
		} else if ok := s.TakeLeaving(step.take, step.rest); ok != step.ok {
			t.Errorf("step %d: %v", i, ok)
		}
		if s.Used() != step.used {
			t.Errorf("step %d: %d bytes are used, want %d", i, s.Used(), step.used)
		}
	}
	var none *Share
	if !none.Take(1<<60) || none.Used() != 0 || none.Limit() != 0 {
		t.Error("no share is a bound")
	}
	none.Give(1)
}

// Callers side by side never have more than there is, and nothing is lost.
func TestShareSideBySide(t *testing.T) {
	t.Parallel()
	s := NewShare(1000)
	var all sync.WaitGroup
	var has, most atomic.Int64
	for range 8 {
		all.Go(func() {
			for range 2000 {
				if !s.Take(150) {
					continue
				}
				now := has.Add(150)
				for m := most.Load(); now > m && !most.CompareAndSwap(m, now); m = most.Load() {
				}
				has.Add(-150)
				s.Give(150)
			}
		})
	}
	all.Wait()
	if most.Load() > 1000 || s.Used() != 0 {
		t.Errorf("%d bytes were taken of 1000, and %d are left", most.Load(), s.Used())
	}
}

func TestBudget(t *testing.T) {
	t.Parallel()
	for _, soft := range []int64{12 * mib, 32 * mib, 48 * mib, 112 * mib, 224 * mib, 896 * mib, 7 << 30} {
		b := NewBudget(Limit{Soft: soft})
		all := b.Connections + b.SecondaryConnections + b.Headers + b.Configured.Limit() + b.Others.Limit() + b.Answers.Limit()
		if most := max((soft-own)/4*3, least); all > most || all < most-16 {
			t.Errorf("%d MiB: the shares are %d bytes, want %d", soft/mib, all, most)
		}
		// Those who wait leave connections to others.
		for _, kind := range []struct{ connection, request int64 }{{Connection, Request}, {SecureConnection, SecureRequest}, {HTTP2Connection, SecureRequest}} {
			waiting := (b.Configured.Limit() + b.Others.Limit()) / (kind.request + Name)
			if connections := b.Connections / kind.connection; waiting > connections*15/16 {
				t.Errorf("%d MiB: %d requests can wait, and there are %d connections", soft/mib, waiting, connections)
			}
		}
		// A setting may have 100 names, and a request.
		if hundred := int64(SecureRequest + 100*Name); b.Others.Limit() < hundred && soft > 32*mib {
			t.Errorf("%d MiB: a request for 100 names takes %d bytes, and there are %d", soft/mib, hundred, b.Others.Limit())
		}
	}
}
