// Package serve runs HTTP servers from their listeners to a clean end.
//
// Listen binds every port or none, so that nothing is announced that cannot be reached. Run serves until its
// context ends or a server fails, and then drains all servers side by side.
//
// A server has at most so many connections as its share of the file-descriptor limit allows. At the limit, a new
// connection evicts the one that has been without a request for longest: idle, new, or with an unfinished request, also
// one whose handler waits for its body. A connection never makes room while a handler answers its request; where all are
// busy, the new one is closed.
//
// Without TLS a connection that begins with HTTP/2's preface speaks HTTP/2, and every other HTTP/1.1.
//
// A drain loses no request. The server stops accepting, and each connection ends with its next answer, which says so
// (Connection: close, or GOAWAY). A connection of which no byte of a request has been read since its last answer stays
// open for a short linger time, for requests on their way; then it is closed. One of which bytes have been read stays
// until these requests are answered, pipelined ones in order; then the client has half a second to close its side. What
// is open when the grace period ends is cut off, with a warning.
//
// HTTP/2 connections get GOAWAY with their next answer, or when no HTTP/1 connection is left. What
// they have begun is answered.
//
// With TLS the server sees only ciphertext before a handler has the request. So of requests that came with another one in
// a single read, a drain answers only the first, and that answer says that it is the last.
//
// The package builds on what net/http, net and crypto/tls document; docs/internals.md lists the exceptions.
package serve
