package reality

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"example.com/grpc-health-http/internal/check"
	"example.com/grpc-health-http/internal/clock"
	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/test/healthtest"
	"example.com/grpc-health-http/test/simnet"
)

const (
	// longBudget is each of the two budgets of a scenario that waits for none: what waits for one takes too long. shortBudget is that
	// of one that does.
	longBudget  = 4 * time.Second
	shortBudget = 400 * time.Millisecond
	// lateness is how late something is that is late: more than a silent connection may take in a scenario with short budgets.
	lateness = 150 * time.Millisecond
	// shortStop is longer than a busy machine keeps a process from running. After longStop no answer counts to an RPC from before it.
	shortStop = 700 * time.Millisecond
	longStop  = 5500 * time.Millisecond
)

// hung is the name of a service that never answers.
const hung = "hung"

// place is where a scenario happens.
type place interface {
	// slack is how much longer an answer may take there than is expected.
	slack() time.Duration
	// listen takes the server's address over.
	listen() net.Listener
	// up starts the server, or another one at the same address.
	up()
	// kill ends the server's process.
	kill()
	// checker returns what asks.
	checker() asker
	// impair sets what happens to new connections, to all addresses or to the first one alone.
	impair(mode simnet.Mode, firstAlone bool)
	// breakAll breaks all connections. how is a method of simnet.Conn.
	breakAll(how string)
	// breakOlder breaks those that were made before a time.
	breakOlder(how string, than time.Time)
	// slow makes packets slow.
	slow(by time.Duration)
	// hang has the server answer no RPC until service.release is called, or it is replaced.
	hang()
	// asked is how many RPCs have reached the server.
	asked() int
	// lookups, secrets and metadata say how lookups, credentials and metadata come.
	lookups(input)
	secrets(input)
	metadata(input)
	// find makes the lookup find addresses of one family alone.
	find(family int)
	// lose has the name server's answers about a family lost: the next one alone, or all.
	lose(family int, all bool)
	// hold sets what the checker's files hold: the authorities that it trusts, and the one of its own certificate.
	hold(trusts []*healthtest.CA, shows *healthtest.CA)
	// freeze stops the checker's process for a time, during which meanwhile happens.
	freeze(d time.Duration, meanwhile func())
}

// input is how something comes that the checker asks for.
type input int

const (
	comes input = iota
	fails
	never
	late
)

// shape is what a scenario needs.
type shape struct {
	budget      time.Duration // each of the two; 0 is longBudget
	named       bool          // the target is a name
	addresses   int           // of the name; 0 is 1
	families    bool          // the name has an address of each family; nobody listens at the one of IPv6
	secure      bool          // TLS, with a client certificate
	metadata    bool
	streams     uint32 // 0 is no limit
	direct      bool   // in reality, no relay is between the checker and the server
	serverDies  bool   // in reality, the server has a process of its own; direct too
	clientStops bool   // in reality, the checker has a process of its own
}

// world is a scenario that happens somewhere.
type world struct {
	place
	shape
	t       *testing.T
	service *service

	running  sync.WaitGroup
	changing sync.WaitGroup // calls of onConnect
	asker    asker

	ca       [2]*healthtest.CA
	identity atomic.Pointer[tls.Config] // of the server

	mu        sync.Mutex
	server    *server // nil while it is down, or where it has a process of its own
	onConnect func()  // is called once, when the server has begun to read from a connection; may be nil
}

