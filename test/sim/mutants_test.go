//go:build !race && long

package sim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// mutant is a deliberate fault in the core: in a file of internal, old becomes new. The simulation has to find it.
type mutant struct {
	name, file, old, new string
}

// mutantsOfMany are those that need many targets: TestMany… must find them.
var mutantsOfMany = []mutant{
	{"one target takes what others need", "turns/turns.go",
		"	return t.target.configured+min(t.target.madeUp, each-1) >= each", "	return false"},
	{"made-up names take all turns of their target", "turns/turns.go",
		"	return t.target.configured+min(t.target.madeUp, each-1) >= each", "	return t.target.configured+t.target.madeUp >= each"},
	{"made-up names take what others need", "turns/turns.go",
		"	if t.madeUp || t.beyondLocked() {", "	if t.beyondLocked() {"},
	{"turns in the order of arrival", "turns/turns.go",
		"	return cmp.Compare(t.due, other.due)", "	return 0 * cmp.Compare(t.due, other.due)"},
	{"no limit of dials", "check/process.go",
		"	if dials > 0 {", "	if dials < 0 {"},
	{"no turn in time is told as a failure to connect", "prove/prove.go",
		"		c.failure.Status = health.Overloaded\n", ""},
	{"time without a turn is told as the server's", "check/check.go",
		"	if unproven && c.poolOf(r).WaitedForTurn(arrived.Moment) {", "	if false {"},
	{"a turn comes too late to prove anything", "check/check.go",
		"Reserve: c.budget() / lastTurn,", "Reserve: 0 * c.budget() / lastTurn,"},
	{"the turn of a dial that nobody waits for any more leaks", "pool/pool.go",
		"	defer d.turn.Return()\n	if d.turn.Waits() && !p.awaitShared(ctx, d) {\n		return\n	}\n",
		"	if d.turn.Waits() && !p.awaitShared(ctx, d) {\n		return\n	}\n	defer d.turn.Return()\n"},
	{"the turn of an exclusive dial that fails leaks", "pool/pool.go",
		"	defer turn.Return()\n", "	defer func() {\n		if ctx.Err() == nil {\n			turn.Return()\n		}\n	}()\n"},
	{"a connection is kept although the next check comes at its age", "pool/pool.go",
		"	return p.o.AskedEvery >= p.o.MaxAge &&", "	return p.o.AskedEvery < 0 &&"},
	{"an idle connection is not closed", "pool/pool.go",
		"	if p.o.Reaper != nil {", "	if false {"},
}

