package settings

import (
	"flag"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the manual's table of settings")

func TestManual(t *testing.T) {
	const (
		path  = "../../docs/settings.md"
		begin = "<!-- settings:begin -->\n"
		end   = "<!-- settings:end -->"
	)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, hasBegin := strings.Cut(string(text), begin)
	table, after, hasEnd := strings.Cut(rest, end)
	if !hasBegin || !hasEnd {
		t.Fatalf("%s lacks the markers %q and %q", path, begin, end)
	}
	want := "\n" + MarkdownTable() + "\n"
	if table == want {
		return
	}
	if !*update {
		t.Fatalf("%s differs from the declared settings: go test ./internal/settings -run TestManual -update", path)
	}
	if err := os.WriteFile(path, []byte(before+begin+want+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}
