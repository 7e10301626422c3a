package clients

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestTable compares the manual's table with what the checkers have to conclude.
func TestTable(t *testing.T) {
	t.Parallel()
	const (
		begin = "<!-- checkers:begin -->\n"
		end   = "<!-- checkers:end -->"
	)
	path := filepath.Join("..", "..", "docs", "load-balancers.md")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, hasBegin := strings.Cut(string(text), begin)
	there, after, hasEnd := strings.Cut(rest, end)
	if !hasBegin || !hasEnd {
		t.Fatalf("%s lacks the markers %q and %q", path, begin, end)
	}
	want := "\n" + table() + "\n"
	if there == want {
		return
	}
	if !*update {
		t.Fatalf("%s differs from what the checkers conclude: go test ./test/clients -run TestTable -update", path)
	}
	if err := os.WriteFile(path, []byte(before+begin+want+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

// table has a row for each status.
func table() string {
	lines := []string{row("Status", columns), row("---", strings.Split(strings.Repeat("---,", len(columns)-1)+"---", ","))}
	written := make(map[string]bool)
	for _, s := range states {
		if written[s.status] {
			continue
		}
		written[s.status] = true
		cells := append([]string(nil), s.want...)
		for _, other := range states {
			for i := range cells {
				if other.status == s.status && other.want[i] != s.want[i] {
					cells[i] = "the server's" // code, which is all in which states differ that have the same status
				}
			}
		}
		lines = append(lines, row("`"+s.status+"`", cells))
	}
	return strings.Join(lines, "\n") + "\n"
}

func row(first string, cells []string) string {
	return "| " + first + " | " + strings.Join(cells, " | ") + " |"
}
