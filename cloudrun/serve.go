package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"example.com/grpc-health-http/internal/app"
	"example.com/grpc-health-http/internal/creds"
	"example.com/grpc-health-http/internal/grpcfront"
	"example.com/grpc-health-http/internal/memory"
	"example.com/grpc-health-http/internal/metrics"
	"example.com/grpc-health-http/internal/schedule"
	"example.com/grpc-health-http/internal/scrape"
	"example.com/grpc-health-http/internal/serve"
	"example.com/grpc-health-http/internal/settings"
	"example.com/grpc-health-http/internal/targets"
	"example.com/grpc-health-http/internal/version"
	"example.com/grpc-health-http/internal/web"
)

// startTime is what reading the listener's files may take at the start.
const startTime = 10 * time.Second

// prepare binds the ports and announces them. It returns the function that serves until ctx ends, the error of which is why it could not go
// on. An error of prepare is why it cannot begin, with the settings to change.
func prepare(ctx context.Context, s *settings.Settings, logger *slog.Logger) (serveUntil func(ctx context.Context) error, err error) {
	app.Announce(logger, s)
	ours := *memory.Process() // which others of the process use, too
	budget := &ours
	budget.Upstreams = min(budget.Upstreams, max(serve.OpenFiles()/8, 1)) // callers' connections may have six eighths
	logger.Info("memory", "limit_bytes", budget.Limit.Bytes, "source", budget.Limit.Source)
	build := version.Get()
	m := metrics.New(prometheus.NewRegistry(), metrics.Options{
		Version: build.Tag, Commit: build.Commit, GoVersion: build.Go, SettingsHash: float64(s.Hash()), Targets: s.TargetsFile != "", CheckInterval: s.CheckInterval,
	})
	a, err := app.New(s, app.Platform{
		Logger:   logger,
		Path:     s.ListenPath,
		Rejected: m.Rejected,
		Memory:   budget, SideBySide: serve.SideBySide, Crowds: serve.Crowds,
		Credentials: creds.Options{
			Reload: func(what creds.Kind, err error) {
				if what != creds.HeaderValue && what != creds.AuthToken {
					m.CertificateReloaded(err)
				}
			},
			Expiry: func(_ creds.Kind, notAfter time.Time) { m.ListenerCertificateExpires(notAfter) },
		},
		Observe: func(t *settings.Target) app.Observer {
			u := m.NewUpstream(metrics.UpstreamOptions{Target: t.Name, Address: t.ShownAddr(), Services: t.Services})
			return app.Observer{Trace: u.Trace(), Verdict: u.Observe, ClientCertificate: u.ClientCertificateExpires, Gone: u.Gone}
		},
	})
	if err != nil {
		return nil, err
	}
	logger = a.Logger
	defer func() {
		if err != nil {
			a.Close()
		}
	}()
	starting, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	var checks *schedule.Schedule[*app.Upstream] // nil where nothing is checked before somebody asks
	regularly := func() {
		if checks != nil {
			checks.Set(a.Upstreams())
		}
	}
	if s.CheckInterval > 0 {
		checks = schedule.New(s.CheckInterval, func(ctx context.Context, u *app.Upstream) { u.CheckAll(ctx) })
	}
	var file *targets.File
	if s.TargetsFile != "" {
		file = a.TargetsFile(func(err error) {
			m.TargetsReloaded(err)
			regularly()
		})
		if err := file.Load(starting); err != nil {
			return nil, fmt.Errorf("%s: %w", s.Name("TARGETS_FILE"), err)
		}
	}
	regularly()
	https, admit, err := creds.Listener(starting, s, a.Credentials)
	if err != nil {
		return nil, err
	}

	ports := []serve.Port{{Setting: s.Name("HTTP_LISTEN_ADDR"), Addr: s.ListenAddr}}
	if s.MetricsAddr != "" {
		ports = append(ports, serve.Port{Setting: s.Name("METRICS_HTTP_LISTEN_ADDR"), Addr: s.MetricsAddr})
	}
	listeners, err := serve.Listen(ctx, ports...)
	if err != nil {
		return nil, err
	}
	health := withLivez(app.WithCloudTrace(grpcfront.New(
		grpcfront.Options{Asker: a.Asker, Observe: m.GRPCHandler, Answers: budget.Answers}, m.Handler(s.ListenPath, a.Handler))))
	overloaded := withLivez(web.Overloaded(m.Rejected))
	servers := []serve.Server{{
		Name: "health", Listener: listeners[0], Handler: health, TLS: https, Admit: admit, Budget: budgetOf(s, a),
		Memory: budget.Connections, HeaderMemory: budget.Headers, Overloaded: grpcfront.Overloaded(m.Rejected, overloaded), Refused: a.RefusedCertificate,
	}}
	logger.Info("answering health checks", "url", url(listeners[0], https, s.ListenPath), "upstream", checked(s, a), "version", build.String())
	if len(listeners) > 1 {
		scrape := func() int64 { return memory.Scrape + memory.Sample*int64(m.Samples()) }
		exposition := web.Limited(budget.Metrics, scrape, m.Rejected, web.Only(s.MetricsPath, m.ExpositionHandler()))
		servers = append(servers, serve.Server{
			Name: "metrics", Listener: listeners[1], Handler: withLivez(withScrapes(s, a, budget, m.Rejected, exposition)), Budget: budgetOf(s, a), Secondary: true,
			Memory: budget.SecondaryConnections, HeaderMemory: budget.Headers, Overloaded: overloaded,
		})
		logger.Info("answering Prometheus", "url", url(listeners[1], nil, s.MetricsPath))
	}
	return func(ctx context.Context) error {
		defer a.Close()
		var beside sync.WaitGroup
		defer beside.Wait()
		besides, stop := context.WithCancel(ctx)
		defer stop()
		if file != nil {
			beside.Go(func() { file.Watch(besides) })
		}
		if checks != nil {
			beside.Go(func() { checks.Run(besides) })
		}
		return serve.Run(ctx, logger, s.ShutdownGrace, servers...)
	}, nil
}

