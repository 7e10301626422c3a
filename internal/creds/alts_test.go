package creds

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/alts"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"example.com/grpc-health-http/internal/dial"
	"example.com/grpc-health-http/internal/settings"
)

func TestALTSOffGoogleCloud(t *testing.T) {
	t.Parallel()
	if product, _ := os.ReadFile("/sys/class/dmi/id/product_name"); strings.HasPrefix(string(product), "Google") {
		t.Skip("this machine is one of Google Cloud")
	}
	transport := newTransport(t, &settings.Upstream{ALTS: true, ALTSTargetServiceAccounts: []string{"a@example.iam.gserviceaccount.com"}}, Options{})
	tc, err := transport(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	again, err := transport(t.Context(), true)
	if err != nil || again != tc {
		t.Fatalf("error %v; want the same credentials", err)
	}
	for _, tc := range []credentials.TransportCredentials{tc, tc.Clone()} {
		ours, theirs := net.Pipe()
		_, _, err = tc.ClientHandshake(t.Context(), "upstream", ours)
		var own *dial.CredentialsError
		if !errors.As(err, &own) || !errors.Is(err, alts.ErrUntrustedPlatform) {
			t.Fatalf("error %v, want a dial.CredentialsError of the platform", err)
		}
		wantError(t, err, "ALTS works on Google Cloud's virtual machines only")
		if _, err := theirs.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("the connection is open after the handshake failed (read: %v)", err)
		}
	}
}

// deafHandshake is a handshake that, like that of ALTS, waits for the peer without a look at its context.
type deafHandshake struct {
	credentials.TransportCredentials
}

func (deafHandshake) ClientHandshake(_ context.Context, _ string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	_, err := raw.Read(make([]byte, 1))
	return raw, nil, err
}

func TestALTSHandshakeEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ours, theirs := net.Pipe()
	defer theirs.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	tc := &altsCredentials{deafHandshake{insecure.NewCredentials()}}
	conn, _, err := tc.ClientHandshake(ctx, "upstream", ours)
	if !errors.Is(err, context.DeadlineExceeded) || conn != nil {
		t.Fatalf("error %v, want that of the context", err)
	}
	wantError(t, err, "ALTS handshake: no answer from the peer")
	if own := new(dial.CredentialsError); errors.As(err, &own) {
		t.Error("a silent peer counts as a failure of this machine's side")
	}
}

func TestALTSHandshakeLeavesTheConnectionUsable(t *testing.T) {
	t.Parallel()
	ours, theirs := net.Pipe()
	defer theirs.Close()
	ctx, cancel := context.WithCancel(t.Context())
	tc := &altsCredentials{deafHandshake{insecure.NewCredentials()}}
	go func() { _, _ = theirs.Write([]byte("ab")) }()
	conn, _, err := tc.ClientHandshake(ctx, "upstream", ours)
	if err != nil {
		t.Fatal(err)
	}
	cancel() // as every dial does when it is over
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		t.Errorf("read after the handshake's context ended: %v", err)
	}
}

func TestALTSErrors(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		err  error
		own  bool
	}{
		{"handshaker service", status.Error(codes.Unavailable, "no such host"), true},
		{"peer", io.ErrUnexpectedEOF, false},
	} {
		err := altsError(t.Context(), test.err)
		if own := new(dial.CredentialsError); errors.As(err, &own) != test.own {
			t.Errorf("%s: error %v, a dial.CredentialsError: %v", test.name, err, !test.own)
		}
		if !errors.Is(err, test.err) {
			t.Errorf("%s: error %v has lost its cause", test.name, err)
		}
	}
}
