package settings

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// textFault says which characters a value has that nobody meant: quotes that were kept by what passed the value on, a line break,
// or another character that a person does not see. It returns "" if there are none. White space around a value is dropped
// before. Of free text, such as a user agent, one quote may be a part.
func textFault(text string, free bool) string {
	if text == "" {
		return ""
	}
	first, _ := utf8.DecodeRuneInString(text)
	last, _ := utf8.DecodeLastRuneInString(text)
	quoted := isQuote(first) && isQuote(last)
	for _, ending := range []string{`\n`, `\r`} {
		if !free && strings.HasSuffix(text, ending) {
			return "ends in a line break that is written as " + ending + ": write it without"
		}
	}
	switch fault := invisible(text); {
	case fault != "":
		return fault
	case quoted && len(text) > 1:
		return "is in quotes, which are part of the value here: write it without them"
	case !free && isQuote(first):
		return "begins with a quote, which is part of the value here: write it without"
	case !free && isQuote(last):
		return "ends in a quote, which is part of the value here: write it without"
	}
	return ""
}

// invisible names the first character that a person does not see, or takes for a space, with its place. It returns "" if there is
// none. What is not UTF-8 counts as such a character.
func invisible(text string) string {
	place := 0
	for i, c := range text {
		place++
		if ' ' <= c && c <= '~' {
			continue
		}
		if c == utf8.RuneError {
			if _, size := utf8.DecodeRuneInString(text[i:]); size == 1 {
				return fmt.Sprintf("has a byte that is not UTF-8, as character %d: write it without", place)
			}
		}
		if what := nameInvisible(c); what != "" {
			return fmt.Sprintf("has %s (U+%04X), as character %d: write it without", what, c, place)
		}
	}
	return ""
}

// nameInvisible says what an invisible character is, or returns "".
func nameInvisible(c rune) string {
	switch c {
	case '\n', '\r', '\u2028', '\u2029':
		return "a line break"
	case '\t':
		return "a tab"
	case '\u00a0', '\u2007', '\u202f':
		return "a no-break space"
	case '\u200b', '\u200c', '\u200d', '\u2060':
		return "a zero-width character"
	case '\ufeff':
		return "a byte order mark"
	}
	switch {
	case c == ' ':
		return ""
	case unicode.IsControl(c):
		return "a control character"
	case unicode.Is(unicode.Zs, c):
		return "a space of another kind"
	case unicode.Is(unicode.Cf, c), unicode.In(c, unicode.Variation_Selector, unicode.Other_Default_Ignorable_Code_Point):
		return "an invisible character"
	}
	return ""
}

// isQuote reports whether a character is a quote: one of ASCII, or one that word processors and chat programs put in its place.
func isQuote(c rune) bool {
	return c == '"' || c == '\'' || c == '`' || unicode.Is(unicode.Pi, c) || unicode.Is(unicode.Pf, c) || c == '„' || c == '‚'
}

// wordFault says why a text is not a word of printable ASCII, or returns "".
func wordFault(text string) string {
	switch {
	case strings.Contains(text, " "):
		return "has a space"
	case !printable(text):
		return "has a character that is not printable ASCII"
	}
	return ""
}