// play has the scenario happen, and returns what was wrong.
func (s *scenario) play(t *testing.T, shape shape, where func(*world) place) []string {
	shape.budget = cmp.Or(shape.budget, longBudget)
	shape.addresses = cmp.Or(shape.addresses, 1)
	w := &world{t: t, shape: shape, service: newService()}
	if shape.secure {
		w.ca = [2]*healthtest.CA{healthtest.NewCA(t), healthtest.NewCA(t)}
		w.identity.Store(w.ca[0].MutualTLS(t))
	}
	w.place = where(w)
	defer w.end()
	if shape.secure {
		w.hold(w.ca[:1], w.ca[0])
	}
	w.up()
	checker := w.checker()
	w.asker = checker
	defer checker.close()
	if s.reused {
		if o := checker.ask(); o.Status != health.Serving.String() {
			return []string{fmt.Sprintf("before the fault: %+v", o)}
		}
		time.Sleep(2 * time.Millisecond) // the connection is older than the next check, also in a bubble
	}
	if s.before != nil {
		s.before(w)
	}
	answered := make(chan outcome)
	go func() { answered <- checker.ask() }()
	if s.meanwhile != nil {
		s.meanwhile(w)
	}
	o := <-answered
	w.service.release()
	return s.want.differs(o, checker.shown, w.slack())
}

// end ends the server.
func (w *world) end() {
	w.service.release()
	w.whenConnected(nil)
	w.changing.Wait()
	w.down()
	w.running.Wait()
}

// whenConnected has f called, in a goroutine of its own, when the server next begins to read from a connection.
func (w *world) whenConnected(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.onConnect = f
}

func (w *world) connected() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.onConnect != nil {
		w.changing.Go(w.onConnect)
		w.onConnect = nil
	}
}

// serve starts a server in this process.
func (w *world) serve() {
	var options []grpc.ServerOption
	if w.streams > 0 {
		options = append(options, grpc.MaxConcurrentStreams(w.streams))
	}
	if w.secure {
		options = append(options, grpc.Creds(credentials.NewTLS(&tls.Config{
			MinVersion:         tls.VersionTLS12,
			GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return w.identity.Load(), nil },
		})))
	}
	s := &server{grpc: grpc.NewServer(options...), listener: accepting{w.listen(), w}}
	healthpb.RegisterHealthServer(s.grpc, w.service)
	w.running.Go(func() { _ = s.grpc.Serve(s.listener) }) // ends with the listener
	w.replace(s)
}

// replace replaces the server, and returns the one before.
func (w *world) replace(s *server) (before *server) {
	w.mu.Lock()
	defer w.mu.Unlock()
	before, w.server = w.server, s
	return before
}

// current is the server.
func (w *world) current() *server {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.server
}

// roll replaces the server by another one, which takes new connections from the start, as test/sim does.
func (w *world) roll() {
	old := w.current()
	w.up()
	old.listener.Close()
	w.running.Go(old.grpc.GracefulStop)
}

// drain lets the server end when its RPCs have. drained is closed then.
func (w *world) drain() (drained <-chan struct{}) {
	s, ended := w.replace(nil), make(chan struct{})
	s.listener.Close()
	w.running.Go(func() {
		s.grpc.GracefulStop()
		close(ended)
	})
	return ended
}

// down ends the server at once.
func (w *world) down() {
	if s := w.replace(nil); s != nil {
		s.grpc.Stop()
	}
}

// untilAsked waits for another RPC to reach the server than those before.
func (w *world) untilAsked(before int) {
	healthtest.Eventually(w.t, "the RPC has reached the server", func() bool { return w.asked() > before })
}

// server is a grpc.Server in this process.
type server struct {
	grpc     *grpc.Server
	listener net.Listener
}

// accepting tells the world of each connection from which the server begins to read: one that it has only just accepted, it closes when
// it drains.
type accepting struct {
	net.Listener
	world *world
}

func (l accepting) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &accepted{Conn: c, world: l.world}, nil
}

type accepted struct {
	net.Conn
	world *world
	told  sync.Once
}

func (c *accepted) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.told.Do(c.world.connected)
	return n, err
}

// service is the health service.
type service struct {
	healthpb.UnimplementedHealthServer

	mu      sync.Mutex
	status  healthpb.HealthCheckResponse_ServingStatus
	delay   time.Duration
	gate    chan struct{} // nil unless RPCs hang
	count   int           // of RPCs, but for those of the service that hangs always
	hanging int           // RPCs of that one
	done    int           // of those, how many have ended
	tell    func()        // is called at each of them; may be nil
}

