//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"text/tabwriter"
	"time"

	"example.com/grpc-health-http/test/healthtest"
)

const (
	// lasts is how long an attack takes.
	lasts = 1500 * time.Millisecond
	// maxLine and maxLogOfOne are the bounds of a line of the log, and of the log of one request, in bytes.
	maxLine, maxLogOfOne = 16 << 10, 64 << 10
)

// attack is one way to hurt the proxy.
type attack struct {
	name, what string
	// settings starts what the proxy needs beside the upstream, and returns variables for it; nil is none.
	settings func(*trial) []string
	// do attacks. What it has started runs until it returns.
	do func(*trial)
	// wants is the verdict that probes must get, SERVING by default.
	wants string
	// path is what probes for the configured service ask for, "/" by default.
	path string
	// https makes the proxy listen with TLS.
	https bool
	// h2c says that the attack is made without TLS as well, with HTTP/2 by prior knowledge. It is one with TLS.
	h2c bool
	// short says that it is that one, which takes half the time.
	short bool
	// metrics makes the attack's connections go to the metrics port.
	metrics bool
	// files is the proxy's limit of open files; 0 leaves it as it is.
	files int
	// mayRefuse says that the proxy may refuse to start with these settings.
	mayRefuse bool
	// unprobed leaves the health port without probes, since the attack has an end of rights.
	unprobed bool
	// slow says that the attack takes more than some seconds, most of which it waits.
	slow bool
}

// anyVerdict is what probes want where any verdict is right, as long as there is one in time.
const anyVerdict = "any"

// trial is one attack on one proxy. It implements what the shared test packages use of testing.TB.
type trial struct {
	testing.TB // nil: no other method is called
	attack
	slack  time.Duration   // what a busy machine may add to an answer
	ctx    context.Context // ends with the attack
	cancel context.CancelFunc
	ca     *healthtest.CA // of the listener
	up     *healthtest.Upstream
	proxy  *proxy

	file    string          // what says who may ask: the token's, or the CA's
	token   string          // what probes send, if there is a token
	callers *healthtest.CA  // of callers' certificates
	secrets []string        // what must not be printed
	found   map[string]bool // where and which secret was printed

	connections, requests, sent atomic.Int64 // sent is in bytes
	running                     sync.WaitGroup

	mu       sync.Mutex
	answers  map[string]int
	failures []string
	cleanups []func()
	open     []net.Conn
}

// result is what came of an attack.
type result struct {
	attack
	connections, requests, sent int64
	peak, logged                int64 // resident memory, and the log, in bytes
	cpu                         time.Duration
	rpcs                        int // at once, for the configured service
	probes                      probes
	answers                     map[string]int
	lived                       bool
	refused                     bool // to start
	failures                    []string
}

func newTrial(ctx context.Context, a attack, slack time.Duration) *trial {
	if a.wants == "" {
		a.wants = "SERVING"
	}
	if a.path == "" {
		a.path = "/"
	}
	t := &trial{attack: a, slack: slack, answers: make(map[string]int), found: make(map[string]bool)}
	t.ctx, t.cancel = context.WithCancel(ctx)
	return t
}

// run makes one attack.
func run(ctx context.Context, a attack, program string, where *cgroups, slack time.Duration) (r result) {
	t := newTrial(ctx, a, slack)
	defer func() {
		t.end()
		r.failures = t.failures
	}()
	r.attack = t.attack
	t.attempt(func() {
		t.up = healthtest.Start(t)
		t.ca = healthtest.NewCA(t)
		settings := []string{"GRPC_HEALTH_ADDR=" + t.up.Target()}
		if a.https {
			leaf := t.ca.Server(t)
			settings = append(settings, "GRPC_HEALTH_HTTPS_LISTEN_CERT="+string(leaf.CertPEM), "GRPC_HEALTH_HTTPS_LISTEN_KEY="+string(leaf.KeyPEM))
		}
		if a.settings != nil {
			settings = append(settings, a.settings(t)...)
		}
		t.proxy = startProxy(t, program, where, settings)
		if !t.proxy.serves {
			t.do(t)
			return
		}
		watching := t.probe()
		t.do(t)
		t.stop()
		r.probes = watching()
		t.recovers()
	})
	t.stop()
	r.connections, r.requests, r.sent, r.answers = t.connections.Load(), t.requests.Load(), t.sent.Load(), t.answers
	if t.proxy != nil {
		r.refused = !t.proxy.serves
		r.lived = r.refused || t.proxy.alive()
		t.judge(&r, where)
	}
	return r
}

// recovers asks once more for the configured service after the attack.
func (t *trial) recovers() {
	if t.unprobed {
		return
	}
	client := t.client()
	defer client.CloseIdleConnections()
	if err := t.ask(client, t.proxy.url+t.path, t.wants); err != nil {
		t.Errorf("after the attack: %v", err)
		// A process that was just ended may take a moment to be gone.
		select {
		case <-t.proxy.done:
		case <-time.After(time.Second):
		}
	}
}

