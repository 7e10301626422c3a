package manual

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"

	"example.com/grpc-health-http/internal/asker"
	"example.com/grpc-health-http/internal/grpcfront"
	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/internal/metrics"
	"example.com/grpc-health-http/internal/web"
	"example.com/grpc-health-http/test/faults"
)

// rows returns the cells of those rows of a section's tables whose first cell matches.
func rows(t *testing.T, path, title string, first *regexp.Regexp) [][]string {
	t.Helper()
	var found [][]string
	for line := range strings.Lines(readPage(t, path).section(t, title).text) {
		row, isRow := strings.CutPrefix(strings.TrimSpace(line), "| ")
		cells := strings.Split(strings.TrimSuffix(row, " |"), " | ")
		if isRow && first.MatchString(cells[0]) {
			found = append(found, cells)
		}
	}
	return found
}

// same reports the difference between what is documented and what is there.
func same(t *testing.T, documented, there []string) {
	t.Helper()
	for _, d := range documented {
		if !slices.Contains(there, d) {
			t.Errorf("documented, and not there: %s", d)
		}
	}
	for _, d := range there {
		if !slices.Contains(documented, d) {
			t.Errorf("there, and not documented: %s", d)
		}
	}
}

func TestStatuses(t *testing.T) {
	t.Parallel()
	var documented, there []string
	for _, row := range rows(t, "README.md", "Requests and answers", regexp.MustCompile("^`[A-Z_]+`$")) {
		documented = append(documented, strings.Trim(row[0], "`")+" "+row[1])
	}
	for _, status := range health.Statuses() {
		handler := web.New(web.Options{Asker: asker.New(asker.Options{Fleet: asker.One(&asker.Upstream{Check: func(context.Context, string) health.Verdict {
			return health.Verdict{Status: status}
		}})})})
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, httptest.NewRequest("GET", "/", nil))
		there = append(there, status.String()+" "+strconv.Itoa(answer.Code))
	}
	same(t, documented, there)
}

// TestCodes compares the table of what callers get over gRPC with what is there, for every status.
func TestCodes(t *testing.T) {
	t.Parallel()
	var documented, there []string
	for _, row := range rows(t, "docs/load-balancers.md", "What it answers over gRPC", regexp.MustCompile("^`[A-Z_]+`$")) {
		documented = append(documented, strings.Join(row, " | "))
	}
	name := func(c codes.Code) string {
		if c == codes.OK {
			return "OK"
		}
		return strings.ToUpper(regexp.MustCompile("([a-z])([A-Z])").ReplaceAllString(c.String(), "${1}_$2"))
	}
	for _, status := range health.Statuses() {
		check := name(grpcfront.Code(&health.Verdict{Status: status, Code: codes.PermissionDenied}))
		switch {
		case check == "OK":
			check += ", " + status.String()
		case status == health.RPCFailed:
			if check != "PERMISSION_DENIED" {
				t.Errorf("%s: %s, want the server's code", status, check)
			}
			check = "the server's own code"
		}
		there = append(there, "`"+status.String()+"` | "+check+" | "+name(grpcfront.CodeOnly(status)))
	}
	same(t, documented, there)
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	var documented, there []string
	for _, row := range rows(t, "docs/metrics.md", "The metrics", regexp.MustCompile("^`grpc_health_check_")) {
		labels := strings.Split(strings.ReplaceAll(row[2], "`", ""), ", ")
		slices.Sort(labels)
		documented = append(documented, strings.Join([]string{strings.Trim(row[0], "`"), row[1], strings.Join(labels, ",")}, " "))
	}
	registry := prometheus.NewRegistry()
	m := metrics.New(registry, metrics.Options{})
	m.Handler("/", nil)
	up := m.NewUpstream(metrics.UpstreamOptions{Address: "localhost:50051"})
	up.Observe(health.Verdict{Status: health.Serving, Asked: true, Code: codes.OK, At: time.Now()})
	up.Trace().PeerCertificate(&x509.Certificate{})
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	withTargets := prometheus.NewRegistry()
	metrics.New(withTargets, metrics.Options{Targets: true})
	more, err := withTargets.Gather()
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	for _, family := range append(families, more...) {
		if !strings.HasPrefix(family.GetName(), "grpc_") || seen[family.GetName()] {
			continue // the collectors of Go and of the process, and what is there with targets and without
		}
		seen[family.GetName()] = true
		labels := []string{}
		for _, label := range family.GetMetric()[0].GetLabel() {
			labels = append(labels, label.GetName())
		}
		if len(labels) == 0 {
			labels = append(labels, "–")
		}
		there = append(there, strings.Join([]string{
			family.GetName(), strings.ToLower(family.GetType().String()), strings.Join(labels, ","),
		}, " "))
	}
	same(t, documented, there)
}

// TestFaults compares the table of faults with what every variant is run against.
func TestFaults(t *testing.T) {
	t.Parallel()
	var documented, there []string
	for _, row := range rows(t, "docs/reliability.md", "The table of faults", regexp.MustCompile("")) {
		if row[0] != "what is wrong" {
			documented = append(documented, strings.Join(row, " | "))
		}
	}
	for _, f := range faults.Table() {
		there = append(there, strings.Join([]string{f.Name, f.Fresh.String(), f.Reused.String()}, " | "))
	}
	same(t, documented, there)
}

// TestRooms compares the table of folders with those that there are in internal and test.
func TestRooms(t *testing.T) {
	t.Parallel()
	var documented, there []string
	for _, row := range rows(t, "docs/internals.md", "The folders", regexp.MustCompile("^`")) {
		for _, m := range regexp.MustCompile("`((?:internal|test)/\\w+)`").FindAllStringSubmatch(strings.Join(row, " "), -1) {
			documented = append(documented, m[1])
		}
	}
	for _, parent := range []string{"internal", "test"} {
		entries, err := os.ReadDir(filepath.Join(root, parent))
		if err != nil {
			t.Fatal(err)
		}
		for _, entry := range entries {
			there = append(there, parent+"/"+entry.Name())
		}
	}
	same(t, documented, there)
}

// TestDependencies compares the table with the module's direct requirements and its tools.
func TestDependencies(t *testing.T) {
	t.Parallel()
	var documented, there []string
	for _, row := range rows(t, "docs/internals.md", "Dependencies", regexp.MustCompile("^`")) {
		documented = append(documented, strings.Trim(row[0], "`"))
	}
	m := module(t)
	for _, required := range m.Require {
		isTool := slices.ContainsFunc(m.Tool, func(tool struct{ Path string }) bool {
			return strings.HasPrefix(tool.Path, required.Path+"/")
		})
		if !required.Indirect || isTool {
			there = append(there, required.Path)
		}
	}
	same(t, documented, there)
}

// goModule is what these tests need of go.mod.
type goModule struct {
	Go      string
	Require []struct {
		Path     string
		Indirect bool
	}
	Tool []struct{ Path string }
}

func module(t *testing.T) goModule {
	t.Helper()
	cmd := exec.Command("go", "mod", "edit", "-json")
	cmd.Dir = root
	text, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var m goModule
	if err := json.Unmarshal(text, &m); err != nil {
		t.Fatal(err)
	}
	return m
}
