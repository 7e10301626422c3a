//go:build !unix

package healthtest

import "net"

func stopListening(listener net.Listener) { listener.Close() }

// reservation does nothing where sockets cannot be bound without listening.
type reservation struct{}

func reserve(string) *reservation { return nil }

func (*reservation) release() {}
