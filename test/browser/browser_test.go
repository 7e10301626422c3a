// Package browser tests the status page in a real Chromium, with a real handler and a real gRPC server behind it.
package browser

import (
	"cmp"
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/cdproto/audits"
	"github.com/chromedp/cdproto/cdp"
	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"example.com/grpc-health-http/internal/app"
	"example.com/grpc-health-http/internal/settings"
	"example.com/grpc-health-http/test/healthtest"
)

// soon bounds how long the page may take to change. It checks every 5 s; a busy machine is slow.
const soon = time.Minute

// start starts a Chromium. It ends with the test. Its tabs do not affect each other.
func start(t *testing.T) context.Context {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Skipf("the page's tests need Chromium (Debian: apt-get install chromium): %v", err)
	}
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]),
		chromedp.ExecPath(path),
		chromedp.DisableGPU,
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-quic", true),
		// Neither the page nor the browser itself can resolve any host but this machine.
		chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"),
	)
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox) // Chromium's sandbox does not work for root
	}
	allocator, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, _ := chromedp.NewContext(allocator)
	t.Cleanup(func() {
		if err := chromedp.Cancel(ctx); err != nil {
			t.Errorf("end Chromium: %v", err)
		}
		cancel()
	})
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("start Chromium: %v", err)
	}
	return ctx
}

// server serves an app's handler on loopback.
type server struct {
	url string
	// front is the HTTP status of a load balancer in front of the handler. 0 forwards the request to the handler, -1 closes the
	// connection.
	front atomic.Int64
}

// serve serves the health of up. Its timeouts are long, unless the settings have an RPC timeout.
func serve(t *testing.T, up *healthtest.Upstream, s settings.Settings) *server {
	t.Helper()
	s.Addr, s.ConnectTimeout, s.RPCTimeout = up.Target(), soon, cmp.Or(s.RPCTimeout, soon)
	srv, _ := serveApp(t, s, nil)
	return srv
}

// serveTargets serves the health of the targets.
func serveTargets(t *testing.T, s settings.Settings, targets []settings.Target) (*server, *app.App) {
	t.Helper()
	s.TargetsFile = "targets.yaml"
	for i := range targets {
		targets[i].ConnectTimeout, targets[i].RPCTimeout = soon, soon
	}
	return serveApp(t, s, targets)
}

func serveApp(t *testing.T, s settings.Settings, targets []settings.Target) (*server, *app.App) {
	t.Helper()
	a, err := app.New(&s, app.Platform{Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	if targets != nil {
		if err := a.SetTargets(targets); err != nil {
			t.Fatal(err)
		}
	}
	srv := new(server)
	httpServer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch code := int(srv.front.Load()); code {
		case 0:
			a.Handler.ServeHTTP(w, r)
		case -1:
			panic(http.ErrAbortHandler)
		default:
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(code)
			_, _ = w.Write([]byte(`{"message":"no healthy target"}`))
		}
	}))
	t.Cleanup(func() {
		httpServer.CloseClientConnections()
		httpServer.Close()
		a.Close()
	})
	srv.url = httpServer.URL
	return srv, a
}

// tab is a tab with a page of one server, and records the browser's requests and complaints.
type tab struct {
	*testing.T
	ctx    context.Context
	server *server
	// provokes says that the test causes complaints and requests to other hosts.
	provokes bool

	mu         sync.Mutex
	requested  []*network.EventRequestWillBeSent
	complaints []string
}

// open opens a tab. When the test ends, there must have been no complaint, and no request to another host than the server.
func open(t *testing.T, chromium context.Context, s *server) *tab {
	t.Helper()
	ctx, _ := chromedp.NewContext(chromium, chromedp.WithNewBrowserContext())
	p := &tab{T: t, ctx: ctx, server: s}
	if err := chromedp.Listen(ctx, p.record); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := chromedp.Cancel(ctx); err != nil {
			t.Errorf("close the tab: %v", err)
		}
		if p.provokes {
			return
		}
		for _, r := range p.requests() {
			if url := r.Request.URL; !strings.HasPrefix(url, s.url+"/") && !strings.HasPrefix(url, "data:") {
				t.Errorf("the page requested %s", url)
			}
		}
		for _, complaint := range p.complained() {
			t.Errorf("the browser complains: %s", complaint)
		}
	})
	call(p, audits.Enable, cdp.Empty{})
	return p
}