// mutants show what the judge is worth: each of them is found within mutantSeeds seeds.
//
// What no answer can show is not among them: a lost connection that stays in the pool (it is not usable there), a silent one that
// stays (the second connection replaces it), a shared connection after a shared one that failed (that needs a server
// which allows a number of RPCs for each connection), and a single question to the name server (other callers' dials make up for it).
var mutants = []mutant{
	{"a reused connection's failure is taken for proof", "prove/attempt.go",
		"return a.conn.Began.Before(c.began.Moment) }", "return false }"},
	{"no retry after a loss", "prove/prove.go",
		"		c.wantLocked(\"lost\")\n		return", "		if a.reuses(c) {\n			c.failure = &health.Verdict{Status: health.ConnectionFailed, Phase: health.PhaseRPC}\n		} else {\n			c.wantLocked(\"lost\")\n		}\n		return"},
	{"one loss is proof", "prove/prove.go",
		"	pointsAllowed     = 4", "	pointsAllowed     = 2"},
	{"a request that the server has not looked at counts as lost", "prove/prove.go",
		"	pointsUnprocessed = 1", "	pointsUnprocessed = 4"},
	{"an answer from before a long stop counts", "prove/prove.go",
		"const outdatedAfter = 5 * time.Second", "const outdatedAfter = 5000 * time.Second"},
	{"a transport's status counts as the server's", "grpcconn/outcome.go",
		"		// The connection is lost, or the time has run out, which Do finds.\n", "		a.Outcome = Answered\n"},
	{"a connection that ends during its dial is a failed dial", "grpcconn/conn.go",
		"		case wire.SettingsSeen() && state != connectivity.Connecting:", "		case false:"},
	{"the age of connections is ignored", "pool/pool.go",
		"!p.kept.Lost() && now.Since(p.kept.Began) <= p.o.MaxAge", "!p.kept.Lost()"},
	{"the failure of an older dial counts", "pool/pool.go",
		"		if !latest.began.Before(since) {", "		if true {"},
	{"a later caller gets an older answer", "coalesce/coalesce.go",
		"next.batches[n].last.Before(asOf.Moment)", "next.batches[n].first.Before(asOf.Moment)"},
	{"every waiting caller gets every answer", "coalesce/coalesce.go",
		"n < len(next.batches) && next.batches[n].last.Before(asOf.Moment)", "n < len(next.batches)"},
	{"a running call gets an older answer", "coalesce/coalesce.go",
		"if !c.ended && !asOf.Before(c.began.Moment) {", "if !c.ended {"},
	{"calls that nobody waits for go on", "coalesce/coalesce.go",
		"	c.ended = true\n	c.cancel(cause)\n	if c.queue.next == c {", "	c.ended = true\n	if c.queue.next == c {"},
	{"callers join a running call", "coalesce/coalesce.go",
		"	c = q.next\n	if n :=", "	c = q.next\n	if r := len(q.running); r > 0 && !q.running[r-1].ended && len(q.running[r-1].batches) > 0 {\n		joined := q.running[r-1]\n		b := joined.batches[len(joined.batches)-1]\n		b.callers++\n		if len(q.next.batches) == 0 {\n			q.next.cancel(nil)\n			q.next = nil\n		}\n		return joined, b, true, false\n	}\n	if n :="},
	{"stops of the process are not noticed", "clock/running.go",
		"	if c.active > 0 && passed > stoppedAfter {", "	if false {"},
	{"time in which the process was stopped counts", "clock/running.go",
		"		c.lost += max(now.Mono-c.last.Mono-int64(Slice), 0)", ""},
	{"any number of second RPCs", "check/check.go",
		"nil); taken {", "nil); taken && false {"},
	{"any number of RPCs for made-up names", "check/check.go",
		"if p.limited && p.checker.madeUp.Add(1) > p.checker.maxMadeUp {", "if p.limited && p.checker.madeUp.Add(1) > 1000 {"},
	{"credentials are not read again", "dial/race.go",
		"	case len(r.again) > 0 && !r.refreshed:", "	case false:"},
	{"a dial has no budget", "dial/dial.go",
		"	ctx, cancel := dl.clock.WithBudget(ctx, dl.o.ConnectTimeout)", "	ctx, cancel := context.WithCancel(ctx)"},
	{"one address is tried after the other has failed", "dial/race.go",
		"		case <-r.timer.C:\n			r.due = true", "		case <-r.timer.C:"},
	{"one address family waits for the other", "dial/race.go",
		"	if r.held != nil || r.started > 0 && r.ctx.Err() != nil {", "	if r.unanswered > 0 && r.ctx.Err() == nil || r.started > 0 && r.ctx.Err() != nil {"},
	{"callers are answered a second late", "check/check.go",
		"Clock: o.Process.clock, Budget: c.budget(),", "Clock: o.Process.clock, Budget: c.budget() + time.Second,"},
	{"no second connection beside a silent one", "prove/prove.go",
		"		case a.reuses(c):\n			c.wantLocked(\"silent\")\n		case !c.exclusive", "		case !c.exclusive"},
	{"any number of calls", "check/check.go",
		"	maxCalls    = 6", "	maxCalls    = 1000"},
	{"no call starts early enough to have its budget", "check/check.go",
		"Reserve: o.RPCTimeout + shareWindow,", "Reserve: 0,"},
	{"a fresh connection is not needed", "prove/prove.go",
		"		need := pool.Fresh\n", "		need := pool.Any\n"},
	{"dials go on although nobody waits", "pool/pool.go",
		"	for _, d := range p.dials {\n		d.cancel()\n	}\n	p.dials = nil\n", ""},
	{"a lookup that fails is told as a failure to connect", "dial/race.go",
		"return r.p.end(health.PhaseDNS, r.lookupError", "return r.p.end(health.PhaseConnect, r.lookupError"},
	{"credentials that fail are told as a failure of TLS", "dial/dial.go",
		"return nil, p.end(health.PhaseCredentials, err)", "return nil, p.end(health.PhaseTLS, err)"},
	{"verdicts are kept for 50 ms", "check/check.go",
		"	return c.Proof(ctx, service).Verdict", "	key := \"kept \" + service\n	if v, ok := c.process.doubled.Load(key); ok && time.Since(v.(health.Verdict).At) < 50*time.Millisecond {\n		return v.(health.Verdict)\n	}\n	v := c.Proof(ctx, service).Verdict\n	c.process.doubled.Store(key, v)\n	return v"},
}

// mutantSeeds is within how many seeds a mutant must be found.
const mutantSeeds = 200

