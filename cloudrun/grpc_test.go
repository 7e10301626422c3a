package main

import (
	"context"
	"crypto/tls"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"example.com/grpc-health-http/test/healthtest"
)

// grpcTo returns a gRPC connection to a port of the proxy, with TLS where config is not nil.
func grpcTo(t *testing.T, address string, config *tls.Config) *grpc.ClientConn {
	t.Helper()
	how := insecure.NewCredentials()
	if config != nil {
		how = credentials.NewTLS(config)
	}
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(how))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// alone asks the method of which the code alone counts.
func alone(ctx context.Context, conn *grpc.ClientConn) codes.Code {
	return aloneFor(ctx, conn, "AWS.ALB")
}

func aloneFor(ctx context.Context, conn *grpc.ClientConn, service string) codes.Code {
	return status.Code(conn.Invoke(ctx, "/"+service+"/healthcheck", new(healthpb.HealthCheckRequest), new(healthpb.HealthCheckRequest)))
}

// The same port answers gRPC without TLS, with TLS, and with client certificates.
func TestGRPCCallers(t *testing.T) {
	t.Parallel()
	ca := healthtest.NewCA(t)
	leaf, client := ca.Server(t), ca.Client(t)
	certificate, err := tls.X509KeyPair(client.CertPEM, client.KeyPEM)
	if err != nil {
		t.Fatal(err)
	}
	https := []string{"GRPC_HEALTH_HTTPS_LISTEN_CERT=" + string(leaf.CertPEM), "GRPC_HEALTH_HTTPS_LISTEN_KEY=" + string(leaf.KeyPEM)}
	mutual := append([]string{"GRPC_HEALTH_HTTPS_LISTEN_CA=" + string(ca.PEM()), "GRPC_HEALTH_HTTPS_LISTEN_VERIFY=true"}, https...)
	trusts := &tls.Config{RootCAs: ca.Pool()}
	known := &tls.Config{RootCAs: ca.Pool(), Certificates: []tls.Certificate{certificate}}
	for name, row := range map[string]struct {
		settings []string
		config   *tls.Config
		code     codes.Code
	}{
		"plaintext":                    {nil, nil, codes.OK},
		"TLS":                          {https, trusts, codes.OK},
		"mutual TLS":                   {mutual, known, codes.OK},
		"without a client certificate": {mutual, trusts, codes.Unavailable},
		"plaintext to a TLS port":      {https, nil, codes.Unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			up := healthtest.Start(t)
			p := start(t, row.settings, "-grpc-addr="+up.Addr())
			conn := grpcTo(t, p.health, row.config)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			out, err := healthpb.NewHealthClient(conn).Check(ctx, new(healthpb.HealthCheckRequest))
			if status.Code(err) != row.code || err == nil && out.GetStatus() != healthpb.HealthCheckResponse_SERVING {
				t.Errorf("Check: %v, %v", out, err)
			}
			if code := alone(ctx, conn); code != row.code {
				t.Errorf("the code alone: %v", code)
			}
			if row.code != codes.OK {
				return
			}
			up.Stop()
			_, err = healthpb.NewHealthClient(conn).Check(ctx, new(healthpb.HealthCheckRequest))
			if status.Code(err) != codes.Unavailable || status.Convert(err).Message() != "CONNECTION_FAILED, phase connect" {
				t.Errorf("Check without the upstream: %v", err)
			}
			if code := alone(ctx, conn); code != codes.Unavailable {
				t.Errorf("the code alone without the upstream: %v", code)
			}
			metrics := p.scrape()
			for _, series := range []string{
				`grpc_health_check_seconds_count{code="200",path="/grpc.health.v1.Health/Check"} 2`,
				`grpc_health_check_seconds_count{code="200",path="/AWS.ALB/healthcheck"} 2`,
			} {
				if !strings.Contains(metrics, series) {
					t.Errorf("the metrics have no %s", series)
				}
			}
			// The metrics port speaks HTTP/2 too, but no gRPC.
			if code := alone(ctx, grpcTo(t, p.metrics, nil)); code != codes.Unimplemented { // which a client makes of 404
				t.Errorf("the metrics port: %v", code)
			}
		})
	}
}

