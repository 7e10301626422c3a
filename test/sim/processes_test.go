//go:build !race

package sim

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The environment in which a seed mostly repeats: goroutines run one at a time, and are not interrupted. GOGC makes it faster.
var environment = map[string]string{"GOMAXPROCS": "1", "GODEBUG": "asyncpreemptoff=1", "GOGC": "400"}

// TestMain runs the tests in a process with that environment, which the runtime reads at its start.
func TestMain(m *testing.M) {
	flag.Parse()
	for name, value := range environment {
		if os.Getenv(name) != value {
			os.Exit(again())
		}
	}
	os.Exit(m.Run())
}

// again runs this program once more, and returns the exit code.
func again() int {
	cmd := exec.Command(os.Args[0], os.Args[1:]...)
	cmd.Env = repeatable()
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); cmd.ProcessState == nil {
		fmt.Fprintln(os.Stderr, err)
	}
	return cmd.ProcessState.ExitCode()
}

func repeatable() []string {
	env := os.Environ()
	for name, value := range environment {
		env = append(env, name+"="+value)
	}
	return env
}

// message is what a worker tells the test that has started it, in a line.
type message struct {
	Runs   uint64 // a run of this seed begins
	Result *result
	CPU    time.Duration // used so far
}

// mark precedes a message. Tests write other lines, too.
const mark = "sim message "

func (m message) send() {
	line, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	fmt.Printf("%s%s\n", mark, line)
}

// stuckAfter is the real time after which a run counts as one in which something spins, so that virtual time stops.
const stuckAfter = 2 * time.Minute

// summary of what workers did.
type totals struct {
	mu        sync.Mutex
	seeds     int
	simulated time.Duration
	checks    int
	slowest   float64
	rpcs      int
	served    int
	findings  int
	cpu       time.Duration
}

func (s *totals) add(r *result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seeds++
	s.simulated += r.Simulated
	s.checks += r.Checks
	s.slowest = max(s.slowest, r.Slowest)
	s.rpcs, s.served = max(s.rpcs, r.RPCs), max(s.served, r.Served)
	s.findings += len(r.Findings)
}

func (s *totals) String() string {
	cpu := max(s.cpu.Seconds(), 1e-9)
	return fmt.Sprintf("%d seeds, %.2f simulated hours, %d checks; CPU %v, %.1f seeds and %.0f simulated seconds for each second of it; "+
		"while all was well the slowest check took %.0f %% of what is allowed; at most %d RPCs of a service, %d as the server counts",
		s.seeds, s.simulated.Hours(), s.checks, s.cpu.Round(time.Millisecond), float64(s.seeds)/cpu, s.simulated.Seconds()/cpu,
		100*s.slowest, s.rpcs, s.served)
}

// share runs the seeds in as many processes as there are processors.
func share(t *testing.T, first uint64, seeds int, length time.Duration) *totals {
	t.Helper()
	all := &totals{}
	workers := min(runtime.NumCPU(), seeds)
	var running sync.WaitGroup
	stop := make(chan struct{})
	over := sync.OnceFunc(func() { close(stop) })
	for k := range workers {
		running.Go(func() {
			work(t, all, stop, over,
				"-test.run=^TestWorker$", fmt.Sprintf("-seed=%d", first), fmt.Sprintf("-seeds=%d", seeds), fmt.Sprintf("-for=%v", length),
				fmt.Sprintf("-first=%v", *stopAtFirst), fmt.Sprintf("-part=%d/%d", k, workers))
		})
	}
	running.Wait()
	return all
}

// work runs a worker, and reports what it finds.
func work(t *testing.T, all *totals, stop <-chan struct{}, over func(), args ...string) {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = repeatable()
	var stderr tail
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Error(err)
		return
	}
	if err := cmd.Start(); err != nil {
		t.Error(err)
		return
	}
	lines := make(chan string)
	go func() {
		defer close(lines)
		for scanner := bufio.NewReader(out); ; {
			line, err := scanner.ReadString('\n')
			if err != nil {
				return
			}
			lines <- line
		}
	}()
	var seed uint64 // that runs
	var cpu time.Duration
	stuck, stopped := false, false
	alarm := time.NewTimer(stuckAfter)
	for more := true; more; {
		var line string
		select {
		case line, more = <-lines:
		case <-alarm.C:
			stuck = true
			t.Errorf("seed %d: the run does not end; its goroutines follow", seed)
			cmd.Process.Signal(syscall.SIGQUIT) // prints them, where the system has this signal
			time.AfterFunc(5*time.Second, func() { cmd.Process.Kill() })
			continue
		case <-stop:
			stop, stopped = nil, true
			cmd.Process.Kill()
			continue
		}
		text, ok := strings.CutPrefix(line, mark)
		if !ok {
			continue
		}
		var m message
		if err := json.Unmarshal([]byte(text), &m); err != nil {
			t.Errorf("a message of a worker: %v", err)
			continue
		}
		if !stuck {
			alarm.Reset(stuckAfter)
		}
		seed, cpu = m.Runs, m.CPU
		if m.Result != nil {
			all.add(m.Result)
			if len(m.Result.Findings) > 0 {
				t.Error(m.Result.report())
				if *stopAtFirst {
					over()
				}
			}
		}
	}
	if err := cmd.Wait(); err != nil && !stopped {
		t.Errorf("seed %d: the worker ended: %v\n%s", seed, err, stderr.String())
		over()
	}
	all.mu.Lock()
	defer all.mu.Unlock()
	all.cpu += cpu
}

// report is what a person gets to see of a failed seed.
func (r *result) report() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d fails; again with: go test ./test/sim -args -seed %d\n  %s\n  faults:\n    %s\n",
		r.Seed, r.Seed, r.Settings, strings.Join(r.Schedule, "\n    "))
	for _, f := range r.Findings {
		fmt.Fprintf(&b, "  %s\n", f.Text)
	}
	return b.String()
}

// tail keeps the beginning of what is written: that of a trace of all goroutines says most.
type tail struct {
	mu   sync.Mutex
	text strings.Builder
}

const tailLength = 64 << 10

func (b *tail) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.text.Write(p[:min(len(p), tailLength-b.text.Len())])
	return len(p), nil
}

func (b *tail) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

var _ io.Writer = (*tail)(nil)
