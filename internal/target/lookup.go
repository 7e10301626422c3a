package target

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
)

// Address is one place to connect to.
type Address struct {
	// Network is "tcp" or "unix".
	Network string
	// Text is what net.Dialer takes: "192.0.2.1:443", a socket's path, or "\x00name" for an abstract socket.
	Text string
}

// String is the address as evidence shows it.
func (a Address) String() string {
	if a.Network == "unix" && a.Text != "" && a.Text[0] == 0 {
		return "unix-abstract:" + a.Text[1:]
	}
	return a.Text
}

// LookupFunc returns the addresses of a host in one address family: network is "ip4" or "ip6". again says that an equal question is
// under way and has no answer yet.
type LookupFunc func(ctx context.Context, network, host string, again bool) ([]netip.Addr, error)

// Lookup asks the system's resolver, or the DNS server that the target names. It is the LookupFunc of a running program.
func (t Target) Lookup(ctx context.Context, network, host string, again bool) ([]netip.Addr, error) {
	// A resolver of its own for each question: equal questions of one resolver that are under way are merged, so that a second
	// one would share the fate of the first.
	resolver := new(net.Resolver)
	switch {
	case t.dns != "":
		resolver.PreferGo = true
		resolver.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, t.dns)
		}
	case again:
		resolver.PreferGo = true
		resolver.Dial = new(otherServer).dial
	}
	ips, err := resolver.LookupNetIP(ctx, network, host)
	if failed, ok := errors.AsType[*net.DNSError](err); ok && t.dns != "" {
		asked := *failed
		asked.Server = t.dns // and not the one in resolv.conf
		err = &asked
	}
	return ips, err
}

// otherServer has a resolver ask another name server than the first one, where there is another: the first one may be down, and
// package net waits for it for 5 seconds before it asks the next one. It asks a server again that it could not reach, so that
// an only one is asked after all.
type otherServer struct {
	mu      sync.Mutex
	first   string
	refused bool // the latest call
}

var errAsked = errors.New("this name server is being asked already")

// refuses says whether the server is not to be asked now.
func (o *otherServer) refuses(network, address string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.first == "" {
		o.first = address
	}
	o.refused = address == o.first && !o.refused && strings.HasPrefix(network, "udp") // by TCP it is asked for the rest of an answer
	return o.refused
}

// dial is the Dial of a net.Resolver.
func (o *otherServer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if o.refuses(network, address) {
		return nil, errAsked
	}
	return new(net.Dialer).DialContext(ctx, network, address)
}

// Name is the host to look up; empty where Addresses has the addresses already.
func (t Target) Name() string {
	if t.Addresses() != nil {
		return ""
	}
	return t.host
}

// Addresses are those of a target that needs no lookup: a unix socket, an IP address, this machine. Of another there are none.
func (t Target) Addresses() []Address {
	if t.unix {
		return []Address{{Network: "unix", Text: t.path}}
	}
	if t.host == "" {
		// This machine, whichever family its servers listen on.
		return []Address{t.At(netip.AddrFrom4([4]byte{127, 0, 0, 1})), t.At(netip.IPv6Loopback())}
	}
	if ip, err := netip.ParseAddr(t.host); err == nil {
		return []Address{t.At(ip)}
	}
	return nil
}

// At is the target's port on an address that its host was found at.
func (t Target) At(ip netip.Addr) Address {
	port, _ := strconv.ParseUint(t.port, 10, 16) // Parse has checked it
	return Address{Network: "tcp", Text: netip.AddrPortFrom(ip, uint16(port)).String()}
}
