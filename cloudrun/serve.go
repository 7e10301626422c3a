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
	"example.com/grpc-health-http/internal/metrics"
	"example.com/grpc-health-http/internal/serve"
	"example.com/grpc-health-http/internal/settings"
	"example.com/grpc-health-http/internal/version"
	"example.com/grpc-health-http/internal/web"
)

// startTime is what reading the listener's files may take at the start.
const startTime = 10 * time.Second

// roles are whose certificates they are, in the metrics.
var roles = map[creds.Material]metrics.Role{
	creds.ClientCertificate:   metrics.Client,
	creds.ListenerCertificate: metrics.Listener,
}

// serveAll binds the ports, announces them, and serves until ctx ends. An error is why it could not,
// with the settings to change.
func serveAll(ctx context.Context, s *settings.Settings, logger *slog.Logger) error {
	app.Warn(logger, s)
	build := version.Get()
	m := metrics.New(prometheus.NewRegistry(), metrics.Options{
		Services: s.Services, Version: build.Tag, Commit: build.Commit, GoVersion: build.Go,
	})
	a, err := app.New(s, app.Platform{
		Logger: logger,
		Path:   s.ListenPath,
		Credentials: creds.Options{
			Reload: func(what creds.Material, err error) {
				if what != creds.HeaderValue && what != creds.AuthToken {
					m.CertificateReloaded(err)
				}
			},
			Expiry: func(what creds.Material, notAfter time.Time) {
				m.CertificateExpires(roles[what], notAfter)
			},
		},
		Trace:   m.Trace(),
		Observe: m.Observe,
	})
	if err != nil {
		return err
	}
	defer a.Checker.Close()
	starting, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	https, err := creds.Listener(starting, s, a.Credentials)
	if err != nil {
		return err
	}

	ports := []serve.Port{{Setting: s.Name("HTTP_LISTEN_ADDR"), Addr: s.ListenAddr}}
	if s.MetricsAddr != "" {
		ports = append(ports, serve.Port{Setting: s.Name("METRICS_HTTP_LISTEN_ADDR"), Addr: s.MetricsAddr})
	}
	listeners, err := serve.Listen(ctx, ports...)
	if err != nil {
		return err
	}
	health := withLivez(m.Handler(s.ListenPath, app.WithCloudTrace(a.Handler)))
	budget := s.ConnectTimeout + s.RPCTimeout
	servers := []serve.Server{{Name: "health", Listener: listeners[0], Handler: health, TLS: https, Budget: budget}}
	logger.Info("answering health checks", "url", url(listeners[0], https, s.ListenPath), "upstream", s.Addr, "version", build.String())
	if len(listeners) > 1 {
		exposition := withLivez(only(s.MetricsPath, m.ExpositionHandler()))
		servers = append(servers, serve.Server{Name: "metrics", Listener: listeners[1], Handler: exposition, Budget: budget, Secondary: true})
		logger.Info("answering Prometheus", "url", url(listeners[1], nil, s.MetricsPath))
	}
	return serve.Run(ctx, logger, s.ShutdownGrace, servers...)
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

// only answers one path, and nothing but GET and HEAD. http.ServeMux would answer others too, with redirects.
func only(path string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		switch {
		case r.URL.Path != path:
			http.NotFound(w, r)
			return
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "only GET and HEAD are answered here", http.StatusMethodNotAllowed)
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
