package web_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	"example.com/grpc-health-http/internal/asker"
	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/internal/web"
)

// says is a check that finds the same status for every service.
func says(s health.Status) health.Func {
	return func(_ context.Context, service string) health.Verdict {
		return health.Verdict{Service: service, Status: s, Asked: true, EvidenceID: evidenceOf(s)}
	}
}

func evidenceOf(s health.Status) string {
	if s == health.Serving {
		return ""
	}
	return "id-" + s.String()
}

// neverAsked is a check that must not be made.
func neverAsked(t *testing.T) health.Func {
	return func(_ context.Context, service string) health.Verdict {
		t.Errorf("service %q was checked", service)
		return health.Verdict{}
	}
}

// options are those of a handler for one upstream.
type options struct {
	Check           health.Func
	List            func(context.Context) []health.Verdict
	Services        []string
	CertificateEnds func() time.Time
	Budget          time.Duration
	Path            string
	Authorize       func(context.Context, string) (bool, error)
	ShowCause       bool
}

func newHandler(o options) http.Handler {
	up := asker.Upstream{Check: o.Check, List: o.List, Services: o.Services, CertificateEnds: o.CertificateEnds, Budget: o.Budget}
	return web.New(web.Options{Asker: asker.New(asker.Options{Fleet: asker.One(&up), Authorize: o.Authorize}), Path: o.Path, ShowCause: o.ShowCause})
}

// start serves the options on loopback and returns the address, "http://127.0.0.1:1234".
func start(t *testing.T, o options) string {
	t.Helper()
	server := httptest.NewServer(newHandler(o))
	t.Cleanup(server.Close)
	return server.URL
}

type answer struct {
	code   int
	header http.Header
	length int64
	body   string
}

// ask sends a request; headers are "Name: value".
func ask(t *testing.T, method, address string, headers ...string) answer {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		request.Header.Add(name, value)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	a := answer{response.StatusCode, response.Header, response.ContentLength, string(body)}
	if got := a.header.Get("Cache-Control"); got != "no-store" {
		t.Errorf("%s %s: Cache-Control %q, want no-store", method, address, got)
	}
	if got := a.header.Get("X-Content-Type-Options"); got != "nosniff" {
		t.Errorf("%s %s: X-Content-Type-Options %q, want nosniff", method, address, got)
	}
	return a
}

func TestStatus(t *testing.T) {
	t.Parallel()
	want := map[health.Status]int{
		health.Serving:          200,
		health.NotServing:       503,
		health.Unknown:          503,
		health.ServiceUnknown:   404,
		health.Unimplemented:    503,
		health.ConnectionFailed: 503,
		health.Timeout:          503,
		health.RPCFailed:        503,
		health.Overloaded:       503,
	}
	for _, status := range append(health.Statuses(), health.Status(99)) {
		t.Run(strconv.Itoa(int(status)), func(t *testing.T) {
			t.Parallel()
			code, ok := want[status]
			if !ok {
				code = 503
				if status != 99 {
					t.Fatalf("%v: no HTTP status is expected", status)
				}
			}
			a := ask(t, "GET", start(t, options{Check: says(status)}))
			if a.code != code || a.body != status.String()+"\n" {
				t.Errorf("got %d %q, want %d %q", a.code, a.body, code, status.String()+"\n")
			}
			if got := a.header.Get("Grpc-Health-Status"); got != status.String() {
				t.Errorf("Grpc-Health-Status %q, want %q", got, status)
			}
			if got := a.header.Get("Grpc-Health-Evidence"); got != evidenceOf(status) {
				t.Errorf("Grpc-Health-Evidence %q, want %q", got, evidenceOf(status))
			}
			retry := ""
			if status == health.Overloaded {
				retry = "1"
			}
			if got := a.header.Get("Retry-After"); got != retry {
				t.Errorf("Retry-After %q, want %q", got, retry)
			}
		})
	}
}

func TestMethods(t *testing.T) {
	t.Parallel()
	handlers := map[string]http.Handler{
		"check": newHandler(options{Check: says(health.Serving), Services: []string{"echo"}}),
		"livez": web.Livez(),
	}
	for name, h := range handlers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(h)
			t.Cleanup(server.Close)
			allow, refused := "GET, HEAD, OPTIONS", []string{"POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND", "get", "options"}
			if name == "livez" {
				allow, refused = "GET, HEAD", append(refused, "OPTIONS")
			}
			for _, method := range refused {
				a := ask(t, method, server.URL)
				if a.code != 405 || a.header.Get("Allow") != allow {
					t.Errorf("%s: got %d, Allow %q", method, a.code, a.header.Get("Allow"))
				}
			}
			get, head := ask(t, "GET", server.URL), ask(t, "HEAD", server.URL)
			if get.code != 200 || head.code != 200 {
				t.Errorf("GET is %d and HEAD is %d, want 200", get.code, head.code)
			}
			if get.length != int64(len(get.body)) || head.length != get.length || head.body != "" {
				t.Errorf("GET has length %d for %q, HEAD has length %d for %q", get.length, get.body, head.length, head.body)
			}
			get.header.Del("Date")
			head.header.Del("Date")
			if !maps.EqualFunc(get.header, head.header, slices.Equal) {
				t.Errorf("headers differ:\nGET  %v\nHEAD %v", get.header, head.header)
			}
		})
	}
}

// TestOptions: the answer has the status and the headers of a GET, and no body.
func TestOptions(t *testing.T) {
	t.Parallel()
	for _, status := range health.Statuses() {
		server := httptest.NewServer(newHandler(options{Check: says(status), Path: "/health"}))
		t.Cleanup(server.Close)
		for _, query := range []string{"", "?format=json", "?format=html", "?service=a&cb=100%", "?service=a&service=b"} {
			get, got := ask(t, "GET", server.URL+"/health"+query), ask(t, "OPTIONS", server.URL+"/health"+query)
			if got.code != get.code || got.body != "" || got.length != 0 || got.header.Get("Content-Length") != "0" || got.header.Get("Allow") != "GET, HEAD, OPTIONS" {
				t.Errorf("%v %q: %d with %d bytes, %v, want %d and none", status, query, got.code, len(got.body), got.header, get.code)
			}
			for _, name := range []string{"Grpc-Health-Status", "Grpc-Health-Evidence", "Retry-After", "Cache-Control", "X-Content-Type-Options"} {
				if got.header.Get(name) != get.header.Get(name) {
					t.Errorf("%v %q: %s %q, want %q", status, query, name, got.header.Get(name), get.header.Get(name))
				}
			}
		}
	}
	h := newHandler(options{Check: neverAsked(t), Path: "/", Services: []string{"a"}, Authorize: func(_ context.Context, presented string) (bool, error) { return presented == "s3cret", nil }})
	for _, tt := range []struct {
		target, token string
		want          int
	}{
		{"*", "s3cret", 405}, {"*", "", 405}, {"/other", "s3cret", 404}, {"/favicon.ico", "s3cret", 404}, {"/", "", 401}, {"/", "wrong", 401}, {"/?service=b", "s3cret", 404}, {"/?format=x", "s3cret", 400},
	} {
		r := httptest.NewRequest("OPTIONS", tt.target, nil)
		r.Header.Set("Authorization", "Bearer "+tt.token)
		recorder := httptest.NewRecorder()
		h.ServeHTTP(recorder, r)
		if recorder.Code != tt.want || (recorder.Header().Get("Allow") != "") != (tt.want == 405) {
			t.Errorf("OPTIONS %s with the token %q: %d, Allow %q, want %d", tt.target, tt.token, recorder.Code, recorder.Header().Get("Allow"), tt.want)
		}
	}
	recorder := httptest.NewRecorder()
	newHandler(options{Check: says(health.Serving)}).ServeHTTP(recorder, httptest.NewRequest("OPTIONS", "/any/path", nil))
	if recorder.Code != 200 { // the function and Lambda answer every path
		t.Errorf("every path: %d", recorder.Code)
	}
}

