package settings

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// kinds has a setting of each kind, with a legal value and what makes it legal.
var kinds = []struct {
	name, value string
	with        map[string]string
	got         func(*Settings) string
}{
	{name: "ADDR", value: "localhost:50051", got: func(s *Settings) string { return s.Addr }},
	{name: "SERVICE_NAME", value: "echo.EchoServer", got: func(s *Settings) string { return strings.Join(s.Services, ",") }},
	{name: "CONNECT_TIMEOUT", value: "1500ms", got: func(s *Settings) string { return fmt.Sprint(s.ConnectTimeout.Milliseconds(), "ms") }},
	{name: "MAX_CONCURRENT_CHECKS", value: "7", got: func(s *Settings) string { return fmt.Sprint(s.MaxConcurrentChecks) }},
	{name: "GZIP", value: "true", got: func(s *Settings) string { return fmt.Sprint(s.Gzip) }},
	{name: "USER_AGENT", value: "probe/1.0", got: func(s *Settings) string { return s.UserAgent }},
	{name: "AUTHORITY", value: "a.example:443", got: func(s *Settings) string { return s.Authority }},
	{name: "SNI_SERVER_NAME", value: "a.example", with: map[string]string{"TLS": "true"}, got: func(s *Settings) string { return s.ServerName }},
	{name: "CA_CERT", value: "/mounted/later.pem", with: map[string]string{"TLS": "true"}, got: func(s *Settings) string { return s.CACert }},
	{name: "ALTS_TARGET_SERVICE_ACCOUNTS", value: "a@b.example", with: map[string]string{"ALTS": "true"},
		got: func(s *Settings) string { return strings.Join(s.ALTSTargetServiceAccounts, ",") }},
	{name: "LOG_LEVEL", value: "debug", got: func(s *Settings) string { return s.LogLevel }},
	{name: "RPC_HEADERS", value: "x-a: b", got: func(s *Settings) string { return s.Headers[0].Name + ": " + s.Headers[0].Value }},
}

func setKind(t *testing.T, with map[string]string, name, value string) {
	t.Helper()
	t.Setenv(Prefix+"ADDR", "localhost:1")
	for other, value := range with {
		t.Setenv(Prefix+other, value)
	}
	t.Setenv(Prefix+name, value)
}

// TestWhiteSpaceAroundAValue: it is dropped, of each kind, by variable and by flag.
func TestWhiteSpaceAroundAValue(t *testing.T) {
	for _, k := range kinds {
		for _, wrap := range []string{" %s", "%s ", "%s\n", "%s\r", "%s\r\n", "\n%s\n", "\t%s\t", "\u00a0%s", "%s\u3000", "%s\u2028"} {
			t.Run(k.name+fmt.Sprintf("%q", wrap), func(t *testing.T) {
				setKind(t, k.with, k.name, fmt.Sprintf(wrap, k.value))
				s, err := FromEnvironment()
				if err != nil {
					t.Fatal(err)
				}
				if got := strings.ReplaceAll(k.got(s), " ms", "ms"); got != k.value {
					t.Errorf("%q, want %q", got, k.value)
				}
			})
		}
	}
	s, err := ParseProxy([]string{"-grpc-addr", " a:1\r", "-gzip=true\n", "-rpc-timeout=\t2s", "-service-name", "a\r\n", "-v", "1\r", "-debug= true "}, io.Discard)
	if err != nil || s.Addr != "a:1" || !s.Gzip || s.RPCTimeout != 2*time.Second || !slices.Equal(s.Services, []string{"a"}) || s.LogLevel != "debug" {
		t.Errorf("%+v, %v", s, err)
	}
	t.Setenv("GRPC_HEALTH_ADDR", " \r\n")
	if _, err := FromEnvironment(); !strings.Contains(fmt.Sprint(err), "GRPC_HEALTH_ADDR: required") {
		t.Errorf("a variable of white space alone: %v, want that it counts as unset", err)
	}
}

