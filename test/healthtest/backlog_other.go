//go:build !linux

package healthtest

import (
	"errors"
	"testing"
)

// backlog is for Linux: other systems do not drop the SYNs that a full queue has no room for.
type backlog struct{}

var errNoBacklog = errors.New("only Linux drops the SYNs that a full queue has no room for")

func listenBacklogged(string) (*backlog, error) { return nil, errNoBacklog }

func (b *backlog) close() {}

// DropSYNs skips the test.
func DropSYNs(t testing.TB, _ string) string {
	t.Skip(errNoBacklog)
	return ""
}
