package target

import (
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ text, host, authority string }{
		{"upstream.test:50051", "upstream.test", "upstream.test:50051"},
		{"upstream.test.:50051", "upstream.test.", "upstream.test.:50051"},
		{"under_score:50051", "under_score", "under_score:50051"},
		{"127.0.0.1:50051", "127.0.0.1", "127.0.0.1:50051"},
		{"[::1]:50051", "::1", "[::1]:50051"},
		{"[fe80::1%eth0]:50051", "fe80::1", "[fe80::1]:50051"},
		{"[fe80::1%25eth0]:50051", "fe80::1", "[fe80::1]:50051"},
		{"fe80::1%eth0", "fe80::1", "[fe80::1]"},
		{"dns:///[fe80::1%2]", "fe80::1", "[fe80::1]"},
		{"passthrough:///[fe80::1%25eth0]:1", "fe80::1", "[fe80::1]:1"},
		{":50051", "localhost", "localhost:50051"},
		{"dns:///:50051", "localhost", "localhost:50051"},
		{"dns:///upstream.test:50051", "upstream.test", "upstream.test:50051"},
		{"dns:upstream.test:50051", "upstream.test", "upstream.test:50051"},
		{"dns:///upstream.test", "upstream.test", "upstream.test"},
		{"upstream.test", "upstream.test", "upstream.test"},
		{"upstream.test:https", "upstream.test", "upstream.test:https"},
		{"dns://8.8.8.8/upstream.test:1", "upstream.test", "upstream.test:1"},
		{"DNS:///upstream.test:1", "upstream.test", "upstream.test:1"},
		{"passthrough:///upstream.test:1", "upstream.test", "upstream.test:1"},
		{"passthrough:///unix:///run/s.sock", "localhost", "localhost"},
		{"unix:///run/s.sock", "localhost", "localhost"},
		{"unix:s.sock", "localhost", "localhost"},
		{"unix-abstract:name", "localhost", "localhost"},
	} {
		target, err := Parse(row.text)
		if err != nil {
			t.Errorf("%s: %v", row.text, err)
			continue
		}
		if target.Host() != row.host || target.Authority() != row.authority || target.String() != row.text {
			t.Errorf("%s: host %q, authority %q, text %q", row.text, target.Host(), target.Authority(), target)
		}
	}
	long := strings.Repeat("x", 64)
	for text, hint := range map[string]string{
		"":                                "host:port",
		"upstream.test:":                  "ends with a colon",
		"[::1]:":                          "ends with a colon",
		"upstream.test:0":                 "port is not a number",
		"upstream.test:99999":             "port is not a number",
		"upstream.test:no-such-service":   "name of a service",
		"upstream.test:-1":                "name of a service",
		"upstream.test:50051/":            "path behind its port",
		"upstream.test/path":              "character",
		"::1:50051":                       "brackets",
		"[::zz]:50051":                    "IPv6",
		"[::1:50051":                      "brackets",
		"https://upstream.test:1":         "set TLS",
		"grpcs://upstream.test:1/":        "set TLS",
		"http://upstream.test:1":          "without a scheme",
		"grpc://upstream.test:1":          "without a scheme",
		"tcp://upstream.test:1":           "without a scheme",
		"etcd://upstream.test:1":          "scheme",
		"//upstream.test:1":               "character",
		"xds:///upstream.test:1":          "xds",
		"ipv4:192.0.2.1:1":                "does not know",
		"ipv6:[2001:db8::1]:1":            "does not know",
		"up stream:1":                     "character",
		"up\nstream:1":                    "control character",
		"user@upstream.test:1":            "character",
		"dns://user:pw@ns.test/a:1":       "name server",
		"dns://ns.test:x:y/a:1":           "name server",
		"dns://ns.test:0/a:1":             "name server",
		"b\u00fccher.test:1":              "xn--",
		"a..test:1":                       "empty part",
		".test:1":                         "empty part",
		"upstream.test..:1":               "empty part",
		long + ".test:1":                  "63 bytes",
		strings.Repeat("a.", 127) + "b:1": "253 bytes",
		"-a.test:1":                       "hyphen",
		"a-.test:1":                       "hyphen",
		"256.0.0.1:1":                     "IPv4",
		"127.1:1":                         "IPv4",
		"10.0.0.1.5:1":                    "IPv4",
		"unix:":                           "path",
		"unix://":                         "path",
		"unix://host/run/s.sock":          "unix:///absolute/path",
		"unix:///" + long + long:          "bytes that the system takes: use a shorter one",
		"unix-abstract:" + long + long:    "bytes that the system takes: use a shorter one",
		"unix:///run/100%":                "%25",
		"unix:///run/a?b":                 "%3F",
		"unix:///run/a%00b":               "zero byte",
		"unix-abstract:":                  "name",
		"unix-abstract://host/name":       "authority",
		"dns://upstream.test:1":           "three slashes",
		"dns:":                            "no host",
		"dns:///":                         "no host",
		"dns:///a%zz:1":                   "escape",
		"passthrough:///upstream.test":    "no port",
		"passthrough:upstream.test:0":     "port is not a number",
		"secret-value.test:99999x":        "port is not a number",
	} {
		_, err := Parse(text)
		if err == nil {
			t.Errorf("%q is accepted", text)
			continue
		}
		if !strings.Contains(err.Error(), hint) {
			t.Errorf("%q: %v, want a hint with %q", text, err, hint)
		}
		if len(text) > 14 && strings.Contains(err.Error(), text) {
			t.Errorf("%q: the error repeats the value: %v", text, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{"a:1", "[::1]:1", "unix:///s", "dns://1.1.1.1/a:1", ":", "://", "dns:///%", "\x00:1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		target, err := Parse(text)
		if err == nil && (target.Host() == "" || target.Authority() == "") {
			t.Errorf("%q is accepted without a host", text)
		}
	})
}