// What the token takes is taken from the check's time.
func TestSlowAuthorizationCountsAgainstTheBudget(t *testing.T) {
	t.Parallel()
	const budget = time.Minute
	const slow = 30 * time.Millisecond
	address := start(t, options{
		Check: func(ctx context.Context, _ string) health.Verdict {
			if deadline, ok := ctx.Deadline(); !ok || time.Until(deadline) > budget-slow {
				t.Errorf("deadline %v, %v", deadline, ok)
			}
			return health.Verdict{Status: health.Serving}
		},
		Budget:    budget,
		Authorize: func(context.Context, string) (bool, error) { time.Sleep(slow); return true, nil },
	})
	if a := ask(t, "GET", address, "Authorization: Bearer x"); a.code != 200 {
		t.Errorf("got %d", a.code)
	}
}

func TestOtherMethodsAskNothing(t *testing.T) {
	t.Parallel()
	address := start(t, options{Check: neverAsked(t), Authorize: func(context.Context, string) (bool, error) {
		t.Error("a token was looked at")
		return true, nil
	}})
	if a := ask(t, "POST", address, "Authorization: Bearer s3cret"); a.code != 405 {
		t.Errorf("got %d, want 405", a.code)
	}
}

// Not every server in front of the handler drops the body of an answer to HEAD.
func TestHeadWritesNoBody(t *testing.T) {
	t.Parallel()
	for _, target := range []string{"/", "/?format=json", "/?service=%FF"} {
		recorder := httptest.NewRecorder()
		newHandler(options{Check: says(health.Serving)}).ServeHTTP(recorder, httptest.NewRequest("HEAD", target, nil))
		if recorder.Body.Len() > 0 || recorder.Header().Get("Content-Length") == "0" {
			t.Errorf("%s: body %q, Content-Length %q", target, recorder.Body, recorder.Header().Get("Content-Length"))
		}
	}
}

// A body over the size up to which net/http counts by itself.
func TestHeadOfLongBody(t *testing.T) {
	t.Parallel()
	var names []string
	for i := range 100 {
		names = append(names, strings.Repeat("n", 200)+strconv.Itoa(i))
	}
	for _, format := range []string{"text", "json", "html"} {
		address := start(t, options{Check: says(health.Serving), Services: names}) + "/?format=" + format
		get, head := ask(t, "GET", address), ask(t, "HEAD", address)
		if get.length < 20000 || get.length != int64(len(get.body)) || head.length != get.length {
			t.Errorf("%s: length %d for %d bytes, HEAD has %d", format, get.length, len(get.body), head.length)
		}
	}
}

func TestPaths(t *testing.T) {
	t.Parallel()
	tests := []struct {
		configured string
		asked      string
		code       int
	}{
		{"", "", 200},
		{"", "/", 200},
		{"", "/any/where", 200},
		{"", "/favicon.ico", 404},
		{"", "/robots.txt", 404},
		{"", "/favicon.ico?service=a", 404},
		{"/", "/", 200},
		{"/", "/healthz", 404},
		{"/", "/robots.txt", 404},
		{"/healthz", "/healthz", 200},
		{"/healthz", "/healthz?service=echo", 200},
		{"/healthz", "/%68ealthz", 200},
		{"/healthz", "/healthz/", 404},
		{"/healthz", "/healthz/more", 404},
		{"/healthz", "/HEALTHZ", 404},
		{"/healthz", "/", 404},
	}
	for _, tt := range tests {
		t.Run(tt.configured+" "+tt.asked, func(t *testing.T) {
			t.Parallel()
			f := says(health.Serving)
			if tt.code == 404 {
				f = neverAsked(t)
			}
			a := ask(t, "GET", start(t, options{Check: f, Path: tt.configured})+tt.asked)
			if a.code != tt.code {
				t.Errorf("got %d, want %d", a.code, tt.code)
			}
			if tt.code == 404 && a.header.Get("Grpc-Health-Status") != "" {
				t.Error("an answer that is no verdict has Grpc-Health-Status")
			}
		})
	}
}

