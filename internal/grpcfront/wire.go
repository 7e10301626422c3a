package grpcfront

import (
	"encoding/binary"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"example.com/grpc-health-http/internal/asker"
	"example.com/grpc-health-http/internal/health"
)

// Header values are made once and only read.
var (
	noStore   = []string{"no-store"}
	noSniff   = []string{"nosniff"}
	retrySoon = []string{"1"} // seconds
)

// isGRPC reports whether a request is one of gRPC, which needs HTTP/2, or of gRPC-Web.
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

func isFormat(rest string) bool { return rest == "" || rest[0] == '+' || rest[0] == ';' }

func isWeb(r *http.Request) bool {
	return strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc-web")
}

// timeoutOf is the time that the caller gives the answer
// (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md#requests); ok is false where it gives none, or so much that it is no bound.
// Package connect answers requests in which it is not legal.
func timeoutOf(r *http.Request) (timeout time.Duration, ok bool) {
	text := r.Header.Get("Grpc-Timeout")
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
	if err != nil || time.Duration(n) > longest/unit {
		return 0, false
	}
	return time.Duration(n) * unit, true
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
	found, refusal := f.asker.Ask(r.Context(), r, question, room[:])
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
	succeed(w, r)
}

// trailersOnly makes an answer of connect's that has no message one of headers alone, as gRPC's servers do (in gRPC's words, Trailers-Only). connect
// sends the code in trailers, after headers that it flushes; where it cannot flush, net/http gives the headers a Content-Length of 0, after which nginx
// and HAProxy pass no trailers on.
type trailersOnly struct {
	http.ResponseWriter // and no Flusher
	begun               bool
}

// WriteHeader implements http.ResponseWriter.
func (w *trailersOnly) WriteHeader(status int) {
	w.begun = true
	w.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *trailersOnly) Write(p []byte) (int, error) {
	w.begun = true
	return w.ResponseWriter.Write(p)
}

// end is called when connect is done.
func (w *trailersOnly) end() {
	if w.begun {
		return
	}
	header := w.Header()
	for key, values := range header {
		if name, is := strings.CutPrefix(key, http.TrailerPrefix); is {
			delete(header, key)
			header[name] = values
		}
	}
}

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

// succeed answers with an empty message and the code OK.
func succeed(w http.ResponseWriter, r *http.Request) {
	finish(w, r)
	header := w.Header()
	header["Content-Type"] = contentType(r)
	message := make([]byte, 5) // not compressed, and 0 bytes long
	if isWeb(r) {
		const trailer = "grpc-status: 0\r\n"
		message = append(message, 1<<7)
		message = binary.BigEndian.AppendUint32(message, uint32(len(trailer)))
		message = append(message, trailer...)
	} else {
		header[http.TrailerPrefix+"Grpc-Status"] = []string{"0"}
	}
	// As gRPC's servers, without a Content-Length, behind which a client could stop reading before the trailers (curl 7.88 does). An error means
	// that the caller has gone.
	_, _ = w.Write(message)
	_ = http.NewResponseController(w).Flush()
}

func contentType(r *http.Request) []string {
	if isWeb(r) {
		return []string{"application/grpc-web+proto"}
	}
	return []string{"application/grpc"}
}
