package grpcconn

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/encoding/gzip"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"example.com/grpc-health-http/internal/health"
)

const (
	// maxAnswer bounds an answer's message, in bytes: a List of 1,000 of the longest names has 270 KB.
	maxAnswer = 512 << 10
	// maxHeaders bounds what an answer's headers or trailers hold, in bytes as SETTINGS_MAX_HEADER_LIST_SIZE counts them: a
	// status message of this length is a whole page.
	maxHeaders = 256 << 10
	// readBuffer and writeBuffer are what a connection's buffers hold; grpc-go's 32 KiB are for traffic. An answer and what comes with
	// it has 200 bytes; a frame that is longer than the buffer is read past it.
	readBuffer  = 1 << 10
	writeBuffer = 4 << 10
	// windowSize is what a server may send of an answer before it is read: about the protocol's default.
	windowSize = 64 << 10
	// noRetry is longer than any connection lives: grpc-go must neither connect again nor end an attempt by itself.
	noRetry = 1000 * time.Hour
)

// errSpent is what grpc-go gets when it would connect again.
var errSpent = errors.New("the connection is gone")

// Options say how RPCs are sent.
type Options struct {
	// Authority is the RPCs' :authority.
	Authority string
	// UserAgent is sent with every RPC; grpc-go appends its own version.
	UserAgent string
	// Gzip compresses requests, and lets the server compress its answers.
	Gzip bool
}

// Wire is an established network connection that knows whether the server has begun to speak HTTP/2.
type Wire interface {
	net.Conn
	// SettingsSeen says that the server's first frame was SETTINGS.
	SettingsSeen() bool
}

// Conn is one connection to a server. It is safe for concurrent use.
type Conn struct {
	// Peer is who is at the other end. Whoever makes the connection sets it before others use that.
	Peer *health.Peer

	cc     *grpc.ClientConn
	health healthpb.HealthClient
	lost   atomic.Bool
}

// New makes HTTP/2 of an established connection and waits for the server's SETTINGS. It closes the wire on failure. The error
// is the context's cause where the context ended, and otherwise says no more than that the connection is gone.
func New(ctx context.Context, o Options, wire Wire, auth credentials.AuthInfo) (*Conn, error) {
	var handed atomic.Bool
	opts := []grpc.DialOption{
		grpc.WithTransportCredentials(established{auth}),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
			if handed.Swap(true) {
				return nil, errSpent
			}
			return wire, nil
		}),
		grpc.WithAuthority(o.Authority),
		grpc.WithDisableServiceConfig(),
		grpc.WithDisableRetry(),
		grpc.WithDisableHealthCheck(),
		grpc.WithIdleTimeout(0),
		grpc.WithNoProxy(),
		// A backoff of zero would try again at once, over and over, when a server resets before its SETTINGS.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: noRetry, Multiplier: 1, MaxDelay: noRetry},
			MinConnectTimeout: noRetry,
		}),
		grpc.WithReadBufferSize(readBuffer),
		grpc.WithWriteBufferSize(writeBuffer),
		// To find a better size grpc-go would send a PING with every answer.
		grpc.WithStaticStreamWindowSize(windowSize),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)),
		grpc.WithMaxHeaderListSize(maxHeaders),
		grpc.WithStatsHandler(progressRecorder{}),
	}
	if o.UserAgent != "" {
		opts = append(opts, grpc.WithUserAgent(o.UserAgent))
	}
	if o.Gzip {
		opts = append(opts, grpc.WithDefaultCallOptions(grpc.UseCompressor(gzip.Name)))
	}
	cc, err := grpc.NewClient("passthrough:///upstream", opts...)
	if err != nil {
		wire.Close()
		return nil, err
	}
	cc.Connect()
	if err := waitReady(ctx, cc, wire); err != nil {
		cc.Close()
		wire.Close() // where grpc-go had not asked for it yet
		return nil, err
	}
	c := &Conn{cc: cc, health: healthpb.NewHealthClient(cc)}
	go func() {
		// Whatever follows READY is the end: GOAWAY, a lost connection, our own Close.
		cc.WaitForStateChange(context.Background(), connectivity.Ready)
		c.lost.Store(true)
	}()
	return c, nil
}

func waitReady(ctx context.Context, cc *grpc.ClientConn, wire Wire) error {
	for {
		state := cc.GetState()
		switch {
		case state == connectivity.Ready:
			return nil
		case wire.SettingsSeen() && state != connectivity.Connecting:
			return nil // it was READY for a moment, and has ended already, with GOAWAY perhaps: the RPC will tell
		case state == connectivity.TransientFailure || state == connectivity.Shutdown:
			return errSpent
		}
		if !cc.WaitForStateChange(ctx, state) {
			return context.Cause(ctx)
		}
	}
}

// Lost says that the connection serves no new RPC.
func (c *Conn) Lost() bool { return c.lost.Load() }

// Close ends the connection, and the RPCs on it.
func (c *Conn) Close() { c.cc.Close() }

// established hands grpc-go a connection whose handshake is already done.
type established struct{ auth credentials.AuthInfo }

func (e established) ClientHandshake(_ context.Context, _ string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return raw, e.auth, nil
}

func (e established) ServerHandshake(net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("not a server's credentials")
}

func (e established) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: e.auth.AuthType()}
}

func (e established) Clone() credentials.TransportCredentials { return e }

func (e established) OverrideServerName(string) error { return nil }
