// Package upstream turns the settings of an upstream into the options of its checker. Every variant uses it.
package upstream

import (
	"context"
	"errors"
	"net/url"
	"strings"

	"golang.org/x/net/http/httpproxy"

	"example.com/grpc-health-http/internal/addresses"
	"example.com/grpc-health-http/internal/check"
	"example.com/grpc-health-http/internal/creds"
	"example.com/grpc-health-http/internal/dial"
	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/internal/redact"
	"example.com/grpc-health-http/internal/settings"
	"example.com/grpc-health-http/internal/target"
)

// Options returns the checker's options. token returns the Google ID token to send with each RPC; nil sends none. An error
// means that a setting is wrong.
func Options(s *settings.Upstream, o creds.Options, token func(ctx context.Context) (string, error)) (check.Options, error) {
	if o.Secrets == nil {
		o.Secrets = new(redact.Secrets)
	}
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
		Redact:     o.Secrets.Text,
	}
	o.Secrets.Set("ADDR", userinfo(s.Addr)...)
	o.Secrets.Public(append([]string{s.ShownAddr(), target.HostPort(), target.Host(), s.Authority, s.ServerName}, s.Services...)...)
	if o.Setting != nil {
		options.TLSSetting = o.Setting("TLS")
	}
	if s.UseProxy {
		// Like grpc-go, use HTTPS_PROXY for every target, also for plaintext ones.
		config := httpproxy.FromEnvironment()
		if !usableProxy(config.HTTPSProxy) {
			return check.Options{}, errors.New("HTTPS_PROXY: write http://host:port; only HTTP proxies are supported")
		}
		o.Secrets.Set("HTTPS_PROXY", userinfo(config.HTTPSProxy)...)
		choose := config.ProxyFunc()
		options.Proxy = func(hostPort string) (*url.URL, error) {
			return choose(&url.URL{Scheme: "https", Host: hostPort})
		}
	}
	return options, nil
}

// Checker is what checks an upstream: a check.Checker, or one of all its addresses.
type Checker interface {
	// Check is a health.Func.
	Check(ctx context.Context, service string) health.Verdict
	// Proof is Check, with the evidence.
	Proof(ctx context.Context, service string) *health.Proof
	List(ctx context.Context) []health.Verdict
	Names(ctx context.Context) []string
	Close()
}

// NewChecker returns the checker that the settings ask for. The options are those of Options.
func NewChecker(s *settings.Upstream, o check.Options) Checker {
	if s.AllAddresses {
		return addresses.New(o, s.MinHealthy)
	}
	return check.New(o)
}

// userinfo are the secrets in the user and password that a URL may have, which need not be one that can be parsed.
func userinfo(text string) []string {
	if _, rest, found := strings.Cut(text, "://"); found {
		text = rest
	}
	text, _, _ = strings.Cut(text, "/")
	at := strings.LastIndex(text, "@")
	if at < 0 {
		return nil
	}
	return redact.Userinfo(text[:at])
}

// usableProxy reports whether the text names an HTTP proxy, or is empty. httpproxy treats text that it cannot parse as no
// proxy, and the dial would go directly to the target.
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
