//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// server answers that it is SERVING, whatever is asked.
type server struct {
	listener      net.Listener
	config        *tls.Config // nil is without
	checks, conns atomic.Int64
	mu            sync.Mutex
	targets       map[netip.Addr]bool // that were asked
}

// newServer listens at all addresses of the loopback interface, and at no other.
func newServer(config *tls.Config) (*server, error) {
	loopback := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		if errControl := c.Control(func(fd uintptr) { err = syscall.BindToDevice(int(fd), "lo") }); errControl != nil {
			return errControl
		}
		return err
	}}
	listener, err := loopback.Listen(context.Background(), "tcp4", "0.0.0.0:0")
	if err != nil {
		return nil, err
	}
	return &server{listener: listener, config: config, targets: make(map[netip.Addr]bool)}, nil
}

func (s *server) serve() {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			time.Sleep(10 * time.Millisecond) // too many connections
			continue
		}
		go func() {
			at := conn.LocalAddr().(*net.TCPAddr).AddrPort().Addr()
			if s.config != nil {
				conn = tls.Server(conn, s.config)
			}
			defer conn.Close()
			s.conns.Add(1)
			s.answer(conn, at)
		}()
	}
}

// answer ends when the connection does; whoever asks sees what is wrong.
func (s *server) answer(conn net.Conn, at netip.Addr) {
	in := bufio.NewReaderSize(conn, 1<<10)
	if _, err := in.Discard(len(http2.ClientPreface)); err != nil {
		return
	}
	out := appendFrame(nil, http2.FrameSettings, 0, 0, nil)
	first := true
	for {
		f, err := readFrame(in)
		if err != nil {
			return
		}
		switch {
		case f.kind == http2.FrameSettings && !f.flags.Has(http2.FlagSettingsAck):
			out = appendFrame(out, http2.FrameSettings, http2.FlagSettingsAck, 0, nil)
		case f.kind == http2.FramePing && !f.flags.Has(http2.FlagPingAck):
			out = appendFrame(out, http2.FramePing, http2.FlagPingAck, 0, f.payload)
		case (f.kind == http2.FrameData || f.kind == http2.FrameHeaders) && f.flags.Has(http2.FlagDataEndStream):
			out = appendFrame(out, http2.FrameHeaders, http2.FlagHeadersEndHeaders, f.stream, answerHeader)
			out = appendFrame(out, http2.FrameData, 0, f.stream, answerMessage)
			out = appendFrame(out, http2.FrameHeaders, http2.FlagHeadersEndHeaders|http2.FlagHeadersEndStream, f.stream, answerTrailer)
			s.checks.Add(1)
			if first {
				first = false
				s.mu.Lock()
				s.targets[at] = true
				s.mu.Unlock()
			}
		}
		if in.Buffered() == 0 && len(out) > 0 {
			if _, err := conn.Write(out); err != nil {
				return
			}
			out = out[:0]
		}
	}
}

// tell answers with what has come so far.
func (s *server) tell(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	targets := len(s.targets)
	s.mu.Unlock()
	json.NewEncoder(w).Encode(map[string]int64{
		"port": int64(s.listener.Addr().(*net.TCPAddr).Port), "checks": s.checks.Load(), "conns": s.conns.Load(), "targets": int64(targets),
	})
}

// The parts of an answer, the same in each stream of a connection: no field is indexed.
var (
	answerHeader  = fields(":status", "200", "content-type", "application/grpc")
	answerMessage = []byte{0, 0, 0, 0, 2, 8, 1} // not compressed, 2 octets: status is 1, SERVING
	answerTrailer = fields("grpc-status", "0")
)

func fields(namesAndValues ...string) []byte {
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for i := 0; i < len(namesAndValues); i += 2 {
		encoder.WriteField(hpack.HeaderField{Name: namesAndValues[i], Value: namesAndValues[i+1], Sensitive: true}) // a Buffer takes all
	}
	return block.Bytes()
}

// frame is one of HTTP/2 (RFC 9113, 4.1).
type frame struct {
	kind    http2.FrameType
	flags   http2.Flags
	stream  uint32
	payload []byte
}

const frameHeader = 9 // octets

func appendFrame(out []byte, kind http2.FrameType, flags http2.Flags, stream uint32, payload []byte) []byte {
	n := len(payload)
	out = append(out, byte(n>>16), byte(n>>8), byte(n), byte(kind), byte(flags))
	out = binary.BigEndian.AppendUint32(out, stream)
	return append(out, payload...)
}

func readFrame(in io.Reader) (frame, error) {
	var header [frameHeader]byte
	if _, err := io.ReadFull(in, header[:]); err != nil {
		return frame{}, err
	}
	f := frame{kind: http2.FrameType(header[3]), flags: http2.Flags(header[4]), stream: binary.BigEndian.Uint32(header[5:])}
	f.payload = make([]byte, int(header[0])<<16|int(header[1])<<8|int(header[2]))
	_, err := io.ReadFull(in, f.payload)
	return f, err
}
