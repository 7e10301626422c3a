// Package grpcconn turns a network connection into one gRPC connection. Callers may make RPCs on it side by side; each Do is
// one RPC.
//
// New waits for the server's SETTINGS. A Conn never connects a second time: so a broken connection is known as broken, no
// backoff is inherited, and no time-outs apply but the caller's.
//
// Do makes one RPC, a Check or a List, and says what its end means. Answered: the server, or an HTTP front end of it, has
// spoken, whatever it said. Lost: the connection broke, or the peer reset the stream, before
// the answer was whole. Unprocessed: it broke, and the server had not
// looked at the request. TimedOut: the RPC's deadline came first, whoever noticed it. Unsendable: nothing was lost, and the request
// cannot be sent. A Progress shows meanwhile whether the
// request has been sent.
//
// grpc-go does not tell all of this by types. What is concluded from its statistics and its error texts is in outcome.go, and
// tests hold grpc-go to each of them.
package grpcconn
