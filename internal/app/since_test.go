package app

import (
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/internal/settings"
	"example.com/grpc-health-http/test/healthtest"
)

func TestSince(t *testing.T) {
	t.Parallel()
	s := newStatusSince([]string{"a", "b"})
	for second, test := range []struct {
		service string
		status  health.Status
		since   int // seconds; -1 where it is not remembered
		changed bool
	}{
		{"a", health.Serving, 0, false},
		{"a", health.Serving, 0, false},
		{"b", health.Timeout, 2, false},
		{"a", health.NotServing, 3, true},
		{"a", health.NotServing, 3, false},
		{"a", health.Serving, 5, true},
		{"b", health.Timeout, 2, false},
		{"c", health.ServiceUnknown, -1, false},
		{"d", health.Serving, 8, false}, // the server knows it
		{"d", health.Overloaded, -1, false},
		{"d", health.Serving, 8, false},
		{"d", health.ConnectionFailed, 11, true},
		{"", health.ConnectionFailed, -1, false},
	} {
		v := health.Verdict{Service: test.service, Status: test.status, At: time.Unix(int64(second), 0), Asked: test.status == health.Serving}
		since, c := s.update(v)
		want := time.Unix(int64(test.since), 0)
		if test.since < 0 {
			want = time.Time{}
		}
		if c.changed != test.changed || !since.Equal(want) {
			t.Errorf("%d, %s %v: since %v, changed %v, want %v, %v", second, test.service, test.status, since, c.changed, want, test.changed)
		}
	}
}

// TestPage shows what the handler's page takes from the app: since when, and the upstream's certificate, also
// where nobody trusts it.
func TestPage(t *testing.T) {
	t.Parallel()
	ca := healthtest.NewCA(t)
	certificate := ca.ServerTLS(t, healthtest.ValidUntil(time.Now().Add(40*24*time.Hour+time.Hour)))
	up := healthtest.Start(t, healthtest.TLS(certificate))
	plain := healthtest.Start(t)
	for name, test := range map[string]struct {
		s           settings.Settings
		word        string
		certificate string
	}{
		"plaintext":     {settings.Settings{Upstream: settings.Upstream{Addr: plain.Addr()}}, "Serving", "none seen"},
		"trusted":       {settings.Settings{Upstream: settings.Upstream{Addr: up.Addr(), TLS: true, CACert: ca.WriteFile(t, t.TempDir(), "ca")}}, "Serving", "40 days left"},
		"not trusted":   {settings.Settings{Upstream: settings.Upstream{Addr: up.Addr(), TLS: true, CACert: healthtest.NewCA(t).WriteFile(t, t.TempDir(), "ca")}}, "Connection failed", "40 days left"},
		"never reached": {settings.Settings{Upstream: settings.Upstream{Addr: up.Addr(), TLS: true, CACert: t.TempDir() + "/missing"}}, "Connection failed", "none seen"},
	} {
		test.s.ConnectTimeout, test.s.RPCTimeout = 10*time.Second, 10*time.Second
		a, _ := newApp(t, test.s, Platform{})
		for range 2 {
			recorder := httptest.NewRecorder()
			a.Handler.ServeHTTP(recorder, httptest.NewRequest("GET", "/?format=html", nil))
			page := recorder.Body.String()
			for _, want := range []string{">" + test.word + "</h1>", ">" + test.certificate + "<", "Since <time"} {
				if !strings.Contains(page, want) {
					t.Errorf("%s: %q is missing", name, want)
				}
			}
		}
	}
}
