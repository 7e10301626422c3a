//go:build linux

package main

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// transport is which connections are secured.
type transport string

const (
	plain      transport = "plain"
	tlsBehind  transport = "TLS"  // the upstream's
	mutualBoth transport = "mTLS" // both sides', with client certificates
	grpcIn     transport = "gRPC" // none, and callers speak gRPC
)

func (t transport) secured() bool { return t == tlsBehind || t == mutualBoth }

// certificates is the directory of a set that example/certs has made. Its methods return what one end of a
// connection needs, nil where that connection is not secured.
type certificates string

// The names that the servers' certificates carry.
const (
	upstreamName = "grpc.domain.com"
	listenerName = "http.domain.com"
)

func (c certificates) path(name string) string { return filepath.Join(string(c), name+".pem") }

// upstream is the upstream's end.
func (c certificates) upstream(t transport) (*tls.Config, error) {
	if !t.secured() {
		return nil, nil
	}
	return c.server("grpc_server", t == mutualBoth)
}

// toUpstream is the end of the server under test towards the upstream.
func (c certificates) toUpstream(t transport) (*tls.Config, error) {
	switch t {
	case tlsBehind:
		return c.client("", upstreamName)
	case mutualBoth:
		return c.client("proxy_client", upstreamName)
	}
	return nil, nil
}

// listener is the end of the server under test towards its callers.
func (c certificates) listener(t transport) (*tls.Config, error) {
	if t != mutualBoth {
		return nil, nil
	}
	return c.server("http_server", true)
}

// caller is the callers' end.
func (c certificates) caller(t transport) (*tls.Config, error) {
	if t != mutualBoth {
		return nil, nil
	}
	return c.client("client", listenerName)
}

// settings are those that give grpc_health_proxy the same.
func (c certificates) settings(t transport) []string {
	if !t.secured() {
		return nil
	}
	env := []string{"GRPC_HEALTH_TLS=true", "GRPC_HEALTH_CA_CERT=" + c.path("CA_crt"), "GRPC_HEALTH_SNI_SERVER_NAME=" + upstreamName}
	if t == mutualBoth {
		env = append(env,
			"GRPC_HEALTH_CLIENT_CERT="+c.path("proxy_client_crt"), "GRPC_HEALTH_CLIENT_KEY="+c.path("proxy_client_key"),
			"GRPC_HEALTH_HTTPS_LISTEN_CERT="+c.path("http_server_crt"), "GRPC_HEALTH_HTTPS_LISTEN_KEY="+c.path("http_server_key"),
			"GRPC_HEALTH_HTTPS_LISTEN_VERIFY=true", "GRPC_HEALTH_HTTPS_LISTEN_CA="+c.path("CA_crt"))
	}
	return env
}

func (c certificates) server(name string, verify bool) (*tls.Config, error) {
	config := new(tls.Config)
	roots, err := c.roots()
	pair, pairErr := c.pair(name)
	config.Certificates = []tls.Certificate{pair}
	if verify {
		config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, roots
	}
	return config, cmp.Or(err, pairErr)
}

func (c certificates) client(name, serverName string) (*tls.Config, error) {
	roots, err := c.roots()
	config := &tls.Config{RootCAs: roots, ServerName: serverName}
	if name != "" && err == nil {
		var pair tls.Certificate
		pair, err = c.pair(name)
		config.Certificates = []tls.Certificate{pair}
	}
	return config, err
}

func (c certificates) pair(name string) (tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(c.path(name+"_crt"), c.path(name+"_key"))
	if err != nil {
		return pair, fmt.Errorf("certificate %s: %w", name, err)
	}
	return pair, nil
}

func (c certificates) roots() (*x509.CertPool, error) {
	text, err := os.ReadFile(c.path("CA_crt"))
	if err != nil {
		return nil, fmt.Errorf("read the roots: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, errors.New("the roots hold no certificate")
	}
	return pool, nil
}
