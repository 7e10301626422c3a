package settings

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

var variants = []variant{function, lambda, container, probe}

// TestMain removes the settings from the environment of the tests.
func TestMain(m *testing.M) {
	for _, name := range append(variables(), "PORT", "K_SERVICE", "AWS_LAMBDA_FUNCTION_NAME") {
		os.Unsetenv(name)
	}
	os.Exit(m.Run())
}

// variables returns the environment variables of all settings.
func variables() []string {
	var names []string
	for _, s := range declaration {
		if s.name != "" {
			names = append(names, s.variable())
		}
	}
	return names
}

// problems returns err as Problems, and fails if it is another error.
func problems(t *testing.T, err error) Problems {
	t.Helper()
	var p Problems
	if err != nil && !errors.As(err, &p) {
		t.Fatalf("error %v (%T), want Problems", err, err)
	}
	return p
}

// expect wants one problem for each part, in any order.
func expect(t *testing.T, got Problems, want []string) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%d problems, want %d:\n%v", len(got), len(want), got)
	}
	for _, part := range want {
		if !slices.ContainsFunc(got, func(p string) bool { return strings.Contains(p, part) }) {
			t.Errorf("no problem says %q:\n%v", part, got)
		}
	}
}

// file creates a file and returns its path.
func file(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file.pem")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const pemText = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"

func TestProxyRules(t *testing.T) {
	t.Parallel()
	here := file(t)
	missing := filepath.Join(t.TempDir(), "missing.pem")
	many := func(n int) string {
		names := make([]string, n)
		for i := range names {
			names[i] = fmt.Sprintf("s%d", i)
		}
		return strings.Join(names, ",")
	}
	for _, tt := range []struct {
		args []string // after -grpc-addr localhost:50051
		want []string // a part of each problem
	}{
		{},

		{args: []string{"-grpc-addr", "[::1]:50051"}},
		{args: []string{"-grpc-addr", "unix:///tmp/socket"}},
		{args: []string{"-grpc-addr", "dns:///localhost:50051"}},
		{args: []string{"-grpc-addr", ""}, want: []string{"-grpc-addr (GRPC_HEALTH_ADDR): required"}},
		{args: []string{"-grpc-addr", "localhost"}},
		{args: []string{"-grpc-addr", "localhost:"}, want: []string{"-grpc-addr (GRPC_HEALTH_ADDR): "}},
		{args: []string{"-grpcaddr", "::1:50051"}, want: []string{"-grpc-addr (GRPC_HEALTH_ADDR): "}},

		{args: []string{"-service-name", "a.B, c.D,a.B"}},
		{args: []string{"-service-name", "a,,b"}, want: []string{"-service-name (GRPC_HEALTH_SERVICE_NAME): has an empty member"}},
		{args: []string{"-service-name", "a,"}, want: []string{"has an empty member"}},
		{args: []string{"-service-name", strings.Repeat("a", 255)}},
		{args: []string{"-service-name", strings.Repeat("a", 256)}, want: []string{"longer than 255 bytes"}},
		{args: []string{"-service-name", "a\x01"}, want: []string{"control character"}},
		{args: []string{"-service-name", "a\u0085b"}, want: []string{"control character"}},
		{args: []string{"-service-name", "a\xff"}, want: []string{"not UTF-8"}},
		{args: []string{"-service-name", many(100)}},
		{args: []string{"-service-name", ",a,"}, want: []string{"-service-name (GRPC_HEALTH_SERVICE_NAME): has an empty member"}},
		{args: []string{"-grpc-tls", "-id-token-audience", "https://a.example", "-rpc-header", "Authorization: Basic x"}, want: []string{"-rpc-header (GRPC_HEALTH_RPC_HEADERS): contradicts -id-token-audience (GRPC_HEALTH_ID_TOKEN_AUDIENCE)"}},
		{args: []string{"-service-name", many(101)}, want: []string{"more than 100 services"}},

		{args: []string{"-connect-timeout", "1ns", "-rpc-timeout", "1h"}},
		{args: []string{"-connect-timeout", "0s"}, want: []string{"-connect-timeout (GRPC_HEALTH_CONNECT_TIMEOUT): must be above zero"}},
		{args: []string{"-rpc-timeout=-1s"}, want: []string{"-rpc-timeout (GRPC_HEALTH_RPC_TIMEOUT): must be above zero"}},
		{args: []string{"-rpc-timeout", "5"}, want: []string{"-rpc-timeout (GRPC_HEALTH_RPC_TIMEOUT): the value has no unit: write 5s"}},
		{args: []string{"-rpc-timeout", "0.5"}, want: []string{"-rpc-timeout (GRPC_HEALTH_RPC_TIMEOUT): the value has no unit: write 5s"}},
		{args: []string{"-rpc-timeout", "1 s"}, want: []string{"-rpc-timeout (GRPC_HEALTH_RPC_TIMEOUT): has a space: write a duration"}},
		{args: []string{"-rpc-timeout", "soon"}, want: []string{"-rpc-timeout (GRPC_HEALTH_RPC_TIMEOUT): the value cannot be read: write a duration"}},
		{args: []string{"-connect-timeout", "2000000h", "-rpc-timeout", "8761h"}, want: []string{"-connect-timeout (GRPC_HEALTH_CONNECT_TIMEOUT): is more than a year", "-rpc-timeout (GRPC_HEALTH_RPC_TIMEOUT): is more than a year"}},
		{args: []string{"-connect-timeout", "2h", "-rpc-timeout", "8760h"}},
		{args: []string{"-conn-max-age", "0"}},
		{args: []string{"-conn-max-age=-1s"}, want: []string{"-conn-max-age (GRPC_HEALTH_CONN_MAX_AGE): must not be below zero"}},
		{args: []string{"-user-agent", "a b/1.0"}},
		{args: []string{"-user-agent", "a\nb"}, want: []string{"-user-agent (GRPC_HEALTH_USER_AGENT): "}},
		{args: []string{"-grpc-authority", "a.example:443"}},
		{args: []string{"-grpc-authority", "a b"}, want: []string{"-grpc-authority (GRPC_HEALTH_AUTHORITY): "}},
		{args: []string{"-max-concurrent-checks", "1"}},
		{args: []string{"-max-concurrent-checks", "0"}, want: []string{"-max-concurrent-checks (GRPC_HEALTH_MAX_CONCURRENT_CHECKS): must be 1 or more"}},
		{args: []string{"-max-concurrent-checks", "many"}, want: []string{"write a whole number"}},
		{args: []string{"-gzip=perhaps"}, want: []string{"-gzip (GRPC_HEALTH_GZIP): the value cannot be read: write true or false"}},

		{args: []string{"-grpctls", "-grpc-ca-cert", here, "-grpc-client-cert", here, "-grpc-client-key", here, "-grpc-sni-server-name", "a.example"}},
		{args: []string{"-grpc-tls", "-grpc-tls-no-verify", "-grpc-client-cert", here, "-grpc-client-key", here}},
		{args: []string{"-grpc-tls", "-grpc-ca-cert", pemText}},
		{args: []string{"-grpc-tls", "-grpc-ca-cert", "-----BEGIN CERTIFICATE-----\\nAAAA"}, want: []string{"-grpc-ca-cert (GRPC_HEALTH_CA_CERT): PEM text without a whole block"}},
		{args: []string{"-grpc-tls", "-grpc-ca-cert", "-----BEGIN CERTIFICATE----- AAAA -----END CERTIFICATE-----"}, want: []string{"-grpc-ca-cert (GRPC_HEALTH_CA_CERT): PEM text without a whole block"}},
		{args: []string{"-grpc-tls", "-grpc-ca-cert", "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCg=="}, want: []string{"-grpc-ca-cert (GRPC_HEALTH_CA_CERT): PEM text in base64: decode it first"}},
		{args: []string{"-grpc-tls", "-grpc-ca-cert", "-----BEGIN CERTIFICATE-----\\nAAAA\\n-----END CERTIFICATE-----\\n"}},
		{args: []string{"-grpc-tls", "-grpc-ca-cert", "  -----BEGIN CERTIFICATE-----\r\n  AAAA\r\n  -----END CERTIFICATE-----"}},
		{args: []string{"-grpc-tls", "-grpc-ca-cert", missing}, want: []string{"-grpc-ca-cert (GRPC_HEALTH_CA_CERT): the file " + missing + " does not exist"}},
		{args: []string{"-grpc-tls", "-grpc-ca-cert", here + "/below"}, want: []string{"does not exist"}},
		{args: []string{"-grpc-tls", "-grpc-ca-cert", strings.Repeat("a", 5000)}, want: []string{"the file that it names does not exist"}},
		{args: []string{"-grpc-tls", "-grpc-ca-cert", "a\x00b"}, want: []string{"-grpc-ca-cert (GRPC_HEALTH_CA_CERT): has a control character (U+0000), as character 2"}},
		{args: []string{"-grpc-tls", "-grpc-ca-cert", "arn:aws:secretsmanager:eu-west-1:1:secret:a"}, want: []string{"which only Lambda reads"}},
		{args: []string{"-grpc-ca-cert", here}, want: []string{"-grpc-ca-cert (GRPC_HEALTH_CA_CERT): means nothing without -grpc-tls (GRPC_HEALTH_TLS)"}},
		{args: []string{"-grpc-client-cert", here, "-grpc-client-key", here}, want: []string{"-grpc-client-cert (GRPC_HEALTH_CLIENT_CERT): means nothing without -grpc-tls", "-grpc-client-key (GRPC_HEALTH_CLIENT_KEY): means nothing without -grpc-tls"}},
		{args: []string{"-grpc-tls-no-verify"}, want: []string{"-grpc-tls-no-verify (GRPC_HEALTH_TLS_NO_VERIFY): means nothing without -grpc-tls"}},
		{args: []string{"-grpc-sni-server-name", "a.example"}, want: []string{"-grpc-sni-server-name (GRPC_HEALTH_SNI_SERVER_NAME): means nothing without -grpc-tls"}},
		{args: []string{"-grpc-tls", "-grpc-sni-server-name", "a b"}, want: []string{"-grpc-sni-server-name (GRPC_HEALTH_SNI_SERVER_NAME): has a space"}},
		{args: []string{"-grpc-tls", "-grpc-client-cert", here}, want: []string{"-grpc-client-cert (GRPC_HEALTH_CLIENT_CERT): means nothing without -grpc-client-key (GRPC_HEALTH_CLIENT_KEY)"}},
		{args: []string{"-grpc-tls", "-grpc-client-key", here}, want: []string{"-grpc-client-key (GRPC_HEALTH_CLIENT_KEY): means nothing without -grpc-client-cert (GRPC_HEALTH_CLIENT_CERT)"}},
		{args: []string{"-grpc-tls", "-grpc-tls-no-verify", "-grpc-ca-cert", here}, want: []string{"-grpc-ca-cert (GRPC_HEALTH_CA_CERT): contradicts -grpc-tls-no-verify"}},
		{args: []string{"-grpc-tls", "-grpc-tls-no-verify", "-grpc-sni-server-name", "a"}},
		{args: []string{"-grpc-tls-no-verify", "-grpc-sni-server-name", "a"}, want: []string{"-grpc-sni-server-name (GRPC_HEALTH_SNI_SERVER_NAME): means nothing without -grpc-tls", "-grpc-tls-no-verify (GRPC_HEALTH_TLS_NO_VERIFY): means nothing without -grpc-tls"}},

		{args: []string{"-spiffe", "-spiffe-server-id", "spiffe://example.org"}},
		{args: []string{"-spiffe", "-spiffe-server-id", "spiffe://example.org/echo"}},
		{args: []string{"-spiffe", "-spiffe-server-id", "spiffe://example.org/"}, want: []string{"-spiffe-server-id (GRPC_HEALTH_SPIFFE_SERVER_ID): not a SPIFFE ID"}},
		{args: []string{"-spiffe", "-spiffe-server-id", "example.org/echo"}, want: []string{"not a SPIFFE ID"}},
		{args: []string{"-spiffe-server-id", "spiffe://example.org"}, want: []string{"-spiffe-server-id (GRPC_HEALTH_SPIFFE_SERVER_ID): means nothing without -spiffe (GRPC_HEALTH_SPIFFE)"}},
		{args: []string{"-alts", "-alts-target-service-accounts", "a@b, c@d"}},
		{args: []string{"-alts-target-service-accounts", "a@b"}, want: []string{"-alts-target-service-accounts (GRPC_HEALTH_ALTS_TARGET_SERVICE_ACCOUNTS): means nothing without -alts (GRPC_HEALTH_ALTS)"}},
		{args: []string{"-alts", "-alts-target-service-accounts", "a@b,,c d"}, want: []string{"account 2 is empty", "account 3 is empty, or has a space"}},
		{args: []string{"-grpc-tls", "-alts"}, want: []string{"-grpc-tls (GRPC_HEALTH_TLS): contradicts -alts (GRPC_HEALTH_ALTS)"}},
		{args: []string{"-grpc-tls", "-spiffe"}, want: []string{"-grpc-tls (GRPC_HEALTH_TLS): contradicts -spiffe (GRPC_HEALTH_SPIFFE)"}},
		{args: []string{"-alts", "-spiffe"}, want: []string{"-alts (GRPC_HEALTH_ALTS): contradicts -spiffe (GRPC_HEALTH_SPIFFE)"}},
		{args: []string{"-grpc-tls", "-id-token-audience", "https://a.example"}},
		{args: []string{"-id-token-audience", "https://a.example"}, want: []string{"-id-token-audience (GRPC_HEALTH_ID_TOKEN_AUDIENCE): means nothing without -grpc-tls (GRPC_HEALTH_TLS)"}},
		{args: []string{"-grpc-tls", "-id-token-audience", "a b"}, want: []string{"-id-token-audience (GRPC_HEALTH_ID_TOKEN_AUDIENCE): has a space"}},

		{args: []string{"-http-listen-addr", ":80"}},
		{args: []string{"-http-listen-addr", "[::1]:0", "-metrics-http-listen-addr", "[::1]:0"}},
		{args: []string{"-http-listen-addr", ""}, want: []string{"-http-listen-addr (GRPC_HEALTH_HTTP_LISTEN_ADDR): not host:port"}},
		{args: []string{"-http-listen-addr", "localhost"}, want: []string{"-http-listen-addr (GRPC_HEALTH_HTTP_LISTEN_ADDR): not host:port"}},
		{args: []string{"-http-listen-addr", "localhost:http"}},
		{args: []string{"-http-listen-addr", "localhost:no-such-service"}, want: []string{"-http-listen-addr (GRPC_HEALTH_HTTP_LISTEN_ADDR): not host:port"}},
		{args: []string{"-http-listen-addr", "localhost:"}, want: []string{"-http-listen-addr (GRPC_HEALTH_HTTP_LISTEN_ADDR): not host:port"}},
		{args: []string{"-http-listen-addr", "local host:80"}, want: []string{"-http-listen-addr (GRPC_HEALTH_HTTP_LISTEN_ADDR): has a space: "}},
		{args: []string{"-http-listen-addr", ":https", "-metrics-http-listen-addr", "127.0.0.1:443"}, want: []string{"is the address of -http-listen-addr"}},
		{args: []string{"-http-listen-addr", "localhost:65536"}, want: []string{"-http-listen-addr (GRPC_HEALTH_HTTP_LISTEN_ADDR): not host:port"}},
		{args: []string{"-metrics-http-listen-addr", ""}},
		{args: []string{"-metrics-http-listen-addr", "9000"}, want: []string{"-metrics-http-listen-addr (GRPC_HEALTH_METRICS_HTTP_LISTEN_ADDR): not host:port"}},
		{args: []string{"-metrics-http-listen-addr", "localhost:8080"}, want: []string{"-metrics-http-listen-addr (GRPC_HEALTH_METRICS_HTTP_LISTEN_ADDR): is the address of -http-listen-addr (GRPC_HEALTH_HTTP_LISTEN_ADDR)"}},
		{args: []string{"-metrics-http-listen-addr", "0.0.0.0:08080"}, want: []string{"is the address of -http-listen-addr"}},
		{args: []string{"-http-listen-addr", ":9000"}, want: []string{"is the address of -http-listen-addr"}},
		{args: []string{"-http-listen-addr", "127.0.0.1:80", "-metrics-http-listen-addr", "127.0.0.2:80"}},
		{args: []string{"-http-listen-path", "/healthz"}},
		{args: []string{"-http-listen-path", "health"}, want: []string{"-http-listen-path (GRPC_HEALTH_HTTP_LISTEN_PATH): does not begin with /"}},
		{args: []string{"-http-listen-path", "/livez"}, want: []string{"-http-listen-path (GRPC_HEALTH_HTTP_LISTEN_PATH): /livez says"}},
		{args: []string{"-http-listen-path", "/a?b"}, want: []string{"-http-listen-path (GRPC_HEALTH_HTTP_LISTEN_PATH): has a character"}},
		{args: []string{"-metrics-http-path", ""}, want: []string{"-metrics-http-path (GRPC_HEALTH_METRICS_HTTP_PATH): does not begin with /"}},
		{args: []string{"-metrics-http-path", "/livez"}, want: []string{"-metrics-http-path (GRPC_HEALTH_METRICS_HTTP_PATH): /livez says"}},
		{args: []string{"-http-auth-token-file", here}},
		{args: []string{"-http-auth-token-file", missing}, want: []string{"-http-auth-token-file (GRPC_HEALTH_HTTP_AUTH_TOKEN_FILE): the file " + missing + " does not exist"}},
		{args: []string{"-http-auth-token-file", pemText}, want: []string{"-http-auth-token-file (GRPC_HEALTH_HTTP_AUTH_TOKEN_FILE): has a line break (U+000A), as character 28"}},
		{args: []string{"-http-auth-token-file", "hunter2"}, want: []string{"-http-auth-token-file (GRPC_HEALTH_HTTP_AUTH_TOKEN_FILE): the file that it names does not exist"}},
		{args: []string{"-shutdown-grace", "0s"}},
		{args: []string{"-shutdown-grace=-1s"}, want: []string{"-shutdown-grace (GRPC_HEALTH_SHUTDOWN_GRACE): must not be below zero"}},

		{args: []string{"-https-listen-cert", here, "-https-listen-key", here, "-https-listen-verify", "-https-listen-ca", here}},
		{args: []string{"-https-listen-cert", here, "-https-listen-key", here, "-https-listen-ca", here}},
		{args: []string{"-https-listen-cert", here}, want: []string{"-https-listen-cert (GRPC_HEALTH_HTTPS_LISTEN_CERT): means nothing without -https-listen-key (GRPC_HEALTH_HTTPS_LISTEN_KEY)"}},
		{args: []string{"-https-listen-key", here}, want: []string{"-https-listen-key (GRPC_HEALTH_HTTPS_LISTEN_KEY): means nothing without -https-listen-cert (GRPC_HEALTH_HTTPS_LISTEN_CERT)"}},
		{args: []string{"-https-listen-cert", here, "-https-listen-key", here, "-https-listen-verify"}, want: []string{"-https-listen-verify (GRPC_HEALTH_HTTPS_LISTEN_VERIFY): means nothing without -https-listen-ca (GRPC_HEALTH_HTTPS_LISTEN_CA)"}},
		{args: []string{"-https-listen-verify", "-https-listen-ca", here}, want: []string{"-https-listen-verify (GRPC_HEALTH_HTTPS_LISTEN_VERIFY): means nothing without -https-listen-cert (GRPC_HEALTH_HTTPS_LISTEN_CERT)"}},
		{args: []string{"-https-listen-cert", missing, "-https-listen-key", here}, want: []string{"-https-listen-cert (GRPC_HEALTH_HTTPS_LISTEN_CERT): the file " + missing}},

		{args: []string{"-log-format", "json", "-log-level", "warn"}},
		{args: []string{"-log-format", "xml"}, want: []string{"-log-format (GRPC_HEALTH_LOG_FORMAT): not a known format"}},
		{args: []string{"-log-level", "loud"}, want: []string{"-log-level (GRPC_HEALTH_LOG_LEVEL): not a known level"}},
		{args: []string{"-format", "html"}, want: []string{"-format: not a known format"}},
		{args: []string{"-v", "much"}, want: []string{"-v: the value cannot be read: write a whole number"}},
		{args: []string{"-debug=much"}, want: []string{"-debug: the value cannot be read: write true or false"}},
	} {
		t.Run(strings.Join(tt.args, " "), func(t *testing.T) {
			t.Parallel()
			got, err := ParseProxy(append([]string{"-grpc-addr", "localhost:50051"}, tt.args...), io.Discard)
			expect(t, problems(t, err), tt.want)
			if (got == nil) != (err != nil) {
				t.Errorf("settings %v with error %v", got, err)
			}
		})
	}
}

func TestProbeRules(t *testing.T) {
	t.Parallel()
	here := file(t)
	missing := filepath.Join(t.TempDir(), "missing.pem")
	for _, tt := range []struct {
		args []string // after -addr localhost:50051
		want []string // a part of each problem
	}{
		{},
		{args: []string{"-tls", "-tls-ca-cert", here, "-tls-client-cert", here, "-tls-client-key", here, "-tls-server-name", "a"}},
		{args: []string{"-addr="}, want: []string{"-addr: required"}},
		{args: []string{"-tls-ca-cert", here}, want: []string{"-tls-ca-cert: means nothing without -tls: "}},
		{args: []string{"-tls-no-verify"}, want: []string{"-tls-no-verify: means nothing without -tls: "}},
		{args: []string{"-tls-server-name", "a"}, want: []string{"-tls-server-name: means nothing without -tls: "}},
		{args: []string{"-tls", "-tls-client-cert", here}, want: []string{"-tls-client-cert: means nothing without -tls-client-key: "}},
		{args: []string{"-tls", "-tls-client-key", here}, want: []string{"-tls-client-key: means nothing without -tls-client-cert: "}},
		{args: []string{"-tls", "-tls-no-verify", "-tls-ca-cert", here}, want: []string{"-tls-ca-cert: contradicts -tls-no-verify: "}},
		{args: []string{"-tls", "-tls-no-verify", "-tls-server-name", "a"}},
		{args: []string{"-tls", "-alts"}, want: []string{"-tls: contradicts -alts: "}},
		{args: []string{"-tls", "-spiffe"}, want: []string{"-tls: contradicts -spiffe: "}},
		{args: []string{"-alts", "-spiffe"}, want: []string{"-alts: contradicts -spiffe: "}},
		{args: []string{"-connect-timeout", "0s", "-rpc-timeout", "0s"}, want: []string{"-connect-timeout: must", "-rpc-timeout: must"}},
		{args: []string{"-tls", "-tls-ca-cert", missing}, want: []string{"-tls-ca-cert: the file " + missing + " does not exist"}},
		{args: []string{"-rpc-header", "a: @" + missing}, want: []string{"-rpc-header: header 1: the file " + missing + " does not exist"}},
		{args: []string{"-format", "html"}, want: []string{"-format: not a known format"}},
		{args: []string{"-v", "1"}},
		{args: []string{"-grpc-addr", "a:1"}, want: []string{"-grpc-addr: no such flag: did you mean -addr?"}},
	} {
		t.Run(strings.Join(tt.args, " "), func(t *testing.T) {
			t.Parallel()
			_, err := ParseProbe(append([]string{"-addr", "localhost:50051"}, tt.args...), io.Discard)
			expect(t, problems(t, err), tt.want)
			if err != nil && strings.Contains(err.Error(), Prefix) {
				t.Errorf("a variable is named, but the probe reads none: %v", err)
			}
		})
	}
}

// TestEnvironmentRules reads settings as the function and Lambda do: from the environment only.
func TestEnvironmentRules(t *testing.T) {
	const secret = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:name#key"
	tests := []struct {
		name   string
		lambda bool
		env    map[string]string
		want   []string
	}{
		{name: "least", env: map[string]string{"GRPC_HEALTH_ADDR": "localhost:1"}},
		{name: "nothing", want: []string{"GRPC_HEALTH_ADDR: required"}},
		{name: "unread", env: map[string]string{"GRPC_HEALTH_ADDR": "localhost:1", "GRPC_HEALTH_HTTP_LISTEN_ADDR": "nonsense", "GRPC_HEALTH_SHUTDOWN_GRACE": "x", "GRPC_HEALTH_METRICS_HTTP_PATH": "x", "PORT": "x"}},
		{name: "files need not exist yet", env: map[string]string{"GRPC_HEALTH_ADDR": "localhost:1", "GRPC_HEALTH_TLS": "true", "GRPC_HEALTH_CA_CERT": "/not/mounted/yet.pem", "GRPC_HEALTH_HTTP_AUTH_TOKEN_FILE": "/not/mounted/yet", "GRPC_HEALTH_RPC_HEADERS": "a: @/not/mounted/yet"}},
		{name: "incomplete PEM text", env: map[string]string{"GRPC_HEALTH_ADDR": "localhost:1", "GRPC_HEALTH_TLS": "1", "GRPC_HEALTH_CA_CERT": "-----BEGIN CERTIFICATE-----"}, want: []string{"GRPC_HEALTH_CA_CERT: PEM text"}},
		{name: "ARN", lambda: true, env: map[string]string{"GRPC_HEALTH_ADDR": "localhost:1", "GRPC_HEALTH_TLS": "true", "GRPC_HEALTH_CA_CERT": secret, "GRPC_HEALTH_CLIENT_CERT": secret, "GRPC_HEALTH_CLIENT_KEY": secret, "GRPC_HEALTH_HTTP_AUTH_TOKEN_FILE": secret, "GRPC_HEALTH_RPC_HEADERS": "a: @" + secret}},
		{name: "ARN of another partition", lambda: true, env: map[string]string{"GRPC_HEALTH_ADDR": "localhost:1", "GRPC_HEALTH_TLS": "true", "GRPC_HEALTH_CA_CERT": strings.Replace(secret, "aws", "aws-us-gov", 1), "GRPC_HEALTH_RPC_HEADERS": "a: @" + strings.Replace(secret, "aws", "aws-cn", 1)}},
		{name: "ARN of something else", lambda: true, env: map[string]string{"GRPC_HEALTH_ADDR": "localhost:1", "GRPC_HEALTH_TLS": "true", "GRPC_HEALTH_CA_CERT": "arn:aws:s3:::bucket", "GRPC_HEALTH_RPC_HEADERS": "a: @arn:aws:s3:::bucket"}, want: []string{"GRPC_HEALTH_CA_CERT: names an AWS resource that is no secret", "GRPC_HEALTH_RPC_HEADERS: header 1: names an AWS resource"}},
		{name: "ARN in the function", env: map[string]string{"GRPC_HEALTH_ADDR": "localhost:1", "GRPC_HEALTH_TLS": "true", "GRPC_HEALTH_CA_CERT": secret, "GRPC_HEALTH_HTTP_AUTH_TOKEN_FILE": secret, "GRPC_HEALTH_RPC_HEADERS": "a: b\nc: @" + secret}, want: []string{"GRPC_HEALTH_CA_CERT: names an AWS secret, which only Lambda reads", "GRPC_HEALTH_HTTP_AUTH_TOKEN_FILE: names an AWS secret", "GRPC_HEALTH_RPC_HEADERS: header 2: names an AWS secret"}},
		{name: "all at once", env: map[string]string{"GRPC_HEALTH_ADDR": "x:", "GRPC_HEALTH_TLS": "x", "GRPC_HEALTH_RPC_TIMEOUT": "x", "GRPC_HEALTH_MAX_CONCURRENT_CHECKS": "x", "GRPC_HEALTH_SERVICE_NAME": "a,,b", "GRPC_HEALTH_SPIFFE_SERVER_ID": "spiffe://a"}, want: []string{"GRPC_HEALTH_ADDR: ", "GRPC_HEALTH_TLS: the value cannot be read: write true or false", "GRPC_HEALTH_RPC_TIMEOUT: the value cannot be read: write a duration", "GRPC_HEALTH_MAX_CONCURRENT_CHECKS: the value cannot be read: write a whole number", "GRPC_HEALTH_SERVICE_NAME: ", "GRPC_HEALTH_SPIFFE_SERVER_ID: means nothing without GRPC_HEALTH_SPIFFE: "}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for name, value := range tt.env {
				t.Setenv(name, value)
			}
			if tt.lambda {
				t.Setenv("AWS_LAMBDA_FUNCTION_NAME", "f")
			}
			got, err := FromEnvironment()
			p := problems(t, err)
			expect(t, p, tt.want)
			if strings.Contains(p.Error(), " -") || strings.HasPrefix(p.Error(), "-") {
				t.Errorf("a flag is named where there are none: %v", p)
			}
			if err == nil && got.ListenAddr != "localhost:8080" {
				t.Errorf("ListenAddr %q, want the default of a setting that is not read", got.ListenAddr)
			}
		})
	}
}

