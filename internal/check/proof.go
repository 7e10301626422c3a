package check

import (
	"crypto/x509"
	"time"
)

// Proof is what a verdict rests on: every attempt that was made for it.
type Proof struct {
	Attempts []Attempt
}

// Attempt is one try to get an answer.
type Attempt struct {
	// Reused says that the connection had been dialled before the check began; Age is how long before.
	Reused bool
	Age    time.Duration
	// Dial is how the connection was made, or why none was; it is zero for a reused connection.
	Dial Dial
	// RPC is how long the RPC took; 0 where none was made.
	RPC time.Duration
	// Result is the RPC's end: a gRPC code and message; empty where none was made.
	Result string
}

// Dial is one attempt to connect, over all the target's addresses.
type Dial struct {
	// Lookup is the time that the name's lookup took.
	Lookup time.Duration
	// Addresses are those that were tried, in order of their start.
	Addresses []AddressAttempt
	// Phase is where the attempt ended; empty when the connection stands.
	Phase Phase
	// Err is the cause; nil when the connection stands.
	Err error
	// Took is the time in all.
	Took time.Duration

	began moment
}

// AddressAttempt is one address's part in a Dial.
type AddressAttempt struct {
	Address string
	// Phase is where this address ended; empty when its connection stands.
	Phase Phase
	Err   error
	// Connect, TLS and HTTP2 are the times of the phases; 0 for one that was not reached.
	Connect, TLS, HTTP2 time.Duration
	// Certificate is the leaf that the upstream showed, also where verifying it failed; nil without TLS.
	Certificate *x509.Certificate
}
