//go:build !race

package sim

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"example.com/grpc-health-http/internal/clock"
	"example.com/grpc-health-http/internal/health"
)

const (
	// maxRPCs is how many RPCs of one configured service may be in progress at once, as counted on the checker's side.
	maxRPCs = 8
	// promptCalls is how many calls of one service run side by side before the next one waits.
	promptCalls = 3
	// maxCalls is how many of them are checks' first ones.
	maxCalls = 6
	// maxServed is the same as the server counts: it hears of a cancelled one a little late.
	maxServed = 12
	// outdatedAfter is the length of a freeze after which no answer counts to an RPC from before it.
	outdatedAfter = 5 * time.Second
	// resolutionDelay is how long the addresses of one family wait for those of the other.
	resolutionDelay = 50 * time.Millisecond
	// spacing is how long a call or a dial may wait for a younger one of its kind.
	spacing = 25 * time.Millisecond
)

// takeLocked judges an answer.
func (w *world) takeLocked(a *answer) {
	w.checks++
	w.answers = append(w.answers, a)
	kind := w.judgeLocked(a)
	if kind == "" && a.must != health.Unknown && a.verdict.Status != a.must {
		kind = "not " + a.must.String()
	}
	if kind == "" {
		return
	}
	what := a.String()
	if id, err := strconv.Atoi(a.verdict.EvidenceID); err == nil {
		what += "\n  evidence:\n    " + strings.Join(w.evidence[id-1].Lines(), "\n    ")
	}
	w.foundLocked(kind, a.from.Add(-w.budget()), what)
}

// judgeLocked says what is wrong with an answer; empty where nothing is.
func (w *world) judgeLocked(a *answer) string {
	limit := w.budget()
	if a.deadline > 0 {
		limit = min(limit, a.deadline)
	}
	if a.took() > limit {
		return "late"
	}
	v := a.verdict
	wrong := ""
	switch {
	case v.Status == health.Overloaded:
		if !w.madeUp(a.key) || w.peak.most <= w.maxConcurrent {
			return "overloaded without need"
		}
		return ""
	case a.key == listKey && v.List || v.Phase != health.PhaseNone:
		wrong = w.judgeFailureLocked(a)
	default:
		wrong = w.judgeAnswerLocked(a)
	}
	if allowed, bounded := w.allowedLocked(a); wrong == "" && bounded {
		w.mostSlow = max(w.mostSlow, float64(a.took())/float64(allowed))
		if a.took() > allowed {
			return "slow"
		}
	}
	return wrong
}

// allowedLocked is how long an answer may take. It is bounded while all is well, while services are slow, and after connections
// have broken once: a second connection is asked beside a silent one.
func (w *world) allowedLocked(a *answer) (d time.Duration, bounded bool) {
	from := a.from.Add(-max(2*time.Second, w.budget()))
	for _, f := range w.faults {
		if f.kind.harms == harmsMore && f.within(from, a.to) {
			return 0, false
		}
	}
	broke, silent, unused := w.brokeLocked(from.Add(-w.maxAge)) // one that nobody has used since can be the kept one
	if w.pointsLocked(a.key, a.from) >= pointsOfProof || silent >= promptCalls {
		return 0, false // the answer waits for connections that were silent while they were fresh
	}
	t := w.timesOf(w.latency, false)
	if slowed := w.slowed[a.key]; slowed != nil {
		t.rpc += slowed.sum(from, a.to)
		t.attempt = t.dial + t.rpc
	}
	d = 2*t.attempt + spacing // a call can wait for another one
	if w.streams > 0 {        // those of others can take the streams of two connections
		d += 2 * (t.hedge + t.dial)
	}
	switch {
	case t.rpc > w.rpcTimeout, w.hung[a.key] != nil && w.hung[a.key].within(from, a.to) > 0:
		return 0, false
	case broke == 0:
		return d, true
	case broke == 1 && !unused && w.streams == 0 && !w.madeUp(a.key): // the limit of made-up names is one of second RPCs too
		return d + t.hedge + t.attempt, true
	}
	return 0, false
}

// brokeLocked is how often connections have broken since then, how many have become silent, and whether one was being dialled.
func (w *world) brokeLocked(since time.Time) (times, silent int, dialled bool) {
	at := make(map[time.Time]bool)
	for _, c := range w.connections {
		for _, h := range c.hits {
			if h.at.After(since) {
				at[h.at] = true
				dialled = dialled || c.first.IsZero() || c.first.After(h.at)
				if h.points >= pointsOfProof {
					silent++
				}
			}
		}
	}
	return len(at), silent, dialled
}

