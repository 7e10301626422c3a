package serve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

var (
	first  = netip.MustParseAddr("127.0.0.1")
	second = netip.MustParseAddr("127.0.0.2")
	v6     = netip.IPv6Loopback()
	absent = netip.MustParseAddr("192.0.2.1") // an address that no machine has (RFC 5737)
)

// hasIPv6 reports whether this machine has the address ::1.
func hasIPv6() bool {
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		return false
	}
	l.Close()
	return true
}

// TestLocalhost: the name is every loopback address of both families, in any spelling, and port 0 is the same port on each.
func TestLocalhost(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"localhost", "LOCALHOST", "localhost."} {
		listeners, err := Listen(t.Context(), Port{"A", name + ":0"}, Port{"B", name + ":0"})
		if err != nil {
			t.Fatal(err)
		}
		ports := make(map[int]bool)
		for _, l := range listeners {
			defer l.Close()
			port := l.Addr().(*net.TCPAddr).Port
			ports[port] = true
			addresses := []netip.Addr{first}
			if hasIPv6() {
				addresses = append(addresses, v6)
			}
			for _, a := range addresses {
				client, err := net.Dial("tcp", netip.AddrPortFrom(a, uint16(port)).String())
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				defer client.Close()
				accepted := make(chan net.Conn, 1)
				go func() {
					if server, err := l.Accept(); err == nil {
						accepted <- server
					}
				}()
				var server net.Conn
				select {
				case server = <-accepted:
				case <-time.After(patience):
					t.Fatalf("%s: a connection to %v is not accepted", name, a)
				}
				defer server.Close()
				if server.RemoteAddr().String() != client.LocalAddr().String() {
					t.Errorf("%s: accepted %v, want %v", name, server.RemoteAddr(), client.LocalAddr())
				}
			}
		}
		if len(ports) != 2 {
			t.Errorf("the two listeners have the ports %v", ports)
		}
	}
}

// TestOtherNames: only loopback addresses are taken together. A name that has none is left to package net, which says why it does
// not do.
func TestOtherNames(t *testing.T) {
	t.Parallel()
	for _, host := range []string{"", "127.0.0.1", "::1", "0.0.0.0", "127.0.0.2", "::ffff:127.0.0.1"} {
		if got := loopbacks(t.Context(), host); got != nil {
			t.Errorf("%q: %v, want what package net makes of it", host, got)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if got := loopbacks(ended, "name.invalid"); got != nil {
		t.Errorf("a name without addresses has %v", got)
	}
	// Without a hosts file, localhost is what RFC 6761 says.
	if got := loopbacks(ended, "localhost"); !slices.ContainsFunc(got, func(l loopback) bool { return l.Addr == first }) || !slices.ContainsFunc(got, func(l loopback) bool { return l.Addr == v6 }) {
		t.Errorf("localhost without an answer: %v", got)
	}
}

func TestBindAll(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", netip.AddrPortFrom(second, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := uint16(taken.Addr().(*net.TCPAddr).Port)
	all := func(addresses ...netip.Addr) (all []loopback) {
		for _, a := range addresses {
			all = append(all, loopback{Addr: a})
		}
		return all
	}
	for _, tt := range []struct {
		name      string
		addresses []loopback
		port      uint16
		want      int // addresses that are bound
		err       error
	}{
		{"two", all(first, second), 0, 2, nil},
		{"one of two is absent", all(absent, first), 0, 1, nil},
		{"two of three are absent", all(absent, first, netip.MustParseAddr("2001:db8::1")), 0, 1, nil},
		{"all are absent", all(absent, netip.MustParseAddr("198.51.100.1")), 0, 0, syscall.EADDRNOTAVAIL},
		{"one of two is taken", all(first, second), port, 0, syscall.EADDRINUSE},
		{"one that nobody listed is taken", []loopback{{Addr: first}, {Addr: second, unlisted: true}}, port, 1, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, err := bindAll(t.Context(), tt.addresses, tt.port)
			if tt.err != nil {
				if !errors.Is(err, tt.err) {
					t.Errorf("%v, want %v", err, tt.err)
				}
				// None stays bound.
				again, err := net.Listen("tcp", netip.AddrPortFrom(first, tt.port).String())
				if err != nil {
					t.Fatal(err)
				}
				again.Close()
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			got := 1
			if j, ok := l.(*joined); ok {
				got = len(j.listeners)
				for _, part := range j.listeners {
					if part.Addr().(*net.TCPAddr).Port != l.Addr().(*net.TCPAddr).Port {
						t.Errorf("the port of %v is another than that of %v", part.Addr(), l.Addr())
					}
				}
			}
			if got != tt.want {
				t.Errorf("%d addresses are bound, want %d", got, tt.want)
			}
		})
	}
}

// TestNameOfATakenPort: the error names the one address that is taken.
func TestNameOfATakenPort(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ taken, host string }{{"127.0.0.1:0", "localhost"}, {"127.0.0.1:0", ""}, {"127.0.0.2:0", "127.0.0.2"}, {":0", "localhost"}} {
		taken, err := net.Listen("tcp", tt.taken)
		if err != nil {
			t.Fatal(err)
		}
		defer taken.Close()
		port := fmt.Sprint(taken.Addr().(*net.TCPAddr).Port)
		_, err = Listen(t.Context(), Port{"-a (A)", net.JoinHostPort(tt.host, port)})
		if text := fmt.Sprint(err); !strings.HasPrefix(text, "-a (A): listen ") || !strings.Contains(text, ":"+port+": address already in use") {
			t.Errorf("%+v: %v", tt, err)
		}
	}
}

// TestJoined: a server of several addresses answers on each, and drains as one.
func TestJoined(t *testing.T) {
	t.Parallel()
	own := []netip.Addr{netip.MustParseAddr("127.0.0.6"), netip.MustParseAddr("127.0.0.7")} // no other test gets their ports afterwards
	l, err := bindAll(t.Context(), []loopback{{Addr: own[0]}, {Addr: own[1]}}, 0)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	done := make(chan error, 1)
	go func() {
		done <- Run(ctx, slog.New(slog.DiscardHandler), patience, Server{Name: "health", Listener: l, Handler: ok})
	}()
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	for _, a := range own {
		response, err := (&http.Client{Transport: new(http.Transport), Timeout: patience}).Get("http://" + netip.AddrPortFrom(a, port).String())
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, response.Body)
		response.Body.Close()
		if response.StatusCode != 200 {
			t.Errorf("%v: %s", a, response.Status)
		}
	}
	stop()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Fatal("the server does not end")
	}
	for _, a := range own {
		if _, err := net.Dial("tcp", netip.AddrPortFrom(a, port).String()); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%v still listens: %v", a, err)
		}
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept after Close: %v", err)
	}
}