// withScrapes answers what Prometheus asks beside the metrics, and leaves the rest to next.
func withScrapes(s *settings.Settings, a *app.App, budget *memory.Budget, rejected func(reason string), next http.Handler) http.Handler {
	scrapes := scrape.Handler(scrape.Options{
		Asker: a.OpenAsker, TLS: a.TLS, MetricsPath: s.MetricsPath, Refuse: web.Refuse,
	})
	cost := func() int64 { return memory.Scrape + memory.Listed*int64(len(a.Upstreams())) }
	list := web.Limited(budget.Metrics, cost, rejected, scrapes) // a check has a share of its own
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == s.MetricsPath || !scrape.Paths(r.URL.Path):
			next.ServeHTTP(w, r)
		case r.URL.Path == scrape.TargetsPath:
			list.ServeHTTP(w, r)
		default:
			scrapes.ServeHTTP(w, r)
		}
	})
}

// budgetOf is the longest time that an answer takes. Targets that take longer may come with the targets file.
func budgetOf(s *settings.Settings, a *app.App) time.Duration {
	if s.TargetsFile == "" {
		return a.Budget()
	}
	return max(a.Budget(), settings.MaxTargetBudget)
}

// checked names the upstream, or says how many targets there are.
func checked(s *settings.Settings, a *app.App) string {
	if s.TargetsFile == "" {
		return s.ShownAddr()
	}
	return strconv.Itoa(len(a.Upstreams())) + " targets"
}

// withLivez answers settings.LivenessPath, and leaves the rest to next.
func withLivez(next http.Handler) http.Handler {
	livez := web.Livez()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == settings.LivenessPath {
			livez.ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// url is where a listener answers.
func url(l net.Listener, https *tls.Config, path string) string {
	scheme := "http"
	if https != nil {
		scheme = "https"
	}
	return scheme + "://" + l.Addr().String() + path
}
