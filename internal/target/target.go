package target

import (
	"errors"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"unicode"
)

// Target is an upstream's address, read from the text of a setting.
type Target struct {
	text      string
	unix      bool   // else it is tcp
	host      string // tcp: a name or an address; empty is this machine
	port      string // tcp: a number
	authority string // tcp: as grpc-go makes it, without a zone
	path      string // unix: a file's path, or "\x00name" for an abstract socket
	dns       string // host:port of the DNS server to ask; empty is the system's
}

// defaultPort is grpc-go's for a target without a port.
const defaultPort = "443"

// Parse reads a target: host:port, and grpc-go's dns, unix, unix-abstract and passthrough targets
// (https://github.com/grpc/grpc/blob/master/doc/naming.md), each with the meaning that it has for grpc-go. Without a port
// it is 443. A port may be the name of a service that this machine knows. An error says what to write instead, and never
// repeats the text.
func Parse(text string) (Target, error) {
	if text == "" {
		return Target{}, errors.New("the address is empty: write host:port")
	}
	if strings.ContainsFunc(text, unicode.IsControl) {
		return Target{}, errors.New("the address has a control character, such as a line break: write host:port")
	}
	t := Target{text: text}
	scheme, rest, _ := strings.Cut(text, ":")
	scheme = strings.ToLower(scheme)
	switch scheme {
	case "dns", "passthrough", "unix", "unix-abstract":
	default:
		if advice := foreign(scheme, rest); advice != "" {
			return Target{}, errors.New(advice)
		}
		return t.hostPort(text, defaultPort)
	}
	if strings.ContainsAny(rest, "?#") {
		return Target{}, errors.New("the address has a ? or #, from which on grpc-go ignores it: write it without (in the path of unix:///… as %3F or %23)")
	}
	authority := ""
	if after, ok := strings.CutPrefix(rest, "//"); ok {
		if authority, rest, ok = strings.Cut(after, "/"); !ok && (scheme == "dns" || scheme == "passthrough") {
			return Target{}, errors.New("the address needs three slashes behind its scheme: write dns:///host:port")
		} else if ok {
			rest = "/" + rest
		}
	}
	switch scheme {
	case "dns":
		if err := t.nameServer(authority); err != nil {
			return Target{}, err
		}
		return t.hostPort(strings.TrimPrefix(rest, "/"), defaultPort)
	case "passthrough":
		endpoint := strings.TrimPrefix(rest, "/")
		if strings.HasPrefix(endpoint, "unix:") { // grpc-go's dialler knows this one
			inner, err := Parse(endpoint)
			inner.text = text
			return inner, err
		}
		return t.hostPort(endpoint, "")
	}
	if authority != "" {
		return Target{}, errors.New("the " + scheme + " target has an authority: write unix:///absolute/path, unix:relative/path or unix-abstract:name")
	}
	path := rest
	if strings.HasPrefix(rest, "/") { // else it is opaque to a URL's rules, and is not unescaped
		var err error
		if path, err = url.PathUnescape(rest); err != nil {
			return Target{}, errors.New("the address has a bad % escape: write a percent sign as %25")
		}
	}
	if scheme == "unix-abstract" {
		if path == "" || path == "/" {
			return Target{}, errors.New("the unix-abstract target has no name: write unix-abstract:name")
		}
		return t.socket("@" + path)
	}
	return t.socket(path)
}

// foreign is the advice for an address in a form of other programs; empty where it is none. rest is what follows the first colon.
func foreign(scheme, rest string) string {
	switch {
	case scheme == "xds" && strings.HasPrefix(rest, "/"):
		return "the address has the scheme xds, for which there is no resolver here: write host:port"
	case (scheme == "ipv4" || scheme == "ipv6") && strings.ContainsAny(rest, ".:"):
		return "the address has a scheme that grpc-go does not know: write 192.0.2.1:50051 or [2001:db8::1]:50051"
	case !strings.HasPrefix(rest, "//"):
		return ""
	case scheme == "https" || scheme == "grpcs":
		return "the address has the form of a URL: write host:port without a scheme, and set TLS"
	case scheme == "http" || scheme == "grpc" || scheme == "tcp" || scheme == "h2c":
		return "the address has the form of a URL: write host:port without a scheme"
	}
	return "the address has a scheme that is not dns, unix, unix-abstract or passthrough: write host:port"
}

