package app

import (
	"bufio"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"example.com/grpc-health-http/internal/settings"
	"example.com/grpc-health-http/test/healthtest"
)

// Secrets of FuzzRequest.
const (
	callersToken  = "t0ken-of-the-callers"
	upstreamValue = "s3cret-of-the-upstream"
)

// discreetLog is a log that must not hold secrets.
type discreetLog struct {
	mu     sync.Mutex
	leaked string
}

func (l *discreetLog) Write(line []byte) (int, error) {
	if leaks(string(line)) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.leaked = string(line)
	}
	return len(line), nil
}

func leaks(text string) bool {
	return strings.Contains(text, callersToken) || strings.Contains(text, upstreamValue)
}

// FuzzRequest sends whatever a caller may send through the composed handler to a real upstream, which answers in every
// way and quotes what it was sent. No answer but those of the contract comes, no name is more than
// text in it, and neither it nor the log has a secret.
func FuzzRequest(f *testing.F) {
	up := healthtest.Start(f)
	answers := []struct {
		status healthpb.HealthCheckResponse_ServingStatus
		code   codes.Code
	}{
		{status: healthpb.HealthCheckResponse_SERVING}, {status: healthpb.HealthCheckResponse_NOT_SERVING}, {status: 77},
		{code: codes.NotFound}, {code: codes.Internal}, {code: codes.Unimplemented},
	}
	up.HandleUnknown(func(ctx context.Context, name string) (*healthpb.HealthCheckResponse, error) {
		a := answers[len(name)%len(answers)]
		if a.code == codes.OK {
			return &healthpb.HealthCheckResponse{Status: a.status}, nil
		}
		md, _ := metadata.FromIncomingContext(ctx)
		return nil, status.Errorf(a.code, "%s: %v", name, md)
	})
	up.SetStatus("</title><script>", healthpb.HealthCheckResponse_NOT_SERVING) // for the list
	file := filepath.Join(f.TempDir(), "token")
	if err := os.WriteFile(file, []byte(callersToken), 0o600); err != nil {
		f.Fatal(err)
	}
	log := &discreetLog{}
	handler := func(s settings.Settings, path string) http.Handler {
		s.Addr, s.Headers = up.Addr(), []settings.Header{{Name: "x-key", Value: upstreamValue}}
		a, err := New(&s, Platform{Logger: slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})), Path: path})
		if err != nil {
			f.Fatal(err)
		}
		f.Cleanup(a.Close)
		return a.Handler
	}
	handlers := []http.Handler{
		handler(settings.Settings{Process: settings.Process{AllowList: true}}, ""),
		handler(settings.Settings{Upstream: settings.Upstream{Services: []string{"a", "<b>"}}, Process: settings.Process{AuthTokenFile: file}}, "/health"),
	}

	f.Add("GET", "/", "")
	f.Add("HEAD", "/?service=a&serviceName=bb&service=ccc&service=dddd&service=eeeee&service=ffffff", "Accept: application/json;q=0.5, text/*")
	f.Add("GET", "/?service=%3Cscript%3Ealert(1)%3C/script%3E&service=%22%3E%3Cimg%20src=x%3E&format=html", "")
	f.Add("GET", "/health?service=%3Cb%3E&format=html", "Authorization: Bearer "+callersToken)
	f.Add("GET", "/health?format=json", "Authorization: Basic YTp0MGtlbi1vZi10aGUtY2FsbGVycw==\nAccept: */*")
	f.Add("GET", "/health", "Authorization: Basic YTp0MGtlbi1vZi10aGUtY2FsbGVy\nauthorization: bearer \x80")
	f.Add("GET", "/?list&format=html", "Accept: ,;q=2,text/html;q=\"")
	f.Add("GET", "/?list=&service=x", "Accept: text/html\nAccept: application/json;q=1.001")
	f.Add("GET", "/?service=%00&service=%e2%80%a8&service=%ff", "")
	f.Add("GET", "/?&&=;%&format=HTML", "")
	f.Add("POST", "//favicon.ico", "Content-Length: 10\nX-Http-Method-Override: GET")
	f.Add("OPTIONS", "*", "Transfer-Encoding: chunked")
	f.Add("CONNECT", "elsewhere.example:443", "")
	f.Add("GET", "http://elsewhere.example/robots.txt", "Host: a\nHost: b")
	// What is part of the page whatever is asked for is no reflection.
	plain := httptest.NewRecorder()
	handlers[0].ServeHTTP(plain, httptest.NewRequest(http.MethodGet, "/?service=plain&format=html", nil))
	legal := []int{200, 400, 401, 404, 405, 503}

	f.Fuzz(func(t *testing.T, method, target, headers string) {
		raw := method + " " + target + " HTTP/1.1\r\nHost: test\r\n"
		for line := range strings.SplitSeq(headers, "\n") {
			raw += line + "\r\n"
		}
		for _, h := range handlers {
			r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(raw + "\r\n")))
			if err != nil {
				return // net/http answers it
			}
			secret := leaks(r.URL.String()) // the caller's own question
			recorder := httptest.NewRecorder()
			h.ServeHTTP(recorder, r.WithContext(t.Context()))
			header, body := recorder.Header(), recorder.Body.String()
			if !slices.Contains(legal, recorder.Code) {
				t.Fatalf("status %d", recorder.Code)
			}
			if header.Get("Cache-Control") != "no-store" || header.Get("X-Content-Type-Options") != "nosniff" {
				t.Fatalf("headers %v", header)
			}
			verdict := header.Get("Grpc-Health-Status")
			if (recorder.Code == 200) != (verdict == "SERVING") || recorder.Code == 503 && verdict == "" {
				t.Fatalf("status %d for %q", recorder.Code, verdict)
			}
			for name, values := range header {
				if strings.ContainsAny(name+strings.Join(values, ""), "\r\n\x00") {
					t.Fatalf("header %q: %q", name, values)
				}
			}
			if !secret && leaks(body) {
				t.Fatalf("the answer has a secret: %s", body)
			}
			names := asked(r)
			switch kind, _, _ := strings.Cut(header.Get("Content-Type"), ";"); {
			case body == "" && r.Method == http.MethodHead:
			case kind == "application/json":
				if !json.Valid([]byte(body)) {
					t.Fatalf("no JSON: %s", body)
				}
			case kind == "text/html":
				for _, name := range names {
					if strings.ContainsAny(name, `<>"'&`) && strings.Contains(body, name) && !strings.Contains(plain.Body.String(), name) {
						t.Fatalf("%q is in the page as it was sent:\n%s", name, body)
					}
				}
			case kind == "text/plain":
				if lines := strings.Count(body, "\n"); lines > max(len(names), 3) {
					t.Fatalf("%d lines about %q:\n%s", lines, names, body)
				}
			default:
				t.Fatalf("content type %q", kind)
			}
		}
		log.mu.Lock()
		defer log.mu.Unlock()
		if log.leaked != "" && !leaks(method+target+headers) {
			t.Fatalf("the log has a secret: %s", log.leaked)
		}
		log.leaked = ""
	})
}

// asked are the services that a request names.
func asked(r *http.Request) []string {
	query := r.URL.Query()
	return append(query["service"], query["serviceName"]...)
}
