package settings

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"example.com/grpc-health-http/internal/near"
	"github.com/kelseyhightower/envconfig"
)

// reader collects the values of one variant, and every problem with them.
type reader struct {
	values
	problems Problems
	ignored  []string                 // sentences about arguments that have no effect
	given    [len(declaration)]bool   // a flag has set the setting
	present  [len(declaration)]bool   // a flag or a variable has a text for the setting
	faults   [len(declaration)]string // why the setting's text cannot be used
	words    []argument               // arguments of the proxy that may be names of targets
	file     *fileReader              // nil unless the settings are those of a targets file
}

// argument is one that is not a flag, and the problem that it is where there are no targets.
type argument struct{ text, problem string }

func newReader(v variant) *reader {
	r := new(reader)
	r.variant = v
	return r
}

func (r *reader) problem(format string, args ...any) {
	r.problems = append(r.problems, fmt.Sprintf(format, args...))
}

// defaults sets every setting to its default, also those that the variant does not read.
func (r *reader) defaults() {
	for i := range declaration {
		s := &declaration[i]
		if text := s.defaultIn(r.variant); text != "" {
			_ = set(s.field(&r.values), text) // a test parses every default
		}
	}
}

// headerLines are headers before validation, "name: value".
type headerLines []string

// add appends the headers of a variable, which has one in each line.
func (h *headerLines) add(text string) {
	for line := range strings.Lines(text) {
		if strings.TrimSpace(line) != "" {
			*h = append(*h, line)
		}
	}
}

// decoder reads a variable's text.
type decoder func(text string)

// Decode implements envconfig.Decoder.
func (d decoder) Decode(text string) error {
	d(text)
	return nil
}

// reads reports whether the setting has a meaning for what the process is to do. Flags come first: they decide.
func (r *reader) reads(i int) bool {
	s := &declaration[i]
	switch {
	case !s.readBy(r.variant):
		return false
	case r.CheckSelf:
		return !s.ofUpstream() && s.group != groupChecks
	case r.RunCLI:
		return !s.ofListeners()
	}
	return true
}

// environment reads the variables of the settings that no flag has set. envconfig.Process stops at the first error, so it is called
// for each setting. The tag has the full name, and the prefix is empty: given a prefix, envconfig also reads the
// variable without the prefix.
func (r *reader) environment() {
	r.flagsOnly = r.variant == probe && r.given[r.index(&r.Addr)]
	for i := range declaration {
		s := &declaration[i]
		if s.name == "" || !r.reads(i) || r.given[i] || r.flagsOnly && s.ofUpstream() {
			continue
		}
		if strings.TrimSpace(os.Getenv(s.variable())) == "" { // envconfig counts a variable set to "" as set
			r.fromPlatform(s, s.field(&r.values))
			continue
		}
		spec := reflect.New(reflect.StructOf([]reflect.StructField{{
			Name: "Value",
			Type: reflect.TypeFor[decoder](),
			Tag:  reflect.StructTag(`envconfig:"` + s.variable() + `"`),
		}}))
		spec.Elem().Field(0).Set(reflect.ValueOf(decoder(func(text string) { r.take(i, text, true) })))
		_ = envconfig.Process("", spec.Interface()) // a decoder returns no error
		if r.faults[i] == "" {
			r.FromEnvironment = append(r.FromEnvironment, s.variable())
		}
	}
}

// take reads the text of a flag or a variable into the setting's field, or notes why that is not possible.
func (r *reader) take(i int, text string, variable bool) {
	s := &declaration[i]
	field := s.field(&r.values)
	text = strings.TrimSpace(text)
	r.present[i] = r.present[i] || text != ""
	lines, ofHeaders := field.(*headerLines) // each header has its own check
	switch {
	case ofHeaders && variable:
		lines.add(text)
		return
	case ofHeaders, s.file == pemFile && strings.Contains(text, "-----BEGIN"):
	default:
		if fault := s.textFault(field, text); fault != "" {
			r.faults[i] = fault
			return
		}
	}
	if set(field, text) != nil {
		r.faults[i] = howToWrite(field, text)
	}
}

// textFault says which characters a value has that nobody meant, or returns "". A file may have any name.
func (s *setting) textFault(field any, text string) string {
	if _, isList := field.(*[]string); isList && strings.Contains(text, ",") {
		for member := range strings.SplitSeq(text, ",") {
			if fault := textFault(strings.TrimSpace(member), false); fault != "" {
				return "a member of the list " + fault
			}
		}
		return ""
	}
	fault := textFault(text, s.name == "USER_AGENT" || s.name == "PAGE_TITLE")
	if fault != "" && s.file != noFile && exists(text) {
		return ""
	}
	return fault
}

