package web

import (
	"crypto/sha256"
	"encoding/binary"
	"net/http"
	"sync"
	"time"

	"example.com/grpc-health-http/internal/asker"
	"example.com/grpc-health-http/internal/memory"
)

// worthSharing is the cost, in bytes, from which an answer is shared: a smaller one takes less than its connection, and is made as
// soon as it is found.
const worthSharing = 4 << 10

// sharing has the bodies that are on their way to callers, so that requests that got the same verdicts send the same bytes: those who
// share a check need the memory for one body, however many they are. Nothing is kept of a body once nobody sends it.
type sharing struct {
	mu     sync.Mutex
	bodies map[bodyKey]*sharedBody
}

// bodyKey is a digest of all that a body is made of.
type bodyKey [sha256.Size]byte

// sharedBody is a body that one request makes and several may send.
type sharedBody struct {
	key  bodyKey
	made chan struct{} // closed when page is there, or will never be
	page page          // its body is nil where it could not be made

	// The lock of sharing guards these.
	senders int
	cost    int64 // what the body has of its share
}

// take returns the body with the key, for which the caller must call leave. mine says that nobody has it: then the caller must make it,
// and has taken the cost for this. The result is nil where there is no memory.
func (s *sharing) take(key bodyKey, cost int64, share *memory.Share) (b *sharedBody, mine bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b = s.bodies[key]; b != nil {
		b.senders++
		return b, false
	}
	if !share.Take(cost) {
		return nil, false
	}
	b = &sharedBody{key: key, made: make(chan struct{}), senders: 1, cost: cost}
	if s.bodies == nil {
		s.bodies = make(map[bodyKey]*sharedBody)
	}
	s.bodies[key] = b
	return b, true
}

// leave ends the use of a body. The last one gives back what it has taken.
func (s *sharing) leave(b *sharedBody, share *memory.Share) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b.senders--; b.senders == 0 {
		share.Give(b.cost)
		delete(s.bodies, b.key)
	}
}

// make has f make the body, and lets everybody have it. Where f panics nobody gets one.
func (s *sharing) make(b *sharedBody, share *memory.Share, f func() []byte) {
	defer close(b.made)
	b.page = ready(f())
	s.mu.Lock()
	defer s.mu.Unlock()
	share.Give(b.cost - int64(cap(b.page.body))) // to make a body takes more than to have it
	b.cost = int64(cap(b.page.body))
}

// wait returns the body once it is made. It panics where that failed: who made it panics too, and is the one who says why.
func (b *sharedBody) wait() page {
	<-b.made
	if b.page.body == nil {
		panic(http.ErrAbortHandler)
	}
	return b.page
}

// newBodyKey is the key of the body that answers a query with the verdicts. Bodies with the same key are the same, and come of the same
// checks: a verdict has the time at which it was reached, in nanoseconds. shows is what a page
// shows beside them.
func newBodyKey(f format, q query, found asker.Answer, shows shown) bodyKey {
	sum := sha256.New()
	var b []byte
	text := func(t string) { b = append(binary.AppendUvarint(b, uint64(len(t))), t...) }
	number := func(n int64) { b = binary.AppendVarint(b, n) }
	flag := func(is bool) {
		if is {
			b = append(b, 1)
		} else {
			b = append(b, 0)
		}
	}
	moment := func(t time.Time) { number(t.Unix()); number(int64(t.Nanosecond())) }
	flush := func() {
		sum.Write(b) // it returns no error
		b = b[:0]
	}
	text(string(f))
	flag(found.Summary)
	if f == formatHTML { // the only one that says how it was asked for
		flag(q.List)
		for _, n := range []int{shows.tally.rows, shows.tally.serving, shows.tally.targets, shows.tally.leftOut} {
			number(int64(n))
		}
		for _, names := range [][]string{q.Services, q.Targets, q.Groups} {
			number(int64(len(names)))
			for _, name := range names {
				text(name)
			}
		}
		flag(shows.tally.groups)
		text(shows.certificate.Text)
		text(shows.certificate.Tone)
		text(shows.certificate.Of)
		moment(shows.certificate.Ends)
		if found.Summary {
			text(latest(found.Verdicts, shows.now))
		}
		number(int64(len(shows.kept.strips)))
		for _, strip := range shows.kept.strips {
			text(strip)
		}
		number(int64(len(shows.kept.all)))
		for _, p := range shows.kept.all {
			moment(p.at)
			number(int64(p.status))
		}
	}
	for i := range found.Verdicts {
		v := &found.Verdicts[i]
		text(v.Target)
		text(v.Service)
		flag(v.List)
		number(int64(v.LeftOut))
		number(int64(v.Status))
		number(int64(v.Code))
		flag(v.Asked)
		text(string(v.Phase))
		number(int64(v.Duration))
		moment(v.At)
		moment(v.Since)
		text(v.EvidenceID)
		flag(v.Addresses != nil)
		if a := v.Addresses; a != nil {
			number(int64(len(a.All)))
			number(int64(a.Needed))
			number(int64(a.LeftOut))
			for k := range a.All {
				text(a.All[k].String())
				text(a.All[k].GRPCCode())
				text(string(a.All[k].Phase))
				number(int64(a.All[k].Duration))
			}
		}
		flag(v.Err != nil)
		if v.Err != nil {
			text(v.Err.Error())
		}
		if f == formatHTML {
			text(v.Sentence(shows.now)) // of a certificate it says for how long
			group := ""
			if u := found.Fleet.Find(v.Target); u != nil {
				group = u.Group
			}
			text(group)
		}
		flush()
	}
	flush()
	return bodyKey(sum.Sum(nil))
}
