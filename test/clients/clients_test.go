// Package clients asks the proxy for every status with checkers that others wrote, and keeps the manual's table of what each concludes. It
// has tests only.
//
// grpcurl and the original grpc_health_probe are asked where a flag names them:
//
//	go test ./test/clients -args -grpcurl /path/to/grpcurl -grpc-health-probe /path/to/grpc_health_probe
package clients

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"example.com/grpc-health-http/test/healthtest"
	"example.com/grpc-health-http/test/proxytest"
)

const (
	// patience bounds every wait for what must happen; nothing is expected to take anywhere near it.
	patience = 30 * time.Second
	// named is a service beside the whole server.
	named = "echo.EchoServer"
	// madeUp is a name that no server knows, and hung one that is never answered.
	madeUp, hung = "made.up", "hung"
)

var (
	update  = flag.Bool("update", false, "write the manual's table again")
	grpcurl = flag.String("grpcurl", "", "path of grpcurl, to ask with it, too")
	probe   = flag.String("grpc-health-probe", "", "path of the original grpc_health_probe, to ask with it, too")
)

func TestMain(m *testing.M) { os.Exit(healthtest.RunMany(m)) }

// state is an upstream's state, and what checkers have to conclude from it.
type state struct {
	status string // the proxy's
	// variant tells states apart in which the proxy says the same.
	variant string
	// set brings an upstream into the state, for all of services.
	set      func(*testing.T, *healthtest.Upstream)
	services []string
	env      []string
	phase    string
	// want is what checkers conclude, in the order of columns.
	want []string
}

// The columns of the manual's table: kinds of checkers that conclude the same.
const (
	columnGRPC    = "`Health/Check`"
	columnKubelet = "kubelet, `grpc:`"
	columnProbe   = "`grpc_health_probe` exits"
	columnALB0    = "ALB `GRPC`, matcher `0`"
	columnALB12   = "ALB `GRPC`, matcher `12`"
	columnCheck0  = "ALB `GRPC`, path of `Check`, matcher `0`"
	columnCheck12 = "ALB `GRPC`, path of `Check`, matcher `12`"
	columnHTTP    = "HTTP"
	columnChecks  = "HAProxy `httpchk`, ALB `HTTP2`"
)

var columns = []string{columnGRPC, columnKubelet, columnProbe, columnALB0, columnALB12, columnCheck0, columnCheck12, columnHTTP, columnChecks}

const (
	up   = "healthy"
	down = "unhealthy"
	// wrong marks what is not the server's health.
	wrong = "**healthy**"
)

var (
	both       = []string{"", named}
	withStatus = func(whole, service healthpb.HealthCheckResponse_ServingStatus) func(*testing.T, *healthtest.Upstream) {
		return func(_ *testing.T, u *healthtest.Upstream) {
			u.SetStatus("", whole)
			u.SetStatus(named, service)
		}
	}
	withCode = func(code codes.Code) func(*testing.T, *healthtest.Upstream) {
		return func(_ *testing.T, u *healthtest.Upstream) {
			u.SetError("", code)
			u.SetError(named, code)
		}
	}
)

