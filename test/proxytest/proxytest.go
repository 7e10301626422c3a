// Package proxytest runs a built grpc_health_proxy, or what behaves like one. Only tests import it, and the soak.
package proxytest

import (
	"bufio"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// patience bounds how long a program may take to start, and to end.
const patience = 30 * time.Second

// Proxy is a running program.
type Proxy struct {
	// URL is where it answers health checks.
	URL string

	cmd  *exec.Cmd
	done chan struct{} // closed at its end

	mu  sync.Mutex
	log []string
}

// Start runs a program with these variables, and none but these, in its environment, on ports that the
// system chooses, and returns once it says where it answers. It ends with the test.
func Start(t testing.TB, program string, env ...string) *Proxy {
	t.Helper()
	p := &Proxy{cmd: exec.Command(program), done: make(chan struct{})}
	p.cmd.Env = append([]string{
		"GRPC_HEALTH_HTTP_LISTEN_ADDR=127.0.0.1:0", "GRPC_HEALTH_METRICS_HTTP_LISTEN_ADDR=127.0.0.1:0", "GRPC_HEALTH_LOG_FORMAT=json",
		"GORACE=atexit_sleep_ms=0", // with the race detector it would last a second longer
	}, env...)
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	answering := make(chan string, 1)
	go func() {
		defer close(p.done)
		p.read(stderr, answering)
		_ = p.cmd.Wait() // the exit code tells
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // an error says that it has ended
		<-p.done
	})
	select {
	case p.URL = <-answering:
	case <-p.done:
		t.Fatalf("the program has ended: %v\n%s", p.cmd.ProcessState, strings.Join(p.Log(""), "\n"))
	case <-time.After(patience):
		t.Fatalf("the program does not say that it answers:\n%s", strings.Join(p.Log(""), "\n"))
	}
	return p
}

// read keeps the lines of the log, and tells the URL that one of them has.
func (p *Proxy) read(stderr io.Reader, answering chan<- string) {
	for lines := bufio.NewScanner(stderr); lines.Scan(); {
		p.mu.Lock()
		p.log = append(p.log, lines.Text())
		p.mu.Unlock()
		var line struct{ Msg, URL string }
		if json.Unmarshal(lines.Bytes(), &line) == nil && line.Msg == "answering health checks" {
			answering <- line.URL
		}
	}
}

// Log returns the lines of the log so far that contain a text.
func (p *Proxy) Log(containing string) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(p.log), func(line string) bool { return !strings.Contains(line, containing) })
}

// Signal sends the program a signal.
func (p *Proxy) Signal(t testing.TB, s os.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatalf("signal %v: %v\n%s", s, err, strings.Join(p.Log(""), "\n"))
	}
}

// End asks the program to end, and returns its exit code.
func (p *Proxy) End(t testing.TB, s os.Signal) int {
	t.Helper()
	p.Signal(t, s)
	select {
	case <-p.done:
	case <-time.After(patience):
		t.Fatalf("the program does not end")
	}
	return p.cmd.ProcessState.ExitCode()
}
