package browser

import (
	"context"
	"crypto/tls"
	"fmt"
	"math"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/cdproto/browser"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/fetch"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"example.com/grpc-health-http/internal/inert"
	"example.com/grpc-health-http/internal/settings"
	"example.com/grpc-health-http/test/healthtest"
)

const (
	serving    = healthpb.HealthCheckResponse_SERVING
	notServing = healthpb.HealthCheckResponse_NOT_SERVING
	unknown    = healthpb.HealthCheckResponse_UNKNOWN
)

// TestPage shares one browser among its parts.
func TestPage(t *testing.T) {
	t.Parallel()
	chromium := start(t)
	for name, test := range map[string]func(*testing.T, context.Context){
		"states":          testStates,
		"flips":           testFlips,
		"why":             testWhy,
		"long":            testLong,
		"server gone":     testServerGone,
		"token":           testToken,
		"hidden":          testHidden,
		"list":            testList,
		"without scripts": testWithoutScripts,
		"odd names":       testOddNames,
		"policy":          testPolicy,
		"contrast":        testContrast,
		"many":            testMany,
		"detail":          testDetail,
		"filter":          testFilter,
		"groups":          testGroups,
		"thousand":        testThousand,
		"history":         testHistory,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, chromium)
		})
	}
}

func testStates(t *testing.T, chromium context.Context) {
	up := healthtest.Start(t)
	up.SetStatus("up", serving)
	up.SetStatus("down", notServing)
	up.SetStatus("unsure", unknown)
	up.SetError("broken", codes.Internal)
	defer up.Hang("stuck")()
	withoutHealth := healthtest.Start(t, healthtest.WithoutHealth())
	ended := healthtest.Start(t)
	ended.Stop()
	usual := serve(t, up, settings.Settings{})
	impatient := serve(t, up, settings.Settings{Upstream: settings.Upstream{RPCTimeout: 100 * time.Millisecond}})
	icons := make(map[string]string) // tone → icon
	for _, test := range []struct {
		server              *server
		service             string
		tone, word, meaning string
		status, phase, code string
	}{
		{usual, "up", "good", "Serving", "is serving", "SERVING", "–", "OK"},
		{usual, "down", "bad", "Not serving", "is not serving", "NOT_SERVING", "–", "OK"},
		{usual, "unsure", "unsure", "Unknown", "does not say", "UNKNOWN", "–", "OK"},
		{usual, "nobody", "unsure", "Service unknown", "does not know this service", "SERVICE_UNKNOWN", "–", "NOT_FOUND"},
		{usual, "broken", "bad", "RPC failed", "the gRPC status INTERNAL", "RPC_FAILED", "–", "INTERNAL"},
		{impatient, "stuck", "bad", "Timed out", "did not answer the health check in time", "TIMEOUT", "rpc", "DEADLINE_EXCEEDED"},
		{serve(t, withoutHealth, settings.Settings{}), "", "bad", "Not implemented", "no health service", "UNIMPLEMENTED", "–", "UNIMPLEMENTED"},
		{serve(t, ended, settings.Settings{}), "", "bad", "Connection failed", "does not accept connections", "CONNECTION_FAILED", "connect", "–"},
	} {
		p := open(t, chromium, test.server)
		p.show("?service=" + test.service)
		s := p.state()
		name := test.service
		if name == "" {
			name = "Whole server"
		}
		if s.Tone != test.tone || s.Word != test.word || !strings.Contains(s.Meaning, test.meaning) || s.Subject != name || s.Title != test.word+" – "+name {
			t.Errorf("%s: %+v", test.status, s)
		}
		if len(s.Rows) != 1 {
			t.Fatalf("%s: rows %+v", test.status, s.Rows)
		}
		r := s.Rows[0]
		if r.Service != name || r.Status != test.status || r.Tone != test.tone || r.Phase != test.phase || r.Code != test.code {
			t.Errorf("%s: row %+v", test.status, r)
		}
		if !regexp.MustCompile(`^\d+\.\d ms$`).MatchString(r.Took) || !regexp.MustCompile(`\d\d:\d\d:\d\d$`).MatchString(r.Checked) {
			t.Errorf("%s: took %q, checked %q", test.status, r.Took, r.Checked)
		}
		// Nothing is kept about names that a caller made up.
		if remembered := test.status != "SERVICE_UNKNOWN" && test.status != "RPC_FAILED" && test.status != "TIMEOUT"; remembered != (r.Since != "–") {
			t.Errorf("%s: since %q", test.status, r.Since)
		}
		if (test.status == "SERVING") != (s.Evidence == "") {
			t.Errorf("%s: evidence %q", test.status, s.Evidence)
		}
		if s.Certificate != "none seen" {
			t.Errorf("%s: certificate %q of a plaintext server", test.status, s.Certificate)
		}
		if s.Live != "Checks every 5 s" || s.Stale || !slices.Equal(s.Bars, []string{test.tone}) {
			t.Errorf("%s: live %q, stale %v, bars %v", test.status, s.Live, s.Stale, s.Bars)
		}
		if before, ok := icons[test.tone]; ok && before != s.Icon {
			t.Errorf("%s: tone %s has the icons %s and %s", test.status, test.tone, before, s.Icon)
		}
		icons[test.tone] = s.Icon
	}
	if icons["good"] == icons["bad"] || icons["good"] == icons["unsure"] || icons["bad"] == icons["unsure"] || !strings.HasPrefix(icons["good"], "data:image/svg+xml,") {
		t.Errorf("icons %v", icons)
	}
}

