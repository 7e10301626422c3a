package healthtest

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"golang.org/x/net/http2"
)

// serverFrames returns a server's stream with every case that matters for where a frame may begin: an empty payload, a header
// block in two frames, and payloads of several bytes.
func serverFrames(t *testing.T) []byte {
	t.Helper()
	var stream bytes.Buffer
	framer := http2.NewFramer(&stream, nil)
	for _, err := range []error{
		framer.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1 << 14}),
		framer.WriteSettingsAck(),
		framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x88}}),
		framer.WriteContinuation(1, true, []byte{0x88}),
		framer.WriteData(1, true, []byte("hello")),
		framer.WritePing(false, [8]byte{1}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return stream.Bytes()
}

// TestInjectorWritesBetweenFrames injects a frame after every byte of the stream.
func TestInjectorWritesBetweenFrames(t *testing.T) {
	t.Parallel()
	stream := serverFrames(t)
	for cut := range len(stream) {
		var out bytes.Buffer
		in := injector{w: &out}
		write := func(p []byte) {
			t.Helper()
			if n, err := in.Write(p); n != len(p) || err != nil {
				t.Fatalf("cut at %d: wrote %d of %d: %v", cut, n, len(p), err)
			}
		}
		write(stream[:cut])
		if err := in.inject(goAwayFrame(7, http2.ErrCodeEnhanceYourCalm)); err != nil {
			t.Fatal(err)
		}
		write(stream[cut:])

		var rest bytes.Buffer
		injected := 0
		framer := http2.NewFramer(&rest, &out) // its reader also checks the order of CONTINUATION
		for {
			frame, err := framer.ReadFrame()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("cut at %d: %v", cut, err)
			}
			if goAway, ok := frame.(*http2.GoAwayFrame); ok {
				injected++
				if goAway.LastStreamID != 7 || goAway.ErrCode != http2.ErrCodeEnhanceYourCalm || rest.Len() == 0 {
					t.Errorf("cut at %d: got %v after %d bytes", cut, goAway, rest.Len())
				}
				continue
			}
			copyFrame(t, framer, frame)
		}
		if injected != 1 || !bytes.Equal(rest.Bytes(), stream) {
			t.Errorf("cut at %d: injected %d times, the rest is unchanged: %t", cut, injected, bytes.Equal(rest.Bytes(), stream))
		}
	}
}

// copyFrame writes a frame of serverFrames.
func copyFrame(t *testing.T, framer *http2.Framer, frame http2.Frame) {
	t.Helper()
	header := frame.Header()
	var payload []byte
	switch frame := frame.(type) {
	case *http2.SettingsFrame:
		if !frame.IsAck() {
			value, _ := frame.Value(http2.SettingMaxFrameSize)
			if err := framer.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: value}); err != nil {
				t.Fatal(err)
			}
			return
		}
	case *http2.HeadersFrame:
		payload = frame.HeaderBlockFragment()
	case *http2.ContinuationFrame:
		payload = frame.HeaderBlockFragment()
	case *http2.DataFrame:
		payload = frame.Data()
	case *http2.PingFrame:
		payload = frame.Data[:]
	}
	if err := framer.WriteRawFrame(header.Type, header.Flags, header.StreamID, payload); err != nil {
		t.Fatal(err)
	}
}

// TestRequestCutterStopsBeforeHeaders splits what the client sends in two, after every byte.
func TestRequestCutterStopsBeforeHeaders(t *testing.T) {
	t.Parallel()
	stream := bytes.NewBufferString(http2.ClientPreface)
	framer := http2.NewFramer(stream, nil)
	for _, err := range []error{framer.WriteSettings(), framer.WriteSettingsAck(), framer.WritePing(false, [8]byte{})} {
		if err != nil {
			t.Fatal(err)
		}
	}
	before := stream.Len()
	if err := framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x88}, EndHeaders: true}); err != nil {
		t.Fatal(err)
	}
	for cut := range stream.Len() {
		var out bytes.Buffer
		cutter := requestCutter{w: &out, preface: len(http2.ClientPreface)}
		err := cutter.write(stream.Bytes()[:cut])
		if err == nil {
			err = cutter.write(stream.Bytes()[cut:])
		}
		if !errors.Is(err, errRequestCut) {
			t.Errorf("cut at %d: got %v", cut, err)
		}
		if out.Len() < before || out.Len() >= before+frameHeaderSize || !bytes.HasPrefix(stream.Bytes(), out.Bytes()) {
			t.Errorf("cut at %d: forwarded %d bytes, the request begins at %d", cut, out.Len(), before)
		}
	}
}
