package creds

import (
	"context"
	"crypto/tls"
	"errors"
	"time"

	"google.golang.org/grpc/credentials"

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
	var create func(material, Options) (*transport, error)
	switch {
	case s.SPIFFE:
		create = spiffeTransport
	case s.ALTS:
		return altsTransport(s), nil
	case s.TLS:
		create = tlsTransport
	default:
		return nil, nil
	}
	ofAll := o
	ofAll.Expiry = nil // each has its own
	t, err := o.Shared.of(materialOf(s), func(m material) (*transport, error) { return create(m, ofAll) })
	if err != nil {
		return nil, err
	}
	return t.forUpstream(o), nil
}

func tlsTransport(m material, o Options) (*transport, error) {
	from := &tlsSource[credentials.TransportCredentials]{
		build: func(roots *rootSet, pair *tls.Certificate) credentials.TransportCredentials {
			a := advice{
				roots: o.setting("CA_CERT"), trusted: roots, serverName: o.setting("SNI_SERVER_NAME"), certificate: o.setting("CLIENT_CERT"),
			}
			if pair == nil {
				a.none = o.setting("CLIENT_CERT") + " and " + o.setting("CLIENT_KEY")
			}
			return newTLS(clientConfig(roots, pair, m.noVerify), a)
		},
	}
	var rootsErr, pairErr error
	if m.caCert != "" {
		from.roots, rootsErr = o.roots(UpstreamRoots, "CA_CERT", m.caCert)
	}
	if m.clientCert != "" {
		from.pair, pairErr = o.pair(ClientCertificate, "CLIENT_CERT", m.clientCert, "CLIENT_KEY", m.clientKey)
	}
	if err := errors.Join(rootsErr, pairErr); err != nil {
		return nil, err
	}
	t := &transport{load: from.get}
	if from.pair != nil {
		t.ends = func() time.Time {
			if pair := from.pair.latest(); pair != nil {
				return pair.Leaf.NotAfter
			}
			return time.Time{}
		}
	}
	return t, nil
}

// clientConfig is the configuration of a TLS client. It has no session cache: a resumed session would
// skip the verification, which has to see a change of roots.
//
// Nil roots are the system's. Go reads those once in a process (crypto/x509 keeps the pool), so a change
// of the system's roots needs a restart; a path to their bundle in CA_CERT does not.
func clientConfig(roots *rootSet, pair *tls.Certificate, noVerify bool) *tls.Config {
	config := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		RootCAs:            roots.certPool(),
		InsecureSkipVerify: noVerify,
	}
	if pair != nil {
		// Not Certificates: crypto/tls sends none of those that the server's list of authorities
		// does not cover, and the server would complain of a missing certificate.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return pair, nil }
	}
	return config
}
