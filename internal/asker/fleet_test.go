package asker_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"example.com/grpc-health-http/internal/asker"
	"example.com/grpc-health-http/internal/health"
)

const interval = 10 * time.Second

// ask asks a fleet, and returns the answer and what was counted.
func ask(fleet *asker.Fleet, every time.Duration, q asker.Question) (asker.Answer, asker.Refusal, []string) {
	var counted []string
	a := asker.New(asker.Options{
		Fleet: func(context.Context) *asker.Fleet { return fleet }, Interval: every,
		Rejected: func(reason string) { counted = append(counted, reason) },
	})
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	ctx, cancel, refusal := a.Begin(r)
	defer cancel()
	if refusal != asker.NotRefused {
		return asker.Answer{}, refusal, counted
	}
	found, refusal := a.Ask(ctx, r, &q, nil)
	return found, refusal, counted
}

// crowd is n targets, about which what known says is known.
func crowd(n int, known func(i int) health.Verdict) *asker.Fleet {
	var all []*asker.Upstream
	for i := range n {
		all = append(all, &asker.Upstream{
			Name: fmt.Sprintf("t%03d", i),
			Check: func(context.Context, string) health.Verdict {
				return health.Verdict{Status: health.Serving, At: time.Now()}
			},
			Latest: func() []health.Verdict { return []health.Verdict{known(i)} },
		})
	}
	return asker.NewFleet(all, true, time.Now())
}

// All of more than 100 targets is a summary of what is known, in which nothing is older than two intervals.
func TestSummary(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ages := map[int]time.Duration{3: 2 * interval, 4: 2*interval + 1, 5: time.Hour}
		fleet := crowd(101, func(i int) health.Verdict {
			if i == 7 {
				return health.Verdict{} // not checked yet
			}
			return health.Verdict{Status: health.Serving, At: time.Now().Add(-ages[i])}
		})
		status := func(found asker.Answer) (all []string) {
			for _, i := range []int{0, 3, 4, 5, 7, 100} {
				v := found.Verdicts[i]
				if v.Target != fmt.Sprintf("t%03d", i) {
					t.Errorf("verdict %d is about %q", i, v.Target)
				}
				all = append(all, v.Status.String())
			}
			return all
		}
		found, refusal, counted := ask(fleet, interval, asker.Question{})
		if refusal != asker.NotRefused || !found.Summary || len(found.Verdicts) != 101 || len(counted) > 0 {
			t.Fatalf("%v, summary %v, %d verdicts, counted %q", refusal, found.Summary, len(found.Verdicts), counted)
		}
		if got := status(found); !slices.Equal(got, []string{"SERVING", "SERVING", "TIMEOUT", "TIMEOUT", "OVERLOADED", "SERVING"}) {
			t.Errorf("at the start: %q", got)
		}
		if v := found.Verdicts[4]; v.At.IsZero() || v.Err == nil {
			t.Errorf("a late one does not say when it was checked, or why it is late: %+v", v)
		}
		time.Sleep(2*interval + 1)
		found, _, _ = ask(fleet, interval, asker.Question{})
		if got := status(found); got[4] != "TIMEOUT" {
			t.Errorf("later: %q", got)
		}
		for name, row := range map[string]struct {
			every   time.Duration
			q       asker.Question
			refusal asker.Refusal
		}{
			"without an interval": {0, asker.Question{}, asker.TooMany},
			"with a service":      {interval, asker.Question{Services: []string{"s"}}, asker.NoSummary},
			"a list":              {interval, asker.Question{List: true}, asker.NoSummary},
		} {
			if _, refusal, counted := ask(fleet, row.every, row.q); refusal != row.refusal || !slices.Equal(counted, []string{"query"}) {
				t.Errorf("%s: %v, counted %q", name, refusal, counted)
			}
		}
		found, refusal, _ = ask(fleet, interval, asker.Question{Targets: []string{"t007"}})
		if refusal != asker.NotRefused || found.Summary || found.Verdicts[0].Status != health.Serving {
			t.Errorf("one of many is not checked: %v, %+v", refusal, found)
		}
		if found, _, _ := ask(crowd(100, nil), interval, asker.Question{}); found.Summary || len(found.Verdicts) != 100 {
			t.Errorf("all of 100 are not checked: %+v", found)
		}
	})
}

// What is not known is said, and not taken for health.
func TestNotConfigured(t *testing.T) {
	t.Parallel()
	if _, refusal, _ := ask(nil, interval, asker.Question{}); refusal != asker.NotConfigured {
		t.Errorf("without a fleet: %v", refusal)
	}
	for r := asker.Unauthorized; r <= asker.NoRoom; r++ {
		if r.String() == "" {
			t.Errorf("refusal %d says nothing", r)
		}
	}
}
