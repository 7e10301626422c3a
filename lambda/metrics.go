package main

import (
	"cmp"
	"encoding/json"
	"io"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"example.com/grpc-health-http/internal/bounded"
	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/internal/settings"
)

// namespace is where CloudWatch keeps the metrics.
const namespace = "GrpcHealth"

// wholeServer is the dimension's value for the whole server, because CloudWatch takes no empty one.
const wholeServer = "(server)"

// unnamed is the dimension's value where the platform does not say the function's name.
const unnamed = "(unnamed)"

// metrics writes a line of CloudWatch's embedded metric format for each verdict
// (https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html).
// Each distinct service is billed as metrics of its own, so there is a bound.
type metrics struct {
	w        io.Writer
	function string // the function's name: another function's values never mix with this one's
	target   string // empty where there is one upstream only
	services *bounded.Services[string]

	mu   sync.Mutex
	ends map[string]time.Time // of certificates, as they were seen last, by whose they are
}

// newMetrics returns the metrics of a function, by its name, about a target.
func newMetrics(w io.Writer, function string, t *settings.Target) *metrics {
	configured := health.Configured(t.Services)
	return &metrics{w: w, function: cmp.Or(dimension(function), unnamed), target: t.Name, ends: make(map[string]time.Time),
		services: bounded.New(configured, func(name string) string {
			if name == "" {
				return wholeServer
			}
			if d := dimension(name); d != wholeServer || slices.Contains(configured, name) {
				return d
			}
			return bounded.Other // a caller's invention, which must not look like the whole server
		}),
	}
}

// certificateEnds tells when a certificate ends, and whose it is: "upstream" or "client".
func (m *metrics) certificateEnds(whose string, notAfter time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ends[whose] = notAfter
}

// earliest is the certificate that ends first; none where there is no TLS, or none was seen yet.
func (m *metrics) earliest() (whose string, notAfter time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for w, end := range m.ends {
		if whose == "" || end.Before(notAfter) {
			whose, notAfter = w, end
		}
	}
	return whose, notAfter
}

// line is one line: what to make metrics of, and their values.
type line struct {
	AWS                 directive `json:"_aws"`
	Function            string
	Target              string `json:",omitempty"`
	Service             string
	Up                  *int     `json:",omitempty"` // 1 or 0
	Latency             float64  // milliseconds
	CertificateDaysLeft *float64 `json:",omitempty"` // of the certificate that ends first; below 0 it has ended
	Certificate         string   `json:",omitempty"` // whose that is: no metric, but there to be searched for
}

type directive struct {
	Timestamp         int64 // milliseconds since 1970
	CloudWatchMetrics []metricSet
}

type metricSet struct {
	Namespace  string
	Dimensions [][]string
	Metrics    []metric
}

type metric struct{ Name, Unit string }

// observe writes the line of a verdict. A verdict without a check has no Up.
func (m *metrics) observe(v health.Verdict) {
	l := line{
		Function: m.function,
		Target:   m.target,
		Service:  m.services.Find(v),
		Latency:  float64(v.Duration) / float64(time.Millisecond),
	}
	dimensions := []string{"Function", "Service"}
	if m.target != "" {
		dimensions = []string{"Function", "Target", "Service"}
	}
	set := metricSet{Namespace: namespace, Dimensions: [][]string{dimensions}, Metrics: []metric{{"Latency", "Milliseconds"}}}
	if v.Status != health.Overloaded {
		l.Up = new(int)
		if v.Status == health.Serving {
			*l.Up = 1
		}
		set.Metrics = append(set.Metrics, metric{"Up", "None"})
	}
	if whose, end := m.earliest(); whose != "" {
		l.Certificate, l.CertificateDaysLeft = whose, new(math.Round(end.Sub(v.At).Hours()/24*1000)/1000)
		set.Metrics = append(set.Metrics, metric{"CertificateDaysLeft", "None"})
	}
	l.AWS = directive{Timestamp: v.At.UnixMilli(), CloudWatchMetrics: []metricSet{set}}
	text, err := json.Marshal(l)
	if err != nil {
		panic(err) // strings and finite numbers have a JSON form
	}
	// One write for the whole line, because invocations may run side by side. Nobody could be told of a failure.
	_, _ = m.w.Write(append(text, '\n'))
}

// dimension makes a dimension's value of a name: CloudWatch takes printable ASCII only, and not white space alone. It is empty for
// an empty name.
func dimension(name string) string {
	blank := strings.TrimSpace(name) == ""
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || blank {
			return '?'
		}
		return r
	}, name)
}
