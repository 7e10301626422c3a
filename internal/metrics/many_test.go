package metrics_test

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/internal/memory"
	"example.com/grpc-health-http/internal/metrics"
)

// many has the metrics of so many targets, each of which has had a verdict or two.
func many(n int) *metrics.Metrics {
	m := metrics.New(prometheus.NewRegistry(), metrics.Options{Targets: true})
	for i := range n {
		u := m.NewUpstream(metrics.UpstreamOptions{Target: fmt.Sprintf("target-%04d", i), Address: fmt.Sprintf("service-%04d.namespace.svc:50051", i)})
		u.Trace().PeerCertificate(&x509.Certificate{NotAfter: time.Unix(1800000000, 0)})
		u.Observe(health.Verdict{Status: health.Serving, Asked: true, At: time.Unix(1, 0)})
		if i%10 == 0 {
			u.Observe(health.Verdict{Status: health.Timeout, At: time.Unix(2, 0)})
		}
	}
	return m
}

// BenchmarkScrape is of a thousand targets. What it allocates bounds what a scrape takes.
func BenchmarkScrape(b *testing.B) {
	for _, n := range []int{0, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			h := many(n).ExpositionHandler()
			b.ReportAllocs()
			var bytes int
			for b.Loop() {
				w := httptest.NewRecorder()
				w.Body = nil
				c := &counting{ResponseRecorder: w}
				h.ServeHTTP(c, httptest.NewRequest("GET", "/metrics", nil))
				bytes = c.n
			}
			b.ReportMetric(float64(bytes), "body-bytes")
		})
	}
}

type counting struct {
	*httptest.ResponseRecorder
	n int
}

func (c *counting) Write(p []byte) (int, error) { c.n += len(p); return io.Discard.Write(p) }

// TestTargetsAreSmall: between scrapes a target costs less than a kilobyte.
func TestTargetsAreSmall(t *testing.T) { // not parallel: it measures the heap
	const targets = 1000
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var s runtime.MemStats
		runtime.ReadMemStats(&s)
		return s.HeapAlloc
	}
	before := heap()
	m := many(targets)
	each := int(heap()-before) / targets
	runtime.KeepAlive(m)
	t.Logf("%d bytes for each target", each)
	if each > 1024 {
		t.Errorf("a target takes %d bytes", each)
	}
}

// TestSamples: what a scrape is charged for is what it has, and hardly more.
func TestSamples(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, 1000} {
		m := many(n)
		has := strings.Count(scrape(t, process{Metrics: m}, ""), `target="target-`)
		if samples := m.Samples(); samples < has || samples > 3*has {
			t.Errorf("%d targets: %d samples, and at most %d were announced", n, has, samples)
		}
	}
}

// A target has counters of the usual verdicts before the first of them, so that increase() sees it, and few other series; when it is gone it has none.
func TestSeriesOfTargets(t *testing.T) {
	t.Parallel()
	m := metrics.New(prometheus.NewRegistry(), metrics.Options{Targets: true})
	a := m.NewUpstream(metrics.UpstreamOptions{Target: "a", Address: "a.test:1", Services: []string{"s"}})
	b := m.NewUpstream(metrics.UpstreamOptions{Target: "b", Address: "b.test:1", Services: []string{"s", "t"}})
	p := process{Metrics: m}
	verdicts := func(name string) []string {
		return slices.DeleteFunc(samples(t, p, name), func(s string) bool { return !strings.Contains(s, `target="a"`) })
	}
	want := func(name string, want ...string) {
		t.Helper()
		if got := verdicts(name); !slices.Equal(got, want) {
			t.Errorf("%s:\ngot  %q\nwant %q", name, got, want)
		}
	}
	counter := func(status string, n int) string {
		return fmt.Sprintf(`{service_name="s",status=%q,target="a"} %d`, status, n)
	}
	want("grpc_health_check_verdicts_total", counter("CONNECTION_FAILED", 0), counter("NOT_SERVING", 0), counter("SERVING", 0), counter("TIMEOUT", 0))
	want("grpc_health_check_up")
	at := time.Unix(1700000000, 0)
	a.Observe(health.Verdict{Service: "s", Status: health.Serving, Asked: true, At: at})
	want("grpc_health_check_status", counter("SERVING", 1))
	a.Observe(health.Verdict{Service: "s", Status: health.RPCFailed, Asked: true, At: at.Add(time.Second)})
	want("grpc_health_check_verdicts_total", counter("CONNECTION_FAILED", 0), counter("NOT_SERVING", 0), counter("RPC_FAILED", 1), counter("SERVING", 1), counter("TIMEOUT", 0))
	want("grpc_health_check_status", counter("RPC_FAILED", 1), counter("SERVING", 0))
	want("grpc_health_check_up", `{service_name="s",target="a"} 0`)
	want("grpc_health_check_upstream_info", `{target="a",upstream="a.test:1"} 1`)
	a.Trace().PeerCertificate(&x509.Certificate{NotAfter: at})
	a.ClientCertificateExpires(at)
	want("grpc_health_check_certificate_expiry_timestamp_seconds", `{role="client",target="a"} 1.7e+09`, `{role="upstream",target="a"} 1.7e+09`)
	wantSamples(t, p, "grpc_health_check_targets", "2")
	a.Gone()
	if text := scrape(t, p, ""); strings.Contains(text, `target="a"`) || !strings.Contains(text, `target="b"`) {
		t.Error("a target that is gone has series, or another one has none")
	}
	wantSamples(t, p, "grpc_health_check_targets", "1")
	a.Observe(health.Verdict{Service: "s", Status: health.Serving, At: at}) // of a check that was in progress
	b.Gone()
	m.TargetsReloaded(nil)
	m.TargetsReloaded(errors.New("torn"))
	wantSamples(t, p, "grpc_health_check_targets_reloads_total", `{result="error"} 1`, `{result="ok"} 1`)
}

// What a scrape of many takes is what it is charged for (memory.Scrape, memory.Sample).
func TestScrapeTakesWhatItIsChargedFor(t *testing.T) { // not parallel: it counts what is allocated
	m := many(1000)
	h := m.ExpositionHandler()
	took := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			h.ServeHTTP(&counting{ResponseRecorder: httptest.NewRecorder()}, httptest.NewRequest("GET", "/metrics", nil))
		}
	}).AllocedBytesPerOp()
	if charged := memory.Scrape + memory.Sample*int64(m.Samples()); took > charged {
		t.Errorf("a scrape allocates %d bytes, and is charged %d", took, charged)
	}
}
