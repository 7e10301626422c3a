package check

import (
	"context"
	"crypto/x509"
	"net/url"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"

	"example.com/grpc-health-http/internal/health"
)

// Options say what to check and how. The zero value of every field but Target is usable.
type Options struct {
	// Target is the upstream, as ParseTarget reads it.
	Target Target
	// ConnectTimeout is the budget for one connection: lookup, TCP, TLS, and the server's
	// SETTINGS. 0 is 1 s.
	ConnectTimeout time.Duration
	// RPCTimeout is the budget for one RPC. 0 is 1 s.
	RPCTimeout time.Duration
	// MaxAge is the age from which a connection serves no new check. 0 dials for every RPC.
	MaxAge time.Duration
	// Redial, above 0, dials again after a failure, this much later, until ConnectTimeout has
	// passed: for a server that is just starting. 0 answers at once.
	Redial time.Duration
	// Services are the configured names; empty configures the whole server alone. Every other
	// name was made up by a caller and comes under MaxConcurrent.
	Services []string
	// MaxConcurrent limits the RPCs under way at once for names that callers made up. 0 is 100.
	MaxConcurrent int
	// UserAgent is sent with every RPC; grpc-go appends its own version.
	UserAgent string
	// Authority is the RPC's :authority; empty derives it from ServerName and Target.
	Authority string
	// ServerName is the name that the upstream's certificate must carry; empty takes the target's host.
	ServerName string
	// TLSSetting is how causes name the setting that asks for TLS to the upstream; empty describes it.
	TLSSetting string
	// Gzip compresses requests and lets the server compress its answers.
	Gzip bool
	// Proxy names the HTTP proxy to reach hostPort through; nil, or a nil URL, dials directly.
	Proxy func(hostPort string) (*url.URL, error)
	// Credentials returns the transport credentials for one dial; nil is plaintext. With refresh
	// set (after a TLS failure) what they are made of is read again whatever its age; where this
	// brings nothing new the result is the same, compared with ==. An error ends the dial in phase
	// "credentials".
	Credentials func(ctx context.Context, refresh bool) (credentials.TransportCredentials, error)
	// Metadata returns what to send with an RPC; nil sends nothing. The result is not modified.
	// An error ends the check in phase "credentials".
	Metadata func(ctx context.Context) (metadata.MD, error)
	// Trace is told what happens; it is called from many goroutines and must not block.
	Trace Trace
}

// Trace has a function for each thing that a Checker does; each may be nil.
type Trace struct {
	// RPC: an RPC ended. code is as grpc-go prints it ("OK", "NotFound"), for one that got no
	// answer the code that grpc-go gave it.
	RPC func(code string)
	// Dial: an attempt to connect ended; "ok", or the phase that it ended in.
	Dial func(result string)
	// Retry: a further attempt was needed: "lost", "silent", "credentials" or "frozen".
	Retry func(reason string)
	// Shared: a request was answered by an RPC that another had started.
	Shared func()
	// PeerCertificate: the upstream showed this leaf certificate, also where verifying it failed.
	PeerCertificate func(leaf *x509.Certificate)
	// Verdict: a check reached its verdict; called once however many requests share it, before any
	// of them gets it. What it returns becomes the verdict's Since and EvidenceID. ctx has the values of the first
	// request's context.
	Verdict func(ctx context.Context, v health.Verdict, evidence health.Evidence) (since time.Time, evidenceID string)
}
