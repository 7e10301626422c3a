package web_test

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/html"

	"example.com/grpc-health-http/internal/asker"
	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/internal/web"
)

// targetOf is a target whose services are found as they are given, serving where they are not.
func targetOf(name string, found map[string]health.Verdict, services ...string) *asker.Upstream {
	u := &asker.Upstream{Name: name, Services: services}
	u.Check = func(_ context.Context, service string) health.Verdict {
		v, ok := found[service]
		if !ok {
			v = health.Verdict{Status: health.Serving, Asked: true}
		}
		v.Service, v.At = service, time.Date(2026, 11, 20, 20, 22, 4, 0, time.UTC)
		return v
	}
	u.Latest = func() (all []health.Verdict) {
		for _, s := range health.Configured(services) {
			all = append(all, u.Check(context.Background(), s))
		}
		return all
	}
	return u
}

// pageOf is the page that the upstreams' handler answers a query with.
func pageOf(o web.Options, interval time.Duration, query string, upstreams ...*asker.Upstream) string {
	fleet := asker.NewFleet(upstreams, upstreams[0].Name != "", time.Now())
	o.Asker = asker.New(asker.Options{Fleet: func(context.Context) *asker.Fleet { return fleet }, Interval: interval})
	w := httptest.NewRecorder()
	web.New(o).ServeHTTP(w, httptest.NewRequest("GET", "/?format=html"+query, nil))
	return w.Body.String()
}

