package settings

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// readTargets reads a file as the proxy does.
func readTargets(content string) ([]Target, []string, error) {
	s := &Settings{variant: container}
	return s.ReadTargets([]byte(content))
}

// one is a file of one target with these lines below its addr, from line 4 on.
func one(lines ...string) string {
	var b strings.Builder
	b.WriteString("targets:\n  a:\n    addr: \"localhost:1\"\n")
	for _, line := range lines {
		b.WriteString("    " + line + "\n")
	}
	return b.String()
}

// upstream is what a file has to say for one, beside the defaults of the settings.
func upstream(change func(*Upstream)) Upstream {
	u := Upstream{
		Addr: "localhost:1", ConnectTimeout: time.Second, RPCTimeout: time.Second, ConnMaxAge: 10 * time.Second, UserAgent: "grpc_health_proxy",
	}
	if change != nil {
		change(&u)
	}
	return u
}

// goodFile is a targets file with one target, a.
type goodFile struct {
	name, content string
	want          func(*Upstream)
}

// goodFiles are files that are right. here is the path of a file.
func goodFiles(here string) []goodFile {
	return []goodFile{
		{"only the address", one(), nil},
		{"a list of services", one("service_name: [a.B, c.D, a.B]"), func(u *Upstream) { u.Services = []string{"a.B", "c.D"} }},
		{"services with commas", one(`service_name: "a.B, c.D"`), func(u *Upstream) { u.Services = []string{"a.B", "c.D"} }},
		{"a list in lines", one("service_name:", "- a.B", "- c.D"), func(u *Upstream) { u.Services = []string{"a.B", "c.D"} }},
		{"durations", one("connect_timeout: 500ms", `rpc_timeout: "2s"`, "conn_max_age: 0"), func(u *Upstream) {
			u.ConnectTimeout, u.RPCTimeout, u.ConnMaxAge = 500*time.Millisecond, 2*time.Second, 0
		}},
		{"switches", one("tls: True", `gzip: "true"`, "use_proxy: 1"), func(u *Upstream) { u.TLS, u.Gzip, u.UseProxy = true, true, true }},
		{"text that looks like a number", one("user_agent: 1.0"), func(u *Upstream) { u.UserAgent = "1.0" }},
		{"text that looks like a date", one("user_agent: 2026-01-02"), func(u *Upstream) { u.UserAgent = "2026-01-02" }},
		{"text that looks octal", one("authority: 0123"), func(u *Upstream) { u.Authority = "0123" }},
		{"yes as text", one("user_agent: yes"), func(u *Upstream) { u.UserAgent = "yes" }},
		{"a tag that says what it is", one("authority: !!str 12"), func(u *Upstream) { u.Authority = "12" }},
		{"headers as lines", one("rpc_headers:", `- "A: b"`, `- "c: @`+here+`"`), func(u *Upstream) {
			u.Headers = []Header{{Name: "a", Value: "b"}, {Name: "c", File: here}}
		}},
		{"headers as lines without quotes", one("rpc_headers:", "- a: b", "- c: 1"), func(u *Upstream) {
			u.Headers = []Header{{Name: "a", Value: "b"}, {Name: "c", Value: "1"}}
		}},
		{"headers as a mapping", one("rpc_headers: {a: b, c: true, d: }"), func(u *Upstream) {
			u.Headers = []Header{{Name: "a", Value: "b"}, {Name: "c", Value: "true"}, {Name: "d"}}
		}},
		{"headers as text", one("rpc_headers: |", "  a: b", "  c: d"), func(u *Upstream) {
			u.Headers = []Header{{Name: "a", Value: "b"}, {Name: "c", Value: "d"}}
		}},
		{"PEM text", one("tls: true", "ca_cert: |", "  "+strings.ReplaceAll(pemText, "\n", "\n      ")), func(u *Upstream) {
			u.TLS, u.CACert = true, strings.TrimSpace(pemText)
		}},
		{"addresses", one("all_addresses: true", "min_healthy_addresses: 2"), func(u *Upstream) { u.AllAddresses, u.MinHealthyAddresses = true, "2" }},
		{"a share of addresses", one("all_addresses: true", "min_healthy_addresses: 67%"), func(u *Upstream) { u.AllAddresses, u.MinHealthyAddresses = true, "67%" }},
		{"all addresses of an address", one("all_addresses: true", "connect_timeout: 1s"), func(u *Upstream) { u.AllAddresses = true }},

		{"a default", "defaults: {gzip: true}\n" + one(), func(u *Upstream) { u.Gzip = true }},
		{"defaults at the end", one() + "defaults: {gzip: true}\n", func(u *Upstream) { u.Gzip = true }},
		{"the target wins", "defaults: {gzip: true, rpc_timeout: 3s}\n" + one("gzip: false", "rpc_timeout: 4s"), func(u *Upstream) { u.RPCTimeout = 4 * time.Second }},
		{"empty text unsets a default", "defaults: {service_name: [b], rpc_timeout: 3s, gzip: true, rpc_headers: {a: b}}\n" +
			one(`service_name: ""`, `rpc_timeout: ""`, `gzip: ""`, `rpc_headers: ""`), nil},
		{"null unsets a default", "defaults: {service_name: [b], rpc_timeout: 3s, gzip: true, rpc_headers: {a: b}}\n" +
			one("service_name:", "rpc_timeout: null", "gzip: ~", "rpc_headers:"), nil},
		{"an empty list unsets a default", "defaults: {service_name: [b], rpc_headers: {a: b}}\n" + one("service_name: []", "rpc_headers: {}"), nil},
		{"default headers", "defaults: {rpc_headers: {a: b}}\n" + one(), func(u *Upstream) { u.Headers = []Header{{Name: "a", Value: "b"}} }},
		{"the target's headers replace", "defaults: {rpc_headers: {a: b}}\n" + one("rpc_headers: {c: d}"), func(u *Upstream) { u.Headers = []Header{{Name: "c", Value: "d"}} }},
		{"the address in the defaults", "defaults: {addr: \"localhost:1\"}\ntargets: {a: }\n", nil},

		{"TLS off drops what is for TLS", "defaults: {tls: true, ca_cert: " + here + ", client_cert: " + here + ", client_key: " + here + ", sni_server_name: b, id_token_audience: \"https://a\"}\n" +
			one("tls: false"), nil},
		{"ALTS drops TLS", "defaults: {tls: true, ca_cert: " + here + "}\n" + one("alts: true"), func(u *Upstream) { u.ALTS = true }},
		{"TLS drops SPIFFE", "defaults: {spiffe: true, spiffe_server_id: \"spiffe://a\"}\n" + one("tls: true"), func(u *Upstream) { u.TLS = true }},
		{"no ALTS, no accounts", "defaults: {alts: true, alts_target_service_accounts: [a@b]}\n" + one("alts: false"), nil},
		{"its own CA drops no-verify", "defaults: {tls: true, tls_no_verify: true}\n" + one("ca_cert: "+here), func(u *Upstream) { u.TLS, u.CACert = true, here }},
		{"its own no-verify drops the CA", "defaults: {tls: true, ca_cert: " + here + "}\n" + one("tls_no_verify: true"), func(u *Upstream) { u.TLS, u.NoVerify = true, true }},
		{"its own credentials drop the audience", "defaults: {tls: true, id_token_audience: \"https://a\"}\n" + one("rpc_headers: {authorization: b}"), func(u *Upstream) {
			u.TLS, u.Headers = true, []Header{{Name: "authorization", Value: "b"}}
		}},
		{"its own audience drops the credentials, and no other header", "defaults: {tls: true, rpc_headers: {authorization: b, c: d}}\n" + one("id_token_audience: \"https://a\""), func(u *Upstream) {
			u.TLS, u.IDTokenAudience, u.Headers = true, "https://a", []Header{{Name: "c", Value: "d"}}
		}},
		{"a CA for those with TLS", "defaults: {ca_cert: " + here + "}\n" + one("tls: true"), func(u *Upstream) { u.TLS, u.CACert = true, here }},
		{"a share for those with all addresses", "defaults: {min_healthy_addresses: 50%}\n" + one(), nil},
		{"a socket has no addresses", "defaults: {all_addresses: true}\ntargets: {a: {addr: \"unix:///tmp/a\"}}\n", func(u *Upstream) { u.Addr = "unix:///tmp/a" }},
		{"a proxy finds the addresses", "defaults: {all_addresses: true}\n" + one("use_proxy: true"), func(u *Upstream) { u.UseProxy = true }},

		{"a byte order mark", "\ufeff" + one("gzip: true"), func(u *Upstream) { u.Gzip = true }},
		{"CRLF", strings.ReplaceAll(one("gzip: true", "service_name: b"), "\n", "\r\n"), func(u *Upstream) { u.Gzip, u.Services = true, []string{"b"} }},
		{"comments, and the marks of a document", "# a\n---\n" + one("gzip: true # b") + "...\n", func(u *Upstream) { u.Gzip = true }},
		{"JSON", `{"defaults":{"gzip":true},"targets":{"a":{"addr":"localhost:1","service_name":["b"]}}}`, func(u *Upstream) { u.Gzip, u.Services = true, []string{"b"} }},
		{"an alias", "x-own: &own {gzip: true, rpc_timeout: 3s}\ndefaults: *own\n" + one(), func(u *Upstream) { u.Gzip, u.RPCTimeout = true, 3*time.Second }},
		{"a merge key", "x-own: &own {gzip: true, rpc_timeout: 3s}\n" + one("<<: *own", "rpc_timeout: 4s"), func(u *Upstream) { u.Gzip, u.RPCTimeout = true, 4*time.Second }},
		{"a merge of several, the first wins", "x-b: &b {rpc_timeout: 3s}\nx-c: &c {rpc_timeout: 4s, gzip: true}\n" + one("<<: [*b, *c]"), func(u *Upstream) { u.Gzip, u.RPCTimeout = true, 3*time.Second }},
	}
}

