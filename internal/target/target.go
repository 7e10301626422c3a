package target

import (
	"errors"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
)

// Target is an upstream's address, read from the text of a setting.
type Target struct {
	text    string
	network string // "tcp" or "unix"
	host    string // tcp: a name or an address; empty is this machine
	port    string // tcp
	path    string // unix: a file's path, or "\x00name" for an abstract socket
	dns     string // host:port of the DNS server to ask; empty is the system's
}

// Parse reads a target: host:port, [::1]:port, and grpc-go's dns, unix, unix-abstract and
// passthrough targets (https://github.com/grpc/grpc/blob/master/doc/naming.md). An error says
// what to write instead, and never repeats the text.
func Parse(text string) (Target, error) {
	if text == "" {
		return Target{}, errors.New("the address is empty: write host:port")
	}
	t := Target{text: text}
	scheme, rest, found := strings.Cut(text, ":")
	if found {
		switch strings.ToLower(scheme) {
		case "unix":
			return t.unix(rest)
		case "unix-abstract":
			return t.abstract(rest)
		case "dns":
			return t.dnsTarget(rest)
		case "passthrough":
			_, endpoint, err := authorityAndPath(rest)
			if err != nil {
				return Target{}, err
			}
			return t.hostPort(endpoint, "")
		}
		if strings.HasPrefix(rest, "//") {
			return Target{}, errors.New("the address has a scheme that is not dns, unix, unix-abstract or passthrough: write host:port")
		}
	}
	return t.hostPort(text, "")
}

// String is the text that the target was read from.
func (t Target) String() string { return t.text }

// Host is the name or address that a server certificate is verified against by default:
// "localhost" for this machine and for unix sockets.
func (t Target) Host() string {
	if t.network == "unix" || t.host == "" {
		return "localhost"
	}
	return t.host
}

// Authority is the RPC's :authority where nothing else sets it: the target, as grpc-go makes it,
// and "localhost" for unix sockets and an empty host.
func (t Target) Authority() string {
	switch {
	case t.network == "unix":
		return "localhost"
	case t.host == "":
		return net.JoinHostPort("localhost", t.port)
	}
	return net.JoinHostPort(t.host, t.port)
}

// IsUnix says whether the target is a unix socket, which no proxy leads to.
func (t Target) IsUnix() bool { return t.network == "unix" }

// HostPort is how others, such as a proxy, are told of a TCP target: a host and a port.
func (t Target) HostPort() string { return net.JoinHostPort(t.Host(), t.port) }

func (t Target) unix(rest string) (Target, error) {
	t.network = "unix"
	t.path = rest
	if after, ok := strings.CutPrefix(rest, "//"); ok {
		if !strings.HasPrefix(after, "/") {
			return Target{}, errors.New("the unix target has an authority: write unix:///absolute/path or unix:relative/path")
		}
		t.path = after
	}
	if t.path == "" {
		return Target{}, errors.New("the unix target has no path: write unix:///absolute/path")
	}
	t.path = filepath.FromSlash(t.path)
	return t, nil
}

func (t Target) abstract(rest string) (Target, error) {
	t.network = "unix"
	name := strings.TrimPrefix(rest, "///")
	if name == "" {
		return Target{}, errors.New("the unix-abstract target has no name: write unix-abstract:name")
	}
	t.path = "\x00" + name
	return t, nil
}

func (t Target) dnsTarget(rest string) (Target, error) {
	server, endpoint, err := authorityAndPath(rest)
	if err != nil {
		return Target{}, err
	}
	if server != "" {
		if _, _, err := net.SplitHostPort(server); err != nil {
			server = net.JoinHostPort(strings.Trim(server, "[]"), "53")
		}
		t.dns = server
	}
	// 443 is grpc-go's default for the dns scheme.
	return t.hostPort(endpoint, "443")
}

// authorityAndPath splits what follows a scheme: "//authority/endpoint", "/endpoint" or "endpoint".
func authorityAndPath(rest string) (authority, endpoint string, err error) {
	after, ok := strings.CutPrefix(rest, "//")
	if !ok {
		return "", strings.TrimPrefix(rest, "/"), nil
	}
	authority, endpoint, ok = strings.Cut(after, "/")
	if !ok {
		return "", "", errors.New("the address needs three slashes behind its scheme: write dns:///host:port")
	}
	if endpoint, err = url.PathUnescape(endpoint); err != nil {
		return "", "", errors.New("the address has a bad % escape: write dns:///host:port")
	}
	return authority, endpoint, nil
}

func (t Target) hostPort(text, defaultPort string) (Target, error) {
	t.network = "tcp"
	host, port, err := net.SplitHostPort(text)
	if err != nil && defaultPort != "" {
		host, port, err = net.SplitHostPort(net.JoinHostPort(strings.Trim(text, "[]"), defaultPort))
	}
	var addrErr *net.AddrError
	switch {
	case errors.As(err, &addrErr) && strings.Contains(addrErr.Err, "missing port"):
		return Target{}, errors.New("the address has no port: write host:port")
	case err != nil:
		return Target{}, errors.New("the address is not host:port: an IPv6 address goes in brackets, [::1]:50051")
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil || number == 0 {
		return Target{}, errors.New("the address's port is not a number from 1 to 65535")
	}
	if strings.ContainsFunc(host, func(r rune) bool { return r <= ' ' || r == 0x7f || strings.ContainsRune("/@?#[]", r) }) {
		return Target{}, errors.New("the address's host has a character that no host name has: write host:port")
	}
	if strings.Contains(host, ":") {
		if _, err := netip.ParseAddr(host); err != nil {
			return Target{}, errors.New("the address's host is not an IPv6 address: write [::1]:50051")
		}
	}
	if defaultPort != "" && host == "" {
		return Target{}, errors.New("the dns target has no host: write dns:///host:port")
	}
	t.host, t.port = host, port
	return t, nil
}
