package main

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"example.com/grpc-health-http/test/healthtest"
)

// What a server says does nothing to the terminal of somebody who runs the probe, and has no secret in it.
func TestOutsideTextIsInert(t *testing.T) {
	t.Parallel()
	const secret = "s3cret-of-the-probe"
	up := healthtest.Start(t)
	up.HandleUnknown(func(ctx context.Context, name string) (*healthpb.HealthCheckResponse, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		switch name {
		case "huge":
			return nil, status.Error(codes.Internal, strings.Repeat("x", 15<<20))
		case "gone", "s3cret-of-the-prob":
			return &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVICE_UNKNOWN}, nil
		}
		return nil, status.Error(codes.Internal, fmt.Sprintf("\x00\x1b[2J\a\r\nstatus: SERVING\n\u0085\u2028\u2029\u202e\u2066\u200b\ufeff\xff %q", map[string][]string(md))+strings.Repeat("\u202e", 5000))
	})
	up.HandleList(func(context.Context) (*healthpb.HealthListResponse, error) {
		return &healthpb.HealthListResponse{Statuses: map[string]*healthpb.HealthCheckResponse{"gone\u202e": {}, "gone" + strings.Repeat("\u200b", 3): {}, secret: {}}}, nil
	})
	for _, args := range [][]string{
		{"-service=a"}, {"-service=a", "-v"}, {"-service=a", "-v", "-format=json"}, {"-service=huge", "-v"}, {"-service=gone"}, {"-service=s3cret-of-the-prob"}, {"-service=a\u202e"}, {"-\x1b"}, {"stray\x1b"}, {"-tls", "-tls-ca-cert=\x1b\u202e"},
	} {
		var stdout, stderr bytes.Buffer
		if code := run(t.Context(), append([]string{"-addr=" + up.Addr(), "-rpc-timeout=20s", "-rpc-header=authorization: Bearer " + secret}, args...), &stdout, &stderr); code == exitServing && args[0] != "stray\x1b" {
			t.Errorf("%q: exit code %d", args, code)
		}
		out := stdout.String() + stderr.String()
		for i, r := range out {
			if _, size := utf8.DecodeRuneInString(out[i:]); r == utf8.RuneError && size == 1 || r != '\n' && unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp) {
				t.Errorf("%q: %U in %q", args, r, out[max(0, i-40):min(len(out), i+40)])
				break
			}
		}
		if forged := strings.Contains(out, "\nstatus: SERVING") && !strings.HasPrefix(args[0], "stray"); forged || strings.Contains(out, secret) || len(out) > 10<<10 {
			t.Errorf("%q: %d bytes: %.2000s", args, len(out), out)
		}
	}
}
