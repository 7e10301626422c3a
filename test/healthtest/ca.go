// Package healthtest offers what tests need to run real health checks on loopback:
//
//   - CA issues certificates; Mount writes them to files as platforms mount secrets.
//   - Start runs a gRPC server, the Upstream, whose health service answers as the test says.
//   - Forward puts a TCP proxy with faults, the Forwarder, between a client and an upstream.
//   - StartFrontEnd runs an HTTP/2 server that does not answer as a gRPC server should.
//   - StartNameServer runs a DNS server; DropSYNs makes connecting to an address hang.
//   - WatchStalls reports when the machine was too busy to run the test.
//
// Nothing is a mock: every byte goes through a real socket. Only tests import it.
package healthtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// CA is a certificate authority with an ECDSA P-256 key. Its key is kept in memory only. It is safe for concurrent use.
type CA struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pem         []byte
}

// NewCA makes a new CA.
func NewCA(t testing.TB) *CA {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber:          newSerial(t),
		Subject:               pkix.Name{CommonName: "healthtest CA"},
		NotBefore:             time.Now().Add(-24 * 365 * time.Hour),
		NotAfter:              time.Now().Add(24 * 365 * time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatalf("create CA certificate: %v", err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatalf("parse CA certificate: %v", err)
	}
	return &CA{certificate: certificate, key: key, pem: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

// Pool returns a new pool that holds only the CA's certificate.
func (ca *CA) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(ca.certificate)
	return pool
}

// PEM returns the CA's certificate, PEM encoded.
func (ca *CA) PEM() []byte { return append([]byte(nil), ca.pem...) }

// WriteFile writes the CA's certificate to dir/name_crt.pem and returns the path.
func (ca *CA) WriteFile(t testing.TB, dir, name string) string {
	t.Helper()
	path := filepath.Join(dir, name+"_crt.pem")
	writeFile(t, path, ca.pem)
	return path
}

// LeafOption changes a leaf certificate before it is signed.
type LeafOption func(*x509.Certificate)

// DNSNames sets the certificate's DNS names. Without DNSNames, IPs and URI a certificate names
// localhost, 127.0.0.1 and ::1.
func DNSNames(names ...string) LeafOption {
	return func(c *x509.Certificate) { c.DNSNames = names }
}

// IPs sets the certificate's addresses.
func IPs(addrs ...string) LeafOption {
	return func(c *x509.Certificate) {
		for _, a := range addrs {
			c.IPAddresses = append(c.IPAddresses, net.ParseIP(a))
		}
	}
}

// URI adds a URI, such as a SPIFFE ID, as subject alternative name.
func URI(uri *url.URL) LeafOption {
	return func(c *x509.Certificate) { c.URIs = append(c.URIs, uri) }
}

// ValidUntil sets the end of the certificate's validity, in a day by default.
func ValidUntil(notAfter time.Time) LeafOption {
	return func(c *x509.Certificate) { c.NotAfter = notAfter }
}

// Expired makes the certificate's validity end an hour ago.
func Expired() LeafOption {
	return func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(-48*time.Hour), time.Now().Add(-time.Hour)
	}
}

// NotYetValid makes the certificate's validity start in an hour.
func NotYetValid() LeafOption {
	return func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(time.Hour), time.Now().Add(48*time.Hour)
	}
}

// Leaf is a certificate with its key.
type Leaf struct {
	// TLS is the pair for a tls.Config; its Leaf is set.
	TLS tls.Certificate
	// CertPEM and KeyPEM are the same pair, PEM encoded.
	CertPEM, KeyPEM []byte
}

// Server issues a certificate for server authentication.
func (ca *CA) Server(t testing.TB, options ...LeafOption) *Leaf {
	t.Helper()
	return ca.issue(t, x509.ExtKeyUsageServerAuth, "healthtest server", options)
}

// Client issues a certificate for client authentication.
func (ca *CA) Client(t testing.TB, options ...LeafOption) *Leaf {
	t.Helper()
	return ca.issue(t, x509.ExtKeyUsageClientAuth, "healthtest client", options)
}

// ServerTLS returns the configuration of a server with a new certificate.
func (ca *CA) ServerTLS(t testing.TB, options ...LeafOption) *tls.Config {
	t.Helper()
	return &tls.Config{Certificates: []tls.Certificate{ca.Server(t, options...).TLS}, MinVersion: tls.VersionTLS12}
}

// MutualTLS returns the configuration of a server with a new certificate that requires a client
// certificate of this CA.
func (ca *CA) MutualTLS(t testing.TB, options ...LeafOption) *tls.Config {
	t.Helper()
	config := ca.ServerTLS(t, options...)
	config.ClientAuth = tls.RequireAndVerifyClientCert
	config.ClientCAs = ca.Pool()
	return config
}

func (ca *CA) issue(t testing.TB, usage x509.ExtKeyUsage, commonName string, options []LeafOption) *Leaf {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: newSerial(t),
		Subject:      pkix.Name{CommonName: commonName},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{usage},
	}
	for _, option := range options {
		option(template)
	}
	if len(template.DNSNames)+len(template.IPAddresses)+len(template.URIs) == 0 {
		template.DNSNames = []string{"localhost"}
		template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.certificate, &key.PublicKey, ca.key)
	if err != nil {
		t.Fatalf("issue certificate: %v", err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatalf("encode key: %v", err)
	}
	leaf := &Leaf{
		CertPEM: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		KeyPEM:  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}),
	}
	if leaf.TLS, err = tls.X509KeyPair(leaf.CertPEM, leaf.KeyPEM); err != nil {
		t.Fatalf("pair certificate and key: %v", err)
	}
	return leaf
}

// WriteFiles writes dir/name_crt.pem and dir/name_key.pem, replacing existing files, and returns the paths.
func (l *Leaf) WriteFiles(t testing.TB, dir, name string) (certFile, keyFile string) {
	t.Helper()
	certFile, keyFile = filepath.Join(dir, name+"_crt.pem"), filepath.Join(dir, name+"_key.pem")
	writeFile(t, certFile, l.CertPEM)
	writeFile(t, keyFile, l.KeyPEM)
	return certFile, keyFile
}

func writeFile(t testing.TB, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatalf("generate key: %v", err)
	}
	return key
}

// serialBits is the length of a random serial number: short enough for the 20 octets of RFC 5280, section 4.1.2.2, and long
// enough to be unique.
const serialBits = 127

func newSerial(t testing.TB) *big.Int {
	t.Helper()
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), serialBits))
	if err != nil {
		t.Fatalf("generate serial number: %v", err)
	}
	return serial
}
