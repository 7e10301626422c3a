//go:build !race

package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/metadata"

	"example.com/grpc-health-http/internal/check"
	"example.com/grpc-health-http/internal/clock"
	"example.com/grpc-health-http/internal/dial"
	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/internal/target"
	"example.com/grpc-health-http/test/simnet"
)

// seedLength is how much time passes in a seed, but for its end.
const seedLength = 20 * time.Second

// closedWithin is how much later than at its age an idle connection is closed.
const closedWithin = time.Second

// Keys of what is asked that is no service's name.
const (
	listKey   = "(list)"
	madeUpKey = "(all made-up names)"
)

// checker is what is simulated: a check.Checker, or what a test puts in front of one.
type checker interface {
	Check(ctx context.Context, service string) health.Verdict
	List(ctx context.Context) []health.Verdict
}

// world is all of one run of a seed.
type world struct {
	*settings
	seed    uint64
	faults  []*fault
	dropped map[int]bool // of the faults, by their index
	wrap    func(checker) checker

	start    time.Time
	net      *simnet.Net
	process  *check.Process
	core     *check.Checker
	checker  checker
	serving  sync.WaitGroup // servers, and whoever stops them
	crowd    sync.WaitGroup // callers whom faults bring
	unwanted sync.WaitGroup // looks for dials that nobody waits for

	mu          sync.Mutex // guards what follows
	order       int        // counts arrivals, of callers and RPCs, and freezes
	system      func() clock.Moment
	mono, wall  time.Duration // by which the checker's clocks differ from the bubble's
	connections map[*simnet.Conn]*connection
	rpcs        *tally

	server     *server // nil while it is down
	servers    []*server
	downs      int // faults because of which the server is down
	statuses   map[string]health.Status
	hangs      map[string]chan struct{}
	slow       map[string]time.Duration
	hurry      chan struct{} // closed, and replaced, to end the slowness of RPCs in progress
	inFlight   map[string]int
	made       map[string][]*rpc
	handled    map[string][]*handled
	lookups    input
	secrets    input // the credentials
	metadatas  input
	family     family         // the lookup finds addresses of this family alone; noFamily is all
	unanswered [families]int  // faults because of which questions for the family get no answer
	losing     [families]bool // the next question for the family gets no answer
	identity   identity

	arrivals   map[*answer]bool // of those who wait
	dialling   int              // connections that are being made
	peak       peak
	outages    spans
	endOutage  func() // nil while there is none
	partly     spans  // a part of the addresses leads nowhere, or is not found
	rotations  spans
	hung       map[string]*spans
	slowed     map[string]*measured
	delays     measured    // of packets
	late       measured    // lookups, credentials, metadata
	setBack    []time.Time // when the wall clock was
	freezes    []freeze
	events     []event
	evidence   []health.Evidence
	answers    []*answer
	findings   []finding
	checks     int
	mostSlow   float64 // the slowest answer while all was well, relative to what is allowed
	mostServed int     // RPCs of one kind on the server
	mostRPCs   int     // RPCs of one configured kind
}

// identity is who shows which certificate, and what the client's files hold.
type identity struct {
	authority, leaf int // of the server
	trusts, shows   int // authorities in the client's files
	both            bool
}

// result is what came of a run.
type result struct {
	Seed      uint64
	Settings  string
	Schedule  []string
	Simulated time.Duration
	Checks    int
	Slowest   float64
	RPCs      int
	Served    int
	Findings  []finding

	start   time.Time
	answers []*answer
}

// run runs a seed in a bubble, without the dropped faults. wrap may put something in front of the checker; it may be nil.
func run(t *testing.T, seed uint64, dropped map[int]bool, wrap func(checker) checker) (r *result) {
	authorities() // outside of the bubble
	synctest.Test(t, func(*testing.T) {
		w := newWorld(seed, dropped, wrap)
		w.run()
		r = w.result()
	})
	return r
}

