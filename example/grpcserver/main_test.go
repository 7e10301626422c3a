package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"example.com/grpc-health-http/test/healthtest"
)

// patience bounds every wait.
const patience = 30 * time.Second

// asServer is the variable that makes this test's binary run the server.
const asServer = "GRPCSERVER_TEST_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(asServer) != "" {
		main()
	}
	os.Exit(m.Run())
}

// server is the command, in a process of its own.
type server struct {
	t       *testing.T
	cmd     *exec.Cmd
	lines   chan string // of standard error; closed when it ends
	address string
}

// start starts the server, and returns when it listens.
func start(t *testing.T, args ...string) *server {
	t.Helper()
	s := &server{t: t, cmd: exec.Command(os.Args[0], args...), lines: make(chan string, 100)}
	s.cmd.Env = append(os.Environ(), asServer+"=1")
	stderr, err := s.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if s.cmd.ProcessState == nil {
			s.cmd.Process.Kill()
			s.cmd.Wait()
		}
	})
	go func() {
		defer close(s.lines)
		for scanner := bufio.NewScanner(stderr); scanner.Scan(); {
			s.lines <- scanner.Text()
		}
	}()
	first := s.line()
	address, ok := strings.CutPrefix(first, "gRPC server listening on ")
	if !ok {
		t.Fatalf("printed %q", first)
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	s.address = net.JoinHostPort("127.0.0.1", port)
	return s
}

// line returns the next line, or "" at the end.
func (s *server) line() string {
	s.t.Helper()
	select {
	case line := <-s.lines:
		return line
	case <-time.After(patience):
		s.t.Fatal("nothing printed")
		return ""
	}
}

func (s *server) signal(sig os.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

// client returns a client of the server. It is plaintext if config is nil.
func (s *server) client(config *tls.Config) healthpb.HealthClient {
	s.t.Helper()
	creds := insecure.NewCredentials()
	if config != nil {
		creds = credentials.NewTLS(config)
	}
	conn, err := grpc.NewClient(s.address, grpc.WithTransportCredentials(creds))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() })
	return healthpb.NewHealthClient(conn)
}

// check returns the name of the serving status, or of the gRPC code.
func check(client healthpb.HealthClient, service string) string {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	response, err := client.Check(ctx, &healthpb.HealthCheckRequest{Service: service})
	if err != nil {
		return status.Code(err).String()
	}
	return response.GetStatus().String()
}

func want(t *testing.T, client healthpb.HealthClient, service, wanted string) {
	t.Helper()
	if got := check(client, service); got != wanted {
		t.Errorf("check of %q: got %s, want %s", service, got, wanted)
	}
}

func TestServesPlaintext(t *testing.T) {
	t.Parallel()
	for _, address := range []string{":0", "0.0.0.0:0", "localhost:0"} {
		client := start(t, "--grpcport", address, "--insecure").client(nil)
		want(t, client, "", "SERVING")
		want(t, client, echoService, "SERVING")
		want(t, client, "other", "NotFound")
		list, err := client.List(t.Context(), &healthpb.HealthListRequest{})
		if err != nil {
			t.Fatal(err)
		}
		for _, service := range []string{"", echoService} {
			if got := list.GetStatuses()[service].GetStatus(); got != healthpb.HealthCheckResponse_SERVING || len(list.GetStatuses()) != 2 {
				t.Errorf("List: got %v", list)
			}
		}
		stream, err := client.Watch(t.Context(), &healthpb.HealthCheckRequest{})
		if err == nil {
			_, err = stream.Recv()
		}
		if status.Code(err) != codes.Unimplemented {
			t.Errorf("Watch: got %v", err)
		}
	}
}

func TestIsUnhealthyAtRandom(t *testing.T) {
	t.Parallel()
	const checks = 200
	for _, c := range []struct {
		flag     string
		min, max int
	}{
		{"--unhealthyproability=0", 0, 0},
		{"--unhealthyprobability=50", 1, checks - 1}, // fails once in 2^199 runs
		{"--unhealthyproability=100", checks, checks},
	} {
		t.Run(c.flag, func(t *testing.T) {
			t.Parallel()
			client := start(t, "--grpcport", "localhost:0", "--insecure", c.flag).client(nil)
			unhealthy := 0
			for range checks {
				switch got := check(client, echoService); got {
				case "NOT_SERVING":
					unhealthy++
				case "SERVING":
				default:
					t.Fatalf("got %s", got)
				}
			}
			if unhealthy < c.min || unhealthy > c.max {
				t.Errorf("unhealthy %d times of %d", unhealthy, checks)
			}
			want(t, client, "", "SERVING")
		})
	}
}

