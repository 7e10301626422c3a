package metrics

import (
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"

	"example.com/grpc-health-http/internal/bounded"
	"example.com/grpc-health-http/internal/health"
)

// services are the metrics that have a service's name as label. Names come from callers: only the
// configured ones and those that the upstream has acknowledged get series of their own.
type services struct {
	durations *prometheus.HistogramVec
	requests  *prometheus.CounterVec
	up        *prometheus.GaugeVec
	lastCheck *prometheus.GaugeVec

	byName *bounded.Services[*series]
}

func newServices(configured []string) *services {
	const label = "service_name"
	s := &services{
		durations: prometheus.NewHistogramVec(histogram("grpc_health_check_service_duration_seconds",
			"Time from the start of a check to its verdict, by service."), []string{label}),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "grpc_health_check_service_requests",
			Help: "Verdicts given, by serving status (or gRPC code, where the RPC was not OK) and service."},
			[]string{"code", label}),
		up: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "grpc_health_check_up",
			Help: "1 where the latest verdict about the service was SERVING, else 0."}, []string{label}),
		lastCheck: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "grpc_health_check_last_check_timestamp_seconds",
			Help: "When the latest verdict about the service was reached, as Unix time."}, []string{label}),
	}
	s.byName = bounded.New(configured, s.newSeries)
	return s
}

// observe counts and times one verdict.
func (s *services) observe(v health.Verdict) {
	series := s.byName.Find(v)
	series.duration().Observe(v.Duration.Seconds())
	series.request(outcome(v)).Inc()
	// Without a check there is nothing new to say about the service.
	if v.Status == health.Overloaded {
		return
	}
	// Nor do other names together have a state: a visitor's typo would turn it to down.
	if series == s.byName.Others() {
		return
	}
	series.latest(v)
}

// series are one service's metrics. Each comes into being when it is first needed (a gauge that
// nobody has set would read 0, "down") and is then kept, for looking it up hashes labels.
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

func (s *services) newSeries(name string) *series {
	name = valid(name)
	return &series{
		duration:   sync.OnceValue(func() prometheus.Observer { return s.durations.WithLabelValues(name) }),
		up:         sync.OnceValue(func() prometheus.Gauge { return s.up.WithLabelValues(name) }),
		lastCheck:  sync.OnceValue(func() prometheus.Gauge { return s.lastCheck.WithLabelValues(name) }),
		newRequest: func(code string) prometheus.Counter { return s.requests.WithLabelValues(code, name) },
		requests:   make(map[string]prometheus.Counter),
	}
}

// latest sets the gauges, unless a later verdict was faster to come here.
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
