//go:build unix

package serve

import (
	"math"
	"syscall"
)

// OpenFiles is how many files, connections among them, the process can have open. (Go has raised the
// limit as far as it may.)
func OpenFiles() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || uint64(limit.Cur) > math.MaxInt {
		return math.MaxInt
	}
	return int(limit.Cur)
}