// judgeAnswerLocked looks for the RPC that an answer of the server is from.
func (w *world) judgeAnswerLocked(a *answer) string {
	after := a.order // no RPC counts that came before this
	for _, f := range w.freezes {
		if f.jump > outdatedAfter && !w.hiddenLocked(f) {
			after = max(after, f.order)
		}
	}
	outdated, old := false, false
	for _, one := range slices.Backward(w.handled[a.key]) {
		switch {
		case one.said != a.said:
		case one.order < after:
			outdated = true
		case one.conn.first.Before(a.from) && a.fromClock.Since(one.conn.clock) > w.maxAge: // it was usable, and old
			old = true
		default:
			return ""
		}
		if one.gone.Before(a.from.Add(-10 * time.Second)) {
			break
		}
	}
	switch {
	case old:
		return "old connection"
	case outdated:
		return "outdated answer"
	}
	return "the server said no such thing"
}

// hiddenLocked says that no clock can show a freeze: the monotonic clock was stopped too, and the wall clock was set back
// between two readings.
func (w *world) hiddenLocked(f freeze) bool {
	return f.wallOnly && slices.ContainsFunc(w.setBack, func(at time.Time) bool { return f.at.Sub(at).Abs() <= clock.Slice })
}

// judgeFailureLocked looks for the cause of a failure.
func (w *world) judgeFailureLocked(a *answer) string {
	timeout := a.verdict.Status == health.Timeout
	switch {
	case !timeout && a.verdict.Status != health.ConnectionFailed:
		return "unexpected status"
	case !a.left.IsZero(), a.deadline > 0 && a.took() >= a.deadline:
		return ""
	}
	since, froze := a.from, 0 // what was before explains no failure
	for _, f := range w.freezes {
		if f.order > a.order {
			since = f.at
			froze++
		}
	}
	t := w.timesLocked(a)
	if w.budget()-since.Sub(a.from)-time.Duration(froze)*clock.Slice < t.hedge+t.attempt {
		since = a.from // too little was left
	}
	spent := a.took() >= w.budget()-time.Duration(froze)*clock.Slice
	// At the end of the budget, which callers of about the same time share, it is the phase that was reached.
	if a.took() < w.budget()-time.Duration(froze)*clock.Slice-spacing && !w.phasesLocked(a).has(a.verdict.Phase) {
		return "a phase in which nothing was wrong"
	}
	if allowed, bounded := w.allowedLocked(a); bounded && allowed < w.budget() {
		spent = false // there was time enough
	}
	switch {
	case timeout && a.verdict.Phase == health.PhaseRPC && w.unaskedLocked(a):
		return "a time-out without an RPC of its own"
	case froze == 0 && !w.metadata && a.took() > w.longestDialLocked(a, t):
		return "a failure that comes late"
	case w.outages.within(since, a.to) > 0, w.partly.within(since, a.to) > 1:
	case timeout && w.hung[a.key] != nil && w.hung[a.key].within(since, a.to) > 0:
	case w.pointsLocked(a.key, since) >= pointsOfProof:
	case timeout && (t.dial > w.connectTimeout || t.rpc > w.rpcTimeout):
	case timeout && spent && t.all() > w.rpcTimeout+spacing:
	default:
		return "false alarm"
	}
	return ""
}

// unaskedLocked says that no RPC was made for a caller, although connections were well and few RPCs were in progress: a call begins
// early enough for its RPC to have its whole budget.
func (w *world) unaskedLocked(a *answer) bool {
	begun := a.from.Add(w.connectTimeout) // at the latest
	for _, f := range w.faults {
		if f.kind.harms != harmsServices && f.within(a.from.Add(-w.budget()), a.to) {
			return false
		}
	}
	t := w.timesOf(w.latency, false)
	running := 0
	for _, one := range slices.Backward(w.made[a.key]) {
		switch {
		case one.order > a.order && !one.from.After(begun.Add(t.dial)):
			return false
		case one.within(begun.Add(-spacing), begun.Add(-spacing)):
			running++
		case one.from.Before(a.from.Add(-2 * w.budget())):
			return running < maxCalls && w.streams == 0
		}
	}
	return running < maxCalls && w.streams == 0
}

// phasesLocked are those in which something was wrong, so that a check could fail in them. Where addresses lead nowhere, a failure of
// the others is theirs.
func (w *world) phasesLocked(a *answer) (all phases) {
	for _, f := range w.faults {
		if f.within(a.from.Add(-w.budget()), a.to) {
			all |= f.kind.phases
		}
	}
	if w.headStart() > 0 {
		all |= reaching
	}
	return all
}

