package manual

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestMessages finds messages that the manual explains and no program prints any more.
func TestMessages(t *testing.T) {
	t.Parallel()
	printed := literals(t)
	for _, row := range rows(t, "docs/troubleshooting.md", "Messages, and what to do", regexp.MustCompile("^`")) {
		for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(row[0], -1) {
			for part := range strings.SplitSeq(m[1], "…") {
				if part = strings.TrimSpace(part); !strings.Contains(printed, part) {
					t.Errorf("no program prints %q, of %s", part, row[0])
				}
			}
		}
	}
}

// literals are the programs' texts, each in a line, concatenations as one.
func literals(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	eachGoFile(t, func(path string) error {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			e, ok := n.(ast.Expr)
			if !ok {
				return true
			}
			text, whole := literal(e)
			all.WriteString(text + "\n")
			return !whole
		})
		return nil
	})
	return all.String()
}

// eachGoFile calls a function with each file of the programs' source.
func eachGoFile(t *testing.T, do func(path string) error) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (entry.Name() == "test" || entry.Name() == "example" || entry.Name() == ".git"):
			return filepath.SkipDir
		case !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		return do(path)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// literal is the text of a string literal, or of a concatenation of them: whole says that it is nothing else.
func literal(e ast.Expr) (text string, whole bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		if e.Kind == token.STRING {
			text, _ = strconv.Unquote(e.Value) // the parser has taken it
			return text, true
		}
	case *ast.BinaryExpr:
		left, wholeLeft := literal(e.X)
		right, wholeRight := literal(e.Y)
		return left + right, wholeLeft && wholeRight
	}
	return "", false
}