func TestServesTLS(t *testing.T) {
	t.Parallel()
	ca, dir := healthtest.NewCA(t), t.TempDir()
	certFile, keyFile := ca.Server(t).WriteFiles(t, dir, "server")
	caFile := ca.WriteFile(t, dir, "CA")
	trusting := &tls.Config{RootCAs: ca.Pool()}
	identified := &tls.Config{RootCAs: ca.Pool(), Certificates: []tls.Certificate{ca.Client(t).TLS}}
	foreign := &tls.Config{RootCAs: ca.Pool(), Certificates: []tls.Certificate{healthtest.NewCA(t).Client(t).TLS}}

	plain := start(t, "--grpcport", "localhost:0", "--tlsCert", certFile, "--tlsKey="+keyFile)
	want(t, plain.client(trusting), echoService, "SERVING")
	want(t, plain.client(nil), echoService, "Unavailable")
	want(t, plain.client(&tls.Config{RootCAs: healthtest.NewCA(t).Pool()}), echoService, "Unavailable")

	mutual := start(t, "--grpcport", "localhost:0", "--tlsCert", certFile, "--tlsKey", keyFile, "--backendMTLS", "--mtlsBackendCA", caFile)
	want(t, mutual.client(identified), echoService, "SERVING")
	want(t, mutual.client(trusting), echoService, "Unavailable")
	want(t, mutual.client(foreign), echoService, "Unavailable")
}

func TestFailsClearly(t *testing.T) {
	t.Parallel()
	ca, dir := healthtest.NewCA(t), t.TempDir()
	certFile, keyFile := ca.Server(t).WriteFiles(t, dir, "server")
	_, otherKey := ca.Server(t).WriteFiles(t, dir, "other")
	missing := filepath.Join(dir, "missing.pem")
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { taken.Close() })
	secure := []string{"--tlsCert", certFile, "--tlsKey", keyFile}
	with := func(more ...string) []string { return append(append([]string(nil), secure...), more...) }
	for _, c := range []struct {
		name string
		args []string
		code int
		says []string
	}{
		{"help", []string{"-help"}, 0, []string{"-grpcport", "-unhealthyproability", "-unhealthyprobability"}},
		{"no TLS files", nil, exitUsage, []string{"--tlsCert", "--tlsKey", "--insecure"}},
		{"no key", []string{"--tlsCert", certFile}, exitUsage, []string{"--tlsKey is missing"}},
		{"all problems at once", []string{"--insecure", "--tlsCert", certFile, "--grpcport", "50051", "--unhealthyproability", "101", "more"},
			exitUsage, []string{"--insecure", "--grpcport", "--unhealthyproability", `"more"`}},
		{"below 0", []string{"--insecure", "--unhealthyprobability", "-1"}, exitUsage, []string{"from 0"}},
		{"mTLS without CA", with("--backendMTLS"), exitUsage, []string{"--mtlsBackendCA"}},
		{"CA without mTLS", with("--mtlsBackendCA", certFile), exitUsage, []string{"--backendMTLS"}},
		{"unknown flag", []string{"--tls"}, exitUsage, []string{"-tls"}},
		{"certificate missing", []string{"--tlsCert", missing, "--tlsKey", keyFile}, exitFailed, []string{"--tlsCert", missing}},
		{"other key", []string{"--tlsCert", certFile, "--tlsKey", otherKey}, exitFailed, []string{"--tlsKey", otherKey, "does not match"}},
		{"CA missing", with("--backendMTLS", "--mtlsBackendCA", missing), exitFailed, []string{"--mtlsBackendCA", missing}},
		{"CA file without a certificate", with("--backendMTLS", "--mtlsBackendCA", keyFile), exitFailed, []string{"--mtlsBackendCA", "no PEM certificate"}},
		{"port taken", []string{"--insecure", "--grpcport", taken.Addr().String()}, exitFailed, []string{"--grpcport", "in use"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			var stderr bytes.Buffer
			if code := run(ctx, c.args, nil, &stderr); code != c.code {
				t.Errorf("exit code %d, want %d: %s", code, c.code, &stderr)
			}
			for _, text := range c.says {
				if !strings.Contains(stderr.String(), text) {
					t.Errorf("not printed: %q; printed: %s", text, &stderr)
				}
			}
			if strings.Contains(stderr.String(), "PRIVATE KEY") {
				t.Error("printed a key")
			}
		})
	}
}