// states are all that the proxy can say.
var states = []state{
	{
		status: "SERVING", services: both, set: withStatus(healthpb.HealthCheckResponse_SERVING, healthpb.HealthCheckResponse_SERVING),
		want: []string{"`OK`, SERVING", up, "0", up, down, up, down, "200", up},
	}, {
		status: "NOT_SERVING", services: both, set: withStatus(healthpb.HealthCheckResponse_NOT_SERVING, healthpb.HealthCheckResponse_NOT_SERVING),
		want: []string{"`OK`, NOT_SERVING", down, "4", down, down, wrong, down, "503", down},
	}, {
		status: "UNKNOWN", services: both, set: withStatus(healthpb.HealthCheckResponse_UNKNOWN, 77), // 77 is no status of the protocol
		want: []string{"`OK`, UNKNOWN", down, "4", down, down, wrong, down, "503", down},
	}, {
		status: "SERVICE_UNKNOWN", services: both, set: withCode(codes.NotFound),
		want: []string{"`NOT_FOUND`", down, "3", down, down, down, down, "404", down},
	}, {
		status: "SERVICE_UNKNOWN", variant: "as a status", services: both,
		set:  withStatus(healthpb.HealthCheckResponse_SERVICE_UNKNOWN, healthpb.HealthCheckResponse_SERVICE_UNKNOWN),
		want: []string{"`NOT_FOUND`", down, "3", down, down, down, down, "404", down},
	}, {
		status: "UNIMPLEMENTED", services: both, set: withCode(codes.Unimplemented),
		want: []string{"`UNIMPLEMENTED`", down, "3", down, down, down, wrong, "503", down},
	}, {
		status: "CONNECTION_FAILED", services: both, phase: "connect", set: func(_ *testing.T, u *healthtest.Upstream) { u.Stop() },
		want: []string{"`UNAVAILABLE`", down, "3", down, down, down, down, "503", down},
	}, {
		status: "TIMEOUT", services: both, phase: "rpc", env: []string{"GRPC_HEALTH_RPC_TIMEOUT=200ms"},
		set: func(_ *testing.T, u *healthtest.Upstream) {
			u.Hang("")
			u.Hang(named)
		},
		want: []string{"`DEADLINE_EXCEEDED`", down, "3", down, down, down, down, "503", down},
	}, {
		status: "RPC_FAILED", services: both, set: withCode(codes.PermissionDenied),
		want: []string{"`PERMISSION_DENIED`", down, "3", down, down, down, down, "503", down},
	}, {
		status: "RPC_FAILED", variant: "the code of OVERLOADED", services: both, set: withCode(codes.ResourceExhausted),
		want: []string{"`RESOURCE_EXHAUSTED`", down, "3", down, down, down, down, "503", down},
	}, {
		status: "OVERLOADED", services: []string{madeUp}, env: []string{"GRPC_HEALTH_MAX_CONCURRENT_CHECKS=1", "GRPC_HEALTH_RPC_TIMEOUT=10m"},
		set:  func(_ *testing.T, u *healthtest.Upstream) { u.Hang(hung) },
		want: []string{"`RESOURCE_EXHAUSTED`", down, "3", down, down, down, down, "503", down},
	},
}

// codeOnly is the code that a state has at the paths that end in /healthcheck.
func (s state) codeOnly() codes.Code {
	switch s.status {
	case "SERVING":
		return codes.OK
	case "OVERLOADED":
		return codes.ResourceExhausted
	default:
		return codes.Unavailable
	}
}

// name tells the states apart.
func (s state) name() string { return strings.TrimSuffix(s.status+" "+s.variant, " ") }

// deployment is an upstream in a state, and two proxies that check it.
type deployment struct {
	state state
	// plain and secure are the addresses of the proxy that listens without TLS, and of the one that listens with it.
	plain, secure string
	ca            string // the path of the CA of secure's certificate
}

// deploy starts a deployment.
func deploy(t *testing.T, program string, s state, env ...string) *deployment {
	t.Helper()
	upstream, ca, dir := healthtest.Start(t), healthtest.NewCA(t), t.TempDir()
	cert, key := ca.Server(t).WriteFiles(t, dir, "server")
	d := &deployment{state: s, ca: ca.WriteFile(t, dir, "ca")}
	env = slices.Concat([]string{
		"GRPC_HEALTH_ADDR=" + upstream.Target(), "GRPC_HEALTH_CONNECT_TIMEOUT=30s", "GRPC_HEALTH_RPC_TIMEOUT=30s",
	}, s.env, env)
	d.plain = address(t, proxytest.Start(t, program, env...))
	d.secure = address(t, proxytest.Start(t, program, append(env, "GRPC_HEALTH_HTTPS_LISTEN_CERT="+cert, "GRPC_HEALTH_HTTPS_LISTEN_KEY="+key)...))
	s.set(t, upstream)
	if s.status == "OVERLOADED" {
		overload(t, upstream, d)
	}
	return d
}

// address returns the address where a proxy answers.
func address(t *testing.T, p *proxytest.Proxy) string {
	t.Helper()
	at, err := url.Parse(p.URL)
	if err != nil {
		t.Fatal(err)
	}
	return at.Host
}

