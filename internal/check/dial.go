package check

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"example.com/grpc-health-http/internal/target"
)

// raceDelay is how long an address has before the next one is tried beside it, and leastDelay the
// least where the budget is short: the Connection Attempt Delays that RFC 8305, section 5, recommends.
const (
	raceDelay  = 250 * time.Millisecond
	leastDelay = 10 * time.Millisecond
)

// dialer makes connections to one target.
type dialer struct {
	o     *Options
	clock *runtimeClock
}

// dial connects: it looks the target up, races its addresses, and returns once a connection stands,
// that is, once the server's SETTINGS have come. It ends within ConnectTimeout. d tells how it went;
// the connection is nil where d.Err is not. p shows meanwhile how far it has come.
func (dl *dialer) dial(ctx context.Context, p *dialProgress) (c *conn, d Dial) {
	began := dl.clock.tick()
	ctx, cancel := dl.clock.withBudget(ctx, dl.o.ConnectTimeout)
	defer cancel()
	for redials := 0; ; redials++ {
		var last Dial
		c, last = dl.attempt(ctx, p)
		last.Redials = redials
		if last.Err != nil && d.Err != nil && errors.Is(last.Err, errBudget) && !further(last.Phase, d.Phase) {
			// The budget ended a later attempt: what the ones before it met says more.
			break
		}
		d = last
		if c != nil || dl.o.Redial <= 0 || d.Phase == PhaseCredentials || ctx.Err() != nil || !pause(ctx, dl.o.Redial) {
			break
		}
	}
	d.Took = dl.clock.tick().Since(began.moment)
	if c != nil {
		c.began = began.moment
	}
	if dl.o.Trace.Dial != nil && !errors.Is(d.Err, context.Canceled) {
		result := "ok"
		if d.Err != nil {
			result = string(d.Phase)
		}
		dl.o.Trace.Dial(result)
	}
	return c, d
}

// pause waits for d, and says whether the context let it.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// dialProgress shows how far a dial has come, to those who cannot wait for its end.
type dialProgress struct {
	began moment

	mu   sync.Mutex
	dial Dial
}

func newProgress(began reading) *dialProgress {
	return &dialProgress{began: began.moment, dial: Dial{Phase: PhaseCredentials}}
}

// reached notes that a phase begins that comes before all addresses.
func (p *dialProgress) reached(phase Phase) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dial = Dial{Phase: phase}
}

func (p *dialProgress) lookedUp(took time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dial.Lookup = took
}

// address notes how far an address has come. A winner ends the race, and what the others come to is no news.
func (p *dialProgress) address(i int, a AddressAttempt) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.dial.Addresses) <= i {
		p.dial.Addresses = append(p.dial.Addresses, AddressAttempt{})
	}
	p.dial.Addresses[i] = a
	if a.Err == nil {
		p.dial.Phase = a.Phase
	}
}

func (p *dialProgress) phase() Phase {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dial.Phase
}

// soFar is the dial as it stands.
func (p *dialProgress) soFar(now moment) Dial {
	p.mu.Lock()
	defer p.mu.Unlock()
	d := p.dial
	d.Addresses = slices.Clone(d.Addresses)
	for i := range d.Addresses {
		if a := &d.Addresses[i]; a.Phase != PhaseNone && a.Err == nil {
			a.Err = errUnderWay
		}
	}
	d.Took, d.Err = now.Since(p.began), errUnderWay
	return d
}

// attempt gets the credentials, looks up, and races the addresses; where the handshake fails and
// reading the credentials again brings new ones, it races once more with those.
func (dl *dialer) attempt(ctx context.Context, p *dialProgress) (*conn, Dial) {
	var d Dial
	p.reached(PhaseCredentials)
	tc, err := dl.credentials(ctx, false)
	if err != nil {
		d.Phase, d.Err = PhaseCredentials, err
		return nil, d
	}
	p.reached(PhaseDNS)
	lookupBegan := time.Now()
	addresses, err := dl.addresses(ctx)
	d.Lookup = time.Since(lookupBegan)
	if err != nil {
		d.Phase, d.Err = PhaseDNS, dl.orBudget(ctx, err, "the target's host was not looked up")
		return nil, d
	}
	p.lookedUp(d.Lookup)
	c := dl.race(ctx, addresses, tc, &d, p)
	if c == nil && d.Phase == PhaseTLS && ctx.Err() == nil {
		again, err := dl.credentials(ctx, true)
		if err == nil && again != tc {
			if dl.o.Trace.Retry != nil {
				dl.o.Trace.Retry("credentials")
			}
			c = dl.race(ctx, addresses, again, &d, p)
		}
	}
	return c, d
}

