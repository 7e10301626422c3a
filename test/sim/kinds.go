//go:build !race

package sim

// Kinds returns the names of all kinds of faults. Each must have a scenario in test/reality.
func Kinds() []string {
	names := make([]string, len(kinds))
	for i, k := range kinds {
		names[i] = k.name
	}
	return names
}