func TestTargetsValues(t *testing.T) {
	t.Parallel()
	for _, tt := range goodFiles(file(t)) {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, _, err := readTargets(tt.content)
			if err != nil {
				t.Fatal(err)
			}
			want := []Target{{Name: "a", Upstream: upstream(tt.want)}}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("%+v, want %+v\n%s", got, want, tt.content)
			}
		})
	}
}

func TestTargetsAreSortedAndGrouped(t *testing.T) {
	t.Parallel()
	got, _, err := readTargets("defaults: {group: all}\ntargets:\n  b: {addr: b, group: pay.ments}\n  0: {addr: c, group: ''}\n  B: {addr: d}\n  a_-.9: {addr: e, group: 1}\n")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, g := range got {
		names = append(names, g.Name+" "+g.Group)
	}
	if want := []string{"0 ", "B all", "a_-.9 1", "b pay.ments"}; !slices.Equal(names, want) {
		t.Errorf("%q, want %q", names, want)
	}
}

// badFile is a targets file with mistakes.
type badFile struct {
	name, content string
	want          []string // the beginning of each problem, in order
}

// badFiles are files with mistakes. here is the path of a file.
func badFiles(here string) []badFile {
	long := strings.Repeat("n", 64)
	return []badFile{
		{"nothing", "", []string{"the file is empty: write targets:"}},
		{"white space", " \n\n", []string{"the file is empty"}},
		{"comments", "# targets:\n", []string{"the file is empty"}},
		{"a null", "---\n~\n", []string{"the file is empty"}},
		{"a byte order mark alone", "\ufeff", []string{"the file is empty"}},
		{"no targets", "defaults: {tls: true}\n", []string{"line 1: the file has no targets"}},
		{"targets without one", "\ntargets:\n", []string{"line 2: targets: has no targets"}},
		{"empty targets", "targets: {}\n", []string{"line 1: targets: has no targets"}},
		{"text", "localhost:1\n", []string{"line 1: the file is not a mapping"}},
		{"a list", "- a\n", []string{"line 1: the file is not a mapping"}},
		{"a list of targets", "targets:\n  - name: a\n", []string{"line 1: targets: is a list: write each target's name as a key"}},
		{"targets as text", "targets: a\n", []string{"line 1: targets: is text: write the names"}},
		{"defaults as a list", "defaults: [tls]\n" + one(), []string{"line 1, defaults: is a list: write the settings under it"}},
		{"several documents", one() + "---\n" + one(), []string{"line 4: another document begins here"}},
		{"an empty second document", one() + "---\n", []string{"line 4: another document begins here"}},

		{"two of one name", "targets:\n  a: {addr: b}\n  c: {addr: b}\n  a: {addr: b}\n", []string{"line 4: a: is there twice, first in line 2: keep one"}},
		{"two of one name, written differently", "targets:\n  a: {addr: b}\n  \"a\": {addr: b}\n", []string{"line 3: a: is there twice, first in line 2"}},
		{"a key twice", one("addr: b"), []string{"line 4, target a: addr: is there twice, first in line 3"}},
		{"a default twice", "defaults:\n  tls: true\n  tls: true\n" + one(), []string{"line 3, defaults: tls: is there twice, first in line 2"}},
		{"targets twice", one() + one(), []string{"line 4: targets: is there twice, first in line 1"}},

		{"a near key", one("service: b"), []string{"line 4, target a: service: no such key: did you mean service_name?"}},
		{"a key in capitals", one("CA_CERT: b"), []string{"line 4, target a: CA_CERT: no such key: did you mean ca_cert?"}},
		{"the variable", one("GRPC_HEALTH_RPC_TIMEOUT: 1s"), []string{"line 4, target a: GRPC_HEALTH_RPC_TIMEOUT: no such key: did you mean rpc_timeout?"}},
		{"hyphens", one("rpc-timeout: 1s"), []string{"line 4, target a: rpc-timeout: no such key: did you mean rpc_timeout?"}},
		{"no underscores", one("caCert: b"), []string{"line 4, target a: caCert: no such key: did you mean ca_cert?"}},
		{"a part of the key", one("headers: {a: b}"), []string{"line 4, target a: headers: no such key: did you mean rpc_headers?"}},
		{"a longer word", "targets: {a: {address: b}}", []string{"line 1, target a: address: no such key: did you mean addr?", "line 1, target a: addr: required"}},
		{"a flag", one("grpc-tls-no-verify: true"), []string{"line 4, target a: grpc-tls-no-verify: no such key: did you mean tls_no_verify?"}},
		{"groups", one("groups: b"), []string{"line 4, target a: groups: no such key: did you mean group?"}},
		{"no near key", one("colour: b"), []string{"line 4, target a: colour: no such key: the manual's table"}},
		{"an unknown default", "defaults: {tlss: true}\n" + one(), []string{"line 1, defaults: tlss: no such key: did you mean tls?"}},
		{"an unknown key at the top", "default: {tls: true}\n" + one(), []string{"line 1: default: no such key: did you mean defaults?"}},
		{"a setting at the top", "tls: true\n" + one(), []string{"line 1: tls: put it under defaults, or under a target"}},
		{"the process's setting", one("http_listen_addr: b"), []string{"line 4, target a: http_listen_addr: belongs to the process: set the variable GRPC_HEALTH_HTTP_LISTEN_ADDR"}},
		{"the process's setting as default", "defaults: {log_level: debug}\n" + one(), []string{"line 1, defaults: log_level: belongs to the process: set the variable GRPC_HEALTH_LOG_LEVEL"}},
		{"the process's setting at the top", "check_interval: 10s\n" + one(), []string{"line 1: check_interval: belongs to the process: set the variable GRPC_HEALTH_CHECK_INTERVAL"}},
		{"a file in the file", one("targets_file: b"), []string{"line 4, target a: targets_file: belongs to the process: set the variable GRPC_HEALTH_TARGETS_FILE"}},
		{"a key that is a list", one("[b]: c"), []string{"line 4, target a: a key that is no text"}},

		{"no address", "targets:\n  a: {tls: true}\n", []string{"line 2, target a: addr: required: write the upstream as host:port"}},
		{"nothing in a target", "targets:\n  a:\n", []string{"line 2, target a: addr: required"}},
		{"an empty address", "targets:\n  a:\n    addr: \"\"\n", []string{"line 3, target a: addr: required"}},
		{"the default's address unset", "defaults: {addr: b}\ntargets:\n  a:\n    addr: \"\"\n", []string{"line 4, target a: addr: required"}},
		{"a target that is an address", "targets:\n  a: localhost:1\n", []string{"line 2, target a: is text: write the settings under it, such as addr:"}},
		{"a target that is a list", "targets:\n  a: [b]\n", []string{"line 2, target a: is a list: write"}},
		{"a number as address", "targets: {a: {addr: 1234}}", []string{"line 1, target a: addr: is a number: write host:port"}},
		{"a fraction as address", "targets: {a: {addr: 10.1}}", []string{"line 1, target a: addr: is a number: write host:port"}},
		{"a URL as address", "targets: {a: {addr: \"https://b\"}}", []string{"line 1, target a: addr: the address has the form of a URL"}},

		{"a name with a space", "targets: {\"a b\": {addr: c}}", []string{"line 1, target a b: not a name of a target: write 1 to 63"}},
		{"a name with a slash", "targets: {a/b: {addr: c}}", []string{"line 1, target a/b: not a name"}},
		{"a name that begins with a dot", "targets: {.a: {addr: c}}", []string{"line 1, target .a: not a name"}},
		{"an empty name", "targets: {\"\": {addr: c}}", []string{"line 1: not a name"}},
		{"a long name", "targets: {" + long + ": {addr: c}}", []string{"line 1, target " + long + ": not a name"}},
		{"a very long name", "targets: {" + strings.Repeat(long, 9) + ": {addr: c}}", []string{"line 1, target " + strings.Repeat("n", 100) + "...: not a name"}},
		{"a name that does something", "targets: {\"a\\e[31m\": {addr: c}}", []string{`line 1, target a\x1b[31m: not a name`}},
		{"a name of other letters", "targets: {grün: {addr: c}}", []string{`line 1, target gr\u00fcn: not a name`}},
		{"a group that is none", one("group: a b"), []string{"line 4, target a: group: not a name of a group"}},
		{"a group that is a list", one("group: [b]"), []string{"line 4, target a: group: is a list"}},

		{"a list for a switch", one("tls: [true]"), []string{"line 4, target a: tls: is a list: write one value"}},
		{"a mapping for a text", one("ca_cert: {file: b}"), []string{"line 4, target a: ca_cert: has keys of its own: write one value"}},
		{"a mapping for a list", one("service_name: {a: b}"), []string{"line 4, target a: service_name: has keys of its own"}},
		{"a list in a list", one("service_name: [[a]]"), []string{"line 4, target a: service_name: a member of the list is a list"}},
		{"an empty member", one("service_name: [a, ~]"), []string{"line 4, target a: service_name: has an empty member"}},
		{"a switch for a text", one("authority: true"), []string{"line 4, target a: authority: is true or false where text is wanted"}},
		{"a switch for a service", one("service_name: [true]"), []string{"line 4, target a: service_name: a member of the list is true or false"}},
		{"a tag", one("user_agent: !!binary aGk="), []string{"line 4, target a: user_agent: has a tag"}},
		{"a tag of someone's", one("ca_cert: !file b"), []string{"line 4, target a: ca_cert: has a tag"}},
		{"a tag of a mapping", one("rpc_headers: !!set {b}"), []string{"line 4, target a: rpc_headers: header 1: has keys of its own"}},
		{"a tag that is none", one("user_agent: !b^ a"), []string{"line 4: not YAML: a character or a word that has no place here"}},
		{"no unit", one("rpc_timeout: 5"), []string{"line 4, target a: rpc_timeout: the value has no unit: write 5s"}},
		{"a fraction without unit", one("connect_timeout: 0.5"), []string{"line 4, target a: connect_timeout: the value has no unit"}},
		{"no unit in quotes", one(`conn_max_age: "10"`), []string{"line 4, target a: conn_max_age: the value has no unit"}},
		{"yes", one("tls: yes"), []string{"line 4, target a: tls: the value cannot be read: write true or false"}},
		{"Off", one("gzip: Off"), []string{"line 4, target a: gzip: the value cannot be read: write true or false"}},
		{"n", one("alts: n"), []string{"line 4, target a: alts: the value cannot be read: write true or false"}},
		{"an octal switch", one("tls: 01"), []string{"line 4, target a: tls: the value cannot be read: write true or false"}},
		{"an octal number", one("all_addresses: true", "min_healthy_addresses: 010"), []string{"line 5, target a: min_healthy_addresses: begins with 0"}},
		{"a hexadecimal number", one("all_addresses: true", "min_healthy_addresses: 0x10"), []string{"line 5, target a: min_healthy_addresses: not a whole number"}},
		{"a negative time", one("rpc_timeout: -1s"), []string{"line 4, target a: rpc_timeout: must be above zero"}},
		{"times of more than a minute", one("rpc_timeout: 50s", "connect_timeout: 11s"), []string{"line 4, target a: rpc_timeout: is with connect_timeout more than a minute"}},
		{"a header without colon", one("rpc_headers: [a]"), []string{"line 4, target a: rpc_headers: header 1: no colon"}},
		{"a header that is a list", one("rpc_headers: [\"a: b\", [c]]"), []string{"line 4, target a: rpc_headers: header 2: is a list"}},
		{"a value that is a list", one("rpc_headers: {a: [b]}"), []string{"line 4, target a: rpc_headers: header 1: is a list"}},
		{"a name with a colon", one("rpc_headers: {\"a:b\": c}"), []string{"line 4, target a: rpc_headers: header 1: an illegal character in the name"}},
		{"a line break in a value", one("rpc_headers: {a: \"b\\nc\"}"), []string{"line 4, target a: rpc_headers: header 1: has a line break"}},
		{"gRPC's header", one("rpc_headers: {te: b}"), []string{"line 4, target a: rpc_headers: header 1: a name that belongs to gRPC"}},
		{"an invisible character", one("authority: \"a\u200bb\""), []string{"line 4, target a: authority: has a zero-width character"}},
		{"PEM in base64", one("tls: true", "ca_cert: LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCg=="), []string{"line 5, target a: ca_cert: PEM text in base64"}},
		{"an ARN where there is no Lambda", one("tls: true", "ca_cert: arn:aws:secretsmanager:a"), []string{"line 5, target a: ca_cert: names an AWS secret"}},

		{"TLS options without TLS", one("ca_cert: " + here), []string{"line 4, target a: ca_cert: means nothing without tls: set both, or neither"}},
		{"a certificate without its key", one("tls: true", "client_cert: "+here), []string{"line 5, target a: client_cert: means nothing without client_key"}},
		{"a default certificate without its key", "defaults: {client_cert: " + here + "}\n" + one("tls: true"), []string{"line 1, defaults: client_cert: means nothing without client_key"}},
		{"TLS and ALTS", one("tls: true", "alts: true"), []string{"line 4, target a: tls: contradicts alts: set only one of them"}},
		{"TLS and SPIFFE as defaults", "defaults:\n  tls: true\n  spiffe: true\n" + one(), []string{"line 2, defaults: tls: contradicts spiffe"}},
		{"CA and no-verify", one("tls: true", "ca_cert: "+here, "tls_no_verify: true"), []string{"line 5, target a: ca_cert: contradicts tls_no_verify"}},
		{"two identities", one("tls: true", "id_token_audience: \"https://a\"", "rpc_headers: {authorization: b}"), []string{"line 6, target a: rpc_headers: contradicts id_token_audience"}},
		{"a share without all addresses", one("min_healthy_addresses: 50%"), []string{"line 4, target a: min_healthy_addresses: means nothing without all_addresses"}},
		{"the addresses of a socket", "targets: {a: {addr: \"unix:///tmp/a\", all_addresses: true}}", []string{"line 1, target a: all_addresses: a unix socket has no addresses"}},
		{"addresses and a proxy", one("all_addresses: true", "use_proxy: true"), []string{"line 4, target a: all_addresses: contradicts use_proxy"}},

		{"one default, one problem", "defaults:\n  rpc_timeout: 5\n  spiffe: true\n  spiffe_server_id: b\ntargets:\n  a: {addr: b}\n  c: {addr: b, tls: true}\n",
			[]string{"line 2, defaults: rpc_timeout: the value has no unit", "line 4, defaults: spiffe_server_id: not a SPIFFE ID"}},
		{"a wrong default that is replaced", "defaults: {rpc_timeout: 5}\n" + one("rpc_timeout: 5s"), []string{"line 1, defaults: rpc_timeout: the value has no unit"}},
		{"all at once, in order", "targets:\n  b:\n    tls: perhaps\n    addr: c\n  a:\n    rpc_timeout: 1\n    conn_max_age: -1s\n    colour: c\n", []string{
			"line 3, target b: tls: ", "line 5, target a: addr: required", "line 6, target a: rpc_timeout: ", "line 7, target a: conn_max_age: ", "line 8, target a: colour: "}},

		{"a tab", "targets:\n  a:\n\taddr: b\n", []string{"line 3: is indented with a tab: YAML takes spaces only"}},
		{"a tab behind spaces", "targets:\n  a:\n  \taddr: b\n    tls: true\n", []string{"line 3: is indented with a tab"}},
		{"a tab in the first line", "\ttargets: {}\n", []string{"line 1: is indented with a tab"}},
		{"no space behind the colon", "targets:\n  a:\n    addr:b\n", []string{"line 2, target a: is text"}},
		{"an open bracket", one("service_name: [a", "tls: true"), []string{"line 5: not YAML: "}},
		{"an open quote", one("user_agent: \"a", "tls: true"), []string{"line 4: not YAML: "}},
		{"another column", one("  tls: true"), []string{"line 4: not YAML: "}},
		{"nested without end", "x-a: " + strings.Repeat("[", 100000), []string{"line 1: not YAML that can be read: nested too deeply"}},
		{"not UTF-8", "targets:\n  a: {addr: \"\xff\"}\n", []string{"line 2: a byte that is not UTF-8"}},
		{"UTF-16", "\xff\xfet\x00a\x00", []string{"line 1: a byte that is not UTF-8"}},
		{"a zero byte", one() + "\x00\x00", []string{"line 4: a control character (U+0000)"}},
		{"a control character", one("user_agent: a\x01"), []string{"line 4: a control character (U+0001)"}},
		{"an alias without anchor", one("service_name: *hunter2"), []string{"line 4: an alias has no anchor"}},
		{"a merge of text", one("<<: b"), []string{"line 4, target a: <<: merges what is not a mapping"}},
		{"an anchor in itself", "x-a: &a [*a]\n" + one(), []string{"line 1: an anchor contains itself"}},
		{"a merge of itself", "targets:\n  a: &a\n    addr: b\n    <<: *a\n", []string{"line 4: an anchor contains itself"}},
	}
}

