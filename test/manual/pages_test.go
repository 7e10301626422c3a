// Package manual keeps the manual true: README.md and docs/*.md. It has tests only. They run its commands as a newcomer
// would, compare its tables with the programs, follow its links, and build as the Dockerfile does.
package manual

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const root = "../.."

// page is a page of the manual.
type page struct {
	path     string // from the repository's root
	sections []section
}

// section is a part of a page with a heading of the second level, or the page's beginning, which has none.
type section struct {
	title  string
	text   string // without the blocks
	blocks []block
}

// block is a fenced block.
type block struct {
	line     int // in the page, from 1
	language string
	text     string // its lines
}

// pages reads the manual.
func pages(t *testing.T) []page {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil || len(found) == 0 {
		t.Fatalf("no pages in docs: %v", err)
	}
	all := []page{readPage(t, "README.md")}
	for _, path := range found {
		all = append(all, readPage(t, "docs/"+filepath.Base(path)))
	}
	return all
}

func readPage(t *testing.T, path string) page {
	t.Helper()
	p := page{path: path, sections: []section{{title: "beginning"}}}
	var open *block
	number := 0
	for line := range strings.Lines(read(t, path)) {
		number++
		current := &p.sections[len(p.sections)-1]
		language, fence := strings.CutPrefix(strings.TrimSpace(line), "```")
		title, heading := strings.CutPrefix(line, "## ")
		switch {
		case fence && open == nil:
			open = &block{line: number, language: language}
		case fence:
			current.blocks = append(current.blocks, *open)
			open = nil
		case open != nil:
			open.text += line
		case heading:
			p.sections = append(p.sections, section{title: strings.TrimSpace(title)})
		default:
			current.text += line
		}
	}
	if open != nil {
		t.Fatalf("%s, line %d: the block has no end", path, open.line)
	}
	return p
}

// section returns the section with the title.
func (p page) section(t *testing.T, title string) section {
	t.Helper()
	i := slices.IndexFunc(p.sections, func(s section) bool { return s.title == title })
	if i < 0 {
		t.Fatalf("%s has no section %q", p.path, title)
	}
	return p.sections[i]
}

// read returns the content of a file, whose path is from the repository's root.
func read(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// TestREADMEIsShort: the README is what a newcomer reads. Everything else has a page.
func TestREADMEIsShort(t *testing.T) {
	t.Parallel()
	const most = 300
	if n := strings.Count(read(t, "README.md"), "\n"); n > most {
		t.Errorf("README.md has %d lines, want %d at most: move what not everybody needs to docs", n, most)
	}
}
