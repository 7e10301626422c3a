//go:build linux && long

package main

import (
	"bytes"
	"os"
	"testing"
)

func TestMain(m *testing.M) {
	if takesMemory() {
		return
	}
	os.Exit(m.Run())
}

// TestAttacks makes all attacks, also the slow ones. Other tests run at the same time, so answers may be later than for the
// command.
func TestAttacks(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if code := command(t.Context(), []string{"-slow", "-slack", "5s"}, &stdout, &stderr); code != 0 {
		t.Errorf("exit code %d\n%s", code, stderr.String())
	}
	t.Log(stdout.String())
}
