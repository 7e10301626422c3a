// Package metrics counts and times checks for Prometheus. The names are those that dashboards of
// earlier health proxies use, and further ones of the same prefix. Metrics has the series of the process, Upstream those that
// tell how one upstream is.
package metrics

import (
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc/codes"

	"example.com/grpc-health-http/internal/bounded"
	"example.com/grpc-health-http/internal/health"
)

// Options are what the metrics tell of the process that they belong to.
type Options struct {
	// Version, Commit and GoVersion describe the build.
	Version, Commit, GoVersion string
	// Targets says that there are many upstreams, each with a name: the series about them have the label target.
	Targets bool
	// CheckInterval is how often everything is checked although nobody asks; 0 where it is not.
	CheckInterval time.Duration
	// SettingsHash changes when the settings do. It must tell nothing of a secret: whoever may scrape can read it.
	SettingsHash float64
}

// Metrics holds the collectors of the process. Its methods may be called from many goroutines.
type Metrics struct {
	registry  *prometheus.Registry
	requests  *prometheus.HistogramVec
	durations *prometheus.HistogramVec   // of checks
	codes     *prometheus.CounterVec     // verdicts by code
	timings   *bounded.Services[*timing] // where there are targets: one for all of them
	upstreams *upstreams
	newSeries func(name string) *series // seriesOf, which each upstream would make anew
	rejected  counters
	rpcs      counters
	shared    prometheus.Counter
	trace     health.Trace // counts for all upstreams; made once, for its functions take memory
	dials     counters
	retries   counters
	listener  *prometheus.GaugeVec // the end of its certificate
	reloads   counters
	files     counters // readings of a targets file
}

