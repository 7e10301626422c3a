// Package near finds the names that somebody may have meant by another one.
package near

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// Names are those that somebody may have meant by another one, at most three, the nearest first: those with a few other letters,
// and those whose last part, behind the package, is the same or a part of the other's.
func Names(name string, names []string) []string {
	const most = 3
	type candidate struct {
		name     string
		distance int
	}
	var found []candidate
	wanted := strings.ToLower(name)
	for _, n := range names {
		other := strings.ToLower(n)
		d := Distance(wanted, other)
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

// Distance is how many bytes to insert, delete or replace make one text of the other (Levenshtein).
func Distance(a, b string) int {
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

// Choice is the names for a question: "a", "b" or "c", each in quotes.
func Choice(names []string) string {
	var b strings.Builder
	for i, name := range names {
		switch {
		case i == 0:
		case i == len(names)-1:
			b.WriteString(" or ")
		default:
			b.WriteString(", ")
		}
		b.WriteString(strconv.Quote(name))
	}
	return b.String()
}
