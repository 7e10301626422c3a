package settings

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// parseYAML returns the only document of a file as nodes with their lines. Aliases are not expanded, and what they would become has a bound. The
// problem says why there is no document.
func parseYAML(content []byte) (document *yaml.Node, problem string) {
	const empty = "the file is empty: write targets: and under it a name with addr for each upstream"
	if len(content) > MaxTargetsFile {
		return nil, "the file is larger than 4 MiB: make it smaller, with defaults for what targets have in common, or use several processes"
	}
	if at := notUTF8(content); at >= 0 {
		return nil, fmt.Sprintf("line %d: a byte that is not UTF-8: save the file as UTF-8", lineAt(content, at))
	}
	if at := bytes.IndexFunc(content, func(c rune) bool { return c < ' ' && c != '\t' && c != '\n' && c != '\r' || c == 0x7f }); at >= 0 {
		return nil, fmt.Sprintf("line %d: a control character (U+%04X): the file is no text, or was not written whole", lineAt(content, at), content[at])
	}
	if len(bytes.TrimSpace(content)) == 0 {
		return nil, empty
	}
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	var first, second yaml.Node
	switch err := decode(decoder, &first); {
	case errors.Is(err, io.EOF):
		return nil, empty
	case err != nil:
		return nil, syntaxProblem(content, err)
	}
	switch err := decode(decoder, &second); {
	case err == nil:
		return nil, fmt.Sprintf("line %d: another document begins here: a targets file is one", max(1, second.Line))
	case !errors.Is(err, io.EOF):
		return nil, syntaxProblem(content, err)
	}
	if len(first.Content) != 1 || first.Content[0].Kind == yaml.ScalarNode && first.Content[0].Tag == "!!null" {
		return nil, empty
	}
	e := expansion{sizes: make(map[*yaml.Node]int)}
	e.size(first.Content[0])
	switch {
	case e.cycle != 0:
		return nil, fmt.Sprintf("line %d: an anchor contains itself: write out what is meant", e.cycle)
	case e.added > MaxTargetsFile:
		return nil, fmt.Sprintf("line %d: the aliases would make the file larger than 4 MiB: use defaults for what targets have in common", e.line)
	}
	return first.Content[0], ""
}

// decode reads the next document. The library panics where it meets a fault of its own, and a file must not end the process.
func decode(decoder *yaml.Decoder, into *yaml.Node) (err error) {
	defer func() {
		if recover() != nil {
			err = errors.New("yaml: cannot be read")
		}
	}()
	return decoder.Decode(into)
}

// notUTF8 returns the place of the first byte that is not UTF-8, or -1.
func notUTF8(content []byte) int {
	if utf8.Valid(content) {
		return -1
	}
	for i := 0; i < len(content); {
		r, size := utf8.DecodeRune(content[i:])
		if r == utf8.RuneError && size == 1 {
			return i
		}
		i += size
	}
	return -1
}

func lineAt(content []byte, at int) int { return 1 + bytes.Count(content[:at], []byte("\n")) }

// syntaxProblem says what is wrong with a file that is no YAML. The library's text is shown only where it is constant: it may quote the
// file.
func syntaxProblem(content []byte, err error) string {
	line, text := 1, "cannot be read"
	if failure, ok := errors.AsType[*yaml.LoadError](err); ok {
		line, text = failure.Mark.Line, failure.Message
		if strings.Contains(text, "end of stream") && failure.ContextMark.Line > 0 { // what is not closed begins there
			line = failure.ContextMark.Line
		}
		if failure.ContextMsg != "" {
			text = failure.ContextMsg + ", " + text
		}
	}
	line = max(1, line)
	lines := bytes.Split(content, []byte("\n"))
	for near := line; near <= min(line+1, len(lines)); near++ { // where a tab ends what the line before began
		if l := lines[near-1]; bytes.ContainsRune(l[:len(l)-len(bytes.TrimLeft(l, " \t"))], '\t') {
			return fmt.Sprintf("line %d: is indented with a tab: YAML takes spaces only", near)
		}
	}
	switch {
	case strings.HasPrefix(text, "unknown anchor"):
		text = "an alias has no anchor: a value that begins with * goes in quotes"
	case strings.Contains(text, "exceeded max depth"):
		text = "not YAML that can be read: nested too deeply"
	case strings.HasSuffix(text, "mapping values are not allowed in this context"):
		text = "not YAML: " + text + ": a value with a colon and a space goes in quotes, and keys of one level begin in one column"
	case strings.HasSuffix(text, "did not find expected key"):
		text = "not YAML: " + text + ": keys of one level begin in one column"
	case !regexp.MustCompile(`^[A-Za-z ,'<>:\-\]\[}{.]{1,200}$`).MatchString(text):
		text = "not YAML: a character or a word that has no place here"
	default:
		text = "not YAML: " + text
	}
	return fmt.Sprintf("line %d: %s", line, text)
}

