package web

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"example.com/grpc-health-http/internal/answer"
	"example.com/grpc-health-http/internal/asker"
	"example.com/grpc-health-http/internal/health"
)

// upAndDown is a history that takes as much to draw as one can.
func upAndDown(string) []health.Past {
	var history []health.Past
	for i := range 60 {
		history = append(history, health.Past{At: time.Now(), Status: []health.Status{health.Serving, health.NotServing, health.Unknown}[i%3]})
	}
	return history
}

// What an answer takes is never more than what it is charged with, however its names are escaped.
func TestAnswerCost(t *testing.T) {
	t.Parallel()
	for _, f := range []format{formatHTML, formatJSON, formatText} {
		for _, n := range []int{0, 1, 2, 7, 8, 10, 100, 2100} {
			for _, text := range []string{"", "echo.EchoServer", strings.Repeat("a", 255), strings.Repeat(`"`, 255), strings.Repeat("\u2028", 85), strings.Repeat("<", 255), strings.Repeat("+", 255), strings.Repeat(".", 255), strings.Repeat("é", 127)} {
				for _, cause := range []string{"", strings.Repeat("<", 1<<10), strings.Repeat("c", 1<<10)} {
					for _, named := range []bool{false, true} {
						checkCost(t, f, n, text, cause, named, 0)
					}
				}
			}
		}
	}
}

// Also where the answer has many addresses.
func TestAnswerCostOfAddresses(t *testing.T) {
	t.Parallel()
	for _, f := range []format{formatHTML, formatJSON, formatText} {
		for _, n := range []int{1, 2, 100, 1000} {
			for _, cause := range []string{"", strings.Repeat("<", 1<<10), strings.Repeat("c", 1<<10)} {
				for _, addresses := range []int{1, 3, 256} {
					checkCost(t, f, n, "echo.EchoServer", cause, false, addresses)
				}
			}
		}
	}
}

func checkCost(t *testing.T, f format, n int, text, cause string, named bool, addresses int) {
	t.Helper()
	var each *health.Addresses
	if addresses > 0 {
		each = &health.Addresses{Needed: addresses, LeftOut: 12}
		for i := range addresses {
			a := health.AddressVerdict{Address: fmt.Sprintf("[2001:db8:1234:1234:1234:1234:1234:%04x]:50051", i), Status: health.ConnectionFailed, Asked: true, Code: 4, Phase: health.PhaseCredentials, Duration: 123456789, NoRoute: i%2 == 0}
			if cause != "" {
				a.Err = errors.New(cause)
			}
			each.All = append(each.All, a)
		}
	}
	var verdicts []health.Verdict
	var upstreams []*asker.Upstream
	var q query
	for i := range n {
		v := health.Verdict{Service: text, Status: health.Timeout, Phase: health.PhaseConnect, At: time.Now(), Since: time.Now(), EvidenceID: fmt.Sprintf("%012d", i), Duration: 12345678, Addresses: each}
		if named {
			v.Target = fmt.Sprintf("%063d", i)
			upstreams = append(upstreams, &asker.Upstream{Name: v.Target, Group: fmt.Sprintf("%063d", i), Services: []string{"", text}, History: upAndDown})
		}
		if n <= health.MaxServices { // more cannot be asked for by name
			v.Service += fmt.Sprint(i)
			q.Services = append(q.Services, v.Service)
			if named {
				q.Targets = append(q.Targets, v.Target)
			}
		}
		if cause != "" {
			v.Err = errors.New(fmt.Sprint(i) + cause)
		}
		verdicts = append(verdicts, v)
	}
	if len(upstreams) == 0 {
		upstreams = []*asker.Upstream{{History: upAndDown}}
	}
	found := asker.Answer{Verdicts: verdicts, Summary: n > asker.MaxTargets, Fleet: asker.NewFleet(upstreams, named, time.Now())}
	took := int64(0)
	switch f {
	case formatHTML:
		cutOff, counts := cut(found)
		found, verdicts = cutOff, cutOff.Verdicts
		data := newPage(q, health.Timeout, found, shown{tally: counts, title: "title", certificate: newPageCertificate(time.Now(), time.Now()), kept: newKept(found), now: time.Now(), showCause: true})
		took = int64(cap(loadPage().render(data)) + len(data.Rows) + len(data.Folded))
	case formatJSON:
		// A buffer that grows exists twice for a moment; the smaller one is half as large.
		took = int64(cap(answer.JSON(verdicts, found.Summary, true))) * 3 / 2
	default:
		took = int64(cap(answer.Text(verdicts))) * 3 / 2
	}
	if cost := answerCost(f, verdicts, true); took > cost {
		t.Errorf("%s, %d services %.3q, causes %.1q, named %v, %d addresses: %d bytes, charged with %d", f, n, text, cause, named, addresses, took, cost)
	}
}

