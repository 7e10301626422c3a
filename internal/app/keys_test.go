package app_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// loggers are the functions whose string literals are keys of the log, or its messages.
var loggers = []string{
	"Debug", "Info", "Warn", "Error", "DebugContext", "InfoContext", "WarnContext", "ErrorContext", "Log", "LogAttrs", "With",
	"String", "Int", "Int64", "Float64", "Bool", "Any", "Time", "Group",
}

// TestKeys looks at every line that the programs log: no key is one that log systems reserve, and no time is a time.Duration, which
// JSON shows as nanoseconds.
func TestKeys(t *testing.T) {
	t.Parallel()
	calls := 0
	look := func(path string) {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			function, ok := call.Fun.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			of, _ := function.X.(*ast.Ident)
			if of != nil && of.Name == "slog" && function.Sel.Name == "Duration" {
				t.Errorf("%s: slog.Duration: write seconds as a Float64", path)
			}
			logs := of != nil && (of.Name == "slog" || of.Name == "logger")
			if field, ok := function.X.(*ast.SelectorExpr); ok && strings.EqualFold(field.Sel.Name, "logger") {
				logs = true
			}
			if !logs || !slices.Contains(loggers, function.Sel.Name) {
				return true
			}
			calls++
			for _, argument := range call.Args {
				if literal, ok := argument.(*ast.BasicLit); ok && slices.Contains([]string{`"service"`, `"status"`, `"host"`}, literal.Value) {
					t.Errorf("%s: %s is a key, or a message, that log systems reserve", path, literal.Value)
				}
			}
			return true
		})
	}
	for _, root := range []string{"../../internal", "../../cloudrun", "../../lambda", "../../probe"} {
		err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
			if err == nil && strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go") {
				look(path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	look("../../function.go")
	if calls < 25 {
		t.Errorf("%d calls were found: the test does not see the log any more", calls)
	}
}
