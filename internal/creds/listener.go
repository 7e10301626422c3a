package creds

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/time/rate"

	"example.com/grpc-health-http/internal/atmost"
	"example.com/grpc-health-http/internal/clock"
	"example.com/grpc-health-http/internal/settings"
)

// Listener returns the configuration of the HTTPS listener, nil where there is none. It reads the
// listener's files, within ctx, and fails where they cannot be used. From then on each handshake
// has the latest good certificate and client roots. admit, where clients must show a certificate, is for serve.Server's Admit:
// the right of a connection ends with its certificate, and with roots that cover it no more.
func Listener(ctx context.Context, s *settings.Settings, o Options) (config *tls.Config, admit func(tls.ConnectionState) func(context.Context) error, err error) {
	if s.HTTPSCert == "" {
		return nil, nil, nil
	}
	from := &tlsSource[*tls.Config]{build: serverConfig}
	var rootsErr error
	if s.HTTPSVerify {
		from.roots, rootsErr = o.roots(ListenerRoots, "HTTPS_LISTEN_CA", s.HTTPSCA)
	}
	var pairErr error
	from.pair, pairErr = o.pair(ListenerCertificate, "HTTPS_LISTEN_CERT", s.HTTPSCert, "HTTPS_LISTEN_KEY", s.HTTPSKey)
	if err := errors.Join(pairErr, rootsErr); err != nil {
		return nil, nil, err
	}
	config, err = from.get(ctx, false)
	if err != nil {
		return nil, nil, err
	}
	config = config.Clone()
	config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		return from.get(hello.Context(), false)
	}
	if from.roots != nil {
		admit = func(state tls.ConnectionState) func(context.Context) error {
			return (&admission{roots: from.roots, shown: state.PeerCertificates}).check
		}
	}
	return config, admit, nil
}

// admission is the right of one connection to be answered. Its chain is verified again only where the roots were replaced, or where
// a certificate of the chain that was found has ended.
type admission struct {
	roots *source[*rootSet]
	shown []*x509.Certificate // by the client, its own first
	found atomic.Pointer[admitted]
}

// admitted is a verification that succeeded.
type admitted struct {
	by    *rootSet
	until time.Time
}