// A page of a thousand targets is small, also where they go up and down.
func TestPageOfAThousandTargetsIsSmall(t *testing.T) {
	t.Parallel()
	found := thousand(func(int) health.Status { return health.Serving })
	cutOff, counts := cut(found)
	body := loadPage().render(newPage(query{}, health.Serving, cutOff, shown{tally: counts, kept: newKept(found), now: time.Now()}))
	if len(body) > 620_000 {
		t.Errorf("%d bytes", len(body))
	}
	if cost := answerCost(formatHTML, found.Verdicts, true); cost > maxAnswer {
		t.Errorf("it is charged with %d bytes, more than an answer may take", cost)
	}
	t.Logf("%d bytes, charged with %d", len(body), answerCost(formatHTML, found.Verdicts, true))
}

// Ten thousand targets can be asked for, in every format. The page has the worst of them, and says how many it has not.
func TestTenThousandTargets(t *testing.T) {
	t.Parallel()
	found := asker.Answer{Summary: true}
	var upstreams []*asker.Upstream
	for i := range 10_000 {
		v := health.Verdict{Target: fmt.Sprintf("payments-eu-west-%05d", i), Service: "payments.v1.Checkout", Status: health.Serving, Asked: true, At: time.Now()}
		if i%100 == 99 {
			v.Status, v.EvidenceID = health.NotServing, "0123456789ab"
		}
		upstreams = append(upstreams, &asker.Upstream{Name: v.Target, Services: []string{v.Service}})
		found.Verdicts = append(found.Verdicts, v)
	}
	found.Fleet = asker.NewFleet(upstreams, true, time.Now())
	page, counts := cut(found)
	for f, verdicts := range map[format][]health.Verdict{formatText: found.Verdicts, formatJSON: found.Verdicts, formatHTML: page.Verdicts} {
		if cost := answerCost(f, verdicts, true); cost > maxAnswer {
			t.Errorf("%s is charged with %d bytes, more than an answer may take", f, cost)
		}
	}
	body := string(loadPage().render(newPage(query{}, health.NotServing, page, shown{tally: counts, now: time.Now()})))
	for _, want := range []string{">9900 of 10000 targets are serving.<", ">1900 serving<", `id="beyond"><span id="more">8000</span> more`, "payments-eu-west-09999"} {
		if !strings.Contains(body, want) {
			t.Errorf("%s is missing", want)
		}
	}
	if n := strings.Count(body, "<tr role=row class="); n != maxRows+1 { // and the one that the script makes others of
		t.Errorf("%d rows", n)
	}
}

// thousand is a summary of a thousand targets with all that is known of them.
func thousand(status func(i int) health.Status) asker.Answer {
	found := asker.Answer{Summary: true}
	var upstreams []*asker.Upstream
	for i := range 1000 {
		name := fmt.Sprintf("payments-eu-west-%04d", i)
		upstreams = append(upstreams, &asker.Upstream{
			Name: name, Group: fmt.Sprintf("payments-%d", i%40), Services: []string{"payments.v1.Checkout"},
			Check:           func(context.Context, string) health.Verdict { return health.Verdict{} },
			CertificateEnds: func() time.Time { return time.Now().Add(time.Hour) },
			History: func(string) []health.Past {
				history := make([]health.Past, 60)
				for k := range history {
					history[k] = health.Past{At: time.Now(), Status: health.Serving}
				}
				if i%10 == 0 {
					history[30].Status = health.Timeout
				}
				return history
			},
		})
		found.Verdicts = append(found.Verdicts, health.Verdict{Target: name, Service: "payments.v1.Checkout", Status: status(i), Asked: true, Duration: time.Millisecond, At: time.Now(), Since: time.Now().Add(-time.Hour)})
	}
	found.Fleet = asker.NewFleet(upstreams, true, time.Now())
	return found
}

// BenchmarkPageOfAThousand is all that a request for the page of a thousand targets does once the verdicts are known.
func BenchmarkPageOfAThousand(b *testing.B) {
	found := thousand(func(i int) health.Status {
		if i%50 == 0 {
			return health.Timeout
		}
		return health.Serving
	})
	b.ReportAllocs()
	for b.Loop() {
		s := shown{now: time.Now()}
		s.certificate = certificateOf(query{}, found, s.now)
		var page asker.Answer
		page, s.tally = cut(found)
		s.kept = newKept(page)
		newBodyKey(formatHTML, query{}, page, s)
		loadPage().render(newPage(query{}, health.Timeout, page, s))
	}
}
