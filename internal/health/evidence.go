package health

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"example.com/grpc-health-http/internal/inert"
)

// Proof is what a check came to. Several callers have the same one: nobody may change it.
type Proof struct {
	Verdict Verdict
	// List is set for a List that was answered, and has the verdicts instead.
	List     []Verdict
	Evidence Evidence
}

// Verdicts are a copy of the verdicts: of a List that failed, the one.
func (p *Proof) Verdicts() []Verdict {
	if p.List == nil {
		return []Verdict{p.Verdict}
	}
	return slices.Clone(p.List)
}

// Evidence is what a verdict rests on: every attempt that was made for it.
type Evidence struct {
	Attempts []Attempt
}

// Peer is the other end of a connection. Nobody may change it: several checks use one connection.
type Peer struct {
	// Address is an AddressAttempt's.
	Address string
	// TLS is what the handshake has come to; nil where the connection is not of crypto/tls.
	TLS *tls.ConnectionState
}

type evidenceKey struct{}

// WithEvidence returns a context whose checks give f the evidence of their verdicts. They may do so from many goroutines.
func WithEvidence(ctx context.Context, f func(service string, e Evidence)) context.Context {
	return context.WithValue(ctx, evidenceKey{}, f)
}

// GiveEvidence gives the evidence of a check of the service to whoever has asked for it by WithEvidence. It may not be changed any more.
func GiveEvidence(ctx context.Context, service string, e Evidence) {
	if f, ok := ctx.Value(evidenceKey{}).(func(string, Evidence)); ok {
		f(service, e)
	}
}

// ErrInProgress is the Err of a Dial or AddressAttempt that has not ended yet.
var ErrInProgress = errors.New("in progress")

// Attempt is one try to get an answer.
type Attempt struct {
	// Address is the one that was asked, where each is checked on its own; else it is empty.
	Address string
	// Reused says that the connection had been dialled before the check began; Age is how long before.
	Reused bool
	Age    time.Duration
	// Dial is how the connection was made, or why none was; it is zero for a reused connection.
	Dial Dial
	// Peer is the other end of the connection; nil where there was none.
	Peer *Peer
	// RPC is how long the RPC took; 0 where none was made.
	RPC time.Duration
	// Result is the RPC's end, a gRPC code and message, or why there was nothing to send; empty where
	// the dial failed.
	Result string
}

// Dial is one attempt to connect, over all the target's addresses.
type Dial struct {
	// Lookup is how long the lookup of the name took.
	Lookup time.Duration
	// Addresses are those that were tried, in the order of their start.
	Addresses []AddressAttempt
	// Phase is where the attempt ended; empty when there is a connection, or when the attempt could not begin.
	Phase Phase
	// Err is the cause; nil when there is a connection.
	Err error
	// Redials is how often the dial was repeated; the other fields describe the last time.
	Redials int
	// Took is the time in all.
	Took time.Duration
}

// AddressAttempt is one address's part in a Dial.
type AddressAttempt struct {
	Address string
	// Phase is where this address ended; empty when there is a connection.
	Phase Phase
	// Err is the cause; nil when there is a connection.
	Err error
	// Connect, TLS and HTTP2 are how long the phases took; 0 for one that was not reached.
	Connect, TLS, HTTP2 time.Duration
	// Certificate is the leaf that the upstream showed, also where verifying it failed; nil without TLS.
	Certificate *x509.Certificate
}

// Lines describes the evidence, a line per attempt: times per phase, addresses tried, causes, and the
// certificate that the upstream showed.
func (e Evidence) Lines() []string {
	lines := make([]string, 0, len(e.Attempts))
	for _, a := range e.Attempts {
		line := a.String()
		if a.Address != "" {
			line = a.Address + ": " + line
		}
		lines = append(lines, line)
	}
	return lines
}

// String is the attempt in a line.
func (a Attempt) String() string {
	var b strings.Builder
	switch {
	case a.Reused:
		fmt.Fprintf(&b, "connection reused, %v old", rounded(a.Age))
	case a.Dial.Err != nil && a.Dial.Phase == PhaseNone:
		return "no dial: " + a.Dial.Err.Error()
	case a.Dial.Took == 0 && a.RPC == 0:
		return "nothing to send: " + a.Result
	case a.Dial.Took == 0:
		b.WriteString("connection dialled for another check meanwhile")
	default:
		b.WriteString(a.Dial.String())
	}
	if a.Result != "" {
		fmt.Fprintf(&b, "; RPC %v: %s", rounded(a.RPC), a.Result)
	}
	return b.String()
}

// String is the dial in a line.
func (d Dial) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "dial %v", rounded(d.Took))
	if d.Redials > 0 {
		fmt.Fprintf(&b, ", the last of %d", d.Redials+1)
	}
	fmt.Fprintf(&b, ", lookup %v", rounded(d.Lookup))
	for _, a := range d.Addresses {
		fmt.Fprintf(&b, "; %s", a)
	}
	switch {
	case d.Err == nil:
		b.WriteString("; connected")
	case len(d.Addresses) == 0:
		b.WriteString("; " + outcome(d.Phase, d.Err))
	}
	return b.String()
}

// outcome says where something ended, or is.
func outcome(phase Phase, err error) string {
	if errors.Is(err, ErrInProgress) {
		return "not beyond " + string(phase) + " yet"
	}
	return "failed in " + string(phase) + ": " + err.Error()
}

// String is the address's part in a line.
func (a AddressAttempt) String() string {
	var b strings.Builder
	b.WriteString(a.Address)
	for _, phase := range []struct {
		name Phase
		took time.Duration
	}{{PhaseConnect, a.Connect}, {PhaseTLS, a.TLS}, {PhaseHTTP2, a.HTTP2}} {
		if phase.took > 0 {
			fmt.Fprintf(&b, " %s %v", phase.name, rounded(phase.took))
		}
	}
	if c := a.Certificate; c != nil {
		fmt.Fprintf(&b, " certificate %s names %s from %s to %s", quoted(c.Subject.CommonName), names(c),
			c.NotBefore.UTC().Format(time.RFC3339), c.NotAfter.UTC().Format(time.RFC3339))
	}
	if a.Err != nil {
		b.WriteString(" " + outcome(a.Phase, a.Err))
	}
	return b.String()
}

// names are all that a certificate is valid for, as much of it as a text from outside may have.
func names(c *x509.Certificate) string {
	all := slices.Clone(c.DNSNames)
	for _, ip := range c.IPAddresses {
		all = append(all, ip.String())
	}
	for _, uri := range c.URIs {
		all = append(all, uri.String())
	}
	return inert.Text(fmt.Sprintf("%q", all))
}

// quoted is a text from outside in quotes.
func quoted(text string) string { return inert.Text(strconv.Quote(text)) }

// rounded drops digits that nobody reads.
func rounded(d time.Duration) time.Duration {
	if d < time.Second {
		return d.Round(time.Microsecond)
	}
	return d.Round(time.Millisecond)
}
