package health

import (
	"context"
	"crypto/x509"
	"time"
)

// Trace has a function for each event of a check; each may be nil. They are called from many goroutines and must not block.
type Trace struct {
	// RPC: an RPC ended. code is as grpc-go prints it ("OK", "NotFound"), for one that got no
	// answer the code that grpc-go gave it.
	RPC func(code string)
	// Dial: an attempt to connect ended; "ok", or the phase that it ended in.
	Dial func(result string)
	// Retry: a further attempt was needed: "lost", "silent", "credentials" or "frozen".
	Retry func(reason string)
	// Shared: a request shares an RPC with an earlier one.
	Shared func()
	// PeerCertificate: the upstream showed this leaf certificate, also where verifying it failed.
	PeerCertificate func(leaf *x509.Certificate)
	// Verdict: a check reached its verdict; called once however many requests share it, before any
	// of them gets it. What it returns becomes the verdict's Since and EvidenceID. ctx has the values of the first
	// request's context.
	Verdict func(ctx context.Context, v Verdict, evidence Evidence) (since time.Time, evidenceID string)
}

// Complete returns the Trace with functions that do nothing in place of those that are nil: t itself where there are none of these. A nil one has
// nil functions alone.
func (t *Trace) Complete() *Trace {
	var c Trace
	if t != nil {
		c = *t
	}
	if c.RPC != nil && c.Dial != nil && c.Retry != nil && c.Shared != nil && c.PeerCertificate != nil && c.Verdict != nil {
		return t
	}
	none := func(string) {}
	if c.RPC == nil {
		c.RPC = none
	}
	if c.Dial == nil {
		c.Dial = none
	}
	if c.Retry == nil {
		c.Retry = none
	}
	if c.Shared == nil {
		c.Shared = func() {}
	}
	if c.PeerCertificate == nil {
		c.PeerCertificate = func(*x509.Certificate) {}
	}
	if c.Verdict == nil {
		c.Verdict = func(context.Context, Verdict, Evidence) (time.Time, string) { return time.Time{}, "" }
	}
	return &c
}