// TestTargetsProblems: each mistake is reported with its line, its target and its key.
func TestTargetsProblems(t *testing.T) {
	t.Parallel()
	for _, tt := range badFiles(file(t)) {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			targets, _, err := readTargets(tt.content)
			got := problems(t, err)
			if len(got) != len(tt.want) || targets != nil {
				t.Fatalf("%d problems, want %d: %q\n%s", len(got), len(tt.want), got, tt.content)
			}
			for i, want := range tt.want {
				if !strings.HasPrefix(got[i], want) {
					t.Errorf("%q, want %q\n%s", got[i], want, tt.content)
				}
			}
			if strings.Contains(err.Error(), marker) {
				t.Errorf("a value is shown: %v", err)
			}
		})
	}
}

// TestTargetsThatGrow: what aliases would become is refused before they become it.
func TestTargetsThatGrow(t *testing.T) {
	var doubled, merged strings.Builder
	doubled.WriteString("x-0: &l0 [aaaaaaaa, aaaaaaaa]\n")
	merged.WriteString("x-0: &m0 {k: aaaaaaaa}\n")
	for i := 1; i <= 60; i++ {
		fmt.Fprintf(&doubled, "x-%d: &l%d [*l%d, *l%d]\n", i, i, i-1, i-1)
		fmt.Fprintf(&merged, "x-%d: &m%d {<<: [*m%d, *m%d]}\n", i, i, i-1, i-1)
	}
	wide := "x-0: &w " + strings.Repeat("a", 1<<20) + "\nx-1: [*w, *w, *w, *w, *w]\n"
	for name, content := range map[string]string{
		"lists": doubled.String() + one("service_name: *l60"), "merges": merged.String() + one("<<: *m60"), "a long text": wide + one(),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, _, err := readTargets(content)
		runtime.ReadMemStats(&after)
		if err == nil || !strings.Contains(err.Error(), "the aliases would make the file larger than 4 MiB") {
			t.Errorf("%s: %v", name, err)
		}
		if n := after.TotalAlloc - before.TotalAlloc; n > 64<<20 {
			t.Errorf("%s: took %d bytes", name, n)
		}
	}
	// What many targets share is no such file.
	var b strings.Builder
	b.WriteString("x-own: &own {tls: true, rpc_timeout: 3s, service_name: [a.B, c.D]}\ntargets:\n")
	for i := range 5000 {
		fmt.Fprintf(&b, "  t%d: {<<: *own, addr: \"t%d:1\"}\n", i, i)
	}
	if got, _, err := readTargets(b.String()); err != nil || len(got) != 5000 || !got[4999].TLS {
		t.Errorf("%d targets, %v", len(got), err)
	}
}

