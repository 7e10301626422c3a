//go:build race

package addresses

// raceDetector says whether the test was built with the race detector.
const raceDetector = true
