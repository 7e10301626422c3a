//go:build unix

package healthtest

import (
	"net"
	"net/netip"
	"sync"
	"syscall"
)

// stopListening closes a listener. A process that is being started has copies of all open files until its exec, and would keep
// the address listening until then. On Linux, shutting the socket down also stops the copies from listening; elsewhere it has
// no effect.
func stopListening(listener net.Listener) {
	tcp, ok := listener.(*net.TCPListener)
	if !ok {
		listener.Close()
		return
	}
	// Close first, so that Accept returns net.ErrClosed.
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

// reservation keeps the system from giving a TCP address to another program while nothing listens there. It is a socket that is
// bound and does not listen, so connections are refused. It has SO_REUSEADDR, as listeners of package net have, so that one of
// them can bind the address again.
type reservation struct {
	once sync.Once
	fd   int
}

// reserve reserves an address. It returns nil if that is not possible; the address is then not reserved.
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
