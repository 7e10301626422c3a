package grpcfront

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"

	"example.com/grpc-health-http/internal/asker"
	"example.com/grpc-health-http/internal/health"
)

// Header values are made once and only read.
var (
	noStore   = []string{"no-store"}
	noSniff   = []string{"nosniff"}
	retrySoon = []string{"1"} // seconds
)

// isGRPC reports whether a request is one of gRPC, which needs HTTP/2, or of gRPC-Web, with messages of Protocol Buffers.
func isGRPC(r *http.Request) bool {
	if r.Method != http.MethodPost {
		return false
	}
	rest, ok := strings.CutPrefix(r.Header.Get("Content-Type"), "application/grpc")
	if web, ok := strings.CutPrefix(rest, "-web"); ok {
		return isFormat(web)
	}
	return ok && r.ProtoMajor > 1 && isFormat(rest)
}

func isFormat(rest string) bool {
	return rest == "" || rest == "+proto" || rest[0] == ';' || strings.HasPrefix(rest, "+proto;")
}

func isWeb(r *http.Request) bool {
	return strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc-web")
}

// timeoutOf is the time that the caller gives the answer
// (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md#requests), at least 1 ns; 0 where it gives none, or so much that it is no bound. legal says that it is
// written as gRPC wants it.
func timeoutOf(r *http.Request) (timeout time.Duration, legal bool) {
	text := r.Header.Get("Grpc-Timeout")
	if text == "" {
		return 0, true
	}
	if len(text) < 2 || len(text) > 9 {
		return 0, false
	}
	var unit time.Duration
	switch text[len(text)-1] {
	case 'H':
		unit = time.Hour
	case 'M':
		unit = time.Minute
	case 'S':
		unit = time.Second
	case 'm':
		unit = time.Millisecond
	case 'u':
		unit = time.Microsecond
	case 'n':
		unit = time.Nanosecond
	default:
		return 0, false
	}
	n, err := strconv.ParseUint(text[:len(text)-1], 10, 32)
	const longest = 24 * time.Hour // far more than any budget
	switch {
	case err != nil:
		return 0, false
	case time.Duration(n) > longest/unit:
		return 0, true
	}
	return max(time.Duration(n)*unit, 1), true
}

// prefixLength is the length of what precedes a message: whether it is compressed, and its length.
const prefixLength = 5

// readMessage reads the only message of a request. The code is not OK where that is not possible; fault then says why.
func readMessage(w http.ResponseWriter, r *http.Request, in proto.Message) (code codes.Code, fault string) {
	if _, legal := timeoutOf(r); !legal {
		return codes.InvalidArgument, "grpc-timeout is not 1 to 8 digits and one of H, M, S, m, u, n"
	}
	encoding := r.Header.Get("Grpc-Encoding")
	if encoding != "" && encoding != "identity" && encoding != "gzip" {
		w.Header()["Grpc-Accept-Encoding"] = accepted
		return codes.Unimplemented, "this compression is not known here: use gzip, or none"
	}
	all := make([]byte, 64) // a read for all of a usual message: each takes a turn of net/http's goroutine for the connection
	got, err := io.ReadAtLeast(r.Body, all, prefixLength)
	switch {
	case err == io.EOF:
		return codes.Unimplemented, "the request has no message, and the method takes one"
	case err != nil:
		return codes.Internal, cutShort
	}
	compressed, length := all[0], int64(binary.BigEndian.Uint32(all[1:]))
	if length > maxMessage {
		return codes.ResourceExhausted, tooLarge
	}
	whole := prefixLength + int(length)
	if more := whole + 1 - len(all); more > 0 {
		all = append(all, make([]byte, more)...)
	}
	n, _ := io.ReadAtLeast(r.Body, all[got:], max(whole+1-got, 0)) // to the end, of which the error says nothing that n does not
	switch {
	case got+n < whole:
		return codes.Internal, cutShort
	case got+n > whole:
		return codes.Unimplemented, "the request has more than one message, and the method takes one"
	}
	message := all[prefixLength:whole]
	switch {
	case compressed == 0:
	case compressed == 1 && encoding == "gzip":
		if message, code, fault = unzip(message); code != codes.OK {
			return code, fault
		}
	default:
		return codes.Internal, "the message is compressed, and grpc-encoding does not say how"
	}
	if err := proto.Unmarshal(message, in); err != nil {
		return codes.InvalidArgument, "the message is not one of this method"
	}
	return codes.OK, ""
}

const cutShort = "the message ends before its length"

var (
	tooLarge = fmt.Sprintf("the message is larger than %d bytes", maxMessage)
	accepted = []string{"gzip"}
)

