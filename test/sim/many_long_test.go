//go:build !race && long

package sim

import "example.com/grpc-health-http/internal/check"

var size = sizes{limit: check.MaxDials, targets: 1000, hanging: 200, atOnce: 100, hangingAtOnce: 20}

const manySeeds = 400
