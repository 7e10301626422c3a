package metrics_test

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc/codes"

	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/internal/metrics"
)

// process has the metrics of a process with one upstream.
type process struct {
	*metrics.Metrics
	*metrics.Upstream
}

func newMetrics(services ...string) (process, *prometheus.Registry) {
	registry := prometheus.NewRegistry()
	m := metrics.New(registry, metrics.Options{Version: "v1", Commit: "c0ffee", GoVersion: "go1"})
	return process{m, m.NewUpstream(services)}, registry
}

// samples scrapes the handler and returns the samples of the metric, "labels value" sorted.
func samples(t *testing.T, m process, name string) []string {
	t.Helper()
	var found []string
	for line := range strings.Lines(scrape(t, m, "")) {
		rest, ok := strings.CutPrefix(strings.TrimSpace(line), name)
		if ok && (rest[0] == '{' || rest[0] == ' ') {
			found = append(found, strings.TrimSpace(rest))
		}
	}
	slices.Sort(found)
	return found
}

func scrape(t *testing.T, m process, accept string) string {
	t.Helper()
	server := httptest.NewServer(m.ExpositionHandler())
	defer server.Close()
	request, err := http.NewRequestWithContext(t.Context(), "GET", server.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Accept", accept)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != 200 {
		t.Fatalf("scrape: %v, %s\n%s", err, response.Status, body)
	}
	return string(body)
}

func wantSamples(t *testing.T, m process, name string, want ...string) {
	t.Helper()
	if got := samples(t, m, name); !slices.Equal(got, want) {
		t.Errorf("%s:\ngot  %q\nwant %q", name, got, want)
	}
}

func TestVerdicts(t *testing.T) {
	t.Parallel()
	m, _ := newMetrics("echo")
	at := time.Unix(1700000000, 5e8)
	verdicts := []health.Verdict{
		{Service: "echo", Status: health.Serving, Asked: true, Code: codes.OK, Duration: 800 * time.Microsecond, At: at},
		{Service: "echo", Status: health.NotServing, Asked: true, Code: codes.OK, Duration: 3 * time.Second, At: at.Add(time.Second)},
	}
	wantSamples(t, m, "grpc_health_check_up")
	wantSamples(t, m, "grpc_health_check_last_check_timestamp_seconds")

	m.Observe(verdicts[0])
	wantSamples(t, m, "grpc_health_check_up", `{service_name="echo"} 1`)
	wantSamples(t, m, "grpc_health_check_last_check_timestamp_seconds", `{service_name="echo"} 1.7000000005e+09`)

	m.Observe(verdicts[1])
	wantSamples(t, m, "grpc_health_check_up", `{service_name="echo"} 0`)
	wantSamples(t, m, "grpc_health_check_last_check_timestamp_seconds", `{service_name="echo"} 1.7000000015e+09`)
	wantSamples(t, m, "grpc_health_check_service_requests",
		`{code="NOT_SERVING",service_name="echo"} 1`, `{code="SERVING",service_name="echo"} 1`)
	wantSamples(t, m, "grpc_health_check_service_duration_seconds_sum", `{service_name="echo"} 3.0008`)
	wantSamples(t, m, "grpc_health_check_service_duration_seconds_count", `{service_name="echo"} 2`)
}

func TestOverloadedSaysNothingOfTheService(t *testing.T) {
	t.Parallel()
	m, _ := newMetrics()
	overloaded := health.Verdict{Status: health.Overloaded, At: time.Unix(2, 0)}
	m.Observe(overloaded)
	wantSamples(t, m, "grpc_health_check_up")
	m.Observe(health.Verdict{Status: health.Serving, Asked: true, At: time.Unix(1, 0)})
	m.Observe(overloaded)
	wantSamples(t, m, "grpc_health_check_up", `{service_name=""} 1`)
	wantSamples(t, m, "grpc_health_check_last_check_timestamp_seconds", `{service_name=""} 1`)
	wantSamples(t, m, "grpc_health_check_service_requests",
		`{code="ResourceExhausted",service_name=""} 2`, `{code="SERVING",service_name=""} 1`)
}

