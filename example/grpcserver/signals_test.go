//go:build unix

package main

import (
	"net"
	"os"
	"syscall"
	"testing"
)

func TestSIGUSR1Toggles(t *testing.T) {
	t.Parallel()
	s := start(t, "--grpcport", "localhost:0", "--insecure")
	client := s.client(nil)
	for _, wanted := range []string{"NOT_SERVING", "SERVING", "NOT_SERVING"} {
		s.signal(syscall.SIGUSR1)
		if got := s.line(); got != echoService+" is "+wanted+" now" {
			t.Fatalf("printed %q", got)
		}
		want(t, client, echoService, wanted)
		want(t, client, "", "SERVING")
	}
}

func TestSignalsEndItCleanly(t *testing.T) {
	t.Parallel()
	for _, sig := range []os.Signal{syscall.SIGINT, syscall.SIGTERM} {
		s := start(t, "--grpcport", "localhost:0", "--insecure")
		client := s.client(nil)
		want(t, client, "", "SERVING")
		s.signal(sig)
		if got := s.line(); got != "" {
			t.Errorf("%v: printed %q", sig, got)
		}
		if err := s.cmd.Wait(); err != nil {
			t.Errorf("%v: %v", sig, err)
		}
	}
}

// TestEndsDespiteASilentClient keeps a connection open on which the client sends nothing.
func TestEndsDespiteASilentClient(t *testing.T) {
	t.Parallel()
	s := start(t, "--grpcport", "localhost:0", "--insecure")
	silent, err := net.Dial("tcp", s.address)
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	want(t, s.client(nil), "", "SERVING") // now the earlier connection has been accepted too
	s.signal(syscall.SIGTERM)
	if got := s.line(); got != "" {
		t.Errorf("printed %q", got)
	}
	if err := s.cmd.Wait(); err != nil {
		t.Error(err)
	}
}
