package app

import (
	"context"
	"crypto/x509"
	"sync/atomic"
	"time"

	"example.com/grpc-health-http/internal/asker"
	"example.com/grpc-health-http/internal/check"
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
}

// verdict passes a verdict on a service on. It is none where the caller has gone away, or where a List failed.
func (o Observer) verdict(v health.Verdict) {
	if o.Verdict != nil && !v.At.IsZero() && !v.List {
		o.Verdict(v)
	}
}

// Upstream is one upstream with its checker. Its verdicts are logged, and passed to its observer.
type Upstream struct {
	// Checker checks the upstream, unobserved.
	Checker *check.Checker
	ask     asker.Upstream
}

func newUpstream(s *settings.Settings, p Platform) (*Upstream, error) {
	var o Observer
	if p.Observe != nil {
		o = p.Observe(s.Services)
	}
	certificates := newCertificates(p.Logger, s.ShownAddr())
	credentials := p.Credentials
	credentials.Expiry = func(_ creds.Kind, notAfter time.Time) {
		certificates.seen("client", notAfter)
		if o.ClientCertificate != nil {
			o.ClientCertificate(notAfter)
		}
	}
	var token func(context.Context) (string, error)
	if s.IDTokenAudience != "" {
		token = idtoken.New(s.IDTokenAudience).Token
	}
	options, err := upstream.Options(&s.Upstream, credentials, token)
	if err != nil {
		return nil, err
	}
	options.MaxConcurrent = s.MaxConcurrentChecks
	options.Trace = o.Trace
	options.Trace.Verdict = newReporter(p.Logger, s.ShownAddr(), s.Services).verdict
	var certificateEnds atomic.Pointer[time.Time]
	certificateEnds.Store(new(time.Time))
	options.Trace.PeerCertificate = func(leaf *x509.Certificate) {
		certificateEnds.Store(new(leaf.NotAfter))
		certificates.seen("upstream", leaf.NotAfter)
		if o.Trace.PeerCertificate != nil {
			o.Trace.PeerCertificate(leaf)
		}
	}
	checker := check.New(options)
	u := &Upstream{Checker: checker, ask: asker.Upstream{
		Check: func(ctx context.Context, service string) health.Verdict {
			v := checker.Check(ctx, service)
			o.verdict(v)
			return v
		},
		Services:        s.Services,
		CertificateEnds: func() time.Time { return *certificateEnds.Load() },
		Budget:          s.ConnectTimeout + s.RPCTimeout,
	}}
	if s.AllowList {
		u.ask.List = func(ctx context.Context) []health.Verdict {
			verdicts := checker.List(ctx)
			for _, v := range verdicts {
				o.verdict(v)
			}
			return verdicts
		}
	}
	return u, nil
}
