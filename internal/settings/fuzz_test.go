package settings

import (
	"strings"
	"testing"
)

// marker stands for a secret.
const marker = "hunter2"

func FuzzHeader(f *testing.F) {
	for _, seed := range [][2]string{{"authorization", " Bearer "}, {"a-bin", "\x00"}, {":path", "/"}, {"te", "trailers"}, {"A b", ""}, {"a", " @/"}, {"a", " @arn:aws:secretsmanager:"}} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, name, value string) {
		if strings.Contains(name, marker) {
			t.Skip()
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
		if strings.Contains(before+name+after, marker) || pathShaped(secret) {
			t.Skip()
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
