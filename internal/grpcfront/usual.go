package grpcfront

import (
	"bytes"
	"errors"
	"io"
	"net/http"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/encoding/protowire"

	"example.com/grpc-health-http/internal/asker"
	"example.com/grpc-health-http/internal/health"
)

// prefix is the length of what precedes a message of gRPC: whether it is compressed, and its length.
const prefix = 5

// usual answers Check for the empty name, the usual request of checkers, without package connect, which takes as long as all that the answer
// needs otherwise. It leaves others to next: those with a name, compressed, of gRPC-Web, or that are not as gRPC wants them.
func (f *front) usual(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !plain(r) {
			next.ServeHTTP(w, r)
			return
		}
		var begin [prefix + 1]byte
		n, err := io.ReadFull(r.Body, begin[:])
		if n != prefix || !errors.Is(err, io.ErrUnexpectedEOF) || begin != [prefix + 1]byte{} {
			r = r.WithContext(r.Context()) // a copy
			r.Body = again{io.MultiReader(bytes.NewReader(begin[:n]), r.Body), r.Body}
			next.ServeHTTP(w, r)
			return
		}
		f.everything(w, r)
	})
}

// plain reports whether all that a request of gRPC says besides its message is what package connect would let pass, and not compressed.
func plain(r *http.Request) bool {
	if _, ok := timeoutOf(r); !ok && r.Header["Grpc-Timeout"] != nil {
		return false
	}
	format := r.Header["Content-Type"]
	return len(format) == 1 && (format[0] == "application/grpc" || format[0] == "application/grpc+proto") && r.Header["Grpc-Encoding"] == nil
}

// again is a body of which the first bytes have been read.
type again struct {
	io.Reader
	io.Closer
}

// everything answers Check for all that is configured.
func (f *front) everything(w http.ResponseWriter, r *http.Request) {
	var room [1]health.Verdict
	verdicts, refusal := f.asker.Ask(r.Context(), r, asker.Question{}, room[:])
	if refusal != asker.NotRefused {
		refuse(w, r, codes.ResourceExhausted, refusal.String())
		return
	}
	decisive := decisive(verdicts)
	header := w.Header()
	setMetadata(header, decisive, verdicts)
	status, ok := protocolStatus(decisive.Status)
	if !ok {
		refuse(w, r, Code(decisive), Message(decisive))
		return
	}
	header["Content-Type"] = r.Header["Content-Type"]
	header[http.TrailerPrefix+"Grpc-Status"] = codeOK
	_, _ = w.Write(answer(status)) // an error means that the caller has gone
}

var codeOK = []string{"0"}

// answer is a message of Check's with its prefix.
func answer(status healthpb.HealthCheckResponse_ServingStatus) []byte {
	message := make([]byte, prefix, prefix+2)
	if status != 0 { // as zero is left out (https://protobuf.dev/programming-guides/proto3/#default)
		const statusField = 1
		message = protowire.AppendTag(message, statusField, protowire.VarintType)
		message = protowire.AppendVarint(message, uint64(status))
	}
	message[prefix-1] = byte(len(message) - prefix)
	return message
}
