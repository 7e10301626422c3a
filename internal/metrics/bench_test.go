package metrics

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"example.com/grpc-health-http/internal/health"
)

// BenchmarkObserve counts and times verdicts, from as many goroutines as there are processors.
func BenchmarkObserve(b *testing.B) {
	m := New(prometheus.NewRegistry(), Options{}).NewUpstream(UpstreamOptions{Address: "u", Services: []string{"s"}})
	v := health.Verdict{Service: "s", Status: health.Serving, At: time.Now(), Duration: time.Millisecond}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			m.Observe(v)
		}
	})
}
