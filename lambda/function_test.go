package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"example.com/grpc-health-http/internal/asker"
	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/internal/settings"
	"example.com/grpc-health-http/internal/web"
)

// quiet is a function over a handler, without a log.
func quiet(handler http.Handler) *function {
	return &function{logger: slog.New(slog.DiscardHandler), http: handler, direct: handler, settle: func(context.Context) {}, budget: func() time.Duration { return 0 }}
}

// TestRequest checks what an event becomes before the handler sees it.
func TestRequest(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ payload, method, uri, path, host, body, header string }{
		"payload 2.0": {
			`{"rawPath":"/a%2Fb","rawQueryString":"x=%41&x=;","headers":{"host":"h","x-a":"1,2"},"requestContext":{"http":{"method":"PUT"}},"body":"AP8=","isBase64Encoded":true}`,
			"PUT", "/a%2Fb?x=%41&x=;", "/a/b", "h", "\x00\xff", "1,2",
		},
		"payload 1.0": {
			`{"httpMethod":"PUT","path":"/a","multiValueHeaders":{"Host":["h"],"X-A":["1","2"]},"headers":{"X-A":"2"},"multiValueQueryStringParameters":{"y":["%","&"],"x":["ü"]},"queryStringParameters":{"y":"&"},"body":"text"}`,
			"PUT", "/a?x=%C3%BC&y=%25&y=%26", "/a", "h", "text", "1,2",
		},
		"payload 1.0 with single values": {
			`{"httpMethod":"PUT","path":"/a","headers":{"Host":"h","X-A":"1,2"},"queryStringParameters":{"y":"&","x":""},"body":"text"}`,
			"PUT", "/a?x=&y=%26", "/a", "h", "text", "1,2",
		},
		"load balancer": {
			`{"requestContext":{"elb":{}},"httpMethod":"PUT","path":"/%C3%BC","headers":{"host":"h","x-a":"1,2"},"queryStringParameters":{"y":"%26","x":"%zz"},"body":"dGV4dA==","isBase64Encoded":true}`,
			"PUT", "/%C3%BC?x=%zz&y=%26", "/ü", "h", "text", "1,2",
		},
		"load balancer with multiple values": {
			`{"requestContext":{"elb":{}},"httpMethod":"PUT","path":"/","multiValueHeaders":{"host":["h"],"x-a":["1","2"]},"multiValueQueryStringParameters":{"y":["%26","b"]},"body":""}`,
			"PUT", "/?y=%26&y=b", "/", "h", "", "1,2",
		},
		"VPC Lattice 2.0": {
			`{"version":"2.0","method":"PUT","path":"/a%2Fb","headers":{"HOST":["h"],"X-a":["1","2"]},"queryStringParameters":{"y":["%","&"],"x":["ü"]},"requestContext":{"serviceArn":"a"},"body":"AP8=","isBase64Encoded":true}`,
			"PUT", "/a%2Fb?x=%C3%BC&y=%25&y=%26", "/a/b", "h", "\x00\xff", "1,2",
		},
		"VPC Lattice 2.0 with single values": {
			`{"version":"2.0","method":"PUT","path":"/a","headers":{"host":"h","x-a":"1,2"},"queryStringParameters":{"y":"&","x":""},"requestContext":{"targetGroupArn":"a"},"body":null}`,
			"PUT", "/a?x=&y=%26", "/a", "h", "", "1,2",
		},
		"VPC Lattice 2.0 with the query in its path": {
			`{"version":"2.0","method":"PUT","path":"/a?y=%26&y=2","headers":{"host":["h"],"x-a":["1"]},"queryStringParameters":{"y":["2"]},"requestContext":{"serviceNetworkArn":"a"}}`,
			"PUT", "/a?y=%26&y=2", "/a", "h", "", "1",
		},
		"VPC Lattice 1.0": {
			`{"raw_path":"/a%2Fb?x=%41&x=;&y","method":"PUT","headers":{"Host":"h","x-A":"1,2"},"query_string_parameters":{"x":";"},"body":"dGV4dA==","is_base64_encoded":true}`,
			"PUT", "/a%2Fb?x=%41&x=;&y", "/a/b", "h", "text", "1,2",
		},
		"VPC Lattice 1.0 with lists, and the query beside its path": {
			`{"raw_path":"/a","method":"PUT","headers":{"host":["h"],"x-a":["1","2"]},"query_string_parameters":{"y":["a b","&"]},"body":"text","is_base64_encoded":false}`,
			"PUT", "/a?y=a+b&y=%26", "/a", "h", "text", "1,2",
		},
		"VPC Lattice without headers": {
			`{"raw_path":"/a?","method":"PUT"}`,
			"PUT", "/a", "/a", "", "", "",
		},
	} {
		var got *http.Request
		var body []byte
		f := quiet(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			got = r
			body, _ = io.ReadAll(r.Body)
		}))
		if _, err := f.Invoke(t.Context(), []byte(test.payload)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got == nil {
			t.Errorf("%s: no request", name)
			continue
		}
		if got.Method != test.method || got.URL.RequestURI() != test.uri || got.URL.Path != test.path || got.Host != test.host {
			t.Errorf("%s: %s %s, path %q, host %q", name, got.Method, got.URL.RequestURI(), got.URL.Path, got.Host)
		}
		if string(body) != test.body || strings.Join(got.Header["X-A"], ",") != test.header {
			t.Errorf("%s: body %q, header %q", name, body, got.Header["X-A"])
		}
	}
}