// TestCharactersThatNobodySees: an error names them, of each kind, and repeats nothing of the value.
func TestCharactersThatNobodySees(t *testing.T) {
	for _, k := range kinds {
		for _, tt := range []struct{ wrap, want string }{
			{`"%s"`, "is in quotes"}, {`'%s'`, "is in quotes"}, {"`%s`", "is in quotes"}, {"\u201c%s\u201d", "is in quotes"},
			{"\u00ab%s\u00bb", "is in quotes"}, {"\u2018%s\u2019", "is in quotes"}, {"\u201e%s\u201c", "is in quotes"},
			{`"%s`, "begins with a quote"}, {`%s"`, "ends in a quote"}, {"%s\u2019", "ends in a quote"},
			{"\ufeff%s", "has a byte order mark (U+FEFF), as character 1"}, {"%s\u200b", "has a zero-width character (U+200B)"},
			{"%s\u2060", "has a zero-width character (U+2060)"}, {"\u202e%s", "has an invisible character (U+202E), as character 1"},
			{"%s\ufe0f", "has an invisible character (U+FE0F)"}, {"%s\u00ad", "has an invisible character (U+00AD)"},
			{"x\u00a0%s", "has a no-break space (U+00A0), as character 2"}, {"x\u3000%s", "has a space of another kind (U+3000)"},
			{"x\n%s", "has a line break (U+000A), as character 2"}, {"x\r%s", "has a line break (U+000D)"}, {"x\u2028%s", "has a line break (U+2028)"},
			{"x\t%s", "has a tab (U+0009)"}, {"%s\x1b[0m", "has a control character (U+001B)"}, {"x\xff%s", "has a byte that is not UTF-8"},
			{`%s\n`, `ends in a line break that is written as \n`},
		} {
			free := k.name == "USER_AGENT" || k.name == "RPC_HEADERS"
			if free && (strings.HasPrefix(tt.want, "begins") || strings.HasPrefix(tt.want, "ends")) || k.name == "RPC_HEADERS" && strings.HasPrefix(tt.wrap, "x\n") {
				continue // a part of free text, or the end of a header
			}
			if k.name == "RPC_HEADERS" && tt.want == "is in quotes" {
				tt.want = "begins with a quote" // its name does
			}
			t.Run(fmt.Sprintf("%s %q", k.name, tt.wrap), func(t *testing.T) {
				setKind(t, k.with, k.name, fmt.Sprintf(tt.wrap, k.value))
				for _, v := range []variant{function, lambda, container, probe} {
					s := &declaration[slices.IndexFunc(declaration[:], func(s setting) bool { return s.name == k.name })]
					if !s.readBy(v) {
						continue
					}
					_, err := read(v, nil, io.Discard)
					text := fmt.Sprint(err)
					if p := problems(t, err); len(p) != 1 || !strings.HasPrefix(text, s.label(v, false)+": ") || !strings.Contains(text, tt.want) {
						t.Errorf("variant %d: %v, want only %q", v, err, tt.want)
					}
					if strings.Contains(text, k.value) && k.value != "true" {
						t.Errorf("the value is repeated: %v", err)
					}
				}
			})
		}
	}
}

