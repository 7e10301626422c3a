package creds

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/credentials"

	"example.com/grpc-health-http/internal/dial"
	"example.com/grpc-health-http/internal/health"
)

// explainedTLS are TLS credentials whose errors say what is wrong: they are a health.TLSError where the reason is known, they
// hold the certificate that the server showed, and name the setting that helps where one does.
//
// The handshake is made here, not by package credentials: that copies the configuration twice more and starts a goroutine, whose stack has to grow, for each dial.
type explainedTLS struct {
	credentials.TransportCredentials
	config *tls.Config
	advice advice
}

// advice is what explanations name beside the certificates.
type advice struct {
	roots       string   // the setting that says whom to trust; empty where none does
	trusted     *rootSet // what it holds; nil where it is not set
	serverName  string   // the setting of the server's name; empty where none says it
	certificate string   // what gives the client certificate
	none        string   // what to set for a client certificate; empty where there is one
}

func newTLS(config *tls.Config, a advice) credentials.TransportCredentials {
	config.NextProtos = []string{"h2"}
	config.CipherSuites = cipherSuites
	return &explainedTLS{credentials.NewTLS(config), config, a}
}

// cipherSuites are those of TLS 1.2 that crypto/tls calls secure and HTTP/2 allows (RFC 9113, appendix A).
var cipherSuites = func() (allowed []uint16) {
	for _, suite := range tls.CipherSuites() {
		if strings.Contains(suite.Name, "_ECDHE_") && !strings.Contains(suite.Name, "_CBC_") {
			allowed = append(allowed, suite.ID)
		}
	}
	return allowed
}()

// ClientHandshake fails with a dial.HandshakeError where the certificate is not what failed: no ALPN, say, or no
// client certificate. The connection's reads say what an alert means that comes after the handshake, as TLS 1.3 has it.
func (t *explainedTLS) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	h := &handshakeFacts{explainedTLS: t, authority: authority}
	config := t.config.Clone()
	config.ServerName = authority
	if host, _, err := net.SplitHostPort(authority); err == nil {
		config.ServerName = host
	}
	config.VerifyConnection = h.verified
	config.GetClientCertificate = h.clientCertificate
	secured := tls.Client(raw, config)
	err := secured.HandshakeContext(ctx)
	state := secured.ConnectionState()
	if err == nil && state.NegotiatedProtocol == "" {
		err = errNoALPN
	}
	if err != nil {
		_ = secured.Close() // an error says that the connection has ended before
		return nil, nil, h.explain(err)
	}
	return &explainedConn{Conn: secured, handshake: h},
		credentials.TLSInfo{State: state, CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}}, nil
}

var errNoALPN = &health.TLSError{Fault: health.NoALPN, Err: errors.New("the server does not offer h2 with ALPN, which gRPC requires")}

// handshakeFacts are what one handshake brings to light.
type handshakeFacts struct {
	*explainedTLS
	authority string
	state     atomic.Pointer[tls.ConnectionState] // nil until the server's certificate was verified
	asked     atomic.Bool                         // the server asked for a client certificate
	sent      atomic.Pointer[tls.Certificate]     // nil where none was sent
}

func (h *handshakeFacts) verified(state tls.ConnectionState) error {
	h.state.Store(&state)
	return nil
}

func (h *handshakeFacts) clientCertificate(request *tls.CertificateRequestInfo) (*tls.Certificate, error) {
	h.asked.Store(true)
	if h.config.GetClientCertificate == nil {
		return new(tls.Certificate), nil // crypto/tls sends none then
	}
	c, err := h.config.GetClientCertificate(request)
	if err == nil && len(c.Certificate) > 0 {
		h.sent.Store(c)
	}
	return c, err
}

// explain returns the error with all that is known about it.
func (h *handshakeFacts) explain(err error) error {
	explained := h.reason(err)
	if state := h.state.Load(); state != nil && len(state.PeerCertificates) > 0 {
		explained = &dial.HandshakeError{Err: explained, Leaf: state.PeerCertificates[0]}
	}
	return explained
}

