// Package prove makes the attempts of one check, until the server has answered or its failure is proven.
//
// The first attempt uses the kept connection where there is one. A second one, on a fresh connection, follows when the first
// was lost (a retry), or beside it when a quarter of the RPC's budget has passed without an answer (a hedge). What the server
// itself said is final and never asked again. A transport failure is the result only when a connection that was dialled after the
// check began failed too; and one lost connection is not proof, for a server that restarts may have taken it along: see
// lossesAllowed.
//
// A process that was stopped during a check begins it anew, since no failure from before says how the server is now. The
// oldest attempt goes on beside the new one unless the stop was longer than 5 s: its answer could be that old.
//
// Each attempt has a goroutine, which gets what to send and a connection from the pool, makes the RPC, and reports by messages;
// Run alone decides. Snapshot shows the check at any time to those who cannot wait for its end.
package prove
