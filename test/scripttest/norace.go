//go:build !race

package scripttest

// raceDetector says whether this test was built with the race detector. Build then uses it too.
const raceDetector = false
