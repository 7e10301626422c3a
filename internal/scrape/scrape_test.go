package scrape_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	"example.com/grpc-health-http/internal/asker"
	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/internal/scrape"
	"example.com/grpc-health-http/internal/web"
)

func says(v health.Verdict) health.Func {
	return func(context.Context, string) health.Verdict { return v }
}

func handler(fleet func(context.Context) *asker.Fleet) http.Handler {
	return scrape.Handler(scrape.Options{
		Asker: asker.New(asker.Options{Fleet: fleet}), TLS: func(name string) bool { return name == "tls" }, MetricsPath: "/metrics", Refuse: web.Refuse,
	})
}

func many(upstreams ...*asker.Upstream) http.Handler {
	fleet := asker.NewFleet(upstreams, true, time.Now())
	return handler(func(context.Context) *asker.Fleet { return fleet })
}

// get returns the answer, with its samples sorted.
func get(t *testing.T, h http.Handler, method, target string, headers ...string) (int, http.Header, []string) {
	t.Helper()
	r := httptest.NewRequest(method, target, nil)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	var lines []string
	for line := range strings.Lines(w.Body.String()) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			lines = append(lines, line)
		}
	}
	slices.Sort(lines)
	return w.Code, w.Header(), lines
}

// The metrics of a check have the names of blackbox_exporter, without a label for the target.
func TestProbe(t *testing.T) {
	t.Parallel()
	ends := time.Unix(1795083330, 0)
	h := many(
		&asker.Upstream{Name: "good", Check: says(health.Verdict{Status: health.Serving, Asked: true, Duration: time.Second / 4})},
		&asker.Upstream{Name: "bad", Check: says(health.Verdict{Status: health.NotServing, Asked: true})},
		&asker.Upstream{Name: "odd", Check: says(health.Verdict{Status: health.ServiceUnknown, Asked: true, Code: codes.NotFound})},
		&asker.Upstream{Name: "unknown", Check: says(health.Verdict{Status: health.ServiceUnknown, Asked: true})},
		&asker.Upstream{Name: "down", Check: says(health.Verdict{Status: health.ConnectionFailed, Phase: health.PhaseConnect, Err: errors.New("10.0.0.1")})},
		&asker.Upstream{Name: "late", Check: says(health.Verdict{Status: health.Timeout, Phase: health.PhaseDNS})},
		&asker.Upstream{Name: "full", Check: says(health.Verdict{Status: health.Overloaded})},
		&asker.Upstream{Name: "tls", Check: says(health.Verdict{Status: health.Serving, Asked: true}), CertificateEnds: func() time.Time { return ends }},
		&asker.Upstream{Name: "two", Services: []string{"a", "b"}, Check: func(_ context.Context, service string) health.Verdict {
			return health.Verdict{Asked: true, Status: map[string]health.Status{"a": health.Serving, "b": health.NotServing}[service]}
		}},
	)
	for name, want := range map[string]struct{ success, code, response, tls, expiry string }{
		"good":              {"1", "0", "SERVING", "0", ""},
		"good&service=s":    {"1", "0", "SERVING", "0", ""},
		"bad":               {"0", "0", "NOT_SERVING", "0", ""},
		"odd":               {"0", "5", "", "0", ""},
		"unknown":           {"0", "0", "SERVICE_UNKNOWN", "0", ""},
		"down":              {"0", "14", "", "0", ""},
		"late":              {"0", "4", "", "0", ""},
		"full":              {"0", "8", "", "0", ""},
		"tls":               {"1", "0", "SERVING", "1", "1.79508333e+09"},
		"two":               {"0", "0", "NOT_SERVING", "0", ""},
		"two&service=a":     {"1", "0", "SERVING", "0", ""},
		"good&debug=true&x": {"1", "0", "SERVING", "0", ""},
	} {
		code, header, lines := get(t, h, "GET", "/probe?target="+name)
		if code != 200 || header.Get("Cache-Control") != "no-store" || header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %d %v", name, code, header)
		}
		samples := map[string]string{"probe_success": want.success, "probe_grpc_status_code": want.code, "probe_grpc_ssl": want.tls, "probe_ssl_earliest_cert_expiry": want.expiry}
		for _, status := range []string{"UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"} {
			samples[`probe_grpc_healthcheck_response{serving_status="`+status+`"}`] = map[bool]string{true: "1", false: "0"}[status == want.response]
		}
		for sample, value := range samples {
			if value == "" {
				if slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, sample+" ") }) {
					t.Errorf("%s: %s is there", name, sample)
				}
			} else if !slices.Contains(lines, sample+" "+value) {
				t.Errorf("%s: no %s %s in\n%s", name, sample, value, strings.Join(lines, "\n"))
			}
		}
		if name == "good" && !slices.Contains(lines, `probe_grpc_duration_seconds{phase="check"} 0.25`) {
			t.Errorf("no duration in\n%s", strings.Join(lines, "\n"))
		}
		if text := strings.Join(lines, "\n"); strings.Contains(text, "10.0.0.1") || strings.Contains(text, "target=") || !strings.Contains(text, "probe_duration_seconds ") {
			t.Errorf("%s:\n%s", name, text)
		}
	}
}