// String is the text that the target was read from.
func (t Target) String() string { return t.text }

// Host is the name or address that a server certificate is verified against by default:
// "localhost" for this machine and for unix sockets. It has no zone, which has a meaning on this machine alone.
func (t Target) Host() string {
	if t.unix || t.host == "" {
		return "localhost"
	}
	return withoutZone(t.host)
}

// Authority is the RPC's :authority where nothing else sets it: the target, as grpc-go makes it but without a zone,
// and "localhost" for unix sockets and an empty host.
func (t Target) Authority() string { return t.authority }

// NameServer is the host:port of the DNS server that the target names; empty where it names none.
func (t Target) NameServer() string { return t.dns }

// IsUnix says whether the target is a unix socket, which no proxy leads to.
func (t Target) IsUnix() bool { return t.unix }

// HostPort is how others, such as a proxy, are told of a TCP target: a host and a port.
func (t Target) HostPort() string { return net.JoinHostPort(t.Host(), t.port) }

// socket completes a target that is a unix socket. A path that begins with @ is an abstract socket, as in package net.
func (t Target) socket(path string) (Target, error) {
	t.unix, t.authority = true, "localhost"
	longest := len(syscall.RawSockaddrUnix{}.Path)
	name, abstract := strings.CutPrefix(path, "@")
	switch {
	case path == "":
		return Target{}, errors.New("the unix target has no path: write unix:///absolute/path")
	case abstract && name == "":
		return Target{}, errors.New("the unix-abstract target has no name: write unix-abstract:name")
	case strings.ContainsRune(path, 0):
		return Target{}, errors.New("the socket's path has a zero byte: write it without")
	case abstract && len(path) > longest:
		return Target{}, errors.New("the abstract socket's name is longer than the " + strconv.Itoa(longest-1) + " bytes that the system takes: use a shorter one")
	case !abstract && len(path) >= longest: // a path ends with a zero byte
		return Target{}, errors.New("the socket's path is longer than the " + strconv.Itoa(longest-1) + " bytes that the system takes: use a shorter one")
	case abstract:
		t.path = "\x00" + name
	default:
		t.path = filepath.FromSlash(path)
	}
	return t, nil
}

// nameServer reads the authority of a dns target.
func (t *Target) nameServer(authority string) error {
	if authority == "" {
		return nil
	}
	server, err := Target{}.hostPort(authority, "53")
	if err != nil || server.host == "" {
		return errors.New("the dns target's name server is not host or host:port: write dns://192.0.2.53/host:port, or dns:///host:port to ask the system's")
	}
	t.dns = net.JoinHostPort(server.host, server.port)
	return nil
}

// hostPort completes a target that is a host and a port, as grpc-go's dns resolver reads it (parseTarget). Without a port it
// is the fallback; where there is none, a port is required.
func (t Target) hostPort(text, fallback string) (Target, error) {
	host, port, err := splitHostPort(text)
	if err != nil {
		return Target{}, err
	}
	brackets := strings.Contains(host, ":")
	t.host, t.port, t.authority = host, port, withoutZone(host)
	if host == "" {
		t.authority = "localhost"
	}
	if brackets {
		t.authority = "[" + t.authority + "]"
	}
	switch {
	case port != "":
		if t.port, err = portNumber(port); err != nil {
			return Target{}, err
		}
		t.authority += ":" + port
	case fallback == "":
		return Target{}, errors.New("the passthrough target has no port: write passthrough:///host:port")
	default:
		t.port = fallback
	}
	return t, nil
}

