//go:build linux

package reality

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"example.com/grpc-health-http/internal/creds"
	"example.com/grpc-health-http/internal/settings"
	"example.com/grpc-health-http/internal/upstream"
	"example.com/grpc-health-http/test/healthtest"
)

// Variables of the processes that the tests start. role says what one is, the rest is what it needs.
const (
	role     = "REALITY_ROLE"
	listenAt = "REALITY_LISTEN_AT"
	options  = "REALITY_OPTIONS"
)

func TestMain(m *testing.M) {
	switch os.Getenv(role) {
	case "server":
		beServer()
	case "checker":
		beChecker()
	default:
		os.Exit(healthtest.RunMany(m))
	}
}

// start starts this program in a role, and returns what it writes and reads. It ends with the test.
func start(t *testing.T, env ...string) (p *os.Process, in io.WriteCloser, out *bufio.Scanner) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), env...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	read, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()         // by that signal
	})
	return cmd.Process, in, bufio.NewScanner(read)
}

// serverProcess is a server with a process of its own.
type serverProcess struct {
	t       *testing.T
	process *os.Process
	in      io.Writer
	asked   atomic.Int32
	hanging chan struct{} // closed when RPCs hang
	ended   chan struct{} // closed when it has
}

// startServer starts a server that tells of each RPC.
func startServer(t *testing.T, address string) *serverProcess {
	t.Helper()
	p, in, out := start(t, role+"=server", listenAt+"="+address)
	if !out.Scan() {
		t.Fatal("the server does not listen")
	}
	s := &serverProcess{t: t, process: p, in: in, hanging: make(chan struct{}), ended: make(chan struct{})}
	go func() {
		defer close(s.ended)
		for out.Scan() {
			switch out.Text() {
			case "asked":
				s.asked.Add(1)
			case "hanging":
				close(s.hanging)
			}
		}
	}()
	return s
}

// hang has its RPCs hang from now on.
func (s *serverProcess) hang() {
	fmt.Fprintln(s.in, "hang")
	<-s.hanging
}

// kill ends the process, and returns when it has ended.
func (s *serverProcess) kill() {
	if err := s.process.Kill(); err != nil {
		s.t.Error(err)
	}
	<-s.ended // its output was closed with its sockets
}

// beServer is what such a process does.
func beServer() {
	l, err := listen(os.Getenv(listenAt))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("listening")
	s := newService()
	s.tell = func() { fmt.Println("asked") }
	server := grpc.NewServer()
	healthpb.RegisterHealthServer(server, s)
	go func() {
		for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
			s.hang()
			fmt.Println("hanging")
		}
		os.Exit(0) // the test has ended
	}()
	fmt.Fprintln(os.Stderr, server.Serve(l))
}

// checkerProcess is an asker with a process of its own.
type checkerProcess struct {
	t       *testing.T
	process *os.Process
	in      io.WriteCloser
	out     *bufio.Scanner
}

func startChecker(t *testing.T, s *settings.Upstream) *checkerProcess {
	t.Helper()
	o, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	c := &checkerProcess{t: t}
	c.process, c.in, c.out = start(t, role+"=checker", options+"="+string(o))
	return c
}

// do has the process do something, and reads what came of it.
func (c *checkerProcess) do(what string, result any) {
	fmt.Fprintln(c.in, what)
	if !c.out.Scan() {
		c.t.Error("the checker has ended")
		return
	}
	if err := json.Unmarshal(c.out.Bytes(), result); err != nil {
		c.t.Error(err)
	}
}

func (c *checkerProcess) ask() (o outcome) {
	c.do("ask", &o)
	return o
}

func (c *checkerProcess) askHung() { panic("no scenario needs it") }

func (c *checkerProcess) shown() (all []string) {
	c.do("shown", &all)
	return all
}

func (c *checkerProcess) close() { c.in.Close() }

// freeze stops the process.
func (c *checkerProcess) freeze(d time.Duration, meanwhile func()) {
	began := time.Now()
	if err := c.process.Signal(syscall.SIGSTOP); err != nil {
		c.t.Error(err)
	}
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(c.process.Pid, &status, syscall.WUNTRACED, nil); err != nil || !status.Stopped() {
		c.t.Errorf("the checker does not stop: %v, %v", status, err)
	}
	meanwhile()
	time.Sleep(time.Until(began.Add(d)))
	if err := c.process.Signal(syscall.SIGCONT); err != nil {
		c.t.Error(err)
	}
}

// beChecker is what such a process does.
func beChecker() {
	var s settings.Upstream
	if err := json.Unmarshal([]byte(os.Getenv(options)), &s); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	o, err := upstream.Options(&s, creds.Options{}, nil)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	l := newLocal(o)
	out := json.NewEncoder(os.Stdout)
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var result any = l.shown()
		if lines.Text() == "ask" {
			result = l.ask()
		}
		if err := out.Encode(result); err != nil {
			os.Exit(1)
		}
	}
}
