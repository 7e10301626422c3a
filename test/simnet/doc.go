// Package simnet is a network in memory, for tests in a bubble of testing/synctest: there time is exact and nobody waits,
// but it stops while a socket is waited for. Real clients and servers use it: Connect has the signature of net.Dialer's
// DialContext, and Listen returns a net.Listener.
//
// What one side of a connection writes arrives at the other after the network's latency and some jitter. The jitter depends
// only on the network's seed, the time and the direction, not on the order in which goroutines run: so a simulation can be repeated.
//
// The network has faults. Impair makes new connections fail in one of several ways; methods of Conn break those that are
// open; Freeze keeps the clients from reading, as if their machine did not run.
//
// Buffers have no limit and nothing is sent again: what is lost is lost for good, and writing never waits.
package simnet
