package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	neturl "net/url"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"example.com/grpc-health-http/test/healthtest"
)

// hostile has a text of each kind that must not come out as it is.
var hostile = []string{
	"a\nlevel=INFO msg=forged", "a\r\nX-Forged: 1\r\n\r\n", "a\tb", "nul\x00", "\x1b]0;title\a\x1b[31mred", "\x7f", "\u0085next", "\u009b31m", "\u2028", "\u2029",
	"\u202egnp.exe", "\u2066x\u2069", "\u200b", "\ufeff", "\u00ad", "\U000e0041", "<script>\u2028</script>",
}

// active is the first character of a text that must not come out, ok aside.
func active(text, ok string) string {
	for i, r := range text {
		if _, size := utf8.DecodeRuneInString(text[i:]); r == utf8.RuneError && size == 1 ||
			unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp) && !strings.ContainsRune(ok, r) {
			return fmt.Sprintf("%U in %q", r, text[max(0, i-40):min(len(text), i+40)])
		}
	}
	return ""
}

// strs calls f with every string in a JSON value, keys included.
func strs(value any, f func(string)) {
	switch v := value.(type) {
	case string:
		f(v)
	case []any:
		for _, e := range v {
			strs(e, f)
		}
	case map[string]any:
		for k, e := range v {
			f(k)
			strs(e, f)
		}
	}
}

func inertJSON(t *testing.T, what, text string) {
	t.Helper()
	var value any
	if err := json.Unmarshal([]byte(text), &value); err != nil {
		t.Fatalf("%s: %v in %.300q", what, err, text)
	}
	strs(value, func(s string) {
		if found := active(s, ""); found != "" {
			t.Errorf("%s: %s", what, found)
		}
	})
}

// hostileUpstream answers every name with a message of its number in hostile, "huge" with one of 15 MB; and its List is of hostile names.
func hostileUpstream(t *testing.T) *healthtest.Upstream {
	t.Helper()
	up := healthtest.Start(t)
	up.HandleUnknown(func(_ context.Context, name string) (*healthpb.HealthCheckResponse, error) {
		if name == "huge" {
			return nil, status.Error(codes.Internal, strings.Repeat("x", 15<<20))
		}
		return nil, status.Error(codes.Internal, strings.Join(hostile, " ")+" not UTF-8: \xff\xc3 "+name+strings.Repeat("\u202e", 2000))
	})
	up.HandleList(func(context.Context) (*healthpb.HealthListResponse, error) {
		statuses := map[string]*healthpb.HealthCheckResponse{strings.Repeat("\u202e", 5000): {}}
		for _, name := range hostile {
			statuses[name] = &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_NOT_SERVING}
		}
		return &healthpb.HealthListResponse{Statuses: statuses}, nil
	})
	return up
}

// What an upstream or a caller says comes out of no answer, no header and no log with anything that a terminal, a browser or a
// log viewer would obey.
func TestOutsideTextIsInert(t *testing.T) {
	t.Parallel()
	up := hostileUpstream(t)
	for _, format := range []string{"text", "json"} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			p := start(t, []string{"GRPC_HEALTH_ALLOW_LIST=true"}, "-grpc-addr="+up.Addr(), "-log-level=debug", "-log-format="+format)
			targets := []string{"/?list", "/?service=huge", "/\u202e%00%0d%0aX:1", "/?format=%1b%e2%80%ae", "/?service=%e2%80"}
			for _, name := range hostile {
				targets = append(targets, "/?service="+neturl.QueryEscape(name))
			}
			for _, target := range targets {
				for _, body := range []string{"text", "json", "html"} {
					if !strings.Contains(target, "?format") {
						target, _, _ = strings.Cut(target, "&format")
						separator := "&"
						if !strings.Contains(target, "?") {
							separator = "?"
						}
						target += separator + "format=" + body
					}
					r, err := p.dial().get(target, "Accept: \u202e", "Traceparent: 00-\u2028")
					if err != nil {
						t.Fatalf("%q: %v", target, err)
					}
					if body == "json" && r.header.Get("Content-Type") == "application/json" {
						inertJSON(t, target, r.body)
					}
					if found := active(r.body, "\n\t"); found != "" {
						t.Errorf("%q: %s", target, found)
					}
					for name, values := range r.header {
						if found := active(name+strings.Join(values, ","), ""); found != "" || strings.EqualFold(name, "X-Forged") {
							t.Errorf("%q: header %q: %s", target, name, found)
						}
					}
				}
			}
			log := p.log()
			if strings.Count(log, "forged") == 0 || !strings.Contains(log, "(cut)") {
				t.Errorf("the log does not have what the upstream said: %s", tail(log))
			}
			for line := range strings.Lines(log) {
				if len(line) > 16<<10 {
					t.Errorf("a line of %d bytes", len(line))
				}
				if found := active(line, "\n"); found != "" || strings.HasPrefix(line, "level=") || strings.HasPrefix(line, "X-Forged") {
					t.Errorf("the log: %s: %.100q", found, line)
				}
				if format == "json" {
					inertJSON(t, "the log", line)
				}
			}
		})
	}
}

// One request for many services causes no more than 64 KiB of log.
func TestLogOfOneRequestIsBounded(t *testing.T) {
	t.Parallel()
	up := hostileUpstream(t)
	p := start(t, nil, "-grpc-addr="+up.Addr(), "-log-level=debug")
	before := len(p.log())
	var query []string
	for i := range 100 {
		query = append(query, fmt.Sprintf("service=s%d", i))
	}
	if _, err := p.dial().get("/?" + strings.Join(query, "&")); err != nil {
		t.Fatal(err)
	}
	if n := len(p.log()) - before; n > 64<<10 || n < 32<<10 {
		t.Errorf("%d bytes of log", n)
	}
}

func TestOutsideTextIsInertOnce(t *testing.T) {
	t.Parallel()
	up := hostileUpstream(t)
	for _, args := range [][]string{
		{"-service-name=a"}, {"-service-name=huge"}, {"-service-name=a", "-format=json"}, {"-service-name=a", "-log-format=json"}, {"-service-name=a,level="},
		{"-service-name=a\x1b[2J\u202e"}, {"-\x1b[2J\u202e"}, {"-log-level=\x1b[2J"}, {"stray\x1b\u202e"}, {"-grpc-ca-cert=/nowhere/\x1b[2J\u202e", "-grpc-tls"},
		{"-logTarget=/nowhere/\x1b[2J\u202e"}, {"-grpc-addr=\x1b[2J\u202e:1"},
	} {
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), append([]string{"-runcli", "-grpc-addr=" + up.Addr()}, args...), &stdout, &stderr)
		if code == exitServing {
			t.Errorf("%q: exit code %d", args, code)
		}
		for _, out := range []string{stdout.String(), stderr.String()} {
			if found := active(out, "\n"); found != "" {
				t.Errorf("%q: %s", args, found)
			}
		}
		if slices.Contains(args, "-format=json") {
			inertJSON(t, "standard output", stdout.String())
		}
		if stdout.Len()+stderr.Len() > 20<<10 {
			t.Errorf("%q: %d bytes", args, stdout.Len()+stderr.Len())
		}
	}
}
