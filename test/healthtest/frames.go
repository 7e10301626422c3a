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

// frames finds the boundaries of frames in an HTTP/2 stream that arrives in pieces of any size.
type frames struct {
	header  [frameHeaderSize]byte
	have    int // bytes of the header that were read
	payload int // remaining bytes of the payload
}

// next consumes bytes of p, up to the end of a frame's header or payload, and returns how many. started says that they complete
// the header of a frame; kind and complete then describe that frame.
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

// complete reports whether another frame may begin now: the last one is whole, and no CONTINUATION must follow it.
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

// injector writes a server's frames to a client, and inserts frames between them.
type injector struct {
	w io.Writer

	mu      sync.Mutex
	frames  frames
	pending []byte
}

// inject writes a frame as soon as a frame may begin.
func (i *injector) inject(frame []byte) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.pending = append(i.pending, frame...)
	return i.flushLocked()
}

func (i *injector) Write(p []byte) (int, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	written := 0
	for from := 0; from < len(p); {
		n, _ := i.frames.next(p[from:])
		from += n
		if from < len(p) && (len(i.pending) == 0 || !i.frames.complete()) {
			continue // write as much as possible at once
		}
		n, err := i.w.Write(p[written:from])
		written += n
		if err == nil {
			err = i.flushLocked()
		}
		if err != nil {
			return written, err
		}
	}
	return written, nil
}

// flushLocked writes the pending frames if a frame may begin. The caller holds mu.
func (i *injector) flushLocked() error {
	if len(i.pending) == 0 || !i.frames.complete() {
		return nil
	}
	frame := i.pending
	i.pending = nil
	_, err := i.w.Write(frame)
	return err
}

// goAwayFrame returns a GOAWAY without debug data (RFC 9113, section 6.8).
func goAwayFrame(lastStreamID uint32, code http2.ErrCode) []byte {
	frame := []byte{0, 0, goAwaySize, byte(http2.FrameGoAway), 0, 0, 0, 0, 0}
	frame = binary.BigEndian.AppendUint32(frame, lastStreamID)
	return binary.BigEndian.AppendUint32(frame, uint32(code))
}