func newWorld(seed uint64, dropped map[int]bool, wrap func(checker) checker) *world {
	s := drawSettings(seed)
	w := &world{
		settings: s, seed: seed, faults: drawFaults(seed, s), dropped: dropped, wrap: wrap,
		start: time.Now(), net: simnet.New(seed, s.latency), system: clock.System(),
		connections: make(map[*simnet.Conn]*connection),
		statuses:    make(map[string]health.Status), hangs: make(map[string]chan struct{}), slow: make(map[string]time.Duration),
		hurry: make(chan struct{}), inFlight: make(map[string]int), made: make(map[string][]*rpc), handled: make(map[string][]*handled),
		arrivals: make(map[*answer]bool), hung: make(map[string]*spans), slowed: make(map[string]*measured),
	}
	w.rpcs = newTally(w.counted)
	for _, name := range s.configured() {
		w.statuses[name] = health.Serving
	}
	for _, a := range s.addresses {
		if a.dead != simnet.Pass {
			w.net.Impair(a.dead, a.text())
		}
	}
	return w
}

// options are those of the checker.
func (w *world) options() check.Options {
	name := w.addresses[0].text()
	if w.named {
		name = net.JoinHostPort(host, strconv.Itoa(port))
	}
	to, err := target.Parse(name)
	if err != nil {
		panic(err)
	}
	o := check.Options{
		Options: dial.Options{
			Target: to, ServerName: host, ConnectTimeout: w.connectTimeout, Redial: w.redial,
			Credentials: w.newCredentials(), Lookup: w.lookup, Connect: w.connect, Trace: w.traced(),
		},
		RPCTimeout: w.rpcTimeout, MaxAge: w.maxAge, Services: w.services, MaxConcurrent: w.maxConcurrent, Process: w.process,
	}
	if w.metadata {
		o.Metadata = w.getMetadata
	}
	return o
}

// run is the life of a world.
func (w *world) run() {
	w.up()
	w.process = check.NewProcess(w.now, check.MaxDials, 0)
	w.core = check.New(w.options())
	w.checker = w.core
	if w.wrap != nil {
		w.checker = w.wrap(w.checker)
	}
	ctx, stop := context.WithCancel(context.Background())
	var all sync.WaitGroup
	for i := range w.callers {
		all.Go(func() { w.caller(ctx, i) })
	}
	changing, settle := context.WithCancel(ctx)
	all.Go(func() { w.changeStatuses(changing) })
	w.play()
	settle()
	synctest.Wait()
	w.calm()
	stop()
	all.Wait()
	w.crowd.Wait()
	w.unwanted.Wait()
	time.Sleep(w.rpcTimeout + clock.Slice) // RPCs of callers who have left go on for so long
	synctest.Wait()
	w.mu.Lock()
	for _, key := range w.rpcs.finish() {
		w.foundLocked("RPC left over", w.start, key)
	}
	w.mu.Unlock()
	time.Sleep(3 * time.Second)
	w.calm()
	w.end()
}

// calm has all services serve, and checks them: nothing is wrong any more.
func (w *world) calm() {
	w.mu.Lock()
	for _, name := range w.configured() {
		w.setLocked(name, health.Serving)
	}
	w.mu.Unlock()
	var all sync.WaitGroup
	for i, name := range w.configured() {
		all.Go(func() { w.ask(context.Background(), &answer{caller: 1000 + i, key: name, must: health.Serving}) })
	}
	all.Wait()
}

// end ends everything, and looks for what is left.
func (w *world) end() {
	time.Sleep(100 * time.Millisecond) // connections that were not used close by then
	synctest.Wait()
	w.leftOver("connections left over", 2) // one is kept for the configured services, and one for other names
	time.Sleep(w.maxAge + closedWithin)
	synctest.Wait()
	w.leftOver("connections left over at their age", 0)
	w.calm() // of which the connections end with the checker
	if used, waiting := w.process.Dials(); used+waiting > 0 {
		w.mu.Lock()
		w.foundLocked("turns left over", w.start, fmt.Sprint(used, waiting))
		w.mu.Unlock()
	}
	w.core.Close()
	w.process.Close()
	synctest.Wait()
	w.leftOver("connections left after Close", 0)
	for _, c := range w.net.Open() {
		c.Close()
	}
	w.mu.Lock()
	servers := w.servers
	w.mu.Unlock()
	for _, s := range servers {
		s.grpc.Stop()
	}
	w.serving.Wait()
}