// unzip decompresses a message, as far as it is not too large.
func unzip(message []byte) ([]byte, codes.Code, string) {
	const notGzip = "the message is not gzip, as grpc-encoding says"
	z, err := gzip.NewReader(bytes.NewReader(message))
	if err != nil {
		return nil, codes.InvalidArgument, notGzip
	}
	message, err = io.ReadAll(io.LimitReader(z, maxMessage+1))
	switch {
	case err != nil:
		return nil, codes.InvalidArgument, notGzip
	case len(message) > maxMessage:
		return nil, codes.ResourceExhausted, tooLarge
	}
	return message, codes.OK, ""
}

// code answers a method of which the path ends in codeOnly by the code alone. Whatever the request's message is, the code is about the upstream.
func (f *front) code(w http.ResponseWriter, r *http.Request) {
	question := asker.Question{}
	if name := strings.TrimSuffix(r.URL.Path, codeOnly); name != everything && name != "" {
		question = f.question(r.Context(), name[1:])
	}
	for _, name := range question.Services {
		if fault := health.NameFault(name); fault != "" {
			f.asker.Reject("query")
			refuse(w, r, codes.Unavailable, fault)
			return
		}
	}
	var room [1]health.Verdict
	found, refusal := f.asker.Ask(r.Context(), r, &question, room[:])
	switch refusal {
	case asker.NotRefused:
	case asker.NoRoom:
		refuse(w, r, codes.ResourceExhausted, refusal.String())
		return
	default:
		refuse(w, r, codes.Unavailable, refusal.String())
		return
	}
	decisive := decisive(found.Verdicts)
	setMetadata(w.Header(), decisive, found.Verdicts)
	if code := CodeOnly(decisive.Status); code != codes.OK {
		refuse(w, r, code, Message(decisive))
		return
	}
	finish(w, r)
	answer(w, r, nothing)
}

// nothing is an empty message.
var nothing = new(healthpb.HealthCheckRequest)

// finish waits for the end of a request whose message does not matter. net/http resets the stream of a request that it has not read to its
// end, with NO_ERROR behind the answer, which the protocol allows; a client that is about to send its message then loses the answer
// (curl 7.88 does). The message is 5 bytes for what checkers ask here, and comes with the headers or just behind them.
func finish(w http.ResponseWriter, r *http.Request) {
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(patience)) // an error is one of the body's, too
	_, _ = io.CopyN(io.Discard, r.Body, maxMessage)                             // what does not end is not waited for
}

// patience is how long an answer waits for the end of its request.
const patience = time.Second

// refuse answers with a code alone. The text must be printable ASCII without a percent sign, and repeat nothing of the request.
func refuse(w http.ResponseWriter, r *http.Request, code codes.Code, text string) {
	finish(w, r)
	answerCode(w, r, code, text)
}

// answerCode is refuse for a request whose end is not waited for: in gRPC's words, Trailers-Only.
func answerCode(w http.ResponseWriter, r *http.Request, code codes.Code, text string) {
	if code == codes.ResourceExhausted {
		w.Header()["Retry-After"] = retrySoon
	}
	header := w.Header()
	header["Content-Type"] = contentType(r)
	header["Grpc-Status"] = []string{strconv.Itoa(int(code))}
	header["Grpc-Message"] = []string{text}
	w.WriteHeader(http.StatusOK)
}

// answer answers with a message and the code OK.
func answer(w http.ResponseWriter, r *http.Request, out proto.Message) {
	body, err := proto.MarshalOptions{}.MarshalAppend(make([]byte, prefixLength, 64), out)
	if err != nil {
		refuse(w, r, codes.Internal, "the answer cannot be written")
		return
	}
	binary.BigEndian.PutUint32(body[1:], uint32(len(body)-prefixLength))
	header := w.Header()
	header["Content-Type"] = contentType(r)
	if isWeb(r) {
		const trailer = "grpc-status: 0\r\n"
		body = append(body, 1<<7)
		body = binary.BigEndian.AppendUint32(body, uint32(len(trailer)))
		body = append(body, trailer...)
	} else {
		header[http.TrailerPrefix+"Grpc-Status"] = codeOK
	}
	header["Content-Length"] = nil // none, as gRPC's servers: behind it a client could stop reading before the trailers (curl 7.88 does)
	_, _ = w.Write(body)           // an error means that the caller has gone
}

var (
	codeOK      = []string{"0"}
	webProto    = []string{"application/grpc-web+proto"}
	grpcContent = []string{"application/grpc"}
)

func contentType(r *http.Request) []string {
	if isWeb(r) {
		return webProto
	}
	return grpcContent
}
