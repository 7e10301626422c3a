package metrics_test

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"os/exec"
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
	m := metrics.New(registry, metrics.Options{Version: "v1", Commit: "c0ffee", GoVersion: "go1", SettingsHash: 1<<48 - 1, CheckInterval: 1500 * time.Millisecond})
	return process{m, m.NewUpstream(metrics.UpstreamOptions{Address: "upstream.test:443", Services: services})}, registry
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
		{"not UTF-8", nil, ok, "a\xffb", "other"},
		{"a bidirectional override", nil, ok, "a\u202eb", "other"},
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
	wantSamples(t, m, "grpc_health_check_seconds_count", `{code="200",path="/healthz"} 0`, `{code="418",path="/healthz"} 2`,
		`{code="503",path="/healthz"} 0`, `{code="none",path="/healthz"} 1`)
}

// Each way in which a handler can answer has its code. It answers a real server, whose client sees the same.
func TestHandlerCodes(t *testing.T) {
	t.Parallel()
	m, _ := newMetrics()
	answers := map[string]http.HandlerFunc{
		"200": func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "SERVING\n") },
		"204": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) },
		"401": func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusUnauthorized) },
		"404": func(w http.ResponseWriter, _ *http.Request) { // an interim answer, and then one after the first
			w.WriteHeader(http.StatusEarlyHints)
			w.WriteHeader(http.StatusNotFound)
			w.WriteHeader(http.StatusOK)
		},
		"503": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusServiceUnavailable)
			io.WriteString(w, "TIMEOUT\n")
		},
	}
	server := httptest.NewUnstartedServer(m.Handler("/", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Errorf("the connection is out of the handler's reach: %v", err)
		}
		if answer := answers[r.URL.Query().Get("answer")]; answer != nil {
			answer(w, r)
		}
	})))
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // which gets the complaint about the second WriteHeader
	server.Start()
	defer server.Close()
	want := []string{`{code="200",path="/"} 2`} // with the one that writes nothing
	for code := range answers {
		if code != "200" {
			want = append(want, fmt.Sprintf(`{code=%q,path="/"} 1`, code))
		}
	}
	for _, code := range append(slices.Collect(maps.Keys(answers)), "nothing") {
		response, err := http.Get(server.URL + "?answer=" + code)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if !strings.HasPrefix(response.Status, code) && (code != "nothing" || response.StatusCode != 200) {
			t.Errorf("%s: the client got %s", code, response.Status)
		}
	}
	slices.Sort(want)
	wantSamples(t, m, "grpc_health_check_seconds_count", want...)
}

func TestRejected(t *testing.T) {
	t.Parallel()
	m, _ := newMetrics()
	reasons := []string{"client_certificate", "method", "overload", "path", "query", "service", "target", "token"}
	var before, after []string
	for _, reason := range reasons {
		before = append(before, fmt.Sprintf("{reason=%q} 0", reason))
		after = append(after, fmt.Sprintf("{reason=%q} 1", reason))
	}
	wantSamples(t, m, "grpc_health_check_rejected_total", before...)
	for _, reason := range append(reasons, "never heard of", "nor of this") {
		m.Rejected(reason)
	}
	after = slices.Insert(after, 3, `{reason="other"} 2`)[:9]
	slices.Sort(after)
	wantSamples(t, m, "grpc_health_check_rejected_total", after...)
}

func TestUpstreamInfoAndSettingsHash(t *testing.T) {
	t.Parallel()
	m, _ := newMetrics()
	wantSamples(t, m, "grpc_health_check_upstream_info", `{upstream="upstream.test:443"} 1`)
	wantSamples(t, m, "grpc_health_check_settings_hash", "2.81474976710655e+14")
	wantSamples(t, m, "grpc_health_check_interval_seconds", "1.5")
}

