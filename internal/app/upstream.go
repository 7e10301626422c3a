package app

import (
	"context"
	"crypto/x509"
	"reflect"
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

// Upstream is one upstream with its checker. Its verdicts are logged, and passed to its observer. There are thousands of them in a process.
type Upstream struct {
	// Checker checks the upstream, unobserved.
	Checker      upstream.Checker
	addr         string
	settings     *settings.Upstream // all but Addr: upstreams that do not differ in anything else share them
	ask          asker.Upstream
	observer     Observer                     // its Trace is the checker's
	peer         func(leaf *x509.Certificate) // the observer's own PeerCertificate; nil tells nobody
	reporter     *reporter
	certificates certificates
	known        known
}

// newUpstream makes an upstream of a target. like is one that was made before, whose settings may be the same; it may be nil.
func newUpstream(t *settings.Target, s *settings.Settings, p Platform, like *Upstream) (*Upstream, error) {
	own := *t // t lies among others, which would be kept with it
	t = &own
	u := &Upstream{addr: t.Addr, reporter: newReporter(p.reports, t), known: newKnown(t.Services, s.CheckInterval > 0)}
	if p.Observe != nil {
		u.observer = p.Observe(t)
	}
	u.certificates.of = u.reporter
	u.settings = shared(t.Upstream, like)
	credentials := p.Credentials
	if t.Name != "" {
		credentials.Secrets = credentials.Secrets.Within()
	}
	credentials.Expiry = func(_ creds.Kind, notAfter time.Time) {
		u.certificates.seen("client", notAfter)
		if u.observer.ClientCertificate != nil {
			u.observer.ClientCertificate(notAfter)
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
	options.Trace = &u.observer.Trace
	u.peer = options.Trace.PeerCertificate
	options.Trace.Verdict, options.Trace.PeerCertificate = u.reporter.verdict, u.peerCertificate
	u.Checker = upstream.NewChecker(&t.Upstream, options)
	u.ask = asker.Upstream{
		Name: t.Name, Group: t.Group,
		Check:           u.check,
		Services:        t.Services,
		Latest:          u.known.latest,
		History:         u.known.history,
		CertificateEnds: u.certificateEnds,
		Budget:          t.ConnectTimeout + t.RPCTimeout,
	}
	if s.AllowList {
		u.ask.List = u.list
	}
	return u, nil
}

// shared is the settings but for the address, of which those that many upstreams have are kept once.
func shared(s settings.Upstream, like *Upstream) *settings.Upstream {
	s.Addr = ""
	if like != nil && reflect.DeepEqual(&s, like.settings) {
		return like.settings
	}
	return &s
}

// told passes a verdict on. It is none where the caller has gone away; and of a List that failed there is none on a service.
func (u *Upstream) told(v *health.Verdict) {
	if u.observer.Verdict != nil && !v.At.IsZero() && !v.List {
		u.observer.Verdict(*v)
	}
	u.known.add(v)
}

// check is asker.Upstream's Check.
func (u *Upstream) check(ctx context.Context, service string) health.Verdict {
	proof := u.Checker.Proof(ctx, service)
	health.GiveEvidence(ctx, service, proof.Evidence)
	u.told(&proof.Verdict)
	return proof.Verdict
}

// list is asker.Upstream's List.
func (u *Upstream) list(ctx context.Context) []health.Verdict {
	verdicts := u.Checker.List(ctx)
	for i := range verdicts {
		u.told(&verdicts[i])
	}
	return verdicts
}

// peerCertificate is a health.Trace's.
func (u *Upstream) peerCertificate(leaf *x509.Certificate) {
	u.certificates.seen("upstream", leaf.NotAfter)
	if u.peer != nil {
		u.peer(leaf)
	}
}

// certificateEnds is asker.Upstream's CertificateEnds.
func (u *Upstream) certificateEnds() time.Time { return u.certificates.ends("upstream") }

// Target is what the upstream was made of.
func (u *Upstream) Target() *settings.Target {
	t := &settings.Target{Name: u.ask.Name, Group: u.ask.Group, Upstream: *u.settings}
	t.Addr = u.addr
	return t
}

// CheckAll checks everything that is configured for the upstream.
func (u *Upstream) CheckAll(ctx context.Context) []health.Verdict {
	verdicts := health.All(ctx, u.ask.Check, u.ask.Services)
	for i := range verdicts {
		verdicts[i].Target = u.ask.Name
	}
	return verdicts
}

func (u *Upstream) close() {
	u.Checker.Close()
	if u.observer.Gone != nil {
		u.observer.Gone()
	}
}
