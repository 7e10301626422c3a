// Package refresh keeps a value that comes from elsewhere, such as a file, a secret or a token, and loads it again when it
// gets old.
//
// Nothing runs between calls of Get: the process may be frozen there. A function of the user, State, judges the value at each
// Get: it can be used as it is, it can be used while the next one is loaded, a caller waits for the next one, or nobody may
// use it any more. A caller can also force a load, when what it got turned out to be wrong.
//
// Callers share loads. A load belongs to none of them: a caller's context ends only that caller's wait, and what comes after
// that serves the next one. A caller never gets the failure of a load that began before it called (unless that was less than Options.Interval ago), nor, where it forces a
// load, what such a load brought. A caller that has a usable value to fall back on waits for Patience and not longer.
//
// A load that fails leaves the last good value in use. A load that is not done within a second may never end, because of a
// lost answer, a mount that hangs or a frozen machine: then a caller begins another one beside it, up to five in all, and takes
// what comes first. The result of an earlier load never replaces that of a later one.
//
// Ages are measured by both clocks (see the package clock), so neither a freeze nor a change of the wall clock makes a value
// look young.
package refresh