func (h *handshakeFacts) reason(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "remote error" {
		return h.alert(err, op.Err.Error())
	}
	if failed, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return h.verification(err, failed.UnverifiedCertificates)
	}
	if strings.Contains(err.Error(), wrongVersion) {
		return &health.TLSError{Fault: health.WrongVersion, Err: err}
	}
	return err
}

// wrongVersion is how crypto/tls begins to say that the server chose a version of TLS that was not offered.
const wrongVersion = "tls: server selected unsupported protocol version"

// verification explains why the server's certificate was not accepted.
func (h *handshakeFacts) verification(err error, chain []*x509.Certificate) error {
	failed := &health.TLSError{Fault: health.InvalidCertificate, Err: err}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		switch invalid.Reason {
		case x509.Expired:
			expired(failed, invalid.Cert, chain)
		case x509.IncompatibleUsage:
			failed.Fault = health.WrongUsage
			failed.Err = fmt.Errorf("%w (its extended key usage does not have server authentication)", err)
		}
		return failed
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		h.unknownAuthority(failed, chain)
		return failed
	}
	if wrong, ok := errors.AsType[x509.HostnameError](err); ok {
		h.wrongName(failed, wrong)
	}
	return failed
}

// expired says that c is not valid now. chain is what the server sent.
func expired(failed *health.TLSError, c *x509.Certificate, chain []*x509.Certificate) {
	failed.Fault, failed.At = health.CertificateExpired, c.NotAfter
	if time.Now().Before(c.NotBefore) {
		failed.Fault, failed.At = health.CertificateNotYetValid, c.NotBefore
	}
	if failed.Issuer = len(chain) > 0 && !c.Equal(chain[0]); failed.Issuer {
		failed.Err = fmt.Errorf("%w (the certificate of the authority %s is valid from %s to %s)", failed.Err, quoted(c.Subject.CommonName),
			c.NotBefore.UTC().Format(time.DateOnly), c.NotAfter.UTC().Format(time.DateOnly))
	}
}

// unknownAuthority says what is known about the authority of the chain that the server sent.
func (h *handshakeFacts) unknownAuthority(failed *health.TLSError, chain []*x509.Certificate) {
	failed.Fault = health.UnknownAuthority
	if len(chain) == 0 {
		return
	}
	var trusted []*x509.Certificate
	if h.advice.trusted != nil {
		trusted = h.advice.trusted.certificates
	}
	// Upwards from the server's own certificate, as far as there are certificates.
	last := chain[0]
	for range len(chain) + len(trusted) {
		above := issuer(last, chain, trusted)
		if above == nil || above.Equal(last) {
			break
		}
		if now := time.Now(); now.After(above.NotAfter) || now.Before(above.NotBefore) {
			expired(failed, above, chain)
			return
		}
		last = above
	}
	var facts []string
	if bytes.Equal(last.RawIssuer, last.RawSubject) {
		if last.Equal(chain[0]) {
			facts = append(facts, "it is self-signed")
		} else {
			facts = append(facts, "its root is "+quoted(last.Subject.CommonName))
		}
	} else {
		facts = append(facts, "its issuer is "+quoted(cmp.Or(last.Issuer.CommonName, last.Issuer.String())))
	}
	switch {
	case h.advice.trusted != nil && slices.ContainsFunc(trusted, func(c *x509.Certificate) bool { return bytes.Equal(c.RawSubject, last.RawIssuer) && !c.Equal(last) }):
		facts = append(facts, h.advice.roots+" has an authority of that name with another key")
	case h.advice.trusted == nil && h.advice.roots != "" && noSystemRoots():
		facts = append(facts, "this system has no root certificates")
	}
	if h.advice.roots != "" {
		facts = append(facts, h.advice.roots+" says whom to trust")
	}
	if h.advice.trusted != nil && h.advice.trusted.unused != "" {
		facts = append(facts, h.advice.trusted.unused)
	}
	failed.Err = fmt.Errorf("%w (%s)", failed.Err, strings.Join(facts, "; "))
}