func testFlips(t *testing.T, chromium context.Context) {
	ca := healthtest.NewCA(t)
	up := healthtest.Start(t, healthtest.TLS(ca.ServerTLS(t, healthtest.ValidUntil(time.Now().Add(27*24*time.Hour+time.Hour)))))
	up.SetStatus("echo", serving)
	p := open(t, chromium, serve(t, up, settings.Settings{Upstream: settings.Upstream{Services: []string{"echo"}, TLS: true, CACert: ca.WriteFile(t, t.TempDir(), "ca")}}))
	p.show("")
	first := p.state()
	if first.Tone != "good" || !strings.HasPrefix(first.Certificate, "27 days left (") || first.BarsLabel != "Last checks: 1 of 1 serving" {
		t.Fatalf("at first: %+v", first)
	}
	up.SetStatus("echo", notServing)
	down := p.until("down", func(s state) bool { return s.Tone == "bad" })
	if down.Title != "Not serving – echo" || down.Word != "Not serving" || down.Icon == first.Icon || down.Evidence == "" || down.Rows[0].Status != "NOT_SERVING" {
		t.Errorf("when it is down: %+v", down)
	}
	if !strings.Contains(down.Since, ", less than a minute") || down.Rows[0].Since == first.Rows[0].Since {
		t.Errorf("it is down since %q, %q; it was up since %q", down.Since, down.Rows[0].Since, first.Rows[0].Since)
	}
	up.SetStatus("echo", serving)
	again := p.until("up again", func(s state) bool { return s.Tone == "good" })
	if again.Title != "Serving – echo" || again.Icon != first.Icon || again.Evidence != "" || !slices.Contains(again.Bars, "bad") || again.Bars[len(again.Bars)-1] != "good" {
		t.Errorf("when it is up again: %+v", again)
	}
	// While nothing changes, another check changes only the time of the check.
	p.until("checked once more", func(s state) bool {
		return s.Rows[0].Checked != again.Rows[0].Checked && s.Rows[0].Since == again.Rows[0].Since
	})

	// What the JSON does not have comes with the page, once after each change.
	requests := slices.DeleteFunc(p.requests(), func(r *network.EventRequestWillBeSent) bool { return strings.Contains(r.Request.URL, "format=html") })
	if n := len(p.requests()) - len(requests); n != 2 {
		t.Errorf("the page was read %d times for 2 changes", n)
	}
	for i, r := range requests[1:] {
		if gap := r.Timestamp - requests[i].Timestamp; gap < 4 { // seconds
			t.Errorf("%s was asked for %.1f s after the request before it", r.Request.URL, gap)
		}
	}
}

