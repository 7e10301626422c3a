package manual

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

// named is how a text names a test: folder.TestName, or folder.TestManual/script; without a folder it is one of the function, in the
// repository's own.
var named = regexp.MustCompile("`(?:([a-z/]+)\\.)?((?:Test|Fuzz)\\w+)(?:/(\\w+))?`")

// TestNamedTests checks that every test exists that SECURITY.md and the list of what rests on undocumented behaviour name,
// and that every row of their tables names one.
func TestNamedTests(t *testing.T) {
	t.Parallel()
	functions := make(map[string]map[string]bool) // by folder
	for name, text := range map[string]string{
		"SECURITY.md":       read(t, "SECURITY.md"),
		"docs/internals.md": readPage(t, "docs/internals.md").section(t, "Behaviour that is not documented").text,
	} {
		rows := 0
		for line := range strings.Lines(text) {
			found := named.FindAllStringSubmatch(line, -1)
			if strings.HasPrefix(line, "| ") && !strings.HasPrefix(line, "| claim ") && !strings.HasPrefix(line, "| what ") {
				if rows++; len(found) == 0 {
					t.Errorf("%s: no test: %s", name, line)
				}
			}
			for _, f := range found {
				folder, test, script := filepath.Join(root, f[1]), f[2], f[3]
				if functions[folder] == nil {
					functions[folder] = testFunctions(t, folder)
				}
				if !functions[folder][test] {
					t.Errorf("%s: there is no %s", name, f[0])
				}
				if script == "" {
					continue
				}
				if _, err := os.Stat(filepath.Join(folder, "testdata", script+".txtar")); err != nil {
					t.Errorf("%s: %s: %v", name, f[0], err)
				}
			}
		}
		if rows == 0 {
			t.Errorf("%s has no tables of claims", name)
		}
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

// TestContributing finds files and names that are gone in the table that says where a change goes.
func TestContributing(t *testing.T) {
	t.Parallel()
	var source strings.Builder
	eachGoFile(t, func(path string) error {
		content, err := os.ReadFile(path)
		source.WriteString(filepath.ToSlash(path) + "\n" + string(content))
		return err
	})
	table := rows(t, "CONTRIBUTING.md", "Where does X go?", regexp.MustCompile("^[^|-]"))
	if len(table) < 5 {
		t.Fatalf("%d rows", len(table))
	}
	for _, row := range table {
		for _, quoted := range code.FindAllString(strings.Join(row, " "), -1) {
			name := strings.TrimSuffix(strings.Trim(quoted, "`"), "()")
			if _, err := os.Stat(filepath.Join(root, name)); err == nil {
				continue
			}
			if !strings.HasSuffix(name, ".go") {
				name = name[strings.LastIndex(name, ".")+1:] // without the package
			}
			if !strings.Contains(source.String(), name) {
				t.Errorf("there is no %s", quoted)
			}
		}
	}
}
