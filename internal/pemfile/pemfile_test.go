package pemfile

import (
	"bytes"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"
	"unicode/utf16"
)

func encoded(kind, content string) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: []byte(content)}))
}

// summary is what Blocks found: "TYPE=content", or "TYPE!fault".
func summary(text string) (found []string) {
	for i, b := range Blocks([]byte(text)) {
		if b.Number != i+1 || (b.Bytes == nil) != (b.Fault != "") {
			return []string{fmt.Sprintf("inconsistent: %+v", b)}
		}
		if b.Fault != "" {
			found = append(found, b.Type+"!"+b.Fault)
		} else {
			found = append(found, b.Type+"="+string(b.Bytes))
		}
	}
	return found
}

// What encoding/pem passes over in silence, and openssl or people take for PEM.
func TestTaken(t *testing.T) {
	t.Parallel()
	one := encoded("CERTIFICATE", strings.Repeat("first ", 20))
	two := encoded("X509 CERTIFICATE", strings.Repeat("second ", 20))
	want := summary(one + two)
	if len(want) != 2 {
		t.Fatalf("two blocks give %q", want)
	}
	lines := func(change func(line string) string) string {
		var b strings.Builder
		for line := range strings.Lines(one + two) {
			b.WriteString(change(strings.TrimSuffix(line, "\n")))
		}
		return b.String()
	}
	for name, text := range map[string]string{
		"a byte order mark":                   "\uFEFF" + one + two,
		"one before each file that was added": "\uFEFF" + one + "\uFEFF" + two,
		"CRLF":                                lines(func(l string) string { return l + "\r\n" }),
		"CR":                                  lines(func(l string) string { return l + "\r" }),
		"LF CR":                               lines(func(l string) string { return l + "\n\r" }),
		"both in one file":                    strings.ReplaceAll(one, "\n", "\r\n") + two,
		"indented":                            lines(func(l string) string { return "    " + l + "\n" }),
		"indented with tabs":                  lines(func(l string) string { return "\t" + l + "\n" }),
		"with no-break spaces":                lines(func(l string) string { return "\u00A0" + l + "\u00A0\n" }),
		"the second one indented":             one + "  " + strings.ReplaceAll(two, "\n", "\n  "),
		"blanks at the ends of lines":         lines(func(l string) string { return l + " \t\n" }),
		"zero-width spaces":                   lines(func(l string) string { return "\u200B" + l + "\n" }),
		"blank lines":                         lines(func(l string) string { return l + "\n\n" }),
		"no line break between two blocks":    strings.TrimSpace(one) + two,
		"no line break at the end":            one + strings.TrimSpace(two),
		"the end mark of DOS":                 one + two + "\x1a",
		"text between them":                   "subject=CN = a\nissuer=CN = b\n" + one + "\n# the next one: expires soon\n" + two + "bye\n",
		"bag attributes":                      "Bag Attributes\n    localKeyID: 01 02\n    friendlyName: a-b -----\n" + one + two,
		"openssl's description":               "Certificate:\n    Data:\n        Version: 3 (0x2)\n" + one + two,
		"a block that is commented out":       one + "# " + strings.ReplaceAll(one, "\n", "\n# ") + "\n" + two,
		"decoration":                          "--- BEGIN CERTIFICATE ---\n" + one + "----- END CERTIFICATE -----\n" + two,
		`line breaks written as \n`:           strings.ReplaceAll(one+two, "\n", `\n`),
		`line breaks written as \r\n`:         strings.ReplaceAll(one+two, "\n", `\r\n`),
		"a label in small letters":            strings.ReplaceAll(one, "CERTIFICATE", "certificate") + two,
		"headers":                             strings.Replace(one, "-----\n", "-----\nfriendlyName: mine\n\n", 1) + two,
		"short lines":                         strings.Replace(one, "\n", "\nZm", 1)[:0] + short(one) + short(two),
	} {
		if got := summary(text); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

// short breaks the base64 of a block into lines of 7.
func short(block string) string {
	var b strings.Builder
	for line := range strings.Lines(block) {
		for line = strings.TrimSpace(line); len(line) > 7 && line[0] != '-'; line = line[7:] {
			b.WriteString(line[:7] + "\n")
		}
		b.WriteString(line + "\n")
	}
	return b.String()
}

func TestDamaged(t *testing.T) {
	t.Parallel()
	one := encoded("CERTIFICATE", strings.Repeat("first ", 20))
	const taken = "CERTIFICATE=" + "first first first first first first first first first first first first first first first first first first first first "
	replaced := func(old, with string) string { return strings.Replace(one, old, with, 1) }
	for _, test := range []struct {
		name, text string
		want       []string
	}{
		{"no END line", one[:100], []string{"CERTIFICATE!it has no END line"}},
		{"no END line before another block", one[:100] + "\n" + one, []string{"CERTIFICATE!it has no END line", taken}},
		{"half an END line", one[:len(one)-10], []string{"CERTIFICATE!it has no END line"}},
		{"no BEGIN line", one[len("-----BEGIN CERTIFICATE-----\n"):] + one, []string{"CERTIFICATE!it has no BEGIN line", taken}},
		{"another label", replaced("-----END CERTIFICATE", "-----END X509 CRL"), []string{"CERTIFICATE!its END line has another label than its BEGIN line"}},
		{"four hyphens", replaced("-----BEGIN", "----BEGIN"), []string{"CERTIFICATE!its BEGIN line"}},
		{"six hyphens", replaced("-----BEGIN", "------BEGIN"), []string{"CERTIFICATE!its BEGIN line"}},
		{"three behind", replaced("CERTIFICATE-----", "CERTIFICATE---"), []string{"CERTIFICATE!its BEGIN line"}},
		{"none behind", replaced("CERTIFICATE-----", "CERTIFICATE"), []string{"CERTIFICATE!its BEGIN line"}},
		{"dashes of a word processor", replaced("-----BEGIN", "——-BEGIN"), []string{"CERTIFICATE!its BEGIN line"}},
		{"a space too many", replaced("-----BEGIN", "----- BEGIN"), []string{"CERTIFICATE!its BEGIN line"}},
		{"Begin", replaced("BEGIN", "Begin"), []string{"CERTIFICATE!its BEGIN line"}},
		{"four hyphens at the end", strings.TrimSuffix(one, "-\n"), []string{"CERTIFICATE!its END line is not"}},
		{"a character that is not base64", replaced("Zmly", "Zm*y"), []string{"CERTIFICATE!its base64 is damaged"}},
		{"one character lost", replaced("Zmly", "Zmy"), []string{"CERTIFICATE!its base64 is damaged"}},
		{"a comment inside", replaced("\n", "\n# inside\n"), []string{"CERTIFICATE!its base64 is damaged"}},
		{"nothing inside", "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n", []string{"CERTIFICATE!it is empty"}},
		{"no line breaks", strings.ReplaceAll(one, "\n", " "), []string{"CERTIFICATE!it has no line break behind its BEGIN line"}},
		{"no line breaks at all", strings.ReplaceAll(one, "\n", ""), []string{"CERTIFICATE!it has no line break behind its BEGIN line"}},
		{"in quotes", `"` + strings.TrimSpace(one) + `"`, []string{"CERTIFICATE!there is other text before its BEGIN line"}},
		{"a line of YAML", "ca: " + one, []string{"CERTIFICATE!there is other text before its BEGIN line"}},
		{"quoted in a mail", "> " + strings.ReplaceAll(one, "\n", "\n> "), []string{"CERTIFICATE!there is other text before its BEGIN line"}},
		{"PGP", "-----BEGIN PGP MESSAGE-----\n\nhQEMA\n=abcd\n-----END PGP MESSAGE-----\n", []string{"PGP MESSAGE!it is one of PGP"}},
		{"a label that is none", "-----BEGIN s3cr3t/s3cr3t+-----\nAAAA\n", []string{"!it has no END line"}},
		{"prose", "Write the -----BEGIN CERTIFICATE----- line first.\n" + one, []string{taken}},
	} {
		got := summary(test.text)
		if len(got) != len(test.want) {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
			continue
		}
		for i := range got {
			if !strings.HasPrefix(got[i], test.want[i]) {
				t.Errorf("%s: %q, want %q", test.name, got[i], test.want[i])
			}
		}
	}
}

func TestEncryptedHeader(t *testing.T) {
	t.Parallel()
	text := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-256-CBC,00"}, Bytes: []byte("content")})
	if b := Blocks(text); len(b) != 1 || !b[0].Encrypted || string(b[0].Bytes) != "content" {
		t.Errorf("%+v, want one block that is encrypted", b)
	}
}

func utf16Text(text string, bom, bigEndian bool) []byte {
	var b bytes.Buffer
	if bom {
		text = "\uFEFF" + text
	}
	for _, unit := range utf16.Encode([]rune(text)) {
		if bigEndian {
			b.Write([]byte{byte(unit >> 8), byte(unit)})
		} else {
			b.Write([]byte{byte(unit), byte(unit >> 8)})
		}
	}
	return b.Bytes()
}

func TestForeign(t *testing.T) {
	t.Parallel()
	one := encoded("CERTIFICATE", strings.Repeat("first ", 20))
	for _, test := range []struct {
		name    string
		content []byte
		want    string
	}{
		{"nothing", nil, "it is empty"},
		{"blanks", []byte(" \r\n\uFEFF"), "it is empty"},
		{"UTF-16, little end first", utf16Text(one, true, false), "UTF-16"},
		{"UTF-16, big end first", utf16Text(one, true, true), "UTF-16"},
		{"UTF-16 without a mark", utf16Text(one, false, false), "UTF-16"},
		{"UTF-16 without a mark, big end first", utf16Text(one, false, true), "UTF-16"},
		{"a Java key store", []byte("\xFE\xED\xFE\xED\x00\x00\x00\x02"), "a Java key store"},
		{"a newer Java key store", []byte("\xCE\xCE\xCE\xCE\x00\x00\x00\x02"), "a Java key store"},
		{"gzip", []byte("\x1F\x8B\x08\x00"), "compressed"},
		{"zip", []byte("PK\x03\x04"), "compressed"},
		{"the data of a Secret", []byte("LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCk1JSUI=\n"), "decode it first"},
		{"bare base64", []byte("MIIBszCCAVmgAwIBAgI=\n"), "without a BEGIN"},
		{"a pointer of Git LFS", []byte("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"), "git lfs pull"},
		{"a vault of Ansible", []byte("$ANSIBLE_VAULT;1.1;AES256\n6162\n"), "Ansible Vault"},
		{"PuTTY", []byte("PuTTY-User-Key-File-3: ssh-ed25519\n"), "PuTTY"},
		{"SSH", []byte("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI me@here\n"), "a public key of SSH"},
		{"HTML", []byte("<!DOCTYPE html>\n<html>"), "HTML"},
		{"HTML in capitals, with a mark", []byte("\uFEFF\n<HTML>"), "HTML"},
		{"JSON", []byte(`{"data": {}}`), "JSON"},
		{"words", []byte("Certificate:\n    Data:\n"), "in words"},
		{"PKCS #12", []byte("\x30\x0b\x02\x01\x03\x30\x06\x06\x01\x2a\x04\x01\x00"), "PKCS #12"},
		{"PKCS #7", []byte("\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02\xa0\x00"), "PKCS #7"},
		{"something", []byte("nonsense"), ""},
		{"half of something", []byte("\x30\x82\x01"), ""},
	} {
		if got := Foreign(test.content); got != test.want && (test.want == "" || !strings.Contains(got, test.want)) {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
}

func FuzzBlocks(f *testing.F) {
	f.Add(encoded("CERTIFICATE", "content"))
	f.Add("----BEGIN \n-----END -----\n-----BEGIN A-----B-----\n")
	f.Add("-----BEGIN A-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END A-----")
	f.Fuzz(func(t *testing.T, text string) {
		summary := summary(text)
		if len(summary) == 1 && strings.HasPrefix(summary[0], "inconsistent") {
			t.Fatal(summary)
		}
		Foreign([]byte(text))
		// All that encoding/pem takes is taken, or reported.
		whole := 0
		for rest := []byte(text); ; whole++ {
			var block *pem.Block
			if block, rest = pem.Decode(rest); block == nil {
				break
			}
		}
		if len(summary) < whole {
			t.Fatalf("%d blocks, encoding/pem has %d", len(summary), whole)
		}
	})
}