// testWhy: the reason of a failure comes and goes without a reload, the cause only where callers may see it.
func testWhy(t *testing.T, chromium context.Context) {
	ca := healthtest.NewCA(t)
	good := ca.ServerTLS(t, healthtest.ValidUntil(time.Now().Add(90*24*time.Hour)))
	up := healthtest.Start(t, healthtest.TLS(good))
	upstream := settings.Upstream{Services: []string{"", "echo"}, TLS: true, CACert: ca.WriteFile(t, t.TempDir(), "ca"), ConnMaxAge: time.Millisecond}
	up.SetStatus("echo", serving)
	shown := open(t, chromium, serve(t, up, settings.Settings{Upstream: upstream, Process: settings.Process{ShowCause: true}}))
	hidden := open(t, chromium, serve(t, up, settings.Settings{Upstream: upstream}))
	pages := []*tab{shown, hidden}
	for _, p := range pages {
		p.show("")
		if s := p.state(); s.Tone != "good" || s.Causes != "" || s.CertificateTone != "" {
			t.Errorf("at first: %+v", s)
		}
	}
	up.SetTLS(ca.ServerTLS(t, healthtest.Expired()))
	up.Restart()
	for _, p := range pages {
		s := p.until("expired", func(s state) bool {
			return s.Meaning == "0 of 2 services are serving. TLS handshake failed. The server's certificate expired 60 minutes ago." ||
				s.Meaning == "0 of 2 services are serving. TLS handshake failed. The server's certificate expired 61 minutes ago."
		})
		if told := strings.Contains(s.Causes, "certificate has expired"); s.Word != "Connection failed" || told != (p == shown) || s.CertificateTone != "over" {
			t.Errorf("expired: %+v", s)
		}
	}
	up.SetTLS(ca.ServerTLS(t, healthtest.ValidUntil(time.Now().Add(5*24*time.Hour+time.Hour))))
	up.Restart()
	for _, p := range pages {
		s := p.until("serving again", func(s state) bool {
			return s.Meaning == "2 of 2 services are serving." && s.CertificateTone == "soon"
		})
		if s.Causes != "" || !strings.HasPrefix(s.Certificate, "5 days left (") {
			t.Errorf("again: %+v", s)
		}
	}
}

// testLong lets the browser's virtual time run for twelve minutes, which takes a moment.
func testLong(t *testing.T, chromium context.Context) {
	ca := healthtest.NewCA(t)
	ending := func(days time.Duration) *tls.Config {
		return ca.ServerTLS(t, healthtest.ValidUntil(time.Now().Add(days*24*time.Hour+time.Hour)))
	}
	up := healthtest.Start(t, healthtest.TLS(ending(3)))
	p := open(t, chromium, serve(t, up, settings.Settings{Upstream: settings.Upstream{TLS: true, CACert: ca.WriteFile(t, t.TempDir(), "ca")}}))
	p.show("")
	if s := p.state(); !strings.HasPrefix(s.Certificate, "3 days left (") {
		t.Errorf("at first: %+v", s)
	}
	up.SetTLS(ending(90))
	call(p, emulation.SetVirtualTimePolicy, emulation.SetVirtualTimePolicyParams{
		Policy: emulation.VirtualTimePolicyPauseIfNetworkFetchesPending, Budget: new(12 * 60 * 1000.0), // milliseconds
	})
	s := p.until("eleven minutes old", func(s state) bool {
		return strings.HasSuffix(s.Since, ", 11 min")
	})
	if len(s.Bars) != 60 || s.BarsLabel != "Last checks: 60 of 60 serving" {
		t.Errorf("%d bars: %s", len(s.Bars), s.BarsLabel)
	}
	if !strings.HasPrefix(s.Certificate, "90 days left (") {
		t.Errorf("certificate %q", s.Certificate)
	}
}

