// Package target reads the text that names an upstream, and finds the addresses behind it.
//
// Parse takes host:port and grpc-go's dns, unix, unix-abstract and passthrough targets, each with the meaning that it has
// for grpc-go. Its errors say what to write instead, and never repeat the text. Lookup asks the system's resolver,
// or the DNS server that the target names, for one address family. Nothing is cached.
package target