func TestTargetsFileTooLarge(t *testing.T) {
	t.Parallel()
	fits := one() + strings.Repeat("#", MaxTargetsFile-len(one()))
	if _, _, err := readTargets(fits); err != nil {
		t.Errorf("4 MiB: %v", err)
	}
	if _, _, err := readTargets(fits + "#"); err == nil || !strings.Contains(err.Error(), "larger than 4 MiB") {
		t.Errorf("4 MiB and one byte: %v", err)
	}
}

// TestTargetsManyProblems: the log has an end, and what is not told takes no search for a near name, which takes time.
func TestTargetsManyProblems(t *testing.T) {
	var b strings.Builder
	b.WriteString("targets:\n")
	for i := range 100000 {
		fmt.Fprintf(&b, "  a%d: {servic%d: b}\n", i, i)
	}
	var before, after runtime.MemStats
	content := b.String()
	runtime.ReadMemStats(&before)
	_, _, err := readTargets(content)
	runtime.ReadMemStats(&after)
	if n := (after.Mallocs - before.Mallocs) / 100000; n > 50 { // a search for near names makes that many
		t.Errorf("%d allocations for each target", n)
	}
	got := problems(t, err)
	if len(got) != maxNotes+1 || got[maxNotes] != "and 199900 more" {
		t.Errorf("%d problems, the last: %s", len(got), got[len(got)-1])
	}
}

