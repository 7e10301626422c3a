package creds

import (
	"bytes"
	"crypto/ecdsa"
	"encoding/pem"
	"strings"
	"testing"

	"example.com/grpc-health-http/internal/pemfile"
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
	f.Fuzz(func(t *testing.T, certPEM, keyPEM []byte) {
		if pool, err := parseRoots(cert, certPEM, pemfile.ServerAuth); (pool == nil) != (err != nil) {
			t.Errorf("roots %v with the error %v", pool, err)
		}
		pair, _, err := parsePair(cert, key, certPEM, keyPEM)
		if err != nil {
			wantNoBase64(t, err, certPEM, keyPEM)
			return
		}
		if private, ok := pair.PrivateKey.(*ecdsa.PrivateKey); ok && !private.PublicKey.Equal(pair.Leaf.PublicKey) {
			t.Error("the key is not that of the certificate")
		}
	})
}

// wantNoBase64 checks that no line of a content is in the error, nor a part of one that is long enough to be base64 of a key. Labels
// of blocks are shown, and have no small letters, + or /.
func wantNoBase64(t testing.TB, err error, contents ...[]byte) {
	t.Helper()
	const run = 16
	said := strings.NewReplacer("-----BEGIN ", "", "-----END ", "").Replace(err.Error())
	for _, content := range contents {
		for i := 0; i+run <= len(content); i++ {
			part := string(content[i : i+run])
			if strings.ContainsAny(part, "abcdefghijklmnopqrstuvwxyz+/") && !strings.ContainsAny(part, " :(),;.-\n") && strings.Contains(said, part) {
				t.Fatalf("the error holds %q of the content", part)
			}
		}
	}
}
