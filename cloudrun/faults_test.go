package main

import (
	"testing"

	"example.com/grpc-health-http/test/faults"
	"example.com/grpc-health-http/test/proxytest"
	"example.com/grpc-health-http/test/scripttest"
)

// TestFaults runs the fault table against the built command.
func TestFaults(t *testing.T) {
	t.Parallel()
	program := scripttest.Build(t, ".", "grpc_health_proxy")
	faults.Run(t, func(t *testing.T, env ...string) faults.Ask {
		p := proxytest.Start(t, program, env...)
		return faults.OverHTTP(p.URL + "?format=json")
	})
}