// TestMethodAndQueryOfEvents: HAProxy's OPTIONS, and parameters that are not ours, are answered in every form of event.
func TestMethodAndQueryOfEvents(t *testing.T) {
	t.Parallel()
	f := quiet(web.New(web.Options{Asker: asker.New(asker.Options{Fleet: asker.One(&asker.Upstream{Check: func(context.Context, string) health.Verdict {
		return health.Verdict{Status: health.Serving}
	}})})}))
	const (
		payload2 = `{"version":"2.0","rawPath":"/","rawQueryString":%q,"requestContext":{"http":{"method":%q}}}`
		single   = `{"requestContext":%s,"httpMethod":%q,"path":"/","queryStringParameters":{%q:%q}}`
		multi    = `{"requestContext":%s,"httpMethod":%q,"path":"/","multiValueHeaders":{},"multiValueQueryStringParameters":{%q:[%q]}}`
	)
	for _, tt := range []struct {
		key, value string
		want       float64
	}{
		{"cb", "100%", 200}, {"cb", "a;b", 200}, {"%zz", "1", 200}, {"a;service", "%", 200}, {"service", "echo", 200}, {"format", "xml", 400}, {"list", "", 404},
	} {
		for _, method := range []string{"GET", "OPTIONS"} {
			for _, event := range []string{
				fmt.Sprintf(payload2, tt.key+"="+tt.value, method),
				fmt.Sprintf(single, `{}`, method, tt.key, tt.value), fmt.Sprintf(multi, `{}`, method, tt.key, tt.value),
				fmt.Sprintf(single, `{"elb":{}}`, method, tt.key, tt.value), fmt.Sprintf(multi, `{"elb":{}}`, method, tt.key, tt.value),
			} {
				result, err := f.Invoke(t.Context(), []byte(event))
				if err != nil {
					t.Fatal(err)
				}
				var got struct {
					StatusCode        float64             `json:"statusCode"`
					Body              string              `json:"body"`
					Headers           map[string]string   `json:"headers"`
					MultiValueHeaders map[string][]string `json:"multiValueHeaders"`
				}
				if err := json.Unmarshal(result, &got); err != nil {
					t.Fatal(err)
				}
				if got.StatusCode != tt.want {
					t.Errorf("%s: %s, want %v", event, result, tt.want)
				}
				allow := got.Headers["Allow"] + strings.Join(got.MultiValueHeaders["Allow"], "")
				if tt.want == 200 && (method == "OPTIONS") != (allow == "GET, HEAD, OPTIONS" && got.Body == "") {
					t.Errorf("%s: %s", event, result)
				}
			}
		}
	}
}

func TestDeadline(t *testing.T) {
	t.Parallel()
	var got time.Time
	f := quiet(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got, _ = r.Context().Deadline() }))
	deadline := time.Now().Add(time.Minute)
	ctx, cancel := context.WithDeadline(t.Context(), deadline)
	defer cancel()
	f.Invoke(ctx, []byte("{}"))
	if deadline.Sub(got) != 200*time.Millisecond {
		t.Errorf("the handler has until %v before the deadline", deadline.Sub(got))
	}
}

func TestPanic(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	f := quiet(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"status":"SERV`)
		panic("the cause")
	}))
	f.logger = slog.New(slog.NewJSONHandler(&log, nil))
	for payload, want := range map[string]string{
		`{"requestContext":{"http":{"method":"GET"}}}`:     `"statusCode":500,`,
		`{"httpMethod":"GET"}`:                             `"statusCode":500,`,
		`{"httpMethod":"GET","requestContext":{"elb":{}}}`: `"statusDescription":"500 Internal Server Error"`,
		`{"method":"GET","raw_path":"/"}`:                  `"statusDescription":"500 Internal Server Error"`,
		`{"service":"a"}`:                                  `{"error":"the health check failed inside: its log says how"}`,
		`{"source":"aws.events"}`:                          `{"error":"the health check failed inside: its log says how"}`,
	} {
		log.Reset()
		result, err := f.Invoke(t.Context(), []byte(payload))
		if err != nil || !strings.Contains(string(result), want) || strings.Contains(string(result), "SERV") || strings.Contains(string(result), "the cause") {
			t.Errorf("%s: %s, %v", payload, result, err)
		}
		if !strings.Contains(log.String(), `"cause":"the cause","stack":"`) {
			t.Errorf("%s: log %s", payload, log.String())
		}
	}
}

