package main

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"example.com/grpc-health-http/internal/app"
	"example.com/grpc-health-http/internal/settings"
	"example.com/grpc-health-http/test/healthtest"
)

// lockedBuffer keeps what several goroutines write, as a file does.
type lockedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

// take returns what was written since the last take.
func (b *lockedBuffer) take() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer b.text.Reset()
	return b.text.String()
}

// FuzzEvent sends whatever may come to a function with a real upstream, which quotes what it was sent. The
// recorded events, which are of every kind, are where it begins. There is always a result, it is of one of
// the forms, it is an answer of the contract, and it has no secret; nothing panics.
func FuzzEvent(f *testing.F) {
	recorded, err := filepath.Glob(filepath.Join("testdata", "events", "*.json"))
	if err != nil || len(recorded) == 0 {
		f.Fatalf("no recorded events: %v", err)
	}
	for _, path := range recorded {
		payload, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(payload)
	}
	for _, seed := range []string{
		"", "null", "[]", `"up"`, "{}", `{"service":"a"}`, `{"service":null}`, `{"service":"\ud800"}`, `{"SERVICE":"a"}`,
		`{"source":"aws.events"}`, `{"source":["aws.events"]}`,
		`{"version":"2.0","rawPath":"%","rawQueryString":"service=%zz;&&=","headers":{"":"","\n":"\u0000"},"requestContext":{"http":{"method":"\n"}},"body":"=","isBase64Encoded":true}`,
		`{"requestContext":{"http":null},"rawPath":{}}`,
		`{"httpMethod":"GET","path":"//","multiValueHeaders":{"Accept":null,"Authorization":["Basic #","Bearer"]},"multiValueQueryStringParameters":{"format":["json","html"],"service":[]}}`,
		`{"httpMethod":"HEAD","requestContext":{"elb":0},"queryStringParameters":{"service":"a&list#"},"headers":{"accept":"text/html"}}`,
		`{"method":"GET","raw_path":"/?format=json&%zz","headers":{"a":["b"]},"query_string_parameters":{"a":7}}`,
		`{"method":"GET","path":"//%","requestContext":{"serviceArn":1},"headers":{"":[]},"queryStringParameters":{"service":["",null],"format":"html"},"body":null}`,
		`{"type":"REQUEST","routeArn":"a","requestContext":{"http":{"method":"GET"}}}`,
		`{"httpMethod":7,"requestContext":[],"queryStringParameters":{"format":"text"}}`,
	} {
		f.Add([]byte(seed))
	}

	const secret = "s3cret-of-the-upstream"
	up := healthtest.Start(f)
	up.HandleUnknown(func(ctx context.Context, name string) (*healthpb.HealthCheckResponse, error) {
		if len(name)%2 == 0 {
			return &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_ServingStatus(len(name) / 2 % 5)}, nil
		}
		md, _ := metadata.FromIncomingContext(ctx)
		return nil, status.Errorf(codes.Code(1+len(name)%16), "%s: %v", name, md)
	})
	var log, metrics lockedBuffer
	logger := slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	s := &settings.Settings{Upstream: settings.Upstream{Addr: up.Addr(), Headers: []settings.Header{{Name: "x-key", Value: secret}}}, Process: settings.Process{AllowList: true}}
	a, err := app.New(s, app.Platform{Logger: logger, Observe: func(t *settings.Target) app.Observer {
		return app.Observer{Verdict: newMetrics(&metrics, "health", t).observe}
	}})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(a.Close)
	function := &function{logger: logger, http: a.Handler, direct: a.Open, settle: func(context.Context) {}, budget: func() time.Duration { return 0 }, close: a.Close}
	legal := []int{200, 400, 404, 405, 503}

	f.Fuzz(func(t *testing.T, payload []byte) {
		result, err := function.Invoke(t.Context(), payload)
		logged, measured := log.take(), metrics.take()
		if err != nil || strings.Contains(logged, `"msg":"panic"`) {
			t.Fatalf("%v\n%s", err, logged)
		}
		var form struct {
			StatusCode        int
			Headers           map[string]string
			MultiValueHeaders http.Header
			Status            string
			Error             string
		}
		if err := json.Unmarshal(result, &form); err != nil {
			t.Fatalf("%s: %v", result, err)
		}
		kinds := 0
		for _, is := range []bool{form.StatusCode != 0, form.Status != "", form.Error != ""} {
			if is {
				kinds++
			}
		}
		if kinds != 1 {
			t.Fatalf("result %s", result)
		}
		if form.StatusCode != 0 {
			header := form.MultiValueHeaders
			if header == nil {
				header = make(http.Header)
				for name, value := range form.Headers {
					header.Set(name, value)
				}
			}
			if !slices.Contains(legal, form.StatusCode) || header.Get("Cache-Control") != "no-store" || header.Get("X-Content-Type-Options") != "nosniff" {
				t.Fatalf("result %s", result)
			}
		}
		for line := range strings.Lines(measured) {
			if !json.Valid([]byte(line)) {
				t.Fatalf("metrics %s", line)
			}
		}
		if printed := string(result) + logged + measured; strings.Contains(printed, secret) && !bytes.Contains(payload, []byte(secret)) {
			t.Fatalf("a secret is printed: %s", printed)
		}
	})
}
