package app

import (
	"context"
	"crypto/x509"
	"sync/atomic"
	"time"

	"example.com/grpc-health-http/internal/asker"
	"example.com/grpc-health-http/internal/creds"
	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/internal/idtoken"
	"example.com/grpc-health-http/internal/settings"
	"example.com/grpc-health-http/internal/upstream"
)

// Observer is called for what happens with one upstream. Each of its functions may be nil.
type Observer struct {
	// Trace is called for what the checker does; its Verdict is not used.
	Trace health.Trace
	// Verdict is called with every verdict on a service that a caller gets.
	Verdict func(health.Verdict)
	// ClientCertificate is called with the end of the certificate that is shown to the upstream.
	ClientCertificate func(notAfter time.Time)
	// Gone is called once when the target is checked no more; verdicts of checks in progress may still come.
	Gone func()
}

// verdict passes a verdict on a service on. It is none where the caller has gone away, or where a List failed.
func (o *Observer) verdict(v *health.Verdict) {
	if o.Verdict != nil && !v.At.IsZero() && !v.List {
		o.Verdict(*v)
	}
}

// Upstream is one upstream with its checker. Its verdicts are logged, and passed to its observer.
type Upstream struct {
	// Checker checks the upstream, unobserved.
	Checker upstream.Checker
	target  settings.Target
	ask     asker.Upstream
	gone    func() // tells the observer that there will be no more verdicts
}

// newUpstream makes an upstream of a target.
func newUpstream(t *settings.Target, s *settings.Settings, p Platform) (*Upstream, error) {
	u := &Upstream{target: *t} // t lies among others, which would be kept with it
	t = &u.target
	var o Observer
	if p.Observe != nil {
		o = p.Observe(t)
	}
	shown, clientCertificate, peerCertificate := t.ShownAddr(), o.ClientCertificate, o.Trace.PeerCertificate // o is large for a closure
	certificates := newCertificates(p.Logger, t.Name, shown)
	credentials := p.Credentials
	if t.Name != "" {
		credentials.Secrets = credentials.Secrets.Within()
	}
	credentials.Expiry = func(_ creds.Kind, notAfter time.Time) {
		certificates.seen("client", notAfter)
		if clientCertificate != nil {
			clientCertificate(notAfter)
		}
	}
	var token func(context.Context) (string, error)
	if t.IDTokenAudience != "" {
		token = idtoken.New(t.IDTokenAudience).Token
	}
	options, err := upstream.Options(&t.Upstream, credentials, token)
	if err != nil {
		return nil, err
	}
	options.MaxConcurrent = s.MaxConcurrentChecks
	options.Process, options.CheckedEvery = p.process, s.CheckInterval
	options.Trace = &o.Trace
	options.Trace.Verdict = newReporter(p, t).verdict
	var certificateEnds atomic.Pointer[time.Time] // nil before there was one
	options.Trace.PeerCertificate = func(leaf *x509.Certificate) {
		certificateEnds.Store(new(leaf.NotAfter))
		certificates.seen("upstream", leaf.NotAfter)
		if peerCertificate != nil {
			peerCertificate(leaf)
		}
	}
	checker := upstream.NewChecker(&t.Upstream, options)
	known := newKnown(t.Services, s.CheckInterval > 0)
	told := func(v *health.Verdict) {
		o.verdict(v)
		known.add(v)
	}
	u.Checker, u.gone, u.ask = checker, o.Gone, asker.Upstream{
		Name: t.Name, Group: t.Group,
		Check: func(ctx context.Context, service string) health.Verdict {
			proof := checker.Proof(ctx, service)
			health.GiveEvidence(ctx, service, proof.Evidence)
			told(&proof.Verdict)
			return proof.Verdict
		},
		Services: t.Services,
		Latest:   known.latest,
		History:  known.history,
		CertificateEnds: func() (ends time.Time) {
			if seen := certificateEnds.Load(); seen != nil {
				ends = *seen
			}
			return ends
		},
		Budget: t.ConnectTimeout + t.RPCTimeout,
	}
	if s.AllowList {
		u.ask.List = func(ctx context.Context) []health.Verdict {
			verdicts := checker.List(ctx)
			for i := range verdicts {
				told(&verdicts[i])
			}
			return verdicts
		}
	}
	return u, nil
}

// Target is what the upstream was made of. Nobody may change it.
func (u *Upstream) Target() *settings.Target { return &u.target }

// CheckAll checks everything that is configured for the upstream.
func (u *Upstream) CheckAll(ctx context.Context) []health.Verdict {
	verdicts := health.All(ctx, u.ask.Check, u.ask.Services)
	for i := range verdicts {
		verdicts[i].Target = u.target.Name
	}
	return verdicts
}

func (u *Upstream) close() {
	u.Checker.Close()
	if u.gone != nil {
		u.gone()
	}
}
