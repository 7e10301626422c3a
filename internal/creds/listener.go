package creds

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"sync"

	"example.com/grpc-health-http/internal/clock"
	"example.com/grpc-health-http/internal/settings"
)

// Listener returns the configuration of the HTTPS listener, nil where there is none. It reads the
// listener's files, within ctx, and fails where they cannot be used. From then on each handshake
// has the latest good certificate and client roots.
func Listener(ctx context.Context, s *settings.Settings, o Options) (*tls.Config, error) {
	if s.HTTPSCert == "" {
		return nil, nil
	}
	m := &material[*tls.Config]{build: serverConfig}
	var rootsErr error
	if s.HTTPSVerify {
		m.roots, rootsErr = o.roots(ListenerRoots, "HTTPS_LISTEN_CA", s.HTTPSCA)
	}
	var pairErr error
	m.pair, pairErr = o.pair(ListenerCertificate, "HTTPS_LISTEN_CERT", s.HTTPSCert, "HTTPS_LISTEN_KEY", s.HTTPSKey)
	if err := errors.Join(pairErr, rootsErr); err != nil {
		return nil, err
	}
	config, err := m.get(ctx, false)
	if err != nil {
		return nil, err
	}
	config = config.Clone()
	config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		return m.get(hello.Context(), false)
	}
	return config, nil
}

// serverConfig is the configuration of a TLS server that wants client certificates of the roots, and
// none where they are nil.
func serverConfig(roots *x509.CertPool, pair *tls.Certificate) *tls.Config {
	config := &tls.Config{
		MinVersion:   tls.VersionTLS12,
		Certificates: []tls.Certificate{*pair},
		NextProtos:   []string{"h2", "http/1.1"},
		// A resumed session would go on under a certificate and roots that are rotated away.
		SessionTicketsDisabled: true,
	}
	if roots != nil {
		config.ClientAuth = tls.RequireAndVerifyClientCert
		config.ClientCAs = roots
	}
	return config
}

// Token returns what compares a presented token with that of HTTP_AUTH_TOKEN_FILE, white space
// around it aside, in a time that tells nothing; nil where no token is wanted. Its error is why
// there is no token to compare with: then nobody gets in. A token that differs may be the next one, so
// that what is held is read again, once in 5 s at most.
func Token(s *settings.Settings, o Options) func(ctx context.Context, presented string) (bool, error) {
	if s.AuthTokenFile == "" {
		return nil
	}
	f := o.file("HTTP_AUTH_TOKEN_FILE", s.AuthTokenFile)
	h := text(o, AuthToken, f, func(content []byte) (digest, error) {
		token, err := line(f, content)
		return sha256.Sum256(token), err
	})
	var mu sync.Mutex
	var refreshed clock.Moment
	mayRefresh := func() bool {
		mu.Lock()
		defer mu.Unlock()
		now := h.clock()
		if refreshed != (clock.Moment{}) && now.Since(refreshed) < freshFor {
			return false
		}
		refreshed = now
		return true
	}
	return func(ctx context.Context, presented string) (bool, error) {
		// Hashes have one length, so that the comparison does not tell the token's.
		got := sha256.Sum256([]byte(presented))
		want, err := h.get(ctx, false)
		equal := subtle.ConstantTimeCompare(got[:], want[:]) == 1
		if err != nil || equal || !mayRefresh() {
			return err == nil && equal, err
		}
		want, err = h.get(ctx, true)
		return err == nil && subtle.ConstantTimeCompare(got[:], want[:]) == 1, err
	}
}
