package creds

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"example.com/grpc-health-http/internal/settings"
	"example.com/grpc-health-http/test/healthtest"
	"example.com/grpc-health-http/test/spiffetest"
)

const (
	ourID    = "spiffe://example.org/checker"
	serverID = "spiffe://example.org/server"
)

// serveSPIFFE serves mTLS as serverID to all of the trust domain, which ca stands for.
func serveSPIFFE(t *testing.T, ca *healthtest.CA) string {
	t.Helper()
	leaf := ca.Server(t, spiffetest.ID(t, serverID))
	domain := spiffeid.RequireTrustDomainFromString("example.org")
	root, _ := pem.Decode(ca.PEM())
	authority, err := x509.ParseCertificate(root.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	svid, err := x509svid.Parse(leaf.CertPEM, leaf.KeyPEM)
	if err != nil {
		t.Fatal(err)
	}
	bundle := x509bundle.FromX509Authorities(domain, []*x509.Certificate{authority})
	config := tlsconfig.MTLSServerConfig(svid, bundle, tlsconfig.AuthorizeMemberOf(domain))
	config.MinVersion = tls.VersionTLS12
	return serveTLS(t, config)
}

func TestSPIFFEServerID(t *testing.T) {
	t.Parallel()
	ca := healthtest.NewCA(t)
	address := serveSPIFFE(t, ca)
	api := spiffetest.Start(t)
	ours := ca.Client(t, spiffetest.ID(t, ourID))
	api.Issue(t, ourID, ca, ours)
	for _, test := range []struct {
		serverID string
		wantErr  string
	}{
		{"", ""},
		{serverID, ""},
		{"spiffe://example.org", ""},
		{"spiffe://example.org/other", serverID},
		{"spiffe://example.com", `unexpected trust domain "example.org"`},
	} {
		t.Run("wants "+test.serverID, func(t *testing.T) {
			t.Parallel()
			o, _, e := newOptions()
			o.WorkloadAPI = api.Address
			transport := newTransport(t, &settings.Upstream{SPIFFE: true, SPIFFEServerID: test.serverID}, o)
			if test.wantErr == "" {
				wantHandshake(t, transport, address, "localhost", serial(ours))
				if got := e.lastExpiry(); !got.Equal(ours.TLS.Leaf.NotAfter) {
					t.Errorf("expiry %v, want that of the identity", got)
				}
				return
			}
			tc, err := transport(t.Context(), false)
			if err != nil {
				t.Fatal(err)
			}
			_, _, err = handshake(t, tc, address, "localhost")
			wantError(t, err, test.wantErr)
			wantShown(t, err)
		})
	}
}

// wantShown checks that a failed verification tells which certificate it was of.
func wantShown(t *testing.T, err error) {
	t.Helper()
	failed, ok := errors.AsType[*tls.CertificateVerificationError](err)
	if !ok || len(failed.UnverifiedCertificates) == 0 {
		t.Errorf("error %v shows no certificate", err)
	}
}

func TestSPIFFEServerOfAnotherTrust(t *testing.T) {
	t.Parallel()
	ca, other := healthtest.NewCA(t), healthtest.NewCA(t)
	api := spiffetest.Start(t)
	api.Issue(t, ourID, other, other.Client(t, spiffetest.ID(t, ourID)))
	o, _, _ := newOptions()
	o.WorkloadAPI = api.Address
	tc, err := newTransport(t, &settings.Upstream{SPIFFE: true}, o)(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = handshake(t, tc, serveSPIFFE(t, ca), "localhost")
	wantError(t, err, "x509")
	wantShown(t, err)
	// A certificate that is no SVID is none of the mesh, whoever signed it.
	_, _, err = handshake(t, tc, serveTLS(t, other.ServerTLS(t)), "localhost")
	wantError(t, err, "SPIFFE")
}

func TestSPIFFERotation(t *testing.T) {
	t.Parallel()
	ca := healthtest.NewCA(t)
	address := serveSPIFFE(t, ca)
	uri := spiffetest.ID(t, ourID)
	first, second, third := ca.Client(t, uri), ca.Client(t, uri), ca.Client(t, uri)
	api := spiffetest.Start(t)
	api.Issue(t, ourID, ca, first)
	o, c, e := newOptions()
	o.WorkloadAPI = api.Address
	transport := newTransport(t, &settings.Upstream{SPIFFE: true}, o)

	before := wantHandshake(t, transport, address, "localhost", serial(first))
	c.advance(stale)
	if again := wantHandshake(t, transport, address, "localhost", serial(first)); again != before {
		t.Error("the same identity gave other credentials")
	}
	if n := api.Fetches(); n != 2 {
		t.Errorf("%d fetches, want 2", n)
	}
	api.Issue(t, ourID, ca, second)
	wantHandshake(t, transport, address, "localhost", serial(first)) // not 5 s old
	c.advance(stale)
	last := wantHandshake(t, transport, address, "localhost", serial(second))
	wantReload(t, e, SPIFFEIdentity, "")
	api.Issue(t, ourID, ca, third)
	if tc, err := transport(t.Context(), true); err != nil || tc == last {
		t.Errorf("error %v; want the third identity at once", err)
	}
	wantHandshake(t, transport, address, "localhost", serial(third))
	wantReload(t, e, SPIFFEIdentity, "")

	// The last identity is used until it expires, whatever happens to the API.
	api.Refuse()
	c.advance(stale)
	wantHandshake(t, transport, address, "localhost", serial(third))
	wantReload(t, e, SPIFFEIdentity, "no identity issued")
	c.advance(time.Until(third.TLS.Leaf.NotAfter) + time.Minute)
	_, err := transport(t.Context(), false)
	wantError(t, err, "SPIFFE Workload API "+api.Address, "no identity issued")
}

func TestSPIFFEWithoutIdentity(t *testing.T) {
	t.Parallel()
	ca := healthtest.NewCA(t)
	refusing, silent, outdated := spiffetest.Start(t), spiffetest.Start(t), spiffetest.Start(t)
	uri := spiffetest.ID(t, ourID)
	silent.Issue(t, ourID, ca, ca.Client(t, uri))
	silent.Hang()
	outdated.Issue(t, ourID, ca, ca.Client(t, uri, healthtest.Expired()))
	missing := "unix://" + filepath.Join(t.TempDir(), "missing.sock")
	for _, test := range []struct{ name, address, want string }{
		{"socket missing", missing, "SPIFFE Workload API " + missing},
		{"refused", refusing.Address, "no identity issued"},
		{"silent", silent.Address, "SPIFFE Workload API: not loaded in time"},
		{"expired", outdated.Address, "the certificate of " + ourID + " expired at"},
		{"no address at all", "agent.sock", "SPIFFE Workload API agent.sock"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			o, _, _ := newOptions()
			o.WorkloadAPI = test.address
			transport := newTransport(t, &settings.Upstream{SPIFFE: true}, o)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			tc, err := transport(ctx, false)
			wantError(t, err, test.want)
			if tc != nil {
				t.Error("credentials came with the error")
			}
		})
	}
}

func TestSPIFFEAddressFromTheEnvironment(t *testing.T) {
	ca := healthtest.NewCA(t)
	api := spiffetest.Start(t)
	ours := ca.Client(t, spiffetest.ID(t, ourID))
	api.Issue(t, ourID, ca, ours)
	t.Setenv("SPIFFE_ENDPOINT_SOCKET", api.Address)
	wantHandshake(t, newTransport(t, &settings.Upstream{SPIFFE: true}, Options{}), serveSPIFFE(t, ca), "localhost", serial(ours))

	t.Setenv("SPIFFE_ENDPOINT_SOCKET", "")
	_, err := newTransport(t, &settings.Upstream{SPIFFE: true}, Options{})(t.Context(), false)
	wantError(t, err, "its address is not set in SPIFFE_ENDPOINT_SOCKET")
}

func TestWrongSPIFFEServerID(t *testing.T) {
	t.Parallel()
	for _, id := range []string{"example.org/server", "spiffe://", "https://example.org/server", "spiffe://example.org/server/"} {
		_, err := Upstream(&settings.Upstream{SPIFFE: true, SPIFFEServerID: id}, Options{})
		wantError(t, err, "SPIFFE_SERVER_ID: not a SPIFFE ID such as")
	}
}
