package app

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/internal/settings"
)

// reported is a reporter of a test with what it has written.
type reported struct {
	*reporter
	t   *testing.T
	out *bytes.Buffer
	at  time.Time
}

func newReported(t *testing.T, level slog.Level, configured ...string) *reported {
	r := &reported{t: t, out: new(bytes.Buffer), at: time.Unix(1700000000, 0)}
	r.reporter = newReporter(newReports(slog.New(slog.NewJSONHandler(r.out, &slog.HandlerOptions{Level: level}))),
		&settings.Target{Upstream: settings.Upstream{Addr: "grpc.example.com:443", Services: configured}})
	r.now = func() time.Time { return r.at }
	return r
}

// report tells a verdict and returns its evidence.
func (r *reported) report(service string, status health.Status, phase health.Phase) string {
	v := health.Verdict{Service: service, Status: status, Phase: phase, Asked: true, Code: codes.Unavailable, At: r.at, Err: errors.New("a cause")}
	_, id := r.verdict(context.Background(), v, health.Evidence{Attempts: []health.Attempt{{Result: "a result"}}})
	return id
}

func (r *reported) lines() []map[string]any {
	r.t.Helper()
	var lines []map[string]any
	for text := range strings.Lines(r.out.String()) {
		var line map[string]any
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			r.t.Fatal(err)
		}
		lines = append(lines, line)
	}
	return lines
}

func TestEvidenceIsALine(t *testing.T) {
	t.Parallel()
	for _, status := range health.Statuses() {
		r := newReported(t, slog.LevelInfo, "s")
		id := r.report("s", status, health.PhaseRPC)
		lines := r.lines()
		if status == health.Serving {
			if id != "" || len(lines) != 0 {
				t.Errorf("SERVING has evidence %q and the lines %v", id, lines)
			}
			continue
		}
		if len(lines) != 1 || id == "" || lines[0]["evidence"] != id {
			t.Fatalf("%v: evidence %q, lines %v", status, id, lines)
		}
		for key, want := range map[string]string{
			"msg": "s " + status.String() + ": a cause", "level": "WARN", "upstream": "grpc.example.com:443", "grpc_service": "s",
			"health_status": status.String(), "phase": "rpc", "grpc_code": "UNAVAILABLE",
		} {
			if lines[0][key] != want {
				t.Errorf("%v: %s is %v, want %s", status, key, lines[0][key], want)
			}
		}
		if attempts, ok := lines[0]["attempts"].([]any); !ok || len(attempts) != 1 || !strings.Contains(attempts[0].(string), "a result") {
			t.Errorf("%v: attempts %v", status, lines[0]["attempts"])
		}
		if text := r.out.String(); strings.Index(text, `"attempts":`) < strings.LastIndex(text, `"duration_seconds":`) {
			t.Errorf("%v: attempts are not last: %s", status, text)
		}
	}
}

