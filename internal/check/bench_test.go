package check

import (
	"context"
	"crypto/tls"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc/credentials"

	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/test/healthtest"
)

// BenchmarkDial makes a connection for each check, as checks do that come no more often than connections may serve. What the server
// does and allocates is counted too.
func BenchmarkDial(b *testing.B) {
	ca := healthtest.NewCA(b)
	secured := credentials.NewTLS(&tls.Config{RootCAs: ca.Pool(), ServerName: "localhost"})
	for _, test := range []struct {
		name    string
		server  []healthtest.Option
		options []func(*Options)
	}{
		{"plain", nil, nil},
		{"TLS", []healthtest.Option{healthtest.TLS(ca.ServerTLS(b))}, []func(*Options){func(o *Options) {
			o.Credentials = func(context.Context, bool) (credentials.TransportCredentials, error) { return secured, nil }
		}}},
	} {
		b.Run(test.name, func(b *testing.B) {
			up := healthtest.Start(b, test.server...)
			up.SetStatus("s", serving)
			c := checker(b, up.Target(), append(test.options, services("s"), func(o *Options) { o.MaxAge = 0 })...)
			b.ReportAllocs()
			for b.Loop() {
				want(b, c.Check(b.Context(), "s"), health.Serving, health.PhaseNone)
			}
		})
	}
}

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
