//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// server is a process, with those that it starts, that answers HTTP or gRPC.
type server struct {
	cmd       *exec.Cmd
	addr      string
	listening time.Duration // from exec until it said so
}

// listensAt is how a server's first lines say where it listens.
var listensAt = regexp.MustCompile(`url=https?://([^/\s]+)`)

// startWithin is how long a server may take to say that it listens.
const startWithin = 10 * time.Second

// startServer runs a program with nothing but env in its environment, and waits until it listens.
func startServer(ctx context.Context, program string, args, env []string) (*server, error) {
	cmd := inGroup(ctx, program, args...)
	cmd.Env = append(cmd.Env, env...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", filepath.Base(program), err)
	}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", filepath.Base(program), err)
	}
	late := time.AfterFunc(startWithin, func() { cmd.Cancel() })
	defer late.Stop()
	var said bytes.Buffer
	lines := bufio.NewReader(io.TeeReader(stderr, &said))
	for {
		line, err := lines.ReadString('\n')
		if at := listensAt.FindStringSubmatch(line); at != nil {
			s := &server{cmd: cmd, addr: at[1], listening: time.Since(began)}
			go io.Copy(io.Discard, stderr) // its log costs it what it would cost elsewhere
			return s, nil
		}
		if err != nil {
			err = errors.Join(err, cmd.Wait())
			return nil, fmt.Errorf("%s did not listen: %w\n%s", filepath.Base(program), err, said.Bytes())
		}
	}
}

// inGroup is a command in a process group of its own, that ends with all that it has started, and has nothing in its environment.
func inGroup(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = []string{} // nil would be this process's own
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	return cmd
}

// stop kills the processes: how servers end is not what is measured.
func (s *server) stop() {
	s.cmd.Cancel()
	s.cmd.Wait()
}

// processes are the server's own, and those that it has started.
func (s *server) processes() ([]int, error) {
	pid := s.cmd.Process.Pid
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", pid))
	if err != nil {
		return nil, fmt.Errorf("look for a process's children: %w", err)
	}
	all := []int{pid}
	for _, field := range strings.Fields(string(text)) {
		child, err := strconv.Atoi(field)
		if err != nil {
			return nil, fmt.Errorf("look for a process's children: %w", err)
		}
		all = append(all, child)
	}
	return all, nil
}

// cpuTime is what all have used of the processors.
func (s *server) cpuTime() (time.Duration, error) { return sum(s, cpuTime) }

// peak is the most memory that each has had, in bytes: what processes share is counted for each.
func (s *server) peak() (int64, error) {
	return sum(s, func(pid int) (int64, error) { return memory(pid, residentPeak) })
}

func sum[N int64 | time.Duration](s *server, of func(pid int) (N, error)) (N, error) {
	pids, err := s.processes()
	if err != nil {
		return 0, err
	}
	var all N
	for _, pid := range pids {
		one, err := of(pid)
		if err != nil {
			return 0, err
		}
		all += one
	}
	return all, nil
}

// tick is the unit of /proc/PID/stat's times; user space sees it as 10 ms everywhere
// (https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html).
const tick = 10 * time.Millisecond

// cpuTime is what a process has used of the processors.
func cpuTime(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("read a process's times: %w", err)
	}
	// The second field, in parentheses, may have spaces; utime and stime are the 14th and 15th.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 13 {
		return 0, errors.New("read a process's times: there are none in /proc/PID/stat")
	}
	user, errUser := strconv.Atoi(fields[11])
	system, errSystem := strconv.Atoi(fields[12])
	return time.Duration(user+system) * tick, errors.Join(errUser, errSystem)
}

// The memory of a process, as /proc/PID/status names it.
const (
	residentNow  = "VmRSS:"
	residentPeak = "VmHWM:"
)

// memory is a process's memory in bytes; what says which. A process that has ended has none.
func memory(pid int, what string) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, fmt.Errorf("read a process's memory: %w", err)
	}
	_, after, _ := strings.Cut(string(text), what)
	fields := strings.Fields(after)
	if len(fields) < 2 || fields[1] != "kB" {
		return 0, fmt.Errorf("read a process's memory: no %s in /proc/PID/status", what)
	}
	kib, err := strconv.ParseInt(fields[0], 10, 64)
	return kib << 10, err
}
