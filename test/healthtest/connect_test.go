package healthtest_test

import (
	"errors"
	"net"
	"syscall"
	"testing"
	"time"
)

// connect opens a TCP connection with a deadline. It is closed when the test ends.
func connect(t *testing.T, address string) *net.TCPConn {
	t.Helper()
	conn, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return conn.(*net.TCPConn)
}

// wantReset connects and wants a reset, which can arrive before the dial returns.
func wantReset(t *testing.T, address string) {
	t.Helper()
	conn, err := net.DialTimeout("tcp", address, patience)
	if err == nil {
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		_, err = conn.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v, want a reset", err)
	}
}
