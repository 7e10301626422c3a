//go:build !unix

package serve

import "math"

// OpenFiles is how many files the process can have open: as many as there is memory for.
func OpenFiles() int { return math.MaxInt }