func TestCodes(t *testing.T) {
	t.Parallel()
	type row struct {
		verdict health.Verdict
		want    string
	}
	var rows []row
	// The server's own answers, and every status without an RPC.
	withoutRPC := map[health.Status]string{
		health.ConnectionFailed: "Unavailable",
		health.Timeout:          "DeadlineExceeded",
		health.Overloaded:       "ResourceExhausted",
	}
	for _, s := range health.Statuses() {
		rows = append(rows, row{health.Verdict{Status: s, Asked: true}, s.String()})
		want := withoutRPC[s]
		if want == "" {
			want = "Unknown"
		}
		rows = append(rows, row{health.Verdict{Status: s}, want})
	}
	for c, want := range map[codes.Code]string{
		codes.Canceled: "Canceled", codes.Unknown: "Unknown", codes.InvalidArgument: "InvalidArgument",
		codes.DeadlineExceeded: "DeadlineExceeded", codes.NotFound: "NotFound", codes.AlreadyExists: "AlreadyExists",
		codes.PermissionDenied: "PermissionDenied", codes.ResourceExhausted: "ResourceExhausted",
		codes.FailedPrecondition: "FailedPrecondition", codes.Aborted: "Aborted", codes.OutOfRange: "OutOfRange",
		codes.Unimplemented: "Unimplemented", codes.Internal: "Internal", codes.Unavailable: "Unavailable",
		codes.DataLoss: "DataLoss", codes.Unauthenticated: "Unauthenticated", 17: "Unknown", 1 << 31: "Unknown",
	} {
		rows = append(rows, row{health.Verdict{Status: health.RPCFailed, Asked: true, Code: c}, want})
	}
	for _, r := range rows {
		m, _ := newMetrics()
		m.Observe(r.verdict)
		if got, want := samples(t, m, "grpc_health_check_service_requests"), []string{fmt.Sprintf(`{code=%q,service_name=""} 1`, r.want)}; !slices.Equal(got, want) {
			t.Errorf("%v, asked %t, %v: got %q, want %q", r.verdict.Status, r.verdict.Asked, r.verdict.Code, got, want)
		}
	}
}

func TestServiceNames(t *testing.T) {
	t.Parallel()
	ok := health.Verdict{Status: health.Serving, Asked: true, Code: codes.OK}
	tests := []struct {
		name       string
		configured []string
		verdict    health.Verdict
		service    string
		want       string
	}{
		{"whole server", nil, health.Verdict{Status: health.Timeout}, "", ""},
		{"configured", []string{"a", "b"}, health.Verdict{Status: health.Timeout}, "b", "b"},
		{"acknowledged", nil, ok, "made.up", "made.up"},
		{"acknowledged as down", nil, health.Verdict{Status: health.NotServing, Asked: true}, "made.up", "made.up"},
		{"unknown by the answer", nil, health.Verdict{Status: health.ServiceUnknown, Asked: true}, "made.up", "other"},
		{"unknown by the code", nil, health.Verdict{Status: health.ServiceUnknown, Asked: true, Code: codes.NotFound}, "made.up", "other"},
		{"failed", nil, health.Verdict{Status: health.RPCFailed, Asked: true, Code: codes.Internal}, "made.up", "other"},
		{"never asked", nil, health.Verdict{Status: health.ConnectionFailed}, "made.up", "other"},
		{"not UTF-8", nil, ok, "a\xffb", "a\uFFFDb"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m, _ := newMetrics(tt.configured...)
			tt.verdict.Service = tt.service
			m.Observe(tt.verdict)
			wantSamples(t, m, "grpc_health_check_service_duration_seconds_count", fmt.Sprintf(`{service_name="%s"} 1`, tt.want))
		})
	}
	t.Run("configured names that are not UTF-8", func(t *testing.T) {
		t.Parallel()
		m, _ := newMetrics("a\xff")
		m.Observe(health.Verdict{Service: "a\xff"})
		wantSamples(t, m, "grpc_health_check_service_duration_seconds_count", `{service_name="a`+"\uFFFD"+`"} 1`)
	})
}

