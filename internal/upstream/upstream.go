// Package upstream turns an upstream's settings into what a checker of the upstream needs, for every variant.
package upstream

import (
	"context"
	"errors"
	"net/url"
	"strings"

	"golang.org/x/net/http/httpproxy"

	"example.com/grpc-health-http/internal/check"
	"example.com/grpc-health-http/internal/creds"
	"example.com/grpc-health-http/internal/dial"
	"example.com/grpc-health-http/internal/settings"
	"example.com/grpc-health-http/internal/target"
)

// Options returns a checker's options. token gives the Google ID token to send with each RPC; nil
// sends none. An error is one of the settings.
func Options(s *settings.Upstream, o creds.Options, token func(ctx context.Context) (string, error)) (check.Options, error) {
	target, err := target.Parse(s.Addr)
	if err != nil {
		return check.Options{}, err
	}
	transport, err := creds.Upstream(s, o)
	if err != nil {
		return check.Options{}, err
	}
	options := check.Options{
		Options: dial.Options{
			Target:         target,
			ConnectTimeout: s.ConnectTimeout,
			UserAgent:      s.UserAgent,
			Authority:      s.Authority,
			ServerName:     s.ServerName,
			Gzip:           s.Gzip,
			Credentials:    transport,
		},
		RPCTimeout: s.RPCTimeout,
		MaxAge:     s.ConnMaxAge,
		Services:   s.Services,
		Metadata:   creds.Metadata(s, o, token),
	}
	if o.Setting != nil {
		options.TLSSetting = o.Setting("TLS")
	}
	if s.UseProxy {
		// gRPC is HTTPS to the proxy variables, as grpc-go has it, plaintext targets too.
		config := httpproxy.FromEnvironment()
		if !usableProxy(config.HTTPSProxy) {
			return check.Options{}, errors.New("HTTPS_PROXY: write http://host:port; no other proxies are spoken to")
		}
		choose := config.ProxyFunc()
		options.Proxy = func(hostPort string) (*url.URL, error) {
			return choose(&url.URL{Scheme: "https", Host: hostPort})
		}
	}
	return options, nil
}

// usableProxy says whether the text names an HTTP proxy, or none. httpproxy would take what it cannot
// parse for none, and dial directly.
func usableProxy(text string) bool {
	if text == "" {
		return true
	}
	if !strings.Contains(text, "://") {
		text = "http://" + text
	}
	proxy, err := url.Parse(text)
	return err == nil && proxy.Scheme == "http" && proxy.Hostname() != ""
}
