package serve

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"example.com/grpc-health-http/internal/memory"
)

// Server is one HTTP server for Run.
type Server struct {
	Name     string       // tells the servers apart in logs and errors
	Listener net.Listener // Run closes it
	// Handler may read the bodies of requests, as long as it wants no more than some KiB of each. A connection that waits for a body can
	// make room.
	Handler http.Handler
	// TLS serves HTTPS, with HTTP/2; nil serves HTTP/1.1 and, to clients that begin with its preface, HTTP/2. A config that its GetConfigForClient returns needs NextProtos of
	// its own.
	TLS *tls.Config
	// Admit, where not nil, is called for each TLS connection at its first request. What it returns is called before each
	// request's handler, and again before its answer: with an error the connection is closed, without an answer to any of its
	// requests, and Refused is called with that error. So the right that a connection once had can end.
	Admit  func(tls.ConnectionState) func(context.Context) error
	Budget time.Duration // the longest that Handler takes to answer
	// Secondary servers need few connections: theirs may use 1/8 of the file-descriptor limit, those of other servers 5/8.
	// The rest is for the upstream and for files: callers that leave connections open must not make it seem down.
	Secondary bool
	// HeaderTimeout is the time that a caller has to send a request's headers, for the TLS handshake before them, and with HTTP/1
	// for a body that Handler reads. 0 is 5 s.
	HeaderTimeout time.Duration
	// MaxConnections is how many connections the server has at most. 0 is its share of the file-descriptor limit.
	MaxConnections int
	// Refused is called once for each TLS handshake that failed because of the client's certificate, or because none was sent, with
	// the client's address and crypto/tls' error. nil is none. It must not block.
	Refused func(client net.Addr, err error)
	// Memory is how many bytes the connections may take with the requests that they carry, and HeaderMemory how many the
	// requests that are still arriving, beyond a little that each connection has. 0 is no bound.
	Memory, HeaderMemory int64
	// Overloaded answers requests for which there is no memory left. It must answer soon, and shortly; nil ends them without an
	// answer.
	Overloaded http.Handler
}

const (
	defaultHeaderTimeout = 5 * time.Second
	// transferTime is the time that the network has for an answer, on top of the handler's budget.
	transferTime = 5 * time.Second
	// idleTimeout is above the 600 s for which Google's load balancers keep connections, so that the server never closes one
	// just as a request comes (https://cloud.google.com/load-balancing/docs/https#timeouts_and_retries).
	idleTimeout    = 620 * time.Second
	maxHeaderBytes = 16 << 10
	// linger is how long a drain keeps connections without a request, for requests that are on their way.
	linger = 250 * time.Millisecond
	// bodyTimeout is how long the rest of a body may take after the answer. net/http waits for it before it closes the
	// connection.
	bodyTimeout = 500 * time.Millisecond
	// closeTimeout is how long a client may take to close its side after the last answer of a drain.
	closeTimeout = 500 * time.Millisecond
	// stuckAfter is how long a client has to read an answer when others want its room.
	stuckAfter = 250 * time.Millisecond
	// restFor is how long a connection may be without a request when a new one wants its room, askFor when a request does (one of
	// HTTP/2, or one with many header fields), which can be told that there is none, and shakeFor how long a TLS handshake may take then.
	restFor  = 100 * time.Millisecond
	askFor   = 500 * time.Millisecond
	shakeFor = 500 * time.Millisecond
	// takeFor is how long a new connection waits for room, looking again every takeAgain.
	takeFor   = 700 * time.Millisecond
	takeAgain = 5 * time.Millisecond
	// receiveBuffer and sendBuffer are the system's for a connection.
	receiveBuffer = 64 << 10
	sendBuffer    = 64 << 10
	// What a request may have without being counted, since what a connection costs has it: freeBytes, or with TLS, with the
	// handshake, freeSecureBytes; and freeFields for its fields. maxUnread is the most of a request that net/http holds.
	freeBytes       = 1 << 10
	freeSecureBytes = 3 << 10
	freeFields      = 32 * memory.HeaderField
	maxUnread       = maxHeaderBytes + 8<<10
	// A client may have so many requests in progress on an HTTP/2 connection.
	maxStreams = 100
	// maxLeft is how many answers of an HTTP/2 connection handlers may leave unfinished.
	maxLeft = 8
)

// http2Bounds keep an HTTP/2 connection small: bodies are short here. The sizes are the smallest that are allowed, or the protocol's
// defaults.
var http2Bounds = http.HTTP2Config{
	MaxConcurrentStreams:          maxStreams,
	MaxDecoderHeaderTableSize:     4 << 10,
	MaxEncoderHeaderTableSize:     4 << 10,
	MaxReadFrameSize:              16 << 10,
	MaxReceiveBufferPerConnection: 64 << 10,
	MaxReceiveBufferPerStream:     16 << 10,
}

