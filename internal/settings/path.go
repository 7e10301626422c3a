package settings

import (
	"path"
	"slices"
	"strings"
)

const (
	// longestPath is the length of the longest path that is shown, in bytes.
	longestPath = 255
	// randomFrom is how many letters and digits it takes to tell random text from a name.
	randomFrom = 12
	// randomRun is the mean length of a run of letters of one case, or of digits, below which text is random. A capital belongs to the
	// small letters after it.
	randomRun = 4
	// longestWord is the length of the longest run of letters and digits that is no key.
	longestWord = 40
)

// pathExtensions are those of files that hold certificates, keys and tokens, and of what holds settings.
var pathExtensions = []string{".pem", ".crt", ".cer", ".cert", ".key", ".token", ".txt", ".json", ".yaml", ".yml", ".log", ".sock"}

// PathForm reports whether a value has the form of a path, so that a message may show it. Secrets are written by mistake where
// a path belongs, and no message may show one. The form is that of printable ASCII without spaces, of 255 bytes at most, which
// is absolute or begins with ./ or ../, with two names at least, or has the extension of such a file; nothing in it looks random,
// as a key in Base64 or a token does. The file system is not asked: a message must not wait for it.
func PathForm(value string) bool {
	if value == "" || len(value) > longestPath || !word(value) || strings.ContainsAny(value, `"'<>|=+;,&%$!*?{}[]()`+"`") {
		return false
	}
	slashed := strings.ReplaceAll(value, `\`, "/")
	parts := strings.Split(slashed, "/")
	names := slices.DeleteFunc(slices.Clone(parts[1:]), func(part string) bool { return part == "" || part == "." || part == ".." })
	drive := len(parts[0]) == 2 && parts[0][1] == ':' // of Windows
	rooted := parts[0] == "" || parts[0] == "." || parts[0] == ".." || drive
	if !slices.Contains(pathExtensions, strings.ToLower(path.Ext(slashed))) && (!rooted || len(names) < 2) {
		return false
	}
	return !slices.ContainsFunc(append(parts, slashed), random)
}

// random reports whether text looks as if nobody had chosen it.
func random(text string) bool {
	const none, small, capital, digit = 0, 1, 2, 3
	chars, runs, word, longest, last := 0, 0, 0, 0, none
	for _, c := range []byte(text) {
		class := none
		switch {
		case c >= 'a' && c <= 'z':
			class = small
		case c >= 'A' && c <= 'Z':
			class = capital
		case c >= '0' && c <= '9':
			class = digit
		}
		if class == none {
			word = 0
		} else {
			chars++
			word++
			longest = max(longest, word)
		}
		if class != none && last != none && class != last && !(last == capital && class == small) {
			runs++
		}
		last = class
	}
	return longest > longestWord || chars >= randomFrom && runs*randomRun >= chars
}