func TestServices(t *testing.T) {
	t.Parallel()
	many := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "&service=s%d", i)
		}
		return "?" + b.String()[1:]
	}
	hundred := func() string {
		var b strings.Builder
		for i := range 100 {
			fmt.Fprintf(&b, "s%d SERVING\n", i)
		}
		return b.String()
	}()
	tests := []struct {
		name       string
		configured []string
		query      string
		code       int
		body       string // checked where code is 200
	}{
		{"whole server", nil, "", 200, "SERVING\n"},
		{"whole server by an empty name", nil, "?service=", 200, "SERVING\n"},
		{"whole server by a bare key", nil, "?service", 200, "SERVING\n"},
		{"any name", nil, "?service=echo.EchoServer", 200, "echo.EchoServer SERVING\n"},
		{"alias", nil, "?serviceName=echo.EchoServer", 200, "echo.EchoServer SERVING\n"},
		{"order across the alias", nil, "?service=b&serviceName=a&service=c", 200, "b SERVING\na SERVING\nc SERVING\n"},
		{"duplicates", nil, "?service=b&service=a&serviceName=b", 200, "b SERVING\na SERVING\n"},
		{"whole server among others", nil, "?service=a&service=", 200, "a SERVING\nSERVING\n"},
		{"other parameters", nil, "?cachebuster=1&service=a&&", 200, "a SERVING\n"},
		{"escapes", nil, "?service=caf%C3%A9+%26%3B%3D", 200, "café &;= SERVING\n"},
		{"one configured", []string{"a"}, "", 200, "a SERVING\n"},
		{"all configured", []string{"a", "b"}, "", 200, "a SERVING\nb SERVING\n"},
		{"all configured, other parameters", []string{"a", "b"}, "?x=y", 200, "a SERVING\nb SERVING\n"},
		{"configured picked", []string{"a", "b"}, "?service=b", 200, "b SERVING\n"},
		{"configured picked in another order", []string{"a", "b"}, "?service=b&service=a", 200, "b SERVING\na SERVING\n"},
		{"not configured", []string{"a", "b"}, "?service=c", 404, ""},
		{"one not configured", []string{"a", "b"}, "?service=a&service=c", 404, ""},
		{"whole server not configured", []string{"a", "b"}, "?service=", 404, ""},
		{"prefix of a configured name", []string{"ab"}, "?service=a", 404, ""},
		{"255 bytes", nil, "?service=" + strings.Repeat("a", 255), 200, strings.Repeat("a", 255) + " SERVING\n"},
		{"256 bytes", nil, "?service=" + strings.Repeat("a", 256), 400, ""},
		{"256 bytes of 128 letters", nil, "?service=" + strings.Repeat("%C3%A9", 128), 400, ""},
		{"line feed", nil, "?service=a%0Ab", 400, ""},
		{"null", nil, "?service=%00", 400, ""},
		{"delete", nil, "?service=%7F", 400, ""},
		{"C1 control", nil, "?service=%C2%85", 400, ""},
		{"not UTF-8", nil, "?service=%FF", 400, ""},
		{"illegal where names are configured", []string{"a"}, "?service=a%0Ab", 400, ""},
		{"bad escape", nil, "?service=%zz", 400, ""},
		{"torn escape", nil, "?service=a%4", 400, ""},
		{"bad escape in another parameter", nil, "?x=%zz", 200, "SERVING\n"},
		{"bad escape in a key", nil, "?%zz=1", 200, "SERVING\n"},
		{"percent sign in another parameter", nil, "?cb=100%&service=a", 200, "a SERVING\n"},
		{"semicolon in another parameter", nil, "?service=a&cb=1;2", 200, "a SERVING\n"},
		{"our name in another parameter", nil, "?cb=1;service=a", 200, "SERVING\n"},
		{"control characters in another parameter", nil, "?%00=%0A&x=%FF", 200, "SERVING\n"},
		{"a key in other letters", nil, "?Service=a&FORMAT=x&LIST", 200, "SERVING\n"},
		{"a long other parameter", nil, "?x=" + strings.Repeat("%", 4000), 200, "SERVING\n"},
		{"no key", nil, "?=a&;&%&+&==", 200, "SERVING\n"},
		{"semicolon", nil, "?service=a;service=b", 400, ""},
		{"semicolon in the alias", nil, "?serviceName=a;b", 400, ""},
		{"semicolon in format", nil, "?format=json;service=a", 400, ""},
		{"semicolon behind our name", nil, "?list;format=json", 400, ""},
		{"escaped semicolon", nil, "?service=a%3Bb", 200, "a;b SERVING\n"},
		{"bad escape in the alias", nil, "?serviceName=100%", 400, ""},
		{"bad escape in format", nil, "?format=%j", 400, ""},
		{"bad escape in list", nil, "?list=%", 400, ""},
		{"escaped key", nil, "?%73ervice=a", 200, "a SERVING\n"},
		{"100 services", nil, many(100), 200, hundred},
		{"101 services", nil, many(101), 400, ""},
		{"list and service", nil, "?list&service=a", 400, ""},
		{"list not offered", nil, "?list", 404, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := says(health.Serving)
			if tt.code != 200 {
				f = neverAsked(t)
			}
			a := ask(t, "GET", start(t, options{Check: f, Services: tt.configured})+"/"+tt.query)
			if a.code != tt.code || tt.code == 200 && a.body != tt.body {
				t.Errorf("got %d %q, want %d %q", a.code, a.body, tt.code, tt.body)
			}
			if tt.code == 404 && a.body != "a service was asked for that is not offered here\n" && a.body != "the list of services is not offered here\n" {
				t.Errorf("the body tells more than it should: %q", a.body)
			}
			if tt.code != 200 && (a.body == "" || a.header.Get("Content-Type") != "text/plain; charset=utf-8") {
				t.Errorf("no reason is given in text: %q as %q", a.body, a.header.Get("Content-Type"))
			}
		})
	}
}

func TestWorstOfSeveral(t *testing.T) {
	t.Parallel()
	all := health.Statuses() // worst first
	byName := func(_ context.Context, service string) health.Verdict {
		for _, s := range all {
			if s.String() == service {
				return health.Verdict{Status: s, EvidenceID: evidenceOf(s)}
			}
		}
		return health.Verdict{}
	}
	address := start(t, options{Check: byName})
	for i, worst := range all {
		for _, better := range all[i:] {
			query := "/?service=" + better.String() + "&service=" + worst.String()
			a := ask(t, "GET", address+query)
			if got := a.header.Get("Grpc-Health-Status"); got != worst.String() {
				t.Errorf("%s: Grpc-Health-Status %q, want %q", query, got, worst)
			}
			if alone := ask(t, "GET", address+"/?service="+worst.String()); a.code != alone.code {
				t.Errorf("%s: got %d, alone the worst is %d", query, a.code, alone.code)
			}
		}
	}
}

func TestEvidence(t *testing.T) {
	t.Parallel()
	f := func(_ context.Context, service string) health.Verdict {
		switch service {
		case "good":
			return health.Verdict{Status: health.Serving, EvidenceID: "unused"}
		case "silent":
			return health.Verdict{Status: health.Timeout}
		}
		return health.Verdict{Status: health.NotServing, EvidenceID: strings.TrimRight(service, "'")}
	}
	address := start(t, options{Check: f})
	for query, want := range map[string]string{
		"?service=good":   "",
		"?service=silent": "",
		"?service=e1":     "e1",
		"?service=e2&service=good&service=e1&service=e2'":       "e2, e1",
		"?service=silent&service=good&service=e1&service=e1%27": "e1",
	} {
		a := ask(t, "GET", address+"/"+query)
		if got := strings.Join(a.header.Values("Grpc-Health-Evidence"), "|"); got != want {
			t.Errorf("%s: Grpc-Health-Evidence %q, want %q", query, got, want)
		}
	}
}

// Each check waits until all of them have begun: one after the other they would never end.
func TestSideBySide(t *testing.T) {
	t.Parallel()
	var begun atomic.Int32
	all := make(chan struct{})
	f := func(ctx context.Context, _ string) health.Verdict {
		if begun.Add(1) == 3 {
			close(all)
		}
		select {
		case <-all:
			return health.Verdict{Status: health.Serving}
		case <-time.After(10 * time.Second):
			return health.Verdict{Status: health.Timeout}
		}
	}
	a := ask(t, "GET", start(t, options{Check: f, Services: []string{"a", "b", "c"}}))
	if want := "a SERVING\nb SERVING\nc SERVING\n"; a.code != 200 || a.body != want {
		t.Errorf("got %d %q, want 200 %q", a.code, a.body, want)
	}
}

func TestPanicReachesTheServer(t *testing.T) {
	t.Parallel()
	h := newHandler(options{
		Check:    func(context.Context, string) health.Verdict { panic("broken check") },
		Services: []string{"a", "b"},
	})
	defer func() {
		if got := recover(); got != "broken check" {
			t.Errorf("recovered %v, want the panic of the check", got)
		}
	}()
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
}

// An HTTP/2 caller that goes away ends the work for it.
func TestCallerGoesAway(t *testing.T) {
	t.Parallel()
	begun, ended := make(chan struct{}), make(chan error, 1)
	server := httptest.NewUnstartedServer(newHandler(options{Check: func(ctx context.Context, _ string) health.Verdict {
		close(begun)
		select {
		case <-ctx.Done():
			ended <- ctx.Err()
		case <-time.After(10 * time.Second):
			ended <- errors.New("the check was not told")
		}
		return health.Verdict{Status: health.Timeout}
	}}))
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	request, err := http.NewRequestWithContext(ctx, "GET", server.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		<-begun
		leave()
	}()
	if response, err := server.Client().Do(request); err == nil {
		response.Body.Close()
		t.Error("the caller that left got an answer")
	}
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
}

