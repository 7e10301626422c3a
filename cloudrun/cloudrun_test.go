package main

import (
	"testing"

	"example.com/grpc-health-http/internal/health"
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
	want := map[health.Status]int{
		health.Serving:          0,
		health.ConnectionFailed: 1,
		health.Timeout:          1,
		health.RPCFailed:        2,
		health.Overloaded:       2,
		health.ServiceUnknown:   3,
		health.Unimplemented:    4,
		health.NotServing:       5,
		health.Unknown:          5,
	}
	for _, status := range health.Statuses() {
		code, ok := want[status]
		if !ok {
			t.Errorf("%v: the test does not know it", status)
			continue
		}
		if got := exitCode(health.Verdict{Status: status}); got != code {
			t.Errorf("%v: exit code %d, want %d", status, got, code)
		}
	}
	for phase, code := range map[health.Phase]int{
		health.PhaseDNS: 1, health.PhaseConnect: 1, health.PhaseTLS: 1, health.PhaseHTTP2: 1, health.PhaseCredentials: 1,
		health.PhaseRPC: 2,
	} {
		if got := exitCode(health.Verdict{Status: health.Timeout, Phase: phase}); got != code {
			t.Errorf("TIMEOUT in phase %s: exit code %d, want %d", phase, got, code)
		}
	}
	// A connection that is lost during the RPC is a connection that failed.
	if got := exitCode(health.Verdict{Status: health.ConnectionFailed, Phase: health.PhaseRPC}); got != 1 {
		t.Errorf("CONNECTION_FAILED in phase rpc: exit code %d, want 1", got)
	}
}
