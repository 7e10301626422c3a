package memory

// What callers cost, in bytes: measured with the release build, and rounded up. docs/internals.md says how.
const (
	// Connection is a connection that speaks HTTP/1 without TLS, and its request: buffers, the goroutines that read and answer.
	Connection = 28 << 10
	// HTTP2Connection is one that speaks HTTP/2 without TLS.
	HTTP2Connection = 48 << 10
	// SecureConnection is one with TLS.
	SecureConnection = 48 << 10
	// Stream is a request of an HTTP/2 connection.
	Stream = 20 << 10
	// Body is what is kept of the body of a stream that has not been read.
	Body = 16 << 10
	// UpstreamConnection is a connection to an upstream, with TLS.
	UpstreamConnection = 64 << 10
	// HeaderByte is what a byte of a request's headers becomes where they are many short fields.
	HeaderByte = 12
	// HeaderField is what a field costs beyond its bytes: HTTP/2 compresses them.
	HeaderField = 192

	// Request is a request that waits for its checks. Its connection is paid for already; the cost here is so high that those who
	// wait can never use all the connections: there are always some for others.
	Request = 16 << 10
	// SecureRequest is one over TLS or HTTP/2.
	SecureRequest = 32 << 10
	// Name is one of the services that a request waits for.
	Name = 6 << 10
	// Scrape is an answer to Prometheus, beside what it says of upstreams.
	Scrape = 512 << 10
	// Sample is one of its samples about an upstream.
	Sample = 512
	// Listed is a target in the list for Prometheus.
	Listed = 2 << 10
)
