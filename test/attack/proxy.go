//go:build linux

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// patience bounds how long a proxy may take to start.
	patience = 10 * time.Second
	// maxLog is how many bytes of a log are kept.
	maxLog = 64 << 20
)

// proxy is a running grpc_health_proxy.
type proxy struct {
	url, metricsURL string // without a path
	// address and metricsAddress are those of the ports.
	address, metricsAddress string
	serves                  bool // it has not refused to start

	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	peak atomic.Int64  // of resident memory so far, in bytes

	mu          sync.Mutex
	log         bytes.Buffer
	logLength   int64 // in bytes, also of what was not kept
	longestLine int   // in bytes
}

// startProxy runs the program in a cgroup of its own, and returns when it answers.
func startProxy(t *trial, program string, where *cgroups, settings []string) *proxy {
	p := &proxy{done: make(chan struct{})}
	env := append([]string{
		"GRPC_HEALTH_HTTP_LISTEN_ADDR=127.0.0.1:0", "GRPC_HEALTH_METRICS_HTTP_LISTEN_ADDR=127.0.0.1:0", "GRPC_HEALTH_LOG_FORMAT=json",
	}, settings...)
	var in *cgroup
	if where == nil {
		env = append(env, "GOMEMLIMIT="+strconv.Itoa(limit))
	} else {
		var err error
		if in, err = where.make(); err != nil {
			t.Fatalf("cgroup: %v", err)
		}
		t.Cleanup(in.remove)
	}
	line := ""
	if t.files > 0 {
		line = fmt.Sprintf("ulimit -n %d", t.files)
	}
	p.cmd = in.command(line, program)
	p.cmd.Env = env
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	started := make(chan struct{})
	go func() {
		defer close(p.done)
		p.read(stderr, started)
		_ = p.cmd.Wait() // judge looks at how it ended
	}()
	go p.watch()
	t.Cleanup(p.end)
	select {
	case <-started:
		p.serves = true
	case <-p.done:
		if !t.mayRefuse {
			t.Fatalf("the proxy did not start: %v: %s", p.cmd.ProcessState, p.text())
		}
	case <-time.After(patience):
		t.Fatalf("the proxy has not started within %v: %s", patience, p.text())
	}
	return p
}

// read keeps the log. It closes started when both ports answer.
func (p *proxy) read(stderr io.Reader, started chan<- struct{}) {
	for lines := bufio.NewReaderSize(stderr, 64<<10); ; {
		line, err := lines.ReadBytes('\n')
		p.mu.Lock()
		p.logLength += int64(len(line))
		p.longestLine = max(p.longestLine, len(line))
		if p.log.Len()+len(line) <= maxLog {
			p.log.Write(line)
		}
		p.mu.Unlock()
		if err != nil {
			return
		}
		var said struct{ Msg, URL string }
		if p.metricsURL != "" || json.Unmarshal(line, &said) != nil {
			continue
		}
		switch u, err := url.Parse(said.URL); {
		case err != nil:
		case said.Msg == "answering health checks":
			p.url, p.address = u.Scheme+"://"+u.Host, u.Host
		case said.Msg == "answering Prometheus":
			p.metricsURL, p.metricsAddress = u.Scheme+"://"+u.Host, u.Host
		}
		if p.url != "" && p.metricsURL != "" {
			close(started)
		}
	}
}

// watch keeps the peak of resident memory.
func (p *proxy) watch() {
	for every := time.NewTicker(20 * time.Millisecond); ; {
		select {
		case <-p.done:
			every.Stop()
			return
		case <-every.C:
			p.measure()
		}
	}
}

func (p *proxy) measure() {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return // it has ended
	}
	_, after, _ := strings.Cut(string(status), "VmHWM:")
	kib, _, _ := strings.Cut(strings.TrimSpace(after), " ")
	if n, err := strconv.ParseInt(kib, 10, 64); err == nil && n<<10 > p.peak.Load() {
		p.peak.Store(n << 10)
	}
}

func (p *proxy) alive() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// end kills the process.
func (p *proxy) end() {
	if p.alive() {
		p.measure()
	}
	_ = p.cmd.Process.Kill() // fails only if it has ended
	<-p.done
}

// text returns the log so far.
func (p *proxy) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// logged returns the length of the log so far, and of its longest line, in bytes.
func (p *proxy) logged() (all int64, longest int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.logLength, p.longestLine
}