// An HTTP/1 caller that closes its side when it has sent its request gets the verdict, whatever it asks for and however it
// asks.
func TestCallerClosesItsSide(t *testing.T) {
	t.Parallel()
	const budget = time.Minute
	var left sync.WaitGroup
	find := func(ctx context.Context, _ string) health.Verdict {
		select {
		case <-ctx.Done():
			return health.Verdict{Status: health.Timeout, Err: ctx.Err()}
		case <-time.After(20 * time.Millisecond):
			return health.Verdict{Status: health.Serving}
		}
	}
	authorize := func(ctx context.Context, presented string) (bool, error) {
		if v := find(ctx, ""); v.Status != health.Serving { // as slow as a file that is read again
			return false, v.Err
		}
		return presented == "s3cret", nil
	}
	list := func(ctx context.Context) []health.Verdict { return []health.Verdict{find(ctx, "")} }
	open := newHandler(options{Check: find, List: list, Budget: budget})
	closed := newHandler(options{Check: find, Authorize: authorize, Budget: budget})
	mux := http.NewServeMux()
	mux.Handle("/", open)
	mux.Handle("/token", closed)
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	for _, request := range []string{
		"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET / HTTP/1.0\r\n\r\n",
		"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n",
		"OPTIONS / HTTP/1.0\r\n\r\n",
		"GET /?list HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
		"GET /?service=a&service=b HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET /token HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer s3cret\r\n\r\n",
		"GET /?format=html HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
	} {
		for range 5 {
			left.Go(func() {
				c, err := net.Dial("tcp", server.Listener.Addr().String())
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				_, _ = io.WriteString(c, request)
				if err := c.(*net.TCPConn).CloseWrite(); err != nil {
					t.Error(err)
				}
				answer, err := io.ReadAll(c)
				if status, _, _ := strings.Cut(string(answer), "\r\n"); err != nil || !strings.HasSuffix(status, " 200 OK") {
					t.Errorf("%q: %q, %v", request, answer, err)
				}
			})
		}
	}
	left.Wait()
}

// One that is gone ends no check either, since the two cannot be told apart; a deadline of the platform still does.
func TestHTTP1ContextKeepsItsDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // whose time is exact
		type key struct{}
		ended := make(chan error, 2)
		h := newHandler(options{Check: func(ctx context.Context, _ string) health.Verdict {
			if ctx.Value(key{}) != "v" {
				t.Error("the context has lost its values")
			}
			ended <- ctx.Err()
			<-ctx.Done()
			ended <- ctx.Err()
			return health.Verdict{Status: health.Timeout}
		}})
		ctx, cancel := context.WithTimeout(context.WithValue(t.Context(), key{}, "v"), 50*time.Millisecond)
		cancel() // the caller has closed its side
		if err := ctx.Err(); err == nil {
			t.Fatal("the request's context has not ended")
		}
		recorder := httptest.NewRecorder()
		h.ServeHTTP(recorder, httptest.NewRequestWithContext(ctx, "GET", "/", nil))
		if err := <-ended; err != nil {
			t.Errorf("the check began with %v", err)
		}
		if err := <-ended; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the check ended with %v, want the platform's deadline", err)
		}
	})
}

// A deadline of the platform ends a request whose caller still listens: the verdict is the answer,
// and never an empty 200.
func TestDeadlineIsNoSuccess(t *testing.T) {
	t.Parallel()
	h := newHandler(options{Check: says(health.Timeout)})
	ctx, cancel := context.WithDeadline(t.Context(), time.Unix(0, 0))
	defer cancel()
	recorder := httptest.NewRecorder()
	h.ServeHTTP(recorder, httptest.NewRequestWithContext(ctx, "GET", "/", nil))
	if recorder.Code != 503 || recorder.Body.String() != "TIMEOUT\n" {
		t.Errorf("got %d %q, want 503 TIMEOUT", recorder.Code, recorder.Body)
	}
}

