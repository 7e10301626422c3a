package healthtest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
)

const grpcContentType = "application/grpc"

// errClosedByFault ends a connection.
var errClosedByFault = errors.New("closed by the test")

// FrontEnd is a plaintext HTTP/2 server on loopback that does not answer as a gRPC server should. Its methods are safe for
// concurrent use.
type FrontEnd struct {
	t        testing.TB
	listener net.Listener

	accepted atomic.Int64
	requests atomic.Int64
	pings    atomic.Int64
	running  sync.WaitGroup

	mu    sync.Mutex
	fault Fault
	open  map[net.Conn]struct{}
	ended bool
}

// Fault is what a FrontEnd does wrong.
type Fault struct {
	noSettings bool
	settings   []http2.Setting
	// connected runs after the server has sent its SETTINGS; nil does nothing.
	connected func(*responder) error
	// requested runs when a request's HEADERS arrive; nil does nothing.
	requested func(*responder, uint32) error
	// answer runs when a request is complete; nil never answers.
	answer func(*responder, uint32) error
}

// HTTPStatus answers every request with an HTTP status and an HTML page, as nginx does with 502.
func HTTPStatus(code int) Fault {
	return Fault{answer: func(r *responder, stream uint32) error {
		return r.page(stream, code, "text/html", "<html><body>not what you wanted</body></html>")
	}}
}

// ContentType answers every request with HTTP status 200 and a body of a content type that is not gRPC's.
func ContentType(contentType string) Fault {
	return Fault{answer: func(r *responder, stream uint32) error {
		return r.page(stream, 200, contentType, "hello")
	}}
}

// WithoutHTTPStatus answers every request with headers that lack ":status", which are none of HTTP/2's.
func WithoutHTTPStatus() Fault {
	return Fault{answer: func(r *responder, stream uint32) error {
		return r.headers(stream, true, "content-type", "text/html")
	}}
}

// Message answers every request with RPC status OK and a message of any bytes, in an encoding; "" is none.
func Message(message, encoding string) Fault {
	return Fault{answer: func(r *responder, stream uint32) error {
		prefix := messagePrefix(uint32(len(message)))
		fields := []string{":status", "200", "content-type", grpcContentType}
		if encoding != "" {
			fields = append(fields, "grpc-encoding", encoding)
			prefix[0] = 1 // compressed
		}
		if err := r.headers(stream, false, fields...); err != nil {
			return err
		}
		if err := r.framer.WriteData(stream, false, append(prefix, message...)); err != nil {
			return err
		}
		return r.headers(stream, true, "grpc-status", "0")
	}}
}

// TrailersOnly answers every request with an RPC status and no message.
func TrailersOnly(code codes.Code, message string) Fault {
	return Fault{answer: func(r *responder, stream uint32) error {
		return r.headers(stream, true, ":status", "200", "content-type", grpcContentType,
			"grpc-status", strconv.Itoa(int(code)), "grpc-message", message)
	}}
}

// TrailersWith answers every request with trailers alone, and the given fields, names and values in turn, beside ":status" and the content type.
func TrailersWith(fields ...string) Fault {
	return Fault{answer: func(r *responder, stream uint32) error {
		return r.headers(stream, true, append([]string{":status", "200", "content-type", grpcContentType}, fields...)...)
	}}
}

// Informational ends the answer to every request with an informational HTTP status, which must not end one.
func Informational(code int) Fault {
	return Fault{answer: func(r *responder, stream uint32) error {
		return r.headers(stream, true, ":status", strconv.Itoa(code))
	}}
}

// WithoutTrailers answers every request with the message SERVING, and ends the stream without an RPC status.
func WithoutTrailers() Fault {
	return Fault{answer: func(r *responder, stream uint32) error { return r.serving(stream, true) }}
}

// GoAwayBeforeTrailers answers every request with the message SERVING, sends a GOAWAY that claims that no request was
// processed, and then ends the stream with RPC status OK.
func GoAwayBeforeTrailers() Fault {
	return Fault{answer: func(r *responder, stream uint32) error {
		if err := r.serving(stream, false); err != nil {
			return err
		}
		if err := r.framer.WriteGoAway(0, http2.ErrCodeNo, nil); err != nil {
			return err
		}
		return r.headers(stream, true, "grpc-status", "0")
	}}
}

