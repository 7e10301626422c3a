package check

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/test/healthtest"
)

// BenchmarkCheck asks one healthy upstream. What its server does and allocates is counted too.
func BenchmarkCheck(b *testing.B) {
	for _, callers := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			up := healthtest.Start(b)
			up.SetStatus("s", serving)
			c := checker(b, up.Target(), services("s"))
			want(b, c.Check(b.Context(), "s"), health.Serving, health.PhaseNone)
			before := up.RPCsFor("s")
			var begun atomic.Int64
			var all sync.WaitGroup
			b.ReportAllocs()
			b.ResetTimer()
			for range callers {
				all.Go(func() {
					for begun.Add(1) <= int64(b.N) {
						if v := c.Check(b.Context(), "s"); v.Status != health.Serving {
							b.Errorf("%v in phase %q: %v", v.Status, v.Phase, v.Err)
						}
					}
				})
			}
			all.Wait()
			b.ReportMetric(float64(up.RPCsFor("s")-before)/float64(b.N), "RPCs/op")
		})
	}
}
