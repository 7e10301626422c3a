package creds

import (
	"context"
	"runtime"
	"sync"
	"time"
	"weak"

	"google.golang.org/grpc/credentials"

	"example.com/grpc-health-http/internal/settings"
)

// Shared lets upstreams whose credentials come from the same settings share them: what the settings name is read and parsed once for
// all of them, and a rotation reaches them all at once. Callbacks but Expiry are called once for all of them, too. It keeps nothing that no
// Transport uses any more. It is safe for concurrent use, and the zero value is ready. A nil one shares nothing.
type Shared struct {
	mu    sync.Mutex
	inUse map[material]weak.Pointer[transport]
}

// material is the settings that make the credentials of an upstream, its name aside, which a handshake brings along.
type material struct {
	spiffe                        bool
	serverID                      string
	noVerify                      bool
	caCert, clientCert, clientKey string
}

func materialOf(s *settings.Upstream) material {
	if s.SPIFFE {
		return material{spiffe: true, serverID: s.SPIFFEServerID}
	}
	return material{noVerify: s.NoVerify, caCert: s.CACert, clientCert: s.ClientCert, clientKey: s.ClientKey}
}

// transport is credentials that several upstreams may share.
type transport struct {
	load func(ctx context.Context, force bool) (credentials.TransportCredentials, error)
	// ends is when the client certificate ends that was loaded last, zero before the first; nil where there is none.
	ends func() time.Time
}

// get is a Transport. As a method it keeps t in use for as long as there is one.
func (t *transport) get(ctx context.Context, force bool) (credentials.TransportCredentials, error) {
	return t.load(ctx, force)
}

// of returns the credentials of m that are in use, or makes them.
func (s *Shared) of(m material, create func(material) (*transport, error)) (*transport, error) {
	if s == nil {
		return create(m)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.inUse[m].Value(); t != nil {
		return t, nil
	}
	t, err := create(m)
	if err != nil {
		return nil, err
	}
	if s.inUse == nil {
		s.inUse = make(map[material]weak.Pointer[transport])
	}
	s.inUse[m] = weak.Make(t)
	runtime.AddCleanup(t, s.forget, m)
	return t, nil
}

// forget takes credentials out that nobody uses any more, unless others were made in the meantime.
func (s *Shared) forget(m material) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inUse[m].Value() == nil {
		delete(s.inUse, m)
	}
}

// forUpstream is the Transport of one of the upstreams that share t. It tells Expiry of each new end.
func (t *transport) forUpstream(o Options) Transport {
	if t.ends == nil || o.Expiry == nil {
		return t.get
	}
	var mu sync.Mutex
	var told time.Time
	tell := func() {
		mu.Lock()
		defer mu.Unlock()
		if ends := t.ends(); !ends.Equal(told) {
			told = ends
			o.Expiry(ClientCertificate, ends)
		}
	}
	tell() // of what lies in the settings
	return func(ctx context.Context, force bool) (credentials.TransportCredentials, error) {
		defer tell()
		return t.get(ctx, force)
	}
}
