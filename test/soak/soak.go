//go:build unix

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/test/healthtest"
	"example.com/grpc-health-http/test/proxytest"
)

const (
	// callers make requests in parallel, each with a pause of up to thinkTime after each answer.
	callers   = 32
	thinkTime = 40 * time.Millisecond
	// shown is how many false verdicts are reported with their history.
	shown = 10
	// historyBefore is how long before the request a history begins.
	historyBefore = time.Second
	// settledWithin bounds how long the next fault waits for the requests that the last one may have affected.
	settledWithin = 20 * time.Second
)

// services are the services that callers ask for.
var services = [...]string{"a", "b", "c"}

// config is what to run.
type config struct {
	program  string   // the proxy's
	settings []string // additional variables for it
	length   time.Duration
	seed     uint64
}

// soak is a run.
type soak struct {
	testing.TB
	config
	random *rand.Rand // of the faults
	states *states
	env    *environment
	proxy  *proxytest.Proxy

	mu       sync.Mutex
	inFlight map[int]time.Time // the start of each caller's request
	events   []event
	report   report
}

// event is something that the soak did.
type event struct {
	at   time.Time
	what string
}

// report is the result of a run.
type report struct {
	config
	checks   map[string]int // by status
	faults   map[string]int // by kind
	toggles  int
	findings map[finding]int
	history  []string // of each false or late verdict
	stalls   []span
	exit     int
}

// run lets callers make requests while it causes faults, and judges every verdict.
func run(ctx context.Context, t testing.TB, c config) *report {
	t.Helper()
	s := &soak{
		TB: t, config: c, random: rand.New(rand.NewPCG(c.seed, 0)), states: newStates(services[:]),
		inFlight: make(map[int]time.Time),
		report:   report{config: c, checks: make(map[string]int), faults: make(map[string]int), findings: make(map[finding]int)},
	}
	s.env = newEnvironment(t, s.states)
	s.proxy = proxytest.Start(t, c.program, append(s.env.settings(), c.settings...)...)

	ctx, stop := context.WithTimeout(ctx, c.length)
	defer stop()
	stopWatching := sync.OnceFunc(healthtest.WatchStalls(func(from, to time.Time) { s.states.stalls.add(span{from, to}) }))
	defer stopWatching()
	var all sync.WaitGroup
	for i := range callers {
		random := rand.New(rand.NewPCG(c.seed, uint64(i)+1))
		all.Go(func() {
			client := &http.Client{Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			for ctx.Err() == nil {
				a := s.ask(client, i)
				s.take(a, s.states.judge(a))
				pause(ctx, random, thinkTime)
			}
		})
	}
	toggles := rand.New(rand.NewPCG(c.seed, callers+1))
	all.Go(func() { s.toggle(ctx, toggles) })
	s.inject(ctx)
	all.Wait()
	// The faults are over, so the first check of each service must be SERVING.
	for i, service := range services {
		s.env.say(service, true)
		a := s.ask(http.DefaultClient, i)
		f := s.states.judge(a)
		if a.Status != health.Serving.String() {
			f = falseAlarm
		}
		s.take(a, f)
	}
	http.DefaultClient.CloseIdleConnections()
	stopWatching()
	s.report.stalls = s.states.stalls.spans
	s.report.exit = s.proxy.End(t, syscall.SIGTERM)
	if s.report.exit != 0 {
		s.report.history = append(s.report.history, "the end of the program's log:", strings.Join(last(s.proxy.Log(""), 100), "\n"))
	}
	return &s.report
}

// ask makes one check.
func (s *soak) ask(client *http.Client, caller int) (a answer) {
	a.service = services[caller%len(services)]
	s.mu.Lock()
	a.from = time.Now()
	s.inFlight[caller] = a.from
	s.mu.Unlock()
	defer func() {
		a.to = time.Now()
		s.mu.Lock()
		delete(s.inFlight, caller)
		s.mu.Unlock()
	}()
	response, err := client.Get(s.proxy.URL + "?format=json&service=" + a.service)
	if err != nil {
		a.unanswered = err
		return a
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		a.unanswered = err
		return a
	}
	verdicts := struct{ Services []*answer }{[]*answer{&a}}
	if err := json.Unmarshal(body, &verdicts); err != nil || a.Status == "" {
		a.unanswered = fmt.Errorf("%s: %s", response.Status, body)
	}
	a.evidence = response.Header.Get("Grpc-Health-Evidence")
	return a
}

// take counts an answer.
func (s *soak) take(a answer, f finding) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.report.checks[a.Status]++
	s.report.findings[f]++
	if f != sound && f != excused {
		s.wrongLocked(f, a)
	}
}

