package settings

import (
	"io"
	"strings"
	"testing"
	"time"
)

// marker is a secret that no message may contain.
const marker = "hunter2"

func FuzzHeader(f *testing.F) {
	for _, seed := range [][2]string{{"authorization", " Bearer "}, {"a-bin", "\x00"}, {":path", "/"}, {"te", "trailers"}, {"A b", ""}, {"a", " @/"}, {"a", " @arn:aws:secretsmanager:"}} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, name, value string) {
		if strings.Contains(name, marker) {
			t.Skip("the secret is in the name, which messages may contain")
		}
		r := newReader(function)
		h, fault := r.parseHeader(name + ":" + value + marker)
		if strings.Contains(fault, marker) {
			t.Errorf("the value is repeated: %s", fault)
		}
		if fault != "" {
			return
		}
		if h.Name == "" || h.Name != strings.ToLower(h.Name) || (h.Value == "") == (h.File == "") {
			t.Errorf("header %#v", h)
		}
		if !printable(h.Value) && !strings.HasSuffix(h.Name, "-bin") {
			t.Errorf("header %#v has a value that gRPC refuses", h)
		}
	})
}

func FuzzArguments(f *testing.F) {
	f.Add("-addr", "-service", "", "-v")
	f.Add("-v", "-rpc-header", "authorization: ", "--")
	f.Add("stray", "-unknown", "=", "-help")
	f.Add("-grpcaddr\n:1", "-http-listen-addr", ":", "-v")
	f.Fuzz(func(t *testing.T, before, name, value, after string) {
		secret := value + marker
		if strings.Contains(before+name+after, marker) || PathForm(secret) {
			t.Skip("the secret is in text that messages may contain: outside the value, or in a path")
		}
		for _, v := range []variant{container, probe} {
			for _, mid := range [][]string{{name + "=" + secret}, {name, " " + secret}} {
				args := append(strings.Split(before, "\n"), mid...)
				args = append(args, strings.Split(after, "\n")...)
				var out strings.Builder
				s, err := read(v, args, &out)
				if err != nil && strings.Contains(err.Error(), marker) || strings.Contains(out.String(), marker) {
					t.Errorf("the value is repeated: %v", err)
				}
				if (s == nil) == (err == nil) {
					t.Errorf("settings %v with error %v", s, err)
				}
			}
		}
	})
}

// FuzzEnvironment sets one variable to any text. Every variant must return either settings or problems, and no problem and no
// warning may contain the text.
func FuzzEnvironment(f *testing.F) {
	names := variables()
	for i := range names {
		f.Add(uint8(i), "")
	}
	for _, seed := range []string{
		"-----BEGIN CERTIFICATE-----\n", "arn:aws:secretsmanager:", "a: b\nte: x\n:", "spiffe://a/", "1s", "[::1]:1\x01", "a: @/", "true\xff", " ,,",
	} {
		for i := range names {
			f.Add(uint8(i), seed)
		}
	}
	f.Fuzz(func(t *testing.T, variable uint8, value string) {
		value += marker
		name := names[int(variable)%len(names)]
		_, path, _ := strings.Cut(value, "@")
		if strings.Contains(value, "\x00") || PathForm(value) || PathForm(path) {
			t.Skip("messages may contain a path, and no variable can contain a NUL")
		}
		t.Setenv("GRPC_HEALTH_ADDR", "localhost:50051")
		t.Setenv(name, value)
		for _, v := range []variant{function, lambda, container} {
			s, err := read(v, nil, io.Discard)
			if (s == nil) == (err == nil) {
				t.Fatalf("%s: settings %v with error %v", name, s, err)
			}
			if err != nil && strings.Contains(err.Error(), marker) {
				t.Errorf("%s: the value is repeated: %v", name, err)
			}
			if s != nil && strings.Contains(strings.Join(s.Warnings, "\n"), marker) {
				t.Errorf("%s: the value is repeated: %v", name, s.Warnings)
			}
		}
	})
}

// FuzzTargets reads any file, and one with any value: no file makes the process panic or wait, and no problem and no warning contains the value.
func FuzzTargets(f *testing.F) {
	for _, good := range goodFiles("/etc/hostname") {
		f.Add(good.content, "a")
	}
	for _, bad := range badFiles("/etc/hostname") {
		f.Add(bad.content, "\"")
	}
	for _, value := range []string{"*", "&a ", "!!int ", "|\n      ", "[", "{a: ", "? ", "- ", "'", "<<: ", "@/", "# ", "a: b: "} {
		f.Add("", value)
	}
	f.Fuzz(func(t *testing.T, content, value string) {
		began := time.Now()
		targets, _, err := readTargets(content)
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("took %v", took)
		}
		if (len(targets) == 0) == (err == nil) {
			t.Errorf("%d targets with error %v", len(targets), err)
		}
		for _, target := range targets {
			if !legalName(target.Name) || target.Addr == "" || target.RPCTimeout <= 0 {
				t.Errorf("%+v", target)
			}
		}
		if strings.Contains(content, marker) || PathForm(value+marker) || strings.ContainsAny(value, "\r\n\u0085\u2028\u2029:?{[,&<") {
			return // the secret may be a name, a key or a path
		}
		for i := range declaration {
			if !declaration[i].ofUpstream() {
				continue
			}
			_, warnings, err := readTargets(one(declaration[i].key() + ": " + value + marker))
			if err != nil && strings.Contains(err.Error(), marker) || strings.Contains(strings.Join(warnings, "\n"), marker) {
				t.Errorf("%s: the value is repeated: %v %v", declaration[i].key(), err, warnings)
			}
		}
	})
}
