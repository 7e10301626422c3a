package manual

import (
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"
)

var (
	fenced     = regexp.MustCompile("(?ms)^```.*?^```$")
	code       = regexp.MustCompile("`[^`\n]*`")
	inline     = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	definition = regexp.MustCompile(`(?m)^\[([^\]]+)\]: (\S+)$`)
	reference  = regexp.MustCompile(`\]\[([^\]]+)\]`)
	heading    = regexp.MustCompile(`(?m)^#+ (.*)$`)
)

// TestLinks follows the links from each text of the repository to a file, and to a heading in it. It also finds references
// without a definition, and definitions that nothing refers to. It does not ask for pages elsewhere.
func TestLinks(t *testing.T) {
	t.Parallel()
	for _, file := range texts(t) {
		text := code.ReplaceAllString(fenced.ReplaceAllString(read(t, file), ""), "``")
		var targets, defined, referred []string
		for _, m := range definition.FindAllStringSubmatch(text, -1) {
			defined, targets = append(defined, m[1]), append(targets, m[2])
		}
		for _, m := range inline.FindAllStringSubmatch(text, -1) {
			targets = append(targets, m[1])
		}
		for _, m := range reference.FindAllStringSubmatch(text, -1) {
			referred = append(referred, m[1])
		}
		for _, r := range referred {
			if !slices.Contains(defined, r) {
				t.Errorf("%s: no definition of [%s]", file, r)
			}
		}
		for _, d := range defined {
			if !slices.Contains(referred, d) {
				t.Errorf("%s: nothing refers to [%s]", file, d)
			}
		}
		for _, target := range targets {
			if fault := follow(t, file, target); fault != "" {
				t.Errorf("%s: the link to %s: %s", file, target, fault)
			}
		}
	}
}

// TestEveryPageIsLinked: the README leads to each page.
func TestEveryPageIsLinked(t *testing.T) {
	t.Parallel()
	readme := read(t, "README.md")
	for _, p := range pages(t) {
		if p.path != "README.md" && !strings.Contains(readme, "]("+p.path+")") {
			t.Errorf("README.md has no link to %s", p.path)
		}
	}
}

// texts are the paths of the repository's Markdown files.
func texts(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, pattern := range []string{"*.md", "docs/*.md", "terraform/*.md", "terraform/*/*.md", "example/*/*.md"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil || len(found) == 0 {
			t.Fatalf("no %s: %v", pattern, err)
		}
		for _, f := range found {
			relative, err := filepath.Rel(root, f)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, filepath.ToSlash(relative))
		}
	}
	return all
}

// follow says what is wrong with a link in a file; empty where nothing is.
func follow(t *testing.T, from, target string) string {
	t.Helper()
	if strings.Contains(target, "://") {
		if !strings.HasPrefix(target, "https://") {
			return "it is not https"
		}
		return ""
	}
	file, anchor, _ := strings.Cut(target, "#")
	to := from
	if file != "" {
		to = path.Join(path.Dir(from), file)
	}
	if _, err := os.Stat(filepath.Join(root, to)); err != nil {
		return "there is no such file"
	}
	if anchor != "" && !slices.Contains(anchors(read(t, to)), anchor) {
		return "there is no such heading"
	}
	return ""
}

// anchors are those that GitHub gives the headings of a text.
func anchors(text string) []string {
	seen := make(map[string]int)
	var all []string
	for _, m := range heading.FindAllStringSubmatch(fenced.ReplaceAllString(text, ""), -1) {
		anchor := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
				return unicode.ToLower(r)
			}
			return -1
		}, m[1])
		if n := seen[anchor]; n > 0 {
			all = append(all, anchor+"-"+strconv.Itoa(n))
		} else {
			all = append(all, anchor)
		}
		seen[anchor]++
	}
	return all
}

func TestAnchors(t *testing.T) {
	t.Parallel()
	text := "# The `grpc` proxy's *two* words\n## Same\n```sh\n# no heading\n```\n## Same\n## A-b_c, d/e 1.2\n"
	want := []string{"the-grpc-proxys-two-words", "same", "same-1", "a-b_c-de-12"}
	if got := anchors(text); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
