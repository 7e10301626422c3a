package grpcconn

import (
	"context"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"example.com/grpc-health-http/internal/health"
)

// failed says what an RPC's error means. A status that came with trailers is the server's own; one without them was made up
// on this side: by the transport, which has lost something, or by grpc-go, which cannot send the request or use the answer.
func (c *Conn) failed(ctx context.Context, err error, p *Progress) Answer {
	a := Answer{Status: health.RPCFailed, Code: status.Code(err), Err: err}
	s := p.latest.Load()
	sent := s != nil && s.sent.Load()
	switch {
	case excluded(err): // also where trailers came
		a.Outcome = Unprocessed
	case s != nil && s.trailer.Load():
		a.Outcome = Answered
		switch a.Code {
		case codes.NotFound:
			a.Status = health.ServiceUnknown
		case codes.Unimplemented:
			a.Status = health.Unimplemented
		}
	case unprocessed(err):
		a.Outcome = Unprocessed
	case unreadable(err):
		a.Outcome = Unreadable
		a.Code = codes.ResourceExhausted
		a.Err = status.Errorf(a.Code, "an answer's headers are larger than %d KiB, or are not HTTP/2's: %s", maxHeaders>>10, status.Convert(err).Message())
	case frontEnd(err):
		a.Outcome = Answered
	case reset(err): // before the answer, or in the middle of it
		if a.Code == codes.Internal {
			a.Err = status.Errorf(a.Code, "%s; a server does so, too, that would answer with metadata or a message of more than %d KiB",
				status.Convert(err).Message(), maxHeaders>>10)
		}
	case a.Code == codes.Canceled && ctx.Err() != nil: // this side no longer wants the answer
		a.Outcome = Unsendable
	case a.Code == codes.Unavailable || a.Code == codes.DeadlineExceeded || a.Code == codes.Canceled:
		// The connection is lost, or the time has run out, which Do finds.
	case !sent:
		// Nothing is wrong with the connection, and the request does not go over it: its metadata is illegal, or larger than the
		// server takes.
		a.Outcome = Unsendable
		if tooLarge(err) {
			a.Code = codes.ResourceExhausted
			a.Err = status.Error(a.Code, status.Convert(err).Message())
		}
	case !c.Lost():
		// The server answered, and the answer is unusable: too large, not the protocol's message, or
		// compressed in an unknown way. Or the request's message cannot be made. Nothing was lost on the way.
		a.Outcome = Answered
		if truncated(err) {
			a.Code = codes.ResourceExhausted
			a.Err = status.Errorf(a.Code, "the answer's headers are larger than %d KiB", maxHeaders>>10)
		}
	}
	return a
}

// truncated recognizes an answer whose headers or trailers are larger than maxHeaders, by so little that they were read to
// their end. grpc-go gives it the code INTERNAL (internal/transport/http2_client.go, operateHeaders), and only this text.
func truncated(err error) bool {
	return status.Convert(err).Message() == "peer header list size exceeded limit"
}

// unreadable recognizes that the connection has ended because of headers that are much larger than maxHeaders: HTTP/2 gives
// no way to skip them. That they are simply wrong cannot be told from it, nor whether they are of another RPC's answer. grpc-go
// gives it no type (internal/transport/http2_client.go, reader), only x/net's text (http2, readMetaFrame).
func unreadable(err error) bool {
	message := status.Convert(err).Message()
	return strings.Contains(message, "connection error: PROTOCOL_ERROR") || strings.Contains(message, "connection error: COMPRESSION_ERROR")
}

// tooLarge recognizes a request whose metadata is larger than the server's SETTINGS_MAX_HEADER_LIST_SIZE. grpc-go gives it the
// code INTERNAL (internal/transport/http2_client.go, checkForHeaderListSize), and only this text.
func tooLarge(err error) bool {
	return strings.HasPrefix(status.Convert(err).Message(), "header list size to send violates the maximum size")
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

// refused recognizes an RPC whose stream the peer has refused, which says that it was not looked at (RFC 9113, section 8.7). grpc-go
// has sent it a second time by then.
func refused(err error) bool {
	return reset(err) && strings.HasSuffix(status.Convert(err).Message(), "REFUSED_STREAM")
}

// unprocessed recognizes an RPC that the server has not looked at: a refusal has said so, or the connection was gone
// before the request was sent. grpc-go would send such a request once more, on a connection that it does not get.
func unprocessed(err error) bool {
	return refused(err) || strings.Contains(status.Convert(err).Message(), errSpent.Error())
}
