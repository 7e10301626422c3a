package serve

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
)

// Port is an address to listen on.
type Port struct {
	// Setting names what the user changes to listen elsewhere; errors begin with it.
	Setting string
	// Addr is "host:port"; an empty host is every address of this machine.
	Addr string
}

// Listen binds all the ports and returns their listeners in the same order, or binds none and
// says of each port that cannot be had what to do about it. Errors do not repeat the address.
func Listen(ctx context.Context, ports ...Port) ([]net.Listener, error) {
	var listeners []net.Listener
	var problems []error
	for _, p := range ports {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", p.Addr)
		if err != nil {
			problems = append(problems, fmt.Errorf("%s: listen: %w", p.Setting, advise(err)))
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

// advise reduces an error of listening to its cause, without the address, and says what to do.
func advise(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	var addr *net.AddrError
	var lookup *net.DNSError
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%w: choose another port, or stop what listens there", syscall.EADDRINUSE)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("%w: choose a port above 1023", syscall.EACCES)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%w: choose an address of this machine, or none for all of them", syscall.EADDRNOTAVAIL)
	case errors.As(err, &addr):
		return fmt.Errorf("%s: write host:port, or :port for every address of this machine", addr.Err)
	case errors.As(err, &lookup):
		return fmt.Errorf("%s: write a name or address of this machine and a port from 0 to 65535", lookup.Err)
	}
	return err
}
