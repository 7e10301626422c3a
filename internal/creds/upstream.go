package creds

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"sync/atomic"

	"google.golang.org/grpc/credentials"

	"example.com/grpc-health-http/internal/dial"
	"example.com/grpc-health-http/internal/settings"
)

// Transport returns the transport credentials for one dial, as check.Options.Credentials wants them.
// They are the same pointer until what they are made of changes. force reads the
// files (or asks the Workload API) again, whatever the age of what was read last.
type Transport = func(ctx context.Context, force bool) (credentials.TransportCredentials, error)

// Upstream returns what a dial to the upstream authenticates with; nil is plaintext. What it
// returns leaves the server name to the handshake's authority. Upstream reads no file: it fails only
// for what the settings themselves hold, wrong inline PEM or a wrong SPIFFE ID.
func Upstream(s *settings.Upstream, o Options) (Transport, error) {
	switch {
	case s.SPIFFE:
		return spiffeTransport(s, o)
	case s.ALTS:
		return altsTransport(s), nil
	case s.TLS:
		return tlsTransport(s, o)
	}
	return nil, nil
}

func tlsTransport(s *settings.Upstream, o Options) (Transport, error) {
	from := &tlsSource[credentials.TransportCredentials]{
		build: func(roots *x509.CertPool, pair *tls.Certificate) credentials.TransportCredentials {
			return newTLS(clientConfig(roots, pair, s.NoVerify), o.setting)
		},
	}
	var rootsErr, pairErr error
	if s.CACert != "" {
		from.roots, rootsErr = o.roots(UpstreamRoots, "CA_CERT", s.CACert)
	}
	if s.ClientCert != "" {
		from.pair, pairErr = o.pair(ClientCertificate, "CLIENT_CERT", s.ClientCert, "CLIENT_KEY", s.ClientKey)
	}
	if err := errors.Join(rootsErr, pairErr); err != nil {
		return nil, err
	}
	return from.get, nil
}

// shownTLS are TLS credentials whose errors hold the certificate that the peer had shown.
type shownTLS struct {
	credentials.TransportCredentials
	config *tls.Config
	name   func(setting string) string // names a setting
}

func newTLS(config *tls.Config, name func(string) string) credentials.TransportCredentials {
	return &shownTLS{credentials.NewTLS(config), config, name}
}

// advise adds to an error the setting that may be wrong.
func (t *shownTLS) advise(err error) error {
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return fmt.Errorf("%w (%s says whom to trust)", err, t.name("CA_CERT"))
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return fmt.Errorf("%w (%s says which name to expect)", err, t.name("SNI_SERVER_NAME"))
	}
	return err
}

// ClientHandshake fails with a dial.HandshakeError where the certificate is not what failed: no ALPN, say, or no
// client certificate.
func (t *shownTLS) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	var leaf atomic.Pointer[x509.Certificate] // a handshake whose context has ended may run on for a moment
	config := t.config.Clone()
	config.VerifyConnection = func(state tls.ConnectionState) error {
		leaf.Store(state.PeerCertificates[0]) // a server has one
		return nil
	}
	secured, auth, err := credentials.NewTLS(config).ClientHandshake(ctx, authority, raw)
	if shown := leaf.Load(); err != nil && shown != nil {
		err = &dial.HandshakeError{Err: err, Leaf: shown}
	}
	if err != nil {
		err = t.advise(err)
	}
	return secured, auth, err
}

// clientConfig is the configuration of a TLS client. It has no session cache: a resumed session would
// skip the verification, which has to see a change of roots.
//
// Nil roots are the system's. Go reads those once in a process (crypto/x509 keeps the pool), so a change
// of the system's roots needs a restart; a path to their bundle in CA_CERT does not.
func clientConfig(roots *x509.CertPool, pair *tls.Certificate, noVerify bool) *tls.Config {
	config := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		RootCAs:            roots,
		InsecureSkipVerify: noVerify,
	}
	if pair != nil {
		// Not Certificates: crypto/tls sends none of those that the server's list of authorities
		// does not cover, and the server would complain of a missing certificate.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return pair, nil }
	}
	return config
}
