// Package metrics counts and times checks for Prometheus. The names are those that dashboards of
// earlier health proxies use, and further ones of the same prefix.
package metrics

import (
	"crypto/x509"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc/codes"

	"example.com/grpc-health-http/internal/health"
)

// Options are what the metrics tell of the process that they belong to.
type Options struct {
	// Services are the configured names; empty configures the whole server alone.
	Services []string
	// Version, Commit and GoVersion describe the build.
	Version, Commit, GoVersion string
}

// Metrics holds the collectors. Its methods may be called from many goroutines.
type Metrics struct {
	registry *prometheus.Registry
	requests *prometheus.HistogramVec
	services *services
	rpcs     counters
	shared   prometheus.Counter
	dials    counters
	retries  counters
	expiry   *prometheus.GaugeVec
	reloads  counters
}

// New registers the collectors, those of the Go runtime and the process included. It panics where
// the registry holds a collector of the same name already.
func New(registry *prometheus.Registry, o Options) *Metrics {
	m := &Metrics{
		registry: registry,
		requests: prometheus.NewHistogramVec(histogram("grpc_health_check_seconds",
			"Time to answer an HTTP request, by the configured path."), []string{"path"}),
		services: newServices(o.Services),
		rpcs: newCounters("grpc_health_check_rpcs_total",
			"RPCs made to the upstream, by gRPC code.", "code", codes.Unknown.String(), codeNames()),
		shared: prometheus.NewCounter(prometheus.CounterOpts{Name: "grpc_health_check_shared_total",
			Help: "Requests that were answered by an RPC of another request."}),
		dials: newCounters("grpc_health_check_dials_total",
			"Attempts to connect to the upstream, by result: ok, or the phase that they ended in.", "result", other,
			[]string{"ok", string(health.PhaseDNS), string(health.PhaseConnect), string(health.PhaseTLS),
				string(health.PhaseHTTP2), string(health.PhaseCredentials)}),
		retries: newCounters("grpc_health_check_retries_total",
			"Further attempts within one check, by the reason for them.", "reason", other,
			[]string{"lost", "silent", "credentials", "frozen"}),
		expiry: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "grpc_health_check_certificate_expiry_timestamp_seconds",
			Help: "End of the validity of the certificate last seen in each role, as Unix time."}, []string{"role"}),
		reloads: newCounters("grpc_health_check_certificate_reloads_total",
			"Readings of changed certificate files, by result.", "result", other, []string{"ok", "error"}),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{Name: "grpc_health_check_build_info",
		Help: "Always 1; the labels describe the build.",
		ConstLabels: prometheus.Labels{
			"version": valid(o.Version), "commit": valid(o.Commit), "goversion": valid(o.GoVersion),
		}})
	build.Set(1)
	registry.MustRegister(m.requests, m.services.durations, m.services.requests, m.services.up, m.services.lastCheck,
		m.rpcs.vec, m.shared, m.dials.vec, m.retries.vec, m.expiry, m.reloads.vec, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Observe counts and times one verdict that a caller is about to get.
func (m *Metrics) Observe(v health.Verdict) { m.services.observe(v) }

// Trace returns the functions that count what a checker does; Verdict is left nil.
func (m *Metrics) Trace() health.Trace {
	return health.Trace{
		RPC:             m.rpcs.inc,
		Dial:            m.dials.inc,
		Retry:           m.retries.inc,
		Shared:          m.shared.Inc,
		PeerCertificate: func(leaf *x509.Certificate) { m.CertificateExpires(Upstream, leaf.NotAfter) },
	}
}

// Role is whose certificate it is.
type Role string

const (
	// Upstream is the certificate that the upstream shows.
	Upstream Role = "upstream"
	// Client is the one shown to the upstream.
	Client Role = "client"
	// Listener is the one shown to callers.
	Listener Role = "listener"
)

// CertificateExpires tells when a certificate in use ends.
func (m *Metrics) CertificateExpires(role Role, notAfter time.Time) {
	m.expiry.WithLabelValues(string(role)).Set(float64(notAfter.Unix()))
}

// CertificateReloaded counts a reading of changed certificate files; err is why it failed.
func (m *Metrics) CertificateReloaded(err error) {
	if err != nil {
		m.reloads.inc("error")
		return
	}
	m.reloads.inc("ok")
}

// Handler times the requests that next answers. path is the configured one: a label from
// requests would have no bound.
func (m *Metrics) Handler(path string, next http.Handler) http.Handler {
	seconds := m.requests.WithLabelValues(valid(path))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		defer func() { seconds.Observe(time.Since(began).Seconds()) }()
		next.ServeHTTP(w, r)
	})
}

// ExpositionHandler serves the registry to Prometheus in the format that it asks for.
func (m *Metrics) ExpositionHandler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{EnableOpenMetrics: true})
}

// histogram has both classic buckets, the default ones and finer ones below them (an RPC over a
// standing connection takes less than the lowest default), and native buckets at most 10 % wide.
func histogram(name, help string) prometheus.HistogramOpts {
	return prometheus.HistogramOpts{
		Name:                            name,
		Help:                            help,
		Buckets:                         append([]float64{.00025, .0005, .001, .0025}, prometheus.DefBuckets...),
		NativeHistogramBucketFactor:     1.1,
		NativeHistogramMaxBucketNumber:  160,
		NativeHistogramMinResetDuration: time.Hour,
	}
}

// other is the label value that stands for all that have none of their own.
const other = "other"

// counters are a counter for each value of a closed set. All of them exist from the start, so
// that a rate over them sees the first increase.
type counters struct {
	vec  *prometheus.CounterVec
	byID map[string]prometheus.Counter
	rest func() prometheus.Counter // exists from the first value that is not in the set
}

// newCounters makes a counter for each value, and counts all other values as rest.
func newCounters(name, help, label, rest string, values []string) counters {
	c := counters{
		vec:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label}),
		byID: make(map[string]prometheus.Counter, len(values)),
	}
	for _, v := range values {
		c.byID[v] = c.vec.WithLabelValues(v)
	}
	c.rest = sync.OnceValue(func() prometheus.Counter { return c.vec.WithLabelValues(rest) })
	return c
}

func (c counters) inc(value string) {
	if counter, ok := c.byID[value]; ok {
		counter.Inc()
		return
	}
	c.rest().Inc()
}
