package settings

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v4"
)

// object is a part of a JSON Schema.
type object = map[string]any

func anyOf(choices ...object) object { return object{"anyOf": choices} }

func pattern(p string) object { return object{"type": "string", "pattern": p} }

// unset is what unsets a default.
var unset = object{"type": []string{"string", "null"}, "maxLength": 0}

const (
	namePattern     = `^[0-9A-Za-z][0-9A-Za-z._-]{0,62}$`
	durationPattern = `^\s*[+]?(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+\s*$`
)

// patterns are the rules that the text of a setting follows, where an expression can tell them.
var patterns = map[string]string{
	"USER_AGENT":        `^[ -~]*$`,
	"AUTHORITY":         `^\s*[!-~]*\s*$`,
	"SNI_SERVER_NAME":   `^\s*[!-~]*\s*$`,
	"ID_TOKEN_AUDIENCE": `^\s*[!-~]*\s*$`,
	"SPIFFE_SERVER_ID":  `^\s*(spiffe://[0-9a-z._-]+(/[0-9A-Za-z._-]+)*)?\s*$`,
}

// valueSchema is what the value of a setting may be.
func valueSchema(s *setting) object {
	text := []string{"string", "number"}
	line := object{"type": []string{"string", "number", "boolean", "null"}}
	switch s.field(new(values)).(type) {
	case *bool:
		return anyOf(object{"type": "boolean"}, object{"enum": []any{0, 1}}, pattern(`^\s*([Tt]|[Ff]|[01]|[Tt][Rr][Uu][Ee]|[Ff][Aa][Ll][Ss][Ee])\s*$`), unset)
	case *time.Duration:
		if s.name == "CONN_MAX_AGE" {
			return anyOf(pattern(durationPattern), pattern(`^\s*0\s*$`), object{"const": 0}, unset)
		}
		return anyOf(object{"type": "string", "allOf": []object{{"pattern": durationPattern}, {"pattern": "[1-9]"}}}, unset)
	case *[]string:
		members := object{"type": "array", "items": object{"type": text, "pattern": `\S`}}
		return anyOf(object{"type": append(text, "null")}, members)
	case *headerLines:
		named := object{"type": "object", "propertyNames": object{"pattern": `^\s*[0-9A-Za-z._-]+\s*$`}, "additionalProperties": line}
		return anyOf(object{"type": []string{"string", "null"}}, named, object{"type": "array", "items": anyOf(pattern(":"), named)})
	}
	if s.name == "MIN_HEALTHY_ADDRESSES" {
		return anyOf(object{"type": "integer", "minimum": 1}, pattern(`^\s*([1-9][0-9]*|([1-9][0-9]?|100)%)\s*$`), unset)
	}
	schema := object{"type": append(text, "null")}
	if p := patterns[s.name]; p != "" {
		schema["pattern"] = p
	}
	return schema
}

// keySchema describes the key of a setting.
func keySchema(s *setting) object {
	schema := valueSchema(s)
	description := plain(s.help)
	for i := range declaration { // settings that the help names by their flags
		if other := &declaration[i]; other.ofUpstream() {
			for _, name := range other.flags {
				description = strings.ReplaceAll(description, "-"+name, other.key())
			}
		}
	}
	switch s.field(new(values)).(type) {
	case *[]string:
		description += "; or a list"
	case *headerLines:
		description += "; a list of these, or a mapping"
	}
	if s.fallbackNote != "" && s.name != "ADDR" {
		description += " (default: " + plain(s.fallbackNote) + ")"
	}
	schema["description"] = description
	switch s.field(new(values)).(type) {
	case *bool:
		schema["default"] = s.fallback == "true"
	default:
		if s.fallback != "" {
			schema["default"] = s.fallback
		}
	}
	return schema
}