func testServerGone(t *testing.T, chromium context.Context) {
	up := healthtest.Start(t)
	p := open(t, chromium, serve(t, up, settings.Settings{}))
	p.show("?format=html")
	before := p.state()
	p.server.front.Store(-1)
	lost := p.until("showing that the server is gone", func(s state) bool { return s.Tone == "lost" })
	if lost.Word != "Cannot reach the health check" || !strings.HasPrefix(lost.Title, lost.Word) || lost.Icon == before.Icon || !lost.Stale {
		t.Errorf("without the server: %+v", lost)
	}
	if !strings.HasPrefix(lost.Since, "Before that: Serving, ") || lost.Bars[len(lost.Bars)-1] != "lost" {
		t.Errorf("without the server: since %q, bars %v", lost.Since, lost.Bars)
	}
	p.server.front.Store(502)
	p.until("showing the load balancer's status", func(s state) bool {
		return s.Word == "No verdict" && s.Tone == "lost" && strings.Contains(s.Meaning, "502") && s.Since == lost.Since
	})
	p.server.front.Store(0)
	found := p.until("showing the verdict again", func(s state) bool { return s.Tone == "good" })
	if found.Stale || found.Title != before.Title || found.Live != before.Live {
		t.Errorf("with the server again: %+v", found)
	}
}