// tableOf reads the rows of one of a page's tables: their cells' texts, and the link of each.
func tableOf(t *testing.T, page, id string) (rows []string) {
	t.Helper()
	root, err := html.Parse(strings.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	attribute := func(n *html.Node, key string) string {
		for _, a := range n.Attr {
			if a.Key == key {
				return a.Val
			}
		}
		return ""
	}
	for n := range root.Descendants() {
		if n.Type != html.ElementNode || n.Data != "tr" || attribute(n.Parent, "id") != id {
			continue
		}
		var texts []string
		link := ""
		for cell := range n.ChildNodes() {
			text := ""
			for inner := range cell.Descendants() {
				switch {
				case inner.Type == html.TextNode:
					text += inner.Data
				case inner.Data == "a":
					link = attribute(inner, "href")
				case inner.Data == "svg":
					text += attribute(inner, "aria-label")
				case inner.Data == "path":
					text += " " + attribute(inner, "class") + " " + attribute(inner, "d")
				}
			}
			texts = append(texts, text)
		}
		rows = append(rows, strings.TrimSpace(strings.Join(append(texts, link), "|")))
	}
	return rows
}

func isCompact(page string) bool {
	element, _, _ := strings.Cut(page, "<head>")
	return strings.Contains(element, "data-many")
}

// From eight rows on the healthy ones are folded, and the worst come first; each row has its history, and its page.
func TestPageOfMany(t *testing.T) {
	t.Parallel()
	hostile := `"><script>alert(1)</script>`
	bad := map[string]health.Verdict{
		hostile:     {Status: health.ConnectionFailed, Phase: health.PhaseTLS, EvidenceID: "ID", Err: errors.New("10.1.2.3")},
		"a.v1.Cart": {Status: health.Unknown, Asked: true},
	}
	var all []*asker.Upstream
	for i := range 6 {
		all = append(all, targetOf(fmt.Sprint("t", i), nil))
	}
	mixed := targetOf("mixed", bad, "a.v1.Cart", "", hostile)
	mixed.Group = `<g>`
	mixed.History = func(service string) []health.Past {
		if service != "" {
			return []health.Past{{Status: health.Serving}, {Status: health.Unknown}}[:len(service)/len(hostile)+1]
		}
		history := slices.Repeat([]health.Past{{Status: health.Serving}}, 70)
		history[68].Status, history[69].Status = health.Timeout, health.Overloaded
		return history
	}
	all = append(all, mixed)
	page := pageOf(web.Options{ShowCause: true}, 0, "", all...)
	want := []string{
		`<g> 2 of 3 not serving|?format=html&group=%3Cg%3E`,
		`mixed|` + hostile + `|CONNECTION_FAILED|1 of 2 serving good M174 8h3 unsure M177 10h3|tls|–|0.0 ms|2026-11-20 20:22:04Z|–|?format=html&service=%22%3E%3Cscript%3Ealert%281%29%3C%2Fscript%3E&target=mixed`,
		`mixed|a.v1.Cart|UNKNOWN|1 of 1 serving good M177 8h3|–|OK|0.0 ms|2026-11-20 20:22:04Z|–|?format=html&service=a.v1.Cart&target=mixed`,
	}
	if got := tableOf(t, page, "services"); !slices.Equal(got, want) {
		t.Errorf("rows\n%q, want\n%q", got, want)
	}
	serving := tableOf(t, page, "serving")
	if len(serving) != 9 || serving[0] != `<g> 1 of 3 serving|?format=html&group=%3Cg%3E` || serving[2] != `No group 6 of 6 serving|` || serving[3] != `t0|Whole server|SERVING||–|OK|0.0 ms|2026-11-20 20:22:04Z|–|?format=html&target=t0` ||
		serving[1] != `mixed|Whole server|SERVING|58 of 60 serving good M0 8h174 unsure M177 10h3 bad M174 12h3|–|OK|0.0 ms|2026-11-20 20:22:04Z|–|?format=html&service=&target=mixed` {
		t.Errorf("folded\n%q", serving)
	}
	for _, want := range []string{
		` data-many data-strips data-kept data-targets>`, `<title>Connection failed – 7 targets</title>`,
		`>7 of 9 services of 7 targets are serving. mixed: TLS handshake failed.</p>`, `<span id="folded">7 serving</span>`, ` data-group="&lt;g&gt;"`,
	} {
		if !strings.Contains(page, want) {
			t.Errorf("%s is missing", want)
		}
	}
	if strings.Contains(page, "10.1.2.3") || strings.Contains(page, "<script>alert") || strings.Contains(page, `">ID<`) {
		t.Error("the page has what is in the details, or a script")
	}
	// A row's page has the rest.
	one := pageOf(web.Options{ShowCause: true}, 0, "&target=mixed&service=%22%3E%3Cscript%3Ealert%281%29%3C%2Fscript%3E", all...)
	if !strings.Contains(one, ">10.1.2.3<") || !strings.Contains(one, `<code id="evidence">ID<`) || isCompact(one) {
		t.Error("the page of one row does not say why")
	}
	// With one less the page is as it was.
	few := pageOf(web.Options{}, 0, "&target=mixed&target=t0&target=t1&target=t2&target=t3", all...)
	if n := len(tableOf(t, few, "services")); n != 7 || isCompact(few) || tableOf(t, few, "serving") != nil {
		t.Errorf("%d rows of 7 are not folded", n)
	}
}

// The rows of a page of many are by their groups: the one with the worst row is the first, its worst row on top.
func TestGroups(t *testing.T) {
	t.Parallel()
	timeout, down, unsure := health.Verdict{Status: health.Timeout}, health.Verdict{Status: health.NotServing, Asked: true}, health.Verdict{Status: health.Overloaded}
	of := func(group, name string, v health.Verdict) *asker.Upstream {
		u := targetOf(name, map[string]health.Verdict{"": v})
		u.Group = group
		u.Latest = func() []health.Verdict {
			latest := v
			latest.At = time.Now()
			return []health.Verdict{latest}
		}
		return u
	}
	good := health.Verdict{Status: health.Serving, Asked: true}
	large := func(n int, group string) (all []*asker.Upstream) {
		for i := range n {
			all = append(all, of(group, fmt.Sprintf("%s%03d", group, i), good))
		}
		return all
	}
	for name, test := range map[string]struct {
		all            []*asker.Upstream
		query          string
		rows, folded   []string // the first cells
		heading, under string   // the link of the first heading of each table
	}{
		"the group of the worst is the first, whatever its name": {
			all:  []*asker.Upstream{of("a", "a1", unsure), of("a", "a2", good), of("a", "a3", down), of("b", "b1", unsure), of("b", "b2", timeout), of("b", "b3", good), of("c", "c1", good), of("c", "c2", good)},
			rows: []string{"b 2 of 3 not serving", "b2", "b1", "a 2 of 3 not serving", "a1", "a3"}, folded: []string{"a 1 of 3 serving", "a2", "b 1 of 3 serving", "b3", "c 2 of 2 serving", "c1", "c2"},
			heading: "?format=html&group=b", under: "?format=html&group=a",
		},
		"alike, they are in the order of their names, and those without one are the last": {
			all:  []*asker.Upstream{of("", "1", down), of("", "2", good), of("b", "3", down), of("a", "4", down), of("B", "5", down), of("a", "6", good), of("a", "7", good), of("a", "8", good)},
			rows: []string{"B 1 of 1 not serving", "5", "a 1 of 4 not serving", "4", "b 1 of 1 not serving", "3", "No group 1 of 2 not serving", "1"}, folded: []string{"a 3 of 4 serving", "6", "7", "8", "No group 1 of 2 serving", "2"},
			heading: "?format=html&group=B", under: "?format=html&group=a",
		},
		"those without a group may have the worst": {
			all:  []*asker.Upstream{of("", "1", timeout), of("a", "2", down), of("a", "3", down), of("a", "4", down), of("a", "5", down), of("a", "6", down), of("a", "7", down), of("a", "8", down)},
			rows: []string{"No group 1 of 1 not serving", "1", "a 7 of 7 not serving", "2", "3", "4", "5", "6", "7", "8"},
		},
		"a group called as those without one": {
			all:    []*asker.Upstream{of("No", "1", good), of("No", "2", good), of("", "3", good), of("No", "4", good), of("No", "5", good), of("No", "6", good), of("No", "7", good), of("No", "8", good)},
			folded: []string{"No 7 of 7 serving", "1", "2", "4", "5", "6", "7", "8", "No group 1 of 1 serving", "3"}, under: "?format=html&group=No",
		},
		"all in one group": {
			all:  append(large(8, "g"), of("g", "x", down)),
			rows: []string{"x"}, folded: []string{"g000", "g001", "g002", "g003", "g004", "g005", "g006", "g007"},
		},
		"none in a group": {all: append(large(7, ""), of("", "x", down)), rows: []string{"x"}, folded: []string{"000", "001", "002", "003", "004", "005", "006"}},
		"few rows have no headings": {
			all:  []*asker.Upstream{of("a", "a1", good), of("b", "b1", down), of("c", "c1", good), of("d", "d1", good), of("e", "e1", good), of("f", "f1", good), of("g", "g1", good)},
			rows: []string{"b1", "a1", "c1", "d1", "e1", "f1", "g1"},
		},
		"a page of one of them": {
			all: append(append(large(8, "g"), large(8, "h")...), of("g", "x", down)), query: "&group=g",
			rows: []string{"x"}, folded: []string{"g000", "g001", "g002", "g003", "g004", "g005", "g006", "g007"},
		},
		"a page of two, which leads nowhere else": {
			all: append(append(large(4, "g"), large(4, "h")...), large(4, "i")...), query: "&group=h&group=g",
			folded: []string{"g 4 of 4 serving", "g000", "g001", "g002", "g003", "h 4 of 4 serving", "h000", "h001", "h002", "h003"},
		},
		"a group of which no page is made": {
			all: append(large(101, "a"), of("b", "x", down), of("a", "y", down)), rows: []string{"a 1 of 102 not serving", "y", "b 1 of 1 not serving", "x"},
		},
	} {
		page := pageOf(web.Options{}, time.Minute, test.query, test.all...)
		first := func(id string) (cells []string, link string) {
			for i, row := range tableOf(t, page, id) {
				cell, rest, _ := strings.Cut(row, "|")
				cells = append(cells, cell)
				if i == 0 && !strings.Contains(rest, "|") {
					link = rest
				}
			}
			return cells, link
		}
		rows, heading := first("services")
		folded, under := first("serving")
		if !slices.Equal(rows, test.rows) || heading != test.heading || len(test.folded) > 0 && (!slices.Equal(folded, test.folded) || under != test.under) {
			t.Errorf("%s: %q, %q\n%.20q, %q", name, rows, heading, folded, under)
		}
	}
}

// What a page is about: PAGE_TITLE, or what was asked for; never an address.
func TestPageTitle(t *testing.T) {
	t.Parallel()
	a, b := targetOf("a", nil), targetOf("b", nil, "s", "u")
	x, y, z := targetOf("x", nil), targetOf("y", nil), targetOf("z", nil)
	x.Group, y.Group, z.Group = "payments", "payments", "search"
	one := &asker.Upstream{Check: says(health.Serving)}
	for _, test := range []struct {
		title, query, subject, meaning string
		upstreams                      []*asker.Upstream
	}{
		{"", "", "Whole server", "The server says that it is serving.", []*asker.Upstream{one}},
		{"Shop", "", "Shop", "The server says that it is serving.", []*asker.Upstream{one}},
		{"Shop", "&service=x", "Shop – x", "The server says that it is serving.", []*asker.Upstream{one}},
		{"\u202eShop\n", "", `\u202eShop\n`, "The server says that it is serving.", []*asker.Upstream{one}},
		{"<i>", "", "&lt;i&gt;", "The server says that it is serving.", []*asker.Upstream{one}},
		{"", "", "2 targets", "3 of 3 services of 2 targets are serving.", []*asker.Upstream{a, b}},
		{"", "&target=a", "a", "The server says that it is serving.", []*asker.Upstream{a, b}},
		{"", "&target=b", "b · 2 services", "2 of 2 services are serving.", []*asker.Upstream{a, b}},
		{"", "&target=b&service=u", "b · u", "The server says that it is serving.", []*asker.Upstream{a, b}},
		{"", "&group=payments", "payments · 2 targets", "2 of 2 targets are serving.", []*asker.Upstream{x, y, z}},
		{"Shop", "&group=payments", "Shop – payments · 2 targets", "2 of 2 targets are serving.", []*asker.Upstream{x, y, z}},
		{"", "&group=search", "z", "The server says that it is serving.", []*asker.Upstream{x, y, z}},
		{"", "&group=payments&group=search", "3 targets", "3 of 3 targets are serving.", []*asker.Upstream{x, y, z}},
		{"", "&group=payments&target=z", "3 targets", "3 of 3 targets are serving.", []*asker.Upstream{x, y, z}},
		{"Shop", "&target=b&service=u", "Shop – b · u", "The server says that it is serving.", []*asker.Upstream{a, b}},
		{"", "", "2 targets", "2 of 2 targets are serving.", []*asker.Upstream{a, targetOf("c", nil)}},
	} {
		page := pageOf(web.Options{PageTitle: test.title}, 0, test.query, test.upstreams...)
		for _, want := range []string{"<title>Serving – " + test.subject + "</title>", `<bdi id="subject">` + test.subject + "</bdi>", ` id="meaning">` + test.meaning + "</p>"} {
			if !strings.Contains(page, want) {
				t.Errorf("title %q, query %q: %s is missing", test.title, test.query, want)
			}
		}
	}
}

// The certificate is that of what was asked for; of several targets, the one that ends first.
func TestPageOfTargetsCertificate(t *testing.T) {
	t.Parallel()
	var all []*asker.Upstream
	for name, days := range map[string]time.Duration{"a": 40, "b": 50, "c": 60, "d": 0} {
		u := targetOf(name, nil)
		u.CertificateEnds = func() time.Time {
			if days == 0 {
				return time.Time{}
			}
			return time.Now().Add(days*24*time.Hour + time.Hour)
		}
		all = append(all, u)
	}
	for query, want := range map[string]string{
		"":                    "First certificate to end</dt>…40 days left, of a",
		"&target=b":           "Upstream’s certificate</dt>…50 days left",
		"&target=b&target=c":  "First certificate to end</dt>…50 days left, of b",
		"&target=d":           "Upstream’s certificate</dt>…none seen",
		"&target=d&target=c":  "First certificate to end</dt>…60 days left, of c",
		"&target=c&service=x": "Upstream’s certificate</dt>…60 days left",
	} {
		page := pageOf(web.Options{}, 0, query, all...)
		label, text, _ := strings.Cut(want, "…")
		text, of, _ := strings.Cut(text, ",")
		if !strings.Contains(page, label) || !strings.Contains(page, ">"+text+"<") || of != "" && !strings.Contains(page, ","+of+"</dd>") {
			t.Errorf("%s: %s is missing", query, want)
		}
	}
}

// A summary says so, and how old it is.
func TestPageOfASummary(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // whose time is exact
		var all []*asker.Upstream
		for i := range 101 {
			u := targetOf(fmt.Sprint("t", i), nil)
			u.Latest = func() []health.Verdict {
				return []health.Verdict{{Status: health.Serving, At: time.Now().Add(-time.Duration(i)*100*time.Millisecond - 20*time.Millisecond)}}
			}
			all = append(all, u)
		}
		page := pageOf(web.Options{}, time.Minute, "", all...)
		if !strings.Contains(page, " data-summary>") || !strings.Contains(page, `<p id="since">Latest checks, the oldest 10 s ago</p>`) || !strings.Contains(page, ">101 of 101 targets are serving.<") {
			t.Error("the page does not say that it is a summary, or how old")
		}
		all[7].Latest = func() []health.Verdict {
			return []health.Verdict{{Status: health.Serving, At: time.Now().Add(-3*time.Hour - time.Minute)}}
		}
		if page := pageOf(web.Options{}, time.Minute, "", all...); !strings.Contains(page, "the oldest 3 hours ago") || !strings.Contains(page, ">TIMEOUT<") {
			t.Error("the page does not say that a check is late")
		}
	})
}