// wrongLocked keeps the history of an answer. The caller holds mu.
func (s *soak) wrongLocked(f finding, a answer) {
	if len(s.report.history) >= shown {
		return
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %v\n", f, a)
	for _, e := range s.events {
		if !e.at.Before(a.from.Add(-historyBefore)) && !e.at.After(a.to) {
			fmt.Fprintf(&b, "  %+6.0f ms  %s\n", float64(e.at.Sub(a.from).Microseconds())/1000, e.what)
		}
	}
	for _, stall := range s.states.stalls.in(a.span) {
		fmt.Fprintf(&b, "  %+6.0f ms  the machine stalled for %v\n", float64(stall.from.Sub(a.from).Microseconds())/1000, stall.to.Sub(stall.from))
	}
	if a.evidence != "" {
		for _, line := range s.proxy.Log(a.evidence) {
			fmt.Fprintf(&b, "  %s\n", line)
		}
	}
	s.report.history = append(s.report.history, b.String())
}

// oldest returns the start of the oldest request in flight, or the current time if there is none.
func (s *soak) oldest() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	oldest := time.Now()
	for _, started := range s.inFlight {
		if started.Before(oldest) {
			oldest = started
		}
	}
	return oldest
}

// note records an event for the histories.
func (s *soak) note(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, event{time.Now(), fmt.Sprintf(format, args...)})
}

// toggle toggles services between SERVING and NOT_SERVING until ctx ends.
func (s *soak) toggle(ctx context.Context, random *rand.Rand) {
	const longest = 300 * time.Millisecond
	serving := map[string]bool{}
	for _, service := range services {
		serving[service] = true
	}
	for pause(ctx, random, longest) {
		service := services[random.IntN(len(services))]
		serving[service] = !serving[service]
		s.env.say(service, serving[service])
		s.note("%s: serving %v", service, serving[service])
		s.report.toggles++
	}
}

// inject causes one fault after the other until ctx ends, and completes the last one.
func (s *soak) inject(ctx context.Context) {
	const longest = 200 * time.Millisecond
	kinds := faults()
	for pause(ctx, s.random, longest) {
		f := kinds[s.random.IntN(len(kinds))]
		s.note("%s", f.kind)
		if f.cause(s) {
			s.report.faults[f.kind]++
		}
		// A check may fail rightly if two faults break two connections that were dialled for it. So the next fault waits until
		// all requests that this one may have affected are answered.
		over := time.Now()
		s.note("%s: over", f.kind)
		for end := over.Add(settledWithin); !s.oldest().After(over) && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
	}
}

// pause waits for a random time. It returns false if ctx ended first.
func pause(ctx context.Context, random *rand.Rand, longest time.Duration) bool {
	timer := time.NewTimer(time.Duration(random.Int64N(int64(longest))))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// last returns at most the last n lines.
func last(lines []string, n int) []string { return lines[max(len(lines)-n, 0):] }

// faulty reports whether a verdict was false, late or missing, or the program failed.
func (r *report) faulty() bool {
	return r.findings[falseAlarm]+r.findings[falseComfort]+r.findings[late]+r.findings[noAnswer] > 0 || r.exit != 0
}

// print writes the report.
func (r *report) print(w io.Writer) {
	for _, history := range r.history {
		fmt.Fprintln(w, history)
	}
	fmt.Fprintf(w, "seed %d, %v, %d callers\n", r.seed, r.length, callers)
	fmt.Fprintf(w, "checks %s\n", counts(r.checks))
	fmt.Fprintf(w, "faults %s\n", counts(r.faults))
	fmt.Fprintf(w, "toggles between SERVING and NOT_SERVING %d\n", r.toggles)
	var sum, longest time.Duration
	for _, stall := range r.stalls {
		sum += stall.to.Sub(stall.from)
		longest = max(longest, stall.to.Sub(stall.from))
	}
	fmt.Fprintf(w, "stalls of the machine %d, %v in all, %v at most: not counted as time of an answer; verdicts TIMEOUT that they excuse %d\n",
		len(r.stalls), sum.Round(time.Millisecond), longest.Round(time.Millisecond), r.findings[excused])
	fmt.Fprintf(w, "false alarms %d\nfalse comforts %d\nanswers over budget %d\n", r.findings[falseAlarm], r.findings[falseComfort], r.findings[late])
	if n := r.findings[noAnswer]; n > 0 {
		fmt.Fprintf(w, "requests without an answer %d\n", n)
	}
	if r.exit != 0 {
		fmt.Fprintf(w, "the program's exit code %d\n", r.exit)
	}
}

// counts returns the sum of the values, and each of them.
func counts(of map[string]int) string {
	sum := 0
	var parts []string
	for name, n := range of {
		sum += n
		parts = append(parts, fmt.Sprintf("%s %d", name, n))
	}
	slices.Sort(parts)
	return fmt.Sprintf("%d: %s", sum, strings.Join(parts, ", "))
}