// The counters of a configured service exist before its first check, so that increase() sees the first failure.
func TestVerdictsByStatus(t *testing.T) {
	t.Parallel()
	m, _ := newMetrics("echo")
	counts := make(map[health.Status]int)
	want := func() []string {
		var all []string
		for _, s := range health.Statuses() {
			all = append(all, fmt.Sprintf(`{service_name="echo",status="%s"} %d`, s, counts[s]))
		}
		slices.Sort(all)
		return all
	}
	ofEcho := func() []string {
		return slices.DeleteFunc(samples(t, m, "grpc_health_check_verdicts_total"), func(s string) bool { return !strings.Contains(s, `"echo"`) })
	}
	for i, s := range append(health.Statuses(), health.Serving, health.Timeout) {
		if got := ofEcho(); !slices.Equal(got, want()) {
			t.Fatalf("after %d verdicts:\ngot  %q\nwant %q", i, got, want())
		}
		m.Observe(health.Verdict{Service: "echo", Status: s, Asked: true})
		counts[s]++
	}
	if got := ofEcho(); !slices.Equal(got, want()) {
		t.Errorf("got  %q\nwant %q", got, want())
	}
	m.Observe(health.Verdict{Service: "made.up", Status: health.ConnectionFailed})
	if got := samples(t, m, "grpc_health_check_verdicts_total"); !slices.Contains(got, `{service_name="other",status="CONNECTION_FAILED"} 1`) {
		t.Errorf("a name that nobody knows is not counted as other: %q", got)
	}
}

// One status holds at a time, also in a scrape that comes while it changes.
func TestStatusHolds(t *testing.T) {
	t.Parallel()
	m, _ := newMetrics("echo")
	wantSamples(t, m, "grpc_health_check_status")
	holds := func() (status string) {
		for _, sample := range samples(t, m, "grpc_health_check_status") {
			if strings.HasSuffix(sample, " 1") {
				status += sample
			} else if !strings.HasSuffix(sample, " 0") {
				t.Errorf("sample %s", sample)
			}
		}
		return status
	}
	at := time.Unix(1700000000, 0)
	for _, s := range health.Statuses() {
		at = at.Add(time.Second)
		m.Observe(health.Verdict{Service: "echo", Status: s, Asked: true, At: at})
		if n := len(samples(t, m, "grpc_health_check_status")); n != len(health.Statuses()) {
			t.Errorf("%d series, want one for each status", n)
		}
		if s == health.Overloaded { // which found nothing out: TIMEOUT, from before, holds
			s = health.Timeout
		}
		if got, want := holds(), fmt.Sprintf(`{service_name="echo",status="%s"} 1`, s); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	var observers sync.WaitGroup
	stop := make(chan struct{})
	observers.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				m.Observe(health.Verdict{Service: "echo", Status: health.Status(1 + i%2), Asked: true, At: at.Add(time.Duration(i))})
			}
		}
	})
	for range 20 {
		if got := holds(); strings.Count(got, "} 1") != 1 {
			t.Errorf("these hold at the same time: %s", got)
		}
	}
	close(stop)
	observers.Wait()
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
	m.Handler("/", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(200) })).
		ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
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

// keptNames are the names that Prometheus' conventions object to, and that dashboards of the earlier tool use: a twin that ends in
// _total could not be told from it in OpenMetrics.
var keptNames = []string{"grpc_health_check_service_requests"}

// full has a series of each metric.
func full() (process, *prometheus.Registry) {
	m, registry := newMetrics("echo")
	m.Trace().PeerCertificate(&x509.Certificate{})
	m.ClientCertificateExpires(time.Unix(1, 0))
	m.ListenerCertificateExpires(time.Unix(1, 0))
	m.Observe(health.Verdict{Service: "echo", Status: health.Serving, Asked: true, At: time.Unix(1, 0)})
	m.Handler("/", http.NotFoundHandler()).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
	return m, registry
}

func TestLint(t *testing.T) {
	t.Parallel()
	_, registry := full()
	problems, err := testutil.GatherAndLint(registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if !slices.Contains(keptNames, p.Metric) || !strings.Contains(p.Text, "_total") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
}

// What promtool says of the exposition is what operators see who check it.
func TestPromtool(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("promtool"); err != nil {
		t.Skipf("install the package prometheus, which has promtool: %v", err)
	}
	m, _ := full()
	cmd := exec.Command("promtool", "check", "metrics")
	cmd.Stdin = strings.NewReader(scrape(t, m, "text/plain; version=0.0.4"))
	out, err := cmd.CombinedOutput() // which exits 3 where it has something to say
	if failed, ok := errors.AsType[*exec.ExitError](err); err != nil && (!ok || failed.ExitCode() != 3) {
		t.Fatalf("promtool: %v\n%s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		metric, problem, _ := strings.Cut(strings.TrimSpace(line), " ")
		if !slices.Contains(keptNames, metric) || !strings.Contains(problem, "_total") {
			t.Errorf("promtool: %s", line)
		}
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
