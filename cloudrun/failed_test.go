package main

import (
	"bytes"
	"context"
	"net"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// lines is a log that tells of the first line with a pattern.
type lines struct {
	mu    sync.Mutex
	text  bytes.Buffer
	found chan []string
	want  *regexp.Regexp
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.Write(p)
	if match := l.want.FindStringSubmatch(l.text.String()); match != nil && l.found != nil {
		l.found <- match
		l.found = nil
	}
	return len(p), nil
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// stopListening makes each Accept of the process's listener on this port fail.
func stopListening(t *testing.T, port int) {
	t.Helper()
	for fd := range 1 << 16 { // tests beside this one open thousands
		listens, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_ACCEPTCONN)
		if err != nil || listens == 0 {
			continue
		}
		address, err := syscall.Getsockname(fd)
		if v4, ok := address.(*syscall.SockaddrInet4); err == nil && ok && v4.Port == port {
			if err := syscall.Shutdown(fd, syscall.SHUT_RD); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatalf("no listener has port %d", port)
}

// TestCannotGoOnServing: a server that fails later is no wrong setting.
func TestCannotGoOnServing(t *testing.T) {
	t.Parallel()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	started := make(chan []string, 1)
	log := &lines{found: started, want: regexp.MustCompile(`url=http://127\.0\.0\.1:(\d+)/ [\s\S]*answering Prometheus`)}
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, []string{"-grpc-addr", "localhost:1", "-http-listen-addr", "127.0.0.1:0", "-metrics-http-listen-addr", "127.0.0.1:0"}, new(bytes.Buffer), log)
	}()
	select {
	case match := <-started:
		port, err := strconv.Atoi(match[1])
		if err != nil {
			t.Fatal(err)
		}
		stopListening(t, port)
	case <-time.After(patience):
		t.Fatalf("the proxy does not start:\n%s", log)
	}
	select {
	case got := <-code:
		if got != 70 || !strings.Contains(log.String(), "cannot go on serving:\n  serve health: ") {
			t.Errorf("exit code %d, want 70:\n%s", got, log)
		}
	case <-time.After(patience):
		t.Fatalf("the proxy does not end:\n%s", log)
	}
}

// TestCannotBeginToServe: an address that cannot be had at the start is a wrong setting.
func TestCannotBeginToServe(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, addr := range []string{taken.Addr().String(), "192.0.2.1:80", "name.invalid:80"} {
		var log bytes.Buffer
		if got := run(t.Context(), []string{"-grpc-addr", "localhost:1", "-http-listen-addr", addr, "-metrics-http-listen-addr="}, new(bytes.Buffer), &log); got != 64 {
			t.Errorf("%s: exit code %d, want 64:\n%s", addr, got, &log)
		}
	}
}