// TestLine: the message says what failed and why; keys without a value are left out, and none is one that log systems reserve.
func TestLine(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 24, 8, 0, 0, 0, time.UTC)
	long := errors.New("tls: failed to verify certificate: x509: certificate has expired or is not yet valid: current time …")
	for _, test := range []struct {
		target     string
		configured []string
		v          health.Verdict
		want       string
	}{
		{"", []string{"echo.EchoServer"}, health.Verdict{Service: "echo.EchoServer", Status: health.ConnectionFailed, Phase: health.PhaseTLS,
			Err: fmt.Errorf("wrapped: %w", &health.TLSError{Fault: health.CertificateExpired, At: at, Err: long})},
			`{"level":"WARN","msg":"echo.EchoServer CONNECTION_FAILED: the server's certificate expired 2026-11-24","upstream":"u:1","grpc_service":"echo.EchoServer","health_status":"CONNECTION_FAILED","phase":"tls","evidence":"ID","duration_seconds":1.5}`},
		{"", nil, health.Verdict{Status: health.Timeout, Phase: health.PhaseRPC, Asked: true, Code: codes.DeadlineExceeded, Err: errors.New("no answer to the RPC within 1s")},
			`{"level":"WARN","msg":"(server) TIMEOUT: no answer to the RPC within 1s","upstream":"u:1","health_status":"TIMEOUT","phase":"rpc","grpc_code":"DEADLINE_EXCEEDED","evidence":"ID","duration_seconds":1.5}`},
		{"", []string{"a", "b"}, health.Verdict{Service: "b", Status: health.NotServing, Asked: true},
			`{"level":"WARN","msg":"b NOT_SERVING: the server answers, and says that it is not serving","upstream":"u:1","grpc_service":"b","health_status":"NOT_SERVING","grpc_code":"OK","evidence":"ID","duration_seconds":1.5}`},
		{"", []string{"a"}, health.Verdict{Service: "a", Status: health.ServiceUnknown, Asked: true, Code: codes.NotFound, Err: errors.New("rpc error: unknown")},
			`{"level":"WARN","msg":"a SERVICE_UNKNOWN: rpc error: unknown","upstream":"u:1","grpc_service":"a","health_status":"SERVICE_UNKNOWN","grpc_code":"NOT_FOUND","evidence":"ID","duration_seconds":1.5}`},
		{"", nil, health.Verdict{Service: "made.Up", Status: health.ServiceUnknown, Asked: true, Code: codes.NotFound},
			`{"level":"INFO","msg":"made.Up SERVICE_UNKNOWN: the server answers, and does not know this service","upstream":"u:1","grpc_service":"made.Up","health_status":"SERVICE_UNKNOWN","grpc_code":"NOT_FOUND","evidence":"ID","duration_seconds":1.5}`},
		{"", nil, health.Verdict{List: true, Status: health.RPCFailed, Asked: true, Code: codes.PermissionDenied, Err: errors.New("no")},
			`{"level":"WARN","msg":"(list) RPC_FAILED: no","upstream":"u:1","health_status":"RPC_FAILED","grpc_code":"PERMISSION_DENIED","evidence":"ID","duration_seconds":1.5,"list":true}`},
		{"checkout", []string{"a"}, health.Verdict{Service: "a", Status: health.NotServing, Asked: true},
			`{"level":"WARN","msg":"checkout/a NOT_SERVING: the server answers, and says that it is not serving","target":"checkout","upstream":"u:1","grpc_service":"a","health_status":"NOT_SERVING","grpc_code":"OK","evidence":"ID","duration_seconds":1.5}`},
		{"checkout", nil, health.Verdict{Status: health.NotServing, Asked: true},
			`{"level":"WARN","msg":"checkout NOT_SERVING: the server answers, and says that it is not serving","target":"checkout","upstream":"u:1","health_status":"NOT_SERVING","grpc_code":"OK","evidence":"ID","duration_seconds":1.5}`},
	} {
		var out bytes.Buffer
		r := newReporter(newReports(slog.New(slog.NewJSONHandler(&out, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}}))), &settings.Target{Name: test.target, Upstream: settings.Upstream{Addr: "u:1", Services: test.configured}})
		test.v.Duration = 1500 * time.Millisecond
		_, id := r.verdict(t.Context(), test.v, health.Evidence{})
		if got := strings.TrimSpace(out.String()); got != strings.Replace(test.want, "ID", id, 1) {
			t.Errorf("got\n%s, want\n%s", got, test.want)
		}
	}
}

// However many failures there are, each one's evidence is a line that was written, of its kind.
func TestLinesAreLimitedAndEvidenceIsWritten(t *testing.T) {
	t.Parallel()
	r := newReported(t, slog.LevelInfo, "s")
	kinds := map[string]string{} // evidence → what it was given for
	for i := range 1000 {
		status := health.ConnectionFailed
		if i%2 == 0 {
			status = health.Timeout
		}
		kinds[r.report("s", status, health.PhaseConnect)] = status.String()
	}
	lines := r.lines()
	if len(lines) > burst+2 {
		t.Errorf("1000 failures at once wrote %d lines, want about %d", len(lines), burst)
	}
	written := map[string]any{}
	for _, line := range lines {
		written[line["evidence"].(string)] = line["health_status"]
	}
	for id, status := range kinds {
		if written[id] != status {
			t.Errorf("evidence %s of a %s is the line of a %v", id, status, written[id])
		}
	}
	r.at = r.at.Add(time.Second)
	r.out.Reset()
	r.report("s", health.Timeout, health.PhaseConnect)
	if lines := r.lines(); len(lines) != 1 || lines[0]["not_logged_before"].(float64) < 400 {
		t.Errorf("a second later: %v", lines)
	}
}