func TestDimension(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{"": "", "echo.EchoServer": "echo.EchoServer", "ü\n€~": "???~", "  ": "??", "\t": "?", "a b": "a b"} {
		if got := dimension(name); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}

// measure returns the lines of verdicts.
func measure(t *testing.T, m *metrics, w *bytes.Buffer, verdicts ...health.Verdict) []map[string]any {
	t.Helper()
	w.Reset()
	var lines []map[string]any
	for _, v := range verdicts {
		m.observe(v)
	}
	for text := range strings.Lines(w.String()) {
		var l map[string]any
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, l)
	}
	return lines
}

// target is a target with these configured services.
func target(services ...string) *settings.Target {
	return &settings.Target{Upstream: settings.Upstream{Services: services}}
}

// A name that a caller made up never looks like the whole server, whose values ring an alarm.
func TestMadeUpNamesInMetrics(t *testing.T) {
	t.Parallel()
	var w bytes.Buffer
	acknowledged := func(name string) health.Verdict {
		return health.Verdict{Service: name, Status: health.NotServing, Asked: true}
	}
	for _, test := range []struct {
		configured []string
		service    string
		want       string
	}{
		{nil, "", "(server)"}, {nil, "(server)", "other"}, {nil, "(server)\n", "other"}, {nil, "(server)é", "(server)?"}, {nil, "other", "other"}, {nil, " ", "?"},
		{[]string{"(server)"}, "(server)", "(server)"}, {[]string{"a"}, "a", "a"},
	} {
		lines := measure(t, newMetrics(&w, "health", target(test.configured...)), &w, acknowledged(test.service))
		if got := lines[0]["Service"]; got != test.want {
			t.Errorf("%q of %q: %v, want %s", test.service, test.configured, got, test.want)
		}
	}
	for function, want := range map[string]string{"health": "health", "": "(unnamed)", "backend_health-2": "backend_health-2"} {
		if got := measure(t, newMetrics(&w, function, target()), &w, acknowledged(""))[0]["Function"]; got != want {
			t.Errorf("%q: %v, want %s", function, got, want)
		}
	}
	// 1,000 names, all known to the upstream, are 100 dimensions, other, and not one line is long.
	m, services := newMetrics(&w, "health", target()), make(map[any]bool)
	for i := range 1000 {
		name := strings.Repeat("n", health.MaxNameLength-4) + strconv.Itoa(i)
		for _, l := range measure(t, m, &w, acknowledged(name)) {
			services[l["Service"]] = true
		}
		if w.Len() > 1024 {
			t.Fatalf("a line of %d bytes", w.Len())
		}
	}
	if len(services) != 101 || !services["other"] {
		t.Errorf("%d dimensions, want 101", len(services))
	}
}

func TestCertificateDaysLeft(t *testing.T) {
	t.Parallel()
	var w bytes.Buffer
	m := newMetrics(&w, "health", target())
	now := time.Unix(1795083330, 0)
	v := health.Verdict{Status: health.ConnectionFailed, Phase: health.PhaseTLS, At: now}
	for _, step := range []struct {
		whose string
		ends  time.Duration
		days  any
		of    any
	}{
		{"", 0, nil, nil}, // no TLS, or no certificate yet
		{"upstream", 20 * 24 * time.Hour, 20.0, "upstream"},
		{"client", 36 * time.Hour, 1.5, "client"},
		{"client", 90 * 24 * time.Hour, 20.0, "upstream"}, // renewed
		{"upstream", -48 * time.Hour, -2.0, "upstream"},   // which has ended
		{"upstream", 1e6 * time.Hour, 90.0, "client"},
	} {
		if step.whose != "" {
			m.certificateEnds(step.whose, now.Add(step.ends))
		}
		l := measure(t, m, &w, v)[0]
		if l["CertificateDaysLeft"] != step.days || l["Certificate"] != step.of {
			t.Errorf("%+v: %s", step, w.String())
		}
		if declared := strings.Contains(w.String(), `{"Name":"CertificateDaysLeft","Unit":"None"}`); declared != (step.days != nil) {
			t.Errorf("%+v: CloudWatch makes a metric of it: %t", step, declared)
		}
	}
}
