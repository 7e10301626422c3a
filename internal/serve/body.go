package serve

import (
	"io"
	"net/http"
	"time"

	"example.com/grpc-health-http/internal/memory"
)

// body is the body of a request. It tells the table when its handler waits for the client, and when it has been read.
type body struct {
	io.ReadCloser
	conn    *conn
	control *http.ResponseController // of HTTP/1; with HTTP/2 the time-outs of http.Server are those of a request
	cost    int64                    // what is kept of it has of the table's memory
	given   int64                    // what it had
}

// withBody returns r with a body that tells c. With HTTP/1 it may take no longer than a request's headers, or what the handler sets.
func withBody(w http.ResponseWriter, r *http.Request, c *conn) (*http.Request, *body) {
	b := &body{ReadCloser: r.Body, conn: c}
	if r.ProtoMajor > 1 {
		b.cost = memory.Body
	} else {
		b.control = http.NewResponseController(w)
		_ = b.control.SetReadDeadline(time.Now().Add(c.table.patience)) // an error is one of Read, too
	}
	r = r.WithContext(r.Context()) // a copy
	r.Body = b
	return r, b
}

// Read lets the connection make room while it waits for the client.
func (b *body) Read(p []byte) (int, error) {
	conns := b.conn.table
	conns.awaits(b.conn)
	n, err := b.ReadCloser.Read(p)
	if err == nil {
		conns.arrived(b.conn, n, 0)
		return n, nil
	}
	conns.arrived(b.conn, n, b.cost)
	b.given, b.cost = b.given+b.cost, 0
	if b.control != nil { // the handler begins now; the end of the time to read may cancel the request's context
		_ = b.control.SetReadDeadline(time.Now().Add(conns.answer))
		_ = b.control.SetWriteDeadline(time.Now().Add(conns.answer))
	}
	return n, err
}
