package creds

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"math/big"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.com/grpc-health-http/internal/settings"
	"example.com/grpc-health-http/test/healthtest"
)

func pemOf(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func derOf(t *testing.T, content []byte) []byte {
	t.Helper()
	block, _ := pem.Decode(content)
	if block == nil {
		t.Fatal("no PEM block")
	}
	return block.Bytes
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// patched is DER with some bytes replaced by as many others, such as an object identifier.
func patched(t *testing.T, der []byte, old, with string) []byte {
	t.Helper()
	if len(old) != len(with) || !bytes.Contains(der, []byte(old)) {
		t.Fatalf("cannot replace %x by %x", old, with)
	}
	return bytes.ReplaceAll(der, []byte(old), []byte(with))
}

// selfSigned is a certificate with its key in PKCS #8, both in DER.
func selfSigned(t *testing.T, key crypto.Signer) (cert, private []byte) {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes([]byte("\x11\x22\x33\x44\x55\x66\x77\x88")), Subject: pkix.Name{CommonName: "self"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err = x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return cert, private
}

func ecKey(t *testing.T, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// Object identifiers in DER, without tag; those of a line have one length.
const (
	oidP256, oidP192        = "\x2a\x86\x48\xce\x3d\x03\x01\x07", "\x2a\x86\x48\xce\x3d\x03\x01\x01"
	oidP384, oidSecp256k1   = "\x2b\x81\x04\x00\x22", "\x2b\x81\x04\x00\x0a"
	oidECKey, oidDSA        = "\x2a\x86\x48\xce\x3d\x02\x01", "\x2a\x86\x48\xce\x38\x04\x01"
	oidRSA, oidRSAPSS       = "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01", "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a"
	oidEd25519, oidEd448    = "\x06\x03\x2b\x65\x70", "\x06\x03\x2b\x65\x71"
	serial11, serialNegated = "\x02\x08\x11\x22\x33\x44\x55\x66\x77\x88", "\x02\x08\xee\x22\x33\x44\x55\x66\x77\x88"
)

// negative is a certificate with a negative serial number. Its signature does not count here.
func negative(t *testing.T) []byte {
	t.Helper()
	cert, _ := selfSigned(t, ecKey(t, elliptic.P256()))
	return patched(t, cert, serial11, serialNegated)
}

// warnings are the calls of Options.Warning.
type warnings struct {
	mu    sync.Mutex
	texts []string
}

func (w *warnings) warn(what Kind, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.texts = append(w.texts, string(what)+": "+text)
}

func (w *warnings) take() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	taken := w.texts
	w.texts = nil
	return taken
}

// trust appends OpenSSL's trust data to a certificate.
func trust(t *testing.T, der []byte, data any) []byte {
	t.Helper()
	aux, err := asn1.Marshal(data)
	if err != nil {
		t.Fatal(err)
	}
	return pemOf("TRUSTED CERTIFICATE", join(der, aux))
}

// TestRoots ranges over what is found in CA files, for the upstream's and the listener's.
func TestRoots(t *testing.T) {
	t.Parallel()
	ca, other := healthtest.NewCA(t), healthtest.NewCA(t)
	leaf := ca.Server(t)
	der := derOf(t, ca.PEM())
	serverAuth, clientAuth := asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 1}, asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 2}
	type trusting struct {
		For     []asn1.ObjectIdentifier
		Against []asn1.ObjectIdentifier `asn1:"optional,omitempty,tag:0"`
	}
	type rejecting struct {
		Against []asn1.ObjectIdentifier `asn1:"tag:0"`
		Alias   string                  `asn1:"utf8"`
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	of := func(signer crypto.Signer, old, with string) []byte {
		cert, _ := selfSigned(t, signer)
		return patched(t, cert, old, with)
	}
	pss, dsa, k1 := of(rsaKey, oidRSA, oidRSAPSS), of(ecKey(t, elliptic.P256()), oidECKey, oidDSA), of(ecKey(t, elliptic.P384()), oidP384, oidSecp256k1)
	indented := []byte("  " + strings.ReplaceAll(string(ca.PEM()), "\n", "\n  "))
	for _, test := range []struct {
		name    string
		content []byte
		takes   int    // certificates; 0 refuses the content
		says    string // in the error, or in the warning; empty where there is neither
	}{
		{"as it should be", ca.PEM(), 1, ""},
		{"a byte order mark", join([]byte("\uFEFF"), ca.PEM(), other.PEM()), 2, ""},
		{"the second one indented", join(other.PEM(), indented), 2, ""},
		{"CR alone", bytes.ReplaceAll(ca.PEM(), []byte("\n"), []byte("\r")), 1, ""},
		{"another label", pemOf("X509 CERTIFICATE", der), 1, ""},
		{"a header", bytes.Replace(ca.PEM(), []byte("-----\n"), []byte("-----\nfriendlyName: x\n\n"), 1), 1, ""},
		{"trusted, without data", pemOf("TRUSTED CERTIFICATE", der), 1, ""},
		{"trusted, with empty data", trust(t, der, struct{}{}), 1, ""},
		{"trusted for both", trust(t, der, trusting{For: []asn1.ObjectIdentifier{serverAuth, clientAuth}}), 1, ""},
		{"rejected for another use", join(other.PEM(), trust(t, der, rejecting{Against: []asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 4}}, Alias: "x"})), 2, ""},
		{"rejected for any use", join(other.PEM(), trust(t, der, rejecting{Against: []asn1.ObjectIdentifier{{2, 5, 29, 37, 0}}})), 1, "block 2 (TRUSTED CERTIFICATE): its trust data do not allow this use"},
		{"rejected for both", trust(t, der, rejecting{Against: []asn1.ObjectIdentifier{serverAuth, clientAuth}}), 0, "holds no valid certificate: block 1 (TRUSTED CERTIFICATE): its trust data do not allow this use"},
		{"trusted for another use", trust(t, der, trusting{For: []asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 4}}}), 0, "its trust data do not allow this use"},
		{"a negative serial number beside a root", join(ca.PEM(), pemOf("CERTIFICATE", negative(t))), 1, "not used: block 2 (CERTIFICATE): it has a negative serial number"},
		{"a negative serial number alone", pemOf("CERTIFICATE", negative(t)), 0, "holds no valid certificate: block 1 (CERTIFICATE): it has a negative serial number"},
		{"a key of RSA-PSS beside a root", join(ca.PEM(), pemOf("CERTIFICATE", pss)), 1, "block 2 (CERTIFICATE): its key is of the type RSA-PSS"},
		{"a key of RSA-PSS alone", pemOf("CERTIFICATE", pss), 0, "holds no valid certificate: block 1 (CERTIFICATE): its key is of the type RSA-PSS"},
		{"a key of DSA", pemOf("CERTIFICATE", dsa), 0, "its key is of the type DSA"},
		{"a curve that Go does not know", join(pemOf("CERTIFICATE", k1), ca.PEM()), 1, "block 1 (CERTIFICATE): its key is on the curve secp256k1"},
		{"parameters of DSA", join(ca.PEM(), pemOf("DSA PARAMETERS", []byte("p"))), 1, "parameters of keys, and no key"},
		{"a key", leaf.KeyPEM, 0, "holds no PEM certificate: block 1 (PRIVATE KEY): a private key"},
		{"a key beside a root", join(leaf.KeyPEM, ca.PEM()), 1, "block 1 (PRIVATE KEY): a private key"},
		{"a revocation list beside a root", join(ca.PEM(), pemOf("X509 CRL", []byte("list"))), 1, "block 2 (X509 CRL): a certificate revocation list"},
		{"a request", pemOf("CERTIFICATE REQUEST", []byte("request")), 0, "block 1 (CERTIFICATE REQUEST): a certificate signing request"},
		{"an older request", pemOf("NEW CERTIFICATE REQUEST", []byte("request")), 0, "a certificate signing request"},
		{"PKCS #7", pemOf("PKCS7", []byte("bundle")), 0, "block 1 (PKCS7): a PKCS #7 bundle: write out its certificates"},
		{"a public key", join(pemOf("PUBLIC KEY", []byte("key")), ca.PEM()), 1, "block 1 (PUBLIC KEY): a public key"},
		{"parameters", join(ca.PEM(), pemOf("DH PARAMETERS", []byte("p"))), 1, "block 2 (DH PARAMETERS): parameters of keys, and no key"},
		{"an unknown kind", join(ca.PEM(), pemOf("ATTRIBUTE CERTIFICATE", []byte("p"))), 1, "block 2 (ATTRIBUTE CERTIFICATE): neither a certificate nor a key"},
		{"many of no use", join(ca.PEM(), bytes.Repeat(pemOf("X509 CRL", []byte("list")), 9)), 1, "and 4 more"},
		{"DER", der, 0, "holds no PEM certificate: it is a certificate in DER"},
		{"DER that Go refuses", negative(t), 0, "holds no PEM certificate: it is a certificate in DER"},
		{"a key in DER", derOf(t, leaf.KeyPEM), 0, "holds no PEM certificate: it is a private key in DER"},
		{"PEM in base64", []byte(base64.StdEncoding.EncodeToString(ca.PEM())), 0, "holds no PEM certificate: it is PEM in base64"},
		{"HTML", []byte("<html>404</html>"), 0, "holds no PEM certificate: it is HTML"},
		{"no BEGIN line", ca.PEM()[28:], 0, "holds an incomplete or damaged PEM block: block 1 (CERTIFICATE): it has no BEGIN line"},
		{"a half one behind a root", join(other.PEM(), ca.PEM()[:200]), 0, "block 2 (CERTIFICATE): it has no END line"},
		{"a half one before a root", join(ca.PEM()[:200], []byte("\n"), other.PEM()), 0, "block 1 (CERTIFICATE): it has no END line"},
		{"damaged base64", join(other.PEM(), bytes.Replace(ca.PEM(), []byte("\nMI"), []byte("\n*I"), 1)), 0, "block 2 (CERTIFICATE): its base64 is damaged"},
		{"half the content", join(other.PEM(), pemOf("CERTIFICATE", der[:len(der)/2])), 0, "block 2 (CERTIFICATE): its content is no whole certificate"},
		{"a key with a certificate's label", join(other.PEM(), pemOf("CERTIFICATE", derOf(t, leaf.KeyPEM))), 0, "block 2 (CERTIFICATE): its content is no whole certificate"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			for _, what := range []Kind{UpstreamRoots, ListenerRoots} {
				r, w := newReader(), warnings{}
				o, c, e := newOptions()
				o.Read, o.Warning = r.read, w.warn
				roots, err := o.roots(what, "SETTING", "ca.pem")
				if err != nil {
					t.Fatal(err)
				}
				// The content replaces another one, and is the first.
				r.set("ca.pem", join(other.PEM(), other.PEM(), other.PEM(), other.PEM()))
				if _, err := roots.get(t.Context(), false); err != nil {
					t.Fatal(err)
				}
				before := roots.latest()
				r.set("ca.pem", test.content)
				c.advance(stale)
				set, err := roots.get(t.Context(), false)
				if err != nil {
					t.Fatal(err)
				}
				said := w.take()
				if test.takes == 0 {
					wantReload(t, e, what, "SETTING ca.pem: ")
					if set != before || len(said) > 0 {
						t.Errorf("%s: the content is used, with the warnings %q; want the last good one to go on", what, said)
					}
					_, err := parseRoots(o.file("SETTING", "ca.pem"), test.content, serverAuth)
					wantError(t, err, "SETTING ca.pem: ", test.says)
					wantNoBase64(t, err, test.content)
					continue
				}
				wantReload(t, e, what, "")
				if len(set.certificates) != test.takes {
					t.Errorf("%s: %d certificates, want %d", what, len(set.certificates), test.takes)
				}
				if test.says == "" && len(said) > 0 || test.says != "" && (len(said) != 1 || !strings.Contains(said[0], "SETTING ca.pem: not used: ") || !strings.Contains(said[0], test.says)) {
					t.Errorf("%s: warnings %q, want %q", what, said, test.says)
				}
				if test.says != "" && !strings.Contains(set.unused, test.says) {
					t.Errorf("%s: the set does not know what is not used: %q", what, set.unused)
				}
				c.advance(stale)
				if _, err := roots.get(t.Context(), true); err != nil || len(w.take()) > 0 {
					t.Errorf("%s: the same content warns again (error %v)", what, err)
				}
			}
		})
	}
	for _, test := range []struct {
		what Kind
		for_ asn1.ObjectIdentifier
		want bool
	}{{UpstreamRoots, serverAuth, true}, {UpstreamRoots, clientAuth, false}, {ListenerRoots, clientAuth, true}, {ListenerRoots, serverAuth, false}} {
		r := newReader()
		r.set("ca.pem", trust(t, der, trusting{For: []asn1.ObjectIdentifier{test.for_}}))
		roots, err := Options{Read: r.read}.roots(test.what, "SETTING", "ca.pem")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := roots.get(t.Context(), false); (err == nil) != test.want {
			t.Errorf("%s, trusted for %v: error %v", test.what, test.for_, err)
		}
	}
}

