package creds

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

// identity is what the Workload API gave, ready for a dial.
//
// It is the transport credentials itself, so that a dial can tell a new identity by its pointer.
type identity struct {
	credentials.TransportCredentials
	notAfter time.Time
}

// spiffeTransport returns mTLS credentials from the SPIFFE Workload API. The API is a stream that pushes
// rotations; a dial asks it for one answer instead, because nothing runs between requests.
func spiffeTransport(m material, o Options) (*transport, error) {
	authorizer, err := authorizer(m.serverID)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.setting("SPIFFE_SERVER_ID"), err)
	}
	var api *source[*identity]
	api = newSource(o, SPIFFEIdentity, "SPIFFE Workload API", func(ctx context.Context, known digest) (*identity, digest, error) {
		return fetchIdentity(ctx, o.WorkloadAPI, time.Unix(0, api.clock().Wall), authorizer, known)
	})
	api.usable = func(id *identity) bool { return time.Unix(0, api.clock().Wall).Before(id.notAfter) }
	return &transport{
		load: func(ctx context.Context, force bool) (credentials.TransportCredentials, error) {
			id, err := api.get(ctx, force)
			if err != nil {
				return nil, err
			}
			return id, nil
		},
		ends: func() time.Time {
			if id := api.latest(); id != nil {
				return id.notAfter
			}
			return time.Time{}
		},
	}, nil
}

// authorizer accepts the server ID; every ID where it is empty; every ID of the trust domain where
// it has no path.
func authorizer(serverID string) (tlsconfig.Authorizer, error) {
	if serverID == "" {
		return tlsconfig.AuthorizeAny(), nil
	}
	id, err := spiffeid.FromString(serverID)
	if err != nil {
		return nil, fmt.Errorf("not a SPIFFE ID such as spiffe://example.org/server: %w", err)
	}
	if id.Path() == "" {
		return tlsconfig.AuthorizeMemberOf(id.TrustDomain()), nil
	}
	return tlsconfig.AuthorizeID(id), nil
}

func fetchIdentity(ctx context.Context, address string, now time.Time, authorizer tlsconfig.Authorizer, known digest) (*identity, digest, error) {
	if address == "" {
		address = os.Getenv(workloadapi.SocketEnv)
	}
	if address == "" {
		return nil, digest{}, errors.New("SPIFFE Workload API: its address is not set in " + workloadapi.SocketEnv)
	}
	x509Context, err := workloadapi.FetchX509Context(ctx,
		workloadapi.WithAddr(address),
		// The API belongs to this machine: no proxy leads to it.
		// grpc-go bounds an answer to 4 MiB, and its headers to 16 MiB, which is more than there may be memory.
		workloadapi.WithDialOptions(grpc.WithNoProxy(), grpc.WithMaxHeaderListSize(64<<10)))
	if err != nil {
		return nil, digest{}, fmt.Errorf("SPIFFE Workload API %s: %w", address, err)
	}
	svid := x509Context.DefaultSVID()
	notAfter := svid.Certificates[0].NotAfter
	if !now.Before(notAfter) {
		return nil, digest{}, fmt.Errorf("SPIFFE Workload API %s: the certificate of %s expired at %s",
			address, svid.ID, notAfter.UTC().Format(time.RFC3339))
	}
	found := identityDigest(x509Context)
	if found == known {
		return nil, found, nil
	}
	config := tlsconfig.MTLSClientConfig(svid, x509Context.Bundles, authorizer)
	config.VerifyPeerCertificate = showing(config.VerifyPeerCertificate)
	return &identity{newTLS(config, advice{certificate: "the SPIFFE Workload API"}), notAfter}, found, nil
}

// showing is verify with the certificate in its errors, as crypto/tls has it in those of its own verification: the
// evidence of a failure shows the upstream's certificate.
func showing(verify func([][]byte, [][]*x509.Certificate) error) func([][]byte, [][]*x509.Certificate) error {
	return func(raw [][]byte, chains [][]*x509.Certificate) error {
		err := verify(raw, chains)
		if err == nil {
			return nil
		}
		shown := &tls.CertificateVerificationError{Err: err}
		for _, der := range raw {
			if c, err := x509.ParseCertificate(der); err == nil { // crypto/tls has parsed them already
				shown.UnverifiedCertificates = append(shown.UnverifiedCertificates, c)
			}
		}
		return shown
	}
}

// identityDigest tells an answer of the Workload API from others. A rotated key comes with another
// certificate, so the certificates suffice.
func identityDigest(x *workloadapi.X509Context) digest {
	sum := sha256.New()
	for _, c := range x.DefaultSVID().Certificates {
		sum.Write(c.Raw)
	}
	for _, bundle := range x.Bundles.Bundles() { // sorted by trust domain
		sum.Write([]byte(bundle.TrustDomain().IDString()))
		for _, c := range bundle.X509Authorities() {
			sum.Write(c.Raw)
		}
	}
	return digest(sum.Sum(nil))
}
