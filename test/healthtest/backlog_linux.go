package healthtest

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"
)

// backlog is a listener whose accept queue is full, so that the system drops the SYNs of new connections.
type backlog struct {
	fd      int
	address string
	fillers []net.Conn // the connections in the queue
}

const (
	// fillersAtMost is more than a queue of length 0 can hold.
	fillersAtMost = 16
	// filledAfter is how long a dial must hang for the queue to count as full.
	filledAfter = 200 * time.Millisecond
)

// listenBacklogged listens at an IPv4 address, and fills its accept queue.
func listenBacklogged(address string) (*backlog, error) {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, err
	}
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	b := &backlog{fd: fd}
	if err := b.fill(at); err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}

func (b *backlog) fill(at netip.AddrPort) error {
	if err := syscall.SetsockoptInt(b.fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		return err
	}
	if err := syscall.Bind(b.fd, &syscall.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}); err != nil {
		return fmt.Errorf("bind %s: %w", at, err)
	}
	if err := syscall.Listen(b.fd, 0); err != nil {
		return err
	}
	name, err := syscall.Getsockname(b.fd)
	if err != nil {
		return err
	}
	b.address = netip.AddrPortFrom(at.Addr(), uint16(name.(*syscall.SockaddrInet4).Port)).String()
	for range fillersAtMost {
		conn, err := net.DialTimeout("tcp", b.address, filledAfter)
		if err != nil {
			return nil
		}
		b.fillers = append(b.fillers, conn)
	}
	return errors.New("the accept queue does not fill up")
}

// close may be called on nil.
func (b *backlog) close() {
	if b == nil {
		return
	}
	syscall.Close(b.fd)
	for _, conn := range b.fillers {
		conn.Close()
	}
}

// DropSYNs makes connecting to an IPv4 address hang until the test ends. It returns the address, with the port that the system
// chose if the given port was 0.
func DropSYNs(t testing.TB, address string) string {
	t.Helper()
	b, err := listenBacklogged(address)
	if err != nil {
		t.Fatalf("drop SYNs: %v", err)
	}
	t.Cleanup(b.close)
	return b.address
}