func TestAllProblemsAtOnce(t *testing.T) {
	t.Setenv("GRPC_HEALTH_RPC_TIMEOUT", "soon")
	t.Setenv("GRPC_HEALTH_TLS", "perhaps")
	t.Setenv("GRPC_HEALTH_LOG_LEVEL", "loud") // the flag -debug takes its place
	_, err := ParseProxy([]string{
		"-grpc-adr", "localhost:1", "-nonsense=1", "stray", "-debug", "-connect-timeout", "x", "--conn-max-age=-2s",
		"---gzip", "-spiffe", "-alts", "-http-listen-path", "z", "-service-name", "a,,b", "-rpc-header", "a", "-rpc-header", "te: b", "-user-agent",
	}, io.Discard)
	expect(t, problems(t, err), []string{
		"-grpc-adr: no such flag: did you mean -grpc-addr?",
		"-nonsense: no such flag: see -help",
		"argument 4 is not a flag",
		"-connect-timeout (GRPC_HEALTH_CONNECT_TIMEOUT): the value cannot be read",
		"-conn-max-age (GRPC_HEALTH_CONN_MAX_AGE): must not be below zero",
		"argument 9 is not a flag",
		"-user-agent: the value is missing",
		"-rpc-timeout (GRPC_HEALTH_RPC_TIMEOUT): the value cannot be read",
		"-grpc-tls (GRPC_HEALTH_TLS): the value cannot be read",
		"-grpc-addr (GRPC_HEALTH_ADDR): required",
		"-alts (GRPC_HEALTH_ALTS): contradicts -spiffe (GRPC_HEALTH_SPIFFE)",
		"-http-listen-path (GRPC_HEALTH_HTTP_LISTEN_PATH): does not begin with /",
		"-service-name (GRPC_HEALTH_SERVICE_NAME): has an empty member",
		"-rpc-header (GRPC_HEALTH_RPC_HEADERS): header 1: no colon",
		"-rpc-header (GRPC_HEALTH_RPC_HEADERS): header 2: a name that belongs to gRPC or HTTP/2",
	})
}