// longestDialLocked is how long a failure to connect may take for one who asks alone: beside a silent connection, or without one.
func (w *world) longestDialLocked(a *answer, t times) time.Duration {
	if a.verdict.Phase == health.PhaseRPC || w.madeUp(a.key) || w.sharedLocked(a) { // the limit of made-up names is one of second RPCs too
		return w.budget()
	}
	begun := t.hedge
	for _, c := range w.connections {
		for _, h := range c.hits {
			begun = max(begun, h.at.Sub(a.from))
		}
	}
	return max(begun+w.connectTimeout, t.dial+w.rpcTimeout) + 2*spacing // the RPC can have waited for another caller's dial
}

// sharedLocked says that others asked for the same at the same time.
func (w *world) sharedLocked(a *answer) bool {
	for o := range w.arrivals {
		if o.key == a.key && o != a {
			return true
		}
	}
	for _, o := range slices.Backward(w.answers) {
		if o.to.Before(a.from.Add(-spacing)) {
			return false
		}
		if o.key == a.key && o != a {
			return true
		}
	}
	return false
}

// pointsLocked is what the faults since then come to that hit connections which were dialled since then and can have served the key.
func (w *world) pointsLocked(key string, since time.Time) (points int) {
	for _, c := range w.connections {
		if c.began.Before(since) || len(c.requests) > 0 && !c.requests[key] && w.streams == 0 {
			continue
		}
		for _, h := range c.hits {
			if !h.at.Before(since) {
				points += h.points
			}
		}
	}
	return points
}

// times are how long the parts of a check can take.
type times struct {
	dial, rpc, attempt time.Duration
	hedge              time.Duration // before a further attempt, after a connection has become silent
	attempts           int           // that can be needed
}

// all is the time for all attempts.
func (t times) all() time.Duration {
	if t.attempts > 1 {
		return t.hedge + time.Duration(t.attempts)*t.attempt
	}
	return t.attempt
}

// timesLocked are those around an answer. Calls that other callers wait for can be older than it.
func (w *world) timesLocked(a *answer) times {
	from := a.from.Add(-w.budget())
	t := w.timesOf(w.latency+w.delays.sum(from, a.to), w.partly.within(from, a.to) > 0)
	if w.rotations.within(from, a.to) > 0 {
		t.dial *= 2 // with the new credentials once more
	}
	t.dial += w.late.sum(from, a.to)
	if slowed := w.slowed[a.key]; slowed != nil {
		t.rpc += slowed.sum(from, a.to)
	}
	t.attempt, t.attempts = t.dial+t.rpc, 1
	for _, c := range w.connections {
		for _, h := range c.hits {
			if !h.at.Before(from) {
				t.attempts++
			}
		}
	}
	for _, f := range w.freezes {
		if !f.at.Before(from) {
			t.attempts++
		}
	}
	return t
}

// timesOf are those with a latency, without faults of anything else but addresses.
func (w *world) timesOf(latency time.Duration, partly bool) times {
	roundTrip := 2 * (latency + latency/4)
	t := times{rpc: roundTrip, dial: 4*roundTrip + spacing, hedge: w.rpcTimeout / 4} // lookup, TCP, TLS, HTTP/2
	if n := time.Duration(len(w.addresses)); partly && n > 1 {
		t.dial += (n - 1) * min(250*time.Millisecond, w.connectTimeout/n)
	} else {
		t.dial += w.headStart()
	}
	t.attempt = t.dial + t.rpc
	return t
}

// counted hears of RPCs in progress, as the checker's side counts them. The world's mutex is held.
func (w *world) counted(key string, n int, at time.Time) {
	limit := maxRPCs
	if key == madeUpKey {
		limit = w.maxConcurrent
	} else if !w.madeUp(key) {
		w.mostRPCs = max(w.mostRPCs, n)
	}
	if n > limit {
		w.foundLocked("too many RPCs", at.Add(-w.budget()), fmt.Sprintf("%d for %q at %v", n, key, at.Sub(w.start)))
	}
}

// servedLocked hears of RPCs in progress, as the server counts them.
func (w *world) servedLocked(key string) {
	n := w.inFlight[key]
	w.mostServed = max(w.mostServed, n)
	if n > maxServed {
		w.foundLocked("too many RPCs on the server", time.Now().Add(-w.budget()), fmt.Sprintf("%d for %q", n, key))
	}
}
