//go:build !linux

package healthtest

import (
	"errors"
	"testing"
)

// backlog does nothing here: only Linux drops the SYNs of new connections when the accept queue is full.
type backlog struct{}

var errNoBacklog = errors.New("only Linux drops SYNs when the accept queue is full")

func listenBacklogged(string) (*backlog, error) { return nil, errNoBacklog }

func (b *backlog) close() {}

// DropSYNs skips the test: it works on Linux only.
func DropSYNs(t testing.TB, _ string) string {
	t.Skip(errNoBacklog)
	return ""
}
