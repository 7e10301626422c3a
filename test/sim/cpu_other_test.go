//go:build !race && !unix

package sim

import "time"

// cpuTime is unknown here.
func cpuTime() time.Duration { return 0 }