// judge looks at what the attack cost. It ends the proxy.
func (t *trial) judge(r *result, where *cgroups) {
	if !r.lived {
		t.Errorf("the process ended: %v", t.proxy.cmd.ProcessState)
	}
	t.proxy.end()
	r.peak, r.cpu = t.proxy.peak.Load(), t.proxy.cmd.ProcessState.UserTime()+t.proxy.cmd.ProcessState.SystemTime()
	if where == nil && r.peak > limit {
		t.Errorf("the peak of resident memory is %d MiB", r.peak>>20)
	}
	if r.probes.wrong > 0 {
		t.Errorf("%d of %d probes were wrong, the first after %v: %s", r.probes.wrong, r.probes.asked, r.probes.firstAt.Round(time.Millisecond), r.probes.first)
	}
	// More are tolerated than the proxy makes: the server may not yet know of those that were cancelled.
	const tolerated = 12
	if r.rpcs = t.up.MaxInFlightFor(configuredIn(t.path)); r.rpcs > tolerated {
		t.Errorf("the upstream had %d RPCs for the configured service at once, %d are tolerated", r.rpcs, tolerated)
	}
	var longest int
	if r.logged, longest = t.proxy.logged(); longest > maxLine {
		t.Errorf("a line of the log has %d bytes", longest)
	}
}

// configuredIn returns the service that a probe's path asks for.
func configuredIn(path string) string {
	_, service, _ := strings.Cut(path, "service=")
	return service
}

// hold lets the attack go on for a while, or until the proxy has ended.
func (t *trial) hold(d time.Duration) {
	if t.short {
		d /= 2
	}
	select {
	case <-time.After(d):
	case <-t.proxy.done:
	case <-t.ctx.Done():
	}
}

// over reports whether the attack has ended.
func (t *trial) over() bool { return t.ctx.Err() != nil }

// stop ends what the attack has started.
func (t *trial) stop() {
	t.cancel()
	t.mu.Lock()
	for _, c := range t.open {
		c.Close()
	}
	t.open = nil
	t.mu.Unlock()
	t.running.Wait()
}

// keep closes a connection at the end of the attack.
func (t *trial) keep(c net.Conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over() {
		c.Close()
	}
	t.open = append(t.open, c)
}

// answered counts an answer by its kind.
func (t *trial) answered(kind string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.answers[kind]++
}

// attempt calls f, which may end with Fatal.
func (t *trial) attempt(f func()) {
	done := make(chan struct{})
	go func() { // Fatal ends this goroutine
		defer close(done)
		f()
	}()
	<-done
}

// Helper, Cleanup, Errorf, Fatalf, Fatal and TempDir are those of testing.TB.
func (t *trial) Helper() {}

func (t *trial) Cleanup(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cleanups = append(t.cleanups, f)
}

func (t *trial) Errorf(format string, args ...any) {
	const most, longest = 12, 300
	text := fmt.Sprintf(format, args...)
	if len(text) > longest {
		text = strings.ToValidUTF8(text[:longest], "") + "…"
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.failures) < most {
		t.failures = append(t.failures, text)
	}
}

func (t *trial) Fatalf(format string, args ...any) {
	t.Errorf(format, args...)
	runtime.Goexit()
}

func (t *trial) Fatal(args ...any) { t.Fatalf("%s", fmt.Sprint(args...)) }

func (t *trial) TempDir() string {
	dir, err := os.MkdirTemp("", "attack")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// end runs the cleanup functions, the last one first.
func (t *trial) end() {
	t.stop()
	for _, f := range slices.Backward(t.cleanups) {
		f()
	}
}

// holds reports whether the proxy withstood.
func (r result) holds() bool { return len(r.failures) == 0 }

// printTable writes the table, and why attacks did not hold.
func printTable(w io.Writer, results []result) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "attack\tholds\tconnections\trequests\tsent KiB\tpeak MiB\tCPU s\tlog KiB\tRPCs\tprobes right\tslowest\tlived\tanswers")
	for _, r := range results {
		lived := word(r.lived)
		if r.refused {
			lived = "refused to start"
		}
		fmt.Fprintf(table, "%s\t%s\t%d\t%d\t%d\t%.0f\t%.1f\t%d\t%d\t%d of %d\t%v\t%s\t%s\n", r.name, word(r.holds()), r.connections, r.requests, r.sent>>10,
			float64(r.peak)/(1<<20), r.cpu.Seconds(), r.logged>>10, r.rpcs, r.probes.asked-r.probes.wrong, r.probes.asked, r.probes.slowest.Round(time.Millisecond), lived, counts(r.answers))
	}
	table.Flush()
	failed := 0
	for _, r := range results {
		if r.holds() {
			continue
		}
		failed++
		fmt.Fprintf(w, "\n%s does not hold: %s\n", r.name, r.what)
		for _, failure := range r.failures {
			fmt.Fprintf(w, "  %s\n", failure)
		}
	}
	fmt.Fprintf(w, "\n%d attacks, %d do not hold\n", len(results), failed)
}

func word(yes bool) string {
	if yes {
		return "yes"
	}
	return "NO"
}

// counts returns how many answers there were of each kind.
func counts(of map[string]int) string {
	var parts []string
	for kind, n := range of {
		parts = append(parts, fmt.Sprintf("%s %d", kind, n))
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}
