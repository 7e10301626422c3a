//go:build linux && long

package main

import (
	"io"
	"testing"
	"time"
)

// TestServers measures each server for a moment: all answer as they should, with as many RPCs as their kind makes.
func TestServers(t *testing.T) {
	t.Parallel()
	b, err := newBench(t.Context(), plan{window: 200 * time.Millisecond, rounds: 1}, io.Discard, nil)
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
}

// TestFleet measures a small fleet for a moment: all targets are checked, once in an interval.
func TestFleet(t *testing.T) {
	t.Parallel()
	p := plan{rounds: 1, fleet: fleetPlan{interval: time.Second, window: time.Second}}
	b, err := newBench(t.Context(), p, io.Discard, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.close)
	for _, transport := range []transport{plain, tlsBehind} {
		for _, k := range []kind{leastFleet, ours} {
			f, err := b.underFleet(t.Context(), fleetCell{transport, 20, k})
			if err != nil {
				t.Errorf("%s, %s: %v", transport, k, err)
				continue
			}
			if f.cpu <= 0 || f.rss <= 0 || f.sweep <= 0 || k == leastFleet && f.conns != 1 {
				t.Errorf("%s, %s: figures %+v", transport, k, f)
			}
		}
	}
}
