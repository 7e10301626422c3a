//go:build linux && long

package main

import (
	"os"
	"os/exec"
	"testing"
)

// TestAttacks makes all attacks, also the slow ones. They run as the command does, because the race detector would slow them down.
// A machine of continuous integration may be slow, so answers may be later than for the command.
func TestAttacks(t *testing.T) {
	program, err := build(t.Context(), t.TempDir(), "test/attack")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program, "-slow", "-slack", "3s")
	cmd.Env = os.Environ()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v", err)
	}
	t.Logf("%s", out)
}