// TestPairs ranges over what is found in the files of a certificate and its key.
func TestPairs(t *testing.T) {
	t.Parallel()
	ca := healthtest.NewCA(t)
	leaf, other := ca.Client(t), ca.Client(t)
	cert, key := leaf.CertPEM, leaf.KeyPEM
	// of is a pair in PEM, after its bytes were replaced in both.
	of := func(signer crypto.Signer, old, with string) (cert, key []byte) {
		certDER, keyDER := selfSigned(t, signer)
		return pemOf("CERTIFICATE", patched(t, certDER, old, with)), pemOf("PRIVATE KEY", patched(t, keyDER, old, with))
	}
	rsaSigner, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, edSigner, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	pssCert, pssKey := of(rsaSigner, oidRSA, oidRSAPSS)
	ed448Cert, ed448Key := of(edSigner, oidEd25519, oidEd448)
	k1Cert, k1Key := of(ecKey(t, elliptic.P384()), oidP384, oidSecp256k1)
	p192Cert, p192Key := of(ecKey(t, elliptic.P256()), oidP256, oidP192)
	dsaCert, dsaKey := of(ecKey(t, elliptic.P256()), oidECKey, oidDSA)
	negativeSigner := ecKey(t, elliptic.P256())
	negativeCert, negativeKey := selfSigned(t, negativeSigner)
	negativeCert = patched(t, negativeCert, serial11, serialNegated)
	x25519Key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	x25519DER, err := x509.MarshalPKCS8PrivateKey(x25519Key)
	if err != nil {
		t.Fatal(err)
	}
	signer := leaf.TLS.PrivateKey.(*ecdsa.PrivateKey)
	sec1, err := x509.MarshalECPrivateKey(signer)
	if err != nil {
		t.Fatal(err)
	}
	rsaCert, _ := selfSigned(t, rsaSigner)
	pkcs1 := x509.MarshalPKCS1PrivateKey(rsaSigner)
	edCert, edKey := selfSigned(t, edSigner)
	parameters := pemOf("EC PARAMETERS", []byte("\x06\x08"+oidP256))
	crl := pemOf("X509 CRL", []byte("list"))
	const certIs, keyIs, notOf = "CLIENT_CERT cert.pem: ", "CLIENT_KEY key.pem: ", "does not hold the private key of CLIENT_CERT cert.pem"
	for _, test := range []struct {
		name      string
		cert, key []byte
		fails     string // empty where the pair is usable
		warns     string
	}{
		{"as it should be", cert, key, "", ""},
		{"a byte order mark in each", join([]byte("\uFEFF"), cert), join([]byte("\uFEFF"), key), "", ""},
		{"the key of an older form", cert, pemOf("EC PRIVATE KEY", sec1), "", ""},
		{"parameters before the key", cert, join(parameters, pemOf("EC PRIVATE KEY", sec1)), "", ""},
		{"RSA of an older form", pemOf("CERTIFICATE", rsaCert), pemOf("RSA PRIVATE KEY", pkcs1), "", ""},
		{"Ed25519", pemOf("CERTIFICATE", edCert), pemOf("PRIVATE KEY", edKey), "", ""},
		{"a chain", join(cert, ca.PEM()), key, "", ""},
		{"a trusted certificate", trust(t, derOf(t, cert), struct{}{}), key, "", ""},
		{"both in one file, the certificate first", join(cert, key), join(cert, key), "", ""},
		{"both in one file, the key first", join(key, cert), join(key, cert), "", ""},
		{"both in one file, with parameters", join(parameters, key, cert), join(parameters, key, cert), "", ""},
		{"several keys", cert, join(other.KeyPEM, key), "", ""},
		{"several keys, one encrypted", cert, join(pemOf("ENCRYPTED PRIVATE KEY", []byte("key")), key), "", ""},
		{"a chain with a negative serial number in the middle", join(cert, pemOf("CERTIFICATE", negativeCert), ca.PEM()), key, "", ""},
		{"a revocation list in the chain", join(cert, crl), key, "", "CLIENT_CERT cert.pem: not used: block 2 (X509 CRL): a certificate revocation list"},
		{"a request beside the certificate", join(pemOf("CERTIFICATE REQUEST", []byte("r")), cert), key, "", "block 1 (CERTIFICATE REQUEST): a certificate signing request"},

		{"exchanged", key, cert, "CLIENT_CERT cert.pem holds a private key, and CLIENT_KEY key.pem a certificate: exchange the two", ""},
		{"exchanged, with an encrypted key", pemOf("ENCRYPTED PRIVATE KEY", []byte("key")), cert, "exchange the two", ""},
		{"exchanged, with a chain", join(parameters, key), join(cert, ca.PEM()), "exchange the two", ""},
		{"the chain upside down", join(ca.PEM(), cert), key, certIs + "its certificate 2 is that of the private key, and must be its first", ""},
		{"the leaf in the middle", join(ca.PEM(), cert, other.CertPEM), key, certIs + "its certificate 2 is", ""},
		{"a negative serial number before the leaf", join(pemOf("CERTIFICATE", negativeCert), cert), key, certIs + "its certificate 2 is", ""},
		{"another's key", cert, other.KeyPEM, keyIs + notOf, ""},
		{"several keys, all another's", cert, join(other.KeyPEM, pemOf("RSA PRIVATE KEY", pkcs1)), keyIs + notOf, ""},
		{"the CA's certificate alone", ca.PEM(), key, keyIs + notOf, ""},
		{"a negative serial number", pemOf("CERTIFICATE", negativeCert), pemOf("PRIVATE KEY", negativeKey), certIs + "block 1 (CERTIFICATE): it has a negative serial number", ""},
		{"RSA-PSS", pssCert, pssKey, keyIs + "block 1 (PRIVATE KEY): its key is of the type RSA-PSS, which Go's TLS does not support", ""},
		{"Ed448", ed448Cert, ed448Key, keyIs + "block 1 (PRIVATE KEY): its key is of the type Ed448", ""},
		{"DSA", dsaCert, dsaKey, keyIs + "block 1 (PRIVATE KEY): its key is of the type DSA", ""},
		{"DSA of an older form", cert, pemOf("DSA PRIVATE KEY", dsaNumbers(t)), keyIs + "block 1 (DSA PRIVATE KEY): its key is of the type DSA", ""},
		{"X25519", cert, pemOf("PRIVATE KEY", x25519DER), keyIs + "block 1 (PRIVATE KEY): its key is of the type X25519", ""},
		{"secp256k1", k1Cert, k1Key, keyIs + "block 1 (PRIVATE KEY): its key is on the curve secp256k1", ""},
		{"P-192", p192Cert, p192Key, keyIs + "block 1 (PRIVATE KEY): its key is on the curve P-192", ""},
		{"secp256k1 of an older form", cert, pemOf("EC PRIVATE KEY", patched(t, sec1, oidP256, oidP192)), keyIs + "block 1 (EC PRIVATE KEY): its key is on the curve P-192", ""},
		{"a certificate of RSA-PSS with a usable key", pssCert, key, certIs + "block 1 (CERTIFICATE): its key is of the type RSA-PSS", ""},
		{"a certificate on secp256k1 with a usable key", k1Cert, key, certIs + "block 1 (CERTIFICATE): its key is on the curve secp256k1", ""},
		{"an encrypted key", cert, pemOf("ENCRYPTED PRIVATE KEY", []byte("key")), keyIs + "the private key is encrypted", ""},
		{"OpenSSH", cert, pemOf("OPENSSH PRIVATE KEY", []byte("openssh-key-v1\x00")), keyIs + "block 1 (OPENSSH PRIVATE KEY): it is in OpenSSH's own format", ""},
		{"parameters alone", cert, parameters, keyIs + "holds no PEM private key: block 1 (EC PARAMETERS): parameters of keys, and no key", ""},
		{"a public key", cert, pemOf("PUBLIC KEY", []byte("key")), keyIs + "holds no PEM private key: block 1 (PUBLIC KEY): a public key", ""},
		{"a public key of RSA", cert, pemOf("RSA PUBLIC KEY", []byte("key")), keyIs + "holds no PEM private key: block 1 (RSA PUBLIC KEY): a public key", ""},
		{"a public key of SSH", cert, []byte("ssh-rsa AAAAB3Nza me"), keyIs + "holds no PEM private key: it is a public key of SSH", ""},
		{"a key of PuTTY", cert, []byte("PuTTY-User-Key-File-2: ssh-rsa"), keyIs + "holds no PEM private key: it is a key in PuTTY's format", ""},
		{"a key in DER", cert, derOf(t, key), keyIs + "holds no PEM private key: it is a private key in DER", ""},
		{"a request", pemOf("CERTIFICATE REQUEST", []byte("r")), key, certIs + "holds no PEM certificate: block 1 (CERTIFICATE REQUEST): a certificate signing request", ""},
		{"PKCS #7", pemOf("PKCS7", []byte("r")), key, certIs + "holds no PEM certificate: block 1 (PKCS7): a PKCS #7 bundle", ""},
		{"a certificate in DER", derOf(t, cert), key, certIs + "holds no PEM certificate: it is a certificate in DER", ""},
		{"half an intermediate", join(cert, ca.PEM()[:99]), key, certIs + "holds an incomplete or damaged PEM block: block 2 (CERTIFICATE): it has no END line", ""},
		{"half the content of an intermediate", join(cert, pemOf("CERTIFICATE", derOf(t, ca.PEM())[:99])), key, certIs + "holds an incomplete or damaged PEM block: block 2 (CERTIFICATE): its content is no whole certificate", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r, w := newReader(), warnings{}
			o, c, e := newOptions()
			o.Read, o.Warning = r.read, w.warn
			first := ca.Client(t)
			r.set("cert.pem", first.CertPEM)
			r.set("key.pem", first.KeyPEM)
			pair, err := o.pair(ListenerCertificate, "CLIENT_CERT", "cert.pem", "CLIENT_KEY", "key.pem")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := pair.get(t.Context(), false); err != nil {
				t.Fatal(err)
			}
			r.set("cert.pem", test.cert)
			r.set("key.pem", test.key)
			c.advance(stale)
			got, err := pair.get(t.Context(), false)
			if err != nil {
				t.Fatal(err)
			}
			if test.fails != "" {
				wantReload(t, e, ListenerCertificate, test.fails)
				if got.Leaf.SerialNumber.Cmp(first.TLS.Leaf.SerialNumber) != 0 {
					t.Error("the last good pair does not go on")
				}
				_, _, err := parsePair(o.file("CLIENT_CERT", "cert.pem"), o.file("CLIENT_KEY", "key.pem"), test.cert, test.key)
				wantError(t, err, test.fails)
				wantNoBase64(t, err, test.cert, test.key)
				return
			}
			wantReload(t, e, ListenerCertificate, "")
			if said := strings.Join(w.take(), "\n"); !strings.Contains(said, test.warns) || test.warns == "" && said != "" {
				t.Errorf("warnings %q, want %q", said, test.warns)
			}
			// What crypto/tls makes of the same, it does here, too.
			if want, err := tls.X509KeyPair(test.cert, test.key); err == nil &&
				(!slices.EqualFunc(got.Certificate, want.Certificate, bytes.Equal) || !got.Leaf.Equal(want.Leaf)) {
				t.Errorf("the pair is another one than crypto/tls makes")
			}
			// The pair is one: a server with it is believed.
			pool := x509.NewCertPool()
			pool.AddCert(got.Leaf)
			if !got.PrivateKey.(interface{ Public() crypto.PublicKey }).Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(got.Leaf.PublicKey) {
				t.Error("the key is not that of the certificate")
			}
		})
	}
}