// check returns why the connection has no right any more, as crypto/tls returns it from a handshake, for CallerFault.
func (a *admission) check(ctx context.Context) error {
	roots, err := a.roots.get(ctx, false)
	if err != nil {
		return err
	}
	now := time.Unix(0, a.roots.clock().Wall)
	if found := a.found.Load(); found != nil && found.by == roots && !now.After(found.until) {
		return nil
	}
	if len(a.shown) == 0 {
		return errors.New(noCertificate)
	}
	// As crypto/tls verifies it in the handshake.
	options := x509.VerifyOptions{
		Roots: roots.pool, Intermediates: x509.NewCertPool(), CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	for _, c := range a.shown[1:] {
		options.Intermediates.AddCert(c)
	}
	chains, err := a.shown[0].Verify(options)
	if err != nil {
		return &tls.CertificateVerificationError{UnverifiedCertificates: a.shown, Err: err}
	}
	until := chains[0][0].NotAfter
	for _, c := range chains[0] {
		if c.NotAfter.Before(until) {
			until = c.NotAfter
		}
	}
	a.found.Store(&admitted{roots, until})
	return nil
}

// serverConfig is the configuration of a TLS server that wants client certificates of the roots, and
// none where they are nil.
func serverConfig(roots *rootSet, pair *tls.Certificate) *tls.Config {
	config := &tls.Config{
		MinVersion:   tls.VersionTLS12,
		Certificates: []tls.Certificate{*pair},
		NextProtos:   []string{"h2", "http/1.1"},
		// A resumed session would outlive a rotated certificate or rotated roots.
		SessionTicketsDisabled: true,
	}
	if roots != nil {
		config.ClientAuth = tls.RequireAndVerifyClientCert
		config.ClientCAs = roots.pool
	}
	return config
}

// leastToken is the length of the shortest token, in bytes: messages leave shorter secrets as they are, and they are easily guessed.
const leastToken = 6

// Token returns what compares a presented token with that of HTTP_AUTH_TOKEN_FILE, white space
// around it aside, in constant time; nil where no token is wanted. Its error is why
// there is no token to compare with: then nobody gets in. A token that differs may be the next one, so
// the file is read again for it, once in 5 s at most. Where the file holds no token any more, the last one lets nobody in; see tokenRight.
func Token(s *settings.Settings, o Options) func(ctx context.Context, presented string) (bool, error) {
	if s.AuthTokenFile == "" {
		return nil
	}
	f := o.file("HTTP_AUTH_TOKEN_FILE", s.AuthTokenFile)
	right := tokenRight{file: f}
	var token *source[digest]
	token = newSource(o, AuthToken, f.String(), func(ctx context.Context, _ digest) (digest, digest, error) {
		n, began := right.begin(), token.clock()
		content, err := f.content(ctx)
		if _, long := errors.AsType[*atmost.TooLong](err); long { // it was read, and is no token
			right.without(n, began)
		} else if err != nil {
			right.unread(n, err)
		}
		if err != nil {
			return digest{}, digest{}, err
		}
		text, err := line(f, content)
		if err == nil && len(text) < leastToken {
			err = f.wrong("holds a token of fewer than 6 characters: use a longer one")
		}
		if err != nil {
			right.without(n, began)
			return digest{}, digest{}, err
		}
		right.with(n)
		o.Secrets.Set(f.String(), string(text))
		return sha256.Sum256(text), sha256.Sum256(content), nil
	})
	token.files = []file{f}
	token.usable = func(digest) bool { return !right.over() }
	forced := rate.NewLimiter(rate.Every(freshFor), 1)
	return func(ctx context.Context, presented string) (bool, error) {
		// Digests have one length, so that the time of the comparison does not tell the token's.
		got := digest(sha256.Sum256([]byte(presented)))
		want, err := token.get(ctx, false)
		// The monotonic clock, which nobody sets back. After a freeze, which stops it, the file has been read again already.
		if err == nil && !got.equal(want) && forced.AllowN(time.Unix(0, token.clock().Mono), 1) {
			want, err = token.get(ctx, true)
		}
		return err == nil && got.equal(want), err
	}
}

// equal compares in constant time.
func (d digest) equal(other digest) bool { return subtle.ConstantTimeCompare(d[:], other[:]) == 1 }

// rewriting is how long a file may hold no token while it is written.
const rewriting = time.Second

// tokenRight says whether the last good token still lets its callers in. It does not where the file is gone or not permitted, or has held
// no token for a second: a shorter time is that of a script that rewrites the file. A file that cannot be read for another
// reason, such as an I/O error, is no change.
type tokenRight struct {
	file file

	mu     sync.Mutex
	begun  int          // reads
	judged int          // the latest read that said something
	empty  clock.Moment // since when each read has found no token; zero where the latest found one
	ended  bool
}

// begin numbers a read: a slow one says nothing about what later ones have found.
func (r *tokenRight) begin() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.begun++
	return r.begun
}

func (r *tokenRight) over() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ended
}

// gone are the errors of a file that is not there, or not for this process.
var gone = []error{fs.ErrNotExist, fs.ErrPermission, syscall.ENOTDIR, syscall.EISDIR, syscall.ELOOP}

func (r *tokenRight) unread(n int, err error) {
	if slices.ContainsFunc(gone, func(e error) bool { return errors.Is(err, e) }) {
		r.judge(n, func() { r.ended = true })
	}
}

// without judges a read that began then and found no token. The file's own time tells it for a file that was not read for long; a
// secret is never half written.
func (r *tokenRight) without(n int, began clock.Moment) {
	info, err := os.Stat(r.file.value)
	settled := err != nil || time.Unix(0, began.Wall).Sub(info.ModTime()) >= rewriting
	r.judge(n, func() {
		if r.empty == (clock.Moment{}) {
			r.empty = began
		}
		r.ended = r.ended || settled || began.Since(r.empty) >= rewriting
	})
}

func (r *tokenRight) with(n int) {
	r.judge(n, func() { r.ended, r.empty = false, clock.Moment{} })
}

func (r *tokenRight) judge(n int, change func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n > r.judged {
		r.judged = n
		change()
	}
}
