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
	r.reporter = newReporter(slog.New(slog.NewJSONHandler(r.out, &slog.HandlerOptions{Level: level})), configured)
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
		for key, want := range map[string]string{"service": "s", "status": status.String(), "phase": "rpc", "grpc_code": "UNAVAILABLE", "cause": "a cause"} {
			if lines[0][key] != want {
				t.Errorf("%v: %s is %v, want %s", status, key, lines[0][key], want)
			}
		}
		if attempts, ok := lines[0]["attempts"].([]any); !ok || len(attempts) != 1 || !strings.Contains(attempts[0].(string), "a result") {
			t.Errorf("%v: attempts %v", status, lines[0]["attempts"])
		}
		if level := lines[0]["level"]; level != "INFO" && level != "WARN" {
			t.Errorf("%v: level %v", status, level)
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
		written[line["evidence"].(string)] = line["status"]
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
	r := newReported(t, slog.LevelInfo) // the whole server
	r.report("", health.Serving, health.PhaseNone)
	r.report("", health.NotServing, health.PhaseNone)
	r.report("", health.Serving, health.PhaseNone)
	r.report("", health.Serving, health.PhaseNone)
	lines := r.lines()
	if len(lines) != 2 || lines[1]["msg"] != "serving again" {
		t.Errorf("lines %v, want the failure and one that it is over", lines)
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