// testToken enters the token when the browser asks for a password, and cancels when it asks again.
func testToken(t *testing.T, chromium context.Context) {
	file := filepath.Join(t.TempDir(), "token")
	write := func(token string) {
		if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("the first token")
	p := open(t, chromium, serve(t, healthtest.Start(t), settings.Settings{Process: settings.Process{AuthTokenFile: file}}))
	p.answerDialogues(
		fetch.AuthChallengeResponse{Response: fetch.AuthChallengeResponseResponseProvideCredentials, Username: "anybody", Password: "the first token"},
		fetch.AuthChallengeResponse{Response: fetch.AuthChallengeResponseResponseCancelAuth},
	)
	p.show("")
	p.until("checked again, with the token", func(s state) bool { return s.Tone == "good" && len(s.Bars) > 1 })
	write("second")
	out := p.until("signed out", func(s state) bool { return s.Word == "Signed out" })
	if out.Tone != "lost" || out.Live != "Stopped" {
		t.Errorf("signed out: %+v", out)
	}
	p.staysQuiet()
}

// answerDialogues answers the browser's dialogues for a password, one answer for each.
func (p *tab) answerDialogues(answers ...fetch.AuthChallengeResponse) {
	p.Helper()
	paused, asked := chromedp.Events(p.ctx, fetch.RequestPaused), chromedp.Events(p.ctx, fetch.AuthRequired)
	call(p, fetch.Enable, fetch.EnableParams{HandleAuthRequests: new(true)})
	go func() {
		for e, err := range paused {
			if err != nil {
				return // the tab is closed
			}
			_, _ = chromedp.Call(p.ctx, fetch.ContinueRequest, fetch.ContinueRequestParams{RequestID: e.RequestID})
		}
	}()
	go func() {
		for e, err := range asked {
			if err != nil || len(answers) == 0 {
				return
			}
			answer := answers[0]
			answers = answers[1:]
			_, _ = chromedp.Call(p.ctx, fetch.ContinueWithAuth, fetch.ContinueWithAuthParams{RequestID: e.RequestID, AuthChallengeResponse: &answer})
		}
	}()
}

// staysQuiet wants no request for longer than the page usually waits between two checks.
func (p *tab) staysQuiet() {
	p.Helper()
	before := len(p.requests())
	<-time.After(6 * time.Second)
	if after := len(p.requests()); after != before {
		p.Errorf("%d requests were made, want none", after-before)
	}
}

// testHidden minimises the window.
func testHidden(t *testing.T, chromium context.Context) {
	p := open(t, chromium, serve(t, healthtest.Start(t), settings.Settings{}))
	p.show("")
	window := call(p, browser.GetWindowForTarget, browser.GetWindowForTargetParams{}).WindowID
	setState := func(to browser.WindowState) {
		call(p, browser.SetWindowBounds, browser.SetWindowBoundsParams{WindowID: window, Bounds: &browser.Bounds{WindowState: to}})
	}
	setState(browser.WindowStateMinimized)
	p.staysQuiet() // the page checks once a minute now
	setState(browser.WindowStateNormal)
	p.until("checking again", func(s state) bool { return len(s.Bars) > 1 })
}

func testList(t *testing.T, chromium context.Context) {
	up := healthtest.Start(t)
	up.SetStatus("a", serving)
	p := open(t, chromium, serve(t, up, settings.Settings{Process: settings.Process{AllowList: true}}))
	p.show("?list")
	if s := p.state(); s.Word != "Serving" || s.Subject != "2 services" || s.Meaning != "2 of 2 services are serving." || s.Since != "" {
		t.Errorf("two services: %+v", s)
	}
	up.SetStatus("b", notServing)
	s := p.until("three services", func(s state) bool { return len(s.Rows) == 3 })
	if s.Word != "Not serving" || s.Subject != "3 services" || s.Meaning != "2 of 3 services are serving." || s.Title != "Not serving – 3 services" {
		t.Errorf("three services: %+v", s)
	}
	if b := s.Rows[0]; b.Service != "b" || b.Status != "NOT_SERVING" || b.Tone != "bad" || s.Rows[1].Service != "Whole server" || s.Rows[2].Service != "a" {
		t.Errorf("the worst is not the first: %+v", s.Rows)
	}
	up.HandleList(func(context.Context) (*healthpb.HealthListResponse, error) {
		many := make(map[string]*healthpb.HealthCheckResponse)
		for i := range 150 {
			many[strconv.Itoa(i)] = &healthpb.HealthCheckResponse{Status: serving}
		}
		return &healthpb.HealthListResponse{Statuses: many}, nil
	})
	s = p.until("many services", func(s state) bool { return len(s.Rows) == 100 })
	if s.Meaning != "100 of 100 services are serving. The server lists 50 more, none of them worse." {
		t.Errorf("many services: %q", s.Meaning)
	}
	up.HandleList(func(context.Context) (*healthpb.HealthListResponse, error) {
		return &healthpb.HealthListResponse{}, nil
	})
	s = p.until("no services", func(s state) bool { return len(s.Rows) == 0 })
	if s.Word != "Unknown" || s.Subject != "No services" || s.Meaning != "The server lists no services." {
		t.Errorf("no services: %+v", s)
	}
}

// spoken returns what a screen reader reads: the roles that matter, with their names.
func (p *tab) spoken() []string {
	var spoken []string
	tree := call(p, accessibility.GetFullAXTree, accessibility.GetFullAXTreeParams{})
	for _, node := range tree.Nodes {
		if node.Ignored || node.Role == nil || node.Name == nil {
			continue
		}
		switch role := strings.Trim(string(node.Role.Value), `"`); role {
		case "heading", "image", "link", "rowheader", "columnheader", "table", "status":
			spoken = append(spoken, role+" "+strings.Trim(string(node.Name.Value), `"`))
		}
	}
	return spoken
}

func testWithoutScripts(t *testing.T, chromium context.Context) {
	up := healthtest.Start(t)
	up.SetStatus("down", notServing)
	p := open(t, chromium, serve(t, up, settings.Settings{}))
	// On a phone the table is laid out as cards, and must still be a table for screen readers.
	if err := chromedp.Do(p.ctx, chromedp.EmulateViewport(390, 844)); err != nil {
		t.Fatal(err)
	}
	p.show("?service=down&service=")
	with := p.spoken()
	call(p, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
	p.show("?service=down&service=")
	without := p.spoken()
	for _, want := range []string{
		"heading Not serving", "table Services", "columnheader Phase", "columnheader Since",
		"rowheader down", "rowheader Whole server", "link as text", "link as JSON",
	} {
		if !slices.Contains(with, want) || !slices.Contains(without, want) {
			t.Errorf("a screen reader does not read %q: with scripts %q, without %q", want, with, without)
		}
	}
	const strip = "image Last checks: 0 of 1 serving"
	if !slices.Contains(with, strip) || slices.Contains(without, strip) {
		t.Errorf("%q: with scripts %q, without %q", strip, with, without)
	}
	if s := p.state(); s.Live != "Reload the page to check again" || s.Title != "Not serving – 2 services" || s.Rows[0].Since == "" {
		t.Errorf("without scripts: %+v", s)
	}
	if n := len(p.requests()); n != 2 {
		t.Errorf("%d requests, want the page twice", n)
	}
}

func testOddNames(t *testing.T, chromium context.Context) {
	names := []string{
		strings.Repeat("W", 255), strings.Repeat("a.", 127), `<img src=x onerror=alert(1)>`, `"'&amp;</script><!--`, "\u202egnivres",
		"Ünïcödé 🚦", "{{.}}", "${1}", "–", "constructor", "Whole server", "javascript:alert(1)", strings.Repeat("語", 85),
	}
	for i := len(names); i < 100; i++ {
		names = append(names, fmt.Sprintf("%s.%d", strings.Repeat("package", 20), i))
	}
	p := open(t, chromium, serve(t, healthtest.Start(t), settings.Settings{}))
	for _, width := range []int64{1280, 834, 320} {
		if err := chromedp.Do(p.ctx, chromedp.EmulateViewport(width, 700)); err != nil {
			t.Fatal(err)
		}
		for _, services := range [][]string{names[:1], names} {
			p.show("?" + url.Values{"service": services}.Encode())
			if s := p.state(); s.Width > s.Room {
				t.Errorf("%d services in %d pixels need %d", len(services), width, s.Width)
			}
		}
	}
	s := p.until("checked again", func(s state) bool { return len(s.Bars) > 1 })
	if len(s.Rows) != len(names) || s.Width > s.Room {
		t.Fatalf("%d rows of %d, %d pixels wide of %d", len(s.Rows), len(names), s.Width, s.Room)
	}
	for i, r := range s.Rows {
		if r.Service != inert.Text(names[i]) {
			t.Errorf("%q is shown as %q", names[i], r.Service)
		}
	}
	if n := read[int](p, `document.images.length + document.scripts.length`); n != 2 {
		t.Errorf("%d images and scripts, want the two scripts of the page", n)
	}
}

// testPolicy checks that the content security policy blocks scripts, styles and requests that are not the page's, and that the
// browser complains of them.
func testPolicy(t *testing.T, chromium context.Context) {
	p := open(t, chromium, serve(t, healthtest.Start(t), settings.Settings{}))
	p.provokes = true
	p.show("")
	ran := read[[]bool](p, `(async () => {
		const script = document.createElement('script');
		script.textContent = 'document.documentElement.dataset.broken = "yes"';
		document.body.append(script);
		const style = document.createElement('style');
		style.textContent = 'h1 { display: none }';
		document.body.append(style);
		const elsewhere = await fetch('http://127.0.0.1:1/').then(() => true, (e) => false);
		return ['broken' in document.documentElement.dataset, getComputedStyle(document.querySelector('h1')).display === 'none', elsewhere];
	})()`, chromedp.EvalAwaitPromise)
	if slices.Contains(ran, true) {
		t.Errorf("not blocked, of a script, a style and a request to another host: %v", ran)
	}
	complaints := strings.Join(p.complained(), "\n")
	for _, directive := range []string{"script-src", "style-src", "connect-src"} {
		if !strings.Contains(complaints, directive) {
			t.Errorf("the browser did not complain of %s: %s", directive, complaints)
		}
	}
}

// testContrast measures the contrast of the page's texts. WCAG 2.2 requires 4.5 to 1 for level AA
// (https://www.w3.org/TR/WCAG22/#contrast-minimum).
func testContrast(t *testing.T, chromium context.Context) {
	up := healthtest.Start(t)
	up.SetStatus("down", notServing)
	p := open(t, chromium, serve(t, up, settings.Settings{}))
	backgrounds := make(map[[3]float64]bool)
	for _, scheme := range []string{"light", "dark"} {
		call(p, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
			{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"},
		}})
		for _, service := range []string{"", "down", "nobody"} {
			p.show("?service=" + service)
			for name, colours := range p.colours("h1", "#live", "h2", "thead th", "tbody th", "td:nth-last-child(7)", "td:nth-last-child(3)", "dt", "dd", ".note") {
				backgrounds[wantContrast(t, scheme+", "+service, name, colours)] = true
			}
		}
	}
	// The page of many is as legible.
	targets := fleet(up, 20)
	up.SetStatus(serviceOf(3), notServing)
	up.SetError(serviceOf(4), codes.NotFound)
	srv, _ := serveTargets(t, settings.Settings{}, targets)
	p = open(t, chromium, srv)
	for _, scheme := range []string{"light", "dark"} {
		call(p, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
			{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"},
		}})
		p.show("")
		p.click("#services tr:not(.group) th a")
		p.click("summary")
		p.filter("t0")
		for name, colours := range p.colours("#filter", "#found", ".group a", ".group span", "summary", "#folded", "tbody th a", "tr.bad td:nth-last-child(7)", "tr.unsure td:nth-last-child(7)", "tr.good td:nth-last-child(7)", ".detail p", ".detail dt", ".detail dd") {
			wantContrast(t, scheme+", many", name, colours)
		}
	}
	if len(backgrounds) != 8 {
		t.Errorf("%d backgrounds, want a page and three tones for each of two schemes", len(backgrounds))
	}
}

