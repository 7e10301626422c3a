//go:build !race

package sim

// oldSeeds are those that once failed, and why. A change of the world changes what they mean.
var oldSeeds = []struct {
	seed  uint64
	found string
}{}
