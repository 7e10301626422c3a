package healthtest_test

import (
	"context"
	"crypto/tls"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"example.com/grpc-health-http/test/healthtest"
)

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

const echo = "echo.EchoServer"

// dial returns a grpc-go client. It is plaintext unless the options say otherwise.
func dial(t *testing.T, target string, options ...grpc.DialOption) healthpb.HealthClient {
	t.Helper()
	options = append([]grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}, options...)
	conn, err := grpc.NewClient(target, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return healthpb.NewHealthClient(conn)
}

func dialTLS(t *testing.T, target string, config *tls.Config) healthpb.HealthClient {
	t.Helper()
	return dial(t, target, grpc.WithTransportCredentials(credentials.NewTLS(config)))
}

// checkOnce makes one RPC and returns the name of the serving status, or of the gRPC code.
func checkOnce(client healthpb.HealthClient, service string, within time.Duration, options ...grpc.CallOption) string {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	response, err := client.Check(ctx, &healthpb.HealthCheckRequest{Service: service}, options...)
	if err != nil {
		return status.Code(err).String()
	}
	return response.GetStatus().String()
}

// checkUntil makes one RPC for the whole server, without a deadline. It ends when it is answered, or with giveUp.
func checkUntil(t *testing.T, client healthpb.HealthClient) (result <-chan string, giveUp func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	results := make(chan string, 1)
	go func() {
		response, err := client.Check(ctx, &healthpb.HealthCheckRequest{})
		results <- status.Code(err).String() + " " + response.GetStatus().String()
	}()
	return results, cancel
}

// hanging makes the upstream hang, and makes an RPC for the whole server. It returns when the RPC is in flight; result receives
// what checkOnce returns.
func hanging(t *testing.T, up *healthtest.Upstream, client healthpb.HealthClient) (release func(), result <-chan string) {
	t.Helper()
	arrived := up.RPCs() + 1
	release = up.Hang("")
	results := make(chan string, 1)
	go func() { results <- checkOnce(client, "", patience) }()
	healthtest.Eventually(t, "the RPC is in flight", func() bool { return up.RPCs() == arrived })
	return release, results
}

func want(t *testing.T, client healthpb.HealthClient, service, wanted string, options ...grpc.CallOption) {
	t.Helper()
	if got := checkOnce(client, service, patience, options...); got != wanted {
		t.Fatalf("check of %q: got %s, want %s", service, got, wanted)
	}
}

func TestUpstreamAnswersWhatWasSet(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	client := dial(t, up.Target())

	want(t, client, "", "SERVING")
	want(t, client, echo, "NotFound")
	up.SetStatus(echo, healthpb.HealthCheckResponse_NOT_SERVING)
	want(t, client, echo, "NOT_SERVING")
	up.SetError(echo, codes.PermissionDenied)
	want(t, client, echo, "PermissionDenied")
	up.Handle(echo, func(_ context.Context, service string) (*healthpb.HealthCheckResponse, error) {
		if service != echo {
			return nil, status.Error(codes.Internal, service)
		}
		return &healthpb.HealthCheckResponse{Status: 77}, nil
	})
	want(t, client, echo, "77")
	up.HandleUnknown(func(context.Context, string) (*healthpb.HealthCheckResponse, error) {
		return &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVICE_UNKNOWN}, nil
	})
	want(t, client, "made.up", "SERVICE_UNKNOWN")

	if got := up.RPCs(); got != 6 {
		t.Errorf("RPCs: got %d, want 6", got)
	}
	if got := up.RPCsFor(echo); got != 4 {
		t.Errorf("RPCs for %s: got %d, want 4", echo, got)
	}
	if got := up.Connections(); got != 1 {
		t.Errorf("connections: got %d, want 1", got)
	}

	stream, err := client.Watch(t.Context(), &healthpb.HealthCheckRequest{})
	if err == nil {
		_, err = stream.Recv()
	}
	if status.Code(err) != codes.Unimplemented {
		t.Errorf("Watch: got %v, want Unimplemented", err)
	}
}

