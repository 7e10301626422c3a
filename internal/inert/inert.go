// Package inert makes text from outside safe to read: a name, a message of a peer, a field of a certificate. What a terminal, a
// log viewer or a browser would obey, or a person would not see, is shown as an escape: control and format characters, line and
// paragraph separators (Unicode Cc, Cf, Zl, Zp), other characters without a width, and bytes that are not UTF-8.
//
// A text that is inert already stays as it is, so that every way out can ask for it again.
package inert

import (
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Most is the length of the longest text, in bytes, the mark that it was cut included.
const Most = 1 << 10

// mark ends a text that was cut.
const mark = "… (cut)"

// Text is a text from outside with what is not inert escaped, cut at Most.
func Text(text string) string { return cut(text, Most) }

// cut is the text with what is not inert escaped, and no longer than most bytes. It looks at no more of the text than that.
func cut(text string, most int) string {
	if len(text) <= most && isInert(text) {
		return text
	}
	var b strings.Builder
	whole := 0 // the length at the last border with room for the mark
	for i := 0; i < len(text); {
		shown, size := next(text[i:])
		if b.Len()+len(shown) > most {
			return b.String()[:whole] + mark[:min(len(mark), max(0, most-whole))]
		}
		b.WriteString(shown)
		if b.Len() <= most-len(mark) {
			whole = b.Len()
		}
		i += size
	}
	return b.String()
}

// isInert says that nothing of the text needs an escape.
func isInert(text string) bool {
	for i := 0; i < len(text); {
		if c := text[i]; ' ' <= c && c <= '~' {
			i++
			continue
		}
		r, size := utf8.DecodeRuneInString(text[i:])
		if r == utf8.RuneError && size == 1 || active(r) {
			return false
		}
		i += size
	}
	return true
}

// next is how the first character of a text is shown, and how many bytes it has.
func next(text string) (shown string, size int) {
	r, size := utf8.DecodeRuneInString(text)
	switch {
	case r == utf8.RuneError && size == 1:
		return fmt.Sprintf(`\x%02x`, text[0]), 1
	case !active(r):
		return text[:size], size
	case r == '\n':
		return `\n`, size
	case r == '\r':
		return `\r`, size
	case r == '\t':
		return `\t`, size
	case r < utf8.RuneSelf:
		return fmt.Sprintf(`\x%02x`, r), size
	case r <= 0xffff:
		return fmt.Sprintf(`\u%04x`, r), size
	}
	return fmt.Sprintf(`\U%08x`, r), size
}

// active says that a character does something, or cannot be seen.
func active(r rune) bool {
	if r < utf8.RuneSelf {
		return r < ' ' || r == 0x7f
	}
	return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}

// lines is the text of any length with what is not inert escaped, line breaks aside.
func lines(text string) string {
	if isInert(text) {
		return text
	}
	var b strings.Builder
	for i := 0; i < len(text); {
		shown, size := next(text[i:])
		if text[i] == '\n' {
			shown = "\n"
		}
		b.WriteString(shown)
		i += size
	}
	return b.String()
}

// Writer returns a writer for what a command tells people. It escapes what is not inert, line breaks aside, and bounds nothing.
// A character must not be spread over two writes.
func Writer(w io.Writer) io.Writer { return writer{w} }

type writer struct{ io.Writer }

func (w writer) Write(p []byte) (int, error) {
	if _, err := io.WriteString(w.Writer, lines(string(p))); err != nil {
		return 0, err
	}
	return len(p), nil
}
