package healthtest

import (
	"flag"
	"testing"
)

// RunMany is for the TestMain of a package whose tests mostly wait: it runs more of the parallel ones at a time than there
// are processors, unless the flag -parallel says how many. It returns the exit code.
func RunMany(m *testing.M) int {
	flag.Parse()
	chosen := false
	flag.Visit(func(f *flag.Flag) { chosen = chosen || f.Name == "test.parallel" })
	if !chosen {
		_ = flag.Set("test.parallel", "8") // the flag exists, and takes a number
	}
	return m.Run()
}
