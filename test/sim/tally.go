//go:build !race

package sim

import (
	"maps"
	"slices"
	"time"
)

// tally counts RPCs in progress, by what they ask. At one virtual time the counts can change in any order, so they count
// only once that time has passed.
type tally struct {
	counts map[string]*count
	over   func(key string, n int, at time.Time) // hears of a count that has lasted
}

type count struct {
	n, most int
	at      time.Time // of the last change
}

func newTally(over func(key string, n int, at time.Time)) *tally {
	return &tally{counts: make(map[string]*count), over: over}
}

func (t *tally) add(key string, d int) {
	c := t.counts[key]
	if c == nil {
		c = &count{}
		t.counts[key] = c
	}
	if now := time.Now(); now.After(c.at) {
		t.settle(key, c)
		c.at = now
	}
	c.n += d
}

func (t *tally) settle(key string, c *count) {
	if c.n > c.most {
		c.most = c.n
		t.over(key, c.n, c.at)
	}
}

// finish settles all counts, and returns the keys of those that are not 0.
func (t *tally) finish() (left []string) {
	for _, key := range slices.Sorted(maps.Keys(t.counts)) {
		c := t.counts[key]
		t.settle(key, c)
		if c.n != 0 {
			left = append(left, key)
		}
	}
	return left
}
