package settings

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"example.com/grpc-health-http/internal/near"
)

// MaxTargetsFile is the size of the largest targets file, in bytes.
const MaxTargetsFile = 4 << 20

const (
	// maxName is the length of the longest name of a target or a group.
	maxName = 63
	// maxNotes is how many problems with a file, and how many warnings, are listed.
	maxNotes = 100
)

// The keys that are no settings.
const (
	keyDefaults = "defaults"
	keyTargets  = "targets"
	keyGroup    = "group"
	// aside begins the names of top-level keys that are left to the writer, as a place for anchors.
	aside = "x-"
)

// Equal reports whether two targets are the same in all that they say. Files that they name are not looked into.
func (t *Target) Equal(o *Target) bool { return reflect.DeepEqual(t, o) }

// legalName reports whether a text can be the name of a target or a group.
func legalName(name string) bool {
	if name == "" || len(name) > maxName {
		return false
	}
	for i := range len(name) {
		c := name[i]
		alphanumeric := '0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z'
		if !alphanumeric && (i == 0 || c != '.' && c != '_' && c != '-') {
			return false
		}
	}
	return true
}

const nameAdvice = "write 1 to 63 letters, digits, dots, underscores and hyphens, the first a letter or digit"

// ReadTargets reads a targets file, sorted by the targets' names. Warnings are sentences to log. A file with a mistake is an error
// of type Problems, with all of them in the order of lines. Problems and warnings show names and paths, and no other value.
// Targets share what they have from the defaults, so nobody may change it.
func (s *Settings) ReadTargets(content []byte) (targets []Target, warnings []string, err error) {
	document, problem := parseYAML(content)
	if problem != "" {
		return nil, nil, Problems{problem}
	}
	f := newFileReader(s.variant)
	targets = f.read(document)
	if problems := f.problems.sentences(); len(problems) > 0 {
		return nil, nil, Problems(problems)
	}
	f.unusedDefaults()
	slices.SortFunc(targets, func(a, b Target) int { return cmp.Compare(a.Name, b.Name) })
	return targets, f.warnings.sentences(), nil
}

// notes are sentences about lines of the file.
type notes struct {
	list []note
	more int // how many are left out
}

type note struct {
	line int
	text string
}

func (n *notes) add(line int, text string) {
	if len(n.list) == maxNotes {
		n.more++
		return
	}
	n.list = append(n.list, note{line: line, text: text})
}

// sentences returns the notes in the order of lines.
func (n *notes) sentences() []string {
	slices.SortStableFunc(n.list, func(a, b note) int { return cmp.Compare(a.line, b.line) })
	var all []string
	for _, one := range n.list {
		all = append(all, "line "+strconv.Itoa(one.line)+one.text)
	}
	if n.more > 0 {
		all = append(all, fmt.Sprintf("and %d more", n.more))
	}
	return all
}

// fileReader reads the settings of one target after another, by the reader that also reads flags and variables.
type fileReader struct {
	reader
	keys     map[string]int // the settings of an upstream, by their keys
	allKeys  []string       // the same with group, sorted
	problems notes
	warnings notes

	builtin values   // what holds without a file
	base    Upstream // with the file's defaults
	group   string   // the defaults' group
	// baseLines are the lines of the keys of the defaults, and baseFaults why they cannot be used.
	baseLines  [len(declaration)]int
	baseFaults [len(declaration)]string
	// unfit says that a default did not apply to a target, and used that it did to one.
	unfit, used [len(declaration)]bool
	// exist remembers what is wrong with the files that were asked for.
	exist map[string]string

	// Of what is being read:
	inDefaults bool
	name       string                 // of the target
	line       int                    // of the name
	lines      [len(declaration)]int  // of the keys that it has itself; else 0
	dropped    [len(declaration)]bool // the default does not apply
}

