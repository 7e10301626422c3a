package metrics

import (
	"crypto/x509"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
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
	process         *Metrics
	target, address string

	// Names come from callers: only the configured ones and those that the upstream has acknowledged get series of their own.
	services *bounded.Services[*series]
	// The ends of the upstream's certificate, and of the one that is shown to it, as Unix time; 0 before one was seen.
	certificate, client atomic.Int64
}

// UpstreamOptions describe an upstream.
type UpstreamOptions struct {
	// Target is its name; empty where there is one upstream only.
	Target string
	// Address is what it is called where people read of it: its address as it was configured, without a password.
	Address string
	// Services are those that are configured; empty is the whole server alone.
	Services []string
}

// NewUpstream adds the series of an upstream.
func (m *Metrics) NewUpstream(o UpstreamOptions) *Upstream {
	u := &Upstream{process: m, target: valid(o.Target), address: valid(o.Address), services: bounded.New(o.Services, m.newSeries)}
	if !m.upstreams.named {
		u.services.Others() // it has series from the start
	}
	m.upstreams.add(u)
	return u
}

// Gone takes the upstream's series away.
func (u *Upstream) Gone() { u.process.upstreams.remove(u) }

// newExpiry returns the gauge of the certificate in a role. It has no series before it is set.
func newExpiry(role string) *prometheus.GaugeVec {
	return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: expiryName, Help: expiryHelp, ConstLabels: prometheus.Labels{"role": role}}, nil)
}

func set(expiry *prometheus.GaugeVec, notAfter time.Time) {
	expiry.WithLabelValues().Set(float64(notAfter.Unix()))
}

// Trace returns the functions that count what the upstream's checker does; Verdict is left nil.
func (u *Upstream) Trace() health.Trace {
	t := u.process.trace
	t.PeerCertificate = func(leaf *x509.Certificate) { u.certificate.Store(leaf.NotAfter.Unix()) }
	return t
}

// ClientCertificateExpires tells when the certificate that is shown to the upstream ends.
func (u *Upstream) ClientCertificateExpires(notAfter time.Time) { u.client.Store(notAfter.Unix()) }

// Observe counts and times one verdict that a caller is about to get.
func (u *Upstream) Observe(v health.Verdict) {
	series := u.services.Find(v)
	timing := series.timing
	if timing == nil {
		timing = u.process.timings.Find(v)
	}
	timing.duration().Observe(v.Duration.Seconds())
	timing.code(outcome(v)).Inc()
	// Without a check nothing new is known about the service. The names that share a series have no state in common: one
	// caller's typo would set it to down.
	series.observe(v, v.Status != health.Overloaded && !u.services.IsOthers(series))
}

// series is what the metrics know of one service.
type series struct {
	name   string
	timing *timing // nil where all upstreams share theirs

	mu       sync.Mutex
	verdicts [statuses]uint64
	known    bool      // there was a verdict
	status   uint8     // of the latest verdict, a health.Status
	at       time.Time // of the latest verdict
}

// statuses is how many there are.
const statuses = int(health.Overloaded) + 1

// seriesOf makes the series of a service.
func (m *Metrics) seriesOf(name string) *series {
	s := &series{name: valid(name)}
	if m.timings == nil {
		s.timing = m.newTiming(name)
	}
	return s
}

// observe counts a verdict. It is kept as the latest, unless the one that is kept is later.
func (s *series) observe(v health.Verdict, latest bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := int(v.Status); i >= 0 && i < statuses {
		s.verdicts[i]++
	}
	if latest && !v.At.Before(s.at) {
		s.known, s.status, s.at = true, uint8(v.Status), v.At
	}
}

// samples is how many samples there are about a service of a named upstream at most.
func (s *series) samples() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 2 + len(usual) + 1 // the status SERVING
	for _, count := range s.verdicts {
		if count > 0 {
			n += 2
		}
	}
	return n
}

// timing has the histogram and the counters by code of a service. They are kept, because looking them up hashes labels.
type timing struct {
	duration func() prometheus.Observer // made when it is first needed
	newCode  func(code string) prometheus.Counter

	mu    sync.RWMutex
	codes map[string]prometheus.Counter
}

func (m *Metrics) newTiming(name string) *timing {
	name = valid(name)
	return &timing{
		duration: sync.OnceValue(func() prometheus.Observer { return m.durations.WithLabelValues(name) }),
		newCode:  func(code string) prometheus.Counter { return m.codes.WithLabelValues(code, name) },
		codes:    make(map[string]prometheus.Counter),
	}
}

// upstreams makes the series of all upstreams when they are scraped, from what is known then: a thousand targets cost little between
// scrapes. All of a service's are of the same verdict, and a service without one has none, because a gauge that nobody has set would read 0, "down".
type upstreams struct {
	named                                                bool
	info, up, lastCheck, status, verdicts, expiry, count *prometheus.Desc

	mu  sync.Mutex
	all []*Upstream
}

const (
	expiryName = "grpc_health_check_certificate_expiry_timestamp_seconds"
	expiryHelp = "End of the validity of the certificate last seen in each role, as Unix time."
)

