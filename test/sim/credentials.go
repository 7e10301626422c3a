//go:build !race

package sim

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// readAgain is the age from which the client reads its files again without being asked to.
const readAgain = 5 * time.Second

// fits says that a dial can succeed once the client has read its files.
func (i identity) fits() bool {
	return i.shows == i.authority && (i.trusts == i.authority || i.both)
}

func poolOf(all ...*authority) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, a := range all {
		pool.AddCert(a.root)
	}
	return pool
}

// serverTLS is the server's configuration, which requires a client certificate of its own authority.
func (w *world) serverTLS() *tls.Config {
	return &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		a := authorities()[w.identity.authority]
		return &tls.Config{
			Certificates: a.servers[w.identity.leaf : w.identity.leaf+1], ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: poolOf(a),
			NextProtos: []string{"h2"}, SessionTicketsDisabled: true, MinVersion: tls.VersionTLS12,
		}, nil
	}}
}

// newCredentials returns the function that the checker gets its credentials from.
func (w *world) newCredentials() func(ctx context.Context, refresh bool) (credentials.TransportCredentials, error) {
	var current *metered
	var read time.Time
	var holds identity
	return func(ctx context.Context, refresh bool) (credentials.TransportCredentials, error) {
		if err := w.await(ctx, &w.secrets); err != nil {
			return nil, err
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		switch files := w.identity; {
		case !w.tls && current == nil:
			current = &metered{insecure.NewCredentials(), w}
		case !w.tls || current != nil && !refresh && time.Since(read) < readAgain:
		case current != nil && files.trusts == holds.trusts && files.shows == holds.shows && files.both == holds.both:
			read = time.Now()
		default:
			read, holds = time.Now(), files
			current = &metered{credentials.NewTLS(clientTLS(files)), w}
		}
		return current, nil
	}
}

// clientTLS is a client's configuration, of what its files hold.
func clientTLS(files identity) *tls.Config {
	all := authorities()
	roots := poolOf(all[files.trusts])
	if files.both {
		roots = poolOf(all[:]...)
	}
	pair := &all[files.shows].client
	return &tls.Config{
		RootCAs: roots, MinVersion: tls.VersionTLS12,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return pair, nil },
	}
}