// 10,000 made-up names, known to the upstream or not, cost no more than 100 series.
func TestNamesAreBounded(t *testing.T) {
	t.Parallel()
	m, registry := newMetrics()
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			for i := range 10_000 {
				v := health.Verdict{Service: fmt.Sprintf("made.up.%d", i), Status: health.Serving, Asked: true}
				if worker == 0 {
					v.Code, v.Status = codes.NotFound, health.ServiceUnknown
				}
				m.Observe(v)
			}
		})
	}
	wg.Wait()
	for name, want := range map[string]int{ // the whole server was not checked
		"grpc_health_check_service_duration_seconds":     101, // 100 names and other
		"grpc_health_check_up":                           100,
		"grpc_health_check_last_check_timestamp_seconds": 100,
	} {
		n, err := testutil.GatherAndCount(registry, name)
		if err != nil || n != want {
			t.Errorf("%s has %d series (%v), want %d", name, n, err, want)
		}
	}
	if n := len(samples(t, m, "grpc_health_check_service_requests")); n > 202 {
		t.Errorf("grpc_health_check_service_requests has %d series, want 202 at most", n)
	}
	m.Observe(health.Verdict{Service: "", Status: health.Serving, Asked: true})
	if got := samples(t, m, "grpc_health_check_up"); got[0] != `{service_name=""} 1` {
		t.Errorf("the configured whole server was crowded out: %q", got[0])
	}
}

func TestTrace(t *testing.T) {
	t.Parallel()
	m, _ := newMetrics()
	trace := m.Trace()
	for _, code := range []string{"OK", "OK", "NotFound", "Code(4711)"} {
		trace.RPC(code)
	}
	for _, result := range []string{"ok", "tls", "tls", "never heard of"} {
		trace.Dial(result)
	}
	for _, reason := range []string{"lost", "silent", "credentials", "frozen", "frozen", "never heard of"} {
		trace.Retry(reason)
	}
	trace.Shared()
	trace.PeerCertificate(&x509.Certificate{NotAfter: time.Unix(1800000000, 0)})
	if trace.Verdict != nil {
		t.Error("Verdict is not for metrics to take")
	}

	rpcs := samples(t, m, "grpc_health_check_rpcs_total")
	for _, want := range []string{`{code="OK"} 2`, `{code="NotFound"} 1`, `{code="Unknown"} 1`, `{code="Unavailable"} 0`} {
		if !slices.Contains(rpcs, want) {
			t.Errorf("grpc_health_check_rpcs_total has no %s: %q", want, rpcs)
		}
	}
	if len(rpcs) != 17 {
		t.Errorf("grpc_health_check_rpcs_total has %d series, want one for each of 17 codes", len(rpcs))
	}
	wantSamples(t, m, "grpc_health_check_dials_total", `{result="connect"} 0`, `{result="credentials"} 0`, `{result="dns"} 0`,
		`{result="http2"} 0`, `{result="ok"} 1`, `{result="other"} 1`, `{result="tls"} 2`)
	wantSamples(t, m, "grpc_health_check_retries_total", `{reason="credentials"} 1`, `{reason="frozen"} 2`, `{reason="lost"} 1`,
		`{reason="other"} 1`, `{reason="silent"} 1`)
	wantSamples(t, m, "grpc_health_check_shared_total", "1")
	wantSamples(t, m, "grpc_health_check_certificate_expiry_timestamp_seconds", `{role="upstream"} 1.8e+09`)
}

func TestCertificates(t *testing.T) {
	t.Parallel()
	m, _ := newMetrics()
	wantSamples(t, m, "grpc_health_check_certificate_expiry_timestamp_seconds")
	m.ClientCertificateExpires(time.Unix(1, 0))
	m.ClientCertificateExpires(time.Unix(3, 0))
	m.ListenerCertificateExpires(time.Unix(2, 0))
	m.CertificateReloaded(nil)
	m.CertificateReloaded(nil)
	m.CertificateReloaded(errors.New("torn"))
	wantSamples(t, m, "grpc_health_check_certificate_expiry_timestamp_seconds", `{role="client"} 3`, `{role="listener"} 2`)
	wantSamples(t, m, "grpc_health_check_certificate_reloads_total", `{result="error"} 1`, `{result="ok"} 2`)
}

func TestHandler(t *testing.T) {
	t.Parallel()
	m, _ := newMetrics()
	h := m.Handler("/healthz", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/broken" {
			panic(http.ErrAbortHandler)
		}
		http.Error(w, "teapot", http.StatusTeapot)
	}))
	for _, path := range []string{"/healthz", "/elsewhere"} {
		recorder := httptest.NewRecorder()
		h.ServeHTTP(recorder, httptest.NewRequest("GET", path, nil))
		if recorder.Code != http.StatusTeapot || recorder.Body.String() != "teapot\n" {
			t.Errorf("the answer was changed: %d %q", recorder.Code, recorder.Body)
		}
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic was swallowed")
			}
		}()
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/broken", nil))
	}()
	wantSamples(t, m, "grpc_health_check_seconds_count", `{path="/healthz"} 3`)
}

