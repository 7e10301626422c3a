package web_test

import (
	"context"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/html"

	"example.com/grpc-health-http/internal/health"
)

// FuzzRequest sends whatever a caller may send: the answer has a status of the contract, the
// headers that every answer has, and a page of our own elements alone.
func FuzzRequest(f *testing.F) {
	f.Add("/", "", "", "")
	f.Add("/", "service=a&serviceName=b&format=json", "*/*", "Bearer t")
	f.Add("/x", "service=%3Cscript%3E&format=html", "text/html", "Basic OnQ=")
	f.Add("/favicon.ico", "list", "text/html;q=0.5,application/json;q=0.4", "")
	f.Add("/", "service=%zz;x", `text/html;p="a,b`, "Bearer")
	f.Add("/", "service=%00&service=&list=1", ",,;q=,*/*;q=1.0000", "basic ####")
	f.Add("", "&&=&%3d", "text/html, */*;q=0.1", "\x00")

	find := func(_ context.Context, service string) health.Verdict {
		all := health.Statuses()
		s := all[len(service)%len(all)]
		return health.Verdict{Status: s, EvidenceID: evidenceOf(s)}
	}
	open := newHandler(options{Check: find, List: func(context.Context) []health.Verdict {
		return []health.Verdict{{Status: health.Serving}, {Service: "</title>\n<b>", Status: health.NotServing}}
	}})
	closed := newHandler(options{Check: find, Services: []string{"a", "b"}, Path: "/",
		Authorize: func(_ context.Context, presented string) (bool, error) { return presented == "t", nil }})
	legal := []int{200, 400, 401, 404, 503}
	page := shapeOf(f, recorded(open, "/?format=html").Body.String())
	wrong := httptest.NewRequest(http.MethodGet, "/?format=none", nil)
	wrong.Header.Set("Accept", "text/html")
	recorder := httptest.NewRecorder()
	open.ServeHTTP(recorder, wrong)
	refusal := shapeOf(f, recorder.Body.String())

	f.Fuzz(func(t *testing.T, path, query, accept, authorization string) {
		for _, h := range []http.Handler{open, closed} {
			r := &http.Request{
				Method: http.MethodGet,
				URL:    &url.URL{Path: path, RawQuery: query},
				Header: http.Header{"Accept": {accept}, "Authorization": {authorization}},
			}
			recorder := httptest.NewRecorder()
			h.ServeHTTP(recorder, r.WithContext(t.Context()))
			header, body := recorder.Header(), recorder.Body.String()
			if !slices.Contains(legal, recorder.Code) {
				t.Fatalf("status %d", recorder.Code)
			}
			if header.Get("Cache-Control") != "no-store" || header.Get("X-Content-Type-Options") != "nosniff" {
				t.Fatalf("headers %v", header)
			}
			status := header.Get("Grpc-Health-Status")
			if (recorder.Code == 200) != (status == "SERVING") {
				t.Fatalf("status %d for %q", recorder.Code, status)
			}
			if !strings.HasPrefix(header.Get("Content-Type"), "text/html") {
				continue
			}
			if header.Get("Content-Security-Policy") == "" {
				t.Fatal("a page without Content-Security-Policy")
			}
			// The services' rows are the only part that grows with the answer, and the one row that the
			// script makes others of has all that a row can have.
			want := page
			if status == "" {
				want = refusal
			}
			if got := shapeOf(t, body); !slices.Equal(got, want) {
				t.Fatalf("the page is made of\n%q, and ought to be of\n%q", got, want)
			}
		}
	})
}

// shapeOf lists what a page is made of, each once: the elements with their attributes, and all that is a
// script, a style or a place to go to in full, apart from the query of the links to the same answer.
func shapeOf(t testing.TB, page string) []string {
	t.Helper()
	seen := make(map[string]bool)
	inside := ""
	for tokens := html.NewTokenizer(strings.NewReader(page)); ; {
		kind := tokens.Next()
		if kind == html.ErrorToken {
			break
		}
		token := tokens.Token()
		switch kind {
		case html.StartTagToken, html.SelfClosingTagToken:
			inside = token.Data
			shape := token.Data
			for _, a := range token.Attr {
				switch {
				case token.Data == "a" && a.Key == "href" && (strings.HasPrefix(a.Val, "?") || a.Val == "/" || strings.HasPrefix(a.Val, "/?")):
				case token.Data == "use" && a.Key == "href" && strings.HasPrefix(a.Val, "#"):
				case token.Data == "link" && a.Key == "href" && strings.HasPrefix(a.Val, "data:image/svg+xml,"):
				case slices.Contains([]string{"hidden", "class", "data-whole", "data-many", "data-narrowed"}, a.Key): // come and go with what there is to show
					continue
				case a.Key == "href", strings.HasPrefix(a.Key, "on"), a.Key == "style", a.Key == "src":
					t.Fatalf("%v is not of the page:\n%s", token, page)
				}
				shape += " " + a.Key
			}
			seen[shape] = true
		case html.EndTagToken:
			inside = ""
		case html.CommentToken:
			t.Fatalf("comment %v is not of the page:\n%s", token, page)
		case html.TextToken:
			if inside == "script" || inside == "style" {
				seen[token.Data] = true
			}
		}
	}
	return slices.DeleteFunc(slices.Sorted(maps.Keys(seen)), func(shape string) bool {
		return shape == "time datetime" || shape == "span" || shape == "br" || shape == "bdi" // come and go, too
	})
}

func recorded(h http.Handler, target string) *httptest.ResponseRecorder {
	recorder := httptest.NewRecorder()
	h.ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, target, nil))
	return recorder
}