func TestTargetsWarnings(t *testing.T) {
	t.Parallel()
	here, missing := file(t), filepath.Join(t.TempDir(), "missing.pem")
	for _, tt := range []struct {
		name, content string
		want          []string
	}{
		{"nothing", one("tls: true", "ca_cert: "+here), nil},
		{"a file that is gone", one("tls: true", "ca_cert: "+missing), []string{"line 5, target a: ca_cert: the file " + missing + " does not exist: checks fail until it does"}},
		{"a certificate and its key", one("tls: true", "client_cert: "+missing, "client_key: "+missing), []string{"line 5, target a: client_cert: the file", "line 6, target a: client_key: the file"}},
		{"a header's file", one("rpc_headers: {a: \"@" + missing + "\"}"), []string{"line 4, target a: rpc_headers: header 1: the file " + missing}},
		{"a default's, once", "defaults: {tls: true, ca_cert: " + missing + "}\ntargets: {a: {addr: b}, c: {addr: d}}\n", []string{"line 1, defaults: ca_cert: the file " + missing}},
		{"what has no form of a path", one("tls: true", "ca_cert: "+marker), []string{"line 5, target a: ca_cert: the file that it names does not exist"}},
		{"no verification", one("tls: true", "tls_no_verify: true"), []string{"line 5, target a: tls_no_verify: the upstream's certificate is not verified"}},
		{"no verification by default, once", "defaults: {tls: true, tls_no_verify: true}\ntargets: {a: {addr: b}, c: {addr: d}}\n", []string{"line 1, defaults: tls_no_verify: "}},
		{"a method's path", one("service_name: a/b"), []string{"line 4, target a: service_name: service name looks like a method path"}},
		{"a default for nobody", "defaults: {ca_cert: " + here + "}\n" + one(), []string{"line 1, defaults: ca_cert: applies to no target"}},
		{"a default for one", "defaults: {ca_cert: " + here + "}\ntargets: {a: {addr: b}, c: {addr: d, tls: true}, e: {addr: f}}\n", nil},
		{"a default that all replace", "defaults: {gzip: true}\n" + one("gzip: false"), nil},
		{"in order", "targets:\n  b: {addr: c, service_name: d/e}\n  a: {addr: c, service_name: d/e}\n", []string{"line 2, target b", "line 3, target a"}},
	} {
		got, warnings, err := readTargets(tt.content)
		if err != nil || len(got) == 0 {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if len(warnings) != len(tt.want) {
			t.Errorf("%s: %q, want %q", tt.name, warnings, tt.want)
			continue
		}
		for i, want := range tt.want {
			if !strings.HasPrefix(warnings[i], want) || strings.Contains(warnings[i], marker) {
				t.Errorf("%s: %q, want %q", tt.name, warnings[i], want)
			}
		}
	}
}

// TestTargetsTakeEverySetting: each setting of an upstream is a key, in a target and in the defaults, and means there what it means as a variable.
func TestTargetsTakeEverySetting(t *testing.T) {
	here := file(t)
	together := map[string]string{
		"CA_CERT": "TLS", "CLIENT_CERT": "TLS CLIENT_KEY", "CLIENT_KEY": "TLS CLIENT_CERT", "TLS_NO_VERIFY": "TLS", "SNI_SERVER_NAME": "TLS", "ID_TOKEN_AUDIENCE": "TLS",
		"SPIFFE_SERVER_ID": "SPIFFE", "ALTS_TARGET_SERVICE_ACCOUNTS": "ALTS", "MIN_HEALTHY_ADDRESSES": "ALL_ADDRESSES",
	}
	value := func(name string) string {
		s := &declaration[slices.IndexFunc(declaration[:], func(s setting) bool { return s.name == name })]
		switch {
		case s.file != noFile:
			return here
		case name == "SPIFFE_SERVER_ID":
			return "spiffe://a/b"
		case name == "MIN_HEALTHY_ADDRESSES":
			return "2"
		}
		texts, _ := samples(t, s)
		return texts[0]
	}
	for i := range declaration {
		s := &declaration[i]
		if !s.ofUpstream() {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			names := append(strings.Fields(together[s.name]), s.name)
			var keys []string
			t.Setenv("GRPC_HEALTH_ADDR", "localhost:1")
			for _, name := range names {
				t.Setenv(Prefix+name, value(name))
				keys = append(keys, strings.ToLower(name)+": \""+value(name)+"\"")
			}
			want, err := ParseProxy(nil, io.Discard)
			if err != nil {
				t.Fatal(err)
			}
			for place, content := range map[string]string{
				"target":   "targets: {a: {" + strings.Join(keys, ", ") + "}}",
				"defaults": "defaults: {" + strings.Join(keys, ", ") + "}\ntargets: {a: {}}",
			} {
				if s.name != "ADDR" {
					content = strings.Replace(content, "a: {", "a: {addr: \"localhost:1\", ", 1)
				}
				got, _, err := readTargets(content)
				if err != nil || !got[0].Equal(&Target{Name: "a", Upstream: want.Upstream}) {
					t.Errorf("%s: %+v, %v, want %+v", place, got, err, want.Upstream)
				}
			}
		})
	}
}

