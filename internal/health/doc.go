// Package health is the vocabulary of a check: what was asked, what the answer is, and what it rests on.
//
// A Func checks one service of one upstream and returns a Verdict. A Verdict is a value and never an error: for a
// health check, failure is an answer. Its Status says what was found, its Phase where a check ended that no server
// answered, and its Err the cause. Evidence lists every attempt that was made for a verdict.
//
// The package does no I/O, and knows of gRPC only its status codes. Every other package may import it.
package health