// TooLarge answers every request with the beginning of a message of size bytes. By default grpc-go accepts 4 MiB.
func TooLarge(size uint32) Fault {
	return Fault{answer: func(r *responder, stream uint32) error {
		if err := r.headers(stream, false, ":status", "200", "content-type", grpcContentType); err != nil {
			return err
		}
		return r.framer.WriteData(stream, false, append(messagePrefix(size), make([]byte, 1<<10)...))
	}}
}

// ResetStream answers every request with RST_STREAM.
func ResetStream(code http2.ErrCode) Fault {
	return Fault{answer: func(r *responder, stream uint32) error {
		return r.framer.WriteRSTStream(stream, code)
	}}
}

// ResetStreamAfterHeaders begins every answer, and cuts it off with RST_STREAM.
func ResetStreamAfterHeaders(code http2.ErrCode) Fault {
	return Fault{answer: func(r *responder, stream uint32) error {
		if err := r.headers(stream, false, ":status", "200", "content-type", grpcContentType); err != nil {
			return err
		}
		return r.framer.WriteRSTStream(stream, code)
	}}
}

// RefuseThenGoAway refuses the first request of a connection, which a client may then send again, and follows the second with a GOAWAY
// that says that it processed none.
func RefuseThenGoAway() Fault {
	return Fault{answer: func(r *responder, stream uint32) error {
		if stream == 1 {
			return r.framer.WriteRSTStream(stream, http2.ErrCodeRefusedStream)
		}
		return r.framer.WriteGoAway(0, http2.ErrCodeNo, nil)
	}}
}

// CloseAfterHeaders begins every answer, and closes the connection.
func CloseAfterHeaders() Fault {
	return Fault{answer: func(r *responder, stream uint32) error {
		if err := r.headers(stream, false, ":status", "200", "content-type", grpcContentType); err != nil {
			return err
		}
		return errClosedByFault
	}}
}

// CloseOnEveryRequest closes the connection when a request has arrived.
func CloseOnEveryRequest() Fault {
	return Fault{answer: func(*responder, uint32) error { return errClosedByFault }}
}

// GoAwayAtOnce sends GOAWAY right after SETTINGS, and never answers.
func GoAwayAtOnce(code http2.ErrCode) Fault {
	return Fault{connected: func(r *responder) error { return r.framer.WriteGoAway(0, code, nil) }}
}

// GoAwayOnRequest sends a GOAWAY when a request begins, which claims that no request was processed.
func GoAwayOnRequest(code http2.ErrCode) Fault {
	return Fault{requested: func(r *responder, _ uint32) error { return r.framer.WriteGoAway(0, code, nil) }}
}

// NoSettings reads what the client sends, and sends nothing.
func NoSettings() Fault { return Fault{noSettings: true} }

// WithSettings is the fault of a server that sends these SETTINGS.
func WithSettings(fault Fault, settings ...http2.Setting) Fault {
	fault.settings = settings
	return fault
}

// StartFrontEnd starts a FrontEnd. It ends with the test.
func StartFrontEnd(t testing.TB, fault Fault) *FrontEnd {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("start front end: %v", err)
	}
	f := &FrontEnd{t: t, listener: listener, fault: fault, open: make(map[net.Conn]struct{})}
	f.running.Go(f.accept)
	t.Cleanup(f.end)
	return f
}

// Addr returns the address that the front end listens on, "127.0.0.1:34567". It is also a target for grpc-go.
func (f *FrontEnd) Addr() string { return f.listener.Addr().String() }

// SetFault replaces the fault for new connections.
func (f *FrontEnd) SetFault(fault Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault = fault
}

// Connections returns how many connections were accepted since the start.
func (f *FrontEnd) Connections() int { return int(f.accepted.Load()) }

// Requests returns how many requests have arrived, counted by their HEADERS.
func (f *FrontEnd) Requests() int { return int(f.requests.Load()) }

// Pings counts the PINGs that have arrived.
func (f *FrontEnd) Pings() int { return int(f.pings.Load()) }

func (f *FrontEnd) end() {
	f.listener.Close()
	f.mu.Lock()
	f.ended = true
	for conn := range f.open {
		conn.Close()
	}
	f.mu.Unlock()
	f.running.Wait()
}

