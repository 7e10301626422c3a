package app

import (
	"math"
	"slices"
	"sync"
	"time"
)

const (
	// endsSoon is the time before a certificate's end from which the log says so, and from which the status page shows it in amber.
	endsSoon = 14 * 24 * time.Hour
	// againAfter is the time after which the log says it again, while the certificate is in use.
	againAfter = time.Hour
)

// certificates logs that a certificate ends soon, for platforms without metrics: an alert can be made of the line's
// certificate_days_left.
type certificates struct {
	of *reporter // of the same upstream

	mu   sync.Mutex
	last []certificate // as they were seen last
}

type certificate struct {
	whose  string
	ends   time.Time
	logged time.Time // when the log said so last
}

// seen tells of a certificate that is in use: the "upstream"'s, or the one that we show as its "client". It also looks at the
// others that were seen: a client certificate is seen once, the upstream's with each connection.
func (c *certificates) seen(whose string, notAfter time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.IndexFunc(c.last, func(one certificate) bool { return one.whose == whose })
	switch {
	case i < 0:
		c.last = append(c.last, certificate{whose: whose, ends: notAfter})
	case !c.last[i].ends.Equal(notAfter):
		c.last[i] = certificate{whose: whose, ends: notAfter}
	}
	now := c.of.now()
	for i := range c.last {
		one := &c.last[i]
		left := one.ends.Sub(now)
		if left >= endsSoon || !one.logged.IsZero() && now.Sub(one.logged) < againAfter {
			continue
		}
		one.logged = now
		message := "the " + one.whose + "'s certificate ends soon"
		if left <= 0 {
			message = "the " + one.whose + "'s certificate has ended"
		}
		var attributes []any
		if c.of.target != "" {
			attributes = append(attributes, "target", c.of.target)
		}
		c.of.logger.Warn(message, append(attributes, "upstream", c.of.upstream, "certificate", one.whose, "ends", one.ends.UTC(),
			"certificate_days_left", math.Round(left.Hours()/24*1000)/1000)...)
	}
}

// ends says when the certificate ends that was seen last; zero where none was.
func (c *certificates) ends(whose string) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, one := range c.last {
		if one.whose == whose {
			return one.ends
		}
	}
	return time.Time{}
}