// credentials are those for one dial.
func (dl *dialer) credentials(ctx context.Context, refresh bool) (credentials.TransportCredentials, error) {
	if dl.o.Credentials == nil {
		return insecure.NewCredentials(), nil
	}
	tc, err := dl.o.Credentials(ctx, refresh)
	if err != nil {
		return nil, dl.orBudget(ctx, err, "the credentials did not come")
	}
	return tc, nil
}

// addresses are the places to dial. Behind a proxy that is one, named to the proxy and not looked up here.
func (dl *dialer) addresses(ctx context.Context) ([]address, error) {
	t := dl.o.Target
	if dl.o.Proxy != nil && !t.IsUnix() {
		hostPort := t.HostPort()
		proxy, err := dl.o.Proxy(hostPort)
		if err != nil {
			return nil, fmt.Errorf("choose a proxy: %w", err)
		}
		if proxy != nil {
			return []address{{network: "tcp", text: hostPort, proxy: proxy}}, nil
		}
	}
	found, err := t.Addresses(ctx, target.Lookup)
	var addresses []address
	for _, a := range found {
		addresses = append(addresses, address{network: a.Network, text: a.Text})
	}
	return addresses, err
}

// race tries the addresses, each raceDelay after the one before (earlier where the budget would not do
// for all) or at once when that has failed. The first connection that stands wins; the others are closed.
func (dl *dialer) race(ctx context.Context, addresses []address, tc credentials.TransportCredentials, d *Dial, p *dialProgress) *conn {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends those that did not win
	type finish struct {
		i int
		c *conn
		a AddressAttempt
	}
	finished := make(chan finish, len(addresses))
	first := len(d.Addresses)
	started, open := 0, 0
	start := func() {
		if started == len(addresses) || started > 0 && ctx.Err() != nil {
			return
		}
		i := started
		started, open = started+1, open+1
		d.Addresses = append(d.Addresses, AddressAttempt{})
		go func() {
			c, a := dl.connect(ctx, addresses[i], tc, func(a AddressAttempt) { p.address(first+i, a) })
			p.address(first+i, a)
			finished <- finish{i, c, a}
		}()
	}
	delay := max(leastDelay, min(raceDelay, dl.o.ConnectTimeout/time.Duration(len(addresses))))
	next := time.NewTicker(delay)
	defer next.Stop()
	for start(); open > 0; {
		select {
		case <-next.C:
			start()
		case f := <-finished:
			open--
			d.Addresses[first+f.i] = f.a
			if f.c == nil {
				start()
				next.Reset(delay)
				continue
			}
			go func() {
				for range open {
					if late := <-finished; late.c != nil {
						late.c.retire()
					}
				}
			}()
			d.Phase, d.Err = PhaseNone, nil
			return f.c
		}
	}
	// The address that came furthest says most about what is wrong.
	for i, a := range d.Addresses[first:] {
		if i == 0 || a.Phase.Beyond(d.Phase) {
			d.Phase, d.Err = a.Phase, a.Err
		}
	}
	return nil
}

// further says that an attempt which reached an address came further than the one before it.
func further(last, before Phase) bool {
	return last != PhaseCredentials && last.Beyond(before)
}