func newFileReader(v variant) *fileReader {
	f := &fileReader{reader: reader{}, keys: make(map[string]int), exist: make(map[string]string)}
	f.variant, f.reader.file = v, f
	f.defaults()
	f.builtin = f.values
	f.base = f.Upstream
	for i := range declaration {
		if declaration[i].ofUpstream() {
			f.keys[declaration[i].key()] = i
			f.allKeys = append(f.allKeys, declaration[i].key())
		}
	}
	f.allKeys = append(f.allKeys, keyGroup)
	slices.Sort(f.allKeys)
	return f
}

// place is what is being read, as a part of a sentence.
func (f *fileReader) place() string {
	switch {
	case f.inDefaults:
		return ", " + keyDefaults + ": "
	case f.name != "":
		return ", target " + f.name + ": "
	}
	return ": "
}

// problemAt notes a problem with a line.
func (f *fileReader) problemAt(line int, format string, args ...any) {
	f.problems.add(line, f.place()+fmt.Sprintf(format, args...))
}

// report notes a problem with setting i of what is being read. One of a default was noted with the defaults.
func (f *fileReader) report(i int, text string) {
	if !f.inherited(i) {
		f.problems.add(cmp.Or(f.lines[i], f.line), f.place()+declaration[i].key()+": "+text)
	}
}

// warn notes a warning about setting i of what is being read. One of a default was noted with the defaults.
func (f *fileReader) warn(i int, text string) {
	if !f.inherited(i) {
		f.warnings.add(cmp.Or(f.lines[i], f.line), f.place()+declaration[i].key()+": "+text)
	}
}

// inherited reports whether setting i of a target is a default of the file.
func (f *fileReader) inherited(i int) bool {
	return !f.inDefaults && f.lines[i] == 0 && f.baseLines[i] != 0
}

// forSome reports whether a default may go without the switch that gives it a meaning: it then is for the targets that have the switch.
func (f *fileReader) forSome(needed any) bool {
	_, isSwitch := needed.(*bool)
	return f.inDefaults && isSwitch
}

// drop takes a default away that does not apply to the target, and reports whether the setting was one. Of default headers only that of
// an identity can be in the way.
func (f *fileReader) drop(field any) bool {
	i := f.index(field)
	if !f.inherited(i) {
		return false
	}
	if _, ofHeaders := field.(*headerLines); ofHeaders {
		f.Headers = slices.DeleteFunc(slices.Clone(f.Headers), func(h Header) bool { return h.Name == "authorization" })
		return true
	}
	f.dropped[i], f.unfit[i] = true, true
	f.unset(i)
	return true
}

// unset gives a setting the value that it has without a file.
func (f *fileReader) unset(i int) {
	s := &declaration[i]
	if _, ofHeaders := s.field(&f.values).(*headerLines); ofHeaders {
		f.Headers, f.headerLines = nil, nil
		return
	}
	reflect.ValueOf(s.field(&f.values)).Elem().Set(reflect.ValueOf(s.field(&f.builtin)).Elem())
}

// missing says that a file does not exist, or returns "".
func (f *fileReader) missing(path string) string {
	fault, known := f.exist[path]
	if !known {
		if missingFault(path) != "" {
			shown := "that it names"
			if PathForm(path) {
				shown = path
			}
			fault = "the file " + shown + " does not exist: checks fail until it does"
		}
		f.exist[path] = fault
	}
	return fault
}

// unusedDefaults warns of defaults that apply to no target: most likely the switch that gives them a meaning is missing.
func (f *fileReader) unusedDefaults() {
	f.inDefaults = true
	for i, line := range f.baseLines {
		if line != 0 && f.unfit[i] && !f.used[i] {
			f.warnings.add(line, f.place()+declaration[i].key()+": applies to no target, so it has no effect")
		}
	}
}