func (w *world) leftOver(kind string, allowed int) {
	open := w.net.Open()
	if len(open) <= allowed {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.foundLocked(kind, w.start, strconv.Itoa(len(open)))
}

// result is what came of it.
func (w *world) result() *result {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := &result{
		Seed: w.seed, Settings: w.settings.String(), Simulated: time.Since(w.start), Checks: w.checks, Slowest: w.mostSlow,
		RPCs: w.mostRPCs, Served: w.mostServed, Findings: w.findings, start: w.start, answers: w.answers,
	}
	for _, f := range w.faults {
		if !w.dropped[f.index] {
			r.Schedule = append(r.Schedule, f.String())
		}
	}
	return r
}

// now reads the checker's clocks.
func (w *world) now() clock.Moment {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.nowLocked()
}

func (w *world) nowLocked() clock.Moment {
	m := w.system()
	return clock.Moment{Mono: m.Mono + int64(w.mono), Wall: m.Wall + int64(w.wall)}
}

// arrivalLocked numbers an arrival or a freeze.
func (w *world) arrivalLocked() int {
	w.order++
	return w.order
}

// madeUp says that a key is a service's name that is not configured.
func (w *world) madeUp(key string) bool {
	return key != listKey && !slices.Contains(w.configured(), key)
}

// note adds an event to the trace of the seed.
func (w *world) note(what string, more fmt.Stringer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.noteLocked(what, more)
}

func (w *world) noteLocked(what string, more fmt.Stringer) {
	w.events = append(w.events, event{time.Now(), what, more})
}

// traced hears of what the checker does.
func (w *world) traced() *health.Trace {
	return &health.Trace{
		RPC:   func(code string) { w.note("RPC ended", text(code)) },
		Dial:  func(result string) { w.note("dial ended", text(result)) },
		Retry: func(reason string) { w.note("further attempt", text(reason)) },
		Verdict: func(_ context.Context, _ health.Verdict, e health.Evidence) (time.Time, string) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.evidence = append(w.evidence, e)
			return time.Time{}, strconv.Itoa(len(w.evidence))
		},
	}
}

// connectionLocked is what is known of a connection.
func (w *world) connectionLocked(c *simnet.Conn) *connection {
	known := w.connections[c]
	if known == nil {
		known = &connection{id: c.ID, began: c.Began, requests: make(map[string]bool)}
		w.connections[c] = known
	}
	return known
}

// connect is the checker's way to the network.
func (w *world) connect(ctx context.Context, network, address string) (net.Conn, error) {
	w.mu.Lock()
	now := w.nowLocked()
	w.dialling++
	w.mu.Unlock()
	c, err := w.net.Connect(ctx, network, address)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dialling--
	if err != nil {
		return nil, err
	}
	w.connectionLocked(c.(*simnet.Conn)).clock = now
	return c, nil
}

// input is where something comes from that the checker asks for: the lookup, the credentials, the metadata.
type input struct {
	failing, silent int // faults because of which it fails, or does not come
	late            time.Duration
}

var errInput = errors.New("a simulated failure")

// await waits for the input.
func (w *world) await(ctx context.Context, in *input) error {
	w.mu.Lock()
	now := *in
	w.mu.Unlock()
	if now.silent > 0 {
		<-ctx.Done()
		return ctx.Err()
	}
	if now.late > 0 {
		if err := simnet.Sleep(ctx, now.late); err != nil {
			return err
		}
	}
	if now.failing > 0 {
		return errInput
	}
	return nil
}

