package bounded_test

import (
	"strconv"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"

	"example.com/grpc-health-http/internal/bounded"
	"example.com/grpc-health-http/internal/check"
)

func label(name string) string { return "<" + name + ">" }

func TestFind(t *testing.T) {
	t.Parallel()
	serving := check.Verdict{Status: check.Serving, Asked: true}
	for name, test := range map[string]struct {
		configured []string
		service    string
		verdict    check.Verdict
		want       string
	}{
		"the whole server, where nothing is configured": {nil, "", check.Verdict{Status: check.Timeout}, "<>"},
		"the whole server, where services are":          {[]string{"a"}, "", check.Verdict{Status: check.Timeout}, "<other>"},
		"configured, and failing":                       {[]string{"a"}, "a", check.Verdict{Status: check.ConnectionFailed}, "<a>"},
		"acknowledged":                                  {nil, "b", serving, "<b>"},
		"acknowledged as down":                          {nil, "b", check.Verdict{Status: check.NotServing, Asked: true}, "<b>"},
		"unknown by the answer":                         {nil, "b", check.Verdict{Status: check.ServiceUnknown, Asked: true}, "<other>"},
		"unknown by the code":                           {nil, "b", check.Verdict{Status: check.ServiceUnknown, Asked: true, Code: codes.NotFound}, "<other>"},
		"failed":                                        {nil, "b", check.Verdict{Status: check.RPCFailed, Asked: true, Code: codes.Internal}, "<other>"},
		"never asked":                                   {nil, "b", check.Verdict{Status: check.Overloaded}, "<other>"},
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
				s.Find(check.Verdict{Service: strconv.Itoa(i), Status: check.Serving, Asked: true})
			}
		})
	}
	all.Wait()
	own := 0
	for i := range 150 {
		// No longer acknowledged, and yet a name keeps its place.
		if s.Find(check.Verdict{Service: strconv.Itoa(i)}) != s.Others() {
			own++
		}
	}
	if own != 100 {
		t.Errorf("%d names have a place of their own, want 100", own)
	}
	if got := *s.Find(check.Verdict{Service: "configured"}); got != "configured" {
		t.Errorf("the configured name has %q", got)
	}
}
