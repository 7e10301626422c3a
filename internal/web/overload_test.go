package web_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/grpc-health-http/internal/asker"
	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/internal/memory"
	"example.com/grpc-health-http/internal/web"
)

// bounded is a handler with so much memory, the check of which blocks until release is called, and with what it rejected.
type bounded struct {
	http.Handler
	memory  asker.Memory
	answers *memory.Share
	waiting chan string // gets each service whose check waits
	release func()

	mu       sync.Mutex
	rejected []string
}

func newBounded(configured, others, answers int64, services ...string) *bounded {
	b := &bounded{
		memory:  asker.Memory{Configured: memory.NewShare(configured), Others: memory.NewShare(others)},
		answers: memory.NewShare(answers),
		waiting: make(chan string, 1000),
	}
	released := make(chan struct{})
	b.release = sync.OnceFunc(func() { close(released) })
	up := asker.Upstream{Services: services, Check: func(_ context.Context, service string) health.Verdict {
		b.waiting <- service
		select {
		case <-released:
		case <-time.After(10 * time.Second): // a request that should have been refused
		}
		if service == "panics" {
			panic(http.ErrAbortHandler)
		}
		return health.Verdict{Status: health.Serving, Asked: true, At: time.Now()} // a check of its own
	}}
	b.serve(asker.Options{Fleet: asker.One(&up), Rejected: func(reason string) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.rejected = append(b.rejected, reason)
	}})
	return b
}

// serve makes the handler, with the memory.
func (b *bounded) serve(o asker.Options) {
	o.Memory = b.memory
	b.Handler = web.New(web.Options{Asker: asker.New(o), Answers: b.answers})
}

func (b *bounded) ask(target string, headers ...string) *http.Response {
	r := httptest.NewRequest(http.MethodGet, target, nil)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	func() {
		defer func() { _ = recover() }() // as a server would
		b.ServeHTTP(w, r)
	}()
	return w.Result()
}

func (b *bounded) rejections() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.rejected)
}

func body(r *http.Response) string {
	var all strings.Builder
	_ = r.Write(&all)
	_, text, _ := strings.Cut(all.String(), "\r\n\r\n")
	return text
}

func wantOverloaded(t *testing.T, name string, r *http.Response, text string) {
	t.Helper()
	h := r.Header
	if r.StatusCode != 503 || h.Get("Retry-After") != "1" || h.Get("Grpc-Health-Status") != "OVERLOADED" || h.Get("Cache-Control") != "no-store" ||
		h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Grpc-Health-Evidence") != "" {
		t.Errorf("%s: %d, %v", name, r.StatusCode, h)
	}
	if got := body(r); !strings.Contains(got, text) {
		t.Errorf("%s: body %q, want %q", name, got, text)
	}
}

// Those who wait for made-up names use up their share, are told so in the format that they ask for, and take nothing from those who wait
// for what is configured.
func TestWaitingRequestsAreBounded(t *testing.T) {
	t.Parallel()
	b := newBounded(10*(memory.Request+memory.Name), 3*(memory.Request+memory.Name), 1<<20)
	defer b.release()
	var all sync.WaitGroup
	for i := range 3 {
		all.Go(func() { b.ask(fmt.Sprintf("/?service=made.up.%d", i)) })
		<-b.waiting
	}
	for name, test := range map[string]struct {
		target, accept, text string
	}{
		"text":             {"/?service=x", "", "OVERLOADED\n"},
		"JSON":             {"/?service=x&format=json", "", `"status":"OVERLOADED"`},
		"JSON, by Accept":  {"/?service=x", "application/json", `"status":"OVERLOADED"`},
		"page":             {"/?service=x", "text/html", "OVERLOADED\n"},
		"several services": {"/?service=x&service=y", "", "OVERLOADED\n"},
	} {
		wantOverloaded(t, name, b.ask(test.target, "Accept", test.accept), test.text)
	}
	if got := b.rejections(); len(got) != 5 || slices.ContainsFunc(got, func(r string) bool { return r != "overload" }) {
		t.Errorf("5 refused requests are counted as %q", got)
	}
	all.Go(func() {
		if r := b.ask("/"); r.StatusCode != 200 {
			t.Errorf("what is configured: %d", r.StatusCode)
		}
	})
	<-b.waiting
	b.release()
	all.Wait()
	if c, o, a := b.memory.Configured.Used(), b.memory.Others.Used(), b.answers.Used(); c != 0 || o != 0 || a != 0 {
		t.Errorf("when all is over, %d, %d and %d bytes are in use", c, o, a)
	}
}