// lookup is the checker's resolver.
func (w *world) lookup(ctx context.Context, network, host string, _ bool) ([]netip.Addr, error) {
	if err := simnet.Sleep(ctx, w.net.Delay(false)+w.net.Delay(true)); err != nil {
		return nil, err
	}
	family := ipv6
	if network == "ip4" {
		family = ipv4
	}
	w.mu.Lock()
	lost := w.unanswered[family] > 0
	if w.losing[family] {
		w.losing[family], lost = false, true
	}
	w.mu.Unlock()
	if lost {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if err := w.await(ctx, &w.lookups); err != nil {
		return nil, &net.DNSError{Err: err.Error(), Name: host, IsTemporary: true}
	}
	w.net.WaitThawed()
	w.mu.Lock()
	defer w.mu.Unlock()
	var found []netip.Addr
	for _, a := range w.addresses {
		if familyOf(a.ip) == family && w.foundsLocked(a) {
			found = append(found, a.ip)
		}
	}
	if len(found) == 0 {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return found, nil
}

// family is an address family.
type family int

const (
	noFamily family = iota
	ipv4
	ipv6
	families
)

func familyOf(ip netip.Addr) family {
	if ip.Is4() {
		return ipv4
	}
	return ipv6
}

func (f family) String() string { return [...]string{"", "IPv4", "IPv6"}[f] }

// foundsLocked says that the lookup finds an address.
func (w *world) foundsLocked(a address) bool {
	f := familyOf(a.ip)
	return w.unanswered[f] == 0 && (w.family == noFamily || w.family == f)
}

func (w *world) getMetadata(ctx context.Context) (metadata.MD, error) {
	if err := w.await(ctx, &w.metadatas); err != nil {
		return nil, err
	}
	return metadata.Pairs("from", "sim"), nil
}

// updateLocked begins or ends an outage, by the state of everything.
func (w *world) updateLocked() {
	broken := w.server == nil || w.lookups.failing+w.lookups.silent+w.secrets.failing+w.secrets.silent+w.metadatas.failing+w.metadatas.silent > 0 ||
		w.tls && !w.identity.fits() || !slices.ContainsFunc(w.addresses, func(a address) bool {
		return w.foundsLocked(a) && w.net.Mode(a.text()) == simnet.Pass
	})
	switch {
	case broken && w.endOutage == nil:
		w.endOutage = w.outages.begin()
		w.noteLocked("outage begins", nil)
	case !broken && w.endOutage != nil:
		w.endOutage()
		w.endOutage = nil
		w.noteLocked("outage ends", nil)
	}
}

// oldestLocked is when the caller arrived who waits for the longest time; now where nobody waits.
func (w *world) oldestLocked() time.Time {
	oldest := time.Now()
	for a := range w.arrivals {
		if a.from.Before(oldest) {
			oldest = a.from
		}
	}
	return oldest
}

// foundLocked notes a finding, with what happened from some time on.
func (w *world) foundLocked(kind string, from time.Time, what string) {
	if len(w.findings) >= 3 {
		return // the first ones explain most
	}
	const most = 150
	var lines []string
	for _, e := range w.events {
		if !e.at.Before(from) {
			lines = append(lines, "    "+e.text(w.start))
		}
	}
	if len(lines) > most {
		lines = append([]string{"    ..."}, lines[len(lines)-most:]...)
	}
	at := time.Since(w.start)
	w.findings = append(w.findings, finding{kind, fmt.Sprintf("%s at %v: %s\n%s", kind, at, what, strings.Join(lines, "\n"))})
}

// changes are what a service's status changes to, the usual ones more often.
var changes = []health.Status{
	health.Serving, health.Serving, health.Serving, health.Serving, health.NotServing, health.NotServing, health.NotServing,
	health.ServiceUnknown, health.RPCFailed,
}

// changeStatuses changes the services' statuses now and then.
func (w *world) changeStatuses(ctx context.Context) {
	r := randomOf(w.seed, statusStream)
	for pause(ctx, r, 300*time.Millisecond) {
		name := pick(r, w.configured()...)
		status := pick(r, changes...)
		w.mu.Lock()
		w.setLocked(name, status)
		w.mu.Unlock()
	}
}

func (w *world) setLocked(name string, s health.Status) {
	w.statuses[name] = s
	w.noteLocked("status of", text(strconv.Quote(name)+" is "+s.String()))
}

// pause waits for a random time, and says whether the context lets it.
func pause(ctx context.Context, r *rand.Rand, longest time.Duration) bool {
	return simnet.Sleep(ctx, upTo(r, longest)) == nil
}