// read reads the file's only document.
func (f *fileReader) read(document *yaml.Node) []Target {
	top, ok := f.mapping(document)
	if !ok {
		f.problemAt(document.Line, "the file is not a mapping: write %s: and under it a name with addr for each upstream", keyTargets)
		return nil
	}
	var defaults, targets *pair
	for i := range top {
		p := &top[i]
		switch j, ofUpstream := f.keys[p.name()]; {
		case p.name() == keyDefaults:
			defaults = p
		case p.name() == keyTargets:
			targets = p
		case strings.HasPrefix(p.name(), aside):
		case ofUpstream:
			f.problemAt(p.key.Line, "%s: put it under %s, or under a target", declaration[j].key(), keyDefaults)
		default:
			f.unknown(p, []string{keyDefaults, keyTargets})
		}
	}
	if defaults != nil {
		f.readDefaults(defaults)
	}
	if targets == nil {
		f.problemAt(max(1, document.Line), "the file has no targets: write %s: and under it a name with addr for each upstream", keyTargets)
		return nil
	}
	return f.readAll(targets)
}

func (f *fileReader) readDefaults(p *pair) {
	f.inDefaults, f.line = true, p.key.Line
	if pairs, ok := f.mapping(p.value); ok {
		f.group = f.readKeys(pairs)
		f.validateOneUpstream()
		f.validateFiles()
	} else {
		f.problemAt(p.key.Line, "%s: write the settings under it, each as key: value", what(p.value))
	}
	f.inDefaults = false
	f.base, f.baseLines, f.baseFaults = f.Upstream, f.lines, f.faults
}

func (f *fileReader) readAll(p *pair) []Target {
	pairs, ok := f.mapping(p.value)
	switch {
	case !ok && deref(p.value).Kind == yaml.SequenceNode:
		f.problemAt(p.key.Line, "%s: is a list: write each target's name as a key, name: {addr: \"host:port\"}", keyTargets)
		return nil
	case !ok:
		f.problemAt(p.key.Line, "%s: %s: write the names of targets under it, each with addr", keyTargets, what(p.value))
		return nil
	case len(pairs) == 0:
		f.problemAt(p.key.Line, "%s: has no targets: write a name with addr for each upstream", keyTargets)
		return nil
	}
	targets := make([]Target, 0, len(pairs))
	for i := range pairs {
		targets = append(targets, f.readTarget(&pairs[i]))
	}
	return targets
}

func (f *fileReader) readTarget(p *pair) Target {
	f.Upstream, f.headerLines = f.base, nil
	f.lines, f.faults, f.dropped = [len(declaration)]int{}, f.baseFaults, [len(declaration)]bool{}
	f.line, f.name = p.key.Line, shown(p.name())
	defer func() { f.name = "" }()
	if !legalName(p.name()) {
		f.problemAt(f.line, "not a name of a target: %s", nameAdvice)
	}
	pairs, ok := f.mapping(p.value)
	if !ok {
		f.problemAt(f.line, "%s: write the settings under it, such as addr: \"host:port\"", what(p.value))
		return Target{}
	}
	group := f.readKeys(pairs)
	f.validateOneUpstream()
	f.validateFiles()
	for i := range declaration {
		f.used[i] = f.used[i] || f.inherited(i) && !f.dropped[i]
	}
	return Target{Name: p.name(), Group: group, Upstream: f.Upstream}
}

// readKeys reads the settings of the target, or the defaults, and returns the group.
func (f *fileReader) readKeys(pairs []pair) (group string) {
	group = f.group
	for i := range pairs {
		p := &pairs[i]
		if p.name() == keyGroup {
			group = f.readGroup(p)
			continue
		}
		j, known := f.keys[p.name()]
		if !known {
			f.unknown(p, f.allKeys)
			continue
		}
		f.lines[j], f.faults[j] = p.key.Line, ""
		f.unset(j)
		if f.faults[j] = f.readValue(j, deref(p.value)); f.faults[j] != "" {
			f.report(j, f.faults[j])
		}
	}
	return group
}

func (f *fileReader) readGroup(p *pair) string {
	text, fault := scalarText(deref(p.value))
	text = strings.TrimSpace(text)
	switch {
	case fault != "":
		f.problemAt(p.key.Line, "%s: %s", keyGroup, fault)
	case text != "" && !legalName(text):
		f.problemAt(p.key.Line, "%s: not a name of a group: %s", keyGroup, nameAdvice)
	}
	return text
}

