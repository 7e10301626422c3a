// Package app puts the parts together for the variants that answer HTTP: the function, Lambda and the container.
package app

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"example.com/grpc-health-http/internal/check"
	"example.com/grpc-health-http/internal/creds"
	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/internal/idtoken"
	"example.com/grpc-health-http/internal/settings"
	"example.com/grpc-health-http/internal/upstream"
	"example.com/grpc-health-http/internal/web"
)

// Platform is what a variant brings along. Everything but Logger is optional.
type Platform struct {
	Logger *slog.Logger
	// Path is the exact path that is answered; empty answers every path.
	Path string
	// Credentials say how files are read, and who hears of it beside the log.
	Credentials creds.Options
	// Trace is told what the checker does; its Verdict is not used.
	Trace check.Trace
	// Observe is told every verdict on a service that a caller gets.
	Observe func(health.Verdict)
}

// App is a checker with its HTTP face.
type App struct {
	// Checker checks the upstream.
	Checker *check.Checker
	// Check is the Checker's Check, observed.
	Check health.Func
	// Handler answers HTTP requests.
	Handler http.Handler
	// Credentials are the Platform's, with the log told of what was read again.
	Credentials creds.Options
}

// New puts an App together. It makes no connection and reads no file yet. An error is one of the settings.
func New(s *settings.Settings, p Platform) (*App, error) {
	credentials := logged(p.Logger, p.Credentials)
	credentials.Setting = s.Name
	var token func(context.Context) (string, error)
	if s.IDTokenAudience != "" {
		token = idtoken.New(s.IDTokenAudience).Token
	}
	options, err := upstream.Options(s, credentials, token)
	if err != nil {
		return nil, err
	}
	options.Trace = p.Trace
	options.Trace.Verdict = newReporter(p.Logger, s.Services).verdict
	var certificateEnds atomic.Pointer[time.Time]
	certificateEnds.Store(new(time.Time))
	options.Trace.PeerCertificate = func(leaf *x509.Certificate) {
		certificateEnds.Store(new(leaf.NotAfter))
		if p.Trace.PeerCertificate != nil {
			p.Trace.PeerCertificate(leaf)
		}
	}
	checker := check.New(options)

	a := &App{Checker: checker, Check: checker.Check, Credentials: credentials}
	list := checker.List
	if p.Observe != nil {
		a.Check = func(ctx context.Context, service string) health.Verdict {
			v := checker.Check(ctx, service)
			observe(p, v)
			return v
		}
		list = func(ctx context.Context) []health.Verdict {
			verdicts := checker.List(ctx)
			for _, v := range verdicts {
				observe(p, v)
			}
			return verdicts
		}
	}
	if !s.AllowList {
		list = nil
	}
	a.Handler = web.New(web.Options{
		Check:           a.Check,
		List:            list,
		Services:        s.Services,
		Path:            p.Path,
		CertificateEnds: func() time.Time { return *certificateEnds.Load() },
		Budget:          s.ConnectTimeout + s.RPCTimeout,
		Authorize:       authorize(p.Logger, creds.Token(s, credentials), s.ConnectTimeout),
	})
	return a, nil
}

// observe tells of a verdict on a service, which is none where the caller has gone away, or where a List failed.
func observe(p Platform, v health.Verdict) {
	if !v.At.IsZero() && !v.List {
		p.Observe(v)
	}
}

// Misconfigured logs every problem with the settings, and returns a handler that answers each request with
// 500 and tells none: the function and Lambda must not end, for the platform would start them again and again.
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

// Warn logs what the settings are warned of, and which were taken from the environment.
func Warn(logger *slog.Logger, s *settings.Settings) {
	for _, warning := range s.Warnings {
		logger.Warn("settings", "warning", warning)
	}
	if len(s.FromEnvironment) > 0 {
		logger.Info("settings from the environment", "names", s.FromEnvironment)
	}
}

// logged tells the log too of what was read again.
func logged(logger *slog.Logger, o creds.Options) creds.Options {
	next := o.Reload
	o.Reload = func(what creds.Kind, err error) {
		if err != nil {
			logger.Warn("cannot use what was read again; the last good one goes on", "what", string(what), "cause", err.Error())
		} else {
			logger.Info("read again", "what", string(what))
		}
		if next != nil {
			next(what, err)
		}
	}
	return o
}

// authorize lets the token's comparison take as long as a connection may. Its failures go to the log, limited
// in rate: everybody can cause them.
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