// Tokens and a deadline of the caller's own hold for gRPC as for HTTP; a deadline that has passed is no failure of the upstream.
func TestGRPCCallersTokenAndDeadline(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	up.SetStatus("slow", healthpb.HealthCheckResponse_SERVING)
	file := filepath.Join(t.TempDir(), "token")
	writeFile(t, file, []byte("the-right-token"))
	p := start(t, nil, "-grpc-addr="+up.Addr(), "-service-name=slow", "-http-auth-token-file="+file)
	p.secret("the-right-token")
	conn := grpcTo(t, p.health, nil)
	checks := healthpb.NewHealthClient(conn)
	for token, want := range map[string]codes.Code{"": codes.Unauthenticated, "Bearer wrong-token": codes.Unauthenticated, "Bearer the-right-token": codes.OK} {
		ctx := t.Context()
		if token != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, "authorization", token)
		}
		if _, err := checks.Check(ctx, new(healthpb.HealthCheckRequest)); status.Code(err) != want {
			t.Errorf("token %q: %v", token, err)
		}
		if code := alone(ctx, conn); code != want {
			t.Errorf("token %q, the code alone: %v", token, code)
		}
	}
	defer up.Hang("slow")()
	allowed := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer the-right-token")
	for range 3 {
		brief, cancel := context.WithTimeout(allowed, 100*time.Millisecond)
		if _, err := checks.Check(brief, new(healthpb.HealthCheckRequest)); status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("a brief deadline: %v", err)
		}
		cancel()
	}
	metrics := p.scrape()
	for _, series := range []string{`grpc_health_check_up{service_name="slow"} 1`, `grpc_health_check_rejected_total{reason="token"} 4`} {
		if !strings.Contains(metrics, series) {
			t.Errorf("the metrics have no %s", series)
		}
	}
	if log := p.log(); strings.Contains(log, "TIMEOUT") {
		t.Errorf("the log has a warning:\n%s", tail(log))
	}
	// Without a deadline the budget ends the wait, and log and metrics have it.
	if _, err := checks.Check(allowed, new(healthpb.HealthCheckRequest)); status.Code(err) != codes.DeadlineExceeded || status.Convert(err).Message() != "TIMEOUT, phase rpc" {
		t.Errorf("no deadline: %v", err)
	}
	if !strings.Contains(p.scrape(), `grpc_health_check_up{service_name="slow"} 0`) || !strings.Contains(p.log(), "TIMEOUT") {
		t.Error("a time-out is not told")
	}
}

// A gRPC call that is in progress when the proxy is told to end is answered.
func TestGRPCCallersAndTheEnd(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	up.SetStatus("slow", healthpb.HealthCheckResponse_SERVING)
	up.SetDelay("", 500*time.Millisecond)
	up.SetDelay("slow", 500*time.Millisecond)
	p := start(t, nil, "-grpc-addr="+up.Addr())
	conn := grpcTo(t, p.health, nil)
	answered := make(chan error, 2)
	go func() {
		_, err := healthpb.NewHealthClient(conn).Check(t.Context(), new(healthpb.HealthCheckRequest))
		answered <- err
	}()
	go func() {
		if code := aloneFor(t.Context(), conn, "slow"); code != codes.OK {
			answered <- status.Error(code, "the code alone")
			return
		}
		answered <- nil
	}()
	eventually(t, "the upstream is asked", func() bool { return up.InFlightFor("") > 0 && up.InFlightFor("slow") > 0 })
	if code := p.signalled(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d", code)
	}
	for range 2 {
		if err := <-answered; err != nil {
			t.Error(err)
		}
	}
}
