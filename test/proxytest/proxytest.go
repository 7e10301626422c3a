// Package proxytest runs a built grpc_health_proxy, or a program that logs and answers like it. Start returns when the program
// answers; a Proxy has its URL and its log, takes signals, and says its exit code. Only tests import the package, and the soak.
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

// patience bounds how long a program may take to start, and how long to end.
const patience = 30 * time.Second

// Proxy is a running program.
type Proxy struct {
	// URL is where the program answers health checks.
	URL string

	cmd  *exec.Cmd
	done chan struct{} // closed when the program has ended

	mu  sync.Mutex
	log []string
}

// Start runs a program and returns when it has logged its URL. Its environment has env and what it needs to listen on ports that
// the system chooses. It ends with the test.
func Start(t testing.TB, program string, env ...string) *Proxy {
	t.Helper()
	p := &Proxy{cmd: exec.Command(program), done: make(chan struct{})}
	p.cmd.Env = append([]string{
		"GRPC_HEALTH_HTTP_LISTEN_ADDR=127.0.0.1:0", "GRPC_HEALTH_METRICS_HTTP_LISTEN_ADDR=127.0.0.1:0", "GRPC_HEALTH_LOG_FORMAT=json",
		"GORACE=atexit_sleep_ms=0", // the default is a second
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
		_ = p.cmd.Wait() // End looks at the exit code
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // fails only if the program has ended
		<-p.done
	})
	select {
	case p.URL = <-answering:
	case <-p.done:
		t.Fatalf("the program ended: %v\n%s", p.cmd.ProcessState, strings.Join(p.Log(""), "\n"))
	case <-time.After(patience):
		t.Fatalf("the program has not logged its URL within %v:\n%s", patience, strings.Join(p.Log(""), "\n"))
	}
	return p
}

// read keeps the lines of the log, and sends the URL that one of them has.
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

// Log returns the lines of the log that contain a text.
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

// End sends the program a signal that ends it, and returns its exit code.
func (p *Proxy) End(t testing.TB, s os.Signal) int {
	t.Helper()
	p.Signal(t, s)
	select {
	case <-p.done:
	case <-time.After(patience):
		t.Fatalf("the program has not ended within %v after %v", patience, s)
	}
	return p.cmd.ProcessState.ExitCode()
}
