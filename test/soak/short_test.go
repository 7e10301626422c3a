//go:build !long

package main

import "time"

// soakFor is how long the test's soak takes.
const soakFor = 6 * time.Second