// New registers the collectors, those of the Go runtime and the process included. It panics where
// the registry holds a collector of the same name already.
func New(registry *prometheus.Registry, o Options) *Metrics {
	results := []string{"ok"}
	for _, p := range health.Phases() {
		if p != health.PhaseRPC { // no dial ends there
			results = append(results, string(p))
		}
	}
	m := &Metrics{
		registry: registry,
		requests: prometheus.NewHistogramVec(histogram("grpc_health_check_seconds",
			"Time to answer an HTTP request, by the configured path and the answer's status."), []string{"path", "code"}),
		durations: prometheus.NewHistogramVec(histogram("grpc_health_check_service_duration_seconds",
			"Time from the start of a check to its verdict, by service."), []string{serviceLabel}),
		codes: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "grpc_health_check_service_requests",
			Help: "Verdicts given, by serving status (or gRPC code, where the RPC was not OK) and service."},
			[]string{"code", serviceLabel}),
		rejected: newCounters("grpc_health_check_rejected_total",
			"Requests and TLS handshakes that were refused without a check, by reason.", "reason", other, rejections),
		rpcs: newCounters("grpc_health_check_rpcs_total",
			"RPCs made to the upstream, by gRPC code.", "code", codes.Unknown.String(), codeNames()),
		shared: prometheus.NewCounter(prometheus.CounterOpts{Name: "grpc_health_check_shared_total",
			Help: "Requests that were answered by an RPC of another request."}),
		dials: newCounters("grpc_health_check_dials_total",
			"Attempts to connect to the upstream, by result: ok, or the phase that they ended in.", "result", other,
			results),
		retries: newCounters("grpc_health_check_retries_total",
			"Further attempts within one check, by the reason for them.", "reason", other,
			[]string{"lost", "silent", "credentials", "frozen"}),
		listener: newExpiry("listener"),
		reloads: newCounters("grpc_health_check_certificate_reloads_total",
			"Readings of changed certificate files, by result.", "result", other, []string{"ok", "error"}),
		upstreams: newUpstreams(o.Targets),
	}
	m.newSeries = m.seriesOf
	m.trace = health.Trace{RPC: m.rpcs.inc, Dial: m.dials.inc, Retry: m.retries.inc, Shared: m.shared.Inc}
	if o.Targets {
		m.timings = bounded.New([]string{bounded.Other}, m.newTiming)
		m.files = newCounters("grpc_health_check_targets_reloads_total",
			"Readings of a changed targets file, by result.", "result", other, []string{"ok", "error"})
		registry.MustRegister(m.files.vec)
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{Name: "grpc_health_check_build_info",
		Help: "Always 1; the labels describe the build.",
		ConstLabels: prometheus.Labels{
			"version": valid(o.Version), "commit": valid(o.Commit), "goversion": valid(o.GoVersion),
		}})
	build.Set(1)
	hash := prometheus.NewGauge(prometheus.GaugeOpts{Name: "grpc_health_check_settings_hash",
		Help: "A number that changes when the settings do. The values of secrets have no part in it."})
	hash.Set(o.SettingsHash)
	interval := prometheus.NewGauge(prometheus.GaugeOpts{Name: "grpc_health_check_interval_seconds",
		Help: "How often everything that is configured is checked although nobody asks; 0 where it is not."})
	interval.Set(o.CheckInterval.Seconds())
	registry.MustRegister(m.requests, m.durations, m.codes, m.upstreams, m.rejected.vec, m.rpcs.vec, m.shared, m.dials.vec,
		m.retries.vec, m.listener, m.reloads.vec, build, hash, interval,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// ListenerCertificateExpires tells when the certificate that is shown to callers ends.
func (m *Metrics) ListenerCertificateExpires(notAfter time.Time) { set(m.listener, notAfter) }

// CertificateReloaded counts a reading of changed certificate files; err is why it failed.
func (m *Metrics) CertificateReloaded(err error) {
	if err != nil {
		m.reloads.inc("error")
		return
	}
	m.reloads.inc("ok")
}

// TargetsReloaded counts a reading of a changed targets file; err is why it is not used.
func (m *Metrics) TargetsReloaded(err error) {
	if err != nil {
		m.files.inc("error")
		return
	}
	m.files.inc("ok")
}

// rejections are the reasons for which a request or a handshake is refused.
var rejections = []string{"token", "client_certificate", "path", "method", "query", "service", "target", "overload"}

// Rejected counts a request or a handshake that was refused.
func (m *Metrics) Rejected(reason string) { m.rejected.inc(reason) }

// noStatus is the code of a request whose connection was cut off without an answer.
const noStatus = "none"

// Handler times the requests that next answers. path is the configured one: a label from
// requests would have no bound. The statuses have one, because next chooses them. The usual statuses are there from the start: a rate sees the
// first 503.
func (m *Metrics) Handler(path string, next http.Handler) http.Handler {
	return m.timed(path, next, true)
}

// GRPCHandler is Handler for a gRPC method, the status of which is 200 whatever its code. It has no series before its first request: most
// methods are never asked for.
func (m *Metrics) GRPCHandler(method string, next http.Handler) http.Handler {
	return m.timed(method, next, false)
}

// timed times the requests that next answers. fromStart says that the usual statuses have series before the first request.
func (m *Metrics) timed(path string, next http.Handler, fromStart bool) http.Handler {
	seconds := m.requests.MustCurryWith(prometheus.Labels{"path": valid(path)})
	usual := make(map[int]func() prometheus.Observer) // looking these up hashes no labels
	for _, code := range []int{http.StatusOK, http.StatusServiceUnavailable} {
		usual[code] = sync.OnceValue(func() prometheus.Observer { return seconds.WithLabelValues(strconv.Itoa(code)) })
		if fromStart {
			usual[code]()
		}
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		a := &answer{ResponseWriter: w}
		finished := false
		defer func() {
			took := time.Since(began).Seconds()
			code := a.code
			if code == 0 && finished { // net/http answers 200 where the handler writes nothing
				code = http.StatusOK
			}
			switch observer := usual[code]; {
			case observer != nil:
				observer().Observe(took)
			case code != 0:
				seconds.WithLabelValues(strconv.Itoa(code)).Observe(took)
			default:
				seconds.WithLabelValues(noStatus).Observe(took)
			}
		}()
		next.ServeHTTP(a, r)
		finished = true
	})
}

// answer remembers the status of what is written through it.
type answer struct {
	http.ResponseWriter
	code int // 0 until a final one is written
}

func (a *answer) WriteHeader(code int) {
	if a.code == 0 && (code >= 200 || code == http.StatusSwitchingProtocols) {
		a.code = code
	}
	a.ResponseWriter.WriteHeader(code)
}

func (a *answer) Write(p []byte) (int, error) {
	if a.code == 0 {
		a.code = http.StatusOK
	}
	return a.ResponseWriter.Write(p)
}

// Unwrap is for http.ResponseController.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// Samples is how many samples about upstreams an exposition has, at most.
func (m *Metrics) Samples() int { return m.upstreams.samples() }

// ExpositionHandler serves the registry to Prometheus in the format that it asks for.
func (m *Metrics) ExpositionHandler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{EnableOpenMetrics: true})
}

// histogram has both classic buckets, the default ones and finer ones below them (an RPC over a
// reused connection takes less than the lowest default), and native buckets at most 10 % wide.
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

// other is the label value of all that have none of their own.
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
