//go:build linux && long

package main

import (
	"fmt"
	"io"
	"math"
	"testing"
	"time"
)

// TestServers measures each server for a moment: all answer as they should, with as many RPCs as their kind makes; and small
// fleets, of which all targets are checked once in an interval.
func TestServers(t *testing.T) {
	t.Parallel()
	b, err := newBench(t.Context(), plan{window: 200 * time.Millisecond, rounds: 1, fleet: fleetPlan{interval: time.Second, window: 2 * time.Second}}, io.Discard, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.close)
	tests := []struct {
		kind      kind
		transport transport
		most      float64 // RPCs for each answer
		least     float64
	}{
		{dialEach, plain, 2, 0.5},
		{oneConn, mutualBoth, 2, 0.5},
		{nothing, plain, 0, 0},
		{ours, plain, 2, 0.001},
		{ours, mutualBoth, 2, 0.001},
		{oursDial, plain, 2, 0.001},
		{relay, grpcIn, 2, 0.5},
		{nginx, grpcIn, 2, 0.5},
		{itself, grpcIn, 0, 0},
		{ours, grpcIn, 2, 0.001},
	}
	for _, tt := range tests {
		t.Run(string(tt.kind)+" "+string(tt.transport), func(t *testing.T) {
			if tt.kind == nginx && b.programs.nginx == "" {
				t.Skip("nginx is not installed")
			}
			f, err := b.under(t.Context(), cell{tt.transport, 4, tt.kind}, b.window)
			if err != nil {
				t.Fatal(err)
			}
			if f.rate <= 0 || f.p50 <= 0 || f.p99 < f.p50 || f.peak <= 0 || f.rpcs < tt.least || f.rpcs > tt.most {
				t.Errorf("figures %+v, want from %v to %v RPCs for each answer", f, tt.least, tt.most)
			}
		})
	}
	for _, c := range []fleetCell{{plain, 20, leastFleet}, {plain, 20, ours}, {tlsBehind, 20, leastFleet}, {tlsBehind, 20, ours}} {
		t.Run(fmt.Sprintf("%d targets, %s %s", c.targets, c.kind, c.transport), func(t *testing.T) {
			t.Parallel()
			f, err := b.underFleet(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			if f.rate < 10 || f.rss <= 0 || f.sweep.took <= 0 || f.sweep.peak <= 0 || c.kind == leastFleet && math.Abs(f.conns-1) > 0.25 { // one may have begun or ended in between
				t.Errorf("figures %+v", f)
			}
		})
	}
}
