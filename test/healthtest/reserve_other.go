//go:build !unix

package healthtest

import "net"

func stopListening(listener net.Listener) { listener.Close() }

// reservation does nothing on systems without Unix sockets' options.
type reservation struct{}

func reserve(string) *reservation { return nil }

func (*reservation) release() {}
