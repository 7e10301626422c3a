package app

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
	"time"

	"example.com/grpc-health-http/internal/settings"
)

func TestCertificatesEndSoon(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	var log bytes.Buffer
	now := time.Unix(1795083330, 0)
	all := newReports(slog.New(slog.NewJSONHandler(&log, nil)))
	all.now = func() time.Time { return now }
	c := certificates{of: newReporter(all, &settings.Target{Upstream: settings.Upstream{Addr: "grpc.example.com:443"}})}
	start := now
	for _, step := range []struct {
		after time.Duration // since the start
		whose string
		left  time.Duration // since then
		want  string        // the certificates that the log tells of
	}{
		{0, "upstream", 90 * day, ""},
		{0, "upstream", 14 * day, ""},
		{0, "upstream", 14*day - time.Second, "upstream ends soon 14"},
		{0, "upstream", 13 * day, "upstream ends soon 13"}, // another one
		{time.Second, "upstream", 13*day - time.Second, ""},
		{time.Hour - 1, "upstream", 13*day - time.Hour + 1, ""},
		{time.Hour, "upstream", 13*day - time.Hour, "upstream ends soon 12.958"},
		{5 + time.Hour, "client", -time.Hour, "client has ended -0.042"},
		{6 + time.Hour, "upstream", 20 * day, ""},
		// The client's was seen once, and is reported again with the upstream's.
		{5 + 2*time.Hour, "upstream", 20*day - time.Hour + 1, "client has ended -0.083"},
		{6 + 2*time.Hour, "client", 90 * day, ""},
		{6 + 4*time.Hour, "upstream", 19 * day, ""},
	} {
		log.Reset()
		now = start.Add(step.after)
		c.seen(step.whose, now.Add(step.left))
		var got string
		for line := range strings.Lines(log.String()) {
			var l struct {
				Level, Msg, Upstream, Certificate string
				Left                              json.Number `json:"certificate_days_left"`
			}
			if err := json.Unmarshal([]byte(line), &l); err != nil {
				t.Fatal(err)
			}
			if l.Level != "WARN" || l.Upstream != "grpc.example.com:443" || !strings.HasPrefix(l.Msg, "the "+l.Certificate+"'s certificate ") {
				t.Errorf("line %s", line)
			}
			got += strings.Replace(strings.TrimPrefix(l.Msg, "the "), "'s certificate", "", 1) + " " + l.Left.String()
		}
		if got != step.want {
			t.Errorf("%+v: the log tells %q", step, got)
		}
	}
}
