//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"
)

// limit is the memory of an attacked program, in bytes.
const limit = 64 << 20

// cgroups is where memory cgroups can be made. Nil is nowhere.
type cgroups struct {
	root        string
	limit, swap string // the files that limit memory, and swap or memory with swap
	swapLimit   int    // bytes
}

// versions are the two kinds of cgroups.
var versions = []cgroups{
	{root: "/sys/fs/cgroup", limit: "memory.max", swap: "memory.swap.max", swapLimit: 0},
	{root: "/sys/fs/cgroup/memory", limit: "memory.limit_in_bytes", swap: "memory.memsw.limit_in_bytes", swapLimit: limit},
}

// findCgroups returns where memory cgroups can be made that end a program which takes too much, and let live one which does not.
func findCgroups() (*cgroups, error) {
	var problems []error
	for _, version := range versions {
		err := version.try()
		if err == nil {
			return &version, nil
		}
		problems = append(problems, err)
	}
	return nil, errors.Join(problems...)
}

// try runs a program that takes a part of the limit, and one that takes the double.
func (c *cgroups) try() error {
	for _, test := range []struct {
		bytes int
		ends  bool
	}{{limit / 8, false}, {2 * limit, true}} {
		g, err := c.make()
		if err != nil {
			return err
		}
		self, err := os.Executable()
		if err != nil {
			return err
		}
		cmd := g.command("", self)
		cmd.Env = []string{takes + "=" + strconv.Itoa(test.bytes)}
		err = cmd.Run()
		g.remove()
		status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
		if killed := ok && status.Signaled() && status.Signal() == syscall.SIGKILL; killed != test.ends || !killed && err != nil {
			return fmt.Errorf("a program that took %d MiB in a cgroup of %d MiB in %s: %v", test.bytes>>20, limit>>20, c.root, cmd.ProcessState)
		}
	}
	return nil
}

// takes is the variable that makes this program take so many bytes, and nothing else.
const takes = "ATTACK_TAKES_BYTES"

// takesMemory takes memory if this process was started for that, and reports whether it was.
func takesMemory() bool {
	n, err := strconv.Atoi(os.Getenv(takes))
	if err != nil {
		return false
	}
	taken := make([]byte, n)
	for i := 0; i < n; i += os.Getpagesize() {
		taken[i] = 1
	}
	runtime.KeepAlive(taken)
	return true
}

// cgroup is a memory cgroup for one program.
type cgroup struct {
	*cgroups
	dir string
}

func (c *cgroups) make() (*cgroup, error) {
	dir, err := os.MkdirTemp(c.root, "grpc-health-attack-")
	if err != nil {
		return nil, err
	}
	g := &cgroup{cgroups: c, dir: dir}
	if err := g.write(c.limit, limit); err != nil {
		g.remove()
		return nil, err
	}
	// Without this file there is no swap, or it is not limited: then the peak of memory says less.
	if err := g.write(c.swap, c.swapLimit); err != nil && !errors.Is(err, os.ErrNotExist) {
		g.remove()
		return nil, err
	}
	return g, nil
}

// write sets a value of the cgroup. The file is never created: without the memory controller there is none.
func (g *cgroup) write(file string, value int) error {
	f, err := os.OpenFile(filepath.Join(g.dir, file), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = fmt.Fprint(f, value)
	return errors.Join(err, f.Close())
}

// command returns a command that runs a program in the cgroup, and before that a line of the shell. Without a cgroup (nil) it runs
// outside. The program ends with this process.
func (g *cgroup) command(line, program string) *exec.Cmd {
	if line == "" {
		line = ":"
	}
	args := []string{"-c", line + ` && if [ -n "$1" ]; then echo $$ >"$1/cgroup.procs"; fi && exec "$0"`, program}
	if g != nil {
		args = append(args, g.dir)
	}
	cmd := exec.Command("/bin/sh", args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// remove removes the cgroup. The kernel may take a moment after its last process has ended.
func (g *cgroup) remove() {
	for end := time.Now().Add(2 * time.Second); os.Remove(g.dir) != nil && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
}