// Requests that pick many of the configured services leave half of the share to those that ask for few.
func TestManyNamesLeaveRoomForFew(t *testing.T) {
	t.Parallel()
	var names []string
	for i := range 40 {
		names = append(names, fmt.Sprint("s", i))
	}
	many := int64(memory.Request + 40*memory.Name)
	b := newBounded(3*many, 0, 1<<20, names...)
	defer b.release()
	var all sync.WaitGroup
	query := "/?service=" + strings.Join(names, "&service=")
	all.Go(func() { b.ask(query) })
	for range 40 {
		<-b.waiting
	}
	wantOverloaded(t, "many names", b.ask(query), "OVERLOADED\n")
	for _, target := range []string{"/?service=s1", "/?service=s1&service=s2", "/"} {
		all.Go(func() {
			if r := b.ask(target); r.StatusCode != 200 {
				t.Errorf("%s: %d", target, r.StatusCode)
			}
		})
		<-b.waiting
	}
	b.release()
	all.Wait()
	if n := b.memory.Configured.Used(); n != 0 {
		t.Errorf("when all is over, %d bytes are in use", n)
	}
}

// So do requests of an HTTP/2 connection that has many in progress.
func TestManyRequestsOfAConnectionLeaveRoomForOthers(t *testing.T) {
	t.Parallel()
	one := int64(memory.SecureRequest + memory.Name)
	b := newBounded(8*one, 0, 1<<20)
	defer b.release()
	b.memory.SideBySide = func(r *http.Request) int { return len(r.Header.Values("Beside")) }
	b.serve(asker.Options{Fleet: asker.One(&asker.Upstream{Check: func(context.Context, string) health.Verdict {
		b.waiting <- ""
		return health.Verdict{Status: health.Serving}
	}})})
	if !b.memory.Configured.Take(4 * one) {
		t.Fatal("no memory")
	}
	for beside, want := range map[int]int{1: 200, 4: 200, 5: 503, 100: 503} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.ProtoMajor = 2
		for range beside {
			r.Header.Add("Beside", "x")
		}
		w := httptest.NewRecorder()
		if b.ServeHTTP(w, r); w.Code != want {
			t.Errorf("one of %d: %d, want %d", beside, w.Code, want)
		}
	}
}

// A client that has most of the connections leaves an eighth to others, once half is taken.
func TestCrowdsLeaveRoomForOthers(t *testing.T) {
	t.Parallel()
	one := int64(memory.Request + memory.Name)
	for _, test := range []struct {
		taken  int64
		crowds bool
		want   int
	}{{4, true, 200}, {6, true, 200}, {7, true, 503}, {7, false, 200}, {8, false, 503}} {
		b := newBounded(8*one, 0, 1<<20)
		b.memory.Configured.Take(test.taken * one)
		b.memory.Crowds = func(*http.Request) bool { return test.crowds }
		b.serve(asker.Options{Fleet: asker.One(&asker.Upstream{Check: func(context.Context, string) health.Verdict {
			return health.Verdict{Status: health.Serving}
		}})})
		if r := b.ask("/"); r.StatusCode != test.want {
			t.Errorf("%+v: %d", test, r.StatusCode)
		}
	}
}

// Where memory is short, HTTP/1 callers who close their side wait no more; the others do, and so does everybody where there is enough.
func TestCallersWhoLeaveMakeRoom(t *testing.T) {
	t.Parallel()
	one := int64(memory.Request + memory.Name)
	for name, test := range map[string]struct {
		taken  int64
		target string
		leaves bool
	}{
		"short":               {5, "/", true},
		"short, several":      {5, "/?service=a&service=b", true},
		"enough":              {3, "/", false},
		"enough, several":     {2, "/?service=a&service=b", false},
		"another share short": {5, "/?service=a", false},
	} {
		b := newBounded(10*one, 10*one, 1<<20)
		release := make(chan struct{})
		b.serve(asker.Options{Fleet: asker.One(&asker.Upstream{Check: func(ctx context.Context, _ string) health.Verdict {
			b.waiting <- ""
			select {
			case <-ctx.Done():
			case <-release:
			case <-time.After(10 * time.Second): // it should have left
			}
			return health.Verdict{Status: health.Serving}
		}})})
		share := b.memory.Configured
		if name == "short, several" || name == "enough, several" {
			share = b.memory.Others
		}
		share.Take(test.taken * one)
		ctx, leave := context.WithCancel(t.Context())
		w := httptest.NewRecorder()
		done := make(chan struct{})
		go func() {
			defer close(done)
			b.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodGet, test.target, nil))
		}()
		<-b.waiting
		leave()
		if test.leaves {
			<-done
			wantOverloaded(t, name, w.Result(), "OVERLOADED\n")
			close(release)
		} else {
			close(release)
			if <-done; w.Code != 200 {
				t.Errorf("%s: %d", name, w.Code)
			}
		}
		if n := share.Used(); n != test.taken*one {
			t.Errorf("%s: %d bytes are in use, want %d", name, n, test.taken*one)
		}
	}
}

