package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"example.com/grpc-health-http/internal/check"
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
	want := map[check.Status]int{
		check.Serving:          0,
		check.NotServing:       4,
		check.Unknown:          4,
		check.ServiceUnknown:   4,
		check.Unimplemented:    3,
		check.ConnectionFailed: 2,
		check.Timeout:          2,
		check.RPCFailed:        3,
		check.Overloaded:       3,
	}
	for _, status := range check.Statuses() {
		code, ok := want[status]
		if !ok {
			t.Errorf("%v: the test does not know it", status)
			continue
		}
		if got := exitCode(check.Verdict{Status: status}, false); got != code {
			t.Errorf("%v: exit code %d, want %d", status, got, code)
		}
	}
	for _, test := range []struct {
		name    string
		verdict check.Verdict
		spiffe  bool
		want    int
	}{
		{"NOT_FOUND", check.Verdict{Status: check.ServiceUnknown, Asked: true, Code: codes.NotFound}, false, 3},
		{"the answer SERVICE_UNKNOWN", check.Verdict{Status: check.ServiceUnknown, Asked: true, Code: codes.OK}, false, 4},
		{"lost during the RPC", check.Verdict{Status: check.ConnectionFailed, Phase: check.PhaseRPC}, false, 3},
		{"out of time during the RPC", check.Verdict{Status: check.Timeout, Phase: check.PhaseRPC}, false, 3},
		{"out of time while connecting", check.Verdict{Status: check.Timeout, Phase: check.PhaseConnect}, false, 2},
		{"no credentials", check.Verdict{Status: check.ConnectionFailed, Phase: check.PhaseCredentials}, false, 2},
		{"no SPIFFE credentials", check.Verdict{Status: check.ConnectionFailed, Phase: check.PhaseCredentials}, true, 20},
		{"no SPIFFE credentials in time", check.Verdict{Status: check.Timeout, Phase: check.PhaseCredentials}, true, 20},
		{"SPIFFE, nobody listens", check.Verdict{Status: check.ConnectionFailed, Phase: check.PhaseConnect}, true, 2},
		{"SPIFFE, serving", check.Verdict{Status: check.Serving, Asked: true, Code: codes.OK}, true, 0},
	} {
		if got := exitCode(test.verdict, test.spiffe); got != test.want {
			t.Errorf("%s: exit code %d, want %d", test.name, got, test.want)
		}
	}
}

// TestMessage ranges over all statuses: only SERVING reads as healthy, and each failure has its name.
func TestMessage(t *testing.T) {
	t.Parallel()
	for _, status := range check.Statuses() {
		got := message(check.Verdict{Status: status}, false)
		if healthy := got == "status: SERVING"; healthy != (status == check.Serving) {
			t.Errorf("%v: %q", status, got)
		}
		if !strings.Contains(got, status.String()) {
			t.Errorf("%v: %q does not name it", status, got)
		}
	}
	for _, test := range []struct {
		verdict check.Verdict
		named   bool
		want    string
	}{
		{check.Verdict{Status: check.Serving, Service: "echo"}, false, "status: SERVING"},
		{check.Verdict{Status: check.Serving, Service: "echo"}, true, "echo: status: SERVING"},
		{check.Verdict{Status: check.Serving}, true, "server: status: SERVING"},
		{check.Verdict{Status: check.NotServing, Service: "echo"}, true, `echo: service unhealthy (responded with "NOT_SERVING")`},
		{check.Verdict{Status: check.ServiceUnknown}, false, `service unhealthy (responded with "SERVICE_UNKNOWN")`},
		{
			check.Verdict{Status: check.ServiceUnknown, Err: errors.New("rpc error")}, false,
			"error: SERVICE_UNKNOWN: rpc error",
		},
		{
			check.Verdict{Status: check.Timeout, Phase: check.PhaseTLS, Err: errors.New("no answer")}, false,
			"error: TIMEOUT in phase tls: no answer",
		},
		{check.Verdict{Status: check.Timeout, Phase: check.PhaseRPC}, true, "server: error: TIMEOUT in phase rpc"},
	} {
		if got := message(test.verdict, test.named); got != test.want {
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