// targetsSchema is the JSON Schema of a targets file. What one key says about another is beyond it.
func targetsSchema() []byte {
	group := anyOf(pattern(namePattern), object{"type": "integer", "minimum": 0}, unset)
	group["description"] = "the group that the target is in: ?group=NAME checks its members"
	keys := object{keyGroup: group}
	for i := range declaration {
		if s := &declaration[i]; s.ofUpstream() {
			keys[s.key()] = keySchema(s)
		}
	}
	inDefaults := maps.Clone(keys)
	addr := maps.Clone(keys["addr"].(object))
	addr["type"] = []string{"string", "null"}
	inDefaults["addr"] = addr
	addr = maps.Clone(addr)
	addr["type"], addr["pattern"] = "string", `\S`
	keys["addr"] = addr
	requireAddr := object{"type": "object", "required": []string{"addr"}}
	schema := object{
		"$schema":     "https://json-schema.org/draft/2020-12/schema",
		"title":       "grpc_health_proxy targets",
		"description": "A targets file: the upstreams that one grpc_health_proxy, function or Lambda checks",
		"type":        "object",
		"required":    []string{keyTargets},
		"properties": object{
			keyDefaults: object{"description": "settings that hold for every target that does not set them itself", "$ref": "#/$defs/defaults"},
			keyTargets: object{
				"description": "the upstreams, each under its name", "type": "object", "minProperties": 1,
				"propertyNames": object{"pattern": namePattern}, "additionalProperties": object{"$ref": "#/$defs/target"},
			},
		},
		"patternProperties":    object{"^" + aside: true},
		"additionalProperties": false,
		"if": object{
			"required": []string{keyDefaults},
			"properties": object{keyDefaults: object{
				"type": "object", "required": []string{"addr"}, "properties": object{"addr": pattern(`\S`)},
			}},
		},
		"else": object{"properties": object{keyTargets: object{"additionalProperties": requireAddr}}},
		"$defs": object{
			"defaults": object{"type": []string{"object", "null"}, "properties": inDefaults, "additionalProperties": false},
			"target":   object{"type": []string{"object", "null"}, "properties": keys, "additionalProperties": false},
		},
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(schema); err != nil {
		panic(err) // of constants
	}
	return b.Bytes()
}

func TestSchema(t *testing.T) {
	const path = "../../docs/targets.schema.json"
	want := targetsSchema()
	if got, err := os.ReadFile(path); err == nil && bytes.Equal(got, want) {
		return
	}
	if !*update {
		t.Fatalf("%s differs from the declared settings: go test ./internal/settings -run TestSchema -update", path)
	}
	if err := os.WriteFile(path, want, 0o644); err != nil {
		t.Fatal(err)
	}
}

// beyondSchema are mistakes that a schema cannot tell, by the names of badFiles: those of YAML itself, what one key says about another, and what a value has to be beyond its
// form.
var beyondSchema = []string{
	"times of more than a minute",
	"a URL as address", "a certificate without its key", "a default certificate without its key", "TLS options without TLS", "TLS and ALTS", "TLS and SPIFFE as defaults",
	"CA and no-verify", "two identities", "a share without all addresses", "the addresses of a socket", "addresses and a proxy", "PEM in base64", "an ARN where there is no Lambda",
	"a tag", "a tag of someone's", "a tag of a mapping", "a line break in a value", "gRPC's header", "an octal number", "a hexadecimal number", "an octal switch",
}

// validator returns what an editor with the schema says about a file.
func validator(t *testing.T) func(content string) error {
	t.Helper()
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(targetsSchema()))
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource("targets.json", document); err != nil {
		t.Fatal(err)
	}
	schema, err := compiler.Compile("targets.json") // which checks it by the draft's own schema
	if err != nil {
		t.Fatal(err)
	}
	return func(content string) error {
		var value any
		if err := yaml.Unmarshal([]byte(content), &value); err != nil {
			return err // an editor shows that, too
		}
		return schema.Validate(asJSON(value))
	}
}

// TestTargetsManual: the file that the manual shows is right, for the programs and for editors, and its settings are those that it says.
func TestTargetsManual(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/targets.md")
	if err != nil {
		t.Fatal(err)
	}
	var targets []Target
	rest := string(page)
	for _, want := range []int{2, 3} { // the short example, and the longer one
		_, rest, _ = strings.Cut(rest, "```yaml\n")
		example, after, found := strings.Cut(rest, "```\n")
		if !found {
			t.Fatal("the page lacks an example")
		}
		rest = after
		if err := validator(t)(example); err != nil {
			t.Error(err)
		}
		if targets, _, err = readTargets(example); err != nil || len(targets) != want {
			t.Fatalf("%+v, %v", targets, err)
		}
	}
	if s := targets[2]; s.TLS || s.CACert != "" || s.RPCTimeout != 500*time.Millisecond || s.MinHealthyAddresses != "67%" {
		t.Errorf("%+v", s)
	}
}

// TestSchemaAgrees: an editor with the schema finds the mistakes that the programs find, and no others.
func TestSchemaAgrees(t *testing.T) {
	t.Parallel()
	here := file(t)
	validate := validator(t)
	for _, good := range goodFiles(here) {
		if err := validate(good.content); err != nil {
			t.Errorf("%s: %v\n%s", good.name, err, good.content)
		}
	}
	for _, bad := range badFiles(here) {
		if strings.Contains(bad.name, "document") { // one of them may well be right
			continue
		}
		err := validate(bad.content)
		if beyond := slices.Contains(beyondSchema, bad.name); (err == nil) != beyond {
			t.Errorf("%s: the schema says %v\n%s", bad.name, err, bad.content)
		}
	}
}

// asJSON is a value of YAML as JSON has it.
func asJSON(value any) any {
	switch v := value.(type) {
	case map[string]any:
		for key, member := range v {
			v[key] = asJSON(member)
		}
	case map[any]any:
		m := make(map[string]any)
		for key, member := range v {
			m[fmt.Sprint(key)] = asJSON(member)
		}
		return m
	case []any:
		for i, member := range v {
			v[i] = asJSON(member)
		}
	case time.Time:
		return v.Format(time.DateOnly)
	}
	return value
}
