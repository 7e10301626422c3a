package scripttest

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/rogpeppe/go-internal/testscript"
)

// process is a run of the command.
type process struct {
	cmd            *exec.Cmd
	stdout, stderr output
	done           chan struct{} // closed when the process has ended
}

// output is what a process has written so far. It can be read while the process writes.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// run starts a command line: variables, the program's name, arguments.
func (s *session) run(ts *testscript.TestScript, line []string) *process {
	environment := []string{
		"HOME=/no-home",
		"TMPDIR=" + s.dir,
		"GORACE=atexit_sleep_ms=0", // the default is a second
	}
	for len(line) > 0 && variable.MatchString(line[0]) {
		environment, line = append(environment, line[0]), line[1:]
	}
	if len(line) == 0 || line[0] != filepath.Base(s.program) {
		ts.Fatalf("the program must be %s", filepath.Base(s.program))
	}
	p := &process{cmd: exec.Command(s.program, line[1:]...), done: make(chan struct{})}
	p.cmd.Env, p.cmd.Dir = environment, ts.MkAbs(".")
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	ts.Check(p.cmd.Start())
	go func() {
		_ = p.cmd.Wait() // expect looks at the exit code
		s.record(p.stdout.String() + p.stderr.String())
		close(p.done)
	}()
	return p
}

var variable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*=`)

// end kills the process, unless it has ended, and waits for its end.
func (p *process) end() {
	_ = p.cmd.Process.Kill() // fails only if the process has ended
	<-p.done
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// expect waits for the end of the process, and checks its exit code.
func (p *process) expect(ts *testscript.TestScript, code string) {
	want, err := strconv.Atoi(code)
	ts.Check(err)
	poll(ts, "the end of the process", p.ended)
	_, _ = ts.Stdout().Write([]byte(p.stdout.String()))
	_, _ = ts.Stderr().Write([]byte(p.stderr.String()))
	if got := p.cmd.ProcessState.ExitCode(); got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

func exits(s *session, ts *testscript.TestScript, args []string) {
	p := s.run(ts, args[1:])
	defer p.end()
	p.expect(ts, args[0])
}

func start(s *session, ts *testscript.TestScript, args []string) {
	s.keep(ts, args[0], s.run(ts, args[1:]))
}

func (s *session) keep(ts *testscript.TestScript, name string, p *process) {
	if before := s.processes[name]; before != nil {
		before.end()
	}
	s.processes[name] = p
}

func (s *session) process(ts *testscript.TestScript, name string) *process {
	p := s.processes[name]
	if p == nil {
		ts.Fatalf("no process %s", name)
	}
	return p
}

func proxy(s *session, ts *testscript.TestScript, args []string) {
	line := []string{"GRPC_HEALTH_HTTP_LISTEN_ADDR=127.0.0.1:0", "GRPC_HEALTH_METRICS_HTTP_LISTEN_ADDR=127.0.0.1:0"}
	rest := args[1:]
	for len(rest) > 0 && variable.MatchString(rest[0]) {
		line, rest = append(line, rest[0]), rest[1:]
	}
	line = append(append(line, filepath.Base(s.program)), rest...)
	p := s.run(ts, line)
	s.keep(ts, args[0], p)
	setURL(ts, args[0], p.await(ts, answering)[1])
	if !slices.Contains(rest, "-metrics-http-listen-addr=") {
		setURL(ts, args[0]+"_metrics", p.await(ts, answeringMetrics)[1])
	}
}

// setURL sets a variable to a listener's URL, and others to its address and its port.
func setURL(ts *testscript.TestScript, name, url string) {
	_, addr, _ := strings.Cut(url, "://")
	_, port, err := net.SplitHostPort(addr)
	ts.Check(err)
	ts.Setenv(name, url)
	ts.Setenv(name+"_addr", addr)
	ts.Setenv(name+"_port", port)
}

// The lines that announce the proxy's URLs, in both log formats.
var (
	answering        = regexp.MustCompile(`answering health checks"[ ,]"?url"?[=:]"?(https?://[^/\s"]+)`)
	answeringMetrics = regexp.MustCompile(`answering Prometheus"[ ,]"?url"?[=:]"?(https?://[^/\s"]+)`)
)

// await waits until standard error matches.
func (p *process) await(ts *testscript.TestScript, pattern *regexp.Regexp) []string {
	return p.awaitWhile(ts, pattern, func() {})
}

// awaitWhile does the same, and calls do before each look.
func (p *process) awaitWhile(ts *testscript.TestScript, pattern *regexp.Regexp, do func()) []string {
	var match []string
	poll(ts, "standard error matches "+pattern.String(), func() bool {
		do()
		ended := p.ended()
		match = pattern.FindStringSubmatch(p.stderr.String())
		if match == nil && ended {
			ts.Fatalf("the process ended, and standard error does not match %s:\n%s", pattern, p.stderr.String())
		}
		return match != nil
	})
	return match
}

func logs(s *session, ts *testscript.TestScript, args []string) {
	pattern, err := regexp.Compile(args[1])
	ts.Check(err)
	p := s.process(ts, args[0])
	if len(args) == 2 {
		p.await(ts, pattern)
		return
	}
	c := newCaller(s, ts, args[2:])
	p.awaitWhile(ts, pattern, func() { c.send() })
}

var signals = map[string]os.Signal{"TERM": syscall.SIGTERM, "INT": syscall.SIGINT}

func signal(s *session, ts *testscript.TestScript, args []string) {
	sig, ok := signals[args[1]]
	if !ok {
		ts.Fatalf("no signal %s", args[1])
	}
	ts.Check(s.process(ts, args[0]).cmd.Process.Signal(sig))
}

func ended(s *session, ts *testscript.TestScript, args []string) {
	s.process(ts, args[0]).expect(ts, args[1])
}