func (f *FrontEnd) accept() {
	for {
		conn, err := f.listener.Accept()
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				f.t.Errorf("front end %s: accept: %v", f.Addr(), err)
			}
			return
		}
		f.accepted.Add(1)
		f.mu.Lock()
		fault, ended := f.fault, f.ended
		f.open[conn] = struct{}{}
		f.mu.Unlock()
		f.running.Go(func() {
			defer func() {
				conn.Close()
				f.mu.Lock()
				delete(f.open, conn)
				f.mu.Unlock()
			}()
			if !ended {
				fault.serve(f, conn)
			}
		})
	}
}

// Serve serves one connection with the fault, on any kind of network, and closes it.
func (fault Fault) Serve(conn net.Conn) {
	defer conn.Close()
	fault.serve(new(FrontEnd), conn)
}

// serve serves a connection until it breaks, or the client closes it or violates HTTP/2. f counts.
func (fault Fault) serve(f *FrontEnd, conn net.Conn) {
	if _, err := io.ReadFull(conn, make([]byte, len(http2.ClientPreface))); err != nil {
		return
	}
	if fault.noSettings {
		_, _ = io.Copy(io.Discard, conn)
		return
	}
	r := newResponder(conn)
	if err := r.framer.WriteSettings(fault.settings...); err != nil {
		return
	}
	if fault.connected != nil {
		if err := fault.connected(r); err != nil {
			return
		}
	}
	for {
		frame, err := r.framer.ReadFrame()
		if err != nil || f.handle(r, fault, frame) != nil {
			return
		}
	}
}

func (f *FrontEnd) handle(r *responder, fault Fault, frame http2.Frame) error {
	switch frame := frame.(type) {
	case *http2.SettingsFrame:
		if !frame.IsAck() {
			return r.framer.WriteSettingsAck()
		}
	case *http2.PingFrame:
		if !frame.IsAck() {
			f.pings.Add(1)
			return r.framer.WritePing(true, frame.Data)
		}
	case *http2.HeadersFrame:
		f.requests.Add(1)
		if fault.requested != nil {
			if err := fault.requested(r, frame.StreamID); err != nil {
				return err
			}
		}
		if frame.StreamEnded() && fault.answer != nil {
			return fault.answer(r, frame.StreamID)
		}
	case *http2.DataFrame:
		if frame.StreamEnded() && fault.answer != nil {
			return fault.answer(r, frame.StreamID)
		}
	}
	return nil
}

// responder writes the frames of one connection.
type responder struct {
	framer  *http2.Framer
	block   bytes.Buffer
	encoder *hpack.Encoder
}

func newResponder(conn net.Conn) *responder {
	r := &responder{framer: http2.NewFramer(conn, conn)}
	r.encoder = hpack.NewEncoder(&r.block)
	return r
}

// headers writes HEADERS. fields are names and values in turn.
func (r *responder) headers(stream uint32, end bool, fields ...string) error {
	r.block.Reset()
	for i := 0; i < len(fields); i += 2 {
		if err := r.encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}); err != nil {
			return err
		}
	}
	first, rest := r.block.Bytes(), []byte(nil)
	const most = 16 << 10 // that a client takes in one frame (RFC 9113, section 4.2)
	if len(first) > most {
		first, rest = first[:most], first[most:]
	}
	if err := r.framer.WriteHeaders(http2.HeadersFrameParam{
		StreamID:      stream,
		BlockFragment: first,
		EndStream:     end,
		EndHeaders:    len(rest) == 0,
	}); err != nil {
		return err
	}
	for len(rest) > 0 {
		n := min(len(rest), most)
		if err := r.framer.WriteContinuation(stream, n == len(rest), rest[:n]); err != nil {
			return err
		}
		rest = rest[n:]
	}
	return nil
}

// serving writes the response headers and the message SERVING.
func (r *responder) serving(stream uint32, end bool) error {
	if err := r.headers(stream, false, ":status", "200", "content-type", grpcContentType); err != nil {
		return err
	}
	message := []byte{0x08, 0x01} // HealthCheckResponse{status: SERVING}
	return r.framer.WriteData(stream, end, append(messagePrefix(uint32(len(message))), message...))
}

func (r *responder) page(stream uint32, code int, contentType, body string) error {
	if err := r.headers(stream, false, ":status", strconv.Itoa(code), "content-type", contentType); err != nil {
		return err
	}
	return r.framer.WriteData(stream, true, []byte(body))
}

// messagePrefix returns what precedes an uncompressed gRPC message of that size.
func messagePrefix(size uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{0}, size)
}
