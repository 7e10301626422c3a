//go:build linux

package main

import (
	"io"
	"net"
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

func TestWrongFlags(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"-rounds", "0"}, {"-window", "0s"}, {"-only", "QUIC"}, {"more"}} {
		var stderr strings.Builder
		if code := run(t.Context(), args, io.Discard, &stderr); code != 2 || stderr.Len() == 0 {
			t.Errorf("%v: exit code %d, %q", args, code, stderr.String())
		}
	}
}
