package bounded_test

import (
	"strconv"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"

	"example.com/grpc-health-http/internal/bounded"
	"example.com/grpc-health-http/internal/health"
)

func label(name string) string { return "<" + name + ">" }

func TestFind(t *testing.T) {
	t.Parallel()
	serving := health.Verdict{Status: health.Serving, Asked: true}
	for name, test := range map[string]struct {
		configured []string
		service    string
		verdict    health.Verdict
		want       string
	}{
		"the whole server, where nothing is configured":  {nil, "", health.Verdict{Status: health.Timeout}, "<>"},
		"the whole server, where services are":           {[]string{"a"}, "", health.Verdict{Status: health.Timeout}, "<other>"},
		"configured, and failing":                        {[]string{"a"}, "a", health.Verdict{Status: health.ConnectionFailed}, "<a>"},
		"acknowledged":                                   {nil, "b", serving, "<b>"},
		"acknowledged as down":                           {nil, "b", health.Verdict{Status: health.NotServing, Asked: true}, "<b>"},
		"unknown by the answer":                          {nil, "b", health.Verdict{Status: health.ServiceUnknown, Asked: true}, "<other>"},
		"unknown by the code":                            {nil, "b", health.Verdict{Status: health.ServiceUnknown, Asked: true, Code: codes.NotFound}, "<other>"},
		"failed":                                         {nil, "b", health.Verdict{Status: health.RPCFailed, Asked: true, Code: codes.Internal}, "<other>"},
		"acknowledged, with letters of any language":     {nil, "grüße.検査", serving, "<grüße.検査>"},
		"acknowledged, with a bidirectional override":    {nil, "a\u202eb", serving, "<other>"},
		"acknowledged, with a line separator":            {nil, "a\u2028b", serving, "<other>"},
		"acknowledged, with a character without a width": {nil, "a\u200bb", serving, "<other>"},
		"never asked":                                    {nil, "b", health.Verdict{Status: health.Overloaded}, "<other>"},
	} {
		test.verdict.Service = test.service
		if got := bounded.New(test.configured, label).Find(test.verdict); got != test.want {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
	}
}

func TestNamesAreBounded(t *testing.T) {
	t.Parallel()
	s := bounded.New([]string{"configured"}, func(name string) *string { return &name })
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for i := range 150 {
				s.Find(health.Verdict{Service: strconv.Itoa(i), Status: health.Serving, Asked: true})
			}
		})
	}
	all.Wait()
	own := 0
	for i := range 150 {
		// A name keeps its T when a later verdict does not acknowledge it.
		if s.Find(health.Verdict{Service: strconv.Itoa(i)}) != s.Others() {
			own++
		}
	}
	if own != 100 {
		t.Errorf("%d names have a T of their own, want 100", own)
	}
	if got := *s.Find(health.Verdict{Service: "configured"}); got != "configured" {
		t.Errorf("the configured name has %q", got)
	}
}
