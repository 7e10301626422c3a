package health

import (
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
)

func TestStatuses(t *testing.T) {
	t.Parallel()
	var zero Status
	if zero == Serving || zero.String() != "UNKNOWN" || (Verdict{}).Status == Serving {
		t.Error("the zero Status must not be SERVING")
	}
	all := Statuses()
	if len(all) != len(statusNames) {
		t.Fatalf("%d statuses are ordered, %d have names", len(all), len(statusNames))
	}
	names := map[string]bool{}
	for _, s := range all {
		if s.String() == "" || names[s.String()] {
			t.Errorf("name %q of status %d", s.String(), s)
		}
		names[s.String()] = true
	}
	var order []string
	for _, s := range all {
		order = append(order, s.String())
	}
	contract := []string{"CONNECTION_FAILED", "TIMEOUT", "OVERLOADED", "RPC_FAILED", "UNIMPLEMENTED", "NOT_SERVING", "UNKNOWN", "SERVICE_UNKNOWN", "SERVING"}
	if !slices.Equal(order, contract) {
		t.Errorf("order %v, want %v", order, contract)
	}
	for i, bad := range all {
		for _, better := range all[i:] {
			if w := Worst([]Verdict{{Status: better}, {Status: bad}, {Status: better}}); w != bad {
				t.Errorf("worst of %v and %v: %v", better, bad, w)
			}
		}
	}
	if Worst(nil) != Unknown || Status(99).String() != "UNKNOWN" {
		t.Error("nothing, or no status, is UNKNOWN")
	}
}

// A phase without a place in the order would count as none.
func TestPhases(t *testing.T) {
	t.Parallel()
	file, err := parser.ParseFile(token.NewFileSet(), "status.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	declared := map[string]bool{}
	ast.Inspect(file, func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok && strings.HasPrefix(v.Names[0].Name, "Phase") && len(v.Values) == 1 {
			if literal, ok := v.Values[0].(*ast.BasicLit); ok {
				declared[strings.Trim(literal.Value, `"`)] = true
			}
		}
		return true
	})
	delete(declared, "")
	if len(declared) != len(Phases()) || len(declared) == 0 {
		t.Errorf("%d phases are declared, %d have a place in the order", len(declared), len(Phases()))
	}
	for _, p := range Phases() {
		if !declared[string(p)] || !p.Beyond(PhaseNone) {
			t.Errorf("phase %q", p)
		}
	}
	if !PhaseTLS.Beyond(PhaseConnect) || PhaseConnect.Beyond(PhaseTLS) || PhaseTLS.Beyond(PhaseTLS) {
		t.Error("the order is wrong")
	}
}

func TestGRPCCode(t *testing.T) {
	t.Parallel()
	for code := codes.OK; code <= codes.Unauthenticated; code++ {
		if (Verdict{Asked: true, Code: code}).GRPCCode() == "" {
			t.Errorf("code %v has no name", code)
		}
	}
	for want, v := range map[string]Verdict{
		"":          {Code: codes.NotFound},
		"OK":        {Asked: true},
		"NOT_FOUND": {Asked: true, Code: codes.NotFound},
		"CANCELLED": {Asked: true, Code: codes.Canceled},
		"CODE_99":   {Asked: true, Code: 99},
	} {
		if got := v.GRPCCode(); got != want {
			t.Errorf("%+v: %q, want %q", v, got, want)
		}
	}
}
