package redact

import (
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// view is a text as somebody reads it who takes escapes for what they stand for: a server that quotes what it got escapes more
// than it has to, each language in its own way.
type view struct {
	text string
	at   []int32 // where each byte of text begins in the escaped text, and where that ends; nil where nothing was escaped
}

// place is where a byte of the view stands in the escaped text.
func (v view) place(i int) int32 {
	if v.at == nil {
		return int32(i)
	}
	return v.at[i]
}

// span is where a part of the view stands in the escaped text.
func (v view) span(s span) span { return span{int(v.place(s.from)), int(v.place(s.to))} }

// views are the ways to read a text: as it is, as a string in quotes, as a part of a URL or of HTML, and what programs that pass
// messages on make of these.
func views(text string) []view {
	all := []view{{text: text}}
	add := func(to view, readers ...reader) {
		for _, r := range readers {
			var changed bool
			if to, changed = r.read(to); !changed {
				return
			}
		}
		all = append(all, to)
	}
	plain := all[0]
	for _, readers := range [][]reader{
		{quoted}, {quoted, quoted}, {quoted, quoted, quoted}, {inURL}, {inURL, inURL}, {inURL, quoted}, {quoted, inURL}, {inHTML}, {inHTML, quoted}, {quoted, inHTML},
	} {
		add(plain, readers...)
	}
	return all
}

// reader takes one kind of escapes for what they stand for.
type reader struct {
	begins byte
	// one says how many bytes an escape at the beginning of a text has, 0 where there is none, and what it stands for.
	one func(text string) (size int, meant string)
}

// read is the view without the escapes, and says whether there was any.
func (r reader) read(v view) (read view, changed bool) {
	if strings.IndexByte(v.text, r.begins) < 0 {
		return v, false
	}
	var b strings.Builder
	b.Grow(len(v.text))
	at := make([]int32, 0, len(v.text)+1)
	for i := 0; i < len(v.text); {
		size, meant := 0, ""
		if v.text[i] == r.begins {
			size, meant = r.one(v.text[i:])
		}
		if size == 0 {
			size, meant = 1, v.text[i:i+1]
		} else {
			changed = true
		}
		b.WriteString(meant)
		for range len(meant) {
			at = append(at, v.place(i))
		}
		i += size
	}
	return view{b.String(), append(at, v.place(len(v.text)))}, changed
}

// quoted reads what stands behind a backslash, in the languages that have it. Where two languages differ, it is Go's.
var quoted = reader{'\\', func(text string) (int, string) {
	if len(text) < 2 {
		return 0, ""
	}
	if i := strings.IndexByte("abfnrtve", text[1]); i >= 0 {
		return 2, "\a\b\f\n\r\t\v\x1b"[i : i+1]
	}
	switch text[1] {
	case 'x':
		if n, ok := number(text, 2, 2, 16); ok {
			return 4, string([]byte{byte(n)})
		}
	case 'u':
		high, ok := number(text, 2, 4, 16)
		if !ok {
			break
		}
		if low, ok := number(text, 8, 4, 16); ok && utf16.IsSurrogate(high) && text[6:8] == `\u` {
			if r := utf16.DecodeRune(high, low); r != utf8.RuneError {
				return 12, string(r)
			}
		}
		return 6, string(high)
	case 'U':
		if n, ok := number(text, 2, 8, 16); ok {
			return 10, string(n)
		}
	case '0', '1', '2', '3':
		if n, ok := number(text, 1, 3, 8); ok {
			return 4, string([]byte{byte(n)})
		}
	}
	return 2, text[1:2]
}}

// inURL reads percent escapes (RFC 3986, section 2.1).
var inURL = reader{'%', func(text string) (int, string) {
	n, ok := number(text, 1, 2, 16)
	if !ok {
		return 0, ""
	}
	return 3, string([]byte{byte(n)})
}}

// entities are those of HTML and XML for what has a meaning there.
var entities = map[string]string{"amp": "&", "lt": "<", "gt": ">", "quot": `"`, "apos": "'"}

// inHTML reads the references to characters that programs write: those above, and numbers.
var inHTML = reader{'&', func(text string) (int, string) {
	end := strings.IndexByte(text[:min(len(text), len("&#1114111;"))], ';')
	if end < 0 {
		return 0, ""
	}
	name := text[1:end]
	if meant, ok := entities[name]; ok {
		return end + 1, meant
	}
	digits, ok := strings.CutPrefix(name, "#")
	base := 10
	if hex := strings.TrimLeft(digits, "xX"); ok && len(hex) == len(digits)-1 {
		digits, base = hex, 16
	}
	if n, ok := number(digits, 0, len(digits), base); ok && strings.HasPrefix(name, "#") {
		return end + 1, string(n)
	}
	return 0, ""
}}

// number reads digits.
func number(text string, from, digits, base int) (rune, bool) {
	if len(text) < from+digits {
		return 0, false
	}
	n, err := strconv.ParseUint(text[from:from+digits], base, 31)
	return rune(n), err == nil
}
