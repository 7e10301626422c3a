package serve

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
)

// Port is an address to listen on.
type Port struct {
	// Setting names what the user changes to listen elsewhere; errors begin with it.
	Setting string
	// Addr is "host:port"; an empty host is every address of this machine, and a name that has only loopback addresses, such as
	// localhost, is all of them.
	Addr string
}

// Listen binds all the ports and returns their listeners in the same order, or binds none and
// says of each port that cannot be had what to do about it.
func Listen(ctx context.Context, ports ...Port) ([]net.Listener, error) {
	var listeners []net.Listener
	var problems []error
	for _, p := range ports {
		l, err := bindName(ctx, p.Addr)
		if err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", p.Setting, advise(err)))
			continue
		}
		listeners = append(listeners, l)
	}
	if len(problems) > 0 {
		for _, l := range listeners {
			l.Close()
		}
		return nil, errors.Join(problems...)
	}
	return listeners, nil
}

// portTries is how often a port that the system chose for one loopback address is tried on the others, where it may be taken.
const portTries = 20

// bindName binds one address, or every loopback address of a name.
func bindName(ctx context.Context, addr string) (net.Listener, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return bind(ctx, addr) // which says what is wrong
	}
	addresses := loopbacks(ctx, host)
	if len(addresses) < 2 {
		return bind(ctx, addr)
	}
	number, err := net.DefaultResolver.LookupPort(ctx, "tcp", port)
	if err != nil {
		return nil, err
	}
	for try := 1; ; try++ {
		l, err := bindAll(ctx, addresses, uint16(number))
		if number != 0 || try == portTries || !errors.Is(err, syscall.EADDRINUSE) {
			return l, err
		}
	}
}

func bind(ctx context.Context, addr string) (net.Listener, error) {
	return new(net.ListenConfig).Listen(ctx, "tcp", addr)
}

// loopback is an address of a name.
type loopback struct {
	netip.Addr
	// unlisted says that only RFC 6761 gives the name this address.
	unlisted bool
}

// loopbacks returns the addresses of a name, if all of them are loopback addresses. Many hosts files have localhost for IPv4 only,
// and some containers have no such file. Clients that know RFC 6761, section 6.3, still try both families.
func loopbacks(ctx context.Context, host string) []loopback {
	if _, err := netip.ParseAddr(host); host == "" || err == nil {
		return nil
	}
	listed, _ := net.DefaultResolver.LookupNetIP(ctx, "ip", host) // without an answer, bind looks the name up and says why
	var all []loopback
	for _, a := range listed {
		if a = a.Unmap(); !a.IsLoopback() {
			return nil
		}
		if !slices.Contains(all, loopback{Addr: a}) {
			all = append(all, loopback{Addr: a})
		}
	}
	if strings.EqualFold(strings.TrimSuffix(host, "."), "localhost") {
		for _, a := range []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()} {
			if !slices.Contains(all, loopback{Addr: a}) {
				all = append(all, loopback{Addr: a, unlisted: len(listed) > 0})
			}
		}
	}
	return all
}

// bindAll binds one port on all the addresses that this machine has: IPv6 may be switched off. Port 0 is one that the system
// chooses, the same for all.
func bindAll(ctx context.Context, addresses []loopback, port uint16) (net.Listener, error) {
	var bound []net.Listener
	var absent error
	for _, a := range addresses {
		l, err := bind(ctx, netip.AddrPortFrom(a.Addr, port).String())
		switch {
		case err == nil:
			bound = append(bound, l)
			port = uint16(l.Addr().(*net.TCPAddr).Port)
		case a.unlisted, errors.Is(err, syscall.EADDRNOTAVAIL), errors.Is(err, syscall.EAFNOSUPPORT):
			absent = err
		default:
			for _, l := range bound {
				l.Close()
			}
			return nil, err
		}
	}
	switch len(bound) {
	case 0:
		return nil, absent
	case 1:
		return bound[0], nil
	}
	return join(bound), nil
}

// joined is several listeners as one. Its address is that of the first.
type joined struct {
	listeners []net.Listener
	accepted  chan accepted
	closed    chan struct{}
	close     func() error
}

// accepted is what an Accept returned.
type accepted struct {
	conn net.Conn
	err  error
}

func join(listeners []net.Listener) *joined {
	j := &joined{listeners: listeners, accepted: make(chan accepted), closed: make(chan struct{})}
	j.close = sync.OnceValue(func() error {
		close(j.closed)
		var errs []error
		for _, l := range j.listeners {
			errs = append(errs, l.Close())
		}
		return errors.Join(errs...)
	})
	for _, l := range listeners {
		go j.accept(l)
	}
	return j
}

// accept hands over what one of the listeners accepts, errors too, until the end.
func (j *joined) accept(l net.Listener) {
	for {
		conn, err := l.Accept()
		select {
		case j.accepted <- accepted{conn, err}:
		case <-j.closed:
			if conn != nil {
				conn.Close() // as the system closes those that wait to be accepted
			}
			return
		}
	}
}

// Accept returns the next connection to any of the addresses.
func (j *joined) Accept() (net.Conn, error) {
	select {
	case <-j.closed:
		return nil, net.ErrClosed
	default:
	}
	select {
	case a := <-j.accepted:
		return a.conn, a.err
	case <-j.closed:
		return nil, net.ErrClosed
	}
}

// Close closes all the listeners.
func (j *joined) Close() error { return j.close() }

// Addr is the first of the addresses.
func (j *joined) Addr() net.Addr { return j.listeners[0].Addr() }

// advise reduces an error of listening to its cause, with the address that was to be bound, and says what to do.
func advise(err error) error {
	where := ""
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
		if op.Addr != nil {
			where = " " + op.Addr.String()
		}
	}
	var addr *net.AddrError
	var lookup *net.DNSError
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("listen%s: %w: choose another port, or stop what listens there", where, syscall.EADDRINUSE)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("listen%s: %w: choose a port above 1023", where, syscall.EACCES)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("listen%s: %w: choose an address of this machine, or none for all of them", where, syscall.EADDRNOTAVAIL)
	case errors.As(err, &addr):
		return fmt.Errorf("listen: %s: write host:port, or :port for every address of this machine", addr.Err)
	case errors.As(err, &lookup):
		return fmt.Errorf("listen: %s: write a name or address of this machine and a port from 0 to 65535", lookup.Err)
	}
	return fmt.Errorf("listen%s: %w", where, err)
}
