package serve

import "time"

// makeRoomLocked takes connections other than c out of the table until there are bytes of memory, and so many connections
// fewer. First those make room that can be evicted, and have been so for a time, then those of which the client does not read the
// answers. soon says that there are some that may turn out to be such.
func (cs *connections) makeRoomLocked(c *conn, bytes int64, fewer int, rested time.Duration) (surplus []*conn, room, soon bool) {
	var stuck []*conn
	for searched := false; ; fewer-- {
		if fewer <= 0 && (cs.memory == 0 || cs.used+bytes <= cs.memory) {
			return surplus, true, false
		}
		victim, young := cs.evictableLocked(rested)
		if victim == nil {
			if !searched {
				stuck, soon = cs.stuckLocked(c)
				searched = true
			}
			soon = soon || young
			if len(stuck) == 0 {
				return surplus, false, soon
			}
			victim, stuck = stuck[0], stuck[1:]
		}
		cs.removeLocked(victim)
		surplus = append(surplus, victim)
	}
}

// evictableLocked is the connection to evict: with TLS the first that rests, since a handshake takes time, and else the first of all that are
// not busy. nil where none can be evicted. soon says that there is one that has to have some time first.
func (cs *connections) evictableLocked(rested time.Duration) (victim *conn, soon bool) {
	now := time.Now()
	for e := cs.order.Front(); e != nil && (cs.secure || victim == nil); e = e.Next() {
		c := e.Value.(*conn)
		if c.busy() {
			continue
		}
		if victim == nil {
			victim = c
		}
		if c.resting() {
			if now.Sub(c.placed) >= rested {
				return c, false
			}
			soon = true
			break // those behind it were placed later
		}
	}
	if victim == nil {
		return nil, soon
	}
	if cs.secure {
		rested = max(rested, shakeFor)
	}
	if now.Sub(victim.placed) < rested {
		return nil, true
	}
	return victim, false
}

// stuckLocked are the connections other than c of which the client does not read the answers. soon says that there are others with
// answers that have begun.
func (cs *connections) stuckLocked(c *conn) (stuck []*conn, soon bool) {
	now := time.Now()
	for other := range cs.open {
		switch some, late := other.answers.some(now); {
		case other == c || !some:
		case late:
			stuck = append(stuck, other)
		default:
			soon = true
		}
	}
	return stuck, soon
}

// enlistLocked makes c the last of those that can be evicted, if it is one.
func (cs *connections) enlistLocked(c *conn) {
	if _, open := cs.open[c]; open && c.idle && c.handlers == 0 {
		cs.unlistLocked(c)
		cs.placeLocked(c)
	}
}

// waitsLocked does so, too, if all of its handlers wait for bodies. It keeps its place as long as they do not have them.
func (cs *connections) waitsLocked(c *conn) {
	if _, open := cs.open[c]; open && !c.listed && c.handlers > 0 && !c.busy() {
		cs.placeLocked(c)
	}
}

func (cs *connections) unlistLocked(c *conn) {
	cs.order.Remove(c.place)
	c.listed = false
}

func (cs *connections) placeLocked(c *conn) {
	c.place, c.placed, c.listed = cs.order.PushBack(c), time.Now(), true
}

func closeAll(surplus []*conn) {
	for _, s := range surplus {
		_ = s.Conn.Close() // an error says that the connection is broken, which is as good
	}
}
