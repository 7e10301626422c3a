// Package spiffetest serves the SPIFFE Workload API on a unix socket
// (https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE_Workload_API.md), as far as X.509 SVIDs go. A test says which
// identity it issues. Only tests import it.
package spiffetest

import (
	"crypto/x509"
	"encoding/pem"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"example.com/grpc-health-http/test/healthtest"
)

// WorkloadAPI is a running Workload API. At first it issues no identity.
type WorkloadAPI struct {
	// Address is the value for SPIFFE_ENDPOINT_SOCKET: "unix:///tmp/…/agent.sock".
	Address string

	fetches atomic.Int64

	mu     sync.Mutex
	answer *workload.X509SVIDResponse // nil: no identity issued
	silent bool
}

// Start serves until the test ends.
func Start(t testing.TB) *WorkloadAPI {
	t.Helper()
	dir, err := os.MkdirTemp("", "wa") // the path of a test's own directory can be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "agent.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	a := &WorkloadAPI{Address: "unix://" + socket}
	server := grpc.NewServer()
	workload.RegisterSpiffeWorkloadAPIServer(server, service{WorkloadAPI: a})
	go func() { _ = server.Serve(listener) }() // it fails only when the listener is closed
	t.Cleanup(server.Stop)
	return a
}

// Fetches returns how many requests for an X.509 SVID there were.
func (a *WorkloadAPI) Fetches() int { return int(a.fetches.Load()) }

// Issue makes the API answer new requests with the leaf, which must have the ID, and with the CA's certificate as the trust
// bundle.
func (a *WorkloadAPI) Issue(t testing.TB, id string, ca *healthtest.CA, leaf *healthtest.Leaf) {
	t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(leaf.TLS.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	root, _ := pem.Decode(ca.PEM())
	a.mu.Lock()
	defer a.mu.Unlock()
	a.silent = false
	a.answer = &workload.X509SVIDResponse{Svids: []*workload.X509SVID{{
		SpiffeId: id, X509Svid: leaf.TLS.Certificate[0], X509SvidKey: key, Bundle: root.Bytes,
	}}}
}

// Refuse makes the API issue no identity.
func (a *WorkloadAPI) Refuse() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.answer = nil
}

// Hang makes the API accept requests and send nothing. Issue ends it.
func (a *WorkloadAPI) Hang() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.silent = true
}

// ID returns the option for a certificate with a SPIFFE ID.
func ID(t testing.TB, id string) healthtest.LeafOption {
	t.Helper()
	uri, err := url.Parse(id)
	if err != nil {
		t.Fatal(err)
	}
	return healthtest.URI(uri)
}

// service implements grpc-go's interface for the API.
type service struct {
	workload.UnimplementedSpiffeWorkloadAPIServer
	*WorkloadAPI
}

// FetchX509SVID implements the RPC. It sends one answer and keeps the stream open, as the API does to send updates.
func (s service) FetchX509SVID(_ *workload.X509SVIDRequest, stream grpc.ServerStreamingServer[workload.X509SVIDResponse]) error {
	s.fetches.Add(1)
	md, _ := metadata.FromIncomingContext(stream.Context())
	if len(md.Get("workload.spiffe.io")) == 0 {
		return status.Error(codes.InvalidArgument, "security header missing from request")
	}
	s.mu.Lock()
	answer, silent := s.answer, s.silent
	s.mu.Unlock()
	if answer == nil {
		return status.Error(codes.PermissionDenied, "no identity issued")
	}
	if !silent {
		if err := stream.Send(answer); err != nil {
			return err
		}
	}
	<-stream.Context().Done()
	return nil
}
