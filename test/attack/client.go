//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// dials is how many connections are made at once: fewer than the kernel keeps for a listener that is busy.
const dials = 64

// conn is a connection of the attack. It counts what is sent.
type conn struct {
	net.Conn
	t *trial
}

func (c *conn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.t.sent.Add(int64(n))
	return n, err
}

// connect opens n connections, and calls do with each of them, all at the same time. Connections stay open until the attack ends,
// also when do returns. A connection that the proxy does not take is no error: it may close what it has no room for. connect
// returns when do has been called for all.
func (t *trial) connect(n int, do func(i int, c *conn)) {
	t.connectWith(&net.Dialer{}, n, do)
}

func (t *trial) connectWith(dialer *net.Dialer, n int, do func(i int, c *conn)) {
	var dialling sync.WaitGroup
	room := make(chan struct{}, dials)
	for i := range n {
		room <- struct{}{}
		dialling.Go(func() {
			defer func() { <-room }()
			if c := t.dial(dialer); c != nil {
				t.running.Go(func() { do(i, c) })
			}
		})
	}
	dialling.Wait()
}

// dial opens a connection that stays open until the attack ends. It returns nil where the proxy does not take it.
func (t *trial) dial(dialer *net.Dialer) *conn {
	ctx, cancel := context.WithTimeout(t.ctx, time.Second)
	defer cancel()
	address := t.proxy.address
	if t.metrics {
		address = t.proxy.metricsAddress
	}
	raw, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		t.answered("not connected")
		return nil
	}
	t.keep(raw)
	t.connections.Add(1)
	return &conn{raw, t}
}

// secure makes the TLS handshake, if the proxy listens with TLS. It returns nil where the proxy does not make it.
func (t *trial) secure(c *conn, protocols ...string) net.Conn {
	if !t.https {
		return c
	}
	secured := tls.Client(c, t.clientTLS(protocols...))
	ctx, cancel := context.WithTimeout(t.ctx, lasts)
	defer cancel()
	if secured.HandshakeContext(ctx) != nil {
		t.answered("no handshake")
		return nil
	}
	return secured
}

// clientTLS is the configuration of a client that offers these protocols.
func (t *trial) clientTLS(protocols ...string) *tls.Config {
	return &tls.Config{RootCAs: t.ca.Pool(), ServerName: "127.0.0.1", NextProtos: protocols, MinVersion: tls.VersionTLS12}
}

// get writes a GET request. fields are whole lines without their ends.
func (t *trial) get(w io.Writer, target string, fields ...string) error {
	t.requests.Add(1)
	lines := append([]string{"GET " + target + " HTTP/1.1", "Host: attack.test"}, fields...)
	_, err := io.WriteString(w, strings.Join(lines, "\r\n")+"\r\n\r\n")
	return err
}

// receive reads one answer, counts it, and returns its status and body. An answer must be a verdict, or OVERLOADED with
// Retry-After. None at all is right only where the attack has ended.
func (t *trial) receive(r *bufio.Reader) (code int, body []byte) {
	response, err := http.ReadResponse(r, nil)
	if err != nil {
		if !t.over() {
			t.answered("none")
		}
		return 0, nil
	}
	defer response.Body.Close()
	body, err = io.ReadAll(response.Body)
	if err != nil {
		t.answered("cut off")
		return response.StatusCode, body
	}
	verdict := response.Header.Get("Grpc-Health-Status")
	if verdict == "OVERLOADED" && response.Header.Get("Retry-After") == "" {
		t.Errorf("an answer OVERLOADED has no Retry-After")
	}
	t.answered(strings.TrimSpace(fmt.Sprint(response.StatusCode, " ", verdict)))
	return response.StatusCode, body
}

// names returns a query that asks for so many services, whose names begin with a text that says who asks.
func names(n int, format string, args ...any) string {
	prefix := fmt.Sprintf(format, args...)
	var query strings.Builder
	for i := range n {
		fmt.Fprintf(&query, "&service=%s%d", url.QueryEscape(prefix), i)
	}
	return "/?" + query.String()[1:]
}

// smallWindow makes connections that take little of an answer before it is read.
var smallWindow = &net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error {
	var err error
	if failed := raw.Control(func(fd uintptr) {
		err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 2<<10)
	}); failed != nil {
		return failed
	}
	return err
}}