// A scrape names one target; any other gets an error that says what is wrong.
func TestWhichTarget(t *testing.T) {
	t.Parallel()
	serving := says(health.Verdict{Status: health.Serving, Asked: true})
	two := many(&asker.Upstream{Name: "a", Check: serving}, &asker.Upstream{Name: "b", Services: []string{"s"}, Check: serving})
	single := many(&asker.Upstream{Name: "a", Check: serving})
	unnamed := handler(asker.One(&asker.Upstream{Check: serving}))
	nothing := handler(func(context.Context) *asker.Fleet { return nil })
	for _, row := range []struct {
		h        http.Handler
		target   string
		code     int
		contains string
	}{
		{unnamed, "/probe", 200, "probe_success 1"},
		{unnamed, "/probe?target=default", 200, "probe_success 1"},
		{unnamed, "/probe?target=a", 404, "not there"},
		{single, "/probe", 200, "probe_success 1"},
		{single, "/probe?target=a", 200, "probe_success 1"},
		{two, "/probe", 400, "there are several targets"},
		{two, "/probe?target=", 400, "target is empty"},
		{two, "/probe?target=a&target=b", 400, "several targets are asked for"},
		{two, "/probe?target=c", 404, "not there"},
		{two, "/probe?target=b&service=t", 404, "not offered"},
		{two, "/probe?target=a&service=" + strings.Repeat("n", 256), 400, "longer than 255"},
		{nothing, "/probe", 503, "not configured"},
		{two, "/probe/", 404, "not found"},
		{two, "/Probe", 404, "not found"},
	} {
		code, _, lines := get(t, row.h, "GET", row.target)
		if code != row.code || !strings.Contains(strings.Join(lines, "\n"), row.contains) {
			t.Errorf("%s: %d %q, want %d %s", row.target, code, lines, row.code, row.contains)
		}
	}
	for _, path := range []string{"/probe", "/targets", "/"} {
		if code, header, _ := get(t, single, "POST", path); code != 405 || header.Get("Allow") != "GET, HEAD" {
			t.Errorf("POST %s: %d", path, code)
		}
		if code, _, lines := get(t, single, "HEAD", path); code != 200 || len(lines) > 0 && path != "/probe" {
			t.Errorf("HEAD %s: %d %q", path, code, lines)
		}
	}
}

// The time that Prometheus gives a scrape bounds its check, as a deadline of the caller's own.
func TestTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // whose time is exact
		var left time.Duration
		var cause error
		h := handler(asker.One(&asker.Upstream{Check: func(ctx context.Context, _ string) health.Verdict {
			deadline, ok := ctx.Deadline()
			if left = 0; ok {
				left = time.Until(deadline)
			}
			if left > 0 && left < time.Second {
				<-ctx.Done()
				cause = context.Cause(ctx)
			}
			return health.Verdict{Status: health.Timeout}
		}}))
		for text, want := range map[string][2]time.Duration{
			"10": {9 * time.Second, 9500 * time.Millisecond}, "0.1": {50 * time.Millisecond, 90 * time.Millisecond}, "1.5": {time.Second, 1350 * time.Millisecond},
			"": {}, "0": {}, "-1": {}, "NaN": {}, "+Inf": {}, "1e9": {}, "soon": {},
		} {
			_, _, lines := get(t, h, "GET", "/probe", "X-Prometheus-Scrape-Timeout-Seconds", text)
			if left < want[0] || left > want[1] {
				t.Errorf("%q: the check has %v, want %v", text, left, want)
			}
			if !slices.Contains(lines, "probe_success 0") {
				t.Errorf("%q: %q", text, lines)
			}
		}
		if !errors.Is(cause, health.ErrCallerDeadline) {
			t.Errorf("the check ended with %v", cause)
		}
	})
}

// The list is what http_sd_configs takes.
func TestTargets(t *testing.T) {
	t.Parallel()
	serving := says(health.Verdict{Status: health.Serving})
	for name, row := range map[string]struct {
		h    http.Handler
		want string
	}{
		"two": {many(&asker.Upstream{Name: "a", Group: "g", Check: serving}, &asker.Upstream{Name: "b", Check: serving}),
			`[{"targets":["proxy.test:9000"],"labels":{"__metrics_path__":"/probe","__param_target":"a","group":"g","instance":"a","target":"a"}},` +
				`{"targets":["proxy.test:9000"],"labels":{"__metrics_path__":"/probe","__param_target":"b","instance":"b","target":"b"}}]`},
		"one": {handler(asker.One(&asker.Upstream{Check: serving})),
			`[{"targets":["proxy.test:9000"],"labels":{"__metrics_path__":"/probe","__param_target":"default","instance":"default","target":"default"}}]`},
		"none": {handler(func(context.Context) *asker.Fleet { return nil }), `[]`},
	} {
		code, header, lines := get(t, row.h, "GET", "http://proxy.test:9000/targets")
		if code != 200 || header.Get("Content-Type") != "application/json" || strings.Join(lines, "") != row.want {
			t.Errorf("%s: %d %v\n%s\nwant\n%s", name, code, header, strings.Join(lines, ""), row.want)
		}
		var parsed []struct{ Targets []string }
		if err := json.Unmarshal([]byte(strings.Join(lines, "")), &parsed); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The port's own page has links to all that it answers.
func TestIndex(t *testing.T) {
	t.Parallel()
	_, header, lines := get(t, many(), "GET", "/")
	text := strings.Join(lines, "\n")
	for _, link := range []string{`"/metrics"`, `"/targets"`, `"/probe"`, `"/livez"`} {
		if !strings.Contains(text, "href="+link) {
			t.Errorf("no link to %s in\n%s", link, text)
		}
	}
	if !strings.Contains(header.Get("Content-Security-Policy"), "default-src 'none'") {
		t.Errorf("headers %v", header)
	}
}

// BenchmarkTargets lists a thousand targets.
func BenchmarkTargets(b *testing.B) {
	var all []*asker.Upstream
	for i := range 1000 {
		all = append(all, &asker.Upstream{Name: fmt.Sprintf("target-%04d", i), Group: "group"})
	}
	h := many(all...)
	b.ReportAllocs()
	for b.Loop() {
		w := httptest.NewRecorder()
		w.Body = nil
		h.ServeHTTP(w, httptest.NewRequest("GET", "/targets", nil))
	}
}

// BenchmarkProbe is what a scrape costs beside its check.
func BenchmarkProbe(b *testing.B) {
	h := many(&asker.Upstream{Name: "a", Check: says(health.Verdict{Status: health.Serving, Asked: true})})
	b.ReportAllocs()
	for b.Loop() {
		w := httptest.NewRecorder()
		w.Body = nil
		h.ServeHTTP(w, httptest.NewRequest("GET", "/probe", nil))
	}
}
