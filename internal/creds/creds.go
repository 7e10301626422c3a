// Package creds turns settings into credentials: those for a dial to the upstream, the metadata of
// an RPC, the TLS configuration of a listener, and the token that callers must present. What they
// are made of is read again while the process runs, so that what was rotated is used without a restart.
//
// Content older than 5 s is read again at its next use, and at once where a use forces it (after a TLS failure). A read that
// takes longer than 100 ms leaves that use with the last good content, and what it brings serves the next one. Content that
// cannot be read or used leaves the last good one in place; without one it is an error of the use. The package refresh has
// the details. Rights end, though: a caller's token with its file (see Token), and that of an open connection with its
// certificate (see Listener).
//
// No error and no callback carries what a file or a setting holds: they name settings and paths.
package creds

import (
	"context"
	"sync"
	"time"

	"example.com/grpc-health-http/internal/atmost"
	"example.com/grpc-health-http/internal/clock"
	"example.com/grpc-health-http/internal/redact"
)

// Kind is what is read again.
type Kind string

// The kinds.
const (
	ClientCertificate   Kind = "client certificate"
	UpstreamRoots       Kind = "upstream roots"
	SPIFFEIdentity      Kind = "SPIFFE identity"
	HeaderValue         Kind = "header value"
	ListenerCertificate Kind = "listener certificate"
	ListenerRoots       Kind = "listener client roots"
	AuthToken           Kind = "auth token"
)

// Reload is called when new content has replaced the last good one (err is nil), or when reading it again failed and the last
// good content stays in use. A failure that lasts is reported once in 5 s at most. There is no call for the first content: a
// failure of that is an error of the use.
type Reload func(what Kind, err error)

// Options say how content is read, and have the callbacks for it. The zero value is usable.
type Options struct {
	// Read returns the content behind a setting's value that is not PEM text itself: a path, or another
	// name that the reader knows. It is called from many goroutines, with a context that ends
	// after 10 s. nil is atmost.File. Its errors must not hold content.
	Read func(ctx context.Context, name string) ([]byte, error)
	// Setting is how messages name a setting, given its name, "CA_CERT". nil gives the name.
	Setting func(name string) string
	// Reload may be nil. It must not block.
	Reload Reload
	// Warning is called where content is used but for a part of it, once as long as this stays so. It may be nil, and must not block.
	Warning func(what Kind, text string)
	// Expiry is called with the end of a certificate of ours, at its first use and whenever one with another end
	// replaces it: ClientCertificate (also for a SPIFFE identity) or ListenerCertificate. It may be
	// nil, and must not block.
	Expiry func(what Kind, notAfter time.Time)
	// Secrets, where not nil, gets what is sent to the upstream and the token that callers must present, each value of it.
	Secrets *redact.Secrets
	// Shared, where not nil, is what upstreams share their credentials with whose Options differ in Expiry alone.
	Shared *Shared
	// WorkloadAPI is the address of the SPIFFE Workload API, "unix:///run/agent.sock" or
	// "tcp://127.0.0.1:8000". Empty takes it from the variable SPIFFE_ENDPOINT_SOCKET.
	WorkloadAPI string

	// Tests replace these; zero is the machine's clock, and the package's rule.
	clock    func() clock.Moment
	patience time.Duration
}

func (o Options) setting(name string) string {
	if o.Setting != nil {
		return o.Setting(name)
	}
	return name
}

// Content returns what a setting's value that is no PEM text names.
func (o Options) Content(ctx context.Context, name string) ([]byte, error) { return o.read(ctx, name) }

func (o Options) read(ctx context.Context, name string) ([]byte, error) {
	if o.Read != nil {
		return o.Read(ctx, name)
	}
	return atmost.File(name)
}

func (o Options) reloaded(what Kind, err error) {
	if o.Reload != nil {
		o.Reload(what, err)
	}
}

// warner returns what passes a warning on unless it is the same as the last one. An empty one says that there is none any more.
func (o Options) warner(what Kind) func(text string) {
	var mu sync.Mutex
	last := ""
	return func(text string) {
		mu.Lock()
		again := text == last
		last = text
		mu.Unlock()
		if text != "" && !again && o.Warning != nil {
			o.Warning(what, text)
		}
	}
}

func (o Options) expires(what Kind, notAfter time.Time) {
	if o.Expiry != nil {
		o.Expiry(what, notAfter)
	}
}
