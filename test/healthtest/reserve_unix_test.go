//go:build unix

package healthtest_test

import (
	"errors"
	"net"
	"syscall"
	"testing"

	"example.com/grpc-health-http/test/healthtest"
)

// TestAddressesStayReserved binds without SO_REUSEADDR, which is what the system does for port 0.
func TestAddressesStayReserved(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	f := healthtest.Forward(t, up.Target())
	up.Stop()
	f.SetMode(healthtest.Refuse)
	exclusive := net.ListenConfig{Control: func(_, _ string, conn syscall.RawConn) error {
		var err error
		if controlErr := conn.Control(func(fd uintptr) {
			err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 0)
		}); controlErr != nil {
			return controlErr
		}
		return err
	}}
	for _, address := range []string{up.Addr(), f.Addr()} {
		if listener, err := exclusive.Listen(t.Context(), "tcp", address); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("%s is not reserved: %v, %v", address, listener, err)
		}
	}
}
