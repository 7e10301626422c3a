// Package prove makes the attempts of one check, until the server has answered or its failure is proven.
//
// The first attempt uses the kept connection where there is one. Further ones, on fresh connections, follow when one was lost (a
// retry), or beside one on a reused connection that has had no answer for a quarter of the RPC's budget (a hedge); two are in progress at once, at most. What
// the server itself said is final and never asked again. A transport failure is the result only when a connection that was
// dialled after the check began has failed; and one lost connection is not proof: see pointsAllowed.
//
// A process that was stopped during a check begins it anew, since no failure from before says how the server is now. The
// oldest attempt stays in progress beside the new one unless the stop was longer than 5 s: its answer could be that old.
//
// prove.go decides. attempt.go is an attempt's goroutine, which gets what to send and a connection from the pool, makes the
// RPC, and reports by messages. Snapshot shows the check at any time to those who cannot wait for its end.
package prove
