package readme

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// evidence is how SECURITY.md names a test: folder.TestName, or folder.TestManual/script.
var evidence = regexp.MustCompile("`([a-z/]+)\\.((?:Test|Fuzz)\\w+)(?:/(\\w+))?`")

// TestSecurity checks that every test that SECURITY.md names exists, and that every row of its tables names one.
func TestSecurity(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join("..", "..", "SECURITY.md"))
	if err != nil {
		t.Fatal(err)
	}
	functions := make(map[string]map[string]bool) // by folder
	rows := 0
	for line := range strings.Lines(string(text)) {
		named := evidence.FindAllStringSubmatch(line, -1)
		if strings.HasPrefix(line, "| ") && !strings.HasPrefix(line, "| claim ") {
			if rows++; len(named) == 0 {
				t.Errorf("no test: %s", line)
			}
		}
		for _, n := range named {
			folder, name, script := filepath.Join("..", "..", n[1]), n[2], n[3]
			if functions[folder] == nil {
				functions[folder] = testFunctions(t, folder)
			}
			if !functions[folder][name] {
				t.Errorf("there is no %s", n[0])
			}
			if script == "" {
				continue
			}
			if _, err := os.Stat(filepath.Join(folder, "testdata", script+".txtar")); err != nil {
				t.Errorf("%s: %v", n[0], err)
			}
		}
	}
	if rows == 0 {
		t.Error("SECURITY.md has no tables of claims")
	}
}

// testFunctions are the names of the functions in a folder's test files.
func testFunctions(t *testing.T, folder string) map[string]bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	names := make(map[string]bool)
	for _, file := range files {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, declaration := range parsed.Decls {
			if f, ok := declaration.(*ast.FuncDecl); ok && f.Recv == nil {
				names[f.Name.Name] = true
			}
		}
	}
	return names
}
