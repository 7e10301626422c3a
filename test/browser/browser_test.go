// Package browser has tests only: they look at the status page in a real Chromium, over a real bridge
// and a real gRPC server.
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

// soon bounds what the page does on its own. It checks every 5 s; a loaded machine takes its time.
const soon = time.Minute

// start starts a Chromium that ends with the test. What is done in one of its tabs leaves no trace in
// another.
func start(t *testing.T) context.Context {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Skipf("the page's tests want Chromium (Debian: apt-get install chromium): %v", err)
	}
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]),
		chromedp.ExecPath(path),
		chromedp.DisableGPU,
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-quic", true),
		// Neither a page nor the browser itself finds anything but this machine.
		chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"),
	)
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox) // Chromium has none for root
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

// bridge serves an app's handler on loopback.
type bridge struct {
	url string
	// front, unless 0, is the HTTP status that a load balancer in front of it answers; -1 hangs up.
	front atomic.Int64
}

// serve serves the health of up, with time for its checks unless the settings have their own.
func serve(t *testing.T, up *healthtest.Upstream, s settings.Settings) *bridge {
	t.Helper()
	s.Addr, s.ConnectTimeout, s.RPCTimeout = up.Target(), soon, cmp.Or(s.RPCTimeout, soon)
	a, err := app.New(&s, app.Platform{Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	b := new(bridge)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch code := int(b.front.Load()); code {
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
		server.CloseClientConnections()
		server.Close()
		a.Close()
	})
	b.url = server.URL
	return b
}

// tab is a tab that shows a page of one bridge, with what the browser said and asked for meanwhile.
type tab struct {
	*testing.T
	ctx    context.Context
	bridge *bridge
	// provokes says that complaints are what the test is after.
	provokes bool

	mu         sync.Mutex
	asked      []*network.EventRequestWillBeSent
	complaints []string
}

// open opens a tab. At the test's end there must have been no complaint and no request to anybody but
// the bridge.
func open(t *testing.T, chromium context.Context, b *bridge) *tab {
	t.Helper()
	ctx, _ := chromedp.NewContext(chromium, chromedp.WithNewBrowserContext())
	p := &tab{T: t, ctx: ctx, bridge: b}
	if err := chromedp.Listen(ctx, p.hear); err != nil {
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
			if url := r.Request.URL; !strings.HasPrefix(url, b.url+"/") && !strings.HasPrefix(url, "data:") {
				t.Errorf("the page asked for %s", url)
			}
		}
		for _, complaint := range p.complained() {
			t.Errorf("the browser complains: %s", complaint)
		}
	})
	call(p, audits.Enable, cdp.Empty{})
	return p
}

// hear notes what the browser tells.
func (p *tab) hear(event any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		p.asked = append(p.asked, e)
	case *runtime.EventConsoleAPICalled:
		p.complaints = append(p.complaints, "console: "+string(e.Type))
	case *runtime.EventExceptionThrown:
		p.complaints = append(p.complaints, "exception: "+e.ExceptionDetails.Text)
	case *audits.EventIssueAdded:
		p.complaints = append(p.complaints, "issue: "+string(e.Issue.Code))
	case *cdplog.EventEntryAdded:
		// Chromium logs every answer of 400 and above; here a verdict has such a status.
		if e.Entry.Source == cdplog.EntrySourceNetwork && strings.HasPrefix(e.Entry.URL, p.bridge.url+"/") {
			return
		}
		p.complaints = append(p.complaints, string(e.Entry.Source)+": "+e.Entry.Text)
	}
}

// requests are those that the page has made.
func (p *tab) requests() []*network.EventRequestWillBeSent {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.asked)
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

// show loads what the bridge answers to the query. The page is in place when it returns.
func (p *tab) show(query string) {
	p.Helper()
	if err := chromedp.Do(p.ctx, chromedp.Navigate(p.bridge.url+"/"+query)); err != nil {
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
	Stale                  bool
	Rows                   []row
	Bars                   []string // tones, the oldest first
	BarsLabel              string
	Width, Room            int // pixels: of the page, and of the window
}

type row struct {
	Tone, Service, Status, Phase, Code, Took, Checked, Since string
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
			Stale: 'stale' in root.dataset,
			Rows: [...document.getElementById('services').rows].map((row) => {
				const cell = (name) => row.querySelector('[data-cell=' + name + ']').textContent;
				return {Tone: row.className, Service: cell('service'), Status: cell('status'), Phase: cell('phase'), Code: cell('grpc_code'),
					Took: cell('took'), Checked: cell('checked'), Since: cell('since')};
			}),
			Bars: strip.checkVisibility() ? [...strip.querySelectorAll('rect[class]:not([class=""])')].map((bar) => bar.getAttribute('class')) : [],
			BarsLabel: strip.getAttribute('aria-label') || '',
			Width: root.scrollWidth, Room: root.clientWidth,
		};
	})()`)
}

// until waits for the page to be as wanted.
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