func TestUpstreamLists(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	client := dial(t, up.Target())
	up.SetStatus(echo, healthpb.HealthCheckResponse_NOT_SERVING)
	up.SetStatus("failing", healthpb.HealthCheckResponse_SERVING)
	up.SetError("failing", codes.Internal)

	response, err := client.List(t.Context(), &healthpb.HealthListRequest{})
	if err != nil {
		t.Fatal(err)
	}
	statuses := response.GetStatuses()
	if len(statuses) != 2 || statuses[""].GetStatus() != healthpb.HealthCheckResponse_SERVING ||
		statuses[echo].GetStatus() != healthpb.HealthCheckResponse_NOT_SERVING {
		t.Errorf("List: got %v", statuses)
	}
	up.HandleList(func(context.Context) (*healthpb.HealthListResponse, error) {
		return nil, status.Error(codes.ResourceExhausted, "too many")
	})
	if _, err := client.List(t.Context(), &healthpb.HealthListRequest{}); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("List: got %v, want ResourceExhausted", err)
	}
	if got := up.Lists(); got != 2 {
		t.Errorf("Lists: got %d, want 2", got)
	}
}

func TestUpstreamDelays(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	client := dial(t, up.Target())
	const delay = 100 * time.Millisecond
	up.SetDelay("", delay)
	begin := time.Now()
	want(t, client, "", "SERVING")
	if took := time.Since(begin); took < delay {
		t.Errorf("answered after %v, delay is %v", took, delay)
	}
	up.SetDelay("", time.Hour)
	if got := checkOnce(client, "", 100*time.Millisecond); got != "DeadlineExceeded" {
		t.Errorf("got %s, want DeadlineExceeded", got)
	}
	healthtest.Eventually(t, "the RPC ends at the server after the client gave up", func() bool { return up.InFlight() == 0 })
}

func TestUpstreamHangsUntilReleased(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	client := dial(t, up.Target())
	release := up.Hang("")
	results := make(chan string, 3)
	for range cap(results) {
		go func() { results <- checkOnce(client, "", patience) }()
	}
	healthtest.Eventually(t, "three RPCs in flight", func() bool { return up.InFlightFor("") == 3 && up.InFlight() == 3 })
	up.SetStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
	select {
	case got := <-results:
		t.Fatalf("an RPC did not hang: %s", got)
	default:
	}
	release()
	for range cap(results) {
		if got := <-results; got != "NOT_SERVING" {
			t.Errorf("after the release: got %s, want the status that was set last", got)
		}
	}
	want(t, client, "", "NOT_SERVING")
	healthtest.Eventually(t, "no RPC in flight", func() bool { return up.InFlightFor("") == 0 })
	if got := up.MaxInFlightFor(""); got != 3 {
		t.Errorf("most in flight: got %d, want 3", got)
	}
}

func TestUpstreamRecordsTheCall(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	client := dial(t, up.Target(), grpc.WithUserAgent("tester/1"), grpc.WithAuthority("health.example"))
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), "x-tenant", "blue"), patience)
	defer cancel()
	if _, err := client.Check(ctx, &healthpb.HealthCheckRequest{}, grpc.UseCompressor(gzip.Name)); err != nil {
		t.Fatal(err)
	}
	call := up.Last()
	if got := call.Metadata.Get("x-tenant"); len(got) != 1 || got[0] != "blue" {
		t.Errorf("metadata: got %v", got)
	}
	if call.Authority != "health.example" || call.Compression != "gzip" || !strings.HasPrefix(call.UserAgent, "tester/1 ") {
		t.Errorf("got %+v", call)
	}
	if call.Timeout <= 0 || call.Timeout > patience {
		t.Errorf("timeout: got %v, want at most %v", call.Timeout, patience)
	}
	if _, err := client.Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil {
		t.Fatal(err)
	}
	if call := up.Last(); call.Timeout != 0 || call.Compression != "" {
		t.Errorf("without deadline and compression: got %v and %q", call.Timeout, call.Compression)
	}
}