// connect makes a connection to one address. tell hears of each phase that begins.
func (dl *dialer) connect(ctx context.Context, to address, tc credentials.TransportCredentials, tell func(AddressAttempt)) (*conn, AddressAttempt) {
	a := AddressAttempt{Address: to.String(), Phase: PhaseConnect}
	tell(a)
	began := time.Now()
	raw, err := to.connect(ctx)
	a.Connect = time.Since(began)
	if err != nil {
		a.Err = dl.orBudget(ctx, err, "no connection to "+to.String())
		return nil, a
	}

	a.Phase = PhaseTLS
	tell(a)
	began = time.Now()
	serverName := dl.o.ServerName
	if serverName == "" {
		serverName = dl.o.Target.Host()
	}
	wire := watch(raw)
	secured, auth, err := tc.ClientHandshake(ctx, serverName, wire)
	protocol := tc.Info().SecurityProtocol
	encrypted := protocol != "insecure"
	if encrypted {
		a.TLS = time.Since(began)
	}
	a.Certificate = leaf(auth, err)
	if a.Certificate != nil && dl.o.Trace.PeerCertificate != nil {
		dl.o.Trace.PeerCertificate(a.Certificate)
	}
	if err != nil {
		raw.Close()
		var own *CredentialsError
		if errors.As(err, &own) {
			a.Phase = PhaseCredentials
		}
		a.Err = dl.orBudget(ctx, fmt.Errorf("%s handshake with %s: %w%s", strings.ToUpper(protocol), to, err, wire.hint(encrypted, dl.tlsSetting())),
			"the "+strings.ToUpper(protocol)+" handshake with "+to.String()+" did not end"+wire.hint(encrypted, dl.tlsSetting()))
		return nil, a
	}

	a.Phase = PhaseHTTP2
	tell(a)
	began = time.Now()
	watched := watch(secured)
	c, err := newConn(ctx, dl.o, dl.authority(), watched, auth)
	a.HTTP2 = time.Since(began)
	if err != nil {
		cause := watched.readError()
		if alert(cause) {
			a.Phase = PhaseTLS
		}
		switch {
		case cause == nil || errors.Is(cause, net.ErrClosed):
			cause = errors.New("what came is not HTTP/2")
		case errors.Is(cause, io.EOF):
			cause = errors.New("closed by the peer")
		}
		hint := watched.hint(false, dl.tlsSetting())
		if encrypted && !strings.Contains(hint, "HTTP/1") {
			hint = "" // the others are about TLS, which stands
		}
		a.Err = dl.orBudget(ctx, fmt.Errorf("no HTTP/2 SETTINGS from %s: %w%s", to, cause, hint),
			"no HTTP/2 SETTINGS from "+to.String()+hint)
		return nil, a
	}
	a.Phase = PhaseNone
	return c, a
}

// authority is the RPCs' :authority.
func (dl *dialer) authority() string {
	switch {
	case dl.o.Authority != "":
		return dl.o.Authority
	case dl.o.ServerName != "":
		return dl.o.ServerName
	}
	return dl.o.Target.Authority()
}

// tlsSetting is how causes name the setting that asks for TLS to the upstream.
func (dl *dialer) tlsSetting() string { return cmp.Or(dl.o.TLSSetting, "TLS to the upstream") }

// orBudget names the budget as the cause where it is the cause, and says what had not happened by then.
func (dl *dialer) orBudget(ctx context.Context, err error, not string) error {
	if cause := context.Cause(ctx); cause != nil {
		if errors.Is(cause, errBudget) {
			return fmt.Errorf("%s within %v: %w", not, dl.o.ConnectTimeout, cause)
		}
		return fmt.Errorf("%s: %w", not, context.Canceled)
	}
	return err
}

// leaf is the certificate that the peer showed, nil where there was none.
func leaf(auth credentials.AuthInfo, err error) *x509.Certificate {
	var failed *tls.CertificateVerificationError
	if errors.As(err, &failed) && len(failed.UnverifiedCertificates) > 0 {
		return failed.UnverifiedCertificates[0]
	}
	if shown, ok := errors.AsType[*HandshakeError](err); ok {
		return shown.Leaf
	}
	if info, ok := auth.(credentials.TLSInfo); ok && len(info.State.PeerCertificates) > 0 {
		return info.State.PeerCertificates[0]
	}
	return nil
}

// alert says whether a read ended with a TLS alert of the peer: crypto/tls gives those to the
// reader as a net.OpError with this operation.
func alert(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error"
}

// watchedConn remembers how a connection's reading began and ended, for the cause that grpc-go does not tell.
type watchedConn struct {
	net.Conn

	mu    sync.Mutex
	seen  [5]byte
	count int
	err   error
	ended chan struct{} // closed when reading has ended
}

