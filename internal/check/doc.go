// Package check wires a Checker of one upstream: it asks how the upstream's services are, through the gRPC Health Checking
// Protocol v1 (https://github.com/grpc/grpc/blob/master/doc/health-checking.md).
//
// One check goes from room to room. Checker.Check asks coalesce, which lets identical checks share calls. A call (call.Run,
// here) runs prove, which makes the attempts. An attempt gets a connection from pool, which dials if need be (dial), and makes the RPC on it
// (grpcconn). The verdict comes back the same way; report completes it and tells the Trace, before any caller gets it.
//
// There are two pools, one for the configured services and one for List and the names that callers made up, so that the latter
// cannot use up the streams of the former; and RPCs for made-up names are limited in all.
//
// The Checkers of a process share a Process: it limits their dials, and closes the connections that nobody uses any more.
package check
