package dial

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"
)

// peekedConn remembers how a connection's reading began and ended, for the cause that grpc-go does not report.
type peekedConn struct {
	net.Conn
	dialling context.Context // of the dial; nil where Close does not wait
	closing  sync.Once

	mu    sync.Mutex
	seen  [5]byte
	count int
	err   error
	ended chan struct{} // closed when reading has ended
}

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

// hint says what the peer's first bytes look like, where that helps, and what to do about it.
func (w *peekedConn) hint(encrypted bool, tlsSetting string) string {
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