// issuer finds the certificate that signed c; nil where there is none.
func issuer(c *x509.Certificate, sets ...[]*x509.Certificate) *x509.Certificate {
	for _, set := range sets {
		for _, candidate := range set {
			if bytes.Equal(candidate.RawSubject, c.RawIssuer) && c.CheckSignatureFrom(candidate) == nil {
				return candidate
			}
		}
	}
	return nil
}

// noSystemRoots says whether the system has no roots at all, as an image that was made from scratch.
func noSystemRoots() bool {
	pool, err := x509.SystemCertPool()
	return err == nil && pool.Equal(x509.NewCertPool())
}

// wrongName says which names the certificate has.
func (h *handshakeFacts) wrongName(failed *health.TLSError, wrong x509.HostnameError) {
	c, host := wrong.Certificate, quoted(wrong.Host)
	failed.Fault = health.WrongName
	has := make([]string, 0, len(c.DNSNames)+len(c.IPAddresses))
	for _, name := range c.DNSNames {
		has = append(has, quoted(name))
	}
	for _, ip := range c.IPAddresses {
		has = append(has, ip.String())
	}
	var text string
	switch {
	case len(has) > 0:
		text = "the server's certificate is for " + some(has) + ", not for " + host
		if h.advice.serverName != "" {
			text += " (" + h.advice.serverName + " says which name to expect)"
		}
	case len(c.URIs) > 0:
		failed.Fault = health.NoName
		for _, uri := range c.URIs {
			has = append(has, quoted(uri.String()))
		}
		text = "the server's certificate has neither DNS names nor IP addresses, so no server name matches it, " + host + " no more than another; it names " + some(has)
	default:
		failed.Fault = health.NoName
		text = "the server's certificate has no subject alternative names, so no server name matches it, " + host +
			" no more than another: its common name does not count; it must be issued again with subject alternative names"
	}
	failed.Err = &reworded{failed.Err, "tls: failed to verify certificate: " + text}
}

// maxShown is how many of a list a message shows, and maxName how much of a name, in bytes.
const (
	maxShown = 5
	maxName  = 100
)

// some is the first of the items, and how many more there are.
func some(items []string) string {
	if len(items) <= maxShown {
		return strings.Join(items, ", ")
	}
	return strings.Join(items[:maxShown], ", ") + " and " + strconv.Itoa(len(items)-maxShown) + " more"
}

// quoted is text from outside with everything escaped that is not printable, and cut.
func quoted(text string) string {
	if len(text) > maxName {
		text = text[:maxName] + "…"
	}
	return strconv.Quote(text)
}

// alertFaults are what alerts of the server mean (RFC 8446, section 6.2). About a client certificate the other maps tell.
var alertFaults = map[tls.AlertError]health.TLSFault{
	70:  health.WrongVersion,      // protocol_version
	86:  health.WrongVersion,      // inappropriate_fallback
	112: health.ServerNameUnknown, // unrecognized_name
	120: health.NoALPN,            // no_application_protocol
}

// clientAlerts are those about the client certificate: about the one that was sent, or that none was.
var clientAlerts = []tls.AlertError{
	42,  // bad_certificate
	43,  // unsupported_certificate
	44,  // certificate_revoked
	45,  // certificate_expired
	46,  // certificate_unknown
	48,  // unknown_ca
	49,  // access_denied
	116, // certificate_required
}

// handshakeFailure is the alert of many servers of TLS 1.2 that get no client certificate, but also that of a server that
// finds no cipher suite, or none for the server name.
const handshakeFailure tls.AlertError = 40