func TestMadeUpNamesCannotSilenceConfiguredOnes(t *testing.T) {
	t.Parallel()
	r := newReported(t, slog.LevelInfo, "s")
	for i := range 1000 {
		r.report(fmt.Sprint("made-up-", i), health.ServiceUnknown, health.PhaseNone)
	}
	if n := len(r.seen); n != 1 {
		t.Errorf("%d kinds are remembered for made-up names, want 1", n)
	}
	r.out.Reset()
	for range 3 {
		r.report("s", health.ConnectionFailed, health.PhaseConnect)
	}
	if n := len(r.lines()); n != 3 {
		t.Errorf("%d lines about the configured service, want 3", n)
	}
}

func TestServingAgain(t *testing.T) {
	t.Parallel()
	type step struct {
		after  time.Duration
		status health.Status
	}
	for _, test := range []struct {
		name    string
		service string
		steps   []step
		want    string // empty where there is no line
		from    string
		seconds float64
	}{
		{"once", "", []step{{0, health.Serving}, {time.Second, health.NotServing}, {90 * time.Second, health.Serving}},
			"(server) SERVING again after 1m30s, before that NOT_SERVING", "NOT_SERVING", 90},
		{"several statuses", "s", []step{{0, health.Serving}, {time.Second, health.NotServing}, {time.Minute, health.ConnectionFailed}, {time.Hour, health.Serving}},
			"s SERVING again after 1h1m0s, before that CONNECTION_FAILED", "CONNECTION_FAILED", 3660},
		{"down from the start", "s", []step{{0, health.Timeout}, {1500 * time.Millisecond, health.Serving}},
			"s SERVING again after 1.5s, before that TIMEOUT", "TIMEOUT", 1.5},
		{"twice", "s", []step{{0, health.Timeout}, {time.Hour, health.Serving}, {time.Second, health.Unknown}, {2 * time.Second, health.Serving}},
			"s SERVING again after 2s, before that UNKNOWN", "UNKNOWN", 2},
		{"overloaded is no status of the server", "s", []step{{0, health.Serving}, {time.Second, health.Overloaded}, {time.Second, health.Serving}}, "", "", 0},
		{"still serving", "s", []step{{0, health.Serving}, {time.Second, health.Serving}}, "", "", 0},
	} {
		var configured []string
		if test.service != "" {
			configured = []string{test.service}
		}
		r := newReported(t, slog.LevelInfo, configured...)
		for _, s := range test.steps {
			r.at = r.at.Add(s.after)
			r.out.Reset()
			r.report(test.service, s.status, health.PhaseNone)
		}
		lines := r.lines()
		if test.want == "" {
			if len(lines) != 0 {
				t.Errorf("%s: %v, want no line", test.name, lines)
			}
			continue
		}
		if len(lines) != 1 || lines[0]["msg"] != test.want || lines[0]["level"] != "INFO" || lines[0]["previous_status"] != test.from ||
			lines[0]["not_serving_seconds"] != test.seconds || lines[0]["health_status"] != "SERVING" {
			t.Errorf("%s: %v, want %s", test.name, lines, test.want)
		}
	}
}

func TestDebugWritesEveryCheck(t *testing.T) {
	t.Parallel()
	r := newReported(t, slog.LevelDebug, "s")
	for range 100 {
		r.report("s", health.NotServing, health.PhaseNone)
		r.report("s", health.Serving, health.PhaseNone)
	}
	if n := len(r.lines()); n < 200 {
		t.Errorf("%d lines for 200 checks", n)
	}
}