func TestArguments(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		args []string
		want []string
	}{
		{args: []string{"-addr", "a:1", "-v", "--tls=false", "--service", "-dashed"}},
		{args: []string{"-addr=a:1", "-adr"}, want: []string{"-adr: no such flag: did you mean -addr?"}},
		{args: []string{"-addr=a:1", "-TLS"}, want: []string{"-TLS: no such flag: did you mean -tls?"}},
		{args: []string{"-addr=a:1", "-ca-cert", "x"}, want: []string{"-ca-cert: no such flag: did you mean -tls-ca-cert?"}},
		{args: []string{"-addr=a:1", "-quiet", "-loud"}, want: []string{"-quiet: no such flag: see", "-loud: no such flag: see"}},
		{args: []string{"-addr=a:1", "-quiet=1", "x", "-quiet"}, want: []string{"-quiet: no such flag", "argument 3 is not a flag, so it has no effect"}},
		{args: []string{"-addr=a:1", "-quiet", "x", "y"}, want: []string{"-quiet: no such flag", "argument 4 is not a flag, so it has no effect"}},
		{args: []string{"-addr=a:1", "---", "-=", "-1", "---v"}, want: []string{"argument 2 ", "argument 3 ", "argument 4 ", "argument 5 "}},
		{args: []string{"-addr=a:1", "---", "-quiet", "-v", "-quiet"}, want: []string{"argument 2 is not", "argument 3 is not", "-quiet: no such flag"}},
		{args: []string{"-addr=a:1", "-service"}, want: []string{"-service: the value is missing: write -service=VALUE"}},
	} {
		t.Run(strings.Join(tt.args, " "), func(t *testing.T) {
			t.Parallel()
			_, err := ParseProbe(tt.args, io.Discard)
			expect(t, problems(t, err), tt.want)
		})
	}
}

