// Package memory knows how much memory the process may use, and divides it.
//
// Find reads the limits that the system and the platform set. A Limit's Apply tells the Go runtime, and NewBudget divides what is
// left beside the program itself into shares. Whoever takes memory on behalf of a caller takes it from a Share first, and refuses
// the caller where that is used up: the process never has to find out what happens beyond its limit.
package memory

import (
	"bufio"
	"bytes"
	"io/fs"
	"math"
	"path"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
)

// Default is the limit, in bytes, where nothing says how much the process may use.
const Default = 256 << 20

// beside is what is kept free of what the Go runtime manages: the program's own pages, and what the system holds for its
// sockets and files, which cgroups count as well.
const beside = 16 << 20

// Limit is how much memory the process may use.
type Limit struct {
	// Bytes is the least of all limits.
	Bytes int64
	// Source is what set it: "cgroup", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "GOMEMLIMIT" or "default".
	Source string
	// Soft is the soft limit of the Go runtime, in bytes.
	Soft int64
}

// Find returns the limit that holds. root is the root of the file system, of which /proc and /sys are read; what is missing there
// sets no limit, as on systems without cgroups. goMemLimit is the runtime's soft limit as GOMEMLIMIT has set it, math.MaxInt64 where
// it has not.
func Find(root fs.FS, getenv func(string) string, goMemLimit int64) Limit {
	l := Limit{Bytes: math.MaxInt64}
	lower := func(bytes int64, source string) {
		if bytes > 0 && bytes < l.Bytes {
			l.Bytes, l.Source = bytes, source
		}
	}
	lower(cgroup(root), "cgroup")
	const lambda = "AWS_LAMBDA_FUNCTION_MEMORY_SIZE"
	if mebibytes, err := strconv.ParseInt(getenv(lambda), 10, 32); err == nil {
		lower(mebibytes<<20, lambda)
	}
	hard := l.Bytes
	if goMemLimit != math.MaxInt64 {
		lower(goMemLimit, "GOMEMLIMIT")
	}
	if l.Source == "" {
		l = Limit{Bytes: Default, Source: "default"}
	}
	if goMemLimit != math.MaxInt64 {
		l.Soft = min(goMemLimit, below(hard))
		return l
	}
	l.Soft = below(l.Bytes)
	return l
}

// below is what the Go runtime may use of a limit.
func below(limit int64) int64 {
	if limit == math.MaxInt64 {
		return limit
	}
	return max(limit-max(beside, limit/8), limit/2)
}

// here is the limit of this process, before the first Apply.
func here(root fs.FS, getenv func(string) string) Limit {
	return Find(root, getenv, debug.SetMemoryLimit(-1)) // which changes nothing
}

// Apply tells the Go runtime its soft limit, so that it collects garbage rather than let the process grow beyond the limit. It does
// nothing where GOMEMLIMIT has.
func (l Limit) Apply() {
	if debug.SetMemoryLimit(-1) == math.MaxInt64 {
		debug.SetMemoryLimit(l.Soft)
	}
}

// hierarchy is a mounted hierarchy of cgroups.
type hierarchy struct {
	files []string // those that hold a limit
	mount string   // where it is mounted, without the first slash
	root  string   // the cgroup that is seen there
}

// The files that hold a cgroup's limits: https://docs.kernel.org/admin-guide/cgroup-v2.html (beyond memory.high a process is slowed
// down until it hardly runs) and https://docs.kernel.org/admin-guide/cgroup-v1/memory.html.
var (
	filesV2 = []string{"memory.max", "memory.high"}
	filesV1 = []string{"memory.limit_in_bytes"}
)

// cgroup is the least limit of the process's cgroups and of those above them, in bytes; math.MaxInt64 where there is none.
func cgroup(root fs.FS) int64 {
	least := int64(math.MaxInt64)
	hierarchies := mounted(root)
	for _, line := range lines(root, "proc/self/cgroup") {
		parts := strings.SplitN(line, ":", 3) // hierarchy, controllers, path
		if len(parts) != 3 {
			continue
		}
		files := filesV1
		if parts[0] == "0" && parts[1] == "" {
			files = filesV2
		} else if !slices.Contains(strings.Split(parts[1], ","), "memory") {
			continue
		}
		for _, h := range hierarchies {
			if h.files[0] == files[0] {
				least = min(least, h.least(root, parts[2]))
			}
		}
	}
	return least
}

// inside is a cgroup's path below the mount, "/" where that is not known. In a container the path can be one of the host, of which
// nothing is seen but the container's own cgroup, at the mount. In a cgroup namespace (cgroup_namespaces(7)) what lies above the
// namespace's root begins with "/..", in both paths: a mount whose root is "/.." shows the namespace's root under a name that is
// not told, and the cgroup of the same path there can be any other.
func (h hierarchy) inside(group string) string {
	inside, ok := strings.CutPrefix(group+"/", strings.TrimSuffix(h.root, "/")+"/")
	if !ok || strings.HasPrefix(inside, "../") {
		return "/"
	}
	return path.Clean("/" + inside)
}

// least is the least limit on the way from a cgroup up to what is mounted.
func (h hierarchy) least(root fs.FS, group string) int64 {
	least := int64(math.MaxInt64)
	for group = h.inside(group); ; group = path.Dir(group) {
		for _, file := range h.files {
			content, err := fs.ReadFile(root, path.Join(h.mount, group, file))
			if err != nil {
				continue
			}
			if n, err := strconv.ParseInt(string(bytes.TrimSpace(content)), 10, 64); err == nil && n > 0 { // else "max", or 0, of which no budget can be made
				least = min(least, n)
			}
		}
		if group == "/" {
			break
		}
	}
	if least >= math.MaxInt64&^(1<<20-1) { // how v1 writes that there is none
		return math.MaxInt64
	}
	return least
}

// mounted lists the hierarchies that have the memory controller, or where /proc does not tell, those of the usual places.
func mounted(root fs.FS) []hierarchy {
	var all []hierarchy
	for _, line := range lines(root, "proc/self/mountinfo") {
		// https://man7.org/linux/man-pages/man5/proc_pid_mountinfo.5.html
		before, after, ok := strings.Cut(line, " - ")
		fields, kind := strings.Fields(before), strings.Fields(after)
		if !ok || len(fields) < 5 || len(kind) < 1 {
			continue
		}
		h := hierarchy{root: unescape.Replace(fields[3]), mount: strings.TrimPrefix(unescape.Replace(fields[4]), "/")}
		switch {
		case kind[0] == "cgroup2":
			h.files = filesV2
		case kind[0] == "cgroup" && len(kind) >= 3 && slices.Contains(strings.Split(kind[2], ","), "memory"):
			h.files = filesV1
		default:
			continue
		}
		all = append(all, h)
	}
	if len(all) == 0 {
		all = []hierarchy{{files: filesV2, mount: "sys/fs/cgroup"}, {files: filesV1, mount: "sys/fs/cgroup/memory"}}
	}
	return all
}

// unescape undoes what mountinfo does to white space.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

func lines(root fs.FS, name string) []string {
	content, err := fs.ReadFile(root, name)
	if err != nil {
		return nil
	}
	var all []string
	for scanner := bufio.NewScanner(bytes.NewReader(content)); scanner.Scan(); {
		all = append(all, scanner.Text())
	}
	return all
}
