package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"example.com/grpc-health-http/test/healthtest"
)

// Whole runs in which much is wrong print no key, no token and no header's value: not in the log, at its finest,
// nor in an answer, nor in the metrics. Where TestRotationUnderLoad and the manual go right, files hold
// something else here, the upstream quotes what it was sent, and callers send secrets to the wrong place.
func TestNoSecretIsPrinted(t *testing.T) {
	t.Parallel()
	ca := healthtest.NewCA(t)
	client, other := ca.Client(t), ca.Client(t)
	dir := t.TempDir()
	file := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		writeFile(t, path, content)
		return path
	}
	const value, token, presented = "s3cret-of-the-upstream", "t0ken-of-the-callers", "a-presented-t0ken"
	up := healthtest.Start(t, healthtest.TLS(ca.MutualTLS(t)))
	up.HandleUnknown(func(ctx context.Context, name string) (*healthpb.HealthCheckResponse, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		return nil, status.Errorf(codes.Internal, "%s: %v", name, map[string][]string(md)) // an MD itself prints no values
	})
	right := file("ca.pem", ca.PEM())
	cert, key := file("client.crt", client.CertPEM), file("client.key", client.KeyPEM)
	for name, args := range map[string][]string{
		"as it should be":            {"-grpc-ca-cert=" + right, "-grpc-client-cert=" + cert, "-grpc-client-key=" + key, "-http-auth-token-file=" + file("token", []byte(token))},
		"key for authority":          {"-grpc-ca-cert=" + key, "-grpc-client-cert=" + cert, "-grpc-client-key=" + key},
		"key for certificate":        {"-grpc-ca-cert=" + right, "-grpc-client-cert=" + key, "-grpc-client-key=" + cert},
		"another key":                {"-grpc-ca-cert=" + right, "-grpc-client-cert=" + cert, "-grpc-client-key=" + file("other.key", other.KeyPEM)},
		"half a key":                 {"-grpc-ca-cert=" + right, "-grpc-client-cert=" + cert, "-grpc-client-key=" + file("half.key", client.KeyPEM[:150])},
		"key for token":              {"-grpc-ca-cert=" + right, "-http-auth-token-file=" + key},
		"PEM text and key for value": {"-grpc-ca-cert=" + string(ca.PEM()), "-grpc-client-cert=" + string(client.CertPEM), "-grpc-client-key=" + string(client.KeyPEM), "-rpc-header=x-pem: @" + key},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := start(t, []string{"GRPC_HEALTH_RPC_HEADERS=x-key: " + value + "\nauthorization: Bearer " + value}, append(args, "-grpc-addr="+up.Addr(), "-grpc-tls", "-log-level=debug")...)
			p.secret(value, token, presented, base64.StdEncoding.EncodeToString([]byte("user:"+presented)))
			for _, content := range [][]byte{client.CertPEM, client.KeyPEM, other.KeyPEM, client.KeyPEM[:150], ca.PEM()} {
				p.secretPEM(content)
			}
			for _, headers := range [][]string{
				nil, {"Authorization: Bearer " + token}, {"Authorization: Bearer " + presented}, {"Authorization: " + presented},
				{"Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("user:"+presented))}, {"Authorization: Basic " + presented},
				{"Cookie: " + presented, "X-Api-Key: " + presented, "Traceparent: " + presented, "Accept: " + presented},
			} {
				for _, target := range []string{"/", "/?service=quoting&format=json", "/?format=html&token=" + presented, "/" + presented, "/?format=" + presented, "/?%" + presented} {
					if _, err := p.dial().get(target, headers...); err != nil {
						t.Error(err)
					}
				}
			}
			_, _ = p.dial().ask("GET / HTTP/1.1\r\nHost: test\r\n" + presented + "\r\n\r\n") // an error is an answer, too
			p.scrape()
			p.signalled(os.Interrupt)
		})
	}
}

// Each target's secrets are taken out of what its server says, however many targets there are, and names that are none of theirs are not.
func TestSecretsOfManyTargets(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	up.HandleUnknown(func(ctx context.Context, name string) (*healthpb.HealthCheckResponse, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		return nil, status.Errorf(codes.Internal, "%s: %v", name, map[string][]string(md))
	})
	const targets = 9 // more than the values that are known of one secret
	secret := func(i int) string { return fmt.Sprintf("s3cret-%d-of-the-upstream", i) }
	content := "targets:\n"
	for i := range targets {
		content += fmt.Sprintf("  t%d: {addr: %q, service_name: [quotes-%[1]d], rpc_headers: {x-key: %[3]q, authorization: %[4]q}, rpc_timeout: 10s}\n", i, up.Addr(), secret(i), "Bearer "+secret(i+targets))
	}
	p := start(t, nil, "-targets-file="+targetsFile(t, content), "-show-cause", "-log-level=debug")
	for i := range 2 * targets {
		p.secret(secret(i))
	}
	for range 2 { // also when all are known
		for i := range targets {
			p.wantAnswer(p.health, fmt.Sprintf("/?target=t%d&format=json", i), 503, fmt.Sprintf("quotes-%d: ", i))
		}
	}
	p.wantAnswer(p.health, "/?format=json", 503, "(redacted)")
	p.wantAnswer(p.health, "/?target=t3&format=html", 503, "(redacted)")
	p.scrape()
	p.signalled(os.Interrupt)
}
