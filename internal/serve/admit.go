package serve

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
)

// admitting wraps next with Server.Admit, nil where there is none, and tells refused, which may be nil, whose right has ended.
func admitting(admit func(tls.ConnectionState) func(context.Context) error, refused func(net.Addr, error), next http.Handler) http.Handler {
	if admit == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := r.Context().Value(connKey{}).(*conn)
		check := c.admit.Load()
		if check == nil {
			// Requests side by side of an HTTP/2 connection may each make one, of which any will do.
			made := admit(c.outer.(*tls.Conn).ConnectionState())
			check = &made
			c.admit.Store(check)
		}
		a := &admittedAnswer{ResponseWriter: w, request: r, conn: c, check: *check, refused: refused}
		a.ask()
		next.ServeHTTP(a, r)
		a.begin() // without a body and an explicit status
	})
}

// admittedAnswer asks once more when the answer begins: the right may have ended while the handler ran.
type admittedAnswer struct {
	http.ResponseWriter
	request *http.Request
	conn    *conn
	check   func(context.Context) error
	refused func(net.Addr, error)
	begun   bool
}

// ask closes the connection where it has no right, and ends the handler.
func (a *admittedAnswer) ask() {
	err := a.check(a.request.Context())
	if err == nil {
		return
	}
	if a.refused != nil && a.conn.ended.CompareAndSwap(false, true) {
		a.refused(a.conn.RemoteAddr(), err)
	}
	go a.conn.outer.Close()     // TLS takes leave of the client, and so may have to wait
	panic(http.ErrAbortHandler) // so that there is no answer
}

func (a *admittedAnswer) begin() {
	if !a.begun {
		a.begun = true
		a.ask()
	}
}

func (a *admittedAnswer) WriteHeader(code int) {
	a.begin()
	a.ResponseWriter.WriteHeader(code)
}

func (a *admittedAnswer) Write(p []byte) (int, error) {
	a.begin()
	return a.ResponseWriter.Write(p)
}

// Unwrap is for http.ResponseController.
func (a *admittedAnswer) Unwrap() http.ResponseWriter { return a.ResponseWriter }
