// Package app puts the parts together for the variants that answer HTTP: the function, Lambda and the container.
package app

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"example.com/grpc-health-http/internal/asker"
	"example.com/grpc-health-http/internal/check"
	"example.com/grpc-health-http/internal/creds"
	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/internal/inert"
	"example.com/grpc-health-http/internal/memory"
	"example.com/grpc-health-http/internal/redact"
	"example.com/grpc-health-http/internal/settings"
	"example.com/grpc-health-http/internal/targets"
	"example.com/grpc-health-http/internal/web"
)

// Platform is what a variant brings along. Everything but Logger is optional.
type Platform struct {
	Logger *slog.Logger
	// Path is the exact path that is answered; empty answers every path.
	Path string
	// Credentials say how files are read, and who is called for it after the log.
	Credentials creds.Options
	// Observe returns the observer of a target; it is called once for each, and again for one that has changed.
	Observe func(t *settings.Target) Observer
	// Rejected is called for each request that is refused; the reasons are those of packages ask and web, and "client_certificate".
	Rejected func(reason string)
	// Memory bounds what requests take; nil is no bound. SideBySide and Crowds are asker.Memory's.
	Memory     *memory.Budget
	SideBySide func(*http.Request) int
	Crowds     func(*http.Request) bool

	reports *reports       // what the reporters of upstreams share
	process *check.Process // what their checkers share
}

// App is the upstreams with the handler that answers for them.
type App struct {
	// Handler answers HTTP requests.
	Handler http.Handler
	// Asker is what Handler asks.
	Asker *asker.Asker
	// OpenAsker is what Open asks.
	OpenAsker *asker.Asker
	// Open is Handler for callers that need no token, because somebody else has let them in.
	Open http.Handler
	// Credentials are the Platform's, and log what was read again.
	Credentials creds.Options
	// Logger is the Platform's, and takes the secrets of the settings out of what it logs.
	Logger *slog.Logger

	fleet    *fleet
	file     *targets.File // where the targets file is read at requests
	callers  *callers
	rejected func(reason string)
}

// New puts an App together. It makes no connection and reads no file yet: where the settings name a targets file, nothing is checked before
// SetTargets. An error is one of the settings.
func New(s *settings.Settings, p Platform) (*App, error) {
	if p.Credentials.Secrets == nil {
		p.Credentials.Secrets = new(redact.Secrets)
	}
	p.Logger = inert.Logger(p.Logger, p.Credentials.Secrets.Text)
	p.Credentials = logged(p.Logger, p.Credentials)
	p.Credentials.Setting = s.Name
	p.Credentials.Shared = new(creds.Shared)
	p.reports = newReports(p.Logger)
	kept := 0
	if p.Memory != nil {
		kept = p.Memory.Upstreams
	}
	p.process = check.NewProcess(nil, check.MaxDials, kept)
	a := &App{
		Credentials: p.Credentials, Logger: p.Logger, callers: newCallers(p.Logger), rejected: p.Rejected,
		fleet: &fleet{settings: s, platform: p, named: s.TargetsFile != ""},
	}
	if !a.fleet.named {
		if _, err := a.fleet.set([]settings.Target{{Upstream: s.Upstream}}); err != nil {
			return nil, err
		}
	}
	asks := asker.Options{Fleet: a.fleet.now, Interval: s.CheckInterval, Rejected: p.Rejected, Unauthorized: a.callers.unauthorized}
	answers := web.Options{Path: p.Path, ShowCause: s.ShowCause, PageTitle: s.PageTitle}
	if b := p.Memory; b != nil {
		asks.Memory = asker.Memory{Configured: b.Configured, Others: b.Others, SideBySide: p.SideBySide, Crowds: p.Crowds}
		answers.Answers = b.Answers
	}
	a.OpenAsker = asker.New(asks)
	answers.Asker = a.OpenAsker
	a.Open = web.New(answers)
	asks.Authorize = authorize(p.Logger, creds.Token(s, p.Credentials), s.ConnectTimeout)
	a.Asker = asker.New(asks)
	answers.Asker = a.Asker
	a.Handler = web.New(answers)
	return a, nil
}

// SetTargets makes the targets what is checked. Those that are the same as before keep their connections and what is known about them. An error is one
// of a target's settings; then nothing changes.
func (a *App) SetTargets(targets []settings.Target) error {
	first := a.fleet.current.Load() == nil
	c, err := a.fleet.set(targets)
	if err == nil && !first {
		a.Logger.Info("targets changed", "added", few(c.added), "changed", few(c.changed), "removed", few(c.removed))
	}
	return err
}

// TLS reports whether a target is checked over TLS, or what is as good. asker.Default is the only upstream's name.
func (a *App) TLS(name string) bool {
	for _, u := range a.fleet.all() {
		if u.ask.Name == name || !a.fleet.named && name == asker.Default {
			return tlsOf(u.settings) != "none"
		}
	}
	return false
}

// Upstreams are what is checked at the moment.
func (a *App) Upstreams() []*Upstream { return a.fleet.all() }

// Budget is the longest time that a verdict takes.
func (a *App) Budget() (longest time.Duration) {
	for _, u := range a.fleet.all() {
		longest = max(longest, u.ask.Budget)
	}
	return longest
}

// Check checks everything that is configured, or the named targets alone.
func (a *App) Check(ctx context.Context, names ...string) []health.Verdict {
	ctx = inert.WithBudget(ctx)
	upstreams := a.fleet.all()
	if len(names) > 0 {
		upstreams = slices.DeleteFunc(upstreams, func(u *Upstream) bool { return !slices.Contains(names, u.ask.Name) })
	}
	return slices.Concat(health.SideBySide(len(upstreams), func(i int) []health.Verdict { return upstreams[i].CheckAll(ctx) })...)
}

// Close closes the connections. Checks must not be made any more.
func (a *App) Close() {
	for _, u := range a.fleet.all() {
		u.close()
	}
	a.fleet.platform.process.Close()
}

// Misconfigured logs every problem with the settings, and returns a handler that answers each request with
// 500 and names none: the function and Lambda must not exit, because the platform would start them again and again.
func Misconfigured(logger *slog.Logger, err error) http.Handler {
	var problems settings.Problems
	if !errors.As(err, &problems) {
		problems = strings.Split(err.Error(), "\n")
	}
	for _, problem := range problems {
		logger.Error("wrong setting", "problem", problem)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		web.Refuse(w, r, http.StatusInternalServerError, "the health check is not configured: its log says what is wrong")
	})
}

// Announce logs what is checked, and then what Warn logs. What is checked comes first: a setting that was left out shows there. Where it is in a targets
// file, TargetsFile logs it.
func Announce(logger *slog.Logger, s *settings.Settings) {
	if s.TargetsFile == "" {
		services := strings.Join(s.Services, ",")
		if services == "" {
			services = wholeServer
		}
		attributes := []any{"upstream", s.ShownAddr(), "services", services, "tls", tlsOf(&s.Upstream),
			"connect_timeout_seconds", s.ConnectTimeout.Seconds(), "rpc_timeout_seconds", s.RPCTimeout.Seconds()}
		if s.AllAddresses {
			attributes = append(attributes, "min_healthy_addresses", cmp.Or(s.MinHealthyAddresses, "all"))
		}
		logger.Info("checking", append(attributes, interval(s)...)...)
	}
	Warn(logger, s)
}

// interval is what lines about what is checked have where it is checked regularly.
func interval(s *settings.Settings) []any {
	if s.CheckInterval <= 0 {
		return nil
	}
	return []any{"check_interval_seconds", s.CheckInterval.Seconds()}
}

// Warn logs the warnings about the settings, and which were taken from the environment.
func Warn(logger *slog.Logger, s *settings.Settings) {
	for _, warning := range s.Warnings {
		logger.Warn("settings", "warning", warning)
	}
	if len(s.FromEnvironment) > 0 {
		logger.Info("settings from the environment", "names", s.FromEnvironment)
	}
}

// tlsOf says how the upstream is proven to be itself.
func tlsOf(s *settings.Upstream) string {
	switch {
	case s.SPIFFE:
		return "spiffe"
	case s.ALTS:
		return "alts"
	case s.TLS && s.NoVerify:
		return "not verified"
	case s.TLS && s.ClientCert != "":
		return "mutual"
	case s.TLS:
		return "verified"
	}
	return "none"
}

// logged logs what was read again, before the options' own Reload, and what was read and is not used.
func logged(logger *slog.Logger, o creds.Options) creds.Options {
	warned := o.Warning
	o.Warning = func(what creds.Kind, text string) {
		logger.Warn("a part of the content is not used", "what", string(what), "cause", text)
		if warned != nil {
			warned(what, text)
		}
	}
	next := o.Reload
	o.Reload = func(what creds.Kind, err error) {
		if err != nil {
			logger.Warn("cannot use the new content; the last good one stays in use", "what", string(what), "cause", err.Error())
		} else {
			logger.Info("read again", "what", string(what))
		}
		if next != nil {
			next(what, err)
		}
	}
	return o
}

// authorize lets the token's comparison take as long as a connection may. It logs failures, limited in rate, because anybody can
// cause them.
func authorize(logger *slog.Logger, compare func(context.Context, string) (bool, error), within time.Duration) func(context.Context, string) (bool, error) {
	if compare == nil {
		return nil
	}
	lines := newLimiter()
	return func(ctx context.Context, presented string) (bool, error) {
		ctx, cancel := context.WithTimeout(ctx, cmp.Or(within, time.Second))
		defer cancel()
		ok, err := compare(ctx, presented)
		if err != nil && lines.Allow() {
			logger.Error("nobody is let in", "cause", err.Error())
		}
		return ok, err
	}
}