func TestUpstreamRestarts(t *testing.T) {
	t.Parallel()
	for _, network := range []struct {
		name   string
		option healthtest.Option
	}{
		{"tcp", healthtest.Listen("tcp", "127.0.0.1:0")},
		{"tcp6", healthtest.IPv6()},
		{"unix", healthtest.Unix()},
	} {
		t.Run(network.name, func(t *testing.T) {
			t.Parallel()
			up := healthtest.Start(t, network.option)
			// Use a new client for each check: a kept one would back off.
			check := func() string { return checkOnce(dial(t, up.Target()), "", patience) }
			for range 3 {
				if got := check(); got != "SERVING" {
					t.Fatalf("running: got %s", got)
				}
				up.Stop()
				if got := check(); got != "Unavailable" {
					t.Fatalf("stopped: got %s, want Unavailable", got)
				}
				up.Restart()
			}
			if got := check(); got != "SERVING" {
				t.Fatalf("restarted: got %s", got)
			}
			if got := up.Connections(); got != 4 {
				t.Errorf("connections: got %d, want 4", got)
			}
		})
	}
}

func TestUpstreamStopBreaksRPCs(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	client := dial(t, up.Target())
	_, result := hanging(t, up, client)
	up.Stop()
	if got := <-result; got != "Unavailable" {
		t.Errorf("got %s, want Unavailable", got)
	}
	if got := up.OpenConnections(); got != 0 {
		t.Errorf("open connections: got %d, want 0", got)
	}
}

func TestUpstreamGracefulStopAnswersFirst(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	client := dial(t, up.Target())
	release, result := hanging(t, up, client)
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		up.GracefulStop()
	}()
	healthtest.Eventually(t, "new connections are refused", func() bool {
		// A connection that is accepted before the stop hangs.
		return checkOnce(dial(t, up.Target()), "", notNow) == "Unavailable"
	})
	release()
	if got := <-result; got != "SERVING" {
		t.Errorf("got %s, want SERVING", got)
	}
	<-stopped
}

func TestUpstreamGoAwayServesNewConnections(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	client := dial(t, up.Target())
	want(t, client, "", "SERVING")
	release, result := hanging(t, up, client)

	drained := up.GoAway()
	up.SetStatus(echo, healthpb.HealthCheckResponse_SERVING)
	healthtest.Eventually(t, "a second connection", func() bool {
		return checkOnce(client, echo, patience) == "SERVING" && up.Connections() == 2
	})
	select {
	case <-drained:
		t.Fatal("drained with an RPC in flight")
	default:
	}
	release()
	if got := <-result; got != "SERVING" {
		t.Errorf("RPC in flight: got %s, want SERVING", got)
	}
	<-drained
	healthtest.Eventually(t, "the old connection is gone", func() bool { return up.OpenConnections() == 1 })
}

func TestUpstreamLimitsStreams(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t, healthtest.MaxConcurrentStreams(1))
	client := dial(t, up.Target())
	want(t, client, "", "SERVING") // now the client has the SETTINGS, and knows the limit
	release := up.Hang("")
	defer release()
	go checkOnce(client, "", patience)
	healthtest.Eventually(t, "the RPC is in flight", func() bool { return up.InFlight() == 1 })
	if got := checkOnce(client, "", 200*time.Millisecond); got != "DeadlineExceeded" {
		t.Errorf("got %s, want DeadlineExceeded", got)
	}
	if got := up.RPCs(); got != 2 {
		t.Errorf("RPCs: got %d, want 2", got)
	}
}

func TestUpstreamWithoutHealthService(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t, healthtest.WithoutHealth())
	want(t, dial(t, up.Target()), "", "Unimplemented")
}

