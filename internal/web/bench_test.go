package web_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"example.com/grpc-health-http/internal/health"
)

// discard is a ResponseWriter that costs next to nothing.
type discard struct{ header http.Header }

func (d discard) Header() http.Header         { return d.header }
func (d discard) WriteHeader(int)             {}
func (d discard) Write(p []byte) (int, error) { return len(p), nil }

// What is allocated is a context that the caller's connection does not end. Not parallel: what other tests allocate would count.
func TestUsualRequestAllocatesNextToNothing(t *testing.T) {
	h := newHandler(options{Check: says(health.Serving)})
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
	w := discard{make(http.Header)}
	if n := testing.AllocsPerRun(100, func() { h.ServeHTTP(w, r) }); n > 1 {
		t.Errorf("the answer about the only service allocates %v times", n)
	}
}

// BenchmarkServeHTTP answers requests whose verdict is known: what it costs to read and to answer them.
func BenchmarkServeHTTP(b *testing.B) {
	for name, target := range map[string]string{
		"usual": "/", "service": "/?service=a", "services": "/?service=a&service=b", "json": "/?format=json", "html": "/?format=html",
	} {
		b.Run(name, func(b *testing.B) {
			h := newHandler(options{Check: says(health.Serving)})
			r := httptest.NewRequestWithContext(b.Context(), http.MethodGet, target, nil)
			w := discard{make(http.Header)}
			b.ReportAllocs()
			for b.Loop() {
				clear(w.header)
				h.ServeHTTP(w, r)
			}
		})
	}
}
