package healthtest_test

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"

	"example.com/grpc-health-http/test/healthtest"
)

// TestRefusesWhileProcessesStart: a process that is being started has copies of its parent's files, also of the listener.
func TestRefusesWhileProcessesStart(t *testing.T) {
	t.Parallel()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var starting sync.WaitGroup
	for range 4 {
		starting.Go(func() {
			for ctx.Err() == nil {
				// No test has this name, so the program ends at once.
				if out, err := exec.Command(program, "-test.run=^$").CombinedOutput(); err != nil {
					t.Errorf("%v: %s", err, out)
				}
			}
		})
	}
	f := healthtest.Forward(t, "")
	for range 10000 {
		f.SetMode(healthtest.Refuse)
		if conn, err := net.DialTimeout("tcp", f.Addr(), patience); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("got %v, %v, want refused", conn, err)
		}
		f.SetMode(healthtest.Silent)
	}
	stop()
	starting.Wait()
}
