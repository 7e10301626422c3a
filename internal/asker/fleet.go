package asker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"example.com/grpc-health-http/internal/health"
)

// MaxTargets is how many targets a request may check.
const MaxTargets = 100

// Default is what the upstream is called, where there is only one, by those who have to name it.
const Default = "default"

// Upstream is one of those that are checked. Only Check is required.
type Upstream struct {
	// Name is the Target of its verdicts; empty where there is one upstream only.
	Name string
	// Group is what it can be asked for with others by; empty where it is in none.
	Group string
	// Check checks one service.
	Check health.Func
	// List asks the upstream for all its services; nil where that is not offered, and it is not where Services are configured.
	List func(ctx context.Context) []health.Verdict
	// Services are the configured names, the only ones that may be asked for. Empty lets callers
	// ask for any legal name.
	Services []string
	// Latest returns the latest verdict about each configured service, in their order, without At where there is none yet. It is needed for summaries.
	Latest func() []health.Verdict
	// History returns the verdicts about a configured service that are remembered, the oldest first; nil where none are.
	History func(service string) []health.Past
	// CertificateEnds says when the upstream's certificate ends, as it was seen last; zero, or nil,
	// where none was seen.
	CertificateEnds func() time.Time
	// Budget is the time for an answer, from which a slow Authorize is subtracted; 0 gives the
	// check all the time that it has.
	Budget time.Duration
}

// Fleet is the upstreams of a moment. It does not change.
type Fleet struct {
	upstreams []*Upstream
	named     bool
	began     time.Time
	byName    map[string]*Upstream
	groups    map[string][]*Upstream
	budget    time.Duration // the longest of the upstreams'
}

// NewFleet returns the fleet of the upstreams, one at least, in the order of answers. named says that they have names. began is when the first of them was there to be checked.
func NewFleet(upstreams []*Upstream, named bool, began time.Time) *Fleet {
	f := &Fleet{upstreams: upstreams, named: named, began: began, byName: make(map[string]*Upstream), groups: make(map[string][]*Upstream)}
	for _, u := range upstreams {
		name := u.Name
		if !named {
			name = Default
		}
		f.byName[name] = u
		if u.Group != "" {
			f.groups[u.Group] = append(f.groups[u.Group], u)
		}
		f.budget = max(f.budget, u.Budget)
	}
	return f
}

// One is the fleet of an upstream without a name.
func One(u *Upstream) func(context.Context) *Fleet {
	f := NewFleet([]*Upstream{u}, false, time.Time{})
	return func(context.Context) *Fleet { return f }
}

// Named reports whether the upstreams have names: they are those of a targets file.
func (f *Fleet) Named() bool { return f.named }

// Upstreams are all of them, in the order of answers. Nobody may change them.
func (f *Fleet) Upstreams() []*Upstream { return f.upstreams }

// Find returns the upstream that a caller, or a verdict, calls by name; nil where there is none. A verdict about the only upstream has no name.
func (f *Fleet) Find(name string) *Upstream {
	if !f.named && name == "" {
		return f.upstreams[0]
	}
	return f.byName[name]
}

// Only returns the service of which alone the answer to the zero Question is; ok is false where there are several, or several upstreams.
func (f *Fleet) Only() (service string, ok bool) { return only(f.upstreams, new(Question)) }

// Configured are the names of all configured services, each once, in the order of the upstreams.
func (f *Fleet) Configured() (services []string) {
	seen := make(map[string]bool)
	for _, u := range f.upstreams {
		for _, s := range u.Services {
			if !seen[s] {
				seen[s] = true
				services = append(services, s)
			}
		}
	}
	return services
}

// Lists reports whether an upstream offers its list of services.
func (f *Fleet) Lists() bool { return slices.ContainsFunc(f.upstreams, (*Upstream).lists) }

// choose returns the upstreams that a question is about, each once.
func (f *Fleet) choose(q *Question) ([]*Upstream, Refusal) {
	if len(q.Targets)+len(q.Groups) == 0 {
		if len(f.upstreams) > MaxTargets {
			return nil, TooMany
		}
		return f.upstreams, NotRefused
	}
	var chosen []*Upstream
	add := func(u *Upstream) {
		if !slices.Contains(chosen, u) {
			chosen = append(chosen, u)
		}
	}
	for _, name := range q.Targets {
		u := f.byName[name]
		if u == nil {
			return nil, NoTarget
		}
		add(u)
	}
	for _, name := range q.Groups {
		members := f.groups[name]
		if len(members) == 0 {
			return nil, NoTarget
		}
		if len(members) > MaxTargets {
			return nil, TooMany
		}
		for _, u := range members {
			add(u)
		}
	}
	if len(chosen) > MaxTargets {
		return nil, TooMany
	}
	return chosen, NotRefused
}

// The causes of verdicts in a summary that no check has reached.
var (
	errNotYet = errors.New("not checked yet")
	errLate   = errors.New("the check interval has passed twice without a check")
)

// summary is the latest verdict about everything that is configured. One that is older than two intervals says nothing about the present. What has not
// been checked since the start, or since it is there, is OVERLOADED for as long: nothing has been found out.
func (f *Fleet) summary(interval time.Duration, now time.Time) (verdicts []health.Verdict) {
	for _, u := range f.upstreams {
		latest := u.Latest()
		for i := range latest {
			v := &latest[i]
			v.Target = u.Name
			switch {
			case v.At.IsZero() && now.Sub(f.began) <= 2*interval:
				v.Status, v.Err = health.Overloaded, errNotYet
			case now.Sub(v.At) > 2*interval:
				*v = health.Verdict{Target: v.Target, Service: v.Service, Status: health.Timeout, At: v.At, Since: v.Since,
					Err: fmt.Errorf("%w: the latest was %v ago", errLate, now.Sub(v.At).Round(time.Second))}
			}
		}
		verdicts = append(verdicts, latest...)
	}
	return verdicts
}

func (u *Upstream) lists() bool { return u.List != nil && len(u.Services) == 0 }

// refuses says why the upstream does not answer a question.
func (u *Upstream) refuses(q *Question) Refusal {
	switch {
	case q.List && !u.lists():
		return NoList
	case len(u.Services) > 0 && slices.ContainsFunc(q.Services, func(s string) bool { return !slices.Contains(u.Services, s) }):
		return NoService
	}
	return NotRefused
}

// answer makes the checks that a question asks for.
func (u *Upstream) answer(ctx context.Context, q *Question) []health.Verdict {
	switch {
	case q.List:
		verdicts := u.List(ctx)
		for i := range verdicts {
			verdicts[i].Target = u.Name
		}
		return verdicts
	case len(q.Services) > 0:
		return health.All(ctx, u.check, q.Services)
	}
	return health.All(ctx, u.check, u.Services)
}

func (u *Upstream) check(ctx context.Context, service string) health.Verdict {
	v := u.Check(ctx, service)
	u.name(&v, service)
	return v
}

// name says in a verdict what was asked for.
func (u *Upstream) name(v *health.Verdict, service string) { v.Target, v.Service = u.Name, service }
