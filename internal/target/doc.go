// Package target reads the text that names an upstream, and finds the addresses behind it.
//
// Parse takes host:port and grpc-go's dns, unix, unix-abstract and passthrough targets, each with the meaning that it has
// for grpc-go. Its errors say what to write instead, and never repeat the text. Addresses asks an injected LookupFunc, and
// orders what it finds so that both address families are tried early (RFC 8305, section 4). Nothing is cached.
package target
