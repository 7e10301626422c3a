// Package sim simulates internal/check and the packages below it: hours of faults in minutes, and every failure has a seed.
//
// A seed runs in a bubble of testing/synctest: the core as it is, with grpc-go on both sides, over a network in memory
// (test/simnet). The seed draws the settings, a schedule of faults, and what each caller does. A judge compares each
// answer with what the server had said and with what was broken, to the nanosecond.
//
//	go test ./test/sim                        100 new seeds, and those that once failed
//	go test ./test/sim -args -seed 7          one seed
//	go test ./test/sim -args -seed 7 -seeds 9 nine of them
//	go test ./test/sim -args -for 1h          new seeds for an hour
//	go test ./test/sim -args -first           end at the first finding, and do not minimize its schedule
//
// A finding shows the seed, the least schedule of faults with which it still comes, and what happened around it. A seed
// repeats to the nanosecond nine times in ten: timers that are due at the same time fire in any order. The goroutines run one
// at a time for that, without preemption (GOMAXPROCS=1, GODEBUG=asyncpreemptoff=1): TestMain starts the test again that way.
//
// All but this file is built without the race detector, which crashes now and then in a bubble.
package sim