// What a request took is given back however it ends.
func TestMemoryIsGivenBack(t *testing.T) {
	t.Parallel()
	b := newBounded(1<<20, 1<<20, 1<<20)
	b.release()
	for _, target := range []string{"/", "/?service=panics", "/?service=panics&service=a", "/?format=html", "/?service=a&format=json", "/?format=bad", "/?list"} {
		b.ask(target)
		if c, o, a := b.memory.Configured.Used(), b.memory.Others.Used(), b.answers.Used(); c != 0 || o != 0 || a != 0 {
			t.Errorf("%s: %d, %d and %d bytes are in use", target, c, o, a)
		}
	}
}

// blocked is a caller who does not read.
type blocked struct {
	*httptest.ResponseRecorder
	begun   chan<- struct{}
	release <-chan struct{}
}

func (w blocked) Write(p []byte) (int, error) {
	w.begun <- struct{}{}
	<-w.release
	return w.ResponseRecorder.Write(p)
}

// Answers that nobody reads use up their share, and leave the ready-made answer to the usual request.
func TestAnswersAreBounded(t *testing.T) {
	t.Parallel()
	b := newBounded(1<<20, 1<<20, 128<<10)
	b.release()
	begun, release := make(chan struct{}), make(chan struct{})
	var all sync.WaitGroup
	for n := 0; ; n++ {
		if n == 100 {
			t.Fatal("100 pages are on their way")
		}
		refused := make(chan struct{})
		all.Go(func() {
			w := blocked{httptest.NewRecorder(), begun, release}
			b.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/?format=html", nil))
			if w.Code == 503 {
				wantOverloaded(t, "a page too many", w.Result(), "OVERLOADED\n")
				close(refused)
			}
		})
		<-begun
		if b.rejections() != nil {
			if n < 2 {
				t.Errorf("only %d pages are on their way", n)
			}
			break
		}
	}
	if r := b.ask("/"); r.StatusCode != 200 {
		t.Errorf("the usual request: %d", r.StatusCode)
	}
	if r := b.ask("/?format=html"); r.StatusCode != 503 {
		t.Errorf("another page: %d", r.StatusCode)
	}
	close(release)
	all.Wait()
	if n := b.answers.Used(); n != 0 {
		t.Errorf("when all is over, %d bytes are in use", n)
	}
	if got := b.rejections(); len(got) != 2 {
		t.Errorf("2 refused pages are counted as %q", got)
	}
}

// An overload of the process is answered as one of a share; and requests that are limited are answered as far as there is memory.
func TestOverloadedHandlers(t *testing.T) {
	t.Parallel()
	for _, target := range []string{"/", "/?format=json", "/?%zz", "/?service=a;b"} {
		n := 0
		w := httptest.NewRecorder()
		web.Overloaded(func(string) { n++ }).ServeHTTP(w, httptest.NewRequest(http.MethodGet, target, nil))
		wantOverloaded(t, target, w.Result(), "OVERLOADED")
		if n != 1 {
			t.Errorf("%s: counted %d times", target, n)
		}
	}
	share := memory.NewShare(100)
	h := web.Limited(share, func() int64 { return 60 }, nil, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/outer" {
			inner := httptest.NewRecorder()
			web.Limited(share, func() int64 { return 60 }, nil, http.NotFoundHandler()).ServeHTTP(inner, r)
			wantOverloaded(t, "beside another", inner.Result(), "OVERLOADED\n")
		}
	}))
	for range 2 {
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/outer", nil)); w.Code != 200 || share.Used() != 0 {
			t.Errorf("alone: %d, and %d bytes are in use", w.Code, share.Used())
		}
	}
}
