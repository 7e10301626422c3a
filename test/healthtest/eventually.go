package healthtest

import (
	"testing"
	"time"
)

// patience bounds how long Eventually waits. It is much longer than anything takes on a busy machine.
const patience = 20 * time.Second

// Eventually waits until a condition holds, and ends the test if it does not within 20 s. what describes the condition.
func Eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}