// record records requests and complaints.
func (p *tab) record(event any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		p.requested = append(p.requested, e)
	case *runtime.EventConsoleAPICalled:
		p.complaints = append(p.complaints, "console: "+string(e.Type))
	case *runtime.EventExceptionThrown:
		p.complaints = append(p.complaints, "exception: "+e.ExceptionDetails.Text)
	case *audits.EventIssueAdded:
		p.complaints = append(p.complaints, "issue: "+string(e.Issue.Code))
	case *cdplog.EventEntryAdded:
		// Chromium logs every answer with a status of 400 or above. Verdicts have such statuses.
		if e.Entry.Source == cdplog.EntrySourceNetwork && strings.HasPrefix(e.Entry.URL, p.server.url+"/") {
			return
		}
		p.complaints = append(p.complaints, string(e.Entry.Source)+": "+e.Entry.Text)
	}
}

// requests returns the requests that the page has made.
func (p *tab) requests() []*network.EventRequestWillBeSent {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.requested)
}

func (p *tab) complained() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.complaints)
}

// call sends a command of the DevTools protocol.
func call[P, R any](p *tab, command cdp.Command[P, R], parameters P) R {
	p.Helper()
	result, err := chromedp.Call(p.ctx, command, parameters)
	if err != nil {
		p.Fatalf("%s: %v", command.Method, err)
	}
	return result
}

// show loads the server's page for the query, and returns when it is loaded.
func (p *tab) show(query string) {
	p.Helper()
	if err := chromedp.Do(p.ctx, chromedp.Navigate(p.server.url+"/"+query)); err != nil {
		p.Fatalf("load the page of %s: %v", query, err)
	}
}

// read evaluates an expression in the page.
func read[R any](p *tab, expression string, options ...chromedp.EvaluateOption) R {
	p.Helper()
	result, err := chromedp.Run(p.ctx, chromedp.Evaluate[R](expression, options...))
	if err != nil {
		p.Fatalf("evaluate %s: %v", expression, err)
	}
	return result
}

// state is what a person sees of the page.
type state struct {
	Title, Tone, Icon      string
	Subject, Word, Meaning string
	Since, Live            string
	Evidence, Certificate  string
	CertificateTone        string
	Causes                 string
	Stale, Many            bool
	Rows                   []row
	Headings               []string // of groups, those that are visible
	Fold                   string   // what the line says under which healthy rows are folded; empty where none are
	Unfolded               bool
	Found                  string   // by the filter
	Bars                   []string // tones, the oldest first
	BarsLabel              string
	Width, Room            int // pixels: the widths of the page and of the window
}

type row struct {
	Tone, Target, Service, Status, Phase, Code, Took, Checked, Since string
	Group                                                            string
	Strip                                                            string // what a screen reader says of it
	Visible                                                          bool
}

func (p *tab) state() state {
	p.Helper()
	return read[state](p, `(() => {
		const text = (id) => document.getElementById(id).checkVisibility() ? document.getElementById(id).textContent : '';
		const root = document.documentElement, strip = document.getElementById('strip');
		return {
			Title: document.title, Tone: root.dataset.tone, Icon: document.querySelector('link[rel=icon]').href,
			Subject: document.getElementById('subject').textContent, Word: text('word'), Meaning: text('meaning'),
			Since: text('since'), Live: text('live'), Evidence: text('evidence'), Certificate: text('certificate'),
			CertificateTone: document.querySelector('#certificate span').className, Causes: text('causes'),
			Stale: 'stale' in root.dataset, Many: 'many' in root.dataset,
			Rows: [...document.querySelectorAll('#services > tr:not(.detail, .group), #serving > tr:not(.detail, .group)')].map((row) => {
				const cells = [...row.cells].reverse(), cell = (i) => cells[i] ? cells[i].textContent : '', strip = cells[5].querySelector('svg');
				return {Tone: row.className, Target: cell(8), Service: cell(7), Status: cell(6), Phase: cell(4), Code: cell(3),
					Took: cell(2), Checked: cell(1), Since: cell(0), Group: row.dataset.group || '',
					Strip: strip ? strip.getAttribute('aria-label') : '', Visible: row.checkVisibility()};
			}),
			Headings: [...document.querySelectorAll('tr.group')].filter((row) => row.checkVisibility()).map((row) => row.firstElementChild.innerText),
			Fold: text('folded'), Unfolded: document.getElementById('fold').open, Found: text('found'),
			Bars: strip.checkVisibility() ? [...strip.querySelectorAll('rect[class]:not([class=""])')].map((bar) => bar.getAttribute('class')) : [],
			BarsLabel: strip.getAttribute('aria-label') || '',
			Width: root.scrollWidth, Room: root.clientWidth,
		};
	})()`)
}

// until waits until wanted returns true for the page's state.
func (p *tab) until(what string, wanted func(state) bool) state {
	p.Helper()
	ticks := time.NewTicker(50 * time.Millisecond)
	defer ticks.Stop()
	for deadline := time.Now().Add(soon); ; <-ticks.C {
		s := p.state()
		if wanted(s) {
			return s
		}
		if time.Now().After(deadline) {
			p.Fatalf("not %s within %v: %+v", what, soon, s)
		}
	}
}