// TestCharactersOfFlags: flags are read as variables are.
func TestCharactersOfFlags(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a \u00a0'file'")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args []string
		want []string
	}{
		{args: []string{"-grpc-addr", `"a:1"`}, want: []string{"-grpc-addr (GRPC_HEALTH_ADDR): is in quotes"}},
		{args: []string{"-grpc-addr", "a: 1"}, want: []string{"-grpc-addr (GRPC_HEALTH_ADDR): has a space: "}},
		{args: []string{"-grpc-addr", "a:1", "-grpc-tls='true'", "-grpc-ca-cert", path}, want: []string{"-grpc-tls (GRPC_HEALTH_TLS): is in quotes"}}, // and no word of the certificate
		{args: []string{"-grpc-addr", "a:1", "-grpc-tls", "-grpc-ca-cert", path}},                                                                     // such a file exists
		{args: []string{"-grpc-addr", "a:1", "-grpc-tls", "-grpc-ca-cert", `"` + path + `"`}, want: []string{"-grpc-ca-cert (GRPC_HEALTH_CA_CERT): "}},
		{args: []string{"-grpc-addr", "a:1", "-service-name", `a,"b"`}, want: []string{"-service-name (GRPC_HEALTH_SERVICE_NAME): a member of the list is in quotes"}},
		{args: []string{"-grpc-addr", "a:1", "-service-name", "a,b\u200b"}, want: []string{"-service-name (GRPC_HEALTH_SERVICE_NAME): a member of the list has a zero-width"}},
		{args: []string{"-grpc-addr", "a:1", "-rpc-header", `authorization: "Bearer x"`}}, // a warning
		{args: []string{"-grpc-addr", "a:1", "-rpc-header", `"authorization: Bearer x"`}, want: []string{"-rpc-header (GRPC_HEALTH_RPC_HEADERS): header 1: begins with a quote"}},
		{args: []string{"-grpc-addr", "a:1", "-user-agent", `the "new" one`}},
		{args: []string{"-grpc-addr", "a:1", "-user-agent", `one that is "new"`}},
		{args: []string{"-grpc-addr", "a:1", "-debug='true'"}, want: []string{"-debug: the value cannot be read: write true or false"}},
	} {
		t.Run(fmt.Sprintf("%q", tt.args), func(t *testing.T) {
			t.Parallel()
			_, err := ParseProxy(tt.args, io.Discard)
			expect(t, problems(t, err), tt.want)
		})
	}
}

