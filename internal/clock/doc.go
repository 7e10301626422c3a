// Package clock reads both of a machine's clocks, and tells how long the process has run.
//
// A frozen machine stops the monotonic clock, a stopped process does not; and the wall clock can be set. So the age of
// something is the larger of what the two clocks say (Moment.Since), and the order of two events is that of the monotonic
// clock (Moment.Before). A Running clock adds up what passes between its readings, so that a wall clock that is set back hides
// nothing that was seen before.
//
// While a check is in progress (from Begin to End), a Running clock leaves out the time in which the process did not run. Budgets are counted in running time: WithBudget for
// contexts, Timer for functions. Both wake up every Slice while they wait, because a gap between two readings is the only
// sign of a stop. Reading.Stops tells that there was one.
package clock
