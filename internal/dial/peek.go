package dial

import (
	"context"
	"errors"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"
)

// peekedConn remembers how a connection's reading began and ended, for the cause that grpc-go does not report.
type peekedConn struct {
	net.Conn
	dialling context.Context // of the dial; nil where Close does not wait
	closing  sync.Once

	mu    sync.Mutex
	seen  [maxSeen]byte
	count int
	err   error
	ended chan struct{} // closed when reading has ended
}

// maxSeen is how much is kept of what a peer says first: enough for an HTTP/1 answer that says what is wrong, or a banner.
const maxSeen = 512

func peek(c net.Conn) *peekedConn { return &peekedConn{Conn: c, ended: make(chan struct{})} }

// readRest is how long Close waits for the rest that a peer has sent which gave up before its SETTINGS: a write can
// fail before the TLS alert was read that explains it.
const readRest = 20 * time.Millisecond

// Close closes the connection. Before the server's SETTINGS the first call waits, while the dial is in progress, until
// the peer's last bytes have been read.
func (w *peekedConn) Close() error {
	w.closing.Do(func() {
		if w.dialling == nil || w.SettingsSeen() {
			return
		}
		select {
		case <-w.ended:
		case <-time.After(readRest):
		case <-w.dialling.Done():
		}
	})
	return w.Conn.Close()
}

func (w *peekedConn) Read(p []byte) (int, error) {
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

func (w *peekedConn) readError() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// SettingsSeen says that the server's first frame was SETTINGS, with which its side of a connection begins
// (RFC 9113, sections 3.4 and 6.5).
func (w *peekedConn) SettingsSeen() bool {
	const typeAt, settings = 3, 0x4
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.count > typeAt && w.seen[typeAt] == settings
}

// stage is where a connection is when a hint is wanted.
type stage int

const (
	plaintext stage = iota // without TLS, before the server's SETTINGS
	handshake              // in the TLS handshake
	encrypted              // after it, before the server's SETTINGS
)

// hint says what the peer's first bytes look like, where that helps, and what to do about it. It is sure where another connection
// would meet the same.
func (w *peekedConn) hint(at stage, tlsSetting string) (hint string, sure bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	first := string(w.seen[:w.count])
	isTLS := len(first) >= 2 && (first[0] == 0x15 || first[0] == 0x16) && first[1] == 3 // an alert or a handshake
	isHTTP1 := strings.HasPrefix(first, "HTTP/1.")
	says := ""
	if isBanner(first) {
		says = "says " + firstLine(first)
	}
	const wrongPort = ": is the address that of the gRPC port?"
	switch {
	case at == handshake && first != "" && !isTLS && says != "" && !isHTTP1:
		return "; it does not speak TLS, and " + says + wrongPort, true
	case at == handshake && isHTTP1:
		return "; it does not speak TLS, and " + says + ": is it a plaintext server? Then do without " + tlsSetting, true
	case at == handshake && first != "" && !isTLS:
		return "; it does not speak TLS: is it a plaintext server? Then do without " + tlsSetting, true
	case at == handshake:
		return "", isTLS
	case at == plaintext && isTLS:
		return "; it speaks TLS: set " + tlsSetting, true
	case at == plaintext && isHTTP1 && wantsTLS(first):
		return "; it speaks HTTP/1, and wants TLS: set " + tlsSetting, true
	case at == plaintext && isHTTP1 && hasStatus(first, "400"):
		return "; it speaks HTTP/1, and " + says + ", as a port for TLS may do: is " + tlsSetting + " set, and is the address that of the gRPC port?", true
	case isHTTP1:
		return "; it speaks HTTP/1, and " + says + wrongPort, true
	case says != "":
		return "; it " + says + wrongPort, true
	case at == plaintext && first == "" && w.err != nil && !errors.Is(w.err, net.ErrClosed):
		return "; a server that wants TLS does this: is " + tlsSetting + " set?", false
	}
	return "", first != ""
}

// wantsTLS says that an HTTP/1 answer is what nginx, Apache or Go's net/http says to plaintext on a port for TLS.
func wantsTLS(answer string) bool {
	answer = strings.ToLower(answer)
	return hasStatus(answer, "400") && (strings.Contains(answer, "https port") || strings.Contains(answer, "https server") || strings.Contains(answer, "ssl-enabled"))
}

func hasStatus(answer, status string) bool {
	_, rest, _ := strings.Cut(answer, " ")
	return strings.HasPrefix(rest, status)
}

// isBanner says that what a peer said first is a line of text, with which SSH, SMTP and other protocols begin.
func isBanner(first string) bool {
	line, _, _ := strings.Cut(first, "\n")
	line = strings.TrimSuffix(line, "\r")
	return len(line) >= 3 && !strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r > '~' })
}

// firstLine is the first line of what a peer said, quoted and bounded.
func firstLine(first string) string {
	const most = 64
	line, _, _ := strings.Cut(first, "\n")
	line = strings.TrimSuffix(line, "\r")
	if len(line) > most {
		line = line[:most] + "…"
	}
	return strconv.Quote(line)
}
