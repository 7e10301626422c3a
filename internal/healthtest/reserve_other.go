//go:build !unix

package healthtest

// reservation does nothing where sockets cannot be bound without listening.
type reservation struct{}

func reserve(string) *reservation { return nil }

func (*reservation) release() {}