func watch(c net.Conn) *watchedConn { return &watchedConn{Conn: c, ended: make(chan struct{})} }

// lastWords is how long closing waits for what a peer that gave up before its SETTINGS has said: a write can
// fail before the alert that explains it was read.
const lastWords = 20 * time.Millisecond

func (w *watchedConn) Close() error {
	if !w.stood() {
		select {
		case <-w.ended:
		case <-time.After(lastWords):
		}
	}
	return w.Conn.Close()
}

func (w *watchedConn) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if err != nil || w.count < len(w.seen) { // count is written by the reader alone
		w.mu.Lock()
		w.count += copy(w.seen[w.count:], p[:n])
		if err != nil && w.err == nil {
			w.err = err
			close(w.ended)
		}
		w.mu.Unlock()
	}
	return n, err
}

func (w *watchedConn) readError() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// stood says that the server's first frame was SETTINGS, with which its side of a connection begins
// (RFC 9113, sections 3.4 and 6.5).
func (w *watchedConn) stood() bool {
	const typeAt, settings = 3, 0x4
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.count > typeAt && w.seen[typeAt] == settings
}

// hint says what the peer's first bytes look like, where that helps, and what to do about it.
func (w *watchedConn) hint(encrypted bool, tlsSetting string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch first := string(w.seen[:w.count]); {
	case !encrypted && len(first) >= 2 && (first[0] == 0x15 || first[0] == 0x16) && first[1] == 3:
		return "; it speaks TLS: set " + tlsSetting
	case first == "HTTP/":
		return "; it speaks HTTP/1: is the address that of the gRPC port?"
	case !encrypted && w.count == 0 && w.err != nil && !errors.Is(w.err, net.ErrClosed):
		return "; a server that wants TLS does this: is " + tlsSetting + " set?"
	case encrypted && w.count > 0 && first[0] != 0x15 && first[0] != 0x16:
		return "; it does not speak TLS: is it a plaintext server? Then do without " + tlsSetting
	}
	return ""
}

// address is one place to dial.
type address struct {
	network, text string
	proxy         *url.URL // nil dials directly
}

func (a address) String() string {
	if a.network == "unix" && a.text != "" && a.text[0] == 0 {
		return "unix-abstract:" + a.text[1:]
	}
	return a.text
}

// connect opens the network connection, through the proxy where there is one.
func (a address) connect(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	if a.proxy == nil {
		return d.DialContext(ctx, a.network, a.text)
	}
	if a.proxy.Scheme != "http" {
		return nil, errors.New("the proxy: only http:// proxies are spoken to")
	}
	at := a.proxy.Host
	if a.proxy.Port() == "" {
		at = net.JoinHostPort(a.proxy.Hostname(), "80")
	}
	raw, err := d.DialContext(ctx, "tcp", at)
	if err != nil {
		return nil, fmt.Errorf("the proxy: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { raw.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	through, err := a.tunnel(raw)
	if err != nil {
		raw.Close()
		return nil, fmt.Errorf("the proxy: %w", err)
	}
	return through, nil
}

// tunnel asks an HTTP proxy for a connection to the address (RFC 9110, section 9.3.6).
func (a address) tunnel(raw net.Conn) (net.Conn, error) {
	request := &http.Request{Method: http.MethodConnect, URL: &url.URL{Host: a.text}, Host: a.text, Header: http.Header{}}
	if user := a.proxy.User; user != nil {
		password, _ := user.Password()
		request.Header.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(user.Username()+":"+password)))
	}
	if err := request.Write(raw); err != nil {
		return nil, err
	}
	reader := bufio.NewReader(raw)
	response, err := http.ReadResponse(reader, request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("it refused CONNECT with status %d", response.StatusCode)
	}
	if reader.Buffered() > 0 {
		return &bufferedConn{raw, reader}, nil
	}
	return raw, nil
}

// bufferedConn gives what was read ahead first.
type bufferedConn struct {
	net.Conn
	reader *bufio.Reader
}

func (b *bufferedConn) Read(p []byte) (int, error) { return b.reader.Read(p) }
