package serve

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// Server is one HTTP server for Run.
type Server struct {
	// Name tells the servers apart in logs and errors.
	Name string
	// Listener takes the connections; Run closes it.
	Listener net.Listener
	// Handler answers. It must not read the bodies of requests.
	Handler http.Handler
	// TLS serves HTTPS, with HTTP/2; nil serves plain HTTP. A config that its GetConfigForClient
	// returns needs NextProtos of its own.
	TLS *tls.Config
	// Budget is the longest that Handler takes to answer.
	Budget time.Duration
	// Aside says that few connections suffice: it may have an eighth of the files that the process can have
	// open, the others five eighths. What is left is for the upstream and for what is read.
	Aside bool
	// HeaderTimeout is the time that a caller has to send a request's headers, and for the TLS
	// handshake before them. 0 is 5 s.
	HeaderTimeout time.Duration

	// Tests replace them.
	most      int           // 0 is what Aside says
	parkAfter time.Duration // 0 is the constant
}

const (
	defaultHeaderTimeout = 5 * time.Second
	// transfer is the time that the network has for an answer, on top of the handler's budget.
	transfer = 5 * time.Second
	// idleTimeout is above the 600 s that Google's load balancers keep connections for, so that it
	// is never the server that closes one just as a request comes
	// (https://cloud.google.com/load-balancing/docs/https#timeouts_and_retries).
	idleTimeout    = 620 * time.Second
	maxHeaderBytes = 16 << 10
	// linger is how long connections without a request stay open when the end has come: requests
	// that are on their way still get their answer.
	linger = 250 * time.Millisecond
	// bodyTimeout is the time that a body's rest has to come after the answer: net/http waits for it before it closes the
	// connection.
	bodyTimeout = 500 * time.Millisecond
)

// Run serves until ctx ends or a server fails, and then drains all servers side by side: no new
// connection is taken, every request whose headers were read is answered, and answers carry
// Connection: close (HTTP/2: GOAWAY). What has not ended after grace is cut off, with a warning in
// the log. The error is nil unless a server failed.
func Run(ctx context.Context, logger *slog.Logger, grace time.Duration, servers ...Server) error {
	return run(ctx, logger, grace, min(linger, grace/4), servers)
}

func run(ctx context.Context, logger *slog.Logger, grace, linger time.Duration, servers []Server) error {
	failed := make(chan error, len(servers))
	var all []*running
	for _, s := range servers {
		all = append(all, begin(s, logger.With("server", s.Name), failed))
	}
	var err error
	select {
	case <-ctx.Done():
		logger.Info("shutting down", "grace", grace)
	case err = <-failed:
	}
	// ctx has ended: the drain has a deadline of its own.
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	var wg sync.WaitGroup
	for _, r := range all {
		wg.Go(func() { r.end(ending, linger) })
	}
	wg.Wait()
	return err
}

// running is a server at work.
type running struct {
	http   *http.Server
	conns  *connections
	logger *slog.Logger
	served chan struct{} // closed when no further connection will be taken
}

// share is how many connections a server may have, of the files that the process can have open. Without a
// limit, those who open connections and leave them would take what checks need to reach the upstream, and so
// make it look as if it were down.
func share(files int, aside bool) int {
	if aside {
		return max(files/8, 1)
	}
	return max(files/8*5, 1)
}

// begin starts to serve. An end that nobody asked for is told to failed.
func begin(s Server, logger *slog.Logger, failed chan<- error) *running {
	most := s.most
	if most == 0 {
		most = share(openFiles(), s.Aside)
	}
	parks := cmp.Or(s.parkAfter, parkAfter)
	if s.TLS != nil {
		parks = 0 // the keys of a connection are net/http's
	}
	conns := newConnections(s.Listener, most, parks)
	headerTimeout := s.HeaderTimeout
	if headerTimeout == 0 {
		headerTimeout = defaultHeaderTimeout
	}
	r := &running{
		http: &http.Server{
			Handler:           closing(conns.draining, s.Handler),
			TLSConfig:         s.TLS,
			ReadHeaderTimeout: headerTimeout,
			// When the time to read is over net/http can cancel the request's context, though there is
			// nothing left to read: it has to last as long as the answer.
			ReadTimeout:    headerTimeout + s.Budget + transfer,
			WriteTimeout:   s.Budget + transfer,
			IdleTimeout:    idleTimeout,
			MaxHeaderBytes: maxHeaderBytes,
			ConnState:      conns.state,
			ErrorLog:       log.New(newErrorLog(logger), "", 0),
			// "OPTIONS *" is a request like others.
			DisableGeneralOptionsHandler: true,
		},
		conns:  conns,
		logger: logger,
		served: make(chan struct{}),
	}
	if parks > 0 {
		go func() { _ = r.http.Serve(conns.parking) }() // ends with the server
	}
	go func() {
		defer close(r.served)
		var err error
		if s.TLS != nil {
			err = r.http.ServeTLS(conns, "", "")
		} else {
			err = r.http.Serve(conns)
		}
		if !conns.isStopped() {
			failed <- fmt.Errorf("serve %s: %w", s.Name, err)
		}
	}()
	return r
}

// end drains the server until ctx ends.
//
// http.Server.Shutdown alone would lose requests: it closes connections that it takes for idle
// though a request is arriving, and once it has begun, requests whose headers have just been read
// are dropped. So it is called when no HTTP/1 connection is left; for HTTP/2 it does what is right.
func (r *running) end(ctx context.Context, linger time.Duration) {
	r.conns.stop()
	select {
	case <-r.served:
	case <-ctx.Done():
	}
	r.conns.drain(linger)
	select {
	case <-r.conns.drained:
	case <-ctx.Done():
	}
	if err := r.http.Shutdown(ctx); errors.Is(err, context.DeadlineExceeded) {
		r.logger.Warn("connections were cut off when the grace period ended", "connections", r.conns.open())
	}
	// What Shutdown left open is closed; an error is about a connection that is broken anyway.
	_ = r.http.Close()
}

// closing marks answers as the last of their connection where that is so: while draining, and for
// requests with a body, which is not read.
func closing(draining func() bool, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := &closingWriter{ResponseWriter: w, draining: draining}
		body := r.ProtoMajor == 1 && r.ContentLength != 0
		if body {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(c, r)
		c.mark() // an answer without a body and an explicit status
		if body {
			// An error says that the connection has ended already.
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout))
		}
	})
}

// closingWriter looks at the last moment whether the server is draining: the end may come while
// the handler is at work.
type closingWriter struct {
	http.ResponseWriter
	draining func() bool
	marked   bool
}

func (w *closingWriter) mark() {
	if !w.marked && w.draining() {
		w.Header().Set("Connection", "close")
	}
	w.marked = true
}

func (w *closingWriter) WriteHeader(code int) {
	w.mark()
	w.ResponseWriter.WriteHeader(code)
}

func (w *closingWriter) Write(p []byte) (int, error) {
	w.mark()
	return w.ResponseWriter.Write(p)
}

// Unwrap is for http.ResponseController.
func (w *closingWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
