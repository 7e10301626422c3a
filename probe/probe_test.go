package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/test/scripttest"
)

// TestManual runs the scripts of testdata, each a page of the manual.
func TestManual(t *testing.T) {
	t.Parallel()
	scripttest.Run(t, "grpc_health_probe", "-tags=grpcnotrace")
}

// TestExitCodes ranges over all statuses, and names the phases that decide beside them.
func TestExitCodes(t *testing.T) {
	t.Parallel()
	want := map[health.Status]int{
		health.Serving:          0,
		health.NotServing:       4,
		health.Unknown:          4,
		health.ServiceUnknown:   4,
		health.Unimplemented:    3,
		health.ConnectionFailed: 2,
		health.Timeout:          2,
		health.RPCFailed:        3,
		health.Overloaded:       3,
	}
	for _, status := range health.Statuses() {
		code, ok := want[status]
		if !ok {
			t.Errorf("%v: the test does not know it", status)
			continue
		}
		if got := exitCode(health.Verdict{Status: status}, false); got != code {
			t.Errorf("%v: exit code %d, want %d", status, got, code)
		}
	}
	for _, test := range []struct {
		name    string
		verdict health.Verdict
		spiffe  bool
		want    int
	}{
		{"NOT_FOUND", health.Verdict{Status: health.ServiceUnknown, Asked: true, Code: codes.NotFound}, false, 3},
		{"the answer SERVICE_UNKNOWN", health.Verdict{Status: health.ServiceUnknown, Asked: true, Code: codes.OK}, false, 4},
		{"lost during the RPC", health.Verdict{Status: health.ConnectionFailed, Phase: health.PhaseRPC}, false, 3},
		{"out of time during the RPC", health.Verdict{Status: health.Timeout, Phase: health.PhaseRPC}, false, 3},
		{"out of time while connecting", health.Verdict{Status: health.Timeout, Phase: health.PhaseConnect}, false, 2},
		{"no credentials", health.Verdict{Status: health.ConnectionFailed, Phase: health.PhaseCredentials}, false, 2},
		{"no SPIFFE credentials", health.Verdict{Status: health.ConnectionFailed, Phase: health.PhaseCredentials}, true, 20},
		{"no SPIFFE credentials in time", health.Verdict{Status: health.Timeout, Phase: health.PhaseCredentials}, true, 20},
		{"SPIFFE, nobody listens", health.Verdict{Status: health.ConnectionFailed, Phase: health.PhaseConnect}, true, 2},
		{"SPIFFE, serving", health.Verdict{Status: health.Serving, Asked: true, Code: codes.OK}, true, 0},
	} {
		if got := exitCode(test.verdict, test.spiffe); got != test.want {
			t.Errorf("%s: exit code %d, want %d", test.name, got, test.want)
		}
	}
}

// TestMessage ranges over all statuses: only SERVING reads as healthy, and each failure has its name.
func TestMessage(t *testing.T) {
	t.Parallel()
	for _, status := range health.Statuses() {
		got := message("a:1", health.Verdict{Status: status}, false)
		if healthy := got == "status: SERVING"; healthy != (status == health.Serving) {
			t.Errorf("%v: %q", status, got)
		}
		if !strings.Contains(got, status.String()) {
			t.Errorf("%v: %q does not name it", status, got)
		}
	}
	for _, test := range []struct {
		verdict health.Verdict
		named   bool
		want    string
	}{
		{health.Verdict{Status: health.Serving, Service: "echo"}, false, "status: SERVING"},
		{health.Verdict{Status: health.Serving, Service: "echo"}, true, "echo: status: SERVING"},
		{health.Verdict{Status: health.Serving}, true, "server: status: SERVING"},
		{health.Verdict{Status: health.NotServing, Service: "echo"}, true, `echo: service unhealthy (responded with "NOT_SERVING"): a:1`},
		{health.Verdict{Status: health.ServiceUnknown}, false, `service unhealthy (responded with "SERVICE_UNKNOWN"): a:1`},
		{
			health.Verdict{Status: health.ServiceUnknown, Err: errors.New("rpc error")}, false,
			"error: SERVICE_UNKNOWN: a:1: rpc error",
		},
		{
			health.Verdict{Status: health.ServiceUnknown, Service: "ech\no", Err: errors.New("rpc error")}, false,
			`error: SERVICE_UNKNOWN: a:1: service "ech\no": rpc error`,
		},
		{
			health.Verdict{Status: health.Timeout, Phase: health.PhaseTLS, Err: errors.New("no answer")}, false,
			"error: TIMEOUT in phase tls: a:1: no answer",
		},
		{health.Verdict{Status: health.Timeout, Phase: health.PhaseRPC}, true, "server: error: TIMEOUT in phase rpc: a:1"},
	} {
		if got := message("a:1", test.verdict, test.named); got != test.want {
			t.Errorf("message(%+v, %t) = %q, want %q", test.verdict, test.named, got, test.want)
		}
	}
}

// maxSize keeps the probe small enough to be in every container image, in bytes.
const maxSize = 12_600_000

func TestBinarySize(t *testing.T) {
	t.Parallel()
	program := filepath.Join(t.TempDir(), "grpc_health_probe")
	cmd := exec.Command("go", "build", "-trimpath", "-tags=grpcnotrace", "-ldflags=-s -w", "-o", program)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	info, err := os.Stat(program)
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() > maxSize {
		t.Errorf("the probe has %d bytes, want %d at most", info.Size(), maxSize)
	}
}
