package dial

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"example.com/grpc-health-http/internal/clock"
	"example.com/grpc-health-http/internal/grpcconn"
	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/internal/target"
)

// Options say where to connect, and how. Target and ConnectTimeout are required.
type Options struct {
	Target target.Target
	// ConnectTimeout is the budget of a dial, from the lookup to the server's SETTINGS.
	ConnectTimeout time.Duration
	// Redial, above 0, dials again, until ConnectTimeout has passed, after a failure that a server which is just starting shows: this
	// much later where a connection was refused or a socket was not there, and after 100 ms, 200 ms, 400 ms and so on, 1 s at most,
	// where a lookup failed, or a peer has ended a connection without a word. What a second dial cannot change, such as a
	// certificate, ends at once. 0 always does.
	Redial time.Duration
	// ServerName is the name that the server's certificate must carry; empty takes the target's host.
	ServerName string
	// Authority is the RPCs' :authority; empty derives it from ServerName and Target.
	Authority string
	// UserAgent is sent with every RPC; grpc-go appends its own version.
	UserAgent string
	// Gzip compresses requests, and lets the server compress its answers.
	Gzip bool
	// TLSSetting is how causes name the setting that asks for TLS to the upstream; empty describes it.
	TLSSetting string
	// Proxy names the HTTP proxy to reach hostPort through; nil, or a nil URL, connects directly.
	Proxy func(hostPort string) (*url.URL, error)
	// Credentials returns the transport credentials for one dial; nil is plaintext. With refresh
	// set (after a TLS failure) what they are made of is read again whatever its age; where this
	// brings nothing new the result is the same pointer. An error ends the dial in phase
	// "credentials".
	Credentials func(ctx context.Context, refresh bool) (credentials.TransportCredentials, error)
	// Lookup resolves names; nil is Target's own Lookup.
	Lookup target.LookupFunc
	// Connect opens network connections; nil is a net.Dialer's DialContext.
	Connect func(ctx context.Context, network, address string) (net.Conn, error)
	// Trace hears of Dial, Retry ("credentials") and PeerCertificate; nil is none.
	Trace *health.Trace
}

// connect is shared, for a net.Dialer for each of many targets takes memory.
var connect = new(net.Dialer).DialContext

// Dialer makes connections to one target. It is safe for concurrent use.
type Dialer struct {
	o     Options
	clock *clock.Running
}

// New returns a Dialer.
func New(o Options, clock *clock.Running) *Dialer {
	if o.Connect == nil {
		o.Connect = connect
	}
	o.Trace = o.Trace.Complete()
	o.TLSSetting = cmp.Or(o.TLSSetting, "TLS to the upstream")
	o.Authority = cmp.Or(o.Authority, o.ServerName, o.Target.Authority())
	return &Dialer{o: o, clock: clock}
}

// Dial connects, and returns once the server's SETTINGS have come. The connection is nil where the Dial's Err is not. p shows
// meanwhile how far it has come.
func (dl *Dialer) Dial(ctx context.Context, p *Progress) (c *grpcconn.Conn, d health.Dial) {
	began := dl.clock.Now()
	ctx, cancel := dl.clock.WithBudget(ctx, dl.o.ConnectTimeout)
	defer cancel()
	pause := backoff{refused: dl.o.Redial}
	for redials := 0; ; redials++ {
		var last health.Dial
		c, last = dl.once(ctx, p)
		last.Redials = redials
		if d.Err != nil && errors.Is(last.Err, clock.ErrBudget) && !saysMore(last.Phase, d.Phase) {
			break
		}
		d = last
		if c != nil || dl.o.Redial <= 0 || !mayPass(d) || !wait(ctx, pause.after(d)) {
			break
		}
	}
	d.Took = dl.clock.Now().Since(began.Moment)
	switch {
	case d.Err == nil:
		dl.o.Trace.Dial("ok")
	case !errors.Is(d.Err, context.Canceled):
		dl.o.Trace.Dial(string(d.Phase))
	}
	return c, d
}

// saysMore says whether a try that the budget ended says more than the one before it: only where that one reached nobody, and
// this one has come further.
func saysMore(last, before health.Phase) bool {
	return !before.Beyond(health.PhaseConnect) && last.Beyond(before) && last != health.PhaseCredentials
}

// once gets the credentials, looks up, and races the addresses.
func (dl *Dialer) once(ctx context.Context, p *Progress) (*grpcconn.Conn, health.Dial) {
	p.record(func(d *health.Dial) { *d = health.Dial{Phase: health.PhaseCredentials} })
	tc, err := dl.credentials(ctx, false)
	if err != nil {
		const not = "the credentials did not come"
		if errors.Is(err, clock.ErrBudget) { // it says which of them did not
			err = fmt.Errorf("%s within %v: %w", not, dl.o.ConnectTimeout, err)
		} else {
			err = dl.orBudget(ctx, err, not)
		}
		return nil, p.end(health.PhaseCredentials, err)
	}
	p.record(func(d *health.Dial) { d.Phase = health.PhaseDNS })
	routes, err := dl.routes()
	if err != nil {
		return nil, p.end(health.PhaseDNS, err)
	}
	host := ""
	if len(routes) == 0 {
		host = dl.o.Target.Name()
	}
	return dl.race(ctx, host, routes, tc, p)
}

func (dl *Dialer) credentials(ctx context.Context, refresh bool) (credentials.TransportCredentials, error) {
	if dl.o.Credentials == nil {
		return insecure.NewCredentials(), nil
	}
	return dl.o.Credentials(ctx, refresh)
}

// routes are the ways to the target that need no lookup; none where its name has to be looked up. Behind a proxy there is one: the
// proxy looks the name up.
func (dl *Dialer) routes() ([]route, error) {
	t := dl.o.Target
	if dl.o.Proxy != nil && !t.IsUnix() {
		proxy, err := dl.o.Proxy(t.HostPort())
		if err != nil {
			return nil, fmt.Errorf("choose a proxy: %w", err)
		}
		if proxy != nil {
			return []route{{Address: target.Address{Network: "tcp", Text: t.HostPort()}, proxy: proxy}}, nil
		}
	}
	var routes []route
	for _, a := range t.Addresses() {
		routes = append(routes, route{Address: a})
	}
	return routes, nil
}

// orBudget replaces an error by the end of the context, where that is its cause, and says what had not happened by then.
func (dl *Dialer) orBudget(ctx context.Context, err error, not string) error {
	switch cause := context.Cause(ctx); {
	case cause == nil:
		return err
	case errors.Is(cause, clock.ErrBudget):
		return fmt.Errorf("%s within %v: %w", not, dl.o.ConnectTimeout, cause)
	}
	return fmt.Errorf("%s: %w", not, context.Canceled)
}