func TestUpstreamTLS(t *testing.T) {
	t.Parallel()
	ca, other := healthtest.NewCA(t), healthtest.NewCA(t)
	trusting := func(config *tls.Config) *tls.Config {
		config.RootCAs = ca.Pool()
		return config
	}
	clientOf := func(ca *healthtest.CA) []tls.Certificate { return []tls.Certificate{ca.Client(t).TLS} }
	for _, c := range []struct {
		name    string
		options []healthtest.Option
		client  *tls.Config
		want    string
		cause   string
	}{
		{"trusted", []healthtest.Option{healthtest.TLS(ca.ServerTLS(t))}, trusting(&tls.Config{}), "SERVING", ""},
		{"wrong CA", []healthtest.Option{healthtest.TLS(other.ServerTLS(t))}, trusting(&tls.Config{}), "Unavailable", "unknown authority"},
		{"expired", []healthtest.Option{healthtest.TLS(ca.ServerTLS(t, healthtest.Expired()))}, trusting(&tls.Config{}), "Unavailable", "is after"},
		{"not yet valid", []healthtest.Option{healthtest.TLS(ca.ServerTLS(t, healthtest.NotYetValid()))}, trusting(&tls.Config{}), "Unavailable", "is before"},
		{"other name", []healthtest.Option{healthtest.TLS(ca.ServerTLS(t, healthtest.DNSNames("other.example")))}, trusting(&tls.Config{}), "Unavailable", "IP SANs"},
		{"server name", []healthtest.Option{healthtest.TLS(ca.ServerTLS(t, healthtest.DNSNames("other.example")))}, trusting(&tls.Config{ServerName: "other.example"}), "SERVING", ""},
		{"no ALPN", []healthtest.Option{healthtest.TLS(ca.ServerTLS(t)), healthtest.WithoutALPN()}, trusting(&tls.Config{}), "Unavailable", "ALPN"},
		{"client certificate", []healthtest.Option{healthtest.TLS(ca.MutualTLS(t))}, trusting(&tls.Config{Certificates: clientOf(ca)}), "SERVING", ""},
		{"no client certificate", []healthtest.Option{healthtest.TLS(ca.MutualTLS(t))}, trusting(&tls.Config{}), "Unavailable", ""},
		{"foreign client certificate", []healthtest.Option{healthtest.TLS(ca.MutualTLS(t))}, trusting(&tls.Config{Certificates: clientOf(other)}), "Unavailable", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			up := healthtest.Start(t, c.options...)
			_, err := dialTLS(t, up.Target(), c.client).Check(t.Context(), &healthpb.HealthCheckRequest{})
			got := status.Code(err).String()
			if err == nil {
				got = "SERVING"
			}
			if got != c.want || err != nil && !strings.Contains(err.Error(), c.cause) {
				t.Errorf("got %s, want %s with %q: %v", got, c.want, c.cause, err)
			}
		})
	}
}

func TestUpstreamChangesItsCertificate(t *testing.T) {
	t.Parallel()
	ca := healthtest.NewCA(t)
	up := healthtest.Start(t, healthtest.TLS(ca.ServerTLS(t)))
	config := &tls.Config{RootCAs: ca.Pool()}
	old := dialTLS(t, up.Target(), config)
	want(t, old, "", "SERVING")
	up.SetTLS(ca.ServerTLS(t, healthtest.Expired()))
	want(t, dialTLS(t, up.Target(), config), "", "Unavailable")
	want(t, old, "", "SERVING") // reuses its connection
}

func TestStopDoesNotWaitForASilentHandshake(t *testing.T) {
	t.Parallel()
	ca := healthtest.NewCA(t)
	up := healthtest.Start(t, healthtest.TLS(ca.ServerTLS(t)))
	silent := connect(t, up.Addr())
	healthtest.Eventually(t, "the connection is accepted", func() bool { return up.OpenConnections() == 1 })
	up.Stop()
	if _, err := silent.Read(make([]byte, 1)); err == nil {
		t.Error("the connection is still open")
	}
}

func TestLeafOptionsAndFiles(t *testing.T) {
	t.Parallel()
	ca := healthtest.NewCA(t)
	id := &url.URL{Scheme: "spiffe", Host: "domain.example", Path: "/upstream"}
	leaf := ca.Server(t, healthtest.URI(id), healthtest.IPs("192.0.2.1"), healthtest.ValidUntil(time.Unix(4e9, 0)))
	if got := leaf.TLS.Leaf; len(got.DNSNames) != 0 || len(got.IPAddresses) != 1 || len(got.URIs) != 1 ||
		*got.URIs[0] != *id || !got.NotAfter.Equal(time.Unix(4e9, 0)) {
		t.Errorf("got %v %v %v, until %v", got.DNSNames, got.IPAddresses, got.URIs, got.NotAfter)
	}
	dir := t.TempDir()
	certFile, keyFile := leaf.WriteFiles(t, dir, "server")
	if _, err := tls.LoadX509KeyPair(certFile, keyFile); err != nil {
		t.Error(err)
	}
	content, err := os.ReadFile(ca.WriteFile(t, dir, "CA"))
	if err != nil || string(content) != string(ca.PEM()) {
		t.Errorf("CA file: %v", err)
	}
}
