//go:build linux

package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"
)

// grpcCaller asks `grpc.health.v1.Health/Check` for "" over HTTP/2, one stream after the other. It is not grpc-go's client, which
// costs as much as the servers under test: from the second request on, only the number of the stream changes in what
// is sent. All servers get the same bytes, but for their address.
type grpcCaller struct {
	first, next []byte // requests; the first also begins the connection
	again       bool   // the first has been sent
	stream      uint32
	replies     bytes.Buffer // to frames that want one, sent with the next request
	writer      *http2.Framer
	fields      *hpack.Decoder
	http        string // an answer's HTTP status
	message     []byte // what has come of it
	status      string // its grpc-status
	answer      []byte // the right message
}

// newGRPCCaller returns a caller of the server at this address.
func newGRPCCaller(authority string) (*grpcCaller, error) {
	answer, err := proto.Marshal(&healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVING})
	if err != nil {
		return nil, fmt.Errorf("make the right answer: %w", err)
	}
	g := &grpcCaller{answer: prefixed(answer)}
	g.writer = http2.NewFramer(&g.replies, nil)
	const tableSize = 4096 // octets, as long as no SETTINGS say another (RFC 9113, 6.5.2)
	g.fields = hpack.NewDecoder(tableSize, func(f hpack.HeaderField) {
		switch f.Name {
		case ":status":
			g.http = f.Value
		case "grpc-status":
			g.status = f.Value
		}
	})
	var block, out bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	framer := http2.NewFramer(&out, nil)
	request := func() ([]byte, error) {
		block.Reset()
		for _, f := range []hpack.HeaderField{
			{Name: ":method", Value: "POST"},
			{Name: ":scheme", Value: "http"},
			{Name: ":path", Value: healthpb.Health_Check_FullMethodName},
			{Name: ":authority", Value: authority},
			{Name: "content-type", Value: "application/grpc"},
			{Name: "user-agent", Value: "bench"},
			{Name: "te", Value: "trailers"},
		} {
			if err := encoder.WriteField(f); err != nil {
				return nil, err
			}
		}
		errHeaders := framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true})
		errData := framer.WriteData(1, true, prefixed(nil))
		all := bytes.Clone(out.Bytes())
		out.Reset()
		return all, errors.Join(errHeaders, errData)
	}
	out.WriteString(http2.ClientPreface)
	const defaultWindow = 1<<16 - 1
	errBegin := errors.Join(
		framer.WriteSettings(http2.Setting{ID: http2.SettingEnablePush, Val: 0}),
		framer.WriteWindowUpdate(0, math.MaxInt32-defaultWindow)) // for all answers of a measurement
	g.first, err = request()
	var errNext error
	g.next, errNext = request() // its fields are indices into the table that the first has filled
	if err := errors.Join(errBegin, err, errNext); err != nil {
		return nil, fmt.Errorf("make a request: %w", err)
	}
	return g, nil
}

// prefixed is a message as gRPC frames it, not compressed.
func prefixed(message []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
}

// The header of a frame (RFC 9113, 4.1).
const (
	frameHeader = 9 // octets
	streamAt    = 5 // where the stream's number is
)

func (g *grpcCaller) request() ([]byte, error) {
	if !g.again {
		g.again, g.stream = true, 1
		return g.first, nil
	}
	const step = 2 // clients' streams are odd
	g.stream += step
	headers := frameHeader + length(g.next)
	for _, frame := range [][]byte{g.next, g.next[headers:]} {
		binary.BigEndian.PutUint32(frame[streamAt:], g.stream)
	}
	if g.replies.Len() == 0 {
		return g.next, nil
	}
	g.replies.Write(g.next)
	defer g.replies.Reset() // the bytes stay as they are until the next frame that wants a reply
	return g.replies.Bytes(), nil
}

// length is the length of a frame's payload.
func length(frame []byte) int { return int(frame[0])<<16 | int(frame[1])<<8 | int(frame[2]) }

// arrived reads what frames have come.
func (g *grpcCaller) arrived(held []byte) (used int, whole bool, err error) {
	for len(held)-used >= frameHeader {
		frame := held[used:]
		size := frameHeader + length(frame)
		if len(frame) < size {
			break
		}
		used += size
		ended, err := g.frame(http2.FrameType(frame[3]), http2.Flags(frame[4]),
			binary.BigEndian.Uint32(frame[streamAt:])&math.MaxInt32, frame[frameHeader:size])
		if err != nil {
			return used, true, err
		}
		whole = whole || ended
	}
	return used, whole, nil
}

// frame takes in a frame, and says whether it ends the answer.
func (g *grpcCaller) frame(kind http2.FrameType, flags http2.Flags, stream uint32, payload []byte) (ended bool, err error) {
	switch kind {
	case http2.FrameHeaders:
		const plainFlags = http2.FlagHeadersEndHeaders | http2.FlagHeadersEndStream
		if flags&^plainFlags != 0 || !flags.Has(http2.FlagHeadersEndHeaders) || stream != g.stream {
			return false, fmt.Errorf("HEADERS with flags %#x of stream %d: this caller reads only whole ones without padding and priority, of stream %d", flags, stream, g.stream)
		}
		if _, err := g.fields.Write(payload); err != nil {
			return false, fmt.Errorf("read the fields of an answer: %w", err)
		}
		if err := g.fields.Close(); err != nil {
			return false, fmt.Errorf("read the fields of an answer: %w", err)
		}
		if flags.Has(http2.FlagHeadersEndStream) {
			return true, g.ended()
		}
	case http2.FrameData:
		if flags != 0 || stream != g.stream {
			return false, fmt.Errorf("DATA with flags %#x of stream %d, want none, and trailers of stream %d", flags, stream, g.stream)
		}
		g.message = append(g.message, payload...)
	case http2.FrameSettings:
		if !flags.Has(http2.FlagSettingsAck) {
			return false, g.writer.WriteSettingsAck()
		}
	case http2.FramePing:
		if !flags.Has(http2.FlagPingAck) {
			return false, g.writer.WritePing(true, [8]byte(payload))
		}
	case http2.FrameRSTStream, http2.FrameGoAway:
		return false, fmt.Errorf("the server sent %v %x", kind, payload)
	}
	return false, nil
}

// ended judges a whole answer, and makes ready for the next.
func (g *grpcCaller) ended() error {
	if g.http != "200" || g.status != "0" || !bytes.Equal(g.message, g.answer) {
		return fmt.Errorf("a wrong answer: HTTP status %q, grpc-status %q, message %x", g.http, g.status, g.message)
	}
	g.http, g.status, g.message = "", "", g.message[:0]
	return nil
}
