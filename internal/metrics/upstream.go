package metrics

import (
	"crypto/x509"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"

	"example.com/grpc-health-http/internal/bounded"
	"example.com/grpc-health-http/internal/health"
)

const serviceLabel = "service_name"

// Upstream has the series that tell how one upstream is, and counts what is done to it. Its methods may be called from many
// goroutines.
type Upstream struct {
	process     *Metrics
	up          *prometheus.GaugeVec
	lastCheck   *prometheus.GaugeVec
	certificate *prometheus.GaugeVec // the end of the upstream's
	client      *prometheus.GaugeVec // the end of the one shown to it

	// Names come from callers: only the configured ones and those that the upstream has acknowledged get series of their own.
	services *bounded.Services[*series]
}

// NewUpstream registers the series of an upstream with the configured services; empty is the whole server alone. It panics for a
// second upstream: nothing tells their series apart yet.
func (m *Metrics) NewUpstream(services []string) *Upstream {
	u := &Upstream{
		process: m,
		up: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "grpc_health_check_up",
			Help: "1 where the latest verdict about the service was SERVING, else 0."}, []string{serviceLabel}),
		lastCheck: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "grpc_health_check_last_check_timestamp_seconds",
			Help: "When the latest verdict about the service was reached, as Unix time."}, []string{serviceLabel}),
		certificate: newExpiry("upstream"),
		client:      newExpiry("client"),
	}
	u.services = bounded.New(services, u.newSeries)
	m.registry.MustRegister(u.up, u.lastCheck, u.certificate, u.client)
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
	series.request(outcome(v)).Inc()
	// Without a check nothing new is known about the service. The names that share a series have no state in common: one
	// caller's typo would set it to down.
	if v.Status != health.Overloaded && series != u.services.Others() {
		series.latest(v)
	}
}

// series are one service's metrics. Each is made when it is first needed (a gauge that
// nobody has set would read 0, "down") and then kept, because looking it up hashes labels.
type series struct {
	duration  func() prometheus.Observer
	up        func() prometheus.Gauge
	lastCheck func() prometheus.Gauge

	newRequest func(code string) prometheus.Counter
	mu         sync.RWMutex
	requests   map[string]prometheus.Counter

	latestMu sync.Mutex
	latestAt time.Time
}

func (u *Upstream) newSeries(name string) *series {
	name = valid(name)
	return &series{
		duration:   sync.OnceValue(func() prometheus.Observer { return u.process.durations.WithLabelValues(name) }),
		up:         sync.OnceValue(func() prometheus.Gauge { return u.up.WithLabelValues(name) }),
		lastCheck:  sync.OnceValue(func() prometheus.Gauge { return u.lastCheck.WithLabelValues(name) }),
		newRequest: func(code string) prometheus.Counter { return u.process.verdicts.WithLabelValues(code, name) },
		requests:   make(map[string]prometheus.Counter),
	}
}

// latest sets the gauges, unless a later verdict has set them already.
func (s *series) latest(v health.Verdict) {
	s.latestMu.Lock()
	defer s.latestMu.Unlock()
	if v.At.Before(s.latestAt) {
		return
	}
	s.latestAt = v.At
	var up float64
	if v.Status == health.Serving {
		up = 1
	}
	s.up().Set(up)
	s.lastCheck().Set(float64(v.At.UnixNano()) / 1e9)
}

// request returns the counter of an outcome, which is one of a closed set.
func (s *series) request(code string) prometheus.Counter {
	s.mu.RLock()
	c, ok := s.requests[code]
	s.mu.RUnlock()
	if ok {
		return c
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c = s.newRequest(code)
	s.requests[code] = c
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
