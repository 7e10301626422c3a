//go:build !race

package sim

// repeats is how often a schedule is tried before it counts as one that does not fail: a seed does not always repeat.
const repeats = 3

// minimize returns what can be dropped of n faults, one by one, while the rest still fails.
func minimize(n int, fails func(dropped map[int]bool) bool) map[int]bool {
	dropped := make(map[int]bool)
	for i := range n {
		dropped[i] = true
		failed := false
		for try := 0; try < repeats && !failed; try++ {
			failed = fails(dropped)
		}
		if !failed {
			delete(dropped, i)
		}
	}
	return dropped
}