func newService() *service { return &service{status: healthpb.HealthCheckResponse_SERVING} }

// Check implements the RPC.
func (s *service) Check(ctx context.Context, r *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	if r.GetService() == hung {
		s.mu.Lock()
		s.hanging++
		s.mu.Unlock()
		<-ctx.Done()
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	s.mu.Lock()
	s.count++
	defer s.end()
	delay, gate, tell := s.delay, s.gate, s.tell
	s.mu.Unlock()
	if tell != nil {
		tell()
	}
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return nil, status.FromContextError(ctx.Err()).Err()
		}
	}
	if delay > 0 && simnet.Sleep(ctx, delay) != nil {
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	s.mu.Lock()
	said := s.status
	s.mu.Unlock()
	return &healthpb.HealthCheckResponse{Status: said}, nil
}

func (s *service) asked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count
}

func (s *service) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done++
}

func (s *service) ended() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.done
}

func (s *service) stuck() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.hanging
}

func (s *service) slow(by time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.delay = by
}

func (s *service) set(to healthpb.HealthCheckResponse_ServingStatus) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status = to
}

// hang lets RPCs hang until release is called.
func (s *service) hang() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gate = make(chan struct{})
}

func (s *service) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gate != nil {
		close(s.gate)
		s.gate = nil
	}
}

// asker makes checks.
type asker interface {
	ask() outcome
	// askHung begins a check of the service that hangs, until that is released.
	askHung()
	// shown is how its connections have ended, or were not made.
	shown() []string
	close()
}

// outcome is what came of a check.
type outcome struct {
	Status, Phase string
	Cause         string // see causes
	Text          string // of the cause
	Took          time.Duration
	Dials         int      // connections that were begun
	Retries       []string // reasons of further attempts
}

// local is an asker in this process.
type local struct {
	*check.Checker
	ctx    context.Context
	cancel context.CancelFunc
	asking sync.WaitGroup

	mu      sync.Mutex
	dials   int
	retries []string
	ends    []*string
}

// newLocal returns an asker with the options.
func newLocal(o check.Options) *local {
	l := new(local)
	l.ctx, l.cancel = context.WithCancel(context.Background())
	connect := o.Connect
	if connect == nil {
		connect = new(net.Dialer).DialContext
	}
	o.Connect = func(ctx context.Context, network, address string) (net.Conn, error) {
		l.mu.Lock()
		l.dials++
		l.mu.Unlock()
		c, err := connect(ctx, network, address)
		if err != nil {
			if ctx.Err() != nil {
				l.shows(new(string), "gave-up")
			} else {
				l.shows(new(string), causeOf(err))
			}
			return nil, err
		}
		return &watched{Conn: c, local: l, end: new(string)}, nil
	}
	o.Trace = &health.Trace{Retry: func(reason string) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.retries = append(l.retries, reason)
	}}
	l.Checker = check.New(o)
	return l
}

func (l *local) ask() outcome {
	l.mu.Lock()
	l.dials, l.retries = 0, nil
	l.mu.Unlock()
	began := time.Now()
	v := l.Check(l.ctx, "")
	took := time.Since(began)
	l.mu.Lock()
	defer l.mu.Unlock()
	o := outcome{Status: v.Status.String(), Phase: string(v.Phase), Took: took, Dials: l.dials, Retries: unique(l.retries)}
	if v.Err != nil {
		o.Cause, o.Text = causeOf(v.Err), v.Err.Error()
	}
	return o
}

func (l *local) askHung() { l.asking.Go(func() { l.Check(l.ctx, hung) }) }

func (l *local) close() {
	l.asking.Wait() // the service that hung has been released
	l.cancel()
	l.Checker.Close()
}

// shows notes how a connection has ended. A reset can show as a reset to a write, and as EOF to a read after it.
func (l *local) shows(of *string, end string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case end == "" || *of == "reset":
		return
	case *of == "":
		l.ends = append(l.ends, of)
	}
	*of = end
}

