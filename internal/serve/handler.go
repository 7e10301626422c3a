package serve

import (
	"context"
	"net"
	"net/http"
	"time"
)

type connKey struct{}

// connContext is the server's ConnContext hook: it lets the handler find a request's connection.
func connContext(ctx context.Context, nc net.Conn) context.Context {
	c := tableConn(nc)
	c.table.mu.Lock()
	defer c.table.mu.Unlock()
	c.outer = nc
	return context.WithValue(ctx, connKey{}, c)
}

// handler wraps next: it tells the table which connection has a request, and the client which answer is the last: that of
// a drain, or with HTTP/1 that to a request with a body, which may not have been read. It passes panics to the function.
func handler(conns *connections, panicked func(any), next, overloaded http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := r.Context().Value(connKey{}).(*conn)
		cost, room := conns.begin(c, r)
		a := &answer{ResponseWriter: w, conn: c}
		left := false
		var sent *body
		defer func() {
			if sent != nil {
				cost -= sent.given
			}
			if a.begun && !left {
				c.answers.end()
			}
			conns.end(c, cost, left, a.begun && w.Header()["Retry-After"] == nil)
			if problem := recover(); problem != nil {
				if problem != http.ErrAbortHandler {
					panicked(problem)
				}
				panic(http.ErrAbortHandler) // which net/http does not log
			}
		}()
		next := next
		switch room {
		case little:
			next = overloaded
		case none:
			panic(http.ErrAbortHandler)
		}
		if r.ContentLength != 0 {
			r, sent = withBody(w, r, c)
		}
		last := r.ProtoMajor == 1 && sent != nil
		if last {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(a, r)
		a.begin() // without a body and an explicit status
		if r.ProtoMajor > 1 {
			if left = conns.leaves(c); !left {
				_ = http.NewResponseController(w).Flush() // an error says that the caller has gone
			}
		}
		if last {
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout)) // an error says that the connection has ended
		}
	})
}

// SideBySide is how many requests of the request's connection are in progress, this one included. The request must be one of a Server.
func SideBySide(r *http.Request) int {
	c := r.Context().Value(connKey{}).(*conn)
	c.table.mu.Lock()
	defer c.table.mu.Unlock()
	return c.handlers
}

// Crowds reports whether the request's client has more than half of all connections. A connection on which the client has been answered
// before, but with "Retry-After", is not one of a crowd: a checker that keeps its connection is still answered. The request must be one of a Server.
func Crowds(r *http.Request) bool {
	c := r.Context().Value(connKey{}).(*conn)
	c.table.mu.Lock()
	defer c.table.mu.Unlock()
	return !c.answered && c.table.clients[c.from] > len(c.table.open)/2
}

// answer decides as late as possible whether it is its connection's last: the drain may begin while the handler runs.
type answer struct {
	http.ResponseWriter
	conn  *conn
	begun bool
}

func (a *answer) begin() {
	if a.begun {
		return
	}
	a.begun = true
	a.conn.answers.begin()
	if a.conn.table.last(a.conn) {
		a.Header().Set("Connection", "close")
	}
}

func (a *answer) WriteHeader(code int) {
	a.begin()
	a.ResponseWriter.WriteHeader(code)
}

func (a *answer) Write(p []byte) (int, error) {
	a.begin()
	return a.ResponseWriter.Write(p)
}

// Unwrap is for http.ResponseController.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }
