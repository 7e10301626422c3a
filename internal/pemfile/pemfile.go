// Package pemfile reads PEM as people have it, and says what it could not read.
//
// encoding/pem passes over a block in silence that it does not like. Here such a block is either taken or reported. Taken are:
// byte order marks, line ends of every kind and line breaks written as \n, blanks around lines, text and comments between
// blocks, and a BEGIN line right behind an END line. A block that is not whole, or whose lines are not those of a block, is
// a Block with a Fault.
//
// No text of the package's results comes from a block's content.
package pemfile

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"fmt"
	"strings"
	"unicode"
)

// Block is one PEM block.
type Block struct {
	// Number is the block's place in the text; 1 is the first.
	Number int
	// Type is the label of the BEGIN line, "CERTIFICATE"; empty where the text has none that could be one.
	Type string
	// Encrypted says that a header marks the content as encrypted (RFC 1421, section 4.6.1.1).
	Encrypted bool
	// Bytes is the content; nil where there is a Fault.
	Bytes []byte
	// Fault says why the block is damaged, "it has no END line"; empty for one that is whole.
	Fault string
}

// String names the block, "block 2 (X509 CRL)".
func (b Block) String() string {
	if b.Type == "" {
		return fmt.Sprintf("block %d", b.Number)
	}
	return fmt.Sprintf("block %d (%s)", b.Number, b.Type)
}

// Begins says whether a text has a line that could begin a block: it is PEM text then, and no path.
func Begins(text string) bool { return strings.Contains(text, "-----BEGIN ") }

// Blocks finds the blocks of a text.
func Blocks(text []byte) []Block {
	s := scanner{}
	for line := range lines(text) {
		s.line(line)
	}
	if s.open != nil {
		s.close("it has no END line")
	}
	return s.blocks
}

// lines yields the lines of a text without the blanks around them.
func lines(text []byte) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		t := string(text)
		if strings.Contains(t, `-----\n`) || strings.Contains(t, `-----\r\n`) {
			// As a JSON string, or an environment variable that was written in one line. No PEM has a backslash.
			t = strings.NewReplacer(`\r`, "\n", `\n`, "\n").Replace(t)
		}
		// Files that did not end with a line break, one behind the other.
		t = strings.ReplaceAll(t, "----------BEGIN ", "-----\n-----BEGIN ")
		for line := range strings.FieldsFuncSeq(t, func(r rune) bool { return r == '\n' || r == '\r' }) {
			if !yield(strings.TrimFunc(line, blank)) {
				return
			}
		}
	}
}

// blank says whether a character is white space, or one that cannot be seen: a byte order mark, or one of those that
// editors and web pages leave.
func blank(r rune) bool {
	return unicode.IsSpace(r) || r == '\uFEFF' || '\u200B' <= r && r <= '\u200F' || r == 0x1A /* the end of a text in DOS */
}

// scanner finds blocks.
type scanner struct {
	blocks []Block
	open   *Block // nil between two blocks
	exact  bool   // the open block's BEGIN line is as it has to be
	body   strings.Builder
	header bool // the open block's headers may still go on
}

func (s *scanner) line(line string) {
	switch word, label, exact := boundary(line); {
	case word == "BEGIN":
		if s.open != nil && (s.exact || s.body.Len() > 0) {
			s.close("it has no END line")
		}
		s.begin(label, exact)
	case word == "END" && s.open != nil:
		s.end(label, exact)
	case word == "END" && exact:
		s.begin(label, true)
		s.close("it has no BEGIN line")
	case s.open != nil:
		s.content(line)
	case strings.HasSuffix(line, "-----") || strings.Contains(line, "----- "):
		s.quoted(line)
	}
}

func (s *scanner) begin(label string, exact bool) {
	s.open, s.exact, s.header = &Block{Number: len(s.blocks) + 1}, exact, true
	if known := shown(label); known {
		s.open.Type = strings.ToUpper(label)
	}
	s.body.Reset()
}

// end ends the open block with its END line.
func (s *scanner) end(label string, exact bool) {
	const dashes = " line is not as it must be: five hyphens, the word and the label in capitals, five hyphens"
	switch {
	case s.open.Fault != "":
		s.close("")
	case !s.exact && s.body.Len() == 0:
		s.open = nil // two lines of decoration
	case !s.exact:
		s.close("its BEGIN" + dashes)
	case !exact:
		s.close("its END" + dashes)
	case !strings.EqualFold(label, s.open.Type) && s.open.Type != "":
		s.close("its END line has another label than its BEGIN line")
	default:
		s.whole()
	}
}

// whole decodes the open block.
func (s *scanner) whole() {
	if strings.HasPrefix(s.open.Type, "PGP ") { // its base64 has a checksum behind it
		s.close("it is one of PGP, which is not for TLS")
		return
	}
	content, err := base64.StdEncoding.DecodeString(s.body.String())
	switch {
	case err != nil:
		s.close("its base64 is damaged")
	case len(content) == 0:
		s.close("it is empty")
	default:
		s.open.Bytes = content
		s.close("")
	}
}

func (s *scanner) close(fault string) {
	s.open.Fault = cmp.Or(s.open.Fault, fault) // what was found first
	s.blocks = append(s.blocks, *s.open)
	s.open = nil
}

// content takes a line of the open block: a header, or base64.
func (s *scanner) content(line string) {
	if name, value, found := strings.Cut(line, ":"); found && s.header {
		if name == "Proc-Type" && strings.Contains(value, "ENCRYPTED") {
			s.open.Encrypted = true
		}
		return
	}
	s.header = false
	for part := range strings.FieldsFuncSeq(line, blank) {
		s.body.WriteString(part)
	}
}

// quoted is a line between two blocks that may be a BEGIN line with something before or behind it. Comments are text.
func (s *scanner) quoted(line string) {
	before, after, found := strings.Cut(line, "-----BEGIN ")
	label, rest, closed := strings.Cut(after, "-----")
	if !found || !closed || !shown(label) || strings.HasPrefix(before, "#") || strings.HasPrefix(before, ";") || strings.HasPrefix(before, "//") {
		return
	}
	switch {
	case before == "": // boundary knows it without the rest
		s.begin(label, true)
		s.open.Fault = "it has no line break behind its BEGIN line"
	case rest == "":
		s.begin(label, true)
		s.open.Fault = "there is other text before its BEGIN line: begin the line with the five hyphens, without quotes"
	}
}

// boundary reads a BEGIN or END line. exact says that it is as RFC 7468, section 3, has it. A line that is not is one
// all the same where it has hyphens or dashes on both sides and a label that is known.
func boundary(line string) (word, label string, exact bool) {
	for _, word := range []string{"BEGIN", "END"} {
		label, begins := strings.CutPrefix(line, "-----"+word+" ")
		label, ends := strings.CutSuffix(label, "-----")
		if begins && ends && !strings.Contains(label, "--") && !strings.HasPrefix(label, "-") && !strings.HasSuffix(label, "-") {
			return word, label, true
		}
	}
	if first, _ := cutDash(line); !first {
		return "", "", false
	}
	word, label, _ = strings.Cut(strings.TrimFunc(line, func(r rune) bool { return dash(r) || blank(r) }), " ")
	word, label = strings.ToUpper(word), strings.TrimFunc(label, blank)
	if word != "BEGIN" && word != "END" || !known[strings.ToUpper(label)] {
		return "", "", false
	}
	return word, label, false
}

func cutDash(line string) (dashed bool, rest string) {
	for i, r := range line {
		if i == 0 && !dash(r) {
			return false, line
		}
		if !dash(r) {
			return true, line[i:]
		}
	}
	return false, line
}

// dash says whether a character is a hyphen, or one of the dashes that word processors make of several.
func dash(r rune) bool { return r == '-' || '\u2010' <= r && r <= '\u2015' || r == '\u2212' }

// shown says whether a label can be shown: it has only capitals, digits and spaces, and is short.
func shown(label string) bool {
	return label != "" && len(label) <= 40 && !strings.ContainsFunc(label, func(r rune) bool {
		return !('A' <= r && r <= 'Z' || 'a' <= r && r <= 'z' || '0' <= r && r <= '9' || r == ' ')
	})
}

// known are labels of blocks that files for TLS have.
var known = map[string]bool{
	"CERTIFICATE": true, "X509 CERTIFICATE": true, "TRUSTED CERTIFICATE": true,
	"CERTIFICATE REQUEST": true, "NEW CERTIFICATE REQUEST": true, "X509 CRL": true, "PKCS7": true, "CMS": true,
	"PRIVATE KEY": true, "ENCRYPTED PRIVATE KEY": true, "RSA PRIVATE KEY": true, "EC PRIVATE KEY": true, "DSA PRIVATE KEY": true,
	"OPENSSH PRIVATE KEY": true, "PUBLIC KEY": true, "RSA PUBLIC KEY": true, "EC PARAMETERS": true, "DH PARAMETERS": true,
}

// base64Begin is how the base64 of "-----BEGIN " begins.
const base64Begin = "LS0tLS1CRUdJTi"

// Base64 says whether a text is the base64 of PEM text, as the data of a Kubernetes Secret.
func Base64(text string) bool { return strings.HasPrefix(strings.TrimFunc(text, blank), base64Begin) }

// Foreign says what a content is that holds no block, "it is empty"; empty where that is not known.
func Foreign(content []byte) string {
	text := strings.TrimFunc(string(content), blank)
	has := func(prefix string) bool { return bytes.HasPrefix(content, []byte(prefix)) }
	begins := func(prefix string) bool {
		return len(text) >= len(prefix) && strings.EqualFold(text[:len(prefix)], prefix)
	}
	switch {
	case text == "":
		return "it is empty"
	case has("\xFF\xFE"), has("\xFE\xFF"), bytes.IndexByte(content[:min(len(content), 4)], 0) >= 0 && has("-"), has("\x00-"):
		return "it is text in UTF-16: save it as UTF-8"
	case has("\xFE\xED\xFE\xED"), has("\xCE\xCE\xCE\xCE"):
		return "it is a Java key store: export what is needed from it as PEM"
	case has("\x1F\x8B"), has("PK\x03\x04"), has("BZh"), has("\xFD7zXZ"), has("\x28\xB5\x2F\xFD"):
		return "it is compressed, or an archive: unpack it first"
	case Base64(text):
		return "it is PEM in base64, as the data of a Kubernetes Secret: decode it first"
	case begins("MII"):
		return "it is base64 without a BEGIN and an END line"
	case begins("version https://git-lfs"):
		return "it is a pointer of Git LFS, not the file that this stands for: fetch that with git lfs pull"
	case begins("$ANSIBLE_VAULT"):
		return "it is encrypted with Ansible Vault: decrypt it first"
	case begins("PuTTY-User-Key-File"):
		return "it is a key in PuTTY's format"
	case begins("ssh-"), begins("ecdsa-sha2-"), begins("---- BEGIN SSH2"):
		return "it is a public key of SSH"
	case begins("<"):
		return "it is HTML or XML, such as the error page of a download"
	case begins("{"), begins("["):
		return "it is JSON"
	case begins("Certificate:"):
		return "it describes a certificate in words, and does not hold it"
	}
	return binary(content)
}