// dsaNumbers are a private key of DSA in OpenSSL's older form.
func dsaNumbers(t *testing.T) []byte {
	t.Helper()
	der, err := asn1.Marshal([]*big.Int{big.NewInt(0), big.NewInt(23), big.NewInt(11), big.NewInt(4), big.NewInt(9), big.NewInt(3)})
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// A read that hangs is named, and what has come is not.
func TestWhichReadHangs(t *testing.T) {
	t.Parallel()
	ca := healthtest.NewCA(t)
	leaf := ca.Client(t)
	files := map[string][]byte{"ca.pem": ca.PEM(), "cert.pem": leaf.CertPEM, "key.pem": leaf.KeyPEM, "token.pem": []byte("secret")}
	for _, test := range []struct {
		hangs []string
		want  string
	}{
		{[]string{"ca.pem"}, "CA_CERT ca.pem: not loaded in time"},
		{[]string{"cert.pem"}, "CLIENT_CERT cert.pem: not loaded in time"},
		{[]string{"key.pem"}, "CLIENT_KEY key.pem: not loaded in time"},
		{[]string{"cert.pem", "key.pem"}, "CLIENT_CERT cert.pem and CLIENT_KEY key.pem: not loaded in time"},
		{[]string{"token.pem"}, "RPC_HEADERS authorization token.pem: not loaded in time"},
	} {
		t.Run(strings.Join(test.hangs, " "), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { // in which all that can end has ended before the budget
				never := make(chan struct{})
				defer close(never)
				o := Options{Read: func(_ context.Context, name string) ([]byte, error) {
					if slices.Contains(test.hangs, name) {
						<-never
					}
					return files[name], nil
				}}
				ran := errors.New("the budget ran out")
				ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, ran)
				defer cancel()
				s := &settings.Upstream{
					TLS: true, CACert: "ca.pem", ClientCert: "cert.pem", ClientKey: "key.pem",
					Headers: []settings.Header{{Name: "authorization", File: "token.pem"}},
				}
				var err error
				if test.hangs[0] == "token.pem" {
					_, err = Metadata(s, o, nil)(ctx)
				} else {
					_, err = newTransport(t, s, o)(ctx, false)
				}
				wantError(t, err, test.want)
				if !errors.Is(err, ran) || strings.Count(err.Error(), "not loaded") != 1 {
					t.Errorf("error %q, want the read that hangs alone, and the cause of the end", err)
				}
			})
		})
	}
}