// splitHostPort splits host:port, [host]:port, and both without a port, which then is empty. The host is legal.
func splitHostPort(text string) (host, port string, err error) {
	// A zone may be written as in a URL, fe80::1%25eth0, which grpc-go wants, or as it is, fe80::1%eth0.
	plain, err := url.PathUnescape(text)
	if err != nil {
		err = errors.New("the address has a bad % escape: write host:port")
	} else {
		host, port, err = split(plain)
	}
	if err != nil && strings.Contains(text, "%") {
		if host, port, again := split(text); again == nil {
			return host, port, nil
		}
	}
	return host, port, err
}

func split(text string) (host, port string, err error) {
	if text == "" {
		return "", "", errors.New("the address has no host: write host:port")
	}
	if _, err := netip.ParseAddr(text); err == nil {
		return text, "", nil
	}
	host, port, err = net.SplitHostPort(text)
	switch {
	case err == nil && port == "":
		return "", "", errors.New("the address ends with a colon: write host:port")
	case err != nil:
		if host, _, err = net.SplitHostPort(text + ":" + defaultPort); err != nil {
			return "", "", errors.New("the address is not host:port: an IPv6 address goes in brackets, [::1]:50051")
		}
		port = ""
	}
	if fault := hostFault(host); fault != "" {
		return "", "", errors.New(fault)
	}
	return host, port, nil
}

// hostFault says what is wrong with a host, and what to do; empty where it can exist. An empty host can: it is this machine. The rules
// are those of package net, which asks nobody for another name.
func hostFault(host string) string {
	const most, mostOfLabel = 253, 63
	if _, err := netip.ParseAddr(host); err == nil || host == "" {
		return ""
	}
	if strings.Contains(host, ":") {
		return "the address's host is not an IPv6 address: write [::1]:50051"
	}
	name := strings.TrimSuffix(host, ".")
	switch {
	case strings.ContainsFunc(name, func(r rune) bool { return r > unicode.MaxASCII && unicode.IsPrint(r) }):
		return "the address's host has a letter that is not ASCII: write it in its ASCII form, xn--…"
	case strings.ContainsFunc(name, func(r rune) bool {
		return r != '-' && r != '_' && r != '.' && !('0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z')
	}):
		return "the address's host has a character that no host name has: write host:port"
	case len(name) > most:
		return "the address's host is longer than the 253 bytes of a host name: write a shorter one"
	case !strings.ContainsFunc(name, func(r rune) bool { return r != '.' && (r < '0' || '9' < r) }):
		return "the address's host has digits alone, and is not an IPv4 address: write four numbers from 0 to 255, 192.0.2.1"
	}
	for label := range strings.SplitSeq(name, ".") {
		switch {
		case label == "":
			return "the address's host has an empty part, between two dots or before the first: write host:port"
		case len(label) > mostOfLabel:
			return "the address's host has a part that is longer than 63 bytes: write a shorter one"
		case strings.HasPrefix(label, "-") || strings.HasSuffix(label, "-"):
			return "the address's host has a part that begins or ends with a hyphen: write it without"
		}
	}
	return ""
}

// portNumber is the number of a port that is a number or the name of a service.
func portNumber(port string) (string, error) {
	if strings.Trim(port, "0123456789") == "" {
		if number, err := strconv.ParseUint(port, 10, 16); err == nil && number > 0 {
			return strconv.FormatUint(number, 10), nil
		}
		return "", errors.New("the address's port is not a number from 1 to 65535")
	}
	isService := !strings.ContainsFunc(port, func(r rune) bool {
		return r != '-' && r != '_' && !('0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z')
	}) && !strings.HasPrefix(port, "-")
	if isService {
		if number, err := net.LookupPort("tcp", port); err == nil && number > 0 {
			return strconv.Itoa(number), nil
		}
	}
	if strings.Contains(port, "/") {
		return "", errors.New("the address has a path behind its port: write host:port")
	}
	return "", errors.New("the address's port is not a number from 1 to 65535, nor the name of a service that this machine knows")
}

// withoutZone is the host without an IPv6 zone.
func withoutZone(host string) string {
	if ip, err := netip.ParseAddr(host); err == nil && ip.Zone() != "" {
		return ip.WithZone("").String()
	}
	return host
}
