// Package coalesce lets callers share calls, such that each gets a result of a call that began after it arrived. It knows
// nothing of what a call does.
//
// Callers with the same key who arrive while a call runs wait for the next one. That one starts when the running ones have
// ended, or beside them once the latest is older than Window: so one slow call does not hold up those who come after it. Options.Prompt calls
// may run side by side this way. Beyond those, up to Options.Max in all, a call starts only at the last moment at which the callers
// waiting for it can still be served in time (Options.Reserve before their deadline): otherwise a burst would take all places for
// calls that are slow, and those who come next would time out in the queue.
//
// Each caller gets its result within Budget of its arrival, or what Unanswered says. A call may say as of when its
// result holds: the result then serves everyone who had arrived by that time, also those who wait for other calls. When the last caller of a
// call has left or was answered, the call's context ends.
//
// Callers who arrive within a short time share a deadline. Time is running time, of an injected clock.
package coalesce
