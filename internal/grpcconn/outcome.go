package grpcconn

import (
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"example.com/grpc-health-http/internal/health"
)

// failed says what an RPC's error means. A status that came with trailers is the server's own; one without them was made up
// by the transport.
func (c *Conn) failed(err error, p *Progress) Answer {
	a := Answer{Status: health.RPCFailed, Code: status.Code(err), Err: err}
	if unprocessed(err) {
		a.Outcome = Unprocessed
	}
	s := p.latest.Load()
	switch {
	case s == nil || excluded(err): // the context had ended before, or a GOAWAY excluded the request
	case s.trailer.Load():
		a.Outcome = Answered
		switch a.Code {
		case codes.NotFound:
			a.Status = health.ServiceUnknown
		case codes.Unimplemented:
			a.Status = health.Unimplemented
		}
	case frontEnd(err):
		a.Outcome = Answered
	case reset(err): // the answer had begun, and was cut off
	case s.header.Load() && !c.Lost() && (a.Code == codes.ResourceExhausted || a.Code == codes.Internal || a.Code == codes.Unimplemented):
		// The server answered, and the answer is unusable: too large, not the protocol's message, or
		// compressed in an unknown way. Nothing was lost on the way.
		a.Outcome = Answered
	}
	return a
}

// frontEnd recognizes an HTTP answer that is no gRPC answer. grpc-go gives it no type and no stats event
// (internal/transport/http2_client.go, operateHeaders), only these texts.
func frontEnd(err error) bool {
	message := status.Convert(err).Message()
	return strings.HasPrefix(message, "unexpected HTTP status code received from server") ||
		strings.HasPrefix(message, "malformed header: missing HTTP status")
}

// reset recognizes an RPC whose stream the peer has reset, as a proxy does that loses its server in the middle of an
// answer. grpc-go gives it no type (internal/transport/http2_client.go, handleRSTStream), only this text.
func reset(err error) bool {
	return strings.HasPrefix(status.Convert(err).Message(), "stream terminated by RST_STREAM")
}

// excluded recognizes an RPC that a GOAWAY has ended as not looked at. Its answer's trailers can still come
// then, and change nothing about that. grpc-go gives it no type (internal/transport/transport.go, errStreamDrain), only
// this text.
func excluded(err error) bool {
	return status.Convert(err).Message() == "the connection is draining"
}

// unprocessed recognizes an RPC that the server has not looked at: a GOAWAY has said so, or the connection was gone
// before the request was sent. grpc-go would send such a request once more, on a connection that it does not get.
func unprocessed(err error) bool {
	return excluded(err) || strings.Contains(status.Convert(err).Message(), errSpent.Error())
}
