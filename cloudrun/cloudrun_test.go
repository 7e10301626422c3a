package main

import (
	"testing"

	"example.com/grpc-health-http/internal/check"
	"example.com/grpc-health-http/test/scripttest"
)

// TestManual runs the scripts of testdata, each a page of the manual.
func TestManual(t *testing.T) {
	t.Parallel()
	scripttest.Run(t, "grpc_health_proxy")
}

// TestExitCodes ranges over all statuses, and over the phases that a time-out can end in.
func TestExitCodes(t *testing.T) {
	t.Parallel()
	want := map[check.Status]int{
		check.Serving:          0,
		check.ConnectionFailed: 1,
		check.Timeout:          1,
		check.RPCFailed:        2,
		check.Overloaded:       2,
		check.ServiceUnknown:   3,
		check.Unimplemented:    4,
		check.NotServing:       5,
		check.Unknown:          5,
	}
	for _, status := range check.Statuses() {
		code, ok := want[status]
		if !ok {
			t.Errorf("%v: the test does not know it", status)
			continue
		}
		if got := exitCode(check.Verdict{Status: status}); got != code {
			t.Errorf("%v: exit code %d, want %d", status, got, code)
		}
	}
	for phase, code := range map[check.Phase]int{
		check.PhaseDNS: 1, check.PhaseConnect: 1, check.PhaseTLS: 1, check.PhaseHTTP2: 1, check.PhaseCredentials: 1,
		check.PhaseRPC: 2,
	} {
		if got := exitCode(check.Verdict{Status: check.Timeout, Phase: phase}); got != code {
			t.Errorf("TIMEOUT in phase %s: exit code %d, want %d", phase, got, code)
		}
	}
	// A connection that is lost during the RPC is a connection that failed.
	if got := exitCode(check.Verdict{Status: check.ConnectionFailed, Phase: check.PhaseRPC}); got != 1 {
		t.Errorf("CONNECTION_FAILED in phase rpc: exit code %d, want 1", got)
	}
}