func TestBuildInfoAndCollectors(t *testing.T) {
	t.Parallel()
	m, _ := newMetrics()
	wantSamples(t, m, "grpc_health_check_build_info", `{commit="c0ffee",goversion="go1",version="v1"} 1`)
	for _, name := range []string{"go_goroutines", "process_start_time_seconds"} {
		if len(samples(t, m, name)) != 1 {
			t.Errorf("%s is missing", name)
		}
	}
}

func TestHistograms(t *testing.T) {
	t.Parallel()
	m, registry := newMetrics()
	m.Observe(health.Verdict{Status: health.Serving, Asked: true, Duration: 3 * time.Millisecond})
	m.Handler("/", http.NotFoundHandler()).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{"grpc_health_check_seconds": true, "grpc_health_check_service_duration_seconds": true}
	for _, family := range families {
		if !want[family.GetName()] {
			continue
		}
		delete(want, family.GetName())
		h := family.GetMetric()[0].GetHistogram()
		if len(h.GetPositiveSpan()) == 0 || h.GetSchema() != 3 { // 2^(2^-3) is 1.09
			t.Errorf("%s is no native histogram of schema 3: %v", family.GetName(), h)
		}
		var bounds []float64
		for _, b := range h.GetBucket() {
			bounds = append(bounds, b.GetUpperBound())
		}
		for _, b := range prometheus.DefBuckets {
			if !slices.Contains(bounds, b) {
				t.Errorf("%s has no classic bucket %v: %v", family.GetName(), b, bounds)
			}
		}
	}
	if len(want) > 0 {
		t.Errorf("missing: %v", slices.Collect(maps.Keys(want)))
	}
}

// OpenMetrics, which Prometheus prefers, wants counters to end in _total: the name that dashboards
// use must not get that ending on the way.
func TestNamesInOpenMetrics(t *testing.T) {
	t.Parallel()
	m, _ := newMetrics("echo")
	m.Observe(health.Verdict{Service: "echo", Status: health.Serving, Asked: true})
	body := scrape(t, m, "application/openmetrics-text; version=1.0.0")
	if !strings.HasSuffix(body, "# EOF\n") {
		t.Fatalf("not OpenMetrics:\n%.300s", body)
	}
	if want := "\n" + `grpc_health_check_service_requests{code="SERVING",service_name="echo"} 1`; !strings.Contains(body, want) {
		t.Errorf("no sample %s", want)
	}
}

func TestLint(t *testing.T) {
	t.Parallel()
	m, registry := newMetrics()
	trace := m.Trace()
	trace.PeerCertificate(&x509.Certificate{})
	m.Observe(health.Verdict{Status: health.Serving, Asked: true})
	m.Handler("/", http.NotFoundHandler())
	problems, err := testutil.GatherAndLint(registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if p.Metric == "grpc_health_check_service_requests" && strings.Contains(p.Text, "_total") {
			continue // a name that dashboards use
		}
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// The usual verdict neither hashes labels nor allocates.
func BenchmarkObserve(b *testing.B) {
	m, _ := newMetrics()
	v := health.Verdict{Status: health.Serving, Asked: true, Duration: time.Millisecond, At: time.Unix(1, 0)}
	b.ReportAllocs()
	for b.Loop() {
		m.Observe(v)
	}
}

func TestGaugesAreOfTheLatestVerdict(t *testing.T) {
	t.Parallel()
	m, _ := newMetrics("echo")
	at := time.Unix(1700000000, 0)
	m.Observe(health.Verdict{Service: "echo", Status: health.NotServing, Asked: true, At: at.Add(time.Second)})
	m.Observe(health.Verdict{Service: "echo", Status: health.Serving, Asked: true, At: at}) // reached earlier, observed later
	wantSamples(t, m, "grpc_health_check_up", `{service_name="echo"} 0`)
	wantSamples(t, m, "grpc_health_check_last_check_timestamp_seconds", `{service_name="echo"} 1.700000001e+09`)
}

func TestOtherNamesHaveNoState(t *testing.T) {
	t.Parallel()
	m, _ := newMetrics("echo")
	m.Observe(health.Verdict{Service: "typo", Status: health.ServiceUnknown, Asked: true, Code: codes.NotFound, At: time.Unix(2, 0)})
	wantSamples(t, m, "grpc_health_check_up")
	wantSamples(t, m, "grpc_health_check_service_requests", `{code="NotFound",service_name="other"} 1`)
}
