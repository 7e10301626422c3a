//go:build !unix

package serve

import "math"

// openFiles is how many files the process can have open: as many as there is memory for.
func openFiles() int { return math.MaxInt }