// colours are, of the first element of each selector, the colour, the opacity, and the colour behind it.
func (p *tab) colours(selectors ...string) map[string][3]string {
	p.Helper()
	return read[map[string][3]string](p, fmt.Sprintf(`Object.fromEntries('%s'.split('|').map((name) => {
		const style = getComputedStyle(document.querySelector(name));
		const behind = document.querySelector(name).closest('header') || document.body;
		return [name, [style.color, style.opacity, getComputedStyle(behind).backgroundColor]];
	}))`, strings.Join(selectors, "|")))
}

// wantContrast wants 4.5 to 1, and returns the colour behind.
func wantContrast(t *testing.T, where, name string, colours [3]string) [3]float64 {
	t.Helper()
	text, behind := rgb(t, colours[0]), rgb(t, colours[2])
	opacity, err := strconv.ParseFloat(colours[1], 64)
	if err != nil {
		t.Fatal(err)
	}
	for i := range text {
		text[i] = opacity*text[i] + (1-opacity)*behind[i]
	}
	bright, dark := max(luminance(text), luminance(behind)), min(luminance(text), luminance(behind))
	if ratio := (bright + 0.05) / (dark + 0.05); ratio < 4.5 {
		t.Errorf("%s: %s is %v, a contrast of %.1f", where, name, colours, ratio)
	}
	return behind
}

func rgb(t *testing.T, colour string) (c [3]float64) {
	t.Helper()
	if _, err := fmt.Sscanf(colour, "rgb(%f, %f, %f)", &c[0], &c[1], &c[2]); err != nil {
		t.Fatalf("colour %q: %v", colour, err)
	}
	return c
}

// luminance returns a colour's relative luminance (https://www.w3.org/TR/WCAG22/#dfn-relative-luminance).
func luminance(colour [3]float64) float64 {
	linear := func(c float64) float64 {
		if c /= 255; c > 0.04045 {
			return math.Pow((c+0.055)/1.055, 2.4)
		}
		return c / 12.92
	}
	return 0.2126*linear(colour[0]) + 0.7152*linear(colour[1]) + 0.0722*linear(colour[2])
}
