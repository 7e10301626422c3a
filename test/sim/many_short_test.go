//go:build !race && !long

package sim

// A process's sizes, divided by eight.
var size = sizes{limit: 8, targets: 125, hanging: 25, atOnce: 13, hangingAtOnce: 3}

const manySeeds = 40