// expansion counts what a document becomes where each alias is replaced with what it stands for.
type expansion struct {
	sizes map[*yaml.Node]int // of anchored nodes, in bytes; -1 while a node is being counted
	added int                // by aliases
	line  int                // of the alias that was one too many
	cycle int                // the line of an alias within its own anchor; else 0
}

// size returns about how many bytes a node becomes, at most MaxTargetsFile+1.
func (e *expansion) size(n *yaml.Node) int {
	if n.Kind == yaml.AliasNode {
		size, counted := e.sizes[n.Alias]
		if !counted {
			size = e.size(n.Alias)
		}
		if size < 0 {
			e.cycle = n.Line
			return 0
		}
		if e.added <= MaxTargetsFile {
			e.added += size
			e.line = n.Line
		}
		return size
	}
	if n.Anchor != "" {
		if size, counted := e.sizes[n]; counted {
			return size
		}
		e.sizes[n] = -1
	}
	size := len(n.Value) + 1
	for _, child := range n.Content {
		size = min(size+e.size(child), MaxTargetsFile+1)
	}
	if n.Anchor != "" {
		e.sizes[n] = size
	}
	return size
}

// deref returns what an alias stands for.
func deref(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// pair is a key with its value.
type pair struct{ key, value *yaml.Node }

func (p *pair) name() string { return deref(p.key).Value }

// mapping returns the pairs of a mapping, in the order of the file, with those that its merge keys add: a key of its own wins over one
// that is merged, and an earlier one over a later. A null is an empty mapping. Keys that are there twice are problems. It reports whether the node is a mapping.
func (f *fileReader) mapping(n *yaml.Node) (pairs []pair, ok bool) {
	n = deref(n)
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return nil, true
	}
	if n.Kind != yaml.MappingNode || n.ShortTag() != "!!map" {
		return nil, false
	}
	pairs = make([]pair, 0, len(n.Content)/2)
	lines := make(map[string]int, len(n.Content)/2)
	var merged []pair
	for i := 0; i+1 < len(n.Content); i += 2 {
		p := pair{key: n.Content[i], value: n.Content[i+1]}
		switch key := deref(p.key); {
		case key.Kind == yaml.ScalarNode && key.Tag == "!!merge":
			merged = append(merged, p)
		case key.Kind != yaml.ScalarNode:
			f.problemAt(p.key.Line, "a key that is no text: write key: value")
		case lines[key.Value] != 0:
			f.twice(&p, lines[key.Value])
		default:
			lines[key.Value] = max(1, p.key.Line)
			pairs = append(pairs, p)
		}
	}
	for _, m := range merged {
		sources := []*yaml.Node{m.value}
		if list := deref(m.value); list.Kind == yaml.SequenceNode {
			sources = list.Content
		}
		for _, source := range sources {
			from, ok := f.mapping(source)
			if !ok {
				f.problemAt(m.key.Line, "<<: merges what is not a mapping: write an alias of a mapping, or a list of them")
				continue
			}
			for _, p := range from {
				if lines[p.name()] == 0 {
					lines[p.name()] = max(1, p.key.Line)
					pairs = append(pairs, p)
				}
			}
		}
	}
	return pairs, true
}

// twice reports a key that is there for the second time. Of a key that may be a value the name is not shown.
func (f *fileReader) twice(p *pair, first int) {
	name := "a key"
	if legalName(p.name()) && !random(p.name()) {
		name = p.name()
	}
	f.problemAt(p.key.Line, "%s: is there twice, first in line %d: keep one", name, first)
}

// what says what a node is, for a message that another kind is wanted.
func what(n *yaml.Node) string {
	switch n = deref(n); {
	case n.Kind == yaml.SequenceNode:
		return "is a list"
	case n.Kind == yaml.MappingNode:
		return "has keys of its own"
	case isNumber(n):
		return "is a number"
	}
	return "is text"
}

func isNumber(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && (n.Tag == "!!int" || n.Tag == "!!float")
}

// plainText returns a scalar as it is written in the file; null is empty. The fault says why it cannot be used.
func plainText(n *yaml.Node) (text, fault string) {
	if n.Kind != yaml.ScalarNode {
		return "", what(n) + ": write one value"
	}
	switch n.Tag {
	case "!!null":
		return "", ""
	case "!!str", "!!int", "!!float", "!!bool", "!!timestamp", "!!merge":
		return n.Value, ""
	}
	return "", "has a tag, which has no meaning here: write the value without"
}

// scalarText is plainText for a setting that is text, of which true and false are none.
func scalarText(n *yaml.Node) (text, fault string) {
	if n.Kind == yaml.ScalarNode && n.Tag == "!!bool" {
		return "", "is true or false where text is wanted: write text, in quotes if it is one of these words"
	}
	return plainText(n)
}