func TestHeaders(t *testing.T) {
	t.Parallel()
	path := file(t)
	for _, tt := range []struct {
		line  string
		want  Header
		fault string
	}{
		{line: "X-Trace: a b", want: Header{Name: "x-trace", Value: "a b"}},
		{line: "authorization:Bearer a:b=", want: Header{Name: "authorization", Value: "Bearer a:b="}},
		{line: " a.b_c-9 :  ", want: Header{Name: "a.b_c-9"}},
		{line: "a: @b", want: Header{Name: "a", Value: "@b"}},
		{line: "a: @" + path, want: Header{Name: "a", File: path}},
		{line: "a-bin: \x00\xff", want: Header{Name: "a-bin", Value: "\x00\xff"}},
		{line: "a: b\x00", fault: "has a control character (U+0000)"},
		{line: "a: b\r\nc: d", fault: "has a line break (U+000D)"},
		{line: "a: ü", fault: "not printable ASCII"},
		{line: "a: @" + path + "x", fault: "does not exist"},
		{line: "a: @arn:aws:secretsmanager:x", fault: "only Lambda"},
		{line: "a", fault: "no colon"},
		{line: "", fault: "no colon"},
		{line: ":path: /", fault: "no name"},
		{line: "a b: c", fault: "illegal character"},
		{line: "ä: c", fault: "illegal character"},
		{line: "a\n: c", want: Header{Name: "a", Value: "c"}},
		{line: "a\nb: c", fault: "has a line break (U+000A)"},
		{line: "grpc-timeout: 1S", fault: "belongs to gRPC"},
		{line: "Content-Type: a", fault: "belongs to gRPC"},
		{line: "te: trailers", fault: "belongs to gRPC"},
		{line: "user-agent: a", fault: "belongs to gRPC"},
		{line: "Host: a", fault: "belongs to gRPC"},
		{line: "connection: close", fault: "belongs to gRPC"},
	} {
		t.Run(tt.line, func(t *testing.T) {
			t.Parallel()
			s, err := ParseProbe([]string{"-addr", "a:1", "-rpc-header", "first: 1", "-rpc-header", tt.line}, io.Discard)
			if tt.fault != "" {
				expect(t, problems(t, err), []string{tt.fault})
				if err != nil && !strings.Contains(err.Error(), "-rpc-header: header 2: ") {
					t.Errorf("the second header is not named: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if want := []Header{{Name: "first", Value: "1"}, tt.want}; !slices.Equal(s.Headers, want) {
				t.Errorf("headers %#v, want %#v", s.Headers, want)
			}
		})
	}
}

func TestHeaderHidesItsValue(t *testing.T) {
	t.Parallel()
	got := fmt.Sprintf("%v %+v %s", Header{Name: "a", Value: "s3cr3t"}, []Header{{Name: "a", Value: "s3cr3t"}}, Header{Name: "b", File: "/c"})
	if want := "a: (redacted) [a: (redacted)] b: @/c"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestNoValueIsPrinted sets each setting to a secret, by flag and by variable, in texts that are valid and texts that are not.
// No error and no help may contain the secret.
func TestNoValueIsPrinted(t *testing.T) {
	const secret = "s3cr3t"
	check := func(t *testing.T, err error, help string) {
		t.Helper()
		if err != nil && strings.Contains(err.Error(), secret) {
			t.Errorf("the error repeats the value: %v", err)
		}
		if strings.Contains(help, secret) {
			t.Errorf("the help repeats the value:\n%s", help)
		}
	}
	for _, value := range []string{
		secret, secret + "\x01", " " + secret, "-" + secret, secret + ",,", "a: " + secret + "\n", "te: " + secret, secret + ": a", "a: @/" + secret, "a: @arn:" + secret,
		"/" + secret, "./" + secret, secret + "/" + secret, "arn:" + secret, "-----BEGIN " + secret, "spiffe://" + secret + "/", "https://" + secret,
		secret + ":x", "unix://" + secret, "dns://" + secret, strings.Repeat(secret, 1000),
	} {
		for i := range declaration {
			s := &declaration[i]
			for _, v := range []variant{container, probe} {
				for name := range flagsOf(v) {
					if flagsOf(v)[name].index != i {
						continue
					}
					all := [][]string{{"-" + name + "=" + value}}
					if value[0] != '-' { // else it may be a flag, and an unknown one is named
						all = append(all, []string{"-" + name, value}, []string{"-" + name, "x", value})
					}
					for _, args := range all {
						var help bytes.Buffer
						_, err := read(v, args, &help)
						check(t, err, help.String())
						_, err = read(v, append(args, "-help"), &help)
						check(t, err, help.String())
					}
				}
			}
			if s.name == "" {
				continue
			}
			t.Run(s.variable(), func(t *testing.T) {
				t.Setenv(s.variable(), value)
				for _, v := range variants {
					_, err := read(v, nil, io.Discard)
					check(t, err, "")
				}
			})
		}
	}
	for _, args := range [][]string{
		{"-" + secret + " " + secret}, {secret}, {"-nonsense=" + secret}, {"-nonsense", secret},
		{"-rpc-header", "authorization:", "Bearer", "-" + secret}, {"-tls-client-key", "x", "-----BEGIN " + secret},
	} {
		_, err := ParseProbe(args, io.Discard)
		check(t, err, "")
	}
}

// samples returns two texts for a field, and the values that they mean. They differ from each other and from every default.
func samples(t *testing.T, s *setting) (texts [2]string, want [2]any) {
	t.Helper()
	switch s.field(new(values)).(type) {
	case *string:
		return [2]string{"one", "two"}, [2]any{"one", "two"}
	case *bool:
		return [2]string{"true", "false"}, [2]any{true, false}
	case *int:
		return [2]string{"7", "8"}, [2]any{7, 8}
	case *time.Duration:
		return [2]string{"7s", "8s"}, [2]any{7 * time.Second, 8 * time.Second}
	case *[]string:
		return [2]string{"a,b", "c"}, [2]any{[]string{"a", "b"}, []string{"c"}}
	case *headerLines:
		return [2]string{"a: b", "c: d"}, [2]any{headerLines{"a: b"}, headerLines{"c: d"}}
	}
	t.Fatalf("%s%v: a field of a type that the test does not know", s.variable(), s.flags)
	return
}

// TestPrecedence: a flag wins over the variable, the variable over the default, and an empty variable counts as unset.
func TestPrecedence(t *testing.T) {
	for i := range declaration {
		s := &declaration[i]
		if s.name == "" {
			continue
		}
		t.Run(s.variable(), func(t *testing.T) {
			texts, want := samples(t, s)
			value := func(v variant, args ...string) (any, []string) {
				r := newReader(v)
				r.defaults()
				if err := r.arguments(args); err != nil {
					t.Fatal(err)
				}
				r.environment()
				if len(r.problems) > 0 {
					t.Fatal(r.problems)
				}
				return reflect.ValueOf(s.field(&r.values)).Elem().Interface(), r.FromEnvironment
			}
			expect := func(what string, got any, from []string, want any, wantFrom ...string) {
				t.Helper()
				if !reflect.DeepEqual(got, want) {
					t.Errorf("%s: %v, want %v", what, got, want)
				}
				if !slices.Equal(from, wantFrom) {
					t.Errorf("%s: taken from the environment: %v, want %v", what, from, wantFrom)
				}
			}
			fallback, from := value(container)
			if reflect.DeepEqual(fallback, want[0]) {
				t.Fatal("the sample is the default")
			}
			expect("default", fallback, from, fallback)

			t.Setenv(s.variable(), "")
			got, from := value(container)
			expect("empty variable", got, from, fallback)

			t.Setenv(s.variable(), texts[0])
			got, from = value(container)
			expect("variable", got, from, want[0], s.variable())
			for _, name := range s.flags {
				got, from = value(container, "-"+name+"="+texts[1])
				expect("flag -"+name, got, from, want[1])
				got, from = value(container, "--"+name+"="+texts[1])
				expect("flag --"+name, got, from, want[1])
			}
			for _, v := range []variant{function, lambda} {
				got, from = value(v)
				if s.listener {
					expect("a variable that is not read", got, from, fallback)
				} else {
					expect("variable", got, from, want[0], s.variable())
				}
			}
		})
	}
}

// TestEveryFieldHasOneSetting also checks that the settings in the groups of an upstream are the fields of Upstream.
func TestEveryFieldHasOneSetting(t *testing.T) {
	t.Parallel()
	var v values
	for kind, fields := range map[string]reflect.Value{
		"upstream": reflect.ValueOf(&v.Upstream).Elem(),
		"process":  reflect.ValueOf(&v.Process).Elem(),
	} {
		for i := range fields.NumField() {
			name := fields.Type().Field(i).Name
			field := fields.Field(i).Addr().Interface()
			if name == "Headers" {
				field = &v.headerLines
			}
			count := 0
			for _, s := range declaration {
				if s.field(&v) != field {
					continue
				}
				count++
				if upstream := slices.Contains([]string{groupUpstream, groupTLS, groupIdentity}, s.group); upstream != (kind == "upstream") {
					t.Errorf("%s is a setting of the group %q, and a field of the %s", name, s.group, kind)
				}
			}
			if count != 1 {
				t.Errorf("%d settings set the %s's %s, want 1", count, kind, name)
			}
		}
	}
}

func TestDeclaration(t *testing.T) {
	t.Parallel()
	for _, v := range []variant{container, probe} {
		count := 0
		for _, s := range declaration {
			count += len(s.names(v))
			if v == container {
				count += len(s.shorthands)
			}
		}
		if known := flagsOf(v); len(known) != count {
			t.Errorf("variant %d: %d flags, %d of them distinct", v, count, len(known))
		}
	}
	names := variables()
	slices.Sort(names)
	if len(slices.Compact(names)) != len(variables()) {
		t.Error("a variable is declared twice")
	}
	for _, s := range declaration {
		for _, v := range variants {
			if text := s.defaultIn(v); text != "" {
				if err := set(s.field(new(values)), text); err != nil {
					t.Errorf("%s: default: %v", s.label(container, false), err)
				}
			}
		}
		if s.file != noFile {
			if _, ok := s.field(new(values)).(*string); !ok {
				t.Errorf("%s: a file setting that is no string", s.variable())
			}
		}
		if _, isBool := s.field(new(values)).(*bool); isBool == (s.placeholder != "") {
			t.Errorf("%s%v: a setting has a placeholder if its flag takes a value", s.variable(), s.flags)
		}
		if len(s.shorthands) > 0 || s.platform != nil {
			if _, ok := s.field(new(values)).(*string); !ok {
				t.Errorf("%s: shorthands and platform defaults are for text", s.variable())
			}
		}
	}
	if set(new(float64), "1") == nil {
		t.Error("a field of an unknown type was set")
	}
}

// TestFlagsAreKept: users of the earlier tools know these names.
func TestFlagsAreKept(t *testing.T) {
	t.Parallel()
	for v, flags := range map[variant]string{
		container: "grpcaddr service-name user-agent runcli http-listen-addr metrics-http-listen-addr metrics-http-path http-listen-path " +
			"https-listen-cert https-listen-key https-listen-ca https-listen-verify connect-timeout rpc-timeout grpctls grpc-tls-no-verify " +
			"grpc-ca-cert grpc-client-cert grpc-client-key grpc-sni-server-name logTarget jsonLog debug logtostderr v version",
		probe: "addr service user-agent connect-timeout rpc-timeout rpc-header tls tls-no-verify tls-ca-cert tls-client-cert tls-client-key " +
			"tls-server-name alts spiffe gzip v version authority spiffe-server-id alts-target-service-accounts use-proxy format",
	} {
		known := flagsOf(v)
		for _, name := range strings.Fields(flags) {
			if _, ok := known[name]; !ok {
				t.Errorf("variant %d has no flag -%s", v, name)
			}
		}
		if v == probe && len(known) != len(strings.Fields(flags)) {
			t.Errorf("the probe has %d flags, want %d", len(known), len(strings.Fields(flags)))
		}
	}
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	want := Settings{
		Upstream: Upstream{
			Addr: "localhost:1", ConnectTimeout: time.Second, RPCTimeout: time.Second, ConnMaxAge: 10 * time.Second,
			UserAgent: "grpc_health_proxy",
		},
		Process: Process{
			MaxConcurrentChecks: 100, ListenAddr: "localhost:8080", ListenPath: "/",
			MetricsAddr: "localhost:9000", MetricsPath: "/metrics", ShutdownGrace: 8 * time.Second,
			LogFormat: "text", LogLevel: "info", Format: "text",
		},
		variant: container,
	}
	got, err := ParseProxy([]string{"-grpc-addr", "localhost:1"}, io.Discard)
	if err != nil || !reflect.DeepEqual(*got, want) {
		t.Errorf("proxy: %+v, %v, want %+v", got, err, want)
	}
	want.UserAgent, want.variant, want.flagsOnly = "grpc_health_probe", probe, true
	got, err = ParseProbe([]string{"-addr", "localhost:1"}, io.Discard)
	if err != nil || !reflect.DeepEqual(*got, want) {
		t.Errorf("probe: %+v, %v, want %+v", got, err, want)
	}
}

// TestEarlierCommands runs command lines from the documentation of the earlier tools.
func TestEarlierCommands(t *testing.T) {
	t.Parallel()
	here := file(t)
	proxy := func(line string) *Settings {
		t.Helper()
		s, err := ParseProxy(strings.Fields(line), io.Discard)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		return s
	}
	s := proxy("--http-listen-addr localhost:8080 --http-listen-path=/healthz --grpcaddr localhost:50051 --service-name echo.EchoServer --logtostderr=1 -v 10")
	if s.ListenPath != "/healthz" || s.Addr != "localhost:50051" || !slices.Equal(s.Services, []string{"echo.EchoServer"}) || s.LogLevel != "debug" {
		t.Errorf("settings %+v", s)
	}
	s = proxy("--runcli --grpcaddr localhost:1 --grpctls --grpc-ca-cert " + here + " --grpc-client-cert " + here + " --grpc-client-key=" + here +
		" --grpc-sni-server-name a.example --https-listen-ca " + here + " --https-listen-cert " + here + " --https-listen-key " + here +
		" --https-listen-verify --jsonLog --logtostderr --logTarget=/dev/stderr -v 0 --debug=false")
	if !s.RunCLI || !s.TLS || !s.HTTPSVerify || s.LogFormat != "json" || s.LogLevel != "info" || s.LogTarget != "/dev/stderr" || s.ServerName != "a.example" {
		t.Errorf("settings %+v", s)
	}
	if s = proxy("-grpcaddr localhost:1 -debug -metrics-http-listen-addr="); s.LogLevel != "debug" || s.MetricsAddr != "" {
		t.Errorf("settings %+v", s)
	}
	if s = proxy("-grpcaddr localhost:1 -v 1"); s.LogLevel != "debug" {
		t.Errorf("level %s", s.LogLevel)
	}
	p, err := ParseProbe([]string{"-addr=:5000", "-v", "-service", "a", "-rpc-header", "foo: bar"}, io.Discard)
	if err != nil || !p.Verbose || !slices.Equal(p.Headers, []Header{{Name: "foo", Value: "bar"}}) {
		t.Errorf("probe: %+v, %v", p, err)
	}
}

func TestListsAreCleaned(t *testing.T) {
	t.Parallel()
	s, err := ParseProbe([]string{"-addr", "a:1", "-service", " a, b,a ", "-alts", "-alts-target-service-accounts", "a@b, c@d"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(s.Services, []string{"a", "b"}) {
		t.Errorf("services %q", s.Services)
	}
	if !slices.Equal(s.ALTSTargetServiceAccounts, []string{"a@b", "c@d"}) {
		t.Errorf("accounts %q", s.ALTSTargetServiceAccounts)
	}
}

func TestFromEnvironment(t *testing.T) {
	t.Setenv("GRPC_HEALTH_RPC_HEADERS", "A: b\n\n  c-bin: d\n")
	t.Setenv("GRPC_HEALTH_ADDR", "localhost:1")
	t.Setenv("GRPC_HEALTH_SERVICE_NAME", "a, b")
	t.Setenv("GRPC_HEALTH_USER_AGENT", "")
	t.Setenv("GRPC_HEALTH_RPC_TIMEOUT", "250ms")
	s, err := FromEnvironment()
	if err != nil {
		t.Fatal(err)
	}
	if want := []Header{{Name: "a", Value: "b"}, {Name: "c-bin", Value: "d"}}; !slices.Equal(s.Headers, want) {
		t.Errorf("headers %#v, want %#v", s.Headers, want)
	}
	if s.Addr != "localhost:1" || !slices.Equal(s.Services, []string{"a", "b"}) || s.RPCTimeout != 250*time.Millisecond || s.UserAgent != "grpc_health_proxy" {
		t.Errorf("settings %+v", s)
	}
	if want := []string{"GRPC_HEALTH_ADDR", "GRPC_HEALTH_SERVICE_NAME", "GRPC_HEALTH_RPC_TIMEOUT", "GRPC_HEALTH_RPC_HEADERS"}; !slices.Equal(s.FromEnvironment, want) {
		t.Errorf("taken from %v, want %v", s.FromEnvironment, want)
	}
	p, err := ParseProbe([]string{"-addr", "localhost:2"}, io.Discard)
	if err != nil || len(p.Headers) > 0 || len(p.Services) > 0 || p.RPCTimeout != time.Second || len(p.FromEnvironment) > 0 {
		t.Errorf("the probe with -addr read the environment: %+v, %v", p, err)
	}
	p, err = ParseProbe([]string{"-rpc-timeout", "2s"}, io.Discard)
	if err != nil || p.Addr != "localhost:1" || !slices.Equal(p.Services, []string{"a", "b"}) || len(p.Headers) != 2 || p.RPCTimeout != 2*time.Second || p.UserAgent != "grpc_health_probe" {
		t.Errorf("the probe without -addr: %+v, %v", p, err)
	}
	if want := []string{"GRPC_HEALTH_ADDR", "GRPC_HEALTH_SERVICE_NAME", "GRPC_HEALTH_RPC_HEADERS"}; !slices.Equal(p.FromEnvironment, want) {
		t.Errorf("the probe took %v, want %v", p.FromEnvironment, want)
	}
	c, err := ParseProxy([]string{"-rpc-header", "e: f"}, io.Discard)
	if want := []Header{{Name: "e", Value: "f"}}; err != nil || !slices.Equal(c.Headers, want) {
		t.Errorf("headers %#v, %v, want only the flag's, %#v", c.Headers, err, want)
	}
}

func TestPlatformDefaults(t *testing.T) {
	args := []string{"-grpc-addr", "localhost:1"}
	t.Run("port", func(t *testing.T) {
		t.Setenv("PORT", "8081")
		s, err := ParseProxy(args, io.Discard)
		if err != nil || s.ListenAddr != ":8081" || !slices.Equal(s.FromEnvironment, []string{"PORT"}) {
			t.Errorf("settings %+v, %v", s, err)
		}
		t.Setenv("GRPC_HEALTH_HTTP_LISTEN_ADDR", "localhost:8082")
		s, err = ParseProxy(args, io.Discard)
		if err != nil || s.ListenAddr != "localhost:8082" || !slices.Equal(s.FromEnvironment, []string{"GRPC_HEALTH_HTTP_LISTEN_ADDR"}) {
			t.Errorf("settings %+v, %v", s, err)
		}
	})
	t.Run("wrong port", func(t *testing.T) {
		t.Setenv("PORT", "nonsense")
		_, err := ParseProxy(args, io.Discard)
		expect(t, problems(t, err), []string{"PORT gives the port"})
	})
	t.Run("metrics port", func(t *testing.T) {
		t.Setenv("PORT", "9000")
		_, err := ParseProxy(args, io.Discard)
		expect(t, problems(t, err), []string{"is the address of -http-listen-addr"})
	})
	for _, variable := range []string{"K_SERVICE", "AWS_LAMBDA_FUNCTION_NAME"} {
		t.Run(variable, func(t *testing.T) {
			t.Setenv(variable, "name")
			t.Setenv("GRPC_HEALTH_ADDR", "localhost:1")
			if s, err := FromEnvironment(); err != nil || s.LogFormat != "json" {
				t.Errorf("settings %+v, %v, want json", s, err)
			}
			t.Setenv("GRPC_HEALTH_LOG_FORMAT", "text")
			if s, err := FromEnvironment(); err != nil || s.LogFormat != "text" {
				t.Errorf("settings %+v, %v, want text", s, err)
			}
		})
	}
}

func TestWarnings(t *testing.T) {
	for _, tt := range []struct {
		name string
		args []string
		run  bool
		want string
	}{
		{name: "none", args: []string{"-http-listen-path", "/healthz"}},
		{name: "method path", args: []string{"-service-name", "a/Check,b/Check"}, want: "-service-name (GRPC_HEALTH_SERVICE_NAME): service name looks like a method path: use the service's name only"},
		{name: "no verify", args: []string{"-grpc-tls", "-grpc-tls-no-verify"}, want: "-grpc-tls-no-verify (GRPC_HEALTH_TLS_NO_VERIFY): the upstream's certificate is not verified"},
		{name: "reserved path", run: true, args: []string{"-http-listen-path", "/healthz"}, want: "-http-listen-path (GRPC_HEALTH_HTTP_LISTEN_PATH): Cloud Run keeps paths that end in z"},
		{name: "other path", run: true, args: []string{"-http-listen-path", "/health"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.run {
				t.Setenv("K_SERVICE", "name")
			}
			s, err := ParseProxy(append([]string{"-grpc-addr", "localhost:1"}, tt.args...), io.Discard)
			switch {
			case err != nil:
				t.Error(err)
			case tt.want == "" && len(s.Warnings) > 0:
				t.Errorf("warnings %q", s.Warnings)
			case tt.want != "" && (len(s.Warnings) != 1 || !strings.HasPrefix(s.Warnings[0], tt.want)):
				t.Errorf("warnings %q, want %q", s.Warnings, tt.want)
			}
		})
	}
}

func TestVersion(t *testing.T) {
	t.Setenv("GRPC_HEALTH_RPC_TIMEOUT", "nonsense")
	for _, parse := range []func([]string, io.Writer) (*Settings, error){ParseProxy, ParseProbe} {
		s, err := parse([]string{"-nonsense", "--version", "stray"}, io.Discard)
		if err != nil || !s.Version {
			t.Errorf("settings %+v, %v", s, err)
		}
		if _, err := parse([]string{"-version=false"}, io.Discard); err == nil {
			t.Error("-version=false: no problems")
		}
	}
}

func TestHelp(t *testing.T) {
	t.Parallel()
	for v, parse := range map[variant]func([]string, io.Writer) (*Settings, error){container: ParseProxy, probe: ParseProbe} {
		for _, ask := range []string{"-h", "--help", "-help"} {
			var out bytes.Buffer
			if _, err := parse([]string{"-nonsense", ask}, &out); !errors.Is(err, flag.ErrHelp) {
				t.Errorf("%s: %v, want flag.ErrHelp", ask, err)
			}
			help := out.String()
			for name := range flagsOf(v) {
				if !strings.Contains(help, "-"+name) {
					t.Errorf("variant %d: the help lacks -%s", v, name)
				}
			}
			for i := range declaration {
				s := &declaration[i]
				if s.name != "" && strings.Contains(help, "environment: "+s.variable()) != s.readBy(v) {
					t.Errorf("variant %d: the help and %s", v, s.variable())
				}
			}
			if codes, examples := strings.Index(help, "\nExit codes"), strings.Index(help, "\nExamples:\n"); codes < strings.LastIndex(help, "  -version\n") || examples < codes ||
				strings.Count(help[examples:], "\n  grpc_health_") != 2 {
				t.Errorf("variant %d: the help does not end with the exit codes and two examples:\n%s", v, help)
			}
			if strings.Contains(help, "`") {
				t.Error("the help has Markdown in it")
			}
			group := strings.Index(help, "\n"+groupTLS+":\n")
			if group < 0 || group > strings.Index(help, "\n"+groupIdentity+":\n") {
				t.Error("the help has no groups")
			}
			if v == container && !strings.Contains(help, "default: 8s; environment: GRPC_HEALTH_SHUTDOWN_GRACE)") {
				t.Errorf("the help lacks a default:\n%s", help)
			}
			if v == probe && !strings.Contains(help, "default: grpc_health_probe; environment: GRPC_HEALTH_USER_AGENT)") {
				t.Errorf("the help lacks the probe's default:\n%s", help)
			}
		}
	}
}

func TestName(t *testing.T) {
	t.Parallel()
	for v, want := range map[variant]string{
		function:  "GRPC_HEALTH_CA_CERT",
		lambda:    "GRPC_HEALTH_CA_CERT",
		container: "-grpc-ca-cert (GRPC_HEALTH_CA_CERT)",
		probe:     "-tls-ca-cert (GRPC_HEALTH_CA_CERT)",
	} {
		if got := (&Settings{variant: v}).Name("CA_CERT"); got != want {
			t.Errorf("variant %d: %q, want %q", v, got, want)
		}
	}
	if got := (&Settings{}).Name("OTHER"); got != "OTHER" {
		t.Errorf("another name: %q", got)
	}
}