// TestTargetEqual: a target is another one as soon as any field differs.
func TestTargetEqual(t *testing.T) {
	t.Parallel()
	read := func() *Target {
		got, _, err := readTargets("defaults: {tls: true, rpc_headers: {a: b}}\ntargets: {a: {addr: b, service_name: [c]}}")
		if err != nil {
			t.Fatal(err)
		}
		return &got[0]
	}
	if !read().Equal(read()) {
		t.Error("read twice, a target is not the same")
	}
	var change func(v reflect.Value, path string)
	changed := read()
	change = func(v reflect.Value, path string) {
		before := reflect.New(v.Type()).Elem()
		before.Set(v)
		switch v.Kind() {
		case reflect.Struct:
			for i := range v.NumField() {
				change(v.Field(i), path+"."+v.Type().Field(i).Name)
			}
			return
		case reflect.String:
			v.SetString(v.String() + "x")
		case reflect.Bool:
			v.SetBool(!v.Bool())
		case reflect.Int64:
			v.SetInt(v.Int() + 1)
		case reflect.Slice:
			v.Set(reflect.Append(v, reflect.Zero(v.Type().Elem())))
		default:
			t.Fatalf("%s: a field of a kind that the test does not know", path)
		}
		if changed.Equal(read()) {
			t.Errorf("%s: a change is not seen", path)
		}
		v.Set(before)
	}
	change(reflect.ValueOf(changed).Elem(), "Target")
}

