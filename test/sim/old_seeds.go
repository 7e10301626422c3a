//go:build !race

package sim

// oldSeeds are those that once failed, and why. A change of the world changes what they mean.
var oldSeeds = []struct {
	seed  uint64
	found string
}{
	{1795734161703, "the wall clock was set back just before a freeze that it alone would have shown: no clock can tell (a fault of the judge)"},
	{1795734163952, "setting the wall clock back hid a freeze from the age of a connection"},
	{1795734164089, "the same"},
	{24, "an address that hung kept the credentials from being read again"},
	{367, "an address that hung kept the credentials from being read again"},
	{502, "an address that hung kept the credentials from being read again"},
	{707, "an address that hung kept the credentials from being read again"},
	{20431, "an address of the family that came first had the head start of an only one, so that the budget did not reach the last one"},
	{30385, "addresses that hung kept those from being tried within the budget on which TLS had failed with outdated credentials"},
	{30407, "the same"},
	{61347, "an RPC had waited for the dial of another caller: its time-out came later than the judge allowed (a fault of the judge)"},
	{1795782306830, "a check whose callers had left waited for a stream, and kept the permission for a second RPC from the next check"},
}
