//go:build linux

package main

import (
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestWrongAnswer has a server that says something else: it must not be measured as a fast one.
func TestWrongAnswer(t *testing.T) {
	t.Parallel()
	for _, answer := range []string{
		"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 8\r\n\r\nSERVING\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nUNKNOWN\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nSERVING\n\n",
		"",
	} {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
			conn.Read(make([]byte, 1<<10))
			io.WriteString(conn, answer)
		}()
		callers, err := newLoad(listener.Addr().String(), nil, "/", serving).connectAll(1)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := askAll(callers, time.Now(), time.Now().Add(time.Second)); err == nil {
			t.Errorf("%q passed for the right answer", answer)
		}
		closeAll(callers)
		listener.Close()
	}
}

func TestGoalsNameWhatIsMeasured(t *testing.T) {
	t.Parallel()
	measured := make(map[cell]bool)
	for _, c := range cells() {
		measured[c] = true
	}
	for _, g := range goals() {
		if !measured[g.of] || !measured[g.to] {
			t.Errorf("%s compares what is not measured", g.name)
		}
	}
}

func TestFleetGoalsNameWhatIsMeasured(t *testing.T) {
	t.Parallel()
	p := plan{fleet: fleetPlan{targets: fleetTargets}}
	p.fleet.peers.blackbox, p.fleet.peers.gatus, p.fleet.peers.cloudprober = "blackbox", "gatus", "cloudprober"
	measured := p.fleetCells()
	for _, g := range fleetGoals() {
		to := g.of
		if g.to != "" {
			to.kind = g.to
		}
		if !slices.Contains(measured, g.of) || !slices.Contains(measured, to) {
			t.Errorf("%s of %v beside %q compares what is not measured", g.name, g.of, g.to)
		}
	}
}

// TestScraper reads answers with a length and in chunks, in parts, and takes no other for the right one.
func TestScraper(t *testing.T) {
	t.Parallel()
	const head = "HTTP/1.1 200 OK\r\n"
	tests := []struct {
		answer string
		right  bool
	}{
		{head + "Content-Length: 10\r\n\r\nt0 SERVING", true},
		{head + "Content-Length: 7\r\nDate: now\r\n\r\nSERVING", true},
		{head + "Transfer-Encoding: chunked\r\n\r\n7\r\nSERVING\r\n0\r\n\r\n", true},
		{head + "Content-Length: 7\r\n\r\nUNKNOWN", false},
		{head + "Content-Length: many\r\n\r\nSERVING", false},
		{head + "Transfer-Encoding: chunked\r\n\r\n7\r\nUNKNOWN\r\n0\r\n\r\n", false},
		{"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 7\r\n\r\nSERVING", false},
	}
	for _, tt := range tests {
		s := scraper{body: "SERVING"}
		for n := range len(tt.answer) {
			if _, whole, err := s.arrived([]byte(tt.answer[:n])); whole && err == nil {
				t.Errorf("%q passed for a whole answer", tt.answer[:n])
			}
		}
		used, whole, err := s.arrived([]byte(tt.answer))
		if right := whole && err == nil && used == len(tt.answer); right != tt.right {
			t.Errorf("%q: used %d, whole %v, %v", tt.answer, used, whole, err)
		}
	}
}

func TestWrongFlags(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"-rounds", "0"}, {"-window", "0s"}, {"-only", "QUIC"}, {"more"},
		{"-fleet", "-targets", "0"}, {"-fleet", "-targets", "10,many"}, {"-fleet", "-interval", "10ms"}, {"-fleet", "-fleet-window", "0s"}} {
		var stderr strings.Builder
		if code := run(t.Context(), args, io.Discard, &stderr); code != 2 || stderr.Len() == 0 {
			t.Errorf("%v: exit code %d, %q", args, code, stderr.String())
		}
	}
}
