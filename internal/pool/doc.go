// Package pool keeps one connection to an upstream, and dials when there is none that may be used.
//
// Get returns a connection for one RPC. Which ones may serve is the caller's choice: any that is usable (Any), one that was
// dialled no earlier than a given moment (Fresh), or one of its own (Exclusive). A kept connection is not usable when it was lost, or is
// older than the pool's maximum age; with a maximum age of 0 every connection is exclusive.
//
// Callers share dials. A dial that succeeds serves everyone who waits and may use its connection; one that fails is
// a failure only for callers who had arrived when it began, for an older one proves nothing to them. So a caller starts a dial of its own
// where only older ones are in progress, unless the latest is less than 25 ms old. At most 8 shared dials are in progress at once; one for an
// exclusive connection does not count.
//
// Where a limit of dials is set (Options.Turns), a dial begins when its turn has come: its time-out and its age count from then. Until
// then everybody can join it, since it is younger than all who wait for it. A caller whose dial has had no turn while there was time
// left for one gets ErrNoTurn.
//
// A Reaper closes kept connections that are too old for many pools.
//
// Discard stops a broken connection from being used again, and Close does so for good. A connection is closed when the
// last RPC on it has ended. A dial ends when nobody waits for a connection any more.
package pool
