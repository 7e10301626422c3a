package check

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"example.com/grpc-health-http/internal/grpcconn"
	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/internal/prove"
)

// Near asks the server which services it has, with a List RPC, and returns those whose names are near to one that it does not know,
// the nearest first: three at most, and none where the server does not say. It is for a command's message: it is no check, and its end
// is no verdict.
func (c *Checker) Near(ctx context.Context, service string) []string {
	now := c.clock.Begin()
	defer c.clock.End()
	r := grpcconn.Request{List: true}
	result, _ := prove.New(ctx, &c.prove, c.configured, r, now, &permits{checker: c, request: r}).Run()
	names := make([]string, 0, len(result.List))
	for _, v := range result.List {
		if v.Service != "" && health.NameFault(v.Service) == "" {
			names = append(names, v.Service)
		}
	}
	return near(service, names)
}

// near are the names that somebody may have meant by another one, at most three, the nearest first: those with a few other letters,
// and those whose last part, behind the package, is the same or a part of the other's.
func near(name string, names []string) []string {
	const most = 3
	type candidate struct {
		name     string
		distance int
	}
	var found []candidate
	wanted := strings.ToLower(name)
	for _, n := range names {
		other := strings.ToLower(n)
		d := distance(wanted, other)
		if lastPart(wanted) == lastPart(other) {
			d = min(d, 1)
		} else if within(lastPart(wanted), lastPart(other)) || within(lastPart(other), lastPart(wanted)) {
			d = min(d, 2)
		}
		if n != name && d <= max(2, len(wanted)/4) {
			found = append(found, candidate{n, d})
		}
	}
	slices.SortFunc(found, func(a, b candidate) int { return cmp.Or(a.distance-b.distance, cmp.Compare(a.name, b.name)) })
	var nearest []string
	for _, c := range found[:min(most, len(found))] {
		nearest = append(nearest, c.name)
	}
	return nearest
}

// within says that a word is a part of another, and not a mere letter of it.
func within(word, other string) bool { return len(word) > 3 && strings.Contains(other, word) }

func lastPart(name string) string { return name[strings.LastIndexAny(name, "./")+1:] }

// distance is how many bytes to insert, delete or replace make one text of the other (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := diagonal
			if a[i] != b[j] {
				replaced++
			}
			diagonal = row[j+1]
			row[j+1] = min(replaced, diagonal+1, row[j]+1)
		}
	}
	return row[len(b)]
}
