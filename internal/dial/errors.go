package dial

import "crypto/x509"

// HandshakeError is an error of a handshake in which the peer showed a certificate that verified: something else failed.
type HandshakeError struct {
	Err  error
	Leaf *x509.Certificate
}

func (e *HandshakeError) Error() string { return e.Err.Error() }
func (e *HandshakeError) Unwrap() error { return e.Err }

// CredentialsError marks an error of a handshake as one of getting credentials rather than of the
// peer: such a check ends in phase "credentials".
type CredentialsError struct{ Err error }

func (e *CredentialsError) Error() string { return e.Err.Error() }
func (e *CredentialsError) Unwrap() error { return e.Err }