func (l *local) shown() (all []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, end := range l.ends {
		all = append(all, *end)
	}
	return unique(all)
}

func unique(all []string) []string {
	return slices.Compact(slices.Sorted(slices.Values(all)))
}

// watched is a connection of which the asker tells how it ended, unless it has closed it itself.
type watched struct {
	net.Conn
	local *local
	end   *string // the local's mutex guards it
}

func (c *watched) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err != nil {
		c.local.shows(c.end, causeOf(err))
	}
	return n, err
}

func (c *watched) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if err != nil {
		c.local.shows(c.end, causeOf(err))
	}
	return n, err
}

// causes are the errors that a network shows, and that of a budget.
var causes = []struct {
	name string
	err  error
}{
	{"budget", clock.ErrBudget},
	{"refused", syscall.ECONNREFUSED},
	{"reset", syscall.ECONNRESET},
	{"EOF", io.EOF},
}

// causeOf is which of causes an error is; empty for another one.
func causeOf(err error) string {
	for _, c := range causes {
		if errors.Is(err, c.err) {
			return c.name
		}
	}
	return ""
}

// want is what is expected, of both worlds.
type want struct {
	status health.Status
	// phases are those that it may end in; none means that the server answered.
	phases []health.Phase
	// took is how long the answer takes. notTimed says that it is not known.
	took     time.Duration
	jitter   time.Duration // it may take longer by this
	notTimed bool
	// dials are how many connections are begun, from and to.
	dials [2]int
	// retries are the reasons of further attempts, and shows the ways in which connections end, or are not made. See matches.
	retries, shows string
	// cause is which of causes the verdict's is, as retries.
	cause string
}

// differs says what differs from what is wanted. The answer may take longer by slack. shown is asked until it shows what is wanted.
func (w *want) differs(o outcome, shown func() []string, slack time.Duration) (wrong []string) {
	add := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	phases := w.phases
	if len(phases) == 0 {
		phases = []health.Phase{health.PhaseNone}
	}
	if o.Status != w.status.String() || !slices.Contains(phases, health.Phase(o.Phase)) {
		add("%s in phase %q, want %v in %q", o.Status, o.Phase, w.status, phases)
	}
	if !w.notTimed && (o.Took < w.took-early || o.Took > w.took+w.jitter+slack) {
		add("took %v, want %v to %v", o.Took, w.took, w.took+w.jitter+slack)
	}
	if o.Dials < w.dials[0] || o.Dials > w.dials[1] {
		add("%d dials, want %d to %d", o.Dials, w.dials[0], w.dials[1])
	}
	if !matches(o.Retries, w.retries) {
		add("retries because of %q, want %q", o.Retries, w.retries)
	}
	if !matches(slices.DeleteFunc([]string{o.Cause}, func(c string) bool { return c == "" }), w.cause) {
		add("cause %q, want %q", o.Cause, w.cause)
	}
	for end := time.Now().Add(showsWithin); !matches(shown(), w.shows); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			add("connections showed %q, want %q", shown(), w.shows)
			break
		}
	}
	if len(wrong) > 0 {
		add("outcome %+v", o)
	}
	return wrong
}

// early is how much shorter something may take than is said: timers of different clocks are compared. showsWithin is how long
// the end of a connection may take to show.
const (
	early       = 5 * time.Millisecond
	showsWithin = 2 * time.Second
)

// matches says whether got is what is wanted, in any order. One with a question mark need not be there, and of those with a bar between
// them one is enough.
func matches(got []string, wanted string) bool {
	var allowed []string
	for _, one := range strings.Fields(wanted) {
		name, optional := strings.CutSuffix(one, "?")
		names := strings.Split(name, "|")
		if !optional && !slices.ContainsFunc(names, func(n string) bool { return slices.Contains(got, n) }) {
			return false
		}
		allowed = append(allowed, names...)
	}
	return !slices.ContainsFunc(got, func(one string) bool { return !slices.Contains(allowed, one) })
}
