package app_test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const (
	module  = "example.com/grpc-health-http"
	metrics = module + "/internal/metrics"
	scrape  = module + "/internal/scrape"
	proxy   = module + "/cloudrun"
)

// testSupport is where packages lie that only tests, and one another, may import.
const testSupport = module + "/test"

// goPackage is what go list says of a package.
type goPackage struct {
	ImportPath string
	Standard   bool
	Imports    []string
}

// list runs go list.
func list(t *testing.T, args ...string) []goPackage {
	t.Helper()
	out, err := exec.Command("go", append([]string{"list", "-json=ImportPath,Standard,Imports"}, args...)...).Output()
	if err != nil {
		if failed, ok := errors.AsType[*exec.ExitError](err); ok {
			t.Fatalf("go list: %v\n%s", err, failed.Stderr)
		}
		t.Fatalf("go list: %v", err)
	}
	var packages []goPackage
	for decoder := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("read the output of go list: %v", err)
		}
		packages = append(packages, p)
	}
	if len(packages) == 0 {
		t.Fatal("go list names no package")
	}
	return packages
}

// within says whether a package is one of the roots, or below one.
func within(path string, roots ...string) bool {
	return slices.ContainsFunc(roots, func(root string) bool {
		return path == root || strings.HasPrefix(path, root+"/")
	})
}

// TestProbeLinksLittle keeps out of the probe what makes it large, or able to do more than it should.
func TestProbeLinksLittle(t *testing.T) {
	t.Parallel()
	unwanted := []string{
		"github.com/prometheus", "github.com/GoogleCloudPlatform/functions-framework-go", "cloud.google.com/go",
		module + "/internal/web", module + "/internal/app", module + "/internal/metrics",
		module + "/internal/serve", module + "/internal/idtoken", module + "/test/healthtest",
	}
	for _, p := range list(t, "-deps", "-tags=grpcnotrace", module+"/probe") {
		if within(p.ImportPath, unwanted...) {
			t.Errorf("the probe links %s", p.ImportPath)
		}
	}
}

// rooms are the packages of the core, and which others of them each may import: a check goes down one floor at a time, and
// no arrow runs up.
var rooms = map[string][]string{
	"inert":    nil,
	"health":   {"inert"},
	"clock":    nil,
	"target":   nil,
	"workers":  nil,
	"turns":    nil,
	"grpcconn": {"health"},
	"dial":     {"clock", "grpcconn", "health", "target"},
	"pool":     {"clock", "dial", "grpcconn", "health", "turns"},
	"prove":    {"clock", "dial", "grpcconn", "health", "pool"},
	"coalesce": {"clock"},
	"check":    {"clock", "coalesce", "dial", "grpcconn", "health", "inert", "pool", "prove", "turns", "workers"},

	"addresses": {"check", "clock", "coalesce", "dial", "health", "inert", "target"},
}

// TestRooms keeps the arrows of the core as they are, and the core usable wherever gRPC is.
func TestRooms(t *testing.T) {
	t.Parallel()
	var all []string
	for room := range rooms {
		all = append(all, module+"/internal/"+room)
	}
	for _, p := range list(t, all...) {
		for _, imported := range p.Imports {
			room, ours := strings.CutPrefix(imported, module+"/internal/")
			if ours && !slices.Contains(rooms[strings.TrimPrefix(p.ImportPath, module+"/internal/")], room) {
				t.Errorf("%s imports %s", p.ImportPath, imported)
			}
		}
	}
	wanted := append(all, "google.golang.org/grpc", "google.golang.org/protobuf", "google.golang.org/genproto", "golang.org/x")
	for _, p := range list(t, append([]string{"-deps"}, all...)...) {
		if !p.Standard && !within(p.ImportPath, wanted...) {
			t.Errorf("the core depends on %s", p.ImportPath)
		}
		if p.ImportPath == module+"/internal/health" && slices.ContainsFunc(p.Imports, func(i string) bool {
			return strings.HasPrefix(i, "google.golang.org") && i != "google.golang.org/grpc/codes"
		}) {
			t.Error("internal/health imports more of gRPC than its codes")
		}
	}
}

// TestImports looks at every package's imports, those of its tests left out.
func TestImports(t *testing.T) {
	t.Parallel()
	for _, p := range list(t, module+"/...") {
		for _, imported := range p.Imports {
			if within(imported, "github.com/prometheus/client_golang") && p.ImportPath != metrics && p.ImportPath != scrape && p.ImportPath != proxy {
				t.Errorf("%s imports %s: only internal/metrics, internal/scrape and cloudrun may", p.ImportPath, imported)
			}
			if within(imported, "github.com/aws") && !within(p.ImportPath, module+"/lambda") {
				t.Errorf("%s imports %s: only lambda may", p.ImportPath, imported)
			}
			if within(imported, testSupport) && !within(p.ImportPath, testSupport) {
				t.Errorf("%s imports %s: only tests may", p.ImportPath, imported)
			}
		}
	}
}
