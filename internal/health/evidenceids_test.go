package health

import (
	"fmt"
	"slices"
	"testing"
)

// A header with the ids of a thousand failures would be refused by proxies.
func TestEvidenceIDs(t *testing.T) {
	t.Parallel()
	var many []Verdict
	for i := range 1000 {
		many = append(many, Verdict{Status: Timeout, EvidenceID: fmt.Sprint("id", i)})
	}
	if got := EvidenceIDs(many); len(got) != MaxServices || got[0] != "id0" || got[99] != "id99" {
		t.Errorf("%d ids: %q", len(got), got)
	}
	few := []Verdict{{Status: Timeout, EvidenceID: "a"}, {Status: Serving, EvidenceID: "b"}, {Status: Unknown}, {Status: Unknown, EvidenceID: "c"}, {Status: Unknown, EvidenceID: "a"}}
	if got := EvidenceIDs(few); !slices.Equal(got, []string{"a", "c"}) {
		t.Errorf("%q", got)
	}
}
