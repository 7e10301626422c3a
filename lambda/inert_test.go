//go:build linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"unicode"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"example.com/grpc-health-http/test/healthtest"
)

// What an upstream and a caller say is inert in results, the log and CloudWatch's lines, and what was sent is in none of them.
func TestOutsideTextIsInert(t *testing.T) {
	t.Parallel()
	const secret = "s3cret-of-lambda"
	const hostile = "\x00\x1b[2J\a\r\n\u0085\u2028\u2029\u202e\u2066\u200b\ufeff"
	up := healthtest.Start(t)
	up.HandleUnknown(func(ctx context.Context, name string) (*healthpb.HealthCheckResponse, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		if name == "huge" {
			return nil, status.Error(codes.Internal, strings.Repeat("x", 15<<20))
		}
		return nil, status.Error(codes.Internal, fmt.Sprintf("%s \xff %q", hostile, map[string][]string(md))+strings.Repeat("\u202e", 5000))
	})
	up.HandleList(func(context.Context) (*healthpb.HealthListResponse, error) {
		return &healthpb.HealthListResponse{Statuses: map[string]*healthpb.HealthCheckResponse{
			hostile: {Status: healthpb.HealthCheckResponse_SERVING}, strings.Repeat("\u202e", 5000): {}, secret: {Status: healthpb.HealthCheckResponse_SERVING},
		}}, nil
	})
	d := deploy(t, "GRPC_HEALTH_ADDR="+up.Addr(), "GRPC_HEALTH_ALLOW_LIST=true", "GRPC_HEALTH_RPC_TIMEOUT=20s", "GRPC_HEALTH_LOG_LEVEL=debug",
		"GRPC_HEALTH_RPC_HEADERS=authorization: Bearer "+secret)
	check := func(what, text string) {
		t.Helper()
		for _, r := range text {
			if unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp) && r != '\n' && r != '\t' {
				t.Errorf("%s: %U in %.300q", what, r, text)
				return
			}
		}
		if strings.Contains(text, secret) {
			t.Errorf("%s: the secret in %.300q", what, text)
		}
	}
	for _, query := range []string{"list", "service=huge", "service=" + url.QueryEscape("\u2028\u202e\ufeff"), "service=a"} {
		for _, format := range []string{"text", "json", "html"} {
			r := d.get(query+"&format="+format, "")
			check(query+" "+format, r.Body+fmt.Sprint(r.Headers))
		}
	}
	for _, payload := range []string{`{"service":"a"}`, `{"service":"\u2028\u202e"}`, `{"\u202e":1}`, "\"\u202e\"", `{"service":"\u0000"}`} {
		check(payload, d.invoke(payload))
	}
	for what, lines := range map[string]string{"stdout": d.stdout.String(), "stderr": d.stderr.String()} {
		for line := range strings.Lines(lines) {
			check(what, strings.TrimSuffix(line, "\n"))
			var decoded any
			if err := json.Unmarshal([]byte(line), &decoded); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			check(what+", decoded", fmt.Sprint(decoded))
			if len(line) > 16<<10 {
				t.Errorf("%s: a line of %d bytes", what, len(line))
			}
		}
	}
}
