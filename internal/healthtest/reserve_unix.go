//go:build unix

package healthtest

import (
	"net/netip"
	"sync"
	"syscall"
)

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
