package target

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
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

// LookupFunc returns the addresses of a host. server is the host:port of the DNS server to ask; empty is the system's
// resolver.
type LookupFunc func(ctx context.Context, server, host string) ([]netip.Addr, error)

// Lookup asks the system's resolver, or the DNS server. It is the LookupFunc of a running program.
func Lookup(ctx context.Context, server, host string) ([]netip.Addr, error) {
	resolver := net.DefaultResolver
	if server != "" {
		resolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, server)
		}}
	}
	return resolver.LookupNetIP(ctx, "ip", host)
}

// Addresses finds the target's addresses, one at least, in the order to try them. Nothing is cached: every dial looks up
// again.
func (t Target) Addresses(ctx context.Context, lookup LookupFunc) ([]Address, error) {
	if t.network == "unix" {
		return []Address{{Network: "unix", Text: t.path}}, nil
	}
	if t.host == "" {
		// This machine, whichever family its servers listen on.
		return []Address{t.tcp(netip.AddrFrom4([4]byte{127, 0, 0, 1})), t.tcp(netip.IPv6Loopback())}, nil
	}
	if ip, err := netip.ParseAddr(t.host); err == nil {
		return []Address{t.tcp(ip)}, nil
	}
	ips, err := lookup(ctx, t.dns, t.host)
	if err != nil {
		return nil, fmt.Errorf("look up the target's host: %w", err)
	}
	if len(ips) == 0 {
		return nil, errors.New("look up the target's host: it has no addresses")
	}
	return t.interleave(ips), nil
}

func (t Target) tcp(ip netip.Addr) Address {
	port, _ := strconv.ParseUint(t.port, 10, 16) // Parse has checked it
	return Address{Network: "tcp", Text: netip.AddrPortFrom(ip, uint16(port)).String()}
}

// interleave alternates between the address families, beginning with the resolver's first one (RFC 8305,
// section 4), so that a family without a route delays the other by one step only.
func (t Target) interleave(ips []netip.Addr) []Address {
	var first, second []Address
	for _, ip := range ips {
		ip = ip.Unmap()
		if ip.Is4() == ips[0].Unmap().Is4() {
			first = append(first, t.tcp(ip))
		} else {
			second = append(second, t.tcp(ip))
		}
	}
	all := make([]Address, 0, len(ips))
	for i := range max(len(first), len(second)) {
		if i < len(first) {
			all = append(all, first[i])
		}
		if i < len(second) {
			all = append(all, second[i])
		}
	}
	return all
}
