//go:build linux

package main

import (
	"archive/zip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/grpc-health-http/test/healthtest"
)

// bootstrap is the program as it is deployed: out of the zip that the command of the manual builds.
var bootstrap = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "lambda")
	if err != nil {
		return "", err
	}
	packed := filepath.Join(dir, "lambda.zip")
	if out, err := exec.Command("go", "run", "./zip", "-arch", runtime.GOARCH, "-o", packed).CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the zip: %w\n%s", err, out)
	}
	archive, err := zip.OpenReader(packed)
	if err != nil {
		return "", err
	}
	defer archive.Close()
	program := filepath.Join(dir, "bootstrap")
	entry, err := archive.Open("bootstrap")
	if err != nil {
		return "", err
	}
	defer entry.Close()
	content, err := io.ReadAll(entry)
	if err != nil {
		return "", err
	}
	return program, os.WriteFile(program, content, 0o755)
})

func TestMain(m *testing.M) {
	code := healthtest.RunMany(m)
	if program, err := bootstrap(); err == nil {
		os.RemoveAll(filepath.Dir(program))
	}
	os.Exit(code)
}

// output is a file that a process writes to. (Through a pipe, what it has written would come some
// time after its result.)
type output struct {
	t    *testing.T
	file *os.File
}

func newOutput(t *testing.T) output {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), "output"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	return output{t, file}
}

// String is what has been written so far.
func (o output) String() string {
	o.t.Helper()
	text, err := os.ReadFile(o.file.Name())
	if err != nil {
		o.t.Fatal(err)
	}
	return string(text)
}

// lines are the lines, each of which must be JSON.
func (o output) lines() []map[string]any {
	o.t.Helper()
	var lines []map[string]any
	for text := range strings.Lines(o.String()) {
		var line map[string]any
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			o.t.Errorf("a line is not JSON: %s", text)
			continue
		}
		lines = append(lines, line)
	}
	return lines
}

// deployed is a running function, and the platform around it.
type deployed struct {
	t              *testing.T
	cmd            *exec.Cmd
	exited         chan struct{} // closed when the process has
	stdout, stderr output

	invocations chan *invocation
	registered  chan struct{} // closed when the process has registered an extension

	mu       sync.Mutex
	underWay map[string]*invocation
	last     int
}

// invocation is one, until it is answered.
type invocation struct {
	id       string
	payload  string
	deadline time.Time
	result   chan string
}

// secretKey is in the environment of every function, and must never be in what it writes.
const secretKey = "the-secret-access-key"

// deploy runs the function with an environment as the platform makes it.
func deploy(t *testing.T, env ...string) *deployed {
	t.Helper()
	program, err := bootstrap()
	if err != nil {
		t.Fatal(err)
	}
	d := &deployed{
		t: t, cmd: exec.Command(program), exited: make(chan struct{}), invocations: make(chan *invocation),
		registered: make(chan struct{}), underWay: make(map[string]*invocation),
		stdout: newOutput(t), stderr: newOutput(t),
	}
	platform := httptest.NewServer(d)
	t.Cleanup(func() {
		platform.CloseClientConnections()
		platform.Close()
	})
	d.cmd.Env = append([]string{
		"AWS_LAMBDA_RUNTIME_API=" + strings.TrimPrefix(platform.URL, "http://"), "AWS_LAMBDA_FUNCTION_NAME=health",
		"AWS_REGION=eu-west-1", "AWS_ACCESS_KEY_ID=AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY=" + secretKey, "AWS_SESSION_TOKEN=" + secretKey,
	}, env...)
	d.cmd.Stdout, d.cmd.Stderr = d.stdout.file, d.stderr.file
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(d.exited)
		d.cmd.Wait()
	}()
	t.Cleanup(func() {
		d.cmd.Process.Kill()
		<-d.exited
		d.wantNowhere(secretKey, "PRIVATE KEY", "-----BEGIN")
		d.stdout.lines()
		d.stderr.lines()
	})
	return d
}

// wantNowhere checks that nothing written so far shows any of the secrets.
func (d *deployed) wantNowhere(secrets ...string) {
	d.t.Helper()
	for _, secret := range secrets {
		if strings.Contains(d.stdout.String()+d.stderr.String(), secret) {
			d.t.Errorf("the output shows %q", secret)
		}
	}
}

// ServeHTTP is the Runtime API (https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html), and the
// part of the Extensions API that turns SIGTERM on.
func (d *deployed) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	const runtimeAPI, extensions = "/2018-06-01/runtime/", "/2020-01-01/extension/"
	switch path := r.URL.Path; {
	case path == runtimeAPI+"invocation/next":
		select {
		case i := <-d.invocations:
			w.Header().Set("Lambda-Runtime-Aws-Request-Id", i.id)
			w.Header().Set("Lambda-Runtime-Deadline-Ms", strconv.FormatInt(i.deadline.UnixMilli(), 10))
			w.Header().Set("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:eu-west-1:123456789012:function:health")
			io.WriteString(w, i.payload)
		case <-r.Context().Done():
		}
	case strings.HasPrefix(path, runtimeAPI+"invocation/"):
		id, outcome, _ := strings.Cut(strings.TrimPrefix(path, runtimeAPI+"invocation/"), "/")
		body, err := io.ReadAll(r.Body)
		d.mu.Lock()
		i := d.underWay[id]
		delete(d.underWay, id)
		d.mu.Unlock()
		if i == nil || err != nil {
			d.t.Errorf("%s for an invocation that is not under way: %v", path, err)
			http.Error(w, "no such invocation", http.StatusBadRequest)
			return
		}
		if outcome != "response" {
			d.t.Errorf("a function error: %s", body)
		}
		w.WriteHeader(http.StatusAccepted)
		i.result <- string(body)
	case path == extensions+"register":
		w.Header().Set("Lambda-Extension-Identifier", "an-extension")
		close(d.registered)
	case path == extensions+"event/next":
		<-r.Context().Done()
	default:
		d.t.Errorf("an unexpected request: %s", path)
		http.NotFound(w, r)
	}
}

// begin starts an invocation that must be answered within a time; where the function does not even
// take it, the test ends.
func (d *deployed) begin(payload string, within time.Duration) *invocation {
	d.t.Helper()
	d.mu.Lock()
	d.last++
	i := &invocation{id: strconv.Itoa(d.last), payload: payload, deadline: time.Now().Add(within), result: make(chan string, 1)}
	d.underWay[i.id] = i
	d.mu.Unlock()
	select {
	case d.invocations <- i:
	case <-d.exited:
		d.t.Fatalf("the function has exited: %v\n%s", d.cmd.ProcessState, d.stderr.String())
	case <-time.After(30 * time.Second):
		d.t.Fatalf("the function takes no invocation\n%s", d.stderr.String())
	}
	return i
}

// invoke returns the result of an invocation.
func (d *deployed) invoke(payload string) string {
	d.t.Helper()
	return d.wait(d.begin(payload, 20*time.Second))
}

func (d *deployed) wait(i *invocation) string {
	d.t.Helper()
	select {
	case result := <-i.result:
		return result
	case <-d.exited:
		d.t.Fatalf("the function has exited: %v\n%s", d.cmd.ProcessState, d.stderr.String())
	case <-time.After(time.Until(i.deadline)):
		d.t.Fatalf("no result by the deadline\n%s", d.stderr.String())
	}
	return ""
}
