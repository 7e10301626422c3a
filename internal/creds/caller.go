package creds

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"strings"
	"time"
)

// CallerFault says why the listener refused a caller's certificate, given the error of the handshake.
func CallerFault(err error) string {
	if err.Error() == noCertificate {
		return "it sent no client certificate"
	}
	failed, ok := errors.AsType[*tls.CertificateVerificationError](err)
	if !ok || len(failed.UnverifiedCertificates) == 0 {
		return "its client certificate cannot be used: " + strings.TrimPrefix(err.Error(), "tls: ")
	}
	leaf := failed.UnverifiedCertificates[0]
	name := "its client certificate " + quoted(cmp.Or(leaf.Subject.CommonName, leaf.Subject.String()))
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		switch invalid.Reason {
		case x509.Expired:
			whose := name
			if !invalid.Cert.Equal(leaf) {
				whose = "an authority that " + name + " depends on"
			}
			if time.Now().Before(invalid.Cert.NotBefore) {
				return whose + " is not valid before " + invalid.Cert.NotBefore.UTC().Format(time.DateOnly)
			}
			return whose + " expired " + invalid.Cert.NotAfter.UTC().Format(time.DateOnly)
		case x509.IncompatibleUsage:
			return name + " is not meant for clients: its extended key usage does not have client authentication"
		}
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return name + " is signed by an authority that is not trusted: its issuer is " + quoted(cmp.Or(leaf.Issuer.CommonName, leaf.Issuer.String()))
	}
	return name + " is not valid: " + failed.Err.Error()
}

// noCertificate is the text of crypto/tls for a client that sent no certificate, for which there is no type.
const noCertificate = "tls: client didn't provide a certificate"