// slowly reads the status of an answer, and then a byte every 100 ms, until the connection or the attack ends.
func (t *trial) slowly(c net.Conn) {
	line := make([]byte, len("HTTP/1.1 200"))
	if _, err := io.ReadFull(c, line); err != nil {
		if !t.over() {
			t.answered("none")
		}
		return
	}
	t.answered(string(line[len("HTTP/1.1 "):]))
	for buffer := make([]byte, 1); ; {
		if _, err := c.Read(buffer); err != nil {
			return
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-t.ctx.Done():
			return
		}
	}
}

// h2 is an HTTP/2 connection that sends what its caller says, whether that is right or not.
type h2 struct {
	t  *trial
	mu sync.Mutex // guards what follows
	*http2.Framer
	out     *bufio.Writer
	block   bytes.Buffer
	encoder *hpack.Encoder
	stream  uint32 // the latest
}

// http2 begins an HTTP/2 connection. It reads and drops what comes, and acknowledges SETTINGS. It returns nil where the proxy
// does not make the connection.
func (t *trial) http2(c *conn, settings ...http2.Setting) *h2 {
	secured := t.secure(c, "h2")
	if secured == nil {
		return nil
	}
	h := &h2{t: t, out: bufio.NewWriterSize(secured, 64<<10)}
	h.Framer = http2.NewFramer(h.out, secured)
	h.encoder = hpack.NewEncoder(&h.block)
	_, _ = h.out.WriteString(http2.ClientPreface) // an error comes again from Flush
	_ = h.WriteSettings(settings...)
	if h.out.Flush() != nil {
		return nil
	}
	t.running.Go(func() {
		for {
			frame, err := h.ReadFrame()
			if err != nil {
				return
			}
			if s, ok := frame.(*http2.SettingsFrame); ok && !s.IsAck() {
				h.mu.Lock()
				_ = h.WriteSettingsAck() // what follows fails, too
				h.mu.Unlock()
			}
		}
	})
	return h
}

// get begins a stream with a GET request, without sending it yet.
func (h *h2) get(path string, fields ...string) error {
	h.t.requests.Add(1)
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.WriteHeaders(http2.HeadersFrameParam{StreamID: h.nextLocked(), BlockFragment: h.blockLocked(path, fields...), EndStream: true, EndHeaders: true})
}

// post begins a stream with a POST request whose body is said to be 16 KiB, and sends so many bytes of it.
func (h *h2) post(path string, sent int, fields ...string) error {
	h.t.requests.Add(1)
	h.mu.Lock()
	defer h.mu.Unlock()
	stream := h.nextLocked()
	block := h.blockAs("POST", path, append(fields, "content-length", strconv.Itoa(maxBody))...)
	if err := h.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block, EndHeaders: true}); err != nil {
		return err
	}
	return h.WriteData(stream, sent == maxBody, make([]byte, sent))
}

// maxBody is how many bytes a client may send on a stream before somebody reads them.
const maxBody = 16 << 10

// beginAndReset begins n requests, and resets them after a moment.
func (h *h2) beginAndReset(n int, after time.Duration) error {
	first := (h.stream + 1) | 1 // clients' streams are odd
	for range n {
		if err := h.get("/"); err != nil {
			return err
		}
	}
	if after > 0 {
		if err := h.flush(); err != nil {
			return err
		}
		time.Sleep(after)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range n {
		if err := h.WriteRSTStream(first+2*uint32(i), http2.ErrCodeCancel); err != nil {
			return err
		}
	}
	return h.out.Flush()
}

func (h *h2) nextLocked() uint32 {
	if h.stream++; h.stream%2 == 0 {
		h.stream++
	}
	return h.stream
}

// blockLocked returns the header block of a GET request. fields are names and values in turn.
func (h *h2) blockLocked(path string, fields ...string) []byte {
	return h.blockAs("GET", path, fields...)
}

func (h *h2) blockAs(method, path string, fields ...string) []byte {
	h.block.Reset()
	fields = append([]string{":method", method, ":scheme", "https", ":authority", "attack.test", ":path", path}, fields...)
	for i := 0; i < len(fields); i += 2 {
		_ = h.encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}) // a buffer has no errors
	}
	return h.block.Bytes()
}

// flush sends what was written.
func (h *h2) flush() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.out.Flush()
}
