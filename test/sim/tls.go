//go:build !race

package sim

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"sync"
	"time"
)

// authority is a certificate authority, and what it has issued: two certificates of the server, and one of the client.
type authority struct {
	root    *x509.Certificate
	servers [2]tls.Certificate
	client  tls.Certificate
}

// authorities are made once in a process: what they are does not depend on the seed. The bubble's clock begins in the
// year 2000; they are valid for a century from then.
var authorities = sync.OnceValue(func() (all [3]*authority) {
	for i := range all {
		all[i] = newAuthority(int64(i))
	}
	return all
})

func newAuthority(serial int64) *authority {
	from := time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC)
	key := newKey()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "simulated CA", SerialNumber: big.NewInt(serial).String()},
		NotBefore: from, NotAfter: from.AddDate(100, 0, 0), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	root := issue(template, template, key, key)
	a := &authority{root: root.Leaf}
	leaf := func(serial int64, usage x509.ExtKeyUsage) tls.Certificate {
		own := newKey()
		return issue(&x509.Certificate{
			SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host},
			NotBefore: from, NotAfter: from.AddDate(100, 0, 0), KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{usage},
		}, root.Leaf, own, key)
	}
	a.servers[0], a.servers[1] = leaf(10, x509.ExtKeyUsageServerAuth), leaf(11, x509.ExtKeyUsageServerAuth)
	a.client = leaf(12, x509.ExtKeyUsageClientAuth)
	return a
}

func newKey() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return key
}

func issue(template, parent *x509.Certificate, own, signer *ecdsa.PrivateKey) tls.Certificate {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &own.PublicKey, signer)
	if err != nil {
		panic(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: own, Leaf: leaf}
}
