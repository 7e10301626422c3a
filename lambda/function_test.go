package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/internal/web"
)

// quiet is a function over a handler, without a log.
func quiet(handler http.Handler) *function {
	return &function{logger: slog.New(slog.DiscardHandler), http: handler, direct: handler, settle: func(context.Context) {}}
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
	f := quiet(web.New(web.Options{Upstreams: []web.Upstream{{Check: func(context.Context, string) health.Verdict {
		return health.Verdict{Status: health.Serving}
	}}}}))
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
	for name, want := range map[string]string{"": "(server)", "echo.EchoServer": "echo.EchoServer", "ü\n€~": "???~"} {
		if got := dimension(name); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}
