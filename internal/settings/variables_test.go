package settings

import (
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// TestVariablesWithoutThePrefix: a variable without the prefix belongs to another program and has no effect, whatever its value.
// The names of earlier releases have none either.
func TestVariablesWithoutThePrefix(t *testing.T) {
	t.Setenv("GRPC_HEALTH_ADDR", "localhost:1")
	parse := func() (all [4]*Settings) {
		t.Helper()
		for i, v := range variants {
			s, err := read(v, nil, io.Discard)
			if err != nil {
				t.Fatalf("variant %d: %v", v, err)
			}
			all[i] = s
		}
		return all
	}
	before := parse()
	names := []string{
		"GRPC_ADDR", "GRPC_AUTHORITY", "GRPC_TLS", "GRPC_CA_CERT", "GRPC_CLIENT_CERT", "GRPC_CLIENT_KEY", "GRPC_TLS_NO_VERIFY", "GRPC_SNI_SERVER_NAME",
	}
	for i := range declaration {
		if name := declaration[i].name; name != "" {
			names = append(names, name)
		}
	}
	for _, value := range []string{"true", "7", "7s", "a: b", "nonsense\n"} {
		for _, name := range names {
			t.Setenv(name, value)
		}
		if after := parse(); !reflect.DeepEqual(after, before) {
			t.Errorf("with %q for every name: %+v, want %+v", value, after, before)
		}
	}
}

func TestUnknownVariables(t *testing.T) {
	const seeHelp = " is no setting: see -help"
	for _, tt := range []struct {
		variable, value string
		want            string // empty: no problem
	}{
		{"GRPC_HEALTH_SERVICE_NAMES", "a", "GRPC_HEALTH_SERVICE_NAMES is no setting: did you mean GRPC_HEALTH_SERVICE_NAME?"},
		{"GRPC_HEALTH_ADR", "a", "GRPC_HEALTH_ADR is no setting: did you mean GRPC_HEALTH_ADDR?"},
		{"GRPC_HEALTH_Addr", "a", "GRPC_HEALTH_Addr is no setting: did you mean GRPC_HEALTH_ADDR?"},
		{"GRPC_HEALTH_CONECT_TIMOUT", "a", "GRPC_HEALTH_CONECT_TIMOUT is no setting: did you mean GRPC_HEALTH_CONNECT_TIMEOUT?"},
		{"GRPC_HEALTH_CONECT_TIMOT", "a", "GRPC_HEALTH_CONECT_TIMOT" + seeHelp},
		{"GRPC_HEALTH_HTTP_LISTEN_ADDRESS", "a", "GRPC_HEALTH_HTTP_LISTEN_ADDRESS" + seeHelp},
		// Named like a flag.
		{"GRPC_HEALTH_GRPC_ADDR", "a", "GRPC_HEALTH_GRPC_ADDR is no setting: did you mean GRPC_HEALTH_ADDR?"},
		{"GRPC_HEALTH_GRPC_TLS_NO_VERIFY", "a", "GRPC_HEALTH_GRPC_TLS_NO_VERIFY is no setting: did you mean GRPC_HEALTH_TLS_NO_VERIFY?"},
		{"GRPC_HEALTH_TLS_CA_CERT", "a", "GRPC_HEALTH_TLS_CA_CERT is no setting: did you mean GRPC_HEALTH_CA_CERT?"},
		{"GRPC_HEALTH_RPC_HEADER", "a", "GRPC_HEALTH_RPC_HEADER is no setting: did you mean GRPC_HEALTH_RPC_HEADERS?"},
		{"GRPC_HEALTH_NONSENSE", "a", "GRPC_HEALTH_NONSENSE" + seeHelp},
		{"GRPC_HEALTH_RUNCLI", "true", "GRPC_HEALTH_RUNCLI" + seeHelp}, // a flag only
		{"GRPC_HEALTH_", "a", "GRPC_HEALTH_" + seeHelp},
		{"GRPC_HEALTH_A\nB\x1b[31m", "a", `GRPC_HEALTH_A\nB\x1b[31m` + seeHelp},
		{"GRPC_HEALTH_\u202eB\xff", "a", `GRPC_HEALTH_\u202eB\xff` + seeHelp},
		{"GRPC_HEALTH_" + strings.Repeat("A", 10_000), "a", "GRPC_HEALTH_" + strings.Repeat("A", maxShown-len(Prefix)) + "..." + seeHelp},

		{"GRPC_HEALTH_NONSENSE", "", ""}, // unset
		{"GRPC_HEALTHY", "a", ""},
		{"grpc_health_addr", "a", ""},
		{"X_GRPC_HEALTH_NONSENSE", "a", ""},

		// Kubernetes sets these for the Services grpc-health and grpc-health-proxy.
		{"GRPC_HEALTH_SERVICE_HOST", "10.0.0.1", ""},
		{"GRPC_HEALTH_SERVICE_PORT", "8080", ""},
		{"GRPC_HEALTH_PORT", "tcp://10.0.0.1:8080", ""},
		{"GRPC_HEALTH_PORT_8080_TCP", "tcp://10.0.0.1:8080", ""},
		{"GRPC_HEALTH_PORT", "8080", "GRPC_HEALTH_PORT" + seeHelp},
		{"GRPC_HEALTH_PROXY_SERVICE_HOST", "10.0.0.1", ""},
		{"GRPC_HEALTH_PROXY_SERVICE_PORT", "8080", ""},
		{"GRPC_HEALTH_PROXY_SERVICE_PORT_HTTP", "8080", ""},
		{"GRPC_HEALTH_PROXY_PORT", "tcp://10.0.0.1:8080", ""},
		{"GRPC_HEALTH_PROXY_PORT", "udp://10.0.0.1:53", ""},
		{"GRPC_HEALTH_PROXY_PORT", "8080", "GRPC_HEALTH_PROXY_PORT" + seeHelp},
		{"GRPC_HEALTH_PROXY_PORT", "http://10.0.0.1:8080", "GRPC_HEALTH_PROXY_PORT" + seeHelp},
		{"GRPC_HEALTH_PROXY_PORT_8080_TCP", "tcp://10.0.0.1:8080", ""},
		{"GRPC_HEALTH_PROXY_PORT_8080_TCP_PROTO", "tcp", ""},
		{"GRPC_HEALTH_PROXY_PORT_8080_TCP_PORT", "8080", ""},
		{"GRPC_HEALTH_PROXY_PORT_8080_TCP_ADDR", "10.0.0.1", ""},
		{"GRPC_HEALTH_PROXY_HOST", "10.0.0.1", "GRPC_HEALTH_PROXY_HOST" + seeHelp},
	} {
		t.Run(tt.variable, func(t *testing.T) {
			t.Setenv(tt.variable, tt.value)
			_, err := ParseProxy([]string{"-grpc-addr", "localhost:1"}, io.Discard)
			var got string
			if p := problems(t, err); len(p) > 0 {
				got = p.Error()
			}
			if got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
			for _, args := range [][]string{{"-addr", "localhost:1"}, {"-service", "a"}} {
				if _, err := ParseProbe(args, io.Discard); tt.want != "" && !slices.Contains(problems(t, err), tt.want) {
					t.Errorf("the probe with %q: %v, want %q", args, err, tt.want)
				}
			}
		})
	}
}

// TestAllUnknownVariablesAtOnce: every variable is reported, in a fixed order, together with all other problems. The function and
// Lambda have no -help.
func TestAllUnknownVariablesAtOnce(t *testing.T) {
	t.Setenv("GRPC_HEALTH_ZIP", "s3cr3t")
	t.Setenv("GRPC_HEALTH_NONSENSE", "s3cr3t")
	t.Setenv("GRPC_HEALTH_RPC_TIMEOUT", "s3cr3t")
	const want = `GRPC_HEALTH_RPC_TIMEOUT: the value cannot be read: write a duration such as 500ms or 2s
GRPC_HEALTH_NONSENSE is no setting: the manual's table of settings has them all
GRPC_HEALTH_ZIP is no setting: did you mean GRPC_HEALTH_GZIP?
GRPC_HEALTH_ADDR: required: write the upstream as host:port`
	for _, v := range []variant{function, lambda} {
		if _, err := read(v, nil, io.Discard); problems(t, err).Error() != want {
			t.Errorf("variant %d:\n%v\nwant\n%s", v, err, want)
		}
	}
}

// FuzzVariable sets a variable that is not a setting. One problem must name it, in printable characters only and without its value.
func FuzzVariable(f *testing.F) {
	for _, seed := range []string{"", "SERVICE_NAMES", "A\nB", "\x1b[31m", "\u202e", "\xff\\\"", "PORT_1", strings.Repeat("é", 200)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if strings.ContainsAny(name, "=\x00") || strings.Contains(name, marker) {
			t.Skip("not a possible name, or a name that contains the secret")
		}
		t.Setenv("GRPC_HEALTH_ADDR", "localhost:1")
		variable := Prefix + "NO_" + name
		t.Setenv(variable, marker)
		_, err := ParseProxy(nil, io.Discard)
		if ofKubernetesService(variable, marker) != (err == nil) {
			t.Fatalf("%q: %v", variable, err)
		}
		if err == nil {
			return
		}
		text := err.Error()
		if len(text) > 4*maxShown+200 || strings.ContainsFunc(text, func(c rune) bool { return !unicode.IsPrint(c) }) {
			t.Errorf("%q: %q", variable, text)
		}
		if strings.Contains(text, marker) {
			t.Errorf("the value is repeated: %s", text)
		}
	})
}
