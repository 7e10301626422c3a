package app

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/internal/settings"
	"example.com/grpc-health-http/test/healthtest"
)

func get(t *testing.T, h http.Handler, target, authorization string) *http.Response {
	t.Helper()
	server := httptest.NewServer(h)
	defer server.Close()
	request, err := http.NewRequest(http.MethodGet, server.URL+target, nil)
	if err != nil {
		t.Fatal(err)
	}
	if authorization != "" {
		request.Header.Set("Authorization", authorization)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	return response
}

func newApp(t *testing.T, s settings.Settings, p Platform) (*App, *bytes.Buffer) {
	t.Helper()
	log := new(bytes.Buffer)
	p.Logger = slog.New(slog.NewTextHandler(log, nil))
	a, err := New(&s, p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	return a, log
}

func TestListIsAllowedAndObserved(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	up.SetStatus("a", healthpb.HealthCheckResponse_NOT_SERVING)
	var seen []health.Verdict
	observe := func(v health.Verdict) { seen = append(seen, v) }
	a, _ := newApp(t, settings.Settings{Upstream: settings.Upstream{Addr: up.Addr()}, Process: settings.Process{AllowList: true}}, Platform{Observe: func(*settings.Target) Observer { return Observer{Verdict: observe} }})
	if r := get(t, a.Handler, "/?list", ""); r.StatusCode != 503 {
		t.Errorf("?list: %d", r.StatusCode)
	}
	if len(seen) != 2 {
		t.Errorf("observed %v, want the whole server and a", seen)
	}
	seen = nil
	if r := get(t, a.Handler, "/", ""); r.StatusCode != 200 || len(seen) != 1 {
		t.Errorf("/: %d, observed %v", r.StatusCode, seen)
	}
	a, _ = newApp(t, settings.Settings{Upstream: settings.Upstream{Addr: up.Addr()}}, Platform{})
	if r := get(t, a.Handler, "/?list", ""); r.StatusCode != 404 {
		t.Errorf("?list where it is not allowed: %d", r.StatusCode)
	}
}

// A List that fails says nothing of the whole server.
func TestFailedListIsNoVerdictOnTheServer(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t, healthtest.WithoutHealth())
	a, log := newApp(t, settings.Settings{Upstream: settings.Upstream{Addr: up.Addr()}, Process: settings.Process{AllowList: true}}, Platform{Observe: func(*settings.Target) Observer {
		return Observer{Verdict: func(v health.Verdict) { t.Errorf("observed %+v", v) }}
	}})
	if r := get(t, a.Handler, "/?list", ""); r.StatusCode != 503 {
		t.Errorf("?list: %d", r.StatusCode)
	}
	if !strings.Contains(log.String(), "list=true") {
		t.Errorf("log: %s", log)
	}
	list := a.Upstreams()[0].Checker.List(t.Context())
	if len(list) != 1 || !list[0].Since.IsZero() {
		t.Errorf("%+v", list)
	}
}

func TestTokenFile(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	file := filepath.Join(t.TempDir(), "token")
	a, log := newApp(t, settings.Settings{Upstream: settings.Upstream{Addr: up.Addr()}, Process: settings.Process{AuthTokenFile: file}}, Platform{})
	if r := get(t, a.Handler, "/", "Bearer whatever"); r.StatusCode != 503 {
		t.Errorf("without a file: %d", r.StatusCode)
	}
	if !strings.Contains(log.String(), "nobody is let in") || strings.Contains(log.String(), "whatever") {
		t.Errorf("log: %s", log)
	}
	if err := os.WriteFile(file, []byte("the-token\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := get(t, a.Handler, "/", "Bearer the-token"); r.StatusCode != 200 {
		t.Errorf("with the token: %d", r.StatusCode)
	}
	if r := get(t, a.Handler, "/", "Bearer another"); r.StatusCode != 401 || up.RPCs() != 1 {
		t.Errorf("with another: %d, and %d RPCs", r.StatusCode, up.RPCs())
	}
	if strings.Contains(log.String(), "the-token") {
		t.Error("the log shows the token")
	}
}

// A caller that sends the token in the wrong place does not bring it into the log: the one of now, and the one before.
func TestCallersTokenIsNotLogged(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("t0ken-of-callers\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	up := healthtest.Start(t)
	a, log := newApp(t, settings.Settings{Upstream: settings.Upstream{Addr: up.Addr()}, Process: settings.Process{AuthTokenFile: file}}, Platform{})
	if r := get(t, a.Handler, "/?service=t0ken-of-callers", "Bearer t0ken-of-callers"); r.StatusCode != 404 {
		t.Fatalf("status %d", r.StatusCode)
	}
	a.Logger.Warn("t0ken-of-callers", "cause", errors.New("t0ken-of-callers"))
	if strings.Contains(log.String(), "t0ken-of-callers") || strings.Count(log.String(), "(redacted)") < 3 {
		t.Errorf("the log: %s", log)
	}
}

func TestLoggersAreInert(t *testing.T) {
	t.Parallel()
	for _, format := range []string{"text", "json"} {
		var log bytes.Buffer
		NewLogger(&log, &settings.Settings{Process: settings.Process{LogFormat: format}}).Warn("a\u202e", "cause", errors.New("b\n\u2028"), "text", strings.Repeat("x", 1<<20))
		if text := strings.ReplaceAll(log.String(), `\\`, `\`); !strings.Contains(text, `a\u202e`) || !strings.Contains(text, `b\n\u2028`) || len(text) > 2<<10 {
			t.Errorf("%s: %.300s", format, text)
		}
	}
}

func TestWrongSettingsAreAnError(t *testing.T) {
	t.Parallel()
	for name, s := range map[string]settings.Settings{
		"empty port": {Upstream: settings.Upstream{Addr: "nowhere:"}},
		"inline PEM": {Upstream: settings.Upstream{Addr: "localhost:1", TLS: true, CACert: "-----BEGIN CERTIFICATE-----\nsecret\n-----END CERTIFICATE-----\n"}},
	} {
		_, err := New(&s, Platform{Logger: slog.New(slog.DiscardHandler)})
		if err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFallbackLogger(t *testing.T) {
	for format, start := range map[string]string{"": "{", "text": "time=", "wrong": "{"} {
		t.Setenv("GRPC_HEALTH_LOG_FORMAT", format)
		var out bytes.Buffer
		NewFallbackLogger(&out).Error("m")
		if !strings.HasPrefix(out.String(), start) {
			t.Errorf("GRPC_HEALTH_LOG_FORMAT %q: %s", format, out.String())
		}
	}
}

func TestCloudLogging(t *testing.T) {
	t.Setenv("K_SERVICE", "health")
	t.Setenv("GOOGLE_CLOUD_PROJECT", "p")
	var out bytes.Buffer
	logger := NewLogger(&out, &settings.Settings{Process: settings.Process{LogFormat: "json", LogLevel: "info"}})
	handler := WithCloudTrace(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		logger.WarnContext(r.Context(), "a message", "key", "value")
		logger.DebugContext(r.Context(), "too fine")
	}))
	const id = "0123456789abcdef0123456789ABCDEF"
	for header, want := range map[string]any{
		"X-Cloud-Trace-Context: " + id:                    "projects/p/traces/" + id,
		"X-Cloud-Trace-Context: " + id + "/12;o=1":        "projects/p/traces/" + id,
		"Traceparent: 00-" + id + "-0123456789abcdef-01":  "projects/p/traces/" + id,
		"Traceparent: nonsense":                           nil,
		"X-Cloud-Trace-Context: ../../" + id[:20] + "/ x": nil,
		"Other: x": nil,
	} {
		out.Reset()
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		name, value, _ := strings.Cut(header, ": ")
		r.Header.Set(name, value)
		handler.ServeHTTP(httptest.NewRecorder(), r)
		var line map[string]any
		if err := json.Unmarshal(out.Bytes(), &line); err != nil {
			t.Fatalf("%v: %s", err, out.String())
		}
		if line["severity"] != "WARNING" || line["message"] != "a message" || line["key"] != "value" || line[traceKey] != want {
			t.Errorf("%s: %v, want the trace %v", header, line, want)
		}
	}
}

func TestElsewhereJSONIsSlogs(t *testing.T) {
	t.Setenv("K_SERVICE", "")
	var out bytes.Buffer
	NewLogger(&out, &settings.Settings{Process: settings.Process{LogFormat: "json", LogLevel: "debug"}}).Debug("m")
	if text := out.String(); !strings.Contains(text, `"level":"DEBUG"`) || !strings.Contains(text, `"msg":"m"`) {
		t.Errorf("line %s", text)
	}
	next := http.NotFoundHandler()
	recorder := httptest.NewRecorder()
	WithCloudTrace(next).ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/", nil))
	if recorder.Code != 404 {
		t.Errorf("the handler answers %d", recorder.Code)
	}
}

func TestProjectFromTheMetadataServer(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/computeMetadata/v1/project/project-id" && r.Header.Get("Metadata-Flavor") == "Google" {
			w.Header().Set("Metadata-Flavor", "Google")
			w.Write([]byte("told"))
			return
		}
		http.NotFound(w, r)
	}))
	defer server.Close()
	t.Setenv("GOOGLE_CLOUD_PROJECT", "")
	t.Setenv("GCE_METADATA_HOST", strings.TrimPrefix(server.URL, "http://"))
	if p, err := cloudProject(); err != nil || p != "told" {
		t.Errorf("project %q, %v", p, err)
	}
}

func TestReloadIsLogged(t *testing.T) {
	t.Parallel()
	ca := healthtest.NewCA(t)
	file := ca.WriteFile(t, t.TempDir(), "ca")
	tlsUp := healthtest.Start(t, healthtest.TLS(ca.ServerTLS(t)))
	a, log := newApp(t, settings.Settings{Upstream: settings.Upstream{Addr: tlsUp.Addr(), TLS: true, CACert: file, ConnectTimeout: time.Second, RPCTimeout: time.Second}}, Platform{})
	if v := a.Check(t.Context())[0]; v.Status != health.Serving {
		t.Fatalf("%v: %v", v.Status, v.Err)
	}
	other := healthtest.NewCA(t)
	tlsUp.SetTLS(other.ServerTLS(t))
	if err := os.WriteFile(file, other.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	tlsUp.Restart()
	if v := a.Check(t.Context())[0]; v.Status != health.Serving {
		t.Fatalf("after the rotation: %v: %v", v.Status, v.Err)
	}
	if !strings.Contains(log.String(), "read again") {
		t.Errorf("log: %s", log)
	}
}

// TestAnnounce: the first line says what is checked, so that a setting that was left out shows.
func TestAnnounce(t *testing.T) {
	for _, tt := range []struct {
		env  map[string]string
		want string
	}{
		{nil, `upstream=localhost:1 services=(server) tls=none connect_timeout_seconds=1 rpc_timeout_seconds=1`},
		{map[string]string{"SERVICE_NAME": "a, b", "CONNECT_TIMEOUT": "1m", "RPC_TIMEOUT": "250ms"}, `services=a,b tls=none connect_timeout_seconds=60 rpc_timeout_seconds=0.25`},
		{map[string]string{"TLS": "true"}, "tls=verified"},
		{map[string]string{"TLS": "true", "CLIENT_CERT": "/c.pem", "CLIENT_KEY": "/k.pem"}, "tls=mutual"},
		{map[string]string{"TLS": "true", "TLS_NO_VERIFY": "true"}, `tls="not verified"`},
		{map[string]string{"SPIFFE": "true"}, "tls=spiffe"},
		{map[string]string{"ALTS": "true"}, "tls=alts"},
	} {
		t.Run(tt.want, func(t *testing.T) {
			t.Setenv("GRPC_HEALTH_ADDR", "localhost:1")
			for name, value := range tt.env {
				t.Setenv("GRPC_HEALTH_"+name, value)
			}
			s, err := settings.FromEnvironment()
			if err != nil {
				t.Fatal(err)
			}
			var log bytes.Buffer
			Announce(slog.New(slog.NewTextHandler(&log, nil)), s)
			first, rest, _ := strings.Cut(log.String(), "\n")
			if !strings.Contains(first, "level=INFO msg=checking upstream=localhost:1 ") || !strings.Contains(first, tt.want) {
				t.Errorf("the first line is %s, want %s", first, tt.want)
			}
			if warns := tt.env["TLS_NO_VERIFY"] != ""; strings.Contains(rest, "level=WARN") != warns || !strings.Contains(rest, "settings from the environment") {
				t.Errorf("what follows is %s", rest)
			}
		})
	}
}