// A warning is said once as long as it holds, whatever else changes.
func TestWarnings(t *testing.T) {
	t.Parallel()
	ca, other := healthtest.NewCA(t), healthtest.NewCA(t)
	crl, request := pemOf("X509 CRL", []byte("list")), pemOf("CERTIFICATE REQUEST", []byte("request"))
	r, w := newReader(), warnings{}
	o, c, _ := newOptions()
	o.Read, o.Warning = r.read, w.warn
	roots, err := o.roots(UpstreamRoots, "CA_CERT", "ca.pem")
	if err != nil {
		t.Fatal(err)
	}
	for i, step := range []struct {
		content []byte
		want    string
	}{
		{join(ca.PEM(), crl), "X509 CRL"},
		{join(other.PEM(), crl), ""},
		{join(other.PEM(), request), "CERTIFICATE REQUEST"},
		{join(other.PEM(), crl), "X509 CRL"},
		{ca.PEM(), ""},
		{join(ca.PEM(), crl), "X509 CRL"},
	} {
		r.set("ca.pem", step.content)
		c.advance(stale)
		if _, err := roots.get(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		if said := strings.Join(w.take(), ""); (said == "") != (step.want == "") || !strings.Contains(said, step.want) {
			t.Errorf("step %d: %q, want %q", i+1, said, step.want)
		}
	}
}
