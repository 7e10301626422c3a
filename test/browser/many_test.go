package browser

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"google.golang.org/grpc/codes"

	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/internal/settings"
	"example.com/grpc-health-http/test/healthtest"
)

// fleet is n targets of the upstream, "t000" and so on, in groups of ten. Each has a service of its own, which serves.
func fleet(up *healthtest.Upstream, n int) []settings.Target {
	targets := make([]settings.Target, n)
	for i := range targets {
		service := serviceOf(i)
		up.SetStatus(service, serving)
		targets[i] = settings.Target{Name: fmt.Sprintf("t%03d", i), Group: fmt.Sprintf("g%d", i/10), Upstream: settings.Upstream{Addr: up.Target(), Services: []string{service}}}
	}
	return targets
}

func serviceOf(i int) string { return fmt.Sprintf("shop.v1.Service%d", i) }

// phone and desktop set the window's size.
func (p *tab) phone()   { p.resize(390, 844) }
func (p *tab) desktop() { p.resize(1280, 800) }

func (p *tab) resize(width, height int64) {
	p.Helper()
	if err := chromedp.Do(p.ctx, chromedp.EmulateViewport(width, height)); err != nil {
		p.Fatal(err)
	}
}

func (p *tab) withoutScripts() {
	p.Helper()
	call(p, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
}

// click clicks with the mouse. It needs no scripts of the page.
func (p *tab) click(selector string) {
	p.Helper()
	at := read[[2]float64](p, fmt.Sprintf(`(() => {
		const element = document.querySelector(%q);
		element.scrollIntoView({block: 'center', behavior: 'instant'});
		const box = element.getClientRects()[0];
		return [box.x + box.width / 2, box.y + box.height / 2];
	})()`, selector))
	if err := chromedp.Do(p.ctx, chromedp.MouseClickXY(at[0], at[1])); err != nil {
		p.Fatalf("click %s: %v", selector, err)
	}
}

// height is that of the page, in pixels.
func (p *tab) height() int { return read[int](p, `document.documentElement.scrollHeight`) }

// filter types into the filter.
func (p *tab) filter(text string) state {
	p.Helper()
	read[bool](p, fmt.Sprintf(`(() => {
		const filter = document.getElementById('filter');
		filter.value = %q;
		return filter.dispatchEvent(new Event('input', {bubbles: true}));
	})()`, text))
	return p.state()
}

// detail is what the page says of a row beneath it; empty where it says nothing.
func (p *tab) detail() string {
	p.Helper()
	return read[string](p, `[...document.querySelectorAll('.detail')].map((d) => d.innerText).join('\n---\n')`)
}

func visible(rows []row) (targets []string) {
	for _, r := range rows {
		if r.Visible {
			targets = append(targets, r.Target)
		}
	}
	return targets
}

// Sixty targets: what does not serve comes first, the rest is a line. All fits a phone, with scripts and without.
func testMany(t *testing.T, chromium context.Context) {
	up := healthtest.Start(t)
	targets := fleet(up, 60)
	ended := healthtest.Start(t)
	targets[7].Addr = ended.Target()
	srv, _ := serveTargets(t, settings.Settings{Process: settings.Process{PageTitle: "Shop"}}, targets)
	p := open(t, chromium, srv)
	plain := open(t, chromium, srv)
	plain.withoutScripts()
	up.SetStatus(serviceOf(33), notServing)
	ended.SetStatus(serviceOf(7), serving)

	for name, p := range map[string]*tab{"with scripts": p, "without": plain} {
		for _, set := range []func(){p.phone, p.desktop} {
			set()
			p.show("")
			s := p.state()
			if !s.Many || s.Tone != "bad" || s.Title != "Not serving – Shop" || s.Subject != "Shop" || s.Meaning != "59 of 60 targets are serving." || s.Fold != "59 serving" || s.Unfolded {
				t.Errorf("%s: %+v", name, s)
			}
			if s.Width > s.Room {
				t.Errorf("%s: %d pixels wide in %d", name, s.Width, s.Room)
			}
			if got := visible(s.Rows); !slices.Equal(got, []string{"t033"}) {
				t.Errorf("%s: visible are %q", name, got)
			}
			if r := s.Rows[0]; r.Service != serviceOf(33) || r.Status != "NOT_SERVING" || r.Group != "g3" || r.Since == "–" {
				t.Errorf("%s: %+v", name, r)
			}
			if h := p.height(); h >= 1000 {
				t.Errorf("%s: %d pixels high", name, h)
			}
			if h := read[int](p, `document.querySelector('header').offsetHeight`); h > 220 {
				t.Errorf("%s: the banner is %d pixels high", name, h)
			}
		}
	}

	// All healthy, on a phone: one line for all of them.
	up.SetStatus(serviceOf(33), serving)
	for name, p := range map[string]*tab{"with scripts": p, "without": plain} {
		p.phone()
		p.show("")
		if s := p.state(); s.Tone != "good" || s.Fold != "60 serving" || visible(s.Rows) != nil || p.height() >= 900 {
			t.Errorf("%s: all healthy: %d pixels high, %+v", name, p.height(), s)
		}
		p.click("summary")
		if s := p.until("unfolded", func(s state) bool { return s.Unfolded }); len(visible(s.Rows)) != 60 || s.Width > s.Room || p.height() > 60*110 {
			t.Errorf("%s: unfolded: %d rows are visible, %d pixels high, %d wide", name, len(visible(s.Rows)), p.height(), s.Width)
		}
	}

	// Without scripts a row's name leads to a page of that row.
	plain.show(read[string](plain, `document.querySelector('#serving a[href*="t012"]').getAttribute('href')`))
	if s := plain.state(); s.Many || s.Subject != "Shop – t012 · "+serviceOf(12) || len(s.Rows) != 1 || s.Certificate != "none seen" {
		t.Errorf("the page of a target: %+v", s)
	}

	// A target that fails leaves the fold, and comes back to it, without a reload.
	up.SetStatus(serviceOf(20), notServing)
	s := p.until("showing that t020 fails", func(s state) bool { return s.Tone == "bad" })
	var served, of int // of the checks, of which there may have been any number before
	if _, err := fmt.Sscanf(s.Rows[0].Strip, "%d of %d serving", &served, &of); err != nil || served < 1 || served >= of {
		t.Errorf("t020 fails: the strip says %q", s.Rows[0].Strip)
	}
	if s.Rows[0].Target != "t020" || s.Fold != "59 serving" || !s.Unfolded {
		t.Errorf("t020 fails: %+v", s.Rows[0])
	}
	up.SetStatus(serviceOf(20), serving)
	ended.Stop()
	s = p.until("showing that t007 fails", func(s state) bool { return s.Rows[0].Target == "t007" })
	if s.Word != "Connection failed" || s.Meaning != "59 of 60 targets are serving. t007: The server does not accept connections, or cannot be reached." || s.Rows[0].Phase != "connect" {
		t.Errorf("t007 fails: %+v", s)
	}
}

// One row's detail: phase, evidence, cause where callers may see it, and the target's own certificate.
func testDetail(t *testing.T, chromium context.Context) {
	ca := healthtest.NewCA(t)
	secure := healthtest.Start(t, healthtest.TLS(ca.ServerTLS(t, healthtest.ValidUntil(time.Now().Add(40*24*time.Hour+time.Hour)))))
	secure.SetStatus("s", serving)
	up := healthtest.Start(t)
	ended := healthtest.Start(t)
	ended.Stop()
	targets := fleet(up, 10)
	targets[3].Addr = ended.Target()
	targets[5].Upstream = settings.Upstream{Addr: secure.Target(), TLS: true, CACert: ca.WriteFile(t, t.TempDir(), "ca"), Services: []string{"s", "<b>gone</b>"}}
	for _, shows := range []bool{true, false} {
		srv, _ := serveTargets(t, settings.Settings{Process: settings.Process{ShowCause: shows}}, slices.Clone(targets))
		p := open(t, chromium, srv)
		p.desktop()
		p.show("")
		if s := p.state(); s.Meaning != "9 of 11 services of 10 targets are serving. t003: The server does not accept connections, or cannot be reached." || s.Rows[1].Service != "<b>gone</b>" {
			t.Errorf("%+v", s)
		}
		p.click("#services th a")
		until := func(what string, wanted ...string) string {
			t.Helper()
			var got string
			p.until(what, func(state) bool {
				got = p.detail()
				return !slices.ContainsFunc(wanted, func(w string) bool { return !strings.Contains(got, w) })
			})
			return got
		}
		got := until("the detail of t003", "does not accept connections", "connect", "evidence", "none seen", "g0")
		if told := strings.Contains(got, "refused"); told != shows {
			t.Errorf("causes are shown: %v, and the detail says %q", shows, got)
		}
		p.click("#services th a")
		if got := p.detail(); got != "" {
			t.Errorf("still there: %q", got)
		}
		// The keyboard does the same, and the browser says whether it is open.
		read[bool](p, `(document.querySelectorAll('#services th a')[1].focus(), true)`)
		if err := chromedp.Do(p.ctx, chromedp.KeyEvent("\r")); err != nil {
			t.Fatal(err)
		}
		until("the detail of a service that is not known", "does not know this service", "NOT_FOUND", "40 days left")
		if got := read[string](p, `document.activeElement.textContent + ' ' + document.activeElement.ariaExpanded`); got != "t005 true" {
			t.Errorf("the focus is on %q", got)
		}
		// It tells the new status, and its row stays in sight for as long as it is there.
		secure.SetStatus("<b>gone</b>", serving)
		until("the new status", "says that it is serving")
		if where := read[string](p, `document.querySelector('.detail').parentNode.id + ' ' + document.activeElement.textContent + ' ' + document.querySelector('.detail').previousSibling.cells[1].textContent`); where != "services t005 <b>gone</b>" {
			t.Errorf("the detail is in %q", where)
		}
		secure.SetError("<b>gone</b>", 5)
	}
}

// The filter shows the rows that have all its words, of the name, the service, the group and the status, and unfolds where it must.
func testFilter(t *testing.T, chromium context.Context) {
	up := healthtest.Start(t)
	up.SetStatus("<img src=x onerror=alert(1)>", notServing)
	targets := fleet(up, 40)
	targets[9].Services = []string{"<img src=x onerror=alert(1)>"}
	srv, _ := serveTargets(t, settings.Settings{}, targets)
	p := open(t, chromium, srv)
	p.show("")
	for _, test := range []struct {
		text, found string
		visible     []string
		unfolded    bool
	}{
		{"t00", "10 of 40", []string{"t009", "t000", "t001", "t002", "t003", "t004", "t005", "t006", "t007", "t008"}, true},
		{"<IMG", "1 of 40", []string{"t009"}, false},
		{"  service1  g1  t010 ", "1 of 40", []string{"t010"}, true},
		{"not_serving", "1 of 40", []string{"t009"}, false},
		{"g2 service21", "1 of 40", []string{"t021"}, true},
		{"nothing has this", "0 of 40", nil, false},
		{"", "", []string{"t009"}, false},
	} {
		s := p.filter(test.text)
		if got := visible(s.Rows); !slices.Equal(got, test.visible) || s.Found != test.found {
			t.Errorf("%q: %q, %q", test.text, s.Found, got)
		}
		if test.unfolded && !s.Unfolded || test.text == "" && s.Unfolded {
			t.Errorf("%q: unfolded %v", test.text, s.Unfolded)
		}
	}
	// It holds for what comes later.
	p.filter("t00")
	up.SetStatus(serviceOf(3), notServing)
	up.SetStatus(serviceOf(30), notServing)
	s := p.until("showing that t003 fails", func(s state) bool { return strings.HasPrefix(s.Fold, "8 of 37") })
	if got := visible(s.Rows); !slices.Equal(got[:2], []string{"t003", "t009"}) || len(got) != 10 {
		t.Errorf("visible are %q", got)
	}
}

// The headings of groups are the same in a page that was loaded a moment ago and in one that has followed what happened since.
func testGroups(t *testing.T, chromium context.Context) {
	up := healthtest.Start(t)
	targets := fleet(up, 40)
	targets[39].Group = ""
	srv, a := serveTargets(t, settings.Settings{}, slices.Clone(targets))
	p, plain := open(t, chromium, srv), open(t, chromium, srv)
	plain.withoutScripts()
	up.SetStatus(serviceOf(33), notServing)
	p.show("")
	all := []string{"g0 10 of 10 serving", "g1 10 of 10 serving", "g2 10 of 10 serving", "g3 8 of 9 serving", "No group 1 of 1 serving"}
	if s := p.state(); !slices.Equal(s.Headings, []string{"g3 1 of 9 not serving"}) {
		t.Errorf("%q", s.Headings)
	}
	// The filter leaves the headings of what it shows.
	for text, want := range map[string][]string{"g3 t03": {"g3 1 of 9 not serving", all[3]}, "t01": {all[1]}, "t039": {all[4]}, "nothing": nil} {
		if s := p.filter(text); !slices.Equal(s.Headings, want) {
			t.Errorf("%q: %q", text, s.Headings)
		}
	}
	p.filter("")
	// Each of these makes a page other than the one before, in the order of its headings too.
	order := `JSON.stringify([...document.querySelectorAll('#services > tr, #serving > tr')].map((row) =>
		row.className === 'group' ? row.outerHTML.replace(/ hidden=""/, '') : row.cells[0].textContent + row.dataset.group))`
	for _, change := range []struct {
		what   string
		do     func()
		first  string
		folded int
	}{
		{"g1 has one as bad", func() { up.SetStatus(serviceOf(12), notServing) }, "g1 1 of 10 not serving", 38},
		{"g3 has a worse one", func() { up.SetError(serviceOf(35), codes.Unavailable) }, "g3 2 of 9 not serving", 37},
		{"one without a group", func() { up.SetStatus(serviceOf(39), notServing) }, "g3 2 of 9 not serving", 36},
		{"g1 serves", func() { up.SetStatus(serviceOf(12), serving) }, "g3 2 of 9 not serving", 37},
		{"g3 serves", func() { up.SetStatus(serviceOf(33), serving); up.SetStatus(serviceOf(35), serving) }, "No group 1 of 1 not serving", 39},
		{"another target, in another group", func() {
			targets = append(targets, targets[0])
			targets[40].Name, targets[40].Group, targets[40].Services = "new", "g9", []string{"new"}
			up.SetStatus("new", notServing)
			if err := a.SetTargets(slices.Clone(targets)); err != nil {
				t.Fatal(err)
			}
		}, "g9 1 of 1 not serving", 39},
		{"the last one of a group is gone", func() {
			targets = slices.Delete(targets, 39, 40)
			if err := a.SetTargets(slices.Clone(targets)); err != nil {
				t.Fatal(err)
			}
		}, "g9 1 of 1 not serving", 39},
	} {
		change.do()
		plain.show("")
		fresh := plain.state()
		if len(fresh.Headings) == 0 || fresh.Headings[0] != change.first || fresh.Fold != fmt.Sprint(change.folded, " serving") {
			t.Errorf("%s: %q, %s", change.what, fresh.Headings, fresh.Fold)
		}
		want := read[string](plain, order)
		p.until("as a new page is where "+change.what, func(s state) bool {
			return slices.Equal(s.Headings, fresh.Headings) && read[string](p, order) == want
		})
	}
	// A page of many that is about one group has no headings, and is called after the group.
	p.show("?group=g2")
	for _, what := range []string{"at first", "after a check"} {
		s := p.until("called after its group "+what, func(s state) bool { return what == "at first" || len(s.Bars) > 1 })
		if s.Subject != "g2 · 10 targets" || s.Meaning != "10 of 10 targets are serving." || len(s.Headings) > 0 {
			t.Errorf("%s: %q, %q, %q", what, s.Subject, s.Meaning, s.Headings)
		}
	}
	p.show("")
	// A heading leads to a page of its group.
	plain.show(read[string](p, `document.querySelector('#services .group a').getAttribute('href')`))
	if s := plain.state(); len(s.Rows) != 1 || s.Rows[0].Target != "new" {
		t.Errorf("the page of a group: %+v", s.Rows)
	}
}

// A thousand targets are a summary. The page says so, and when each was checked; from one answer to the next it touches only what has changed.
func testThousand(t *testing.T, chromium context.Context) {
	up := healthtest.Start(t)
	targets := fleet(up, 1000)
	for i := range targets {
		targets[i].ConnMaxAge = time.Hour
	}
	srv, a := serveTargets(t, settings.Settings{Process: settings.Process{CheckInterval: time.Hour}}, targets)
	check := func() {
		upstreams := a.Upstreams()
		for part := range slices.Chunk(upstreams, 20) {
			health.SideBySide(len(part), func(i int) []health.Verdict { return part[i].CheckAll(t.Context()) })
		}
	}
	p := open(t, chromium, srv)
	p.phone()
	p.show("")
	if s := p.state(); s.Word != "Overloaded" || len(visible(s.Rows)) != 1000 || s.Rows[0].Checked != "–" {
		t.Errorf("before the first checks: %s, %d rows, %+v", s.Word, len(visible(s.Rows)), s.Rows[0])
	}
	check()
	up.SetStatus(serviceOf(500), notServing)
	check()
	p.show("")
	s := p.state()
	if s.Word != "Not serving" || s.Meaning != "999 of 1000 targets are serving." || s.Fold != "999 serving" || s.Live != "Updates every 10 s" || len(s.Rows) != 1000 {
		t.Errorf("a thousand: %+v", s.Rows[0])
	}
	if !strings.HasPrefix(s.Since, "Latest checks, the oldest ") || !strings.HasSuffix(s.Since, " s ago") {
		t.Errorf("since %q", s.Since)
	}
	if r := s.Rows[0]; r.Target != "t500" || r.Strip != "1 of 2 serving" || len(r.Checked) != len("15:04:05") {
		t.Errorf("the worst: %+v", r)
	}
	if h := p.height(); h >= 1000 || s.Width > s.Room {
		t.Errorf("%d pixels high, %d wide", h, s.Width)
	}

	// One row changes, of a thousand that were checked.
	read[bool](p, `(() => {
		window.touched = new Set(); // rows, and headings of groups
		new MutationObserver((changes) => changes.forEach((change) => {
			const row = change.target.closest ? change.target.closest('tbody tr') : change.target.parentElement.closest('tbody tr');
			if (row) touched.add(row.cells[0].textContent);
			for (const node of [...change.addedNodes, ...change.removedNodes]) if (node.cells) touched.add(node.cells[0].textContent);
		})).observe(document.querySelector('main'), {subtree: true, childList: true, attributes: true, characterData: true});
		return true;
	})()`)
	up.SetStatus(serviceOf(123), notServing)
	<-time.After(time.Until(time.Now().Truncate(time.Second).Add(time.Second))) // a page of many tells times in seconds
	check()
	s = p.until("showing that t123 fails", func(s state) bool { return s.Fold == "998 serving" })
	if s.Rows[0].Target != "t123" || s.Rows[1].Target != "t500" || s.Rows[0].Strip != "2 of 3 serving" || s.Rows[1].Strip != "1 of 3 serving" {
		t.Errorf("the worst: %+v, %+v", s.Rows[0], s.Rows[1])
	}
	if got := read[[]string](p, `[...touched].sort()`); !slices.Equal(got, []string{"g12 1 of 10 not serving", "g12 9 of 10 serving", "t123", "t500"}) {
		t.Errorf("%d rows were touched: %.20q", len(got), got)
	}
	// What is folded is drawn when it is unfolded.
	p.click("summary")
	s = p.until("unfolded", func(s state) bool { return s.Unfolded && s.Rows[999].Strip == "3 of 3 serving" })
	if n := len(visible(s.Rows)); n != 1000 || s.Width > s.Room || s.Rows[999].Checked == "–" {
		t.Errorf("%d rows are visible, %d pixels wide, the last one is %+v", n, s.Width, s.Rows[999])
	}

	plain := open(t, chromium, srv)
	plain.withoutScripts()
	plain.phone()
	plain.show("")
	if s := plain.state(); s.Fold != "998 serving" || !slices.Equal(visible(s.Rows), []string{"t123", "t500"}) || !strings.HasPrefix(s.Since, "Latest checks, the oldest ") || plain.height() >= 1000 || s.Rows[0].Strip != "2 of 3 serving" {
		t.Errorf("without scripts: %d pixels high, %+v", plain.height(), s.Rows[0])
	}
}

// Where the instance keeps a history, the page begins with it.
func testHistory(t *testing.T, chromium context.Context) {
	up := healthtest.Start(t)
	up.SetStatus("echo", serving)
	s := settings.Settings{Process: settings.Process{CheckInterval: time.Hour}, Upstream: settings.Upstream{Services: []string{"echo"}}}
	s.Addr, s.ConnectTimeout, s.RPCTimeout = up.Target(), soon, soon
	srv, a := serveApp(t, s, nil)
	a.Check(t.Context())
	up.SetStatus("echo", notServing)
	a.Check(t.Context())
	up.SetStatus("echo", serving)
	p := open(t, chromium, srv)
	p.show("")
	want := []string{"good", "bad", "good"} // the last one is the page's
	if s := p.state(); !slices.Equal(s.Bars, want) || s.BarsLabel != "Last checks: 2 of 3 serving" {
		t.Errorf("%q, %q", s.BarsLabel, s.Bars)
	}
	p.until("checked again", func(s state) bool { return slices.Equal(s.Bars, append(want, "good")) })
	plain := open(t, chromium, srv)
	plain.withoutScripts()
	plain.show("")
	if s := plain.state(); len(s.Bars) < 5 || s.Bars[1] != "bad" {
		t.Errorf("without scripts: %q", s.Bars)
	}
}