// TestTargetsShareDefaults: a thousand targets hold the defaults once.
func TestTargetsShareDefaults(t *testing.T) {
	t.Parallel()
	got, _, err := readTargets("defaults: {service_name: [a.B], rpc_headers: {c: d}, alts: true, alts_target_service_accounts: [e@f]}\ntargets: {a: {addr: b}, c: {addr: d}}")
	if err != nil {
		t.Fatal(err)
	}
	if &got[0].Services[0] != &got[1].Services[0] || &got[0].Headers[0] != &got[1].Headers[0] || &got[0].ALTSTargetServiceAccounts[0] != &got[1].ALTSTargetServiceAccounts[0] {
		t.Error("each target has the defaults for itself")
	}
}

// TestTargetsLeaveDefaultsAlone: what one target drops of the defaults, the next one still has.
func TestTargetsLeaveDefaultsAlone(t *testing.T) {
	t.Parallel()
	got, _, err := readTargets("defaults: {tls: true, rpc_headers: {authorization: b, c: d}, service_name: [e]}\n" +
		"targets:\n  a: {addr: b, id_token_audience: \"https://a\", service_name: \"\"}\n  b: {addr: b, tls: false}\n  c: {addr: b}\n")
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []Upstream{
		upstream(func(u *Upstream) {
			u.Addr, u.TLS, u.IDTokenAudience, u.Headers = "b", true, "https://a", []Header{{Name: "c", Value: "d"}}
		}),
		upstream(func(u *Upstream) {
			u.Addr, u.Headers, u.Services = "b", []Header{{Name: "authorization", Value: "b"}, {Name: "c", Value: "d"}}, []string{"e"}
		}),
		upstream(func(u *Upstream) {
			u.Addr, u.TLS, u.Headers, u.Services = "b", true, []Header{{Name: "authorization", Value: "b"}, {Name: "c", Value: "d"}}, []string{"e"}
		}),
	} {
		if !reflect.DeepEqual(got[i].Upstream, want) {
			t.Errorf("%s: %+v, want %+v", got[i].Name, got[i].Upstream, want)
		}
	}
}

func TestMinHealthy(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		text            string
		reachable, want int
	}{
		{"", 3, 3}, {"", 0, 1}, {"2", 3, 2}, {"2", 1, 2}, {"67%", 3, 3}, {"66%", 3, 2}, {"50%", 3, 2}, {"1%", 3, 1}, {"1%", 0, 1}, {"100%", 7, 7}, {"67%", 100, 67},
	} {
		u := &Upstream{MinHealthyAddresses: tt.text}
		if got := u.MinHealthy(tt.reachable); got != tt.want {
			t.Errorf("%q of %d: %d, want %d", tt.text, tt.reachable, got, tt.want)
		}
	}
}

// TestSettingsBesideTargetsFile: settings of one upstream have no place beside a targets file, and the rest holds as it does without.
func TestSettingsBesideTargetsFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "targets.yaml")
	if err := os.WriteFile(path, []byte(one()), 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range declaration {
		s := &declaration[i]
		if !s.ofUpstream() {
			continue
		}
		texts, _ := samples(t, s)
		want := []string{"contradicts -targets-file (GRPC_HEALTH_TARGETS_FILE): put it under defaults in that file, as " + s.key()}
		if s.name == "ADDR" {
			want[0] = "put it under a target in that file, as addr"
		}
		_, err := ParseProxy([]string{"-targets-file", path, "-" + s.flags[0] + "=" + texts[0]}, io.Discard)
		expect(t, problems(t, err), want)
		t.Run(s.name, func(t *testing.T) {
			t.Setenv(s.variable(), texts[0])
			t.Setenv("GRPC_HEALTH_TARGETS_FILE", path)
			_, err := ParseProxy(nil, io.Discard)
			expect(t, problems(t, err), want)
			if _, err := read(function, nil, io.Discard); !strings.Contains(fmt.Sprint(err), s.variable()+": contradicts GRPC_HEALTH_TARGETS_FILE: put it") {
				t.Errorf("function: %v", err)
			}
			t.Setenv(s.variable(), " ")
			if _, err := ParseProxy(nil, io.Discard); err != nil {
				t.Errorf("an empty variable: %v", err)
			}
		})
	}
	s, err := ParseProxy([]string{"-targets-file", path, "-grpc-addr", ""}, io.Discard)
	if err != nil || s.TargetsFile != path {
		t.Fatalf("%+v, %v", s, err)
	}
	if got := s.Name("CA_CERT"); got != "ca_cert" {
		t.Errorf("the setting is called %s", got)
	}
	if got := s.Name("ALLOW_LIST"); got != "-allow-list (GRPC_HEALTH_ALLOW_LIST)" {
		t.Errorf("the setting is called %s", got)
	}
	_, err = ParseProxy([]string{"-targets-file", path + "x"}, io.Discard)
	expect(t, problems(t, err), []string{"-targets-file (GRPC_HEALTH_TARGETS_FILE): the file " + path + "x does not exist"})
	_, err = ParseProxy([]string{"-targets-file", path, "-rpc-timeout", "5"}, io.Discard)
	expect(t, problems(t, err), []string{"-rpc-timeout (GRPC_HEALTH_RPC_TIMEOUT): contradicts"})
	_, err = ParseProxy(nil, io.Discard)
	expect(t, problems(t, err), []string{"-grpc-addr (GRPC_HEALTH_ADDR): required"})
	_, err = ParseProbe([]string{"-addr", "a:1", "-targets-file", path}, io.Discard)
	expect(t, problems(t, err), []string{"-targets-file: no such flag"})
}

