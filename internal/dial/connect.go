package dial

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"google.golang.org/grpc/credentials"

	"example.com/grpc-health-http/internal/grpcconn"
	"example.com/grpc-health-http/internal/health"
)

// connect makes a connection by one route. tell hears of each phase that begins.
func (dl *Dialer) connect(ctx context.Context, to route, tc credentials.TransportCredentials, tell func(health.AddressAttempt)) (*grpcconn.Conn, health.AddressAttempt) {
	a := health.AddressAttempt{Address: to.String(), Phase: health.PhaseConnect}
	tell(a)
	began := time.Now()
	raw, err := dl.open(ctx, to)
	a.Connect = time.Since(began)
	if err != nil {
		a.Err = dl.orBudget(ctx, err, "no connection to "+a.Address)
		return nil, a
	}

	a.Phase = health.PhaseTLS
	tell(a)
	began = time.Now()
	peeked := peek(raw)
	secured, auth, err := tc.ClientHandshake(ctx, cmp.Or(dl.o.ServerName, dl.o.Target.Host()), peeked)
	protocol := tc.Info().SecurityProtocol
	before, after := plaintext, plaintext
	if protocol != "insecure" {
		before, after = handshake, encrypted
		a.TLS = time.Since(began)
	}
	if a.Certificate = leaf(auth, err); a.Certificate != nil {
		dl.o.Trace.PeerCertificate(a.Certificate)
	}
	if err != nil {
		raw.Close()
		if _, own := errors.AsType[*CredentialsError](err); own {
			a.Phase = health.PhaseCredentials
		}
		what := strings.ToUpper(protocol) + " handshake with " + a.Address
		hint, sure := peeked.hint(before, dl.o.TLSSetting)
		broken := !sure && isBroken(err)
		err = fmt.Errorf("%s: %w%s", what, err, hint)
		if broken {
			err = passing{err}
		}
		a.Err = dl.orBudget(ctx, err, "the "+what+" did not end"+hint)
		return nil, a
	}

	a.Phase = health.PhaseHTTP2
	tell(a)
	began = time.Now()
	wire := peek(secured)
	wire.dialling = ctx
	c, err := grpcconn.New(ctx, grpcconn.Options{Authority: dl.o.Authority, UserAgent: dl.o.UserAgent, Gzip: dl.o.Gzip}, wire, auth)
	a.HTTP2 = time.Since(began)
	if err != nil {
		cause := wire.readError()
		if alert(cause) {
			a.Phase = health.PhaseTLS
		}
		switch {
		case cause == nil || errors.Is(cause, net.ErrClosed):
			cause = errors.New("what came is not HTTP/2")
		case errors.Is(cause, io.EOF):
			noted, ok := errors.AsType[*NotedError](cause)
			cause = errors.New("closed by the peer")
			if ok {
				cause = &NotedError{cause, noted.Note}
			}
		}
		hint, sure := wire.hint(after, dl.o.TLSSetting)
		err = fmt.Errorf("no HTTP/2 SETTINGS from %s: %w%s", to, cause, hint)
		if !sure && a.Phase != health.PhaseTLS {
			err = passing{err}
		}
		a.Err = dl.orBudget(ctx, err, "no HTTP/2 SETTINGS from "+a.Address+hint)
		return nil, a
	}
	a.Phase = health.PhaseNone
	c.Peer = peer(a.Address, auth)
	return c, a
}

// peer describes the other end of a connection.
func peer(address string, auth credentials.AuthInfo) *health.Peer {
	p := &health.Peer{Address: address}
	if info, ok := auth.(credentials.TLSInfo); ok {
		p.TLS = &info.State
	}
	return p
}

// leaf is the certificate that the peer showed, nil where there was none.
func leaf(auth credentials.AuthInfo, err error) *x509.Certificate {
	if failed, ok := errors.AsType[*tls.CertificateVerificationError](err); ok && len(failed.UnverifiedCertificates) > 0 {
		return failed.UnverifiedCertificates[0]
	}
	if shown, ok := errors.AsType[*HandshakeError](err); ok {
		return shown.Leaf
	}
	if info, ok := auth.(credentials.TLSInfo); ok && len(info.State.PeerCertificates) > 0 {
		return info.State.PeerCertificates[0]
	}
	return nil
}

// alert says whether a read ended with a TLS alert of the peer: crypto/tls gives those to the
// reader as a net.OpError with this operation, around a tls.AlertError.
func alert(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "remote error"
}
