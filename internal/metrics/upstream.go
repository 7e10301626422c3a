package metrics

import (
	"crypto/x509"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"

	"example.com/grpc-health-http/internal/bounded"
	"example.com/grpc-health-http/internal/health"
)

const (
	serviceLabel = "service_name"
	statusLabel  = "status"
)

// Upstream has the series that tell how one upstream is, and counts what is done to it. Its methods may be called from many
// goroutines.
type Upstream struct {
	process     *Metrics
	certificate *prometheus.GaugeVec // the end of the upstream's
	client      *prometheus.GaugeVec // the end of the one shown to it

	// Names come from callers: only the configured ones and those that the upstream has acknowledged get series of their own.
	services *bounded.Services[*series]
	states   states
}

// NewUpstream registers the series of an upstream with the configured services; empty is the whole server alone. target is what
// the upstream is called where people read of it: its address as it was configured, without a password. It panics for a second
// upstream: nothing tells their series apart yet.
func (m *Metrics) NewUpstream(target string, services []string) *Upstream {
	u := &Upstream{process: m, certificate: newExpiry("upstream"), client: newExpiry("client")}
	info := prometheus.NewGauge(prometheus.GaugeOpts{Name: "grpc_health_check_upstream_info",
		Help:        "Always 1; the label is the upstream as it was configured.",
		ConstLabels: prometheus.Labels{"upstream": valid(target)}})
	info.Set(1)
	u.services = bounded.New(services, u.newSeries)
	m.registry.MustRegister(info, &u.states, u.certificate, u.client)
	return u
}

// newExpiry returns the gauge of the certificate in a role. It has no series before it is set.
func newExpiry(role string) *prometheus.GaugeVec {
	return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "grpc_health_check_certificate_expiry_timestamp_seconds",
		Help:        "End of the validity of the certificate last seen in each role, as Unix time.",
		ConstLabels: prometheus.Labels{"role": role}}, nil)
}

func set(expiry *prometheus.GaugeVec, notAfter time.Time) {
	expiry.WithLabelValues().Set(float64(notAfter.Unix()))
}

// Trace returns the functions that count what the upstream's checker does; Verdict is left nil.
func (u *Upstream) Trace() health.Trace {
	return health.Trace{
		RPC:             u.process.rpcs.inc,
		Dial:            u.process.dials.inc,
		Retry:           u.process.retries.inc,
		Shared:          u.process.shared.Inc,
		PeerCertificate: func(leaf *x509.Certificate) { set(u.certificate, leaf.NotAfter) },
	}
}

// ClientCertificateExpires tells when the certificate that is shown to the upstream ends.
func (u *Upstream) ClientCertificateExpires(notAfter time.Time) { set(u.client, notAfter) }

// Observe counts and times one verdict that a caller is about to get.
func (u *Upstream) Observe(v health.Verdict) {
	series := u.services.Find(v)
	series.duration().Observe(v.Duration.Seconds())
	series.code(outcome(v)).Inc()
	series.verdicts[v.Status].Inc()
	// Without a check nothing new is known about the service. The names that share a series have no state in common: one
	// caller's typo would set it to down.
	if v.Status != health.Overloaded && series != u.services.Others() {
		series.latest(v)
	}
}

// series are one service's metrics. They are kept, because looking them up hashes labels.
type series struct {
	name     string
	duration func() prometheus.Observer // made when it is first needed
	// verdicts has a counter for each status. All of them exist from the start, so that a rate sees the first failure.
	verdicts map[health.Status]prometheus.Counter

	newCode func(code string) prometheus.Counter
	mu      sync.RWMutex
	codes   map[string]prometheus.Counter

	stateMu sync.Mutex
	known   bool          // there was a verdict
	status  health.Status // of the latest verdict
	at      time.Time     // of the latest verdict
}

func (u *Upstream) newSeries(name string) *series {
	name = valid(name)
	s := &series{
		name:     name,
		duration: sync.OnceValue(func() prometheus.Observer { return u.process.durations.WithLabelValues(name) }),
		verdicts: make(map[health.Status]prometheus.Counter),
		newCode:  func(code string) prometheus.Counter { return u.process.codes.WithLabelValues(code, name) },
		codes:    make(map[string]prometheus.Counter),
	}
	for _, status := range health.Statuses() {
		s.verdicts[status] = u.process.verdicts.WithLabelValues(name, status.String())
	}
	u.states.add(s)
	return s
}

