//go:build unix && long

package check

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.com/grpc-health-http/internal/dial"
	"example.com/grpc-health-http/internal/target"
	"example.com/grpc-health-http/test/healthtest"
)

const (
	frozenBudget = 1500 * time.Millisecond // of the helper, for a connection and for an RPC: it leaves a busy machine some time beside what is slow
	pauseOfCheck = 2*frozenBudget + 500*time.Millisecond
)

// TestFreezeHelper is the process that the tests below stop: it makes a check for each line that it
// reads, and writes the verdict's status.
func TestFreezeHelper(t *testing.T) {
	address := os.Getenv("CHECK_FREEZE_TARGET")
	if address == "" {
		t.Skip("runs as a child process of the tests below only")
	}
	parsed, err := target.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	c := New(Options{Options: dial.Options{Target: parsed, ConnectTimeout: frozenBudget}, RPCTimeout: frozenBudget, MaxAge: time.Hour, Services: []string{"s"}})
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		v := c.Check(context.Background(), "s")
		fmt.Printf("verdict %v %q %v\n", v.Status, v.Phase, v.Err)
	}
}

// frozen is a running helper.
type frozen struct {
	t        *testing.T
	cmd      *exec.Cmd
	in       *os.File
	verdicts *bufio.Scanner
}

func startHelper(t *testing.T, target string) *frozen {
	cmd := exec.Command(os.Args[0], "-test.run=^TestFreezeHelper$", "-test.v=false")
	cmd.Env = append(os.Environ(), "CHECK_FREEZE_TARGET="+target)
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdin = read
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	read.Close()
	t.Cleanup(func() { write.Close(); cmd.Process.Kill(); cmd.Wait() })
	return &frozen{t, cmd, write, bufio.NewScanner(out)}
}

// ask makes the helper check.
func (f *frozen) ask() { fmt.Fprintln(f.in) }

// verdict reads the helper's next verdict.
func (f *frozen) verdict() string {
	f.t.Helper()
	for f.verdicts.Scan() {
		if text, ok := strings.CutPrefix(f.verdicts.Text(), "verdict "); ok {
			return text
		}
	}
	f.t.Fatal("the helper has ended")
	return ""
}

func (f *frozen) serving() {
	f.t.Helper()
	if v := f.verdict(); !strings.HasPrefix(v, "SERVING ") {
		f.t.Errorf("verdict %s, want SERVING", v)
	}
}

// freeze stops the process for longer than the budget of a check; meanwhile happens during it.
func (f *frozen) freeze(meanwhile func()) {
	f.t.Helper()
	f.freezeFor(pauseOfCheck, meanwhile)
}

func (f *frozen) freezeFor(pause time.Duration, meanwhile func()) {
	f.t.Helper()
	if err := f.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		f.t.Fatal(err)
	}
	meanwhile()
	time.Sleep(pause)
	if err := f.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		f.t.Fatal(err)
	}
}

func TestFrozenProcess(t *testing.T) {
	t.Parallel()
	nothing := func() {}
	t.Run("between checks, the upstream restarts", func(t *testing.T) {
		t.Parallel()
		up := healthtest.Start(t)
		up.SetStatus("s", serving)
		f := startHelper(t, up.Target())
		f.ask()
		f.serving()
		f.freeze(up.Restart)
		f.ask()
		f.serving()
	})
	t.Run("between checks, the connection is forgotten on the way", func(t *testing.T) {
		t.Parallel()
		up := healthtest.Start(t)
		up.SetStatus("s", serving)
		way := healthtest.Forward(t, up.Target())
		f := startHelper(t, way.Addr())
		f.ask()
		f.serving()
		f.freeze(way.BlackHole)
		f.ask()
		f.serving()
	})
	for _, connection := range []string{"fresh", "reused"} {
		t.Run("in the RPC of a slow server, "+connection, func(t *testing.T) {
			t.Parallel()
			up := healthtest.Start(t)
			up.SetStatus("s", serving)
			f := startHelper(t, up.Target())
			if connection == "reused" {
				f.ask()
				f.serving()
			}
			up.SetDelay("s", 700*time.Millisecond)
			f.ask()
			eventually(t, "the RPC is under way", func() bool { return up.InFlightFor("s") > 0 })
			f.freeze(nothing)
			f.serving()
		})
		t.Run("in an RPC that the way loses, "+connection, func(t *testing.T) {
			t.Parallel()
			up := healthtest.Start(t)
			up.SetStatus("s", serving)
			way := healthtest.Forward(t, up.Target())
			f := startHelper(t, way.Addr())
			if connection == "reused" {
				f.ask()
				f.serving()
			}
			up.SetDelay("s", 700*time.Millisecond)
			f.ask()
			eventually(t, "the RPC is under way", func() bool { return up.InFlightFor("s") > 0 })
			f.freeze(way.BlackHole)
			f.serving()
		})
	}
	t.Run("in a slow dial", func(t *testing.T) {
		t.Parallel()
		up := healthtest.Start(t)
		up.SetStatus("s", serving)
		way := healthtest.Forward(t, up.Target())
		way.Hold(700 * time.Millisecond)
		f := startHelper(t, way.Addr())
		f.ask()
		eventually(t, "the dial is under way", func() bool { return way.Connections() > 0 })
		f.freeze(nothing)
		f.serving()
	})
}

// A process that is stopped during a check, while the network forgets its connections: new ones work when it continues, so
// the answer is SERVING, whatever is slow besides. 6 s are so long that what came before counts no more.
func TestFrozenDuringACheck(t *testing.T) {
	t.Parallel()
	for _, connection := range []string{"reused", "fresh"} {
		for _, slow := range []string{"nothing", "server", "dial"} {
			for _, pause := range []time.Duration{pauseOfCheck, 6 * time.Second} {
				t.Run(fmt.Sprintf("%s/%s slow/%v", connection, slow, pause), func(t *testing.T) {
					t.Parallel()
					up := healthtest.Start(t)
					up.SetStatus("s", serving)
					way := healthtest.Forward(t, up.Target())
					f := startHelper(t, way.Addr())
					if connection == "reused" {
						f.ask()
						f.serving()
					}
					switch slow {
					case "server":
						up.SetDelay("s", slowServer)
					case "dial":
						way.Hold(slowDial)
					}
					dials, rpcs := way.Connections(), up.RPCsFor("s")
					switch {
					case slow == "server":
						f.ask()
						eventually(t, "the RPC has arrived", func() bool { return up.InFlightFor("s") > 0 })
						f.freezeFor(pause, way.BlackHole)
					case slow == "dial" && connection == "fresh":
						f.ask()
						eventually(t, "the dial is under way", func() bool { return way.Connections() > 0 })
						f.freezeFor(pause, way.BlackHole)
					default: // the check is asked for, and has not begun
						f.freezeFor(pause, func() { f.ask(); way.BlackHole() })
					}
					f.serving()
					if n := way.Connections() - dials; n < 1 || n > 3 {
						t.Errorf("%d dials, want 1 to 3", n)
					}
					if n := up.RPCsFor("s") - rpcs; n < 1 || n > 3 {
						t.Errorf("%d RPCs reached the server, want 1 to 3", n)
					}
				})
			}
		}
	}
}