// Run serves until ctx ends or a server fails, and then drains all servers side by side. What is open after grace is cut off,
// with a warning in the log. The error is nil unless a server failed.
func Run(ctx context.Context, logger *slog.Logger, grace time.Duration, servers ...Server) error {
	failed := make(chan error, len(servers))
	var all []*running
	for _, s := range servers {
		all = append(all, begin(s, logger.With("server", s.Name), failed))
	}
	var err error
	select {
	case <-ctx.Done():
		logger.Info("shutting down", "grace_seconds", grace.Seconds())
	case err = <-failed:
	}
	// ctx has ended: the drain has a deadline of its own.
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	var wg sync.WaitGroup
	for _, r := range all {
		wg.Go(func() { r.end(ending, min(linger, grace/4)) })
	}
	wg.Wait()
	return err
}

// running is a server that has started.
type running struct {
	http   *http.Server
	conns  *connections
	logger *slog.Logger
	served chan struct{} // closed when no further connection will be accepted
}

// share is how many connections a server may have, given the file-descriptor limit.
func share(files int, secondary bool) int {
	if secondary {
		return max(files/8, 1)
	}
	return max(files/8*5, 1)
}

// begin starts to serve. It sends to failed if the server stops before its drain.
func begin(s Server, logger *slog.Logger, failed chan<- error) *running {
	problems := &rate.Sometimes{Interval: time.Second} // as they must not fill the log
	conns := &connections{
		Listener: s.Listener,
		limit:    cmp.Or(s.MaxConnections, share(OpenFiles(), s.Secondary)),
		memory:   s.Memory,
		headers:  s.HeaderMemory,
		secure:   s.TLS != nil,
		patience: cmp.Or(s.HeaderTimeout, defaultHeaderTimeout),
		answer:   s.Budget + transferTime,
		refused:  s.Refused,
		failed:   func(err error) { problems.Do(func() { logger.Warn("cannot accept a connection", "error", err) }) },
		open:     make(map[*conn]struct{}),
		clients:  make(map[netip.Addr]int),
	}
	conns.drained, conns.signal = context.WithCancel(context.Background())
	panicked := func(problem any) {
		problems.Do(func() {
			logger.Error("panic while answering a request", "panic", problem, "stack", string(debug.Stack()))
		})
	}
	overloaded := s.Overloaded
	if overloaded == nil {
		overloaded = http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(s.TLS != nil)
	protocols.SetUnencryptedHTTP2(s.TLS == nil)
	r := &running{conns: conns, logger: logger, served: make(chan struct{}), http: &http.Server{
		Handler:   handler(conns, panicked, admitting(s.Admit, s.Refused, s.Handler), overloaded),
		TLSConfig: s.TLS.Clone(), // which net/http changes
		Protocols: protocols,
		// No ReadTimeout: a body has its time by withBody, and with HTTP/2, where this would be a timer for each stream, by WriteTimeout.
		ReadHeaderTimeout:            conns.patience,
		WriteTimeout:                 conns.answer,
		IdleTimeout:                  idleTimeout,
		MaxHeaderBytes:               maxHeaderBytes,
		HTTP2:                        new(http2Bounds),
		ConnState:                    conns.state,
		ConnContext:                  connContext,
		DisableGeneralOptionsHandler: true, // "OPTIONS *" is a request like others
		// Besides what is logged above, its lines are about callers: port scanners, load balancers that only connect.
		ErrorLog: slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}}
	go func() {
		defer close(r.served)
		serve := r.http.Serve
		if s.TLS != nil {
			serve = func(l net.Listener) error { return r.http.ServeTLS(l, "", "") }
		}
		if err := serve(conns); !conns.stopped.Load() {
			failed <- fmt.Errorf("serve %s: %w", s.Name, err)
		}
	}()
	return r
}

// end drains the server until ctx ends. Once Shutdown has begun, http.Server can drop an HTTP/1 request that it has just
// read. So Shutdown is called when no HTTP/1 connection is left, for HTTP/2.
func (r *running) end(ctx context.Context, linger time.Duration) {
	r.conns.stopped.Store(true)
	_ = r.conns.Close() // an error says that the listener is closed already
	select {
	case <-r.served:
	case <-ctx.Done():
	}
	r.conns.drain()
	select {
	case <-time.After(linger):
	case <-r.conns.drained.Done():
	case <-ctx.Done():
	}
	r.conns.closeIdle()
	select {
	case <-r.conns.drained.Done():
	case <-ctx.Done():
	}
	if err := r.http.Shutdown(ctx); errors.Is(err, context.DeadlineExceeded) {
		r.logger.Warn("connections were cut off when the grace period ended", "connections", r.conns.count())
	}
	r.conns.cut.Store(true)
	_ = r.http.Close() // what Shutdown left open; an error is about a connection that is broken anyway
}
