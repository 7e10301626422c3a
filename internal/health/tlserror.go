package health

import (
	"errors"
	"fmt"
	"time"
)

// TLSFault is why a TLS handshake failed.
type TLSFault int

// The faults. The zero TLSFault is none of them.
const (
	// CertificateExpired: a certificate of the server is no longer valid.
	CertificateExpired TLSFault = iota + 1
	// CertificateNotYetValid: a certificate of the server is not valid yet.
	CertificateNotYetValid
	// UnknownAuthority: no trusted authority signed the server's certificate.
	UnknownAuthority
	// WrongName: the server's certificate is for other names than the one that was asked for.
	WrongName
	// NoName: the server's certificate has no subject alternative name that a client could ask for.
	NoName
	// WrongUsage: the server's certificate is not meant for servers.
	WrongUsage
	// InvalidCertificate: the server's certificate is not valid for another reason.
	InvalidCertificate
	// ClientCertificateRequired: the server wants a client certificate, and none was sent.
	ClientCertificateRequired
	// ClientCertificateRefused: the server does not accept the client certificate.
	ClientCertificateRefused
	// ServerNameUnknown: the server has no certificate for the name that was sent to it.
	ServerNameUnknown
	// WrongVersion: the server speaks no version of TLS that is accepted here.
	WrongVersion
	// NoALPN: the server does not offer HTTP/2 (h2) with ALPN.
	NoALPN
)

// TLSError is an error of a TLS handshake of which the reason is known. Callers may see what Sentence and Brief say: these
// hold no address, no name and no text from outside.
type TLSError struct {
	// Fault is the reason.
	Fault TLSFault
	// At is when the certificate expired, or when it becomes valid; zero for another Fault.
	At time.Time
	// Issuer says that the certificate that expired, or that is not valid yet, is an authority's and not the server's own.
	Issuer bool
	// Err is the error itself. It may hold anything.
	Err error
}

func (e *TLSError) Error() string { return e.Err.Error() }
func (e *TLSError) Unwrap() error { return e.Err }

// Sentence says in a sentence what is wrong, as seen at a time: "The server's certificate expired 2 days ago."
func (e *TLSError) Sentence(now time.Time) string {
	switch e.Fault {
	case CertificateExpired:
		return "The " + e.certificate() + " expired " + WholeUnits(now.Sub(e.At)) + " ago."
	case CertificateNotYetValid:
		return "The " + e.certificate() + " is not valid yet: it will be in " + WholeUnits(e.At.Sub(now)) + "."
	}
	if brief := e.Brief(); brief != "" {
		return "The " + brief[len("the "):] + "."
	}
	return ""
}

// Brief says what is wrong in words that go into a line: "the server's certificate expired 2026-11-24". Days are in UTC.
func (e *TLSError) Brief() string {
	switch e.Fault {
	case CertificateExpired:
		return "the " + e.certificate() + " expired " + e.At.UTC().Format(time.DateOnly)
	case CertificateNotYetValid:
		return "the " + e.certificate() + " is not valid before " + e.At.UTC().Format(time.DateOnly)
	}
	return briefs[e.Fault]
}

// briefs are what Brief says of a fault; those of a time are in its code.
var briefs = map[TLSFault]string{
	UnknownAuthority:          "the server's certificate is signed by an unknown authority",
	WrongName:                 "the server's certificate is for another name",
	NoName:                    "the server's certificate has no name that can be verified",
	WrongUsage:                "the server's certificate is not meant for servers",
	InvalidCertificate:        "the server's certificate is not valid",
	ClientCertificateRequired: "the server requires a client certificate",
	ClientCertificateRefused:  "the server does not accept the client certificate",
	ServerNameUnknown:         "the server has no certificate for the name that was sent",
	WrongVersion:              "the server speaks no version of TLS that is accepted here",
	NoALPN:                    "the server does not offer HTTP/2 with ALPN",
}

func (e *TLSError) certificate() string {
	if e.Issuer {
		return "certificate of an authority that the server's certificate depends on"
	}
	return "server's certificate"
}

// WholeUnits is a time in whole minutes, hours or days: never less than two of the larger ones.
func WholeUnits(d time.Duration) string {
	n, unit := int(d.Minutes()), "minute"
	if n >= 120 {
		n, unit = n/60, "hour"
		if n >= 48 {
			n, unit = n/24, "day"
		}
	}
	n = max(n, 1)
	if n != 1 {
		unit += "s"
	}
	return fmt.Sprintf("%d %s", n, unit)
}

// TLSError returns the reason of a TLS handshake that failed; nil where the verdict has another cause.
func (v Verdict) TLSError() *TLSError {
	failed, _ := errors.AsType[*TLSError](v.Err)
	return failed
}