// latest keeps the verdict, unless a later one is there already.
func (s *series) latest(v health.Verdict) {
	s.stateMu.Lock()
	defer s.stateMu.Unlock()
	if v.At.Before(s.at) {
		return
	}
	s.known, s.status, s.at = true, v.Status, v.At
}

// state returns the latest verdict's status and time, and whether there was one.
func (s *series) state() (status health.Status, at time.Time, known bool) {
	s.stateMu.Lock()
	defer s.stateMu.Unlock()
	return s.status, s.at, s.known
}

// states makes the gauges of the services' latest verdicts when they are scraped: all of a service's are of the same verdict,
// and a service without one has none, because a gauge that nobody has set would read 0, "down".
type states struct {
	mu  sync.Mutex
	all []*series
}

func (s *states) add(one *series) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, one)
}

var (
	upDesc = prometheus.NewDesc("grpc_health_check_up",
		"1 where the latest verdict about the service was SERVING, else 0.", []string{serviceLabel}, nil)
	lastCheckDesc = prometheus.NewDesc("grpc_health_check_last_check_timestamp_seconds",
		"When the latest verdict about the service was reached, as Unix time.", []string{serviceLabel}, nil)
	statusDesc = prometheus.NewDesc("grpc_health_check_status",
		"1 for the status of the latest verdict about the service, 0 for the others.", []string{serviceLabel, statusLabel}, nil)
)

// Describe is of prometheus.Collector.
func (s *states) Describe(descs chan<- *prometheus.Desc) {
	descs <- upDesc
	descs <- lastCheckDesc
	descs <- statusDesc
}

// Collect is of prometheus.Collector.
func (s *states) Collect(metrics chan<- prometheus.Metric) {
	s.mu.Lock()
	all := slices.Clone(s.all)
	s.mu.Unlock()
	for _, one := range all {
		status, at, known := one.state()
		if !known {
			continue
		}
		gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
			metrics <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
		}
		gauge(upDesc, number(status == health.Serving), one.name)
		gauge(lastCheckDesc, float64(at.UnixNano())/1e9, one.name)
		for _, other := range health.Statuses() {
			gauge(statusDesc, number(status == other), one.name, other.String())
		}
	}
}

// number is 1 for true and 0 for false.
func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// code returns the counter of an outcome, which is one of a closed set.
func (s *series) code(code string) prometheus.Counter {
	s.mu.RLock()
	c, ok := s.codes[code]
	s.mu.RUnlock()
	if ok {
		return c
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c = s.newCode(code)
	s.codes[code] = c
	return c
}

// unaskedCodes are the gRPC codes that verdicts without an RPC are counted under.
var unaskedCodes = map[health.Status]codes.Code{
	health.ConnectionFailed: codes.Unavailable,
	health.Timeout:          codes.DeadlineExceeded,
	health.Overloaded:       codes.ResourceExhausted,
}

// outcome is the code that a verdict is counted under: the serving status where the RPC was OK,
// else the gRPC code as grpc-go prints it.
func outcome(v health.Verdict) string {
	switch {
	case v.Asked && v.Code == codes.OK:
		return v.Status.String()
	case v.Asked:
		return codeName(v.Code)
	}
	if code, ok := unaskedCodes[v.Status]; ok {
		return code.String()
	}
	return codes.Unknown.String()
}

// lastCode is the highest code that gRPC defines.
const lastCode = codes.Unauthenticated

// codeName keeps the label's values a closed set: a server can send any number as code.
func codeName(c codes.Code) string {
	if c > lastCode {
		c = codes.Unknown
	}
	return c.String()
}

// codeNames are the names of all codes that gRPC defines.
func codeNames() []string {
	var names []string
	for c := codes.OK; c <= lastCode; c++ {
		names = append(names, c.String())
	}
	return names
}

// valid makes a label's value of any text: Prometheus takes only UTF-8.
func valid(text string) string { return strings.ToValidUTF8(text, "\uFFFD") }
