// Package redact takes secrets out of text from outside: a server quotes a token that it refuses, an HTTP proxy the password that
// it got.
package redact

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"unicode/utf8"
)

// Mark stands in the place of a secret.
const Mark = "(redacted)"

const (
	// Least is the length of the shortest secret, in characters: a shorter one stands in many words, and is no secret.
	Least = 6
	// most is how much of a text is looked at, in bytes: far more than anybody is shown.
	most = 16 << 10
	// generations is how many values of one secret are known, the present one included: an answer can quote one that was
	// sent before the latest rotation.
	generations = 4
)

// Secrets are those that the process knows. The zero value knows none, and so does nil. It is safe for concurrent use.
type Secrets struct {
	outer *Secrets // whose secrets are taken out, too; nil is none

	mu    sync.Mutex
	known map[string][]string // by where they come from, the latest last
	forms atomic.Pointer[[]form]

	public atomic.Pointer[[]string]
}

// form is one way in which a secret can be written, escapes aside.
type form struct {
	text string
	back []int32 // of Knuth, Morris and Pratt: for each length matched, how much of it also matches further on
	part int     // the least length that shows, before a cut, that the rest was cut off
}

// Within returns Secrets of a part of the process, such as one of many upstreams. It takes out those of s as well; s does not take out those of
// the part: each upstream may have secrets of its own, and knows those of no other.
func (s *Secrets) Within() *Secrets { return &Secrets{outer: s} }

// Set makes the secrets of a source known, such as the value of a header. Those that it had before are still taken out.
func (s *Secrets) Set(source string, secrets ...string) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	added := false
	for _, secret := range secrets {
		all := s.known[source]
		at := slices.Index(all, secret)
		if utf8.RuneCountInString(secret) < Least || at >= 0 && at >= len(all)-len(secrets) {
			continue
		}
		if at >= 0 { // it is the latest again
			all = slices.Delete(all, at, at+1)
		}
		if s.known == nil {
			s.known = make(map[string][]string)
		}
		s.known[source] = append(all, secret)
		added = true
	}
	if !added {
		return
	}
	if all, keep := s.known[source], generations*max(1, len(secrets)); len(all) > keep {
		s.known[source] = slices.Clone(all[len(all)-keep:])
	}
	seen := make(map[string]bool)
	var forms []form
	for _, secrets := range s.known {
		for _, secret := range secrets {
			for _, text := range written(secret) {
				if len(text) >= Least && !seen[text] {
					seen[text] = true
					forms = append(forms, newForm(text))
				}
			}
		}
	}
	s.forms.Store(&forms)
}

// Public replaces the names that are no secrets, such as that of a service: a secret that is a part of one of them is not taken out
// of it.
func (s *Secrets) Public(names ...string) {
	if s == nil {
		return
	}
	public := make([]string, 0, 2) // of most upstreams: their address with and without the port
	for _, name := range names {
		if len(name) >= Least && !slices.Contains(public, name) {
			public = append(public, name)
		}
	}
	s.public.Store(&public)
}

func newForm(text string) form {
	f := form{text: text, back: make([]int32, len(text)), part: min(8, (len(text)+1)/2)}
	if space := strings.IndexByte(text, ' '); space >= 0 { // "Bearer" alone is no part of a secret
		f.part = max(f.part, space+1+Least)
	}
	for i, k := 1, int32(0); i < len(text); i++ {
		for k > 0 && text[i] != text[k] {
			k = f.back[k-1]
		}
		if text[i] == text[k] {
			k++
		}
		f.back[i] = k
	}
	return f
}

// span is a part of a text, from its first byte to the one behind its last.
type span struct{ from, to int }

// Text returns the text with each secret in it replaced by Mark. Secrets that overlap in it, or lie in one another, become one
// Mark: nothing of any of them is left. A text longer than 16 KiB is cut there, with no part of a secret at its end.
func (s *Secrets) Text(text string) string {
	var forms []form
	var public []string
	for ; s != nil; s = s.outer {
		if own := s.forms.Load(); own != nil {
			forms = append(forms[:len(forms):len(forms)], *own...)
		}
		if own := s.public.Load(); own != nil {
			public = append(public[:len(public):len(public)], *own...)
		}
	}
	if len(forms) == 0 {
		return text
	}
	seen, end, cut := text, len(text), ""
	if len(text) > most {
		longest := 0
		for _, f := range forms {
			longest = max(longest, len(f.text))
		}
		// With escapes a secret is longer than its form.
		seen, end, cut = text[:min(len(text), most+6*longest)], most, "…"
		for end > most-utf8.UTFMax && !utf8.RuneStart(text[end]) {
			end--
		}
	}
	known := spansOf(seen, Mark, nil) // in a mark nothing is looked for
	for _, name := range public {
		known = spansOf(seen, name, known)
	}
	var found []span
	for _, v := range views(seen) {
		first := len(found)
		for _, f := range forms {
			found = f.find(v.text, found)
		}
		for i := range found[first:] {
			found[first+i] = v.span(found[first+i])
		}
	}
	found = slices.DeleteFunc(found, func(f span) bool {
		return f.from >= end || slices.ContainsFunc(known, func(k span) bool { return k.from <= f.from && f.to <= k.to })
	})
	if len(found) == 0 {
		return text[:end] + cut
	}
	slices.SortFunc(found, func(a, b span) int { return cmp.Or(a.from-b.from, b.to-a.to) })
	var b strings.Builder
	done := 0
	for i := 0; i < len(found); {
		whole := found[i]
		for i++; i < len(found) && found[i].from < whole.to; i++ {
			whole.to = max(whole.to, found[i].to)
		}
		b.WriteString(text[done:whole.from])
		b.WriteString(Mark)
		done = whole.to
	}
	if done < end {
		b.WriteString(text[done:end])
	}
	return b.String() + cut
}

// spansOf adds where the text has a part.
func spansOf(text, part string, found []span) []span {
	for from := 0; ; {
		i := strings.Index(text[from:], part)
		if i < 0 {
			return found
		}
		found = append(found, span{from + i, from + i + len(part)})
		from += i + len(part)
	}
}

// find adds where the text has the form, and where it has the beginning of it before a cut.
func (f *form) find(text string, found []span) []span {
	first := len(found)
	add := func(from, to int) {
		if last := len(found) - 1; last >= first && from < found[last].to {
			found[last].from = min(from, found[last].from)
			found[last].to = to
			return
		}
		found = append(found, span{from, to})
	}
	k := 0 // so many bytes of the form end here
	for i := 0; i < len(text); i++ {
		if k == 0 { // nothing has begun: a quick look for where something can begin
			next := strings.IndexByte(text[i:], f.text[0])
			if next < 0 {
				return found
			}
			i += next
		}
		if k > 0 && k >= f.atCut(text[i:]) {
			add(i-k, i)
		}
		for k > 0 && text[i] != f.text[k] {
			k = int(f.back[k-1])
		}
		if text[i] == f.text[k] {
			k++
		}
		if k == len(f.text) {
			add(i+1-k, i+1)
			k = int(f.back[k-1])
		}
	}
	if k >= f.part {
		add(len(text)-k, len(text))
	}
	return found
}

// atCut is the least length of a beginning of the form that must not stand before the rest of a text: where that is the mark of
// a cut, or the quote behind a text that was cut without one.
func (f *form) atCut(rest string) int {
	const few = 3
	switch {
	case rest[0] == '"':
		return f.part
	case strings.HasPrefix(rest, "…"), strings.HasPrefix(rest, "..."):
		return few
	}
	return len(f.text)
}
