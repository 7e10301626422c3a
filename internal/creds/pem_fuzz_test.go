package creds

import (
	"bytes"
	"crypto/ecdsa"
	"encoding/pem"
	"testing"

	"example.com/grpc-health-http/test/healthtest"
)

// FuzzPEM checks that no content makes the parsers panic, that a pair they accept is one, and
// that what they say holds nothing of the content.
func FuzzPEM(f *testing.F) {
	ca := healthtest.NewCA(f)
	leaf, other := ca.Server(f), ca.Server(f)
	f.Add(leaf.CertPEM, leaf.KeyPEM)
	f.Add(leaf.CertPEM, other.KeyPEM)
	f.Add(append(other.CertPEM, leaf.CertPEM[:200]...), leaf.KeyPEM)
	f.Add(bytes.Replace(leaf.CertPEM, []byte("A"), []byte("B"), 1), leaf.KeyPEM[:90])
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"), pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY"}))
	f.Add([]byte(nil), []byte("\n-----BEGIN "))
	cert, key := Options{}.file("CLIENT_CERT", "c"), Options{}.file("CLIENT_KEY", "k")
	// All that parsePair says of these files.
	messages := map[string]bool{
		"CLIENT_CERT c: holds an incomplete or damaged PEM block":                                     true,
		"CLIENT_CERT c: holds no PEM certificate":                                                     true,
		"CLIENT_CERT c: holds no valid certificate":                                                   true,
		"CLIENT_KEY k: holds an incomplete or damaged PEM block":                                      true,
		"CLIENT_KEY k: holds no PEM private key":                                                      true,
		"CLIENT_KEY k: the private key is encrypted; decrypt it first, with openssl pkey for example": true,
		"CLIENT_KEY k: does not hold the private key of CLIENT_CERT c":                                true,
	}
	f.Fuzz(func(t *testing.T, certPEM, keyPEM []byte) {
		if pool, err := parseRoots(cert, certPEM); (pool == nil) != (err != nil) {
			t.Errorf("roots %v with the error %v", pool, err)
		}
		pair, err := parsePair(cert, key, certPEM, keyPEM)
		if err != nil {
			if !messages[err.Error()] {
				t.Errorf("error %q is none of those that are known to hold no content", err)
			}
			return
		}
		if private, ok := pair.PrivateKey.(*ecdsa.PrivateKey); ok && !private.PublicKey.Equal(pair.Leaf.PublicKey) {
			t.Error("the key is not that of the certificate")
		}
	})
}