// reportFaults reports the texts that cannot be used, of the settings that have a meaning.
func (r *reader) reportFaults() {
	for i, fault := range r.faults {
		if fault != "" && r.reads(i) {
			r.report(i, fault)
		}
	}
}

// fromPlatform sets the platform's default, if it has one.
func (r *reader) fromPlatform(s *setting, field any) {
	if s.platform == nil {
		return
	}
	text, variable := s.platform()
	if text == "" {
		return
	}
	_ = set(field, text) // cannot fail: platform defaults are text
	if variable != "" {
		r.FromEnvironment = append(r.FromEnvironment, variable)
	}
}

// knownFlag is what a flag sets.
type knownFlag struct {
	index     int        // in declaration
	shorthand *shorthand // nil if the flag sets any value
}

// flagsOf returns every flag of the variant, by its name without the dash.
func flagsOf(v variant) map[string]knownFlag {
	known := make(map[string]knownFlag)
	for i := range declaration {
		s := &declaration[i]
		for _, name := range s.names(v) {
			known[name] = knownFlag{index: i}
		}
		if v == container {
			for j := range s.shorthands {
				known[s.shorthands[j].name] = knownFlag{index: i, shorthand: &s.shorthands[j]}
			}
		}
	}
	return known
}

// arguments reads flags by the rules of package flag: one dash or two, -name value or -name=value, a switch needs no value, the
// last of several wins, and "--" ends them. Package flag itself is not used because it stops at the first problem and puts values into
// its errors; arguments reports every problem, without values. The only error is flag.ErrHelp.
func (r *reader) arguments(args []string) error {
	known := flagsOf(r.variant)
	// What the previous argument was: an unknown flag without a value, or not a flag at all.
	var unknown, stray bool
	for i := 0; i < len(args); i++ {
		name, value, hasValue := strings.Cut(args[i], "=")
		name, dashed := trimDashes(name)
		f, ok := known[name]
		switch {
		case dashed && (name == "h" || name == "help"):
			return flag.ErrHelp
		case dashed && ok:
			unknown, stray = false, false
			if !hasValue && f.isSwitch() {
				value, hasValue = "true", true
			}
			if !hasValue {
				i++
				if i == len(args) {
					r.problem("-%s: the value is missing: write -%s=VALUE", name, name)
					return nil
				}
				value = args[i]
			}
			r.setFlag(name, f, value)
		case dashed && !stray && looksLikeFlag(name):
			unknown = !hasValue
			r.problem("-%s: no such flag: %s", name, suggestion(name, known))
		case args[i] == "--" && r.variant == probe && i+1 < len(args):
			r.ignore(args, i+1, known)
			return nil
		case args[i] == "--":
			unknown = false // words that follow are problems of their own
		case unknown && !dashed:
			unknown = false // this is most likely the unknown flag's value
		case r.variant == probe && !looksDashed(args[i]):
			r.ignore(args, i, known)
			return nil
		default:
			// What follows a stray argument may belong to a value that was not quoted, so never print it.
			unknown, stray = false, true
			advice, afterSwitch := adviceOnWord(args, i, known)
			text := fmt.Sprintf("argument %d is not a flag: %s", i+1, advice)
			if _, err := parseBool(args[i]); r.variant == container && legalName(args[i]) && !(afterSwitch && err == nil) {
				r.words = append(r.words, argument{text: args[i], problem: text}) // readWords decides
			} else {
				r.problems = append(r.problems, text)
			}
		}
	}
	return nil
}

// looksDashed reports whether package flag takes an argument for a flag, well written or not.
func looksDashed(arg string) bool { return len(arg) > 1 && arg[0] == '-' }

// ignore notes that the arguments from i on have no effect. The earlier probe read flags by package flag, which ends them at the
// first word, and commands rely on it.
func (r *reader) ignore(args []string, i int, known map[string]knownFlag) {
	text := fmt.Sprintf("argument %d is not a flag, so it has no effect, nor has what follows it", i+1)
	var lost []string
	for _, arg := range args[i+1:] {
		name, _, _ := strings.Cut(arg, "=")
		if name, dashed := trimDashes(name); dashed {
			if _, ok := known[name]; ok && !slices.Contains(lost, "-"+name) {
				lost = append(lost, "-"+name)
			}
		}
	}
	if len(lost) > 0 {
		text += " (" + strings.Join(lost, ", ") + ")"
	}
	advice, _ := adviceOnWord(args, i, known)
	r.ignored = append(r.ignored, text+": "+advice)
}

