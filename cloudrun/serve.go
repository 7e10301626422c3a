package main

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"example.com/grpc-health-http/internal/app"
	"example.com/grpc-health-http/internal/creds"
	"example.com/grpc-health-http/internal/grpcfront"
	"example.com/grpc-health-http/internal/memory"
	"example.com/grpc-health-http/internal/metrics"
	"example.com/grpc-health-http/internal/serve"
	"example.com/grpc-health-http/internal/settings"
	"example.com/grpc-health-http/internal/version"
	"example.com/grpc-health-http/internal/web"
)

// startTime is what reading the listener's files may take at the start.
const startTime = 10 * time.Second

// prepare binds the ports and announces them. It returns the function that serves until ctx ends, the error of which is why it could not go
// on. An error of prepare is why it cannot begin, with the settings to change.
func prepare(ctx context.Context, s *settings.Settings, logger *slog.Logger) (serveUntil func(ctx context.Context) error, err error) {
	app.Announce(logger, s)
	budget := memory.Process()
	logger.Info("memory", "limit_bytes", budget.Limit.Bytes, "source", budget.Limit.Source)
	build := version.Get()
	m := metrics.New(prometheus.NewRegistry(), metrics.Options{
		Version: build.Tag, Commit: build.Commit, GoVersion: build.Go, SettingsHash: float64(s.Hash()),
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
		Observe: func(services []string) app.Observer {
			u := m.NewUpstream(s.ShownAddr(), services)
			return app.Observer{Trace: u.Trace(), Verdict: u.Observe, ClientCertificate: u.ClientCertificateExpires}
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
		Name: "health", Listener: listeners[0], Handler: health, TLS: https, Admit: admit, Budget: a.Budget,
		Memory: budget.Connections, HeaderMemory: budget.Headers, Overloaded: grpcfront.Overloaded(m.Rejected, overloaded), Refused: a.RefusedCertificate,
	}}
	logger.Info("answering health checks", "url", url(listeners[0], https, s.ListenPath), "upstream", s.ShownAddr(), "version", build.String())
	if len(listeners) > 1 {
		exposition := web.Limited(budget.Metrics, memory.Scrape, m.Rejected, m.ExpositionHandler())
		servers = append(servers, serve.Server{
			Name: "metrics", Listener: listeners[1], Handler: withLivez(web.Only(s.MetricsPath, exposition)), Budget: a.Budget, Secondary: true,
			Memory: budget.SecondaryConnections, HeaderMemory: budget.Headers, Overloaded: overloaded,
		})
		logger.Info("answering Prometheus", "url", url(listeners[1], nil, s.MetricsPath))
	}
	return func(ctx context.Context) error {
		defer a.Close()
		return serve.Run(ctx, logger, s.ShutdownGrace, servers...)
	}, nil
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
