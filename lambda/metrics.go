package main

import (
	"encoding/json"
	"io"
	"strings"
	"time"

	"example.com/grpc-health-http/internal/bounded"
	"example.com/grpc-health-http/internal/health"
)

// namespace is where CloudWatch keeps the metrics.
const namespace = "GrpcHealth"

// wholeServer is the dimension's value for the whole server, because CloudWatch takes no empty one.
const wholeServer = "(server)"

// metrics writes a line of CloudWatch's embedded metric format for each verdict
// (https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html).
// Each distinct service is billed as metrics of its own, so there is a bound.
type metrics struct {
	w        io.Writer
	services *bounded.Services[string]
}

func newMetrics(w io.Writer, configured []string) *metrics {
	return &metrics{w: w, services: bounded.New(configured, dimension)}
}

// line is one line: what to make metrics of, and their values.
type line struct {
	AWS     directive `json:"_aws"`
	Service string
	Up      *int    `json:",omitempty"` // 1 or 0
	Latency float64 // milliseconds
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
		Service: m.services.Find(v),
		Latency: float64(v.Duration) / float64(time.Millisecond),
	}
	set := metricSet{Namespace: namespace, Dimensions: [][]string{{"Service"}}, Metrics: []metric{{"Latency", "Milliseconds"}}}
	if v.Status != health.Overloaded {
		l.Up = new(int)
		if v.Status == health.Serving {
			*l.Up = 1
		}
		set.Metrics = append(set.Metrics, metric{"Up", "None"})
	}
	l.AWS = directive{Timestamp: v.At.UnixMilli(), CloudWatchMetrics: []metricSet{set}}
	text, err := json.Marshal(l)
	if err != nil {
		panic(err) // strings and finite numbers have a JSON form
	}
	// One write for the whole line, because invocations may run side by side. Nobody could be told of a failure.
	_, _ = m.w.Write(append(text, '\n'))
}

// dimension makes a dimension's value of a service's name: CloudWatch takes printable ASCII only.
func dimension(name string) string {
	if name == "" {
		return wholeServer
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, name)
}