// readWords decides what the words after the flags are: the targets to check, where a targets file names some and the proxy is
// to check once; else they are problems.
func (r *reader) readWords() {
	for _, w := range r.words {
		switch {
		case r.TargetsFile == "" || !r.RunCLI:
			r.problems = append(r.problems, w.problem)
		case !slices.Contains(r.Names, w.text):
			r.Names = append(r.Names, w.text)
		}
	}
}

// adviceOnWord says what to do about argument i, which is not a flag, and whether the one before is a switch. It repeats nothing of
// the argument.
func adviceOnWord(args []string, i int, known map[string]knownFlag) (advice string, afterSwitch bool) {
	if c, _ := utf8.DecodeRuneInString(args[i]); unicode.Is(unicode.Pd, c) && c != '-' || c == '\u2212' {
		return "it begins with a dash that is no hyphen (" + fmt.Sprintf("U+%04X", c) + "): write -", false
	}
	if i > 0 {
		name, dashed := trimDashes(args[i-1])
		if f, ok := known[name]; ok && dashed && f.isSwitch() {
			return "-" + name + " is on without a value: write -" + name + "=false to turn it off", true
		}
	}
	return "quote a value that holds spaces, and write -flag=false to turn a switch off", false
}

// looksLikeFlag reports whether an unknown flag may be printed. Text of another form may be part of a value. The expression is
// compiled here so that only wrong command lines pay for it.
func looksLikeFlag(name string) bool {
	return regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]{0,39}$`).MatchString(name)
}

// trimDashes removes one or two dashes from a flag's name, and reports whether it had them.
func trimDashes(name string) (string, bool) {
	trimmed, dashed := strings.CutPrefix(name, "-")
	trimmed = strings.TrimPrefix(trimmed, "-")
	return trimmed, dashed && trimmed != "" && trimmed[0] != '-'
}

func (f knownFlag) isSwitch() bool {
	if f.shorthand != nil {
		return !f.shorthand.counts
	}
	return declaration[f.index].isSwitch()
}

func (r *reader) setFlag(name string, f knownFlag, value string) {
	if f.shorthand == nil {
		r.given[f.index] = true
		r.take(f.index, value, false)
		return
	}
	applies, err := f.shorthand.applies(strings.TrimSpace(value))
	switch {
	case err != nil && f.shorthand.counts:
		r.problem("-%s: %s", name, howToWrite(new(int), value))
	case err != nil:
		r.problem("-%s: %s", name, howToWrite(new(bool), value))
	case applies:
		r.given[f.index] = true
		_ = set(declaration[f.index].field(&r.values), f.shorthand.value) // cannot fail: shorthands set text
	}
}

// applies reports whether the flag's value asks for the shorthand's value.
func (s *shorthand) applies(value string) (bool, error) {
	if s.counts {
		n, err := strconv.Atoi(value)
		return n >= 1, err
	}
	return parseBool(value)
}

// parseBool reads what strconv.ParseBool reads, without regard to case.
func parseBool(text string) (bool, error) { return strconv.ParseBool(strings.ToLower(text)) }

// set parses a flag's text into its field. It leaves the field unchanged on error. Do not print its errors: they contain the text.
func set(field any, text string) error {
	switch f := field.(type) {
	case *string:
		*f = text
	case *bool:
		return parse(f, text, parseBool)
	case *int:
		return parse(f, text, strconv.Atoi)
	case *time.Duration:
		return parse(f, text, time.ParseDuration)
	case *[]string:
		*f = nil
		if text != "" {
			*f = strings.Split(text, ",")
		}
	case *headerLines:
		*f = append(*f, text)
	default:
		return fmt.Errorf("no flag can set a %T", field)
	}
	return nil
}

func parse[T any](field *T, text string, parser func(string) (T, error)) error {
	v, err := parser(text)
	if err != nil {
		return err
	}
	*field = v
	return nil
}

// suggestion says what to do about an unknown flag: use the nearest known flag, or see -help. A known flag that begins with the
// name has the distance 0. One that contains the name, or is contained in it, has the distance 1 at most.
func suggestion(name string, known map[string]knownFlag) string {
	best, bestDistance := "", 0
	name = strings.ToLower(name)
	for _, candidate := range slices.Sorted(maps.Keys(known)) {
		lower := strings.ToLower(candidate)
		d := near.Distance(name, lower)
		if min(len(name), len(lower)) > 2 && (strings.Contains(lower, name) || strings.Contains(name, lower)) {
			d = min(d, 1)
		}
		if len(name) > 2 && strings.HasPrefix(lower, name) {
			d = 0
		}
		if 2*d <= len(name)+1 && (best == "" || d < bestDistance) {
			best, bestDistance = candidate, d
		}
	}
	if best == "" {
		return "see -help"
	}
	return "did you mean -" + best + "?"
}
