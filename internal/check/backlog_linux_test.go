package check

import (
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"
)

// backlogged listens at the address with a back-log of nothing that is full: the system drops the
// SYNs of those who dial now. It returns the address.
func backlogged(t testing.TB, address string) string {
	t.Helper()
	at := netip.MustParseAddrPort(address)
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	bound := netip.AddrPortFrom(at.Addr(), uint16(name.(*syscall.SockaddrInet4).Port)).String()
	for range 16 {
		conn, err := net.DialTimeout("tcp", bound, 200*time.Millisecond)
		if err != nil {
			return bound // it is full
		}
		t.Cleanup(func() { conn.Close() })
	}
	t.Fatal("the back-log does not fill")
	return ""
}