// Where the instance keeps a history, a page of few begins with it: with the worst of its rows, check by check.
func TestPageBeginsWithItsHistory(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 20, 20, 22, 4, 0, time.UTC)
	history := func(statuses ...health.Status) func(string) []health.Past {
		return func(string) (all []health.Past) {
			for i, s := range statuses {
				all = append(all, health.Past{At: at.Add(time.Duration(i-len(statuses)+1) * time.Minute), Status: s})
			}
			return all
		}
	}
	a, b := targetOf("a", nil), targetOf("b", nil)
	a.History = history(health.Timeout, health.Serving, health.Unknown, health.Serving)
	b.History = history(health.Serving, health.Serving, health.NotServing)
	bars := func(query string) (tones []string) {
		page := pageOf(web.Options{}, 0, query, a, b)
		for bar := range strings.SplitSeq(page, "<rect x=") {
			if _, tone, ok := strings.Cut(bar, ` class="`); ok && strings.Contains(bar, "data-at") {
				tone, _, _ = strings.Cut(tone, `"`)
				_, title, _ := strings.Cut(bar, "<title>")
				title, _, _ = strings.Cut(title, "</title>")
				tones = append(tones, tone+" "+title)
			}
		}
		return tones
	}
	for query, want := range map[string][]string{
		"":          {"good 20 Nov 2026, 20:20:04 UTC SERVING", "unsure 20 Nov 2026, 20:21:04 UTC UNKNOWN", "bad 20 Nov 2026, 20:22:04 UTC NOT_SERVING"},
		"&target=b": {"good 20 Nov 2026, 20:20:04 UTC SERVING", "good 20 Nov 2026, 20:21:04 UTC SERVING", "bad 20 Nov 2026, 20:22:04 UTC NOT_SERVING"},
	} {
		if got := bars(query); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", query, got, want)
		}
	}
	b.History = nil
	if got := bars(""); got != nil {
		t.Errorf("of a row without a history: %q", got)
	}
}
