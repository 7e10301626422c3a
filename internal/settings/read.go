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

	"github.com/kelseyhightower/envconfig"
)

// reader collects the values of one variant, and every problem with them.
type reader struct {
	values
	problems Problems
	given    [len(declaration)]bool // set by a flag
}

func newReader(v variant) *reader {
	r := new(reader)
	r.variant = v
	return r
}

func (r *reader) problem(format string, args ...any) {
	r.problems = append(r.problems, fmt.Sprintf(format, args...))
}

// defaults sets every setting, also those that the variant does not read.
func (r *reader) defaults() {
	for i := range declaration {
		s := &declaration[i]
		if text := s.defaultIn(r.variant); text != "" {
			// A test parses every default.
			_ = set(s.field(&r.values), text)
		}
	}
}

// headerLines are headers as they were given, "name: value".
type headerLines []string

// Decode reads the environment's form, one header per line.
func (h *headerLines) Decode(text string) error {
	for line := range strings.Lines(text) {
		if strings.TrimSpace(line) != "" {
			*h = append(*h, line)
		}
	}
	return nil
}

// environment reads the variables of the settings that no flag has set. envconfig stops at the
// first error, so each setting has a Process of its own; its errors hold the value, so they are dropped.
// The tag is the whole name, and envconfig's own prefix empty: with a prefix it would fall back to the name without it.
func (r *reader) environment() {
	for i := range declaration {
		s := &declaration[i]
		if s.name == "" || !s.readBy(r.variant) || r.given[i] {
			continue
		}
		field := s.field(&r.values)
		if os.Getenv(s.variable()) == "" { // envconfig counts a variable set to "" as set
			r.fromPlatform(s, field)
			continue
		}
		spec := reflect.New(reflect.StructOf([]reflect.StructField{{
			Name: "Value",
			Type: reflect.TypeOf(field),
			Tag:  reflect.StructTag(`envconfig:"` + s.variable() + `"`),
		}}))
		spec.Elem().Field(0).Set(reflect.ValueOf(field))
		if err := envconfig.Process("", spec.Interface()); err != nil {
			r.problem("%s: the value cannot be read: %s", s.label(r.variant), shape(field))
			continue
		}
		r.FromEnvironment = append(r.FromEnvironment, s.variable())
	}
	r.unknownVariables()
}

// fromPlatform takes the default that the platform wants, where it wants one.
func (r *reader) fromPlatform(s *setting, field any) {
	if s.platform == nil {
		return
	}
	text, variable := s.platform()
	if text == "" {
		return
	}
	_ = set(field, text) // platform defaults are text
	if variable != "" {
		r.FromEnvironment = append(r.FromEnvironment, variable)
	}
}

// knownFlag is what a flag's name leads to.
type knownFlag struct {
	index     int // in declaration
	shorthand *shorthand
}

// flagsOf maps every flag of the variant, without its dash.
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

// arguments reads flags by the rules of package flag: one dash or two, -name value or -name=value,
// switches without a value, the last of several wins. Package flag itself stops at the first fault
// and puts values into its errors; this goes on to the end, and tells every fault without them. The
// only error is flag.ErrHelp.
func (r *reader) arguments(args []string) error {
	known := flagsOf(r.variant)
	var unknown, stray bool // what the argument before was: an unknown flag without a value, or no flag at all
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
		case dashed && !stray && flagShaped(name):
			unknown = !hasValue
			r.problem("-%s: no such flag: %s", name, suggestion(name, known))
		case unknown && !dashed:
			unknown = false // the unknown flag's value, most likely
		default:
			// What follows a stray argument may be more of a value that was not quoted: never print it.
			unknown, stray = false, true
			r.problem("argument %d is not a flag: quote a value that holds spaces, and write -flag=false to turn a switch off", i+1)
		}
	}
	return nil
}

// flagShaped says whether an unknown flag may be printed; anything else may be a piece of a value. The expression is
// compiled here so that no command that is well called waits for it.
func flagShaped(name string) bool {
	return regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]{0,39}$`).MatchString(name)
}

// trimDashes takes one or two dashes off a flag's name.
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
	s := &declaration[f.index]
	field := s.field(&r.values)
	if f.shorthand == nil {
		r.given[f.index] = true
		if err := set(field, value); err != nil {
			r.problem("%s: the value cannot be read: %s", s.label(r.variant), shape(field))
		}
		return
	}
	applies, err := f.shorthand.applies(value)
	switch {
	case err != nil && f.shorthand.counts:
		r.problem("-%s: the value cannot be read: %s", name, shape(new(int)))
	case err != nil:
		r.problem("-%s: the value cannot be read: %s", name, shape(new(bool)))
	case applies:
		r.given[f.index] = true
		_ = set(field, f.shorthand.value) // shorthands stand for text
	}
}

// applies says whether the flag's value asks for what the shorthand stands for.
func (s *shorthand) applies(value string) (bool, error) {
	if s.counts {
		n, err := strconv.Atoi(value)
		return n >= 1, err
	}
	return strconv.ParseBool(value)
}

// set reads a flag's text into its field, which an error leaves alone. Its errors hold the text and
// are not for printing.
func set(field any, text string) error {
	switch f := field.(type) {
	case *string:
		*f = text
	case *bool:
		return parse(f, text, strconv.ParseBool)
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

// suggestion says what to do about an unknown flag: the nearest known one, its beginning being the
// nearest, and another part or a whole of it as near as a single mistyped letter.
func suggestion(name string, known map[string]knownFlag) string {
	best, bestDistance := "", 0
	name = strings.ToLower(name)
	for _, candidate := range slices.Sorted(maps.Keys(known)) {
		lower := strings.ToLower(candidate)
		d := distance(name, lower)
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

// distance is the Levenshtein distance of a and b, in bytes.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			substitute := diagonal
			if a[i] != b[j] {
				substitute++
			}
			diagonal = row[j+1]
			row[j+1] = min(substitute, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
