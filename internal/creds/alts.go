package creds

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/alts"
	"google.golang.org/grpc/status"

	"example.com/grpc-health-http/internal/dial"
	"example.com/grpc-health-http/internal/settings"
)

// altsTransport returns ALTS client credentials, which authenticate as the service account of the
// Google Cloud machine that the process runs on.
func altsTransport(s *settings.Upstream) Transport {
	options := alts.DefaultClientOptions()
	options.TargetServiceAccounts = s.ALTSTargetServiceAccounts
	tc := &altsCredentials{alts.NewClientCreds(options)}
	return func(context.Context, bool) (credentials.TransportCredentials, error) { return tc, nil }
}

// altsCredentials makes ALTS' handshake end with its context, close the connection that it fails on,
// and tell failures of this machine's side from those of the peer.
type altsCredentials struct {
	credentials.TransportCredentials
}

// ClientHandshake fails with a dial.CredentialsError where this machine, and not the peer, is the reason.
func (c *altsCredentials) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	// ALTS reads from the connection without looking at ctx: a silent peer would block it for ever.
	stop := context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) })
	secured, info, err := c.TransportCredentials.ClientHandshake(ctx, authority, raw)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err == nil {
		return secured, info, nil
	}
	_ = raw.Close()
	return nil, nil, altsError(ctx, err)
}

func altsError(ctx context.Context, err error) error {
	if errors.Is(err, alts.ErrUntrustedPlatform) {
		return &dial.CredentialsError{Err: fmt.Errorf("ALTS works on Google Cloud's virtual machines only, and this is none: %w", err)}
	}
	if errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() != nil {
		return fmt.Errorf("ALTS handshake: no answer from the peer: %w", context.Cause(ctx))
	}
	// Only calls to the handshaker service, on this machine's side, fail with a gRPC status.
	if _, ok := status.FromError(err); ok {
		return &dial.CredentialsError{Err: fmt.Errorf("ALTS handshaker service: %w", err)}
	}
	return fmt.Errorf("ALTS handshake: %w", err)
}

// Clone returns a copy that behaves the same.
func (c *altsCredentials) Clone() credentials.TransportCredentials {
	return &altsCredentials{c.TransportCredentials.Clone()}
}
