package target

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ text, host, authority string }{
		{"upstream.test:50051", "upstream.test", "upstream.test:50051"},
		{"127.0.0.1:50051", "127.0.0.1", "127.0.0.1:50051"},
		{"[::1]:50051", "::1", "[::1]:50051"},
		{":50051", "localhost", "localhost:50051"},
		{"dns:///upstream.test:50051", "upstream.test", "upstream.test:50051"},
		{"dns:upstream.test:50051", "upstream.test", "upstream.test:50051"},
		{"dns:///upstream.test", "upstream.test", "upstream.test:443"},
		{"dns://8.8.8.8/upstream.test:1", "upstream.test", "upstream.test:1"},
		{"DNS:///upstream.test:1", "upstream.test", "upstream.test:1"},
		{"passthrough:///upstream.test:1", "upstream.test", "upstream.test:1"},
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
	for text, hint := range map[string]string{
		"":                         "host:port",
		"upstream.test":            "no port",
		"upstream.test:":           "port is not a number",
		"upstream.test:0":          "port is not a number",
		"upstream.test:99999":      "port is not a number",
		"upstream.test:http":       "port is not a number",
		"::1:50051":                "brackets",
		"[::zz]:50051":             "IPv6",
		"https://upstream.test:1":  "scheme",
		"xds:///upstream.test:1":   "scheme",
		"up stream:1":              "character",
		"user@upstream.test:1":     "character",
		"unix:":                    "path",
		"unix://host/run/s.sock":   "unix:///absolute/path",
		"unix-abstract:":           "name",
		"dns://upstream.test:1":    "three slashes",
		"dns:///:50051":            "no host",
		"dns:///a%zz:1":            "escape",
		"secret-value.test:99999x": "port is not a number",
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

func TestInterleave(t *testing.T) {
	t.Parallel()
	var ips []netip.Addr
	for _, s := range []string{"2001:db8::1", "2001:db8::2", "2001:db8::3", "192.0.2.1", "::ffff:192.0.2.2"} {
		ips = append(ips, netip.MustParseAddr(s))
	}
	var got []string
	parsed, err := Parse("upstream.test:1")
	if err != nil {
		t.Fatal(err)
	}
	addresses, err := parsed.Addresses(t.Context(), func(_ context.Context, server, host string) ([]netip.Addr, error) {
		if server != "" || host != "upstream.test" {
			t.Errorf("asked %q for %q", server, host)
		}
		return ips, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addresses {
		got = append(got, a.String())
	}
	want := []string{"[2001:db8::1]:1", "192.0.2.1:1", "[2001:db8::2]:1", "192.0.2.2:1", "[2001:db8::3]:1"}
	if !slices.Equal(got, want) {
		t.Errorf("order %v, want %v", got, want)
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