// overload makes each proxy have a check of a made-up name under way, until the test ends.
func overload(t *testing.T, upstream *healthtest.Upstream, d *deployment) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{}, 2)
	t.Cleanup(func() {
		cancel()
		<-ended
		<-ended
	})
	for i, at := range []struct {
		target string
		p      protocol
	}{{d.plain, protocol{}}, {d.secure, protocol{tls: true}}} {
		go func() {
			defer func() { ended <- struct{}{} }()
			transport := transportFor(at.p)
			defer transport.CloseIdleConnections()
			request, err := http.NewRequestWithContext(ctx, "GET", at.p.url(at.target, d.httpPath(hung)), nil)
			if err != nil {
				t.Error(err)
				return
			}
			if response, err := (&http.Client{Transport: transport}).Do(request); err == nil {
				response.Body.Close()
				t.Errorf("the check that was to hang is over: %s", response.Status)
			}
		}()
		healthtest.Eventually(t, "a check hangs", func() bool { return upstream.InFlightFor(hung) > i })
	}
}

// httpPath is where HTTP is asked for a service.
func (d *deployment) httpPath(service string) string {
	if service == "" {
		return "/"
	}
	return "/?service=" + service
}

// codeOnlyPath is where gRPC is asked for the code of a service.
func codeOnlyPath(service string) string {
	if service == "" {
		return albPath
	}
	return "/" + service + "/healthcheck"
}

// checker asks about a service of a deployment, and returns what it concludes.
type checker struct {
	name, column string
	ask          func(t *testing.T, d *deployment, service string) string
}

// TestClients asks in every state with every checker, and compares what they conclude with the manual, too.
func TestClients(t *testing.T) {
	t.Parallel()
	shared := start(t)
	for name, test := range map[string]func(*testing.T, programs){
		"token": testToken, "client certificate": testClientCertificate, "mistyped path": testMistypedPath,
		"mutual TLS behind": testMutualTLSBehind,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, shared)
		})
	}
	for _, s := range states {
		t.Run(s.name(), func(t *testing.T) {
			t.Parallel()
			d := deploy(t, shared.proxy, s)
			for _, c := range slices.Concat(libraries(shared), throughFronts(t, shared, d), rawClients(shared), byHand()) {
				want := s.want[slices.Index(columns, c.column)]
				t.Run(strings.ReplaceAll(c.name, "/", " "), func(t *testing.T) {
					t.Parallel()
					for _, service := range s.services {
						if got := c.ask(t, d, service); got != strings.Trim(want, "*") {
							t.Errorf("service %q: it concludes %s, want %s", service, got, want)
						}
					}
				})
			}
		})
	}
}

// healthy is what a checker concludes that knows only two states.
func healthy(is bool) string {
	if is {
		return up
	}
	return down
}

// codeName is a code as gRPC's documents write it.
func codeName(code codes.Code) string {
	names := []string{
		"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
		"RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS",
		"UNAUTHENTICATED",
	}
	if int(code) < len(names) {
		return names[code]
	}
	return fmt.Sprint(code)
}

// conclude is what a gRPC client concludes from an answer. It checks the rest of the answer: the metadata and the message.
func conclude(t *testing.T, d *deployment, a answer) string {
	t.Helper()
	s := d.state
	if got := a.Metadata["health-status"]; got != s.status {
		t.Errorf("the metadata health-status is %q, want %q", got, s.status)
	}
	if got := a.Metadata["health-evidence"]; (got == "") != (s.status == "SERVING") {
		t.Errorf("the metadata health-evidence is %q with %s", got, s.status)
	}
	if a.Code == 0 {
		return fmt.Sprintf("`OK`, %s", healthpb.HealthCheckResponse_ServingStatus(a.Status))
	}
	if !strings.Contains(a.Message, s.status) || !strings.Contains(a.Message, s.phase) {
		t.Errorf("the message is %q, want it to have %s and the phase %q", a.Message, s.status, s.phase)
	}
	return "`" + codeName(codes.Code(a.Code)) + "`"
}
