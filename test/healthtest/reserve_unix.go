//go:build unix

package healthtest

import (
	"net"
	"net/netip"
	"sync"
	"syscall"
)

// stopListening closes a TCP listener. A process that is being started has copies of all open files until it
// runs, and would go on listening for so long: shutting the listener down reaches the copies, too. (Linux
// does that; elsewhere it has no effect.)
func stopListening(listener net.Listener) {
	tcp, ok := listener.(*net.TCPListener)
	if !ok {
		listener.Close()
		return
	}
	// Closed first, for Accept to say so.
	ours, err := tcp.File()
	tcp.Close()
	if err != nil {
		return
	}
	defer ours.Close()
	if raw, err := ours.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _ = syscall.Shutdown(int(fd), syscall.SHUT_RDWR) })
	}
}

// reservation keeps a TCP address from being given to anybody else while nothing listens there: a
// socket that is bound and does not listen. Dials are refused, and since it has SO_REUSEADDR, as the
// listeners of package net have, one of them can still be bound to the address.
type reservation struct {
	once sync.Once
	fd   int
}

// reserve returns nil where the address cannot be had, in which case it is just not reserved.
func reserve(address string) *reservation {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil
	}
	family, sockaddr := syscall.AF_INET6, syscall.Sockaddr(&syscall.SockaddrInet6{Port: int(at.Port()), Addr: at.Addr().As16()})
	if at.Addr().Is4() {
		family, sockaddr = syscall.AF_INET, &syscall.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}
	}
	syscall.ForkLock.RLock()
	fd, err := syscall.Socket(family, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(fd)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil
	}
	if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		syscall.Close(fd)
		return nil
	}
	if err := syscall.Bind(fd, sockaddr); err != nil {
		syscall.Close(fd)
		return nil
	}
	return &reservation{fd: fd}
}

// release may be called on nil, and more than once.
func (r *reservation) release() {
	if r != nil {
		r.once.Do(func() { syscall.Close(r.fd) })
	}
}
