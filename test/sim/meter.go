//go:build !race

package sim

import (
	"context"
	"encoding/binary"
	"net"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"

	"example.com/grpc-health-http/test/simnet"
)

// meter counts the RPCs of a client's connection, by the frames that pass: an RPC is in progress from its request until its
// answer was read, or the client has given it or the connection up.
type meter struct {
	net.Conn
	world   *world
	conn    *connection
	reading frames
	writing frames
	headers *hpack.Decoder
	path    string          // of the latest request
	open    map[uint32]*rpc // those in progress
	closed  bool
}

// metered are credentials whose connections have a meter.
type metered struct {
	credentials.TransportCredentials
	world *world
}

// ClientHandshake implements credentials.TransportCredentials.
func (m *metered) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	secured, auth, err := m.TransportCredentials.ClientHandshake(ctx, authority, raw)
	if err != nil {
		return nil, nil, err
	}
	w := m.world
	w.mu.Lock()
	defer w.mu.Unlock()
	c := &meter{Conn: secured, world: w, conn: w.connectionLocked(raw.LocalAddr().(simnet.Addr).Conn), open: make(map[uint32]*rpc)}
	c.headers = hpack.NewDecoder(4096, func(f hpack.HeaderField) {
		if f.Name == ":path" {
			c.path = f.Value
		}
	})
	return c, auth, nil
}

// Write implements net.Conn.
func (m *meter) Write(p []byte) (int, error) {
	m.world.mu.Lock()
	m.writing.parse(p, m.sent)
	m.world.mu.Unlock()
	return m.Conn.Write(p)
}

// Read implements net.Conn.
func (m *meter) Read(p []byte) (int, error) {
	n, err := m.Conn.Read(p)
	m.world.mu.Lock()
	defer m.world.mu.Unlock()
	m.reading.parse(p[:n], m.received)
	return n, err
}

// Close implements net.Conn.
func (m *meter) Close() error {
	m.world.mu.Lock()
	m.closed = true
	for id := range m.open {
		m.end(id)
	}
	m.world.mu.Unlock()
	return m.Conn.Close()
}

// sent hears of a frame to the server. The world's mutex is held.
func (m *meter) sent(kind http2.FrameType, flags http2.Flags, id uint32, payload []byte) {
	switch kind {
	case http2.FrameHeaders:
		m.headers.Write(payload) // grpc-go's headers are valid
	case http2.FrameData:
		if _, begun := m.open[id]; !begun && !m.closed {
			m.begin(id, payload)
		}
	case http2.FrameRSTStream:
		m.end(id)
	}
}

// received hears of a frame from the server. The world's mutex is held.
func (m *meter) received(kind http2.FrameType, flags http2.Flags, id uint32, payload []byte) {
	switch {
	case kind == http2.FrameRSTStream || kind == http2.FrameHeaders && flags.Has(http2.FlagHeadersEndStream):
		m.end(id)
	case kind == http2.FrameGoAway && len(payload) >= 4:
		last := binary.BigEndian.Uint32(payload) &^ (1 << 31)
		for id := range m.open {
			if id > last {
				m.end(id)
			}
		}
	}
}

// messagePrefix is the length of what precedes a message in gRPC: whether it is compressed, and its length.
const messagePrefix = 5

func (m *meter) begin(id uint32, payload []byte) {
	key := listKey
	if m.path == healthpb.Health_Check_FullMethodName {
		var r healthpb.HealthCheckRequest
		if len(payload) < messagePrefix || proto.Unmarshal(payload[messagePrefix:], &r) != nil {
			return // grpc-go sends so small a message whole
		}
		key = r.GetService()
	}
	one := &rpc{key: key, order: m.world.arrivalLocked(), span: span{from: time.Now()}}
	m.open[id] = one
	m.world.made[key] = append(m.world.made[key], one)
	if m.conn.first.IsZero() {
		m.conn.first = time.Now()
	}
	m.conn.requests[key] = true
	m.world.rpcs.add(key, 1)
	if m.world.madeUp(key) {
		m.world.rpcs.add(madeUpKey, 1)
	}
}

func (m *meter) end(id uint32) {
	one, begun := m.open[id]
	if !begun {
		return
	}
	delete(m.open, id)
	one.to = time.Now()
	key := one.key
	m.world.rpcs.add(key, -1)
	if m.world.madeUp(key) {
		m.world.rpcs.add(madeUpKey, -1)
	}
}

// frames finds the frames in one direction of a connection, which comes in pieces of any size.
type frames struct {
	rest []byte
}

const frameHeader = 9

func (f *frames) parse(p []byte, each func(kind http2.FrameType, flags http2.Flags, id uint32, payload []byte)) {
	f.rest = append(f.rest, p...)
	for len(f.rest) >= frameHeader {
		if f.rest[0] == http2.ClientPreface[0] { // no frame is so large that it begins like this
			if len(f.rest) < len(http2.ClientPreface) {
				return
			}
			f.rest = f.rest[len(http2.ClientPreface):]
			continue
		}
		end := frameHeader + int(f.rest[0])<<16 + int(binary.BigEndian.Uint16(f.rest[1:]))
		if len(f.rest) < end {
			return
		}
		each(http2.FrameType(f.rest[3]), http2.Flags(f.rest[4]), binary.BigEndian.Uint32(f.rest[5:]), f.rest[frameHeader:end])
		f.rest = f.rest[end:]
	}
	if len(f.rest) == 0 {
		f.rest = nil
	}
}