// TestMutants runs the simulation on each mutant of the core. The sources stay as they are: go build's -overlay replaces the file.
func TestMutants(t *testing.T) {
	internal, err := filepath.Abs("../../internal")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mutants {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			after, err := m.judge(t.Context(), internal, t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("| %s | %s |", m.name, after)
		})
	}
	for _, m := range mutantsOfMany {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			by, err := m.judgeMany(t.Context(), internal, t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("| %s | %s |", m.name, by)
		})
	}
}

var seedOf = regexp.MustCompile(`seed (\d+)`)

// build builds the simulation with the mutant.
func (m mutant) build(ctx context.Context, internal, dir string) (program string, err error) {
	path := filepath.Join(internal, m.file)
	source, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	if n := strings.Count(string(source), m.old); n != 1 {
		return "", fmt.Errorf("what it replaces is there %d times in %s, want once: bring the table up to date", n, m.file)
	}
	mutated := filepath.Join(dir, "mutated.go")
	if err := os.WriteFile(mutated, []byte(strings.Replace(string(source), m.old, m.new, 1)), 0o600); err != nil {
		return "", err
	}
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{path: mutated}})
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600); err != nil {
		return "", err
	}
	program = filepath.Join(dir, "sim.test")
	build := exec.CommandContext(ctx, "go", "test", "-c", "-vet=off", "-ldflags=-s -w", "-overlay", filepath.Join(dir, "overlay.json"), "-o", program, ".")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return program, nil
}

var failed = regexp.MustCompile(`(?m)^--- FAIL: (\S+)`)

// judgeMany says by which tests the mutant was found. An error says that it was not, or could not be made.
func (m mutant) judgeMany(ctx context.Context, internal, dir string) (by string, err error) {
	program, err := m.build(ctx, internal, dir)
	if err != nil {
		return "", err
	}
	out, err := exec.CommandContext(ctx, program, "-test.run=TestMany", "-test.timeout=5m").CombinedOutput()
	if err == nil {
		return "", errors.New("not found")
	}
	var names []string
	for _, match := range failed.FindAllSubmatch(out, -1) {
		names = append(names, string(match[1]))
	}
	if len(names) == 0 {
		return "", fmt.Errorf("the simulation ended without a finding: %w\n%.2000s", err, out)
	}
	return strings.Join(names, ", "), nil
}

// judge says after how many seeds the mutant was found. An error says that it was not, or could not be made.
func (m mutant) judge(ctx context.Context, internal, dir string) (after string, err error) {
	program, err := m.build(ctx, internal, dir)
	if err != nil {
		return "", err
	}
	const first = 1000
	run := exec.CommandContext(ctx, program, "-test.run=TestSeeds", "-test.v", "-test.timeout=5m", "-first", fmt.Sprint("-seed=", first), fmt.Sprint("-seeds=", mutantSeeds))
	began := time.Now()
	out, err := run.CombinedOutput()
	if err == nil {
		return "", fmt.Errorf("not found within %d seeds", mutantSeeds)
	}
	seeds := 0
	for _, match := range seedOf.FindAllSubmatch(out, -1) {
		var seed int
		if _, err := fmt.Sscan(string(match[1]), &seed); err == nil && seed >= first && seed < first+mutantSeeds {
			seeds = seed - first + 1
			break
		}
	}
	if seeds == 0 {
		return "", fmt.Errorf("the simulation ended without a finding: %w\n%.2000s", err, out)
	}
	return fmt.Sprintf("%d | %.1f s", seeds, time.Since(began).Seconds()), nil
}

// TestRepeats shows that most seeds repeat, to the nanosecond.
func TestRepeats(t *testing.T) {
	const seeds = 10
	same := 0
	for seed := range uint64(seeds) {
		if slices.Equal(run(t, seed+1, nil, nil).trace(), run(t, seed+1, nil, nil).trace()) {
			same++
		}
	}
	t.Logf("%d of %d seeds repeat", same, seeds)
	if same < seeds/2 {
		t.Errorf("only %d of %d seeds repeat", same, seeds)
	}
}

// trace is the answers in the order of callers and of time.
func (r *result) trace() []string {
	var lines []string
	for _, a := range r.answers {
		lines = append(lines, a.line(r.start))
	}
	slices.Sort(lines)
	return lines
}

// line is the answer in the trace by which runs of a seed are compared.
func (a *answer) line(start time.Time) string {
	return fmt.Sprintf("%04d %14d %14d %q %s %s %s", a.caller, a.from.Sub(start), a.to.Sub(start), a.key, a.verdict.Status, a.verdict.Phase, a.said)
}
