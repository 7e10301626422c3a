package target

import (
	"fmt"
	"slices"
	"testing"
)

// A further question goes to another name server than the first, where there is one. What is asked is in package net's order: for each name
// of the search list every server, twice at most; by TCP where an answer was cut off.
func TestOtherServer(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct{ asked, refused []string }{
		"two servers":                           {[]string{"udp a", "udp b"}, []string{"udp a"}},
		"two servers, two names":                {[]string{"udp a", "udp b", "udp a", "udp b"}, []string{"udp a", "udp a"}},
		"three servers, the second is dead too": {[]string{"udp a", "udp b", "udp c"}, []string{"udp a"}},
		"an only one":                           {[]string{"udp a", "udp a"}, []string{"udp a"}},
		"an only one, two names":                {[]string{"udp a", "udp a", "udp a", "udp a"}, []string{"udp a", "udp a"}},
		"an only one, a long answer":            {[]string{"udp a", "udp a", "tcp a"}, []string{"udp a"}},
		"two servers, a long answer":            {[]string{"udp a", "udp b", "tcp b"}, []string{"udp a"}},
		"both dead, the first again":            {[]string{"udp a", "udp b", "udp a", "udp a"}, []string{"udp a", "udp a"}},
		"TCP alone (options use-vc)":            {[]string{"tcp a", "tcp b"}, nil},
	} {
		var o otherServer
		var refused []string
		for _, one := range row.asked {
			var network, address string
			fmt.Sscan(one, &network, &address)
			if o.refuses(network, address) {
				refused = append(refused, one)
			}
		}
		if !slices.Equal(refused, row.refused) {
			t.Errorf("%s: refused %q, want %q", name, refused, row.refused)
		}
	}
}