// TestWords: they have no case, and warning is warn.
func TestWords(t *testing.T) {
	for _, tt := range []struct{ name, value, want string }{
		{"LOG_LEVEL", "INFO", "info"}, {"LOG_LEVEL", "Debug", "debug"}, {"LOG_LEVEL", "warning", "warn"}, {"LOG_LEVEL", "WARNING", "warn"}, {"LOG_LEVEL", "eRRoR", "error"},
		{"LOG_LEVEL", "fatal", ""}, {"LOG_LEVEL", "30", ""},
		{"LOG_FORMAT", "JSON", "json"}, {"LOG_FORMAT", "Text", "text"}, {"LOG_FORMAT", "logfmt", ""},
		{"GZIP", "True", "true"}, {"GZIP", "TRUE", "true"}, {"GZIP", "tRuE", "true"}, {"GZIP", "T", "true"}, {"GZIP", "1", "true"}, {"GZIP", "FALSE", "false"}, {"GZIP", "0", "false"},
		{"GZIP", "yes", ""}, {"GZIP", "on", ""}, {"GZIP", "off", ""}, {"GZIP", "2", ""}, {"GZIP", "enabled", ""},
	} {
		t.Run(tt.name+"="+tt.value, func(t *testing.T) {
			setKind(t, nil, tt.name, tt.value)
			s, err := FromEnvironment()
			if tt.want == "" {
				if advice := map[string]string{"LOG_LEVEL": "write debug, info, warn or error", "LOG_FORMAT": "write text or json", "GZIP": "write true or false (1, 0, t and f mean the same)"}[tt.name]; !strings.Contains(fmt.Sprint(err), advice) {
					t.Errorf("%v, want %q", err, advice)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := map[string]string{"LOG_LEVEL": s.LogLevel, "LOG_FORMAT": s.LogFormat, "GZIP": fmt.Sprint(s.Gzip)}[tt.name]; got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
	s, err := ParseProxy([]string{"-grpc-addr", "a:1", "-runcli=True", "-format", "JSON", "-jsonLog=FALSE"}, io.Discard)
	if err != nil || !s.RunCLI || s.Format != "json" || s.LogFormat != "text" {
		t.Errorf("%+v, %v", s, err)
	}
}

// TestWordsAfterTheFlagsOfTheProbe: they and what follows them have no effect, as with the earlier tool, and a warning says so.
func TestWordsAfterTheFlagsOfTheProbe(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		args  []string
		want  string // a part of the only warning
		noTLS bool
	}{
		{args: []string{"||", "exit", "1"}, want: "argument 3 is not a flag, so it has no effect, nor has what follows it: quote"},
		{args: []string{"&&", "kill", "-9", "1"}, want: "argument 3 is not a flag"},
		{args: []string{"-v", "true"}, want: "argument 4 is not a flag, so it has no effect, nor has what follows it: -v is on without a value: write -v=false"},
		{args: []string{"-v", "false", "-service", "a", "-rpc-timeout=1s", "-unknown"}, want: "argument 4 is not a flag, so it has no effect, nor has what follows it (-service, -rpc-timeout): -v is on"},
		{args: []string{""}, want: "argument 3 is not a flag"},
		{args: []string{"-"}, want: "argument 3 is not a flag"},
		{args: []string{"--", "-v"}, want: "argument 4 is not a flag, so it has no effect"},
		{args: []string{"\u2013service", "a"}, want: "it begins with a dash that is no hyphen (U+2013): write -"},
		{args: []string{"\u2014v"}, want: "it begins with a dash that is no hyphen (U+2014): write -"},
		{args: []string{"\u2212v"}, want: "it begins with a dash that is no hyphen (U+2212): write -"},
		{args: []string{"-rpc-header", "authorization:", "Bearer", "-s3cret"}, want: "argument 5 is not a flag"},
		{args: []string{"--"}},
	} {
		t.Run(fmt.Sprintf("%q", tt.args), func(t *testing.T) {
			t.Parallel()
			s, err := ParseProbe(append([]string{"-addr", "a:1"}, tt.args...), io.Discard)
			if err != nil {
				t.Fatal(err)
			}
			if want := min(len(tt.want), 1); len(s.Warnings) != want || want == 1 && !strings.Contains(s.Warnings[0], tt.want) {
				t.Errorf("warnings %q, want %q", s.Warnings, tt.want)
			}
			if len(s.Services) > 0 || s.RPCTimeout != time.Second {
				t.Errorf("a flag after a word has an effect: %+v", s)
			}
		})
	}
	_, err := ParseProbe([]string{"-tls", "true", "-addr", "a:1"}, io.Discard)
	expect(t, problems(t, err), []string{"-addr (GRPC_HEALTH_ADDR): required", "argument 2 is not a flag, so it has no effect, nor has what follows it (-addr): -tls is on"})
	for _, args := range [][]string{{"x"}, {"--", "x"}, {"-debug", "true"}} {
		if _, err := ParseProxy(append([]string{"-grpc-addr", "a:1"}, args...), io.Discard); len(problems(t, err)) != 1 {
			t.Errorf("the proxy with %q: %v, want one problem", args, err)
		}
	}
	if _, err := ParseProxy([]string{"-grpc-addr", "a:1", "--"}, io.Discard); err != nil {
		t.Error(err)
	}
}

// TestSettingsThatAreNotLookedAt: those of the listeners with -runcli, those of the upstream with -check-self, and those of both in
// the probe with -addr.
func TestSettingsThatAreNotLookedAt(t *testing.T) {
	listeners := map[string]string{
		"HTTP_LISTEN_ADDR": "nonsense", "HTTP_LISTEN_PATH": "z", "HTTPS_LISTEN_KEY": "/no/such.pem", "HTTPS_LISTEN_VERIFY": "perhaps", "SHUTDOWN_GRACE": "soon",
		"METRICS_HTTP_LISTEN_ADDR": "nonsense", "METRICS_HTTP_PATH": "x", "HTTP_AUTH_TOKEN_FILE": "/no/such.token",
	}
	upstream := map[string]string{
		"ADDR": "nonsense:", "TLS": "perhaps", "CONNECT_TIMEOUT": "soon", "CLIENT_KEY": "/no/such.pem", "SPIFFE_SERVER_ID": "x", "RPC_HEADERS": "x", "SERVICE_NAME": ",,",
	}
	for _, tt := range []struct {
		name  string
		env   map[string]string
		parse func([]string, io.Writer) (*Settings, error)
		args  []string
		want  int // how many problems there are without args
	}{
		{"-runcli", listeners, ParseProxy, []string{"-runcli"}, 9},
		{"-check-self", upstream, ParseProxy, []string{"-check-self", "-grpc-addr", "x"}, 9},
		{"-addr", upstream, ParseProbe, []string{"-addr", "a:1"}, 9},
		{"settings of the proxy", listeners, ParseProbe, nil, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("GRPC_HEALTH_ADDR", "a:1")
			for name, value := range tt.env {
				t.Setenv(Prefix+name, value)
			}
			if s, err := tt.parse(tt.args, io.Discard); err != nil {
				t.Errorf("%+v, %v", s, err)
			}
			_, err := tt.parse(nil, io.Discard)
			if p := problems(t, err); len(p) != tt.want {
				t.Errorf("without arguments there are %d problems, want %d:\n%v", len(p), tt.want, p)
			}
		})
	}
	for _, args := range [][]string{
		{"-runcli", "-http-listen-addr", "localhost:9000"},
		{"-http-listen-addr", "", "-runcli"},
		{"-shutdown-grace", "soon", "-https-listen-cert", "/no/such.pem", "-https-listen-verify", "-runcli"},
	} {
		if _, err := ParseProxy(append(args, "-grpc-addr", "a:1"), io.Discard); err != nil {
			t.Errorf("%q: %v", args, err)
		}
	}
}

func TestCheckSelf(t *testing.T) {
	t.Parallel()
	here := file(t)
	for _, tt := range []struct {
		args []string
		want []string
	}{
		{},
		{args: []string{"-http-listen-addr", ":80", "-log-level", "DEBUG"}},
		{args: []string{"-http-listen-addr", "x"}, want: []string{"-http-listen-addr (GRPC_HEALTH_HTTP_LISTEN_ADDR): not host:port"}},
		{args: []string{"-http-listen-addr", "localhost:0"}, want: []string{"-http-listen-addr (GRPC_HEALTH_HTTP_LISTEN_ADDR): with port 0"}},
		{args: []string{"-runcli"}, want: []string{"-runcli: contradicts -check-self"}},
		{args: []string{"-https-listen-cert", "/elsewhere.pem", "-https-listen-key", "/elsewhere.pem"}}, // the proxy reads them
		{args: []string{"-https-listen-cert", here, "-https-listen-key", here, "-https-listen-verify", "-https-listen-ca", here}},
		{args: []string{"-https-listen-cert", here, "-https-listen-key", here, "-https-listen-verify", "-https-listen-ca", here, "-metrics-http-listen-addr="}, want: []string{"-check-self: has nobody to ask"}},
	} {
		t.Run(strings.Join(tt.args, " "), func(t *testing.T) {
			t.Parallel()
			_, err := ParseProxy(append(tt.args, "-check-self"), io.Discard)
			expect(t, problems(t, err), tt.want)
		})
	}
}

// TestLongSocketPaths: the system's limit is known at the start.
func TestLongSocketPaths(t *testing.T) {
	t.Parallel()
	const longest = len(syscall.RawSockaddrUnix{}.Path) - 1
	long := func(n int) string { return strings.Repeat("a", n) }
	for _, tt := range []struct {
		addr string
		long bool
	}{
		{"unix:" + long(longest), false},
		{"unix:" + long(longest+1), true},
		{"unix:/" + long(longest-1), false},
		{"unix:///" + long(longest-1), false},
		{"unix:///" + long(longest), true},
		{"UNIX:///" + long(longest), true},
		{"unix:" + strings.Repeat("é", longest/2), false},
		{"unix:" + strings.Repeat("é", longest/2+1), true},
		{"unix-abstract:" + long(longest), false},
		{"unix-abstract:" + long(longest+1), true},
		{"unix-abstract:///" + long(longest-1), false},
		{"unix-abstract:///" + long(longest), true},
	} {
		for v, flag := range map[variant]string{container: "-grpc-addr", probe: "-addr"} {
			_, err := read(v, []string{flag, tt.addr}, io.Discard)
			if got := strings.Contains(fmt.Sprint(err), "bytes that the system takes: use a shorter one"); got != tt.long || !tt.long && err != nil {
				t.Errorf("%s of %d bytes: %v", flag, len(tt.addr), err)
			}
		}
	}
}
