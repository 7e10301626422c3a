//go:build !race

package scripttest

// raceDetector says that the test runs with the race detector: then so does the command.
const raceDetector = false
