package healthtest

import (
	"encoding/binary"
	"io"
	"sync"

	"golang.org/x/net/http2"
)

// Sizes of RFC 9113, sections 4.1 and 3.4.
const (
	frameHeaderSize = 9
	goAwaySize      = 8
)

// frames follows a stream of HTTP/2 frames, however it is cut into pieces.
type frames struct {
	header  [frameHeaderSize]byte
	have    int // bytes of header read
	payload int // bytes of the payload to come
}

// next takes bytes from p up to the end of a frame's header or of its payload, and returns how many.
// started says that a frame's header is complete; it is then what kind and endHeaders speak of.
func (f *frames) next(p []byte) (n int, started bool) {
	if f.have == frameHeaderSize && f.payload == 0 {
		f.have = 0
	}
	if f.have == frameHeaderSize {
		n = min(f.payload, len(p))
		f.payload -= n
		return n, false
	}
	n = copy(f.header[f.have:], p)
	f.have += n
	if f.have < frameHeaderSize {
		return n, false
	}
	f.payload = int(binary.BigEndian.Uint32(append([]byte{0}, f.header[:3]...)))
	return n, true
}

func (f *frames) kind() http2.FrameType { return http2.FrameType(f.header[3]) }

// complete says that the last frame is whole and that no CONTINUATION must follow it.
func (f *frames) complete() bool {
	if f.have < frameHeaderSize || f.payload > 0 {
		return false
	}
	switch f.kind() {
	case http2.FrameHeaders, http2.FrameContinuation, http2.FramePushPromise:
		return http2.Flags(f.header[4]).Has(http2.FlagHeadersEndHeaders)
	}
	return true
}

// injector writes a server's frames to a client and slips frames of ours between them.
type injector struct {
	w io.Writer

	mu      sync.Mutex
	frames  frames
	pending []byte
}

// inject writes a frame now, or as soon as the server's frame under way is through.
func (i *injector) inject(frame []byte) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.pending = append(i.pending, frame...)
	return i.flush()
}

func (i *injector) Write(p []byte) (int, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	written := 0
	for from := 0; from < len(p); {
		n, _ := i.frames.next(p[from:])
		from += n
		if from < len(p) && (len(i.pending) == 0 || !i.frames.complete()) {
			continue // one write for as much as possible
		}
		n, err := i.w.Write(p[written:from])
		written += n
		if err == nil {
			err = i.flush()
		}
		if err != nil {
			return written, err
		}
	}
	return written, nil
}

// flush writes what is pending where a frame may begin. The caller holds mu.
func (i *injector) flush() error {
	if len(i.pending) == 0 || !i.frames.complete() {
		return nil
	}
	frame := i.pending
	i.pending = nil
	_, err := i.w.Write(frame)
	return err
}

// goAwayFrame is a GOAWAY without debug data (RFC 9113, section 6.8).
func goAwayFrame(lastStreamID uint32, code http2.ErrCode) []byte {
	frame := []byte{0, 0, goAwaySize, byte(http2.FrameGoAway), 0, 0, 0, 0, 0}
	frame = binary.BigEndian.AppendUint32(frame, lastStreamID)
	return binary.BigEndian.AppendUint32(frame, uint32(code))
}