// readValue reads the value of setting i, and says why it cannot be used.
func (f *fileReader) readValue(i int, n *yaml.Node) (fault string) {
	s := &declaration[i]
	lines, ofHeaders := s.field(&f.values).(*headerLines)
	_, isList := s.field(&f.values).(*[]string)
	_, isText := s.field(&f.values).(*string)
	var text string
	switch {
	case ofHeaders && n.Kind != yaml.ScalarNode:
		return f.readHeaders(lines, n)
	case isList && n.Kind == yaml.SequenceNode:
		var members []string
		for _, member := range n.Content {
			one, fault := scalarText(deref(member))
			if fault != "" {
				return "a member of the list " + fault
			}
			members = append(members, one)
		}
		text = strings.Join(members, ",")
	default:
		if isText || isList || ofHeaders {
			text, fault = scalarText(n)
		} else {
			text, fault = plainText(n)
		}
		if fault != "" {
			return fault
		}
	}
	if s.name == "ADDR" && isNumber(n) {
		return "is a number: write host:port"
	}
	if strings.TrimSpace(text) != "" {
		f.take(i, text, true)
	}
	return f.faults[i]
}

// readHeaders reads headers that are a list, of lines or of mappings, or a mapping.
func (f *fileReader) readHeaders(lines *headerLines, n *yaml.Node) (fault string) {
	if n.Kind == yaml.SequenceNode {
		for _, member := range n.Content {
			switch member = deref(member); {
			case member.Kind == yaml.MappingNode:
				fault = f.headerPairs(lines, member)
			case member.Kind == yaml.SequenceNode:
				fault = "is a list where text is wanted"
			default:
				var line string
				line, fault = scalarText(member)
				*lines = append(*lines, strings.TrimSpace(line))
			}
			if fault != "" {
				return "header " + strconv.Itoa(len(*lines)+1) + ": " + fault
			}
		}
		return ""
	}
	if fault = f.headerPairs(lines, n); fault != "" {
		return "header " + strconv.Itoa(len(*lines)+1) + ": " + fault
	}
	return ""
}

// headerPairs reads headers whose names are keys.
func (f *fileReader) headerPairs(lines *headerLines, n *yaml.Node) (fault string) {
	pairs, ok := f.mapping(n)
	if !ok {
		return what(n) + ": write name: value"
	}
	for i := range pairs {
		value, fault := plainText(deref(pairs[i].value))
		switch {
		case fault != "":
			return fault
		case strings.Contains(pairs[i].name(), ":"):
			return illegalHeaderName
		}
		*lines = append(*lines, pairs[i].name()+": "+value)
	}
	return ""
}

// unknown reports a key that is none, with the one that was most likely meant.
func (f *fileReader) unknown(p *pair, keys []string) {
	name := p.name()
	if len(f.problems.list) == maxNotes { // it is only counted, and the search for a near name takes time
		f.problems.more++
		return
	}
	upper := strings.TrimPrefix(strings.ToUpper(strings.ReplaceAll(name, "-", "_")), Prefix)
	for i := range declaration {
		if s := &declaration[i]; s.name != "" && s.name == upper && !s.ofUpstream() {
			f.problemAt(p.key.Line, "%s: belongs to the process: set the variable %s", s.key(), s.variable())
			return
		}
	}
	advice := "the manual's table of settings has them all"
	if len(name) <= 2*maxName {
		meant := near.Names(name, keys)
		meant = meant[:min(1, len(meant))]
		if nearest := strings.ToLower(nearestName(upper)); slices.Contains(keys, nearest) {
			meant = []string{nearest}
		}
		if len(meant) > 0 {
			advice = "did you mean " + strings.Join(meant, " or ") + "?"
		}
	}
	if !looksLikeFlag(name) || random(name) { // it may well be a value
		f.problemAt(p.key.Line, "a key that is none: %s", advice)
		return
	}
	f.problemAt(p.key.Line, "%s: no such key: %s", name, advice)
}
