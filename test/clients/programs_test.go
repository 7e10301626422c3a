package clients

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// question is what a program asks: a line of JSON.
type question struct {
	// Target is a server's address, "127.0.0.1:34567".
	Target string `json:"target"`
	// Service is the name to check, "" for the whole server.
	Service string `json:"service"`
	// CA is the path of the CA that the server's certificate is of; empty for no TLS.
	CA string `json:"ca"`
	// Cert and Key are the paths of the client's certificate and its key, or empty.
	Cert string `json:"cert"`
	Key  string `json:"key"`
	// Token is sent as metadata, "authorization: Bearer TOKEN", unless it is empty.
	Token string `json:"token"`
	// Seconds is the deadline, 0 for patience.
	Seconds float64 `json:"seconds"`
}

// answer is what a gRPC library says: a line of JSON.
type answer struct {
	// Code and Message are the RPC status.
	Code    int    `json:"code"`
	Message string `json:"message"`
	// Status is the value in the response; 0 where there is none.
	Status int `json:"status"`
	// Metadata is what the server sent, before the response and after it.
	Metadata map[string]string `json:"metadata"`
}

// probed is what the kubelet's prober says: a line of JSON.
type probed struct {
	Healthy bool   `json:"healthy"`
	Message string `json:"message"`
}

// shortly is the deadline, in seconds, of questions about which a library does not say that they cannot be answered: it dials again until then.
const shortly = 1

// program is a running program that answers each line with a line. One question is asked at a time.
type program struct {
	mu      sync.Mutex
	name    string
	to      io.WriteCloser
	from    *bufio.Reader
	written bytes.Buffer // standard error
}

// run starts a program that ends with the test.
func run(t *testing.T, cmd *exec.Cmd) *program {
	t.Helper()
	p := &program{name: filepath.Base(cmd.Path)}
	cmd.Stderr = &p.written
	to, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	from, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.to, p.from = to, bufio.NewReader(from)
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", p.name, err)
	}
	t.Cleanup(func() {
		p.to.Close()
		stuck := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() }) // fails only if the program has ended
		defer stuck.Stop()
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s: %v\n%s", p.name, err, p.written.String())
		}
	})
	return p
}

// ask reads the answer to a question into what answer points to.
func (p *program) ask(t *testing.T, q question, answer any) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if q.Seconds == 0 {
		q.Seconds = patience.Seconds()
	}
	line, err := json.Marshal(q)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.to.Write(append(line, '\n')); err != nil {
		t.Fatalf("ask %s: %v", p.name, err)
	}
	if line, err = p.from.ReadBytes('\n'); err != nil {
		t.Fatalf("%s did not answer: %v", p.name, err)
	}
	if err := json.Unmarshal(line, answer); err != nil {
		t.Fatalf("%s answered %q: %v", p.name, line, err)
	}
}

// needs skips the test where a program is not installed. install says how it comes to be.
func needs(t *testing.T, program, install string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Skipf("these tests need %s (%s): %v", program, install, err)
	}
	return path
}

// debianPython is Debian's Python, which alone sees Debian's packages where there are others.
const debianPython = "/usr/bin/python3"

// programs are those that the tests share.
type programs struct {
	proxy, curl, haproxy, nginx string // paths
	node, python, kubelet       *program
}

// start builds and starts what the tests ask with, side by side.
func start(t *testing.T) programs {
	t.Helper()
	p := programs{
		curl:    needs(t, "curl", "Debian: apt-get install curl"),
		haproxy: needs(t, "haproxy", "Debian: apt-get install haproxy"),
		nginx:   needs(t, "nginx", "Debian: apt-get install nginx"),
	}
	node := needs(t, "node", "Node.js 18 or later")
	npm := needs(t, "npm", "it comes with Node.js, or Debian: apt-get install npm")
	needs(t, debianPython, "Debian: apt-get install python3-grpcio")
	if err := exec.Command(debianPython, "-c", "import grpc").Run(); err != nil {
		t.Skipf("these tests need grpcio (Debian: apt-get install python3-grpcio): %v", err)
	}

	dir := t.TempDir()
	p.proxy = filepath.Join(dir, "grpc_health_proxy")
	kubelet, packages := filepath.Join(dir, "kubelet"), filepath.Join(dir, "grpcjs")
	if err := os.CopyFS(packages, os.DirFS("grpcjs")); err != nil {
		t.Fatal(err)
	}
	builds := []*exec.Cmd{
		// As it is released, so that continuous integration finds it compiled.
		command(filepath.Join("..", ".."), "env", "CGO_ENABLED=0", "go", "build", "-trimpath", "-tags", "grpcnotrace", "-o", p.proxy, "./cloudrun"),
		// Without options, so that it shares what go vet has compiled.
		command("kubelet", "go", "build", "-o", kubelet, "."),
		// No script of a package runs.
		command(packages, npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"),
	}
	failures := make(chan error, len(builds))
	for _, build := range builds {
		go func() {
			out, err := build.CombinedOutput()
			if err != nil {
				err = fmt.Errorf("%v: %w\n%s", build.Args, err, out)
			}
			failures <- err
		}()
	}
	for range builds {
		if err := <-failures; err != nil {
			t.Error(err)
		}
	}
	if t.Failed() {
		t.FailNow()
	}
	p.node = run(t, exec.Command(node, filepath.Join(packages, "check.js")))
	p.python = run(t, exec.Command(debianPython, filepath.Join("python", "check.py")))
	p.kubelet = run(t, exec.Command(kubelet))
	return p
}

// command runs in a folder.
func command(dir, name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	return cmd
}