func TestTargetsFileOfLambda(t *testing.T) {
	t.Setenv("GRPC_HEALTH_TARGETS_FILE", "arn:aws:secretsmanager:eu-west-1:1:secret:a#b")
	s, err := read(lambda, nil, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.ReadTargets([]byte(one("tls: true", "ca_cert: arn:aws:secretsmanager:eu-west-1:1:secret:a", "rpc_headers: {a: \"@arn:aws:secretsmanager:a\"}"))); err != nil {
		t.Error(err)
	}
	_, _, err = s.ReadTargets([]byte(one("tls: true", "ca_cert: arn:aws:s3:a")))
	expect(t, problems(t, err), []string{"line 5, target a: ca_cert: names an AWS resource that is no secret"})
	if _, err := read(function, nil, io.Discard); err == nil {
		t.Error("the function takes a secret's ARN")
	}
}

// TestWordsAfterTheFlags: they are names of targets where there is a file and one check is to be made, and wrong everywhere else.
func TestWordsAfterTheFlags(t *testing.T) {
	t.Parallel()
	path := file(t)
	for _, tt := range []struct {
		args  string
		names []string
		want  []string
	}{
		{args: "-runcli -targets-file " + path},
		{args: "-runcli -targets-file " + path + " a b.C a", names: []string{"a", "b.C"}},
		{args: "-runcli -targets-file " + path + " -- a", names: []string{"a"}},
		{args: "-runcli -targets-file " + path + " a -format json", names: []string{"a"}},
		{args: "-targets-file " + path + " a", want: []string{"argument 3 is not a flag"}},
		{args: "-runcli -grpc-addr localhost:1 a", want: []string{"argument 4 is not a flag"}},
		{args: "-runcli -targets-file " + path + " a/b", want: []string{"argument 4 is not a flag"}},
		{args: "-runcli -targets-file " + path + " -allow-list false a", want: []string{"argument 5 is not a flag: -allow-list is on without a value"}},
		{args: "-runcli -targets-file " + path + " -unknown a b", want: []string{"-unknown: no such flag"}},
	} {
		s, err := ParseProxy(strings.Fields(tt.args), io.Discard)
		expect(t, problems(t, err), tt.want)
		if err == nil && !slices.Equal(s.Names, tt.names) {
			t.Errorf("%s: %q, want %q", tt.args, s.Names, tt.names)
		}
	}
}

func TestNewSettingsOfTheProcess(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		args []string
		want []string
	}{
		{args: []string{"-check-interval", "0"}},
		{args: []string{"-check-interval", "1s"}},
		{args: []string{"-check-interval", "999ms"}, want: []string{"-check-interval (GRPC_HEALTH_CHECK_INTERVAL): must be 1s or more"}},
		{args: []string{"-check-interval=-1s"}, want: []string{"must be 1s or more"}},
		{args: []string{"-check-interval", "10"}, want: []string{"the value has no unit"}},
		{args: []string{"-check-interval", "9000h"}, want: []string{"is more than a year"}},
		{args: []string{"-page-title", "Zahlungen – \"Prüfung\""}},
		{args: []string{"-page-title", strings.Repeat("ü", 100)}},
		{args: []string{"-page-title", strings.Repeat("ü", 101)}, want: []string{"-page-title (GRPC_HEALTH_PAGE_TITLE): is longer than 100 characters"}},
		{args: []string{"-page-title", "a\nb"}, want: []string{"has a line break"}},
		{args: []string{"-page-title", "a\u202eb"}, want: []string{"has an invisible character"}},
		{args: []string{"-page-title", "a\U0010fffeb"}, want: []string{"has a character that cannot be printed"}},
		{args: []string{"-all-addresses", "-min-healthy-addresses", "100%"}},
		{args: []string{"-all-addresses", "-min-healthy-addresses", "101%"}, want: []string{"-min-healthy-addresses (GRPC_HEALTH_MIN_HEALTHY_ADDRESSES): is more than 100%"}},
		{args: []string{"-all-addresses", "-min-healthy-addresses", "0"}, want: []string{"must be above zero"}},
		{args: []string{"-all-addresses", "-min-healthy-addresses", "0%"}, want: []string{"must be above zero"}},
		{args: []string{"-all-addresses", "-min-healthy-addresses=-1"}, want: []string{"not a whole number"}},
		{args: []string{"-all-addresses", "-min-healthy-addresses", "66.7%"}, want: []string{"not a whole number"}},
		{args: []string{"-all-addresses", "-min-healthy-addresses", "%"}, want: []string{"not a whole number"}},
		{args: []string{"-all-addresses", "-min-healthy-addresses", "67 %"}, want: []string{"has a space"}},
		{args: []string{"-all-addresses", "-min-healthy-addresses", "99999999999999999999"}, want: []string{"not a whole number"}},
		{args: []string{"-min-healthy-addresses", "2"}, want: []string{"means nothing without -all-addresses"}},
		{args: []string{"-all-addresses", "-use-proxy"}, want: []string{"-all-addresses (GRPC_HEALTH_ALL_ADDRESSES): contradicts -use-proxy"}},
		{args: []string{"-all-addresses", "-grpc-addr", "unix:///tmp/a"}, want: []string{"a unix socket has no addresses"}},
		{args: []string{"-all-addresses", "-grpc-addr", "127.0.0.1:1"}},
	} {
		_, err := ParseProxy(append([]string{"-grpc-addr", "localhost:1"}, tt.args...), io.Discard)
		expect(t, problems(t, err), tt.want)
	}
}

// thousand is a file of so many targets, each with settings of its own.
func thousand(n int) []byte {
	var b strings.Builder
	b.WriteString("defaults:\n  tls: true\n  ca_cert: /etc/ssl/certs\n  rpc_headers: {x-from: health}\ntargets:\n")
	for i := range n {
		fmt.Fprintf(&b, "  checkout-%d:\n    addr: \"checkout-%d.internal:443\"\n    service_name: [checkout.v1.Checkout, checkout.v1.Refunds]\n    group: payments\n    rpc_timeout: 500ms\n    rpc_headers:\n      - \"x-team: payments\"\n", i, i)
	}
	return []byte(b.String())
}

func BenchmarkReadTargets(b *testing.B) {
	content := thousand(1000)
	s := &Settings{variant: container}
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := s.ReadTargets(content); err != nil {
			b.Fatal(err)
		}
	}
}

// TestTargetsAreSmall bounds what a target holds: a thousand of them, with the process, belong into 30 MiB.
func TestTargetsAreSmall(t *testing.T) {
	const n, most = 1000, 1 << 10
	var before, after runtime.MemStats
	content := thousand(n)
	runtime.GC()
	runtime.ReadMemStats(&before)
	targets, _, err := readTargets(string(content))
	runtime.GC()
	runtime.ReadMemStats(&after)
	if err != nil {
		t.Fatal(err)
	}
	if each := int(after.HeapAlloc-before.HeapAlloc) / n; each > most {
		t.Errorf("a target holds %d bytes, want %d at most", each, most)
	} else {
		t.Logf("a target holds %d bytes", each)
	}
	runtime.KeepAlive(targets)
}