func TestFormats(t *testing.T) {
	t.Parallel()
	const (
		text = "text/plain; charset=utf-8"
		json = "application/json"
		html = "text/html; charset=utf-8"
	)
	tests := []struct {
		query  string
		accept []string
		want   string
	}{
		{"", nil, text},
		{"", []string{""}, text},
		{"", []string{"*/*"}, text},
		{"", []string{"text/plain"}, text},
		{"", []string{"application/json"}, json},
		{"", []string{"APPLICATION/JSON; Charset=utf-8"}, json},
		{"", []string{"text/html"}, html},
		{"", []string{"text/*"}, text},
		{"", []string{"application/*"}, json},
		{"", []string{"text/*;q=0.5, application/json;q=0.6"}, json},
		{"", []string{"text/html;q=0.5, application/json;q=0.4, text/plain;q=0.3"}, html},
		{"", []string{"text/plain;q=0.2, */*;q=0.8"}, json},
		{"", []string{"text/plain;q=0, application/json;q=0, */*"}, html},
		{"", []string{"*/*, application/json"}, json},
		{"", []string{"application/json, text/plain, */*"}, json},
		{"", []string{"application/json;q=0.1, application/json, text/plain;q=0.5"}, text},
		{"", []string{"text/html", "application/json;q=0.9"}, html},
		{"", []string{"application/json;q=0.9", "text/html"}, html},
		{"", []string{", ,application/json,,"}, json},
		{"", []string{`text/html;p="a,b;q=0";q=0.1, application/json;q=0.2`}, json},
		{"", []string{`text/html;p="a\",b";q=0.3, application/json;q=0.2`}, html},
		// Firefox, Chrome.
		{"", []string{"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}, html},
		{"", []string{"text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,application/signed-exchange;v=b3;q=0.7"}, html},
		// Nothing that could be sent.
		{"", []string{"image/png"}, text},
		{"", []string{"*/*;q=0"}, text},
		{"", []string{"application/json;q=0.000"}, text},
		// Malformed, as a whole.
		{"", []string{"application/json, nonsense"}, text},
		{"", []string{"application/json;q=2"}, text},
		{"", []string{"application/json;q=-1"}, text},
		{"", []string{"application/json;q=NaN"}, text},
		{"", []string{"application/json;q=1e0"}, text},
		{"", []string{"application/json;q="}, text},
		{"", []string{"application/json;q"}, text},
		{"", []string{"application/json;;;=/"}, text},
		{"", []string{`application/json;p="open`}, text},
		// The query wins.
		{"?format=json", []string{"text/html"}, json},
		{"?format=html", []string{"application/json"}, html},
		{"?format=text", []string{"application/json"}, text},
	}
	address := start(t, options{Check: says(health.Serving)})
	for _, tt := range tests {
		t.Run(tt.query+strings.Join(tt.accept, " | "), func(t *testing.T) {
			t.Parallel()
			var headers []string
			for _, a := range tt.accept {
				headers = append(headers, "Accept: "+a)
			}
			a := ask(t, "GET", address+"/"+tt.query, headers...)
			if got := a.header.Get("Content-Type"); a.code != 200 || got != tt.want {
				t.Errorf("got %d %q, want 200 %q", a.code, got, tt.want)
			}
		})
	}
}

func TestUnknownFormat(t *testing.T) {
	t.Parallel()
	address := start(t, options{Check: neverAsked(t)})
	for _, format := range []string{"xml", "", "JSON", "<b>"} {
		a := ask(t, "GET", address+"/?format="+url.QueryEscape(format))
		if want := "format is none of text, json, html\n"; a.code != 400 || a.body != want {
			t.Errorf("format %q: got %d %q, want 400 %q", format, a.code, a.body, want)
		}
	}
}

func TestJSON(t *testing.T) {
	t.Parallel()
	verdicts := map[string]health.Verdict{
		"echo.EchoServer": {Status: health.Serving, Asked: true, Code: codes.OK, Duration: 800 * time.Microsecond},
		"gone":            {Status: health.ServiceUnknown, Asked: true, Code: codes.NotFound, Duration: 2 * time.Second, EvidenceID: "ID"},
		"":                {Status: health.ConnectionFailed, Phase: health.PhaseTLS, Err: errors.New("secret cause")},
		`"<&>"`:           {Status: health.Timeout, Asked: true, Code: codes.DeadlineExceeded, Phase: health.PhaseRPC},
	}
	address := start(t, options{Check: func(_ context.Context, service string) health.Verdict { return verdicts[service] }})
	tests := []struct {
		query string
		want  string
	}{
		{
			"service=echo.EchoServer",
			`{"status":"SERVING","services":[{"service":"echo.EchoServer","status":"SERVING","grpc_code":"OK","phase":"","duration_seconds":0.0008}]}`,
		},
		{
			"service=gone&service=",
			`{"status":"CONNECTION_FAILED","services":[` +
				`{"service":"gone","status":"SERVICE_UNKNOWN","grpc_code":"NOT_FOUND","phase":"","duration_seconds":2,"evidence":"ID"},` +
				`{"service":"","status":"CONNECTION_FAILED","grpc_code":"","phase":"tls","duration_seconds":0}]}`,
		},
		{
			"service=%22%3C%26%3E%22",
			`{"status":"TIMEOUT","services":[{"service":"\"\u003c\u0026\u003e\"","status":"TIMEOUT","grpc_code":"DEADLINE_EXCEEDED","phase":"rpc","duration_seconds":0}]}`,
		},
	}
	for _, tt := range tests {
		a := ask(t, "GET", address+"/?format=json&"+tt.query)
		if a.body != tt.want+"\n" {
			t.Errorf("%s:\ngot  %s\nwant %s", tt.query, a.body, tt.want)
		}
		if !json.Valid([]byte(a.body)) {
			t.Errorf("%s: not JSON", tt.query)
		}
	}
}

// Causes are for the log, unless the settings say that callers may see them. The text stays as it is.
func TestCauseStaysInside(t *testing.T) {
	t.Parallel()
	for _, show := range []bool{false, true} {
		address := start(t, options{ShowCause: show, Check: func(context.Context, string) health.Verdict {
			return health.Verdict{Status: health.ConnectionFailed, Phase: health.PhaseConnect, Err: errors.New("dial 10.1.2.3:50051: <b>")}
		}})
		for format, want := range map[string]string{"text": "", "json": `,"cause":"dial 10.1.2.3:50051: \u003cb\u003e"}`, "html": "<bdi>dial 10.1.2.3:50051: &lt;b&gt;</bdi>"} {
			a := ask(t, "GET", address+"/?format="+format)
			all := a.body + fmt.Sprint(a.header)
			if told := strings.Contains(all, "10.1.2.3"); told != (show && format != "text") || told && !strings.Contains(all, want) {
				t.Errorf("causes shown %v, %s:\n%v\n%s", show, format, a.header, a.body)
			}
		}
	}
}

// TestCauseIsInert: what a cause quotes from outside is escaped and bounded, wherever callers see it.
func TestCauseIsInert(t *testing.T) {
	t.Parallel()
	for _, hostile := range []string{"a\u202eb", "a\u2028b", "a\x1b[31mb", "a\nb", "a\u200bb", strings.Repeat("x", 1<<16)} {
		address := start(t, options{ShowCause: true, Check: func(context.Context, string) health.Verdict {
			return health.Verdict{Status: health.RPCFailed, Asked: true, Code: codes.Internal, Err: errors.New(hostile)}
		}})
		for _, format := range []string{"json", "html"} {
			body := ask(t, "GET", address+"/?format="+format).body
			if format == "json" {
				var got struct{ Services []struct{ Cause string } }
				if err := json.Unmarshal([]byte(body), &got); err != nil {
					t.Fatal(err)
				}
				body = got.Services[0].Cause
			} else {
				_, body, _ = strings.Cut(body, `<dd id="causes">`)
				body, _, _ = strings.Cut(body, "</dd>")
			}
			if body == "" || len(body) > 1100 || strings.Contains(body, hostile) {
				t.Errorf("%s: %.30q is shown as %.100q", format, hostile, body)
			}
		}
	}
}

// A browser gets a refusal as a page that says what can be asked, and repeats nothing of the request; others get text. Names of
// services are for those who have been let in.
func TestRefusalPages(t *testing.T) {
	t.Parallel()
	h := newHandler(options{Check: neverAsked(t), Services: []string{"shop.Cart", "shop.<b>"}, Path: "/health", Authorize: func(_ context.Context, token string) (bool, error) {
		if token == "unreadable" {
			return false, errors.New("no file")
		}
		return token == "right!", nil
	}})
	for _, test := range []struct {
		method, target, token string
		code                  int
		word, reason          string
		link                  string
		named                 bool
	}{
		{"GET", "/", "", 404, "Not Found", "There is nothing at this path.", `href="/health?format=json"`, false},
		{"GET", "/favicon.ico", "right!", 404, "Not Found", "There is nothing at this path.", `href="/health"`, false},
		{"POST", "/health", "right!", 405, "Method Not Allowed", "Use GET or HEAD.", `href="?format=json"`, false},
		{"GET", "/health", "", 401, "Unauthorized", "Send the token as a Bearer token or as the Basic password.", `href="?format=json"`, false},
		{"GET", "/health", "<evil>", 401, "Unauthorized", "Send the token as a Bearer token or as the Basic password.", `href="?"`, false},
		{"GET", "/health?format=%3Cevil%3E", "right!", 400, "Bad Request", "Format is none of text, json, html.", `href="?service=shop.Cart"`, true},
		{"GET", "/health?service=%3Cevil%3E", "right!", 404, "Not Found", "A service was asked for that is not offered here.", `href="?service=shop.%3Cb%3E"`, true},
		{"GET", "/health?list", "right!", 404, "Not Found", "The list of services is not offered here.", `href="?service=shop.Cart"`, true},
	} {
		r := httptest.NewRequest(test.method, test.target, nil)
		if test.token != "" {
			r.Header.Set("Authorization", "Bearer "+test.token)
		}
		plain := httptest.NewRecorder()
		h.ServeHTTP(plain, r)
		if got := plain.Header().Get("Content-Type"); plain.Code != test.code || !strings.HasPrefix(got, "text/plain") {
			t.Errorf("%s %s without Accept: %d, %s", test.method, test.target, plain.Code, got)
		}
		r.Header.Set("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		body := w.Body.String()
		if got := w.Header().Get("Content-Type"); w.Code != test.code || !strings.HasPrefix(got, "text/html") || w.Header().Get("Content-Security-Policy") == "" {
			t.Errorf("%s %s to a browser: %d, headers %v", test.method, test.target, w.Code, w.Header())
		}
		for _, want := range []string{"<h1>" + test.word + "</h1>", "<p>" + test.reason + "</p>", test.link} {
			if !strings.Contains(body, want) {
				t.Errorf("%s %s: %q is missing in\n%s", test.method, test.target, want, body)
			}
		}
		if strings.Contains(body, "evil") || strings.Contains(body, "<b>") || strings.Contains(body, "shop.Cart") != test.named {
			t.Errorf("%s %s: the page repeats the request, or who sees the services is wrong:\n%s", test.method, test.target, body)
		}
		if test.code == 401 && len(w.Header()["Www-Authenticate"]) != 2 || test.code == 405 && w.Header().Get("Allow") == "" {
			t.Errorf("%s %s: headers %v", test.method, test.target, w.Header())
		}
	}
}

func TestPage(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 20, 21, 22, 4, 0, time.FixedZone("", 3600))
	verdicts := map[string]health.Verdict{
		"":                            {Status: health.Serving, Asked: true, Duration: 800 * time.Microsecond, At: at, Since: at.Add(-26 * time.Hour)},
		"&b":                          {Status: health.ConnectionFailed, Phase: health.PhaseTLS, EvidenceID: "ID", At: at},
		`<script>alert("1")</script>`: {Status: health.NotServing, Asked: true, At: at},
	}
	address := start(t, options{
		Check:           func(_ context.Context, service string) health.Verdict { return verdicts[service] },
		CertificateEnds: func() time.Time { return time.Now().Add(27*24*time.Hour + time.Hour) },
	}) + "/"
	a := ask(t, "GET", address+"?format=html&service=&service=%26b&service="+url.QueryEscape(`<script>alert("1")</script>`))
	if a.code != 503 || !strings.HasPrefix(a.body, "<!DOCTYPE html>") || strings.Contains(a.body, "<script>alert") {
		t.Errorf("got %d, and not the page, or with a service's script", a.code)
	}
	rest := a.body // has what is still to come, the worst service first
	for _, want := range []string{
		`data-tone="bad"`, "<title>Connection failed – 3 services</title>", `href="data:image/svg`,
		">3 services<", ">Connection failed</h1>", ">1 of 3 services are serving. TLS handshake failed.<",
		">&amp;b<", ">CONNECTION_FAILED<", ">tls<",
		">&lt;script&gt;alert(&#34;1&#34;)&lt;/script&gt;<", ">NOT_SERVING<",
		">Whole server<", ">SERVING<", ">OK<", ">0.8 ms<", ">20 Nov 2026, 20:22:04 UTC<", ">19 Nov 2026, 18:22:04 UTC<",
		">ID<", ">27 days left<",
		`href="?format=text&amp;service=&amp;service=%26b&amp;service=%3Cscript%3E`, `href="?format=json&amp;service=&amp;`,
	} {
		_, after, found := strings.Cut(rest, want)
		if !found {
			t.Errorf("%q is missing, or not in its place", want)
			continue
		}
		rest = after
	}
	one := ask(t, "GET", address+"?format=html").body
	for _, want := range []string{"<title>Serving – Whole server</title>", "The server says that it is serving.", `Since <time datetime="2026-11-19T18:22:04.000Z">`} {
		if !strings.Contains(one, want) {
			t.Errorf("%q is missing on the page of one service", want)
		}
	}
}

// The page of a long List says how many services it does not show.
func TestPageOfALongList(t *testing.T) {
	t.Parallel()
	address := start(t, options{List: func(context.Context) []health.Verdict {
		return []health.Verdict{{Service: "a", Status: health.Serving}, {Service: "b", Status: health.NotServing, LeftOut: 4900}}
	}})
	if a := ask(t, "GET", address+"/?list&format=html"); !strings.Contains(a.body, ">1 of 2 services are serving. The server lists 4900 more, none of them worse.<") {
		t.Error("the page does not say how many it leaves out")
	}
}

// TestPageSaysWhy: the phase has a sentence of its own, and the page names a certificate's end.
func TestPageSaysWhy(t *testing.T) {
	t.Parallel()
	ended := fmt.Errorf("10.1.2.3: %w", &health.TLSError{Fault: health.CertificateExpired, At: time.Now().Add(-2*24*time.Hour - time.Hour), Err: errors.New("x509")})
	for _, test := range []struct {
		v    health.Verdict
		want string
	}{
		{health.Verdict{Status: health.ConnectionFailed, Phase: health.PhaseTLS, Err: ended}, "TLS handshake failed. The server&#39;s certificate expired 2 days ago."},
		{health.Verdict{Status: health.ConnectionFailed, Phase: health.PhaseDNS, Err: errors.New("10.1.2.3")}, "The lookup of the server&#39;s name failed."},
		{health.Verdict{Status: health.Timeout, Phase: health.PhaseHTTP2}, "The server accepted a connection, and did not begin to speak HTTP/2 in time."},
		{health.Verdict{Status: health.RPCFailed, Asked: true, Code: codes.PermissionDenied, Err: errors.New("10.1.2.3")}, "The health check&#39;s RPC failed with the gRPC status PERMISSION_DENIED."},
	} {
		a := ask(t, "GET", start(t, options{Check: func(context.Context, string) health.Verdict { return test.v }})+"/?format=html")
		if !strings.Contains(a.body, ` id="meaning">`+test.want+"</p>") || strings.Contains(a.body, "10.1.2.3") {
			_, got, _ := strings.Cut(a.body, ` id="meaning">`)
			t.Errorf("%v in %s: %.200q, want %s", test.v.Status, test.v.Phase, got, test.want)
		}
	}
}

// Every status has its words.
func TestPageOfEveryStatus(t *testing.T) {
	t.Parallel()
	said := make(map[string]health.Status)
	for _, status := range append(health.Statuses(), health.Status(99)) {
		a := ask(t, "GET", start(t, options{Check: says(status)})+"/?format=html")
		_, word, _ := strings.Cut(a.body, `<h1 id="word">`)
		word, _, _ = strings.Cut(word, "</h1>")
		_, meaning, _ := strings.Cut(a.body, ` id="meaning">`)
		meaning, _, _ = strings.Cut(meaning, "</p>")
		if word == "" || !strings.HasSuffix(meaning, ".") || !strings.Contains(a.body, `href="data:image`) || strings.Contains(a.body, `<tr role="row" class="" data-service=""><th role="rowheader" scope="row"><bdi data-cell="service">Whole`) {
			t.Errorf("%v: word %q, meaning %q", status, word, meaning)
		}
		if other, ok := said[word+meaning]; ok && status != 99 {
			t.Errorf("%v and %v say the same", status, other)
		}
		said[word+meaning] = status
	}
}

func TestPagePolicy(t *testing.T) {
	t.Parallel()
	a := ask(t, "GET", start(t, options{Check: says(health.Serving)})+"/?format=html")
	hash := func(from, to string) string {
		_, inner, _ := strings.Cut(a.body, from)
		inner, _, found := strings.Cut(inner, to)
		if !found || len(inner) < 1000 {
			t.Fatalf("nothing between %s and %s", from, to)
		}
		sum := sha256.Sum256([]byte(inner))
		return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
	}
	want := "default-src 'none'; script-src " + hash("<script>", "</script>") + "; style-src " + hash("<style>", "</style>") +
		"; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
	if got := a.header.Get("Content-Security-Policy"); got != want {
		t.Errorf("Content-Security-Policy\n%s, want\n%s", got, want)
	}
}

func TestPageCertificate(t *testing.T) {
	t.Parallel()
	const hour, day = time.Hour, 24 * time.Hour
	for name, test := range map[string]struct {
		left time.Duration
		want string
	}{
		"days":      {27*day + hour, "<span>27 days left<"},
		"14 days":   {14*day + hour, "<span>14 days left<"},
		"soon":      {14*day - hour, ` class="soon">13 days left<`},
		"two days":  {2*day + hour/2, ">2 days left<"},
		"hours":     {2*day - hour/2, ">47 hours left<"},
		"two hours": {2*hour + hour/2, ">2 hours left<"},
		"minutes":   {hour/2 + time.Minute/2, ">30 minutes left<"},
		"expired":   {-3*day - hour, ` class="over">expired 3 days ago<`},
	} {
		ends := time.Now().Add(test.left)
		a := ask(t, "GET", start(t, options{Check: says(health.Serving), CertificateEnds: func() time.Time { return ends }})+"/?format=html")
		if !strings.Contains(a.body, test.want) || !strings.Contains(a.body, ends.UTC().Format(`datetime="2006-01-02T15:04:05.`)) {
			t.Errorf("%s: %q, or the date, is missing", name, test.want)
		}
	}
	never := func() time.Time { return time.Time{} }
	for _, ends := range []func() time.Time{nil, never} {
		if a := ask(t, "GET", start(t, options{Check: says(health.Serving), CertificateEnds: ends})+"/?format=html"); !strings.Contains(a.body, ">none seen<") {
			t.Error("the page does not say that no certificate was seen")
		}
	}
}

func TestList(t *testing.T) {
	t.Parallel()
	listOf := func(verdicts ...health.Verdict) func(context.Context) []health.Verdict {
		return func(context.Context) []health.Verdict { return verdicts }
	}
	tests := []struct {
		name       string
		list       func(context.Context) []health.Verdict
		configured []string
		code       int
		body       string
	}{
		{"two", listOf(health.Verdict{Status: health.Serving}, health.Verdict{Service: "echo", Status: health.Serving}), nil, 200, "SERVING\necho SERVING\n"},
		{"worst", listOf(health.Verdict{Service: "a", Status: health.Serving}, health.Verdict{Service: "b", Status: health.NotServing}), nil, 503, "a SERVING\nb NOT_SERVING\n"},
		{"failed", listOf(health.Verdict{Status: health.Unimplemented}), nil, 503, "UNIMPLEMENTED\n"},
		{"empty", listOf(), nil, 503, "UNKNOWN\n"},
		{"lines in a name", listOf(health.Verdict{Service: "a\nb", Status: health.NotServing}), nil, 503, "a\\nb NOT_SERVING\n"},
		{"not allowed", nil, nil, 404, "the list of services is not offered here\n"},
		{"services are configured", listOf(health.Verdict{Status: health.Serving}), []string{"echo"}, 404, "the list of services is not offered here\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			address := start(t, options{Check: neverAsked(t), List: tt.list, Services: tt.configured})
			for _, query := range []string{"?list", "?list=", "?list=true"} {
				if a := ask(t, "GET", address+"/"+query); a.code != tt.code || a.body != tt.body {
					t.Errorf("%s: got %d %q, want %d %q", query, a.code, a.body, tt.code, tt.body)
				}
			}
		})
	}
	address := start(t, options{Check: neverAsked(t), List: listOf()})
	if a := ask(t, "GET", address+"/?list&format=json"); a.body != `{"status":"UNKNOWN","services":[]}`+"\n" {
		t.Errorf("an empty list is %s", a.body)
	}
}

func TestToken(t *testing.T) {
	t.Parallel()
	basic := func(user, password string) string {
		r := http.Request{Header: http.Header{}}
		r.SetBasicAuth(user, password)
		return r.Header.Get("Authorization")
	}
	tests := []struct {
		authorization string
		want          bool
	}{
		{"", false},
		{"Bearer s3cret", true},
		{"bearer s3cret", true},
		{"BEARER   s3cret", true},
		{"Bearer wrong", false},
		{"Bearer", false},
		{"Bearer ", false},
		{"Bearers3cret", false},
		{"s3cret", false},
		{"Digest s3cret", false},
		{basic("", "s3cret"), true},
		{basic("anyone", "s3cret"), true},
		{strings.Replace(basic("anyone", "s3cret"), "Basic", "bAsIc", 1), true},
		{basic("s3cret", ""), false},
		{basic("s3cret", "wrong"), false},
		{"Basic s3cret", false},
		{"Basic", false},
	}
	for _, tt := range tests {
		t.Run(tt.authorization, func(t *testing.T) {
			t.Parallel()
			f := says(health.Serving)
			if !tt.want {
				f = neverAsked(t)
			}
			address := start(t, options{
				Check:    f,
				Services: []string{"known"},
				Authorize: func(_ context.Context, presented string) (bool, error) {
					if presented == "" {
						t.Error("an empty token was presented")
					}
					return presented == "s3cret", nil
				},
			})
			queries := []string{"", "?service=known", "?service=unknown", "?format=xml", "?list", "?service=%zz"}
			for i, query := range queries {
				a := ask(t, "GET", address+"/"+query, "Authorization: "+tt.authorization)
				if tt.want {
					if want := []int{200, 200, 404, 400, 404, 400}[i]; a.code != want {
						t.Errorf("%q: got %d, want %d", query, a.code, want)
					}
					continue
				}
				challenge := strings.Join(a.header.Values("WWW-Authenticate"), " | ")
				if a.code != 401 || !strings.Contains(challenge, `Bearer realm="`) || !strings.Contains(challenge, `Basic realm="`) {
					t.Errorf("%q: got %d, WWW-Authenticate %q", query, a.code, challenge)
				}
				if strings.Contains(a.body, "known") {
					t.Errorf("%q: the refusal tells of services: %q", query, a.body)
				}
			}
		})
	}
}

// Each refused request is reported once, with its reason; no other is.
func TestRejected(t *testing.T) {
	t.Parallel()
	var reasons []string
	status := health.Serving
	upstream := asker.Upstream{Services: []string{"a", "b"}, Check: func(_ context.Context, service string) health.Verdict {
		if service == "b" {
			return health.Verdict{Status: status, At: time.Now()}
		}
		return health.Verdict{Status: health.Serving, At: time.Now()}
	}}
	h := web.New(web.Options{Path: "/health", Asker: asker.New(asker.Options{
		Fleet: asker.One(&upstream),
		Authorize: func(_ context.Context, token string) (bool, error) {
			if token == "unreadable" {
				return false, errors.New("the file is gone")
			}
			return token == "right", nil
		},
		Rejected: func(reason string) { reasons = append(reasons, reason) },
	})})
	for _, test := range []struct {
		method, target, token string
		status                health.Status
		want                  string
	}{
		{"GET", "/health", "right", health.Serving, ""},
		{"HEAD", "/health?service=a&service=b", "right", health.NotServing, ""},
		{"OPTIONS", "/health", "right", health.Timeout, ""},
		{"GET", "/", "right", health.Serving, "path"},
		{"GET", "/health/", "", health.Serving, "path"},
		{"GET", "/favicon.ico", "right", health.Serving, "path"},
		{"POST", "/health", "", health.Serving, "method"},
		{"DELETE", "/health?service=none", "right", health.Serving, "method"},
		{"OPTIONS", "*", "right", health.Serving, "method"},
		{"GET", "/health", "", health.Serving, "token"},
		{"GET", "/health?format=none", "wrong", health.Serving, "token"},
		{"GET", "/health", "unreadable", health.Serving, "token"},
		{"GET", "/health?format=none", "right", health.Serving, "query"},
		{"GET", "/health?service=" + strings.Repeat("x", 256), "right", health.Serving, "query"},
		{"GET", "/health?list", "right", health.Serving, "query"},
		{"GET", "/health?service=c", "right", health.Serving, "service"},
		{"GET", "/health?service=a&service=", "right", health.Serving, "service"},
		{"GET", "/health", "right", health.Overloaded, "overload"},
		{"GET", "/health?service=b", "right", health.Overloaded, "overload"},
		{"GET", "/health?service=a", "right", health.Overloaded, ""},
	} {
		reasons, status = nil, test.status
		r := httptest.NewRequest(test.method, test.target, nil)
		if test.token != "" {
			r.Header.Set("Authorization", "Bearer "+test.token)
		}
		h.ServeHTTP(httptest.NewRecorder(), r)
		if got := strings.Join(reasons, " "); got != test.want {
			t.Errorf("%s %.40s with the token %q: %q, want %q", test.method, test.target, test.token, got, test.want)
		}
	}
}

func TestLivez(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(web.Livez())
	t.Cleanup(server.Close)
	a := ask(t, "GET", server.URL+"/livez")
	if a.code != 200 || a.body != "ok\n" || a.header.Get("Content-Type") != "text/plain; charset=utf-8" {
		t.Errorf("got %d %q as %q", a.code, a.body, a.header.Get("Content-Type"))
	}
}

func TestOnly(t *testing.T) {
	t.Parallel()
	h := web.Only("/metrics", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "next") }))
	for _, test := range []struct {
		method, path string
		status       int
		body, allow  string
	}{
		{"GET", "/metrics", 200, "next", ""},
		{"GET", "/metrics/", 404, "not found\n", ""},
		{"GET", "/", 404, "not found\n", ""},
		{"POST", "/", 404, "not found\n", ""},
		{"POST", "/metrics", 405, "use GET or HEAD\n", "GET, HEAD"},
	} {
		recorder := httptest.NewRecorder()
		h.ServeHTTP(recorder, httptest.NewRequest(test.method, test.path, nil))
		header := recorder.Header()
		if recorder.Code != test.status || recorder.Body.String() != test.body || header.Get("Allow") != test.allow {
			t.Errorf("%s %s: %d %q, headers %v", test.method, test.path, recorder.Code, recorder.Body, header)
		}
		if header.Get("Cache-Control") != "no-store" || header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s %s: headers %v", test.method, test.path, header)
		}
	}
}

