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
	given    [len(declaration)]bool // a flag has set the setting
}

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

// Decode implements envconfig.Decoder: the variable has one header per line.
func (h *headerLines) Decode(text string) error {
	for line := range strings.Lines(text) {
		if strings.TrimSpace(line) != "" {
			*h = append(*h, line)
		}
	}
	return nil
}

// environment reads the variables of the settings that no flag has set.
//
// envconfig.Process stops at the first error, so it is called for each setting. Its errors contain the value, so they are dropped.
// The tag has the full name, and the prefix is empty: given a prefix, envconfig also reads the variable without the prefix.
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
			r.problem("%s: the value cannot be read: %s", s.label(r.variant), howToWrite(field))
			continue
		}
		r.FromEnvironment = append(r.FromEnvironment, s.variable())
	}
	r.unknownVariables()
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

// arguments reads flags by the rules of package flag: one dash or two, -name value or -name=value, a switch needs no value, and
// the last of several wins. Package flag itself is not used because it stops at the first problem and puts values into its
// errors; arguments reports every problem, without values. The only error is flag.ErrHelp.
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
		case unknown && !dashed:
			unknown = false // this is most likely the unknown flag's value
		default:
			// What follows a stray argument may belong to a value that was not quoted, so never print it.
			unknown, stray = false, true
			r.problem("argument %d is not a flag: quote a value that holds spaces, and write -flag=false to turn a switch off", i+1)
		}
	}
	return nil
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
	s := &declaration[f.index]
	field := s.field(&r.values)
	if f.shorthand == nil {
		r.given[f.index] = true
		if err := set(field, value); err != nil {
			r.problem("%s: the value cannot be read: %s", s.label(r.variant), howToWrite(field))
		}
		return
	}
	applies, err := f.shorthand.applies(value)
	switch {
	case err != nil && f.shorthand.counts:
		r.problem("-%s: the value cannot be read: %s", name, howToWrite(new(int)))
	case err != nil:
		r.problem("-%s: the value cannot be read: %s", name, howToWrite(new(bool)))
	case applies:
		r.given[f.index] = true
		_ = set(field, f.shorthand.value) // cannot fail: shorthands set text
	}
}

// applies reports whether the flag's value asks for the shorthand's value.
func (s *shorthand) applies(value string) (bool, error) {
	if s.counts {
		n, err := strconv.Atoi(value)
		return n >= 1, err
	}
	return strconv.ParseBool(value)
}

// set parses a flag's text into its field. It leaves the field unchanged on error. Do not print its errors: they contain the text.
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

// suggestion says what to do about an unknown flag: use the nearest known flag, or see -help. A known flag that begins with the
// name has the distance 0. One that contains the name, or is contained in it, has the distance 1 at most.
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

// distance returns the Levenshtein distance of a and b, in bytes.
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