func newUpstreams(named bool) *upstreams {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		if named {
			labels = append([]string{"target"}, labels...)
		}
		return prometheus.NewDesc(name, help, labels, nil)
	}
	u := &upstreams{
		named:     named,
		info:      desc("grpc_health_check_upstream_info", "Always 1; the label is the upstream as it was configured.", "upstream"),
		up:        desc("grpc_health_check_up", "1 where the latest verdict about the service was SERVING, else 0.", serviceLabel),
		lastCheck: desc("grpc_health_check_last_check_timestamp_seconds", "When the latest verdict about the service was reached, as Unix time.", serviceLabel),
		status:    desc("grpc_health_check_status", "1 for the status of the latest verdict about the service, 0 for the others.", serviceLabel, statusLabel),
		verdicts:  desc("grpc_health_check_verdicts_total", "Verdicts given, by service and status.", serviceLabel, statusLabel),
		expiry:    desc(expiryName, expiryHelp, "role"),
	}
	if named {
		u.count = prometheus.NewDesc("grpc_health_check_targets", "How many targets there are.", nil, nil)
	}
	return u
}

func (u *upstreams) add(one *Upstream) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.all = append(u.all, one)
}

func (u *upstreams) remove(one *Upstream) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.all = slices.DeleteFunc(u.all, func(other *Upstream) bool { return other == one })
}

// Describe is of prometheus.Collector. It describes nothing: certificates have a series of the process too, without a target.
func (u *upstreams) Describe(chan<- *prometheus.Desc) {}

// Collect is of prometheus.Collector.
func (u *upstreams) Collect(metrics chan<- prometheus.Metric) {
	u.mu.Lock()
	all := slices.Clone(u.all)
	u.mu.Unlock()
	if u.named {
		metrics <- prometheus.MustNewConstMetric(u.count, prometheus.GaugeValue, float64(len(all)))
	}
	for _, one := range all {
		u.collect(metrics, one)
	}
}

// samplesOfOne and samplesOfService are how many samples there may be about an upstream, and in addition about each of its services.
var (
	samplesOfOne     = 1 + len(roles)
	samplesOfService = 2 + 2*statuses
)

// samples is how many samples there are at most.
func (u *upstreams) samples() (n int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, one := range u.all {
		all := one.services.All()
		n += samplesOfOne
		if !u.named {
			n += len(all) * samplesOfService
			continue
		}
		for _, s := range all { // few statuses have a sample
			n += s.samples()
		}
	}
	return n
}

func (u *upstreams) collect(metrics chan<- prometheus.Metric, one *Upstream) {
	target := make([]*dto.LabelPair, 0, 1)
	if u.named {
		target = append(target, pair("target", one.target))
	}
	// The labels are in the order of their names, or the registry would copy and sort them: role, service_name and status are before target, upstream is behind it.
	send := func(desc *prometheus.Desc, kind prometheus.ValueType, value float64, before ...*dto.LabelPair) {
		metrics <- &sample{desc: desc, kind: kind, value: value, labels: append(before, target...)}
	}
	metrics <- &sample{desc: u.info, kind: prometheus.GaugeValue, value: 1, labels: append(target[:len(target):len(target)], pair("upstream", one.address))}
	for i, ends := range [...]int64{one.certificate.Load(), one.client.Load()} {
		if ends != 0 {
			send(u.expiry, prometheus.GaugeValue, float64(ends), roles[i])
		}
	}
	for _, s := range one.services.All() {
		s.mu.Lock()
		verdicts, known, latest, at := s.verdicts, s.known, health.Status(s.status), s.at
		s.mu.Unlock()
		service := pair(serviceLabel, s.name)
		if known {
			send(u.up, prometheus.GaugeValue, number(latest == health.Serving), service)
			send(u.lastCheck, prometheus.GaugeValue, float64(at.UnixNano())/1e9, service)
		}
		for _, status := range health.Statuses() {
			occurred := verdicts[status] > 0
			if !u.named || occurred || slices.Contains(usual, status) {
				send(u.verdicts, prometheus.CounterValue, float64(verdicts[status]), service, statusPairs[status])
			}
			if known && (!u.named || occurred || status == health.Serving) {
				send(u.status, prometheus.GaugeValue, number(latest == status), service, statusPairs[status])
			}
		}
	}
}

// usual are the statuses of which every target has a counter from the start, so that a rate sees the first failure of the usual kinds. The others have one from their
// first verdict on: for a thousand targets that saves half of the series. One upstream without a name has all.
var usual = []health.Status{health.ConnectionFailed, health.Timeout, health.NotServing, health.Serving}

// roles and statusPairs are labels that all targets share.
var (
	roles       = [...]*dto.LabelPair{pair("role", "upstream"), pair("role", "client")}
	statusPairs = func() (pairs [statuses]*dto.LabelPair) {
		for _, status := range health.Statuses() {
			pairs[status] = pair(statusLabel, status.String())
		}
		return pairs
	}()
)

func pair(name, value string) *dto.LabelPair { return &dto.LabelPair{Name: &name, Value: &value} }

// sample is a prometheus.Metric that shares its labels with others: a constant one of the library takes three times as much.
type sample struct {
	desc   *prometheus.Desc
	kind   prometheus.ValueType // a counter's or a gauge's
	value  float64
	labels []*dto.LabelPair // sorted by name
}

// Desc is of prometheus.Metric.
func (s *sample) Desc() *prometheus.Desc { return s.desc }

// Write is of prometheus.Metric.
func (s *sample) Write(out *dto.Metric) error {
	out.Label = s.labels
	if s.kind == prometheus.CounterValue {
		out.Counter = &dto.Counter{Value: &s.value}
	} else {
		out.Gauge = &dto.Gauge{Value: &s.value}
	}
	return nil
}

// number is 1 for true and 0 for false.
func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// code returns the counter of an outcome, which is one of a closed set.
func (s *timing) code(code string) prometheus.Counter {
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
