//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// commandRounds is how often a command runs: one run is short, and varies more than a measurement under load.
const commandRounds = 25

// command is a line of the table of the commands.
type command struct {
	name    string
	program string
	args    []string
}

// commands makes the tables of whole processes.
func (b *bench) commands(ctx context.Context) error {
	u, err := newUpstream(nil, 0)
	if err != nil {
		return err
	}
	defer u.stop()
	all := []command{
		{"the least program with one Check", b.programs.least, []string{u.addr}},
		{"`grpc_health_probe`", b.programs.probe, []string{"-addr", u.addr}},
		{"`grpc_health_proxy -runcli`", b.programs.proxy, []string{"-runcli", "-grpc-addr", u.addr}},
	}
	times, peaks := make(map[string][]time.Duration), make(map[string]int64)
	for range commandRounds {
		for _, c := range all {
			took, err := c.time(ctx)
			if err != nil {
				return err
			}
			times[c.name] = append(times[c.name], took)
		}
	}
	for range commandRounds {
		for _, c := range all {
			peak, err := c.peak(ctx)
			if err != nil {
				return err
			}
			peaks[c.name] = max(peaks[c.name], peak)
		}
	}
	fmt.Fprint(b.out, "\n| command | whole process | peak RSS | size |\n|---|---|---|---|\n")
	for _, c := range all {
		size, err := fileSize(c.program)
		if err != nil {
			return err
		}
		fmt.Fprintf(b.out, "| %s | %s | %s | %.1f MB |\n",
			c.name, shown(median(times[c.name], self[time.Duration])), mebibytes(peaks[c.name]), float64(size)/1e6)
	}
	return b.starts(ctx, u)
}

func self[T any](v T) T { return v }

// run starts the command; wait returns its end, which is an error unless it said SERVING.
func (c command) run(ctx context.Context) (pid int, wait func() error, err error) {
	cmd := exec.CommandContext(ctx, c.program, c.args...)
	cmd.Env = []string{}
	if err := cmd.Start(); err != nil {
		return 0, nil, fmt.Errorf("start %s: %w", filepath.Base(c.program), err)
	}
	return cmd.Process.Pid, func() error {
		if err := cmd.Wait(); err != nil {
			return fmt.Errorf("run %s: %w", filepath.Base(c.program), err)
		}
		return nil
	}, nil
}

// time is how long a run takes.
func (c command) time(ctx context.Context) (time.Duration, error) {
	began := time.Now()
	_, wait, err := c.run(ctx)
	if err != nil {
		return 0, err
	}
	err = wait()
	return time.Since(began), err
}

// peak is the most memory that a run has. It is looked at all the while: what wait4 tells counts this
// process's own memory in, which its child shares until the exec.
func (c command) peak(ctx context.Context) (int64, error) {
	pid, wait, err := c.run(ctx)
	if err != nil {
		return 0, err
	}
	ended := make(chan error, 1)
	go func() { ended <- wait() }()
	var peak int64
	for {
		select {
		case err := <-ended:
			return peak, err
		default:
			if now, err := memory(pid, residentPeak); err == nil {
				peak = max(peak, now)
			}
		}
	}
}

// starts makes the table of a server's start.
func (b *bench) starts(ctx context.Context, u *upstream) error {
	var listening, answering []time.Duration
	var idle []int64
	for range commandRounds {
		began := time.Now()
		s, err := b.start(ctx, ours, plain, u)
		if err != nil {
			return err
		}
		took, at, err := firstAnswer(s, began)
		s.stop()
		if err != nil {
			return err
		}
		listening, answering, idle = append(listening, s.listening), append(answering, took), append(idle, at)
	}
	size, err := fileSize(b.programs.proxy)
	if err != nil {
		return err
	}
	fmt.Fprintf(b.out, "\n| server | exec to listening | exec to first answer | RSS then | size |\n|---|---|---|---|---|\n"+
		"| `grpc_health_proxy` | %s | %s | %s | %.1f MB |\n",
		shown(median(listening, self[time.Duration])), shown(median(answering, self[time.Duration])), mebibytes(median(idle, self[int64])), float64(size)/1e6)
	return nil
}

// firstAnswer asks a server once: how long after it was started the answer came, and the server's memory then.
func firstAnswer(s *server, began time.Time) (time.Duration, int64, error) {
	c, err := newLoad(s.addr, nil, "/", serving).connect()
	if err != nil {
		return 0, 0, err
	}
	defer c.conn.Close()
	c.conn.SetDeadline(time.Now().Add(patience))
	if err := c.ask(); err != nil {
		return 0, 0, err
	}
	took := time.Since(began)
	resident, err := memory(s.cmd.Process.Pid, residentNow)
	return took, resident, err
}

func fileSize(path string) (int64, error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, fmt.Errorf("look at what was built: %w", err)
	}
	return info.Size(), nil
}