func TestRefuse(t *testing.T) {
	t.Parallel()
	recorder := httptest.NewRecorder()
	web.Refuse(recorder, httptest.NewRequest("GET", "/", nil), http.StatusInternalServerError, "a reason")
	header := recorder.Header()
	if recorder.Code != 500 || recorder.Body.String() != "a reason\n" || header.Get("Cache-Control") != "no-store" || header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("%d %q, headers %v", recorder.Code, recorder.Body, header)
	}
}

// Several upstreams answer together: the worst verdict decides, and each tells its upstream.
func TestSeveralUpstreams(t *testing.T) {
	t.Parallel()
	ends := time.Now().Add(40*24*time.Hour + time.Hour)
	var mu sync.Mutex
	var asked []string
	up := func(name string, status health.Status, o asker.Upstream) *asker.Upstream {
		o.Name = name
		o.Check = func(_ context.Context, service string) health.Verdict {
			mu.Lock()
			defer mu.Unlock()
			asked = append(asked, name+"/"+service)
			return health.Verdict{Status: status}
		}
		o.List = func(context.Context) []health.Verdict { return []health.Verdict{{Service: name, Status: status}} }
		return &o
	}
	handler := func(upstreams ...*asker.Upstream) http.Handler {
		fleet := asker.NewFleet(upstreams, true, time.Now())
		return web.New(web.Options{Asker: asker.New(asker.Options{Fleet: func(context.Context) *asker.Fleet { return fleet }})})
	}
	open := handler(
		up("a", health.Serving, asker.Upstream{Group: "g"}),
		up("b", health.NotServing, asker.Upstream{Group: "g", CertificateEnds: func() time.Time { return ends.Add(time.Hour * 240) }}),
		up("c", health.Serving, asker.Upstream{CertificateEnds: func() time.Time { return ends }}),
	)
	configured := handler(
		up("a", health.Serving, asker.Upstream{Services: []string{"x", "y"}}),
		up("b", health.Serving, asker.Upstream{Services: []string{"x"}}),
	)
	var many []*asker.Upstream
	for i := range 101 {
		many = append(many, up(fmt.Sprintf("t%d", i), health.Serving, asker.Upstream{Group: "all"}))
	}
	crowd := handler(many...)
	one := newHandler(options{Check: says(health.Serving)})
	for _, test := range []struct {
		h        http.Handler
		target   string
		code     int
		contains string
		asked    string
	}{
		{open, "/", 503, "a SERVING\nb NOT_SERVING\nc SERVING\n", "a/ b/ c/"},
		{open, "/?service=s", 503, "a s SERVING\nb s NOT_SERVING\nc s SERVING\n", "a/s b/s c/s"},
		{open, "/?list", 503, "a a SERVING\nb b NOT_SERVING\nc c SERVING\n", ""},
		{open, "/?format=html", 503, ">40 days left<", "a/ b/ c/"},
		{open, "/?format=json", 503, `{"target":"b","service":"","status":"NOT_SERVING"`, "a/ b/ c/"},
		{open, "/?target=c&target=a&target=c", 200, "c SERVING\na SERVING\n", "a/ c/"},
		{open, "/?target=b&service=s", 503, "b s NOT_SERVING\n", "b/s"},
		{open, "/?target=b&list", 503, "b b NOT_SERVING\n", ""},
		{open, "/?group=g", 503, "a SERVING\nb NOT_SERVING\n", "a/ b/"},
		{open, "/?group=g&target=a&target=c", 503, "a SERVING\nc SERVING\nb NOT_SERVING\n", "a/ b/ c/"},
		{open, "/?target=d", 404, "a target or group was asked for that is not there", ""},
		{open, "/?target=a&target=A", 404, "not there", ""},
		{open, "/?group=a", 404, "not there", ""},
		{open, "/?target=default", 404, "not there", ""},
		{open, "/?target=", 400, "target is empty", ""},
		{open, "/?group=&target=a", 400, "group is empty", ""},
		{open, "/?" + strings.Repeat("target=a&", 101), 400, "more than 100 targets", ""},
		{configured, "/", 200, "a x SERVING\na y SERVING\nb x SERVING\n", "a/x a/y b/x"},
		{configured, "/?service=x", 200, "a x SERVING\nb x SERVING\n", "a/x b/x"},
		{configured, "/?service=y", 404, "not offered", ""},
		{configured, "/?service=y&target=a", 200, "a y SERVING\n", "a/y"},
		{configured, "/?list", 404, "not offered", ""},
		{crowd, "/", 400, "there are more than 100 targets", ""},
		{crowd, "/?group=all", 400, "there are more than 100 targets", ""},
		{crowd, "/?target=t7", 200, "t7 SERVING\n", "t7/"},
		{one, "/?target=default", 200, "SERVING\n", ""},
		{one, "/?target=default&service=s", 200, "s SERVING\n", ""},
		{one, "/?target=x", 404, "not there", ""},
		{one, "/?group=x", 404, "not there", ""},
	} {
		asked = nil
		recorder := httptest.NewRecorder()
		test.h.ServeHTTP(recorder, httptest.NewRequest("GET", test.target, nil))
		slices.Sort(asked)
		if recorder.Code != test.code || !strings.Contains(recorder.Body.String(), test.contains) || strings.Join(asked, " ") != test.asked {
			t.Errorf("%s: %d %q, asked %q; want %d with %q, asked %q", test.target, recorder.Code, recorder.Body, asked, test.code, test.contains, test.asked)
		}
	}
}
