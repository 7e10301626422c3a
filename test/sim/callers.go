//go:build !race

package sim

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"example.com/grpc-health-http/internal/clock"
	"example.com/grpc-health-http/internal/health"
)

// answer is what a caller got.
type answer struct {
	caller    int
	key       string
	order     int // of the arrival
	from, to  time.Time
	fromClock clock.Moment
	deadline  time.Duration // the caller's own, from its arrival; 0 is none
	left      time.Time     // when it left; zero if it did not
	must      health.Status // what the answer must be; Unknown is anything that is right

	verdict health.Verdict // for a List that was answered, Status and Phase alone
	said    string         // what the server said according to it
}

func (a *answer) took() time.Duration { return a.to.Sub(a.from) }

func (a *answer) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "caller %d asked for %q, waited %v: %v", a.caller, a.key, a.took(), a.verdict.Status)
	if a.said != "" {
		fmt.Fprintf(&b, " (%s)", a.said)
	}
	if a.verdict.Phase != health.PhaseNone {
		fmt.Fprintf(&b, " in phase %s", a.verdict.Phase)
	}
	if a.verdict.Err != nil {
		fmt.Fprintf(&b, ": %v", a.verdict.Err)
	}
	if a.deadline > 0 {
		fmt.Fprintf(&b, "; its own deadline was %v", a.deadline)
	}
	return b.String()
}

// caller asks again and again.
func (w *world) caller(ctx context.Context, i int) {
	r := randomOf(w.seed, callerStream+i)
	mine := w.configured()[i%len(w.configured())]
	for ctx.Err() == nil {
		a := &answer{caller: i, key: mine}
		switch n := r.IntN(40); {
		case n < 2 || i < w.inventive:
			a.key = fmt.Sprintf("made up %d", r.IntN(8))
		case n == 2:
			a.key = listKey
		}
		w.askAsDrawn(a, r.IntN(12), upTo(r, 50*time.Millisecond), 1+upTo(r, w.budget()*2/5))
		if !pause(ctx, r, w.think) {
			return
		}
	}
}

// askAsDrawn asks as a caller does who may leave, or have a deadline.
func (w *world) askAsDrawn(a *answer, manner int, leavesAfter, deadline time.Duration) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	switch manner {
	case 0:
		leaving := time.AfterFunc(leavesAfter, func() {
			w.mu.Lock()
			a.left = time.Now()
			w.mu.Unlock()
			cancel()
		})
		defer leaving.Stop()
	case 1:
		a.deadline = deadline
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, deadline)
		defer cancel()
	}
	w.ask(ctx, a)
}

// ask asks, and has the answer judged.
func (w *world) ask(ctx context.Context, a *answer) {
	w.mu.Lock()
	a.from, a.fromClock, a.order = time.Now(), w.nowLocked(), w.arrivalLocked()
	w.arrivals[a] = true
	w.peakLocked(a.key, true)
	w.mu.Unlock()
	var list []health.Verdict
	if a.key == listKey {
		list = w.checker.List(ctx)
	} else {
		a.verdict = w.checker.Check(ctx, a.key)
	}
	a.to = time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	if a.key == listKey {
		a.verdict, a.said = summary(list)
	} else if a.verdict.Phase == health.PhaseNone {
		a.said = a.verdict.Status.String()
	}
	delete(w.arrivals, a)
	w.takeLocked(a)
	w.peakLocked(a.key, false)
	if len(w.arrivals) == 0 && w.dialling > 0 {
		w.unwanted.Go(w.expectNoDial)
	}
}

// expectNoDial expects that nothing is dialled soon after the last caller has its answer.
func (w *world) expectNoDial() {
	time.Sleep(time.Nanosecond)
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.arrivals) == 0 && w.dialling > 0 {
		w.foundLocked("a dial that nobody waits for", time.Now().Add(-w.budget()), strconv.Itoa(w.dialling))
	}
}

// summary is a List's answer in one verdict, and what the server said according to it.
func summary(list []health.Verdict) (v health.Verdict, said string) {
	if len(list) == 1 && list[0].List {
		return list[0], ""
	}
	v.Status = health.Serving // of the RPC
	var entries []string
	for _, one := range list {
		entries = append(entries, entry(one.Service, one.Status))
	}
	return v, strings.Join(entries, " ")
}

// peak is how many callers of made-up names there were at once, at one virtual time.
type peak struct {
	callers int
	names   map[string]int
	at      time.Time
	most    int // callers, and one more for each name, at that time
}

// peakLocked counts a caller in or out.
func (w *world) peakLocked(key string, arrives bool) {
	if !w.madeUp(key) {
		return
	}
	p := &w.peak
	if p.names == nil {
		p.names = make(map[string]int)
	}
	if now := time.Now(); now.After(p.at) {
		p.at, p.most = now, p.callers+len(p.names)
	}
	if arrives {
		p.callers++
		p.names[key]++
	} else {
		p.callers--
		if p.names[key]--; p.names[key] == 0 {
			delete(p.names, key)
		}
	}
	p.most = max(p.most, p.callers+len(p.names))
}
