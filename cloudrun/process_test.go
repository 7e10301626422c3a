package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/grpc-health-http/test/healthtest"
)

const (
	// patience bounds every wait for what must happen; nothing is expected to take anywhere near it.
	patience = 30 * time.Second
	// budget is what the contract gives an answer, CONNECT_TIMEOUT + RPC_TIMEOUT. start sets them, for on a busy
	// machine the default of 1 s each may be little.
	budget = 5*time.Second + 5*time.Second
	// slack is what a busy machine may add. Answers that waited for one another would be later by far.
	slack = 15 * time.Second
)

// program builds the command once, as it is released: with the race detector a process can have no
// more than 8,128 goroutines, and each connection wants one. (The manual runs with it.)
var program = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "proxy")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "grpc_health_proxy")
	cmd := exec.Command("go", "build", "-trimpath", "-o", path, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, out)
	}
	return path, nil
})

func TestMain(m *testing.M) {
	code := healthtest.RunMany(m)
	if path, err := program(); err == nil {
		os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

// process is a running proxy. Whatever it writes or answers is searched for the secrets that the test named.
type process struct {
	t   *testing.T
	cmd *exec.Cmd
	// health and metrics are the addresses of the two ports.
	health, metrics string
	ended           chan struct{}

	written *os.File // standard output and standard error; through a pipe, what it has written would come some time after its answer

	mu      sync.Mutex
	secrets []string
}

// start runs the proxy, with ports that the system chooses, until the test ends, and waits until it answers.
func start(t *testing.T, environment []string, args ...string) *process {
	t.Helper()
	return startBy(t, nil, environment, args...)
}

// startBy lets another command, which may be none, run the proxy.
func startBy(t *testing.T, command, environment []string, args ...string) *process {
	t.Helper()
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	line := append(slices.Clone(command), path, "-http-listen-addr=127.0.0.1:0", "-metrics-http-listen-addr=127.0.0.1:0")
	if !slices.ContainsFunc(args, func(a string) bool { return strings.HasPrefix(a, "-targets-file=") }) { // which has them
		line = append(line, "-connect-timeout=5s", "-rpc-timeout=5s")
	}
	line = append(line, args...)
	written, err := os.Create(filepath.Join(t.TempDir(), "written"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { written.Close() })
	p := &process{t: t, cmd: exec.Command(line[0], line[1:]...), ended: make(chan struct{}), written: written}
	p.cmd.Env = append([]string{"HOME=/no-home"}, environment...)
	p.cmd.Stdout, p.cmd.Stderr = written, written
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		_ = p.cmd.Wait() // the exit code tells
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // an error says that it has ended
		<-p.ended
		p.discreet("output", p.log())
		if t.Failed() {
			t.Logf("the end of what the proxy wrote:\n%s", tail(p.log()))
		}
	})
	eventually(t, "the proxy answers", func() bool {
		select {
		case <-p.ended:
			t.Fatalf("the proxy has ended:\n%s", p.log())
		default:
		}
		p.health, p.metrics = found(healthURL, p.log()), found(metricsURL, p.log())
		return p.health != "" && p.metrics != ""
	})
	return p
}

var (
	healthURL  = regexp.MustCompile(`"answering health checks",? ?"?url"?[=:]"?https?://([^/]+)/`)
	metricsURL = regexp.MustCompile(`"answering Prometheus",? ?"?url"?[=:]"?http://([^/]+)/`)
)

func found(pattern *regexp.Regexp, text string) string {
	if match := pattern.FindStringSubmatch(text); match != nil {
		return match[1]
	}
	return ""
}

func tail(text string) string { return text[max(0, len(text)-4000):] }

// log is what the process has written.
func (p *process) log() string {
	text, err := os.ReadFile(p.written.Name())
	if err != nil {
		p.t.Error(err)
	}
	return string(text)
}

// secret notes texts that must not be printed.
func (p *process) secret(texts ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.secrets = append(p.secrets, texts...)
}

// secretPEM notes each whole line of PEM text.
func (p *process) secretPEM(content []byte) {
	for line := range strings.Lines(string(content)) {
		if line = strings.TrimSpace(line); len(line) == 64 { // RFC 7468: but for the last, which may be short
			p.secret(line)
		}
	}
}

// discreet fails the test where a text holds a secret.
func (p *process) discreet(what, text string) {
	p.mu.Lock()
	secrets := slices.Clone(p.secrets)
	p.mu.Unlock()
	for _, s := range secrets {
		if strings.Contains(text, s) {
			p.t.Errorf("%s: secret %q is printed: %s", what, s, tail(text))
		}
	}
}

// signalled waits for the end after a signal, and returns the exit code.
func (p *process) signalled(s os.Signal) int {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
	select {
	case <-p.ended:
	case <-time.After(patience):
		p.t.Fatal("the proxy does not end")
	}
	return p.cmd.ProcessState.ExitCode()
}

// reply is an answer.
type reply struct {
	code   int
	header http.Header
	body   string
	last   bool // of its connection
	took   time.Duration
}

// caller is one connection to the health port; unlike http.Client it never tries again.
type caller struct {
	net.Conn
	proxy  *process
	answer *bufio.Reader
}

// connect opens a connection to one of the proxy's ports, with TLS where config is not nil.
func (p *process) connect(address string, config *tls.Config) (*caller, error) {
	dialer := net.Dialer{Timeout: patience}
	conn, err := dialer.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	_ = conn.SetDeadline(time.Now().Add(4 * patience)) // an error is that of a broken connection, which the next write meets
	if config != nil {
		secure := tls.Client(conn, config)
		if err := secure.HandshakeContext(context.Background()); err != nil {
			conn.Close()
			return nil, err
		}
		conn = secure
	}
	return &caller{Conn: conn, proxy: p, answer: bufio.NewReader(conn)}, nil
}

// dial is connect to the health port in the clear, which must succeed.
func (p *process) dial() *caller {
	p.t.Helper()
	c, err := p.connect(p.health, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { c.Close() })
	return c
}

// get asks for a target, "/?service=a", with further header lines.
func (c *caller) get(target string, headers ...string) (*reply, error) {
	return c.ask("GET " + target + " HTTP/1.1\r\nHost: test\r\n" + strings.Join(append(headers, "\r\n"), "\r\n"))
}

// ask sends the bytes of a request, and reads one answer.
func (c *caller) ask(request string) (*reply, error) {
	began := time.Now()
	if _, err := io.WriteString(c, request); err != nil {
		return nil, err
	}
	r, err := c.read()
	if err != nil {
		return nil, err
	}
	r.took = time.Since(began)
	return r, nil
}

func (c *caller) read() (*reply, error) {
	response, err := http.ReadResponse(c.answer, nil)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	c.proxy.discreet("answer", fmt.Sprint(response.Header, string(body)))
	return &reply{code: response.StatusCode, header: response.Header, body: string(body), last: response.Close}, nil
}

// scrape returns the text of the metrics.
func (p *process) scrape() string {
	p.t.Helper()
	c, err := p.connect(p.metrics, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	defer c.Close()
	r, err := c.get("/metrics", "Connection: close")
	if err != nil || r.code != http.StatusOK {
		p.t.Fatalf("metrics: %+v, %v", r, err)
	}
	return r.body
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !condition(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

func writeFile(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Error(err)
	}
}
