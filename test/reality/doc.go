// Package reality holds test/sim to reality: each kind of fault that is simulated there has a scenario here, and so has each
// mode and each break of test/simnet. A scenario happens twice, with the same checker, the same grpc-go server and the same
// expectations: in a bubble on the simulated network, and over the real sockets, processes, files and name servers of the machine.
//
//	scenarios_test.go  the scenarios, and what is expected of each
//	world_test.go      what both worlds have: the server, the checker, and what its connections show it
//	simulated_test.go  the simulated world
//	real_test.go       the real one, and process_test.go the processes that are killed and stopped in it
//	kinds_test.go      no kind, mode or break is without a scenario
//
// What only reality or only the simulation can show is said at the scenario. Like the rest of the simulation, what happens in a
// bubble is built without the race detector.
package reality
