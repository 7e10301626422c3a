// Package upstream turns settings into what a checker of the upstream needs, for every variant.
package upstream

import (
	"context"
	"net/url"

	"golang.org/x/net/http/httpproxy"

	"example.com/grpc-health-http/internal/check"
	"example.com/grpc-health-http/internal/creds"
	"example.com/grpc-health-http/internal/settings"
)

// Options returns a checker's options. token gives the Google ID token to send with each RPC; nil
// sends none. An error is one of the settings.
func Options(s *settings.Settings, o creds.Options, token func(ctx context.Context) (string, error)) (check.Options, error) {
	target, err := check.ParseTarget(s.Addr)
	if err != nil {
		return check.Options{}, err
	}
	transport, err := creds.Upstream(s, o)
	if err != nil {
		return check.Options{}, err
	}
	options := check.Options{
		Target:         target,
		ConnectTimeout: s.ConnectTimeout,
		RPCTimeout:     s.RPCTimeout,
		MaxAge:         s.ConnMaxAge,
		Services:       s.Services,
		MaxConcurrent:  s.MaxConcurrentChecks,
		UserAgent:      s.UserAgent,
		Authority:      s.Authority,
		ServerName:     s.ServerName,
		Gzip:           s.Gzip,
		Credentials:    transport,
		Metadata:       creds.Metadata(s, o, token),
	}
	if s.UseProxy {
		// gRPC is HTTPS to the proxy variables, as grpc-go has it, plaintext targets too.
		choose := httpproxy.FromEnvironment().ProxyFunc()
		options.Proxy = func(hostPort string) (*url.URL, error) {
			return choose(&url.URL{Scheme: "https", Host: hostPort})
		}
	}
	return options, nil
}