// alert explains an alert of the server. crypto/tls has no exported type for it; its text is that of the tls.AlertError.
func (h *handshakeFacts) alert(err error, text string) error {
	for alert, fault := range alertFaults {
		if text != alert.Error() {
			continue
		}
		failed := &health.TLSError{Fault: fault, Err: err}
		switch fault {
		case health.ServerNameUnknown:
			failed.Err = fmt.Errorf("%w (%s)", err, h.nameSent())
		case health.NoALPN:
			failed.Err = fmt.Errorf("%w (the server does not offer h2 with ALPN, which gRPC requires)", err)
		}
		return failed
	}
	sent := h.sent.Load()
	about := slices.ContainsFunc(clientAlerts, func(a tls.AlertError) bool { return text == a.Error() })
	switch {
	case about && sent != nil:
		failed := &health.TLSError{Fault: health.ClientCertificateRefused, Err: err}
		if fact := h.certificateFact(sent); fact != "" {
			failed.Err = fmt.Errorf("%w (%s)", err, fact)
		}
		return failed
	case (about || text == handshakeFailure.Error()) && sent == nil && h.asked.Load():
		return &health.TLSError{Fault: health.ClientCertificateRequired, Err: fmt.Errorf("%w (%s)", err, h.noneSent())}
	case text == handshakeFailure.Error() && net.ParseIP(h.authority) != nil:
		return fmt.Errorf("%w (%s)", err, h.nameSent())
	}
	return err
}

// nameSent tells which name the server was asked for (SNI).
func (h *handshakeFacts) nameSent() string {
	fact := "the server was asked for the name " + quoted(h.authority)
	if net.ParseIP(h.authority) != nil {
		fact = "the server was asked for no name, since the target is an IP address"
	}
	if h.advice.serverName != "" {
		fact += "; " + h.advice.serverName + " says which name to send"
	}
	return fact
}

// noneSent says that the server asked for a client certificate in vain.
func (h *handshakeFacts) noneSent() string {
	fact := "the server asked for a client certificate, and none was sent"
	if h.advice.none != "" {
		fact += ": set " + h.advice.none
	}
	return fact
}

// certificateFact is what is wrong with our certificate, as far as this side can see; else which one it is.
func (h *handshakeFacts) certificateFact(sent *tls.Certificate) string {
	leaf := sent.Leaf
	if leaf == nil {
		var err error
		if leaf, err = x509.ParseCertificate(sent.Certificate[0]); err != nil {
			return ""
		}
	}
	fact := "the certificate of " + h.advice.certificate
	switch now := time.Now(); {
	case now.After(leaf.NotAfter):
		return fact + " expired " + leaf.NotAfter.UTC().Format(time.DateOnly)
	case now.Before(leaf.NotBefore):
		return fact + " is not valid before " + leaf.NotBefore.UTC().Format(time.DateOnly)
	case len(leaf.ExtKeyUsage)+len(leaf.UnknownExtKeyUsage) > 0 &&
		!slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageClientAuth) && !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageAny):
		return fact + " is not meant for clients: its extended key usage does not have client authentication"
	}
	return "the server does not accept " + fact + ", issued by " + quoted(cmp.Or(leaf.Issuer.CommonName, leaf.Issuer.String()))
}

// explainedConn is a connection whose reads say what an alert means. Servers of TLS 1.3 refuse a client certificate, or miss
// it, when the client's handshake is over.
type explainedConn struct {
	net.Conn
	handshake *handshakeFacts
	begun     atomic.Bool // something was read
}

func (c *explainedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 && !c.begun.Load() {
		c.begun.Store(true)
	}
	if err == nil || c.begun.Load() {
		return n, err
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "remote error" {
		return n, c.handshake.alert(err, op.Err.Error())
	}
	if c.handshake.asked.Load() && c.handshake.sent.Load() == nil && !errors.Is(err, net.ErrClosed) {
		err = &dial.NotedError{Err: err, Note: c.handshake.noneSent()}
	}
	return n, err
}

// reworded is an error in other words.
type reworded struct {
	err  error
	text string
}

func (e *reworded) Error() string { return e.text }
func (e *reworded) Unwrap() error { return e.err }
