package healthtest_test

import (
	"errors"
	"net"
	"testing"

	"example.com/grpc-health-http/test/healthtest"
)

func TestFullBacklogs(t *testing.T) {
	t.Parallel()
	hangs := func(address string) {
		t.Helper()
		var timeout net.Error
		if conn, err := net.DialTimeout("tcp", address, notNow); !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Errorf("got %v, %v, want a dial that hangs", conn, err)
		}
	}
	hangs(healthtest.DropSYNs(t, "127.0.0.1:0"))

	up := healthtest.Start(t)
	f := healthtest.Forward(t, up.Target())
	established := dial(t, f.Addr())
	for range 2 {
		want(t, established, "", "SERVING")
		f.SetMode(healthtest.Backlogged)
		hangs(f.Addr())
		want(t, established, "", "SERVING")
		f.SetMode(healthtest.Pass)
		want(t, dial(t, f.Addr()), "", "SERVING")
	}
}
