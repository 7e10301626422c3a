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

// NotedError is an error of reading from a new connection, with what is known about the reason.
type NotedError struct {
	Err  error
	Note string
}

func (e *NotedError) Error() string { return e.Err.Error() + " (" + e.Note + ")" }
func (e *NotedError) Unwrap() error { return e.Err }
