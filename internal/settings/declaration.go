package settings

import (
	"os"
	"strconv"
	"strings"

	"example.com/grpc-health-http/internal/platform"
)

// Prefix begins the name of every environment variable that is a setting. A name without it, such as LOG_LEVEL, may be set for
// another program.
const Prefix = "GRPC_HEALTH_"

// variant is the program that reads the settings.
type variant int

const (
	function  variant = iota // Google Cloud function: the environment
	lambda                   // AWS Lambda: the environment, and ARNs in place of files
	container                // grpc_health_proxy: flags, then the environment
	probe                    // grpc_health_probe: flags, then the environment
)

// setting declares one setting.
type setting struct {
	group string
	// name is the setting's name, in capitals. Its environment variable is Prefix followed by the name. A setting without a
	// name has flags only.
	name string
	// flags are grpc_health_proxy's flags: the name, then its aliases; none if only the probe has the setting.
	flags []string
	// shorthands are grpc_health_proxy's flags that stand for one value of this setting.
	shorthands []shorthand
	// probe is grpc_health_probe's flag; empty if it has none.
	probe string
	// listener marks a setting that the function and Lambda do not read, because the platform listens for them.
	listener bool
	// placeholder stands for the value in the help; empty for switches.
	placeholder string
	// fallback is the default, written as a flag's value; probeFallback is the probe's default where it differs.
	fallback, probeFallback string
	// fallbackNote describes a default that is not constant.
	fallbackNote string
	// platform returns the platform's default, and the name of the variable that it was read from, if any. An empty value
	// keeps fallback.
	platform func() (value, variable string)
	// help is a phrase for -help and the manual. Its only markup is Markdown's backquotes.
	help string
	// inVariable says how to write the variable, where that differs from the flag.
	inVariable string
	// file says that the value names a file.
	file fileKind
	// field returns a pointer to the value: a *string, *bool, *int, *time.Duration, *[]string or *headerLines.
	field func(*values) any
}

// shorthand is a flag that sets a value without naming it.
type shorthand struct {
	name  string
	value string
	// counts says that the flag takes a number, and that 1 or more sets the value. Otherwise the flag is a switch.
	counts bool
}

// fileKind is what the value of a file setting may be.
type fileKind int

const (
	noFile fileKind = iota
	// tokenFile: a path, in Lambda also a secret's ARN.
	tokenFile
	// pemFile: the same as tokenFile, or PEM text.
	pemFile
)

// values are the settings while they are being read.
type values struct {
	Settings
	headerLines headerLines
	logToStderr bool // has no effect: logs go to standard error anyway
}

// The groups of the help.
const (
	groupUpstream = "Upstream"
	groupTLS      = "TLS to the upstream"
	groupIdentity = "Identity"
	groupChecks   = "Checks"
	groupHTTP     = "HTTP"
	groupHTTPS    = "HTTPS"
	groupMetrics  = "Metrics"
	groupLogging  = "Logging"
	groupCommand  = "Command"
)

// declaration lists every setting, in the order of -help and the manual. Nothing changes it at run time.
var declaration = [...]setting{
	{
		group: groupUpstream, name: "ADDR", flags: []string{"grpc-addr", "grpcaddr"}, probe: "addr",
		placeholder: "TARGET", fallbackNote: "required",
		help:  "the upstream: `host:port`, `[::1]:port`, `unix:///path`, `dns:///host:port`, or a `passthrough` or `unix-abstract` target; the port may be a service's name, and is 443 without one",
		field: func(v *values) any { return &v.Addr },
	},
	{
		group: groupUpstream, name: "SERVICE_NAME", flags: []string{"service-name"}, probe: "service",
		placeholder: "NAMES",
		help:        "the service to check, or several, separated by commas; empty is the whole server",
		field:       func(v *values) any { return &v.Services },
	},
	{
		group: groupUpstream, name: "CONNECT_TIMEOUT", flags: []string{"connect-timeout"}, probe: "connect-timeout",
		placeholder: "DURATION", fallback: "1s",
		help:  "the time limit for connecting: name lookup, TCP, TLS, and the server's HTTP/2 SETTINGS",
		field: func(v *values) any { return &v.ConnectTimeout },
	},
	{
		group: groupUpstream, name: "RPC_TIMEOUT", flags: []string{"rpc-timeout"}, probe: "rpc-timeout",
		placeholder: "DURATION", fallback: "1s",
		help:  "the time limit for the RPC",
		field: func(v *values) any { return &v.RPCTimeout },
	},
	{
		group: groupUpstream, name: "CONN_MAX_AGE", flags: []string{"conn-max-age"},
		placeholder: "DURATION", fallback: "10s",
		help:  "how old a connection may be to be reused for another check; 0 dials for every RPC",
		field: func(v *values) any { return &v.ConnMaxAge },
	},
	{
		group: groupUpstream, name: "USER_AGENT", flags: []string{"user-agent"}, probe: "user-agent",
		placeholder: "TEXT", fallback: "grpc_health_proxy", probeFallback: "grpc_health_probe",
		help:  "the user agent of the RPC",
		field: func(v *values) any { return &v.UserAgent },
	},
	{
		group: groupUpstream, name: "RPC_HEADERS", flags: []string{"rpc-header"}, probe: "rpc-header",
		placeholder: "HEADER",
		help: "metadata to send, as `name: value`; repeatable; the value `@/path` is read from that file; " +
			"the value may have any bytes if the name ends in `-bin`",
		inVariable: "one per line",
		field:      func(v *values) any { return &v.headerLines },
	},
	{
		group: groupUpstream, name: "AUTHORITY", flags: []string{"grpc-authority"}, probe: "authority",
		placeholder: "NAME", fallbackNote: "the TLS server name, else the target; `localhost` for unix sockets",
		help:  "the RPC's `:authority`",
		field: func(v *values) any { return &v.Authority },
	},
	{
		group: groupUpstream, name: "GZIP", flags: []string{"gzip"}, probe: "gzip", fallback: "false",
		help:  "compress the request, and accept a compressed answer",
		field: func(v *values) any { return &v.Gzip },
	},
	{
		group: groupUpstream, name: "USE_PROXY", flags: []string{"use-proxy"}, probe: "use-proxy", fallback: "false",
		help:  "obey `HTTPS_PROXY` and `NO_PROXY` when dialling",
		field: func(v *values) any { return &v.UseProxy },
	},

	{
		group: groupTLS, name: "TLS", flags: []string{"grpc-tls", "grpctls"}, probe: "tls", fallback: "false",
		help:  "use TLS to the upstream",
		field: func(v *values) any { return &v.TLS },
	},
	{
		group: groupTLS, name: "CA_CERT", flags: []string{"grpc-ca-cert"}, probe: "tls-ca-cert",
		placeholder: "PEM", fallbackNote: "the system's roots", file: pemFile,
		help:  "the root certificates to verify the upstream with: a PEM file's path, or PEM text",
		field: func(v *values) any { return &v.CACert },
	},
	{
		group: groupTLS, name: "CLIENT_CERT", flags: []string{"grpc-client-cert"}, probe: "tls-client-cert",
		placeholder: "PEM", file: pemFile,
		help:  "the client certificate: a PEM file's path, or PEM text; requires its key",
		field: func(v *values) any { return &v.ClientCert },
	},
	{
		group: groupTLS, name: "CLIENT_KEY", flags: []string{"grpc-client-key"}, probe: "tls-client-key",
		placeholder: "PEM", file: pemFile,
		help:  "the client certificate's key: a PEM file's path, or PEM text",
		field: func(v *values) any { return &v.ClientKey },
	},
	{
		group: groupTLS, name: "TLS_NO_VERIFY", flags: []string{"grpc-tls-no-verify"}, probe: "tls-no-verify",
		fallback: "false",
		help:     "do not verify the upstream's certificate: anyone can pose as the upstream",
		field:    func(v *values) any { return &v.NoVerify },
	},
	{
		group: groupTLS, name: "SNI_SERVER_NAME", flags: []string{"grpc-sni-server-name"}, probe: "tls-server-name",
		placeholder: "NAME", fallbackNote: "from the target",
		help:  "the name to send (SNI), and that the upstream's certificate must carry; without verification only to send",
		field: func(v *values) any { return &v.ServerName },
	},

	{
		group: groupIdentity, name: "SPIFFE", flags: []string{"spiffe"}, probe: "spiffe", fallback: "false",
		help:  "use mTLS with the identity that the SPIFFE Workload API at `SPIFFE_ENDPOINT_SOCKET` issues",
		field: func(v *values) any { return &v.SPIFFE },
	},
	{
		group: groupIdentity, name: "SPIFFE_SERVER_ID", flags: []string{"spiffe-server-id"}, probe: "spiffe-server-id",
		placeholder: "ID", fallbackNote: "any",
		help:  "the SPIFFE ID that the upstream must present, or `spiffe://trust-domain` for any of that domain",
		field: func(v *values) any { return &v.SPIFFEServerID },
	},
	{
		group: groupIdentity, name: "ALTS", flags: []string{"alts"}, probe: "alts", fallback: "false",
		help:  "use ALTS client credentials (between machines of Google Cloud)",
		field: func(v *values) any { return &v.ALTS },
	},
	{
		group: groupIdentity, name: "ALTS_TARGET_SERVICE_ACCOUNTS",
		flags: []string{"alts-target-service-accounts"}, probe: "alts-target-service-accounts",
		placeholder: "ACCOUNTS", fallbackNote: "any",
		help:  "the service accounts that the upstream may run as, separated by commas",
		field: func(v *values) any { return &v.ALTSTargetServiceAccounts },
	},
	{
		group: groupIdentity, name: "ID_TOKEN_AUDIENCE", flags: []string{"id-token-audience"},
		placeholder: "URL",
		help:        "send a Google ID token for this audience (a private Cloud Run upstream); requires TLS",
		field:       func(v *values) any { return &v.IDTokenAudience },
	},

	{
		group: groupUpstream, name: "ALL_ADDRESSES", flags: []string{"all-addresses"}, fallback: "false",
		help:  "check each address behind the name on its own; the worst decides; not for unix sockets, nor with `-use-proxy`",
		field: func(v *values) any { return &v.AllAddresses },
	},
	{
		group: groupUpstream, name: "MIN_HEALTHY_ADDRESSES", flags: []string{"min-healthy-addresses"},
		placeholder: "N", fallbackNote: "all",
		help:  "how many addresses must be serving, as a number or as a share of those that can be reached, `67%`, rounded up; requires `-all-addresses`",
		field: func(v *values) any { return &v.MinHealthyAddresses },
	},

	{
		group: groupChecks, name: "TARGETS_FILE", flags: []string{"targets-file"},
		placeholder: "FILE", file: tokenFile,
		help:  "a YAML file that names many upstreams, instead of the settings of one",
		field: func(v *values) any { return &v.TargetsFile },
	},
	{
		group: groupChecks, name: "CHECK_INTERVAL", flags: []string{"check-interval"}, listener: true,
		placeholder: "DURATION", fallback: "0s",
		help:  "check everything that is configured this often, also when nobody asks: `1s` or more; 0 checks only when somebody does",
		field: func(v *values) any { return &v.CheckInterval },
	},
	{
		group: groupChecks, name: "MAX_CONCURRENT_CHECKS", flags: []string{"max-concurrent-checks"},
		placeholder: "N", fallback: "100",
		help:  "how many RPCs may be in flight at once for services that callers name and the settings do not",
		field: func(v *values) any { return &v.MaxConcurrentChecks },
	},
	{
		group: groupChecks, name: "ALLOW_LIST", flags: []string{"allow-list"}, fallback: "false",
		help:  "answer `?list` with the health `List` RPC",
		field: func(v *values) any { return &v.AllowList },
	},
	{
		group: groupChecks, name: "SHOW_CAUSE", flags: []string{"show-cause"}, fallback: "false",
		help:  "show callers why a check failed: a cause can name the upstream's addresses and certificates",
		field: func(v *values) any { return &v.ShowCause },
	},

	{
		group: groupHTTP, name: "HTTP_LISTEN_ADDR", flags: []string{"http-listen-addr"}, listener: true,
		placeholder: "HOST:PORT", fallback: "localhost:8080", platform: platformPort,
		fallbackNote: "`:$PORT` where `PORT` is set, else `localhost:8080`",
		help:         "where to listen; `localhost` is every loopback address of that name",
		field:        func(v *values) any { return &v.ListenAddr },
	},
	{
		group: groupHTTP, name: "HTTP_LISTEN_PATH", flags: []string{"http-listen-path"}, listener: true,
		placeholder: "PATH", fallback: "/",
		help:  "the path that answers, matched exactly; Cloud Run reserves paths that end in `z`",
		field: func(v *values) any { return &v.ListenPath },
	},
	{
		group: groupHTTP, name: "HTTP_AUTH_TOKEN_FILE", flags: []string{"http-auth-token-file"},
		placeholder: "FILE", file: tokenFile,
		help:  "callers must send the token in this file, as Bearer or as the Basic password",
		field: func(v *values) any { return &v.AuthTokenFile },
	},
	{
		group: groupHTTP, name: "PAGE_TITLE", flags: []string{"page-title"},
		placeholder: "TEXT", fallbackNote: "the upstream, or what is checked",
		help:  "the title of the status page, to tell one page from another: 100 characters at most",
		field: func(v *values) any { return &v.PageTitle },
	},
	{
		group: groupHTTP, name: "SHUTDOWN_GRACE", flags: []string{"shutdown-grace"}, listener: true,
		placeholder: "DURATION", fallback: "8s",
		help:  "how long requests in flight may take after SIGTERM",
		field: func(v *values) any { return &v.ShutdownGrace },
	},

	{
		group: groupHTTPS, name: "HTTPS_LISTEN_CERT", flags: []string{"https-listen-cert"}, listener: true,
		placeholder: "PEM", file: pemFile,
		help:  "serve HTTPS with this certificate: a PEM file's path, or PEM text; requires its key",
		field: func(v *values) any { return &v.HTTPSCert },
	},
	{
		group: groupHTTPS, name: "HTTPS_LISTEN_KEY", flags: []string{"https-listen-key"}, listener: true,
		placeholder: "PEM", file: pemFile,
		help:  "the certificate's key: a PEM file's path, or PEM text",
		field: func(v *values) any { return &v.HTTPSKey },
	},
	{
		group: groupHTTPS, name: "HTTPS_LISTEN_VERIFY", flags: []string{"https-listen-verify"}, listener: true,
		fallback: "false",
		help:     "require a client certificate, and verify it",
		field:    func(v *values) any { return &v.HTTPSVerify },
	},
	{
		group: groupHTTPS, name: "HTTPS_LISTEN_CA", flags: []string{"https-listen-ca"}, listener: true,
		placeholder: "PEM", file: pemFile,
		help:  "the root certificates to verify client certificates with: a PEM file's path, or PEM text; unused without `-https-listen-verify`",
		field: func(v *values) any { return &v.HTTPSCA },
	},

	{
		group: groupMetrics, name: "METRICS_HTTP_LISTEN_ADDR", flags: []string{"metrics-http-listen-addr"}, listener: true,
		placeholder: "HOST:PORT", fallback: "localhost:9000",
		help:  "where to serve metrics; `localhost` is every loopback address of that name; an empty flag serves none",
		field: func(v *values) any { return &v.MetricsAddr },
	},
	{
		group: groupMetrics, name: "METRICS_HTTP_PATH", flags: []string{"metrics-http-path"}, listener: true,
		placeholder: "PATH", fallback: "/metrics",
		help:  "the path of the metrics",
		field: func(v *values) any { return &v.MetricsPath },
	},

	{
		group: groupLogging, name: "LOG_FORMAT", flags: []string{"log-format"},
		shorthands:  []shorthand{{name: "jsonLog", value: "json"}},
		placeholder: "FORMAT", fallback: "text", platform: platformLogFormat,
		fallbackNote: "`json` on Google Cloud and Lambda, else `text`",
		help:         "`text` or `json`; `-jsonLog` means `json`",
		field:        func(v *values) any { return &v.LogFormat },
	},
	{
		group: groupLogging, name: "LOG_LEVEL", flags: []string{"log-level"},
		shorthands:  []shorthand{{name: "debug", value: "debug"}, {name: "v", value: "debug", counts: true}},
		placeholder: "LEVEL", fallback: "info",
		help:  "`debug`, `info`, `warn` or `error`; `-debug`, and `-v` with 1 or more, mean `debug`",
		field: func(v *values) any { return &v.LogLevel },
	},
	{
		group: groupLogging, flags: []string{"logTarget"}, listener: true,
		placeholder: "FILE", fallbackNote: "standard error",
		help:  "append the log to this file",
		field: func(v *values) any { return &v.LogTarget },
	},
	{
		group: groupLogging, flags: []string{"logtostderr"}, fallback: "false",
		help:  "no effect; accepted for commands written for earlier releases",
		field: func(v *values) any { return &v.logToStderr },
	},

	{
		group: groupCommand, flags: []string{"runcli"}, fallback: "false",
		help:  "check once, print the answer, and exit",
		field: func(v *values) any { return &v.RunCLI },
	},
	{
		group: groupCommand, flags: []string{"check-self"}, fallback: "false",
		help:  "ask a proxy with the same settings of the listener, by its `/livez`, whether it is up, and exit with 0 or 1",
		field: func(v *values) any { return &v.CheckSelf },
	},
	{
		group: groupCommand, flags: []string{"format"}, probe: "format",
		placeholder: "FORMAT", fallback: "text",
		help:  "how to print the answer of one check: `text` or `json`",
		field: func(v *values) any { return &v.Format },
	},
	{
		group: groupCommand, probe: "v", fallback: "false",
		help:  "report on standard error what the probe does",
		field: func(v *values) any { return &v.Verbose },
	},
	{
		group: groupCommand, flags: []string{"version"}, probe: "version", fallback: "false",
		help:  "print the version, and exit",
		field: func(v *values) any { return &v.Version },
	},
}

// platformPort returns the address that serverless platforms tell a container to listen on
// (https://cloud.google.com/run/docs/container-contract#port).
func platformPort() (value, variable string) {
	port := os.Getenv("PORT")
	if port == "" {
		return "", ""
	}
	return ":" + port, "PORT"
}

// platformLogFormat returns json where the platform parses log lines as JSON.
func platformLogFormat() (value, variable string) {
	if platform.CloudRun() || platform.Lambda() {
		return "json", ""
	}
	return "", ""
}

// readBy reports whether the variant reads the setting.
func (s *setting) readBy(v variant) bool {
	switch v {
	case probe:
		return s.probe != ""
	case container:
		return len(s.flags) > 0
	default:
		return s.name != "" && !s.listener
	}
}

// ofUpstream reports whether the setting is one of an upstream, and not of the process.
func (s *setting) ofUpstream() bool {
	return s.group == groupUpstream || s.group == groupTLS || s.group == groupIdentity
}

// ofListeners reports whether the setting is about the ports, and has no meaning where nothing listens.
func (s *setting) ofListeners() bool {
	return s.group == groupHTTP || s.group == groupHTTPS || s.group == groupMetrics
}

// key returns the name of an upstream's setting in a targets file.
func (s *setting) key() string { return strings.ToLower(s.name) }

// names returns the setting's flags in the variant, the preferred one first.
func (s *setting) names(v variant) []string {
	switch {
	case v == probe && s.probe != "":
		return []string{s.probe}
	case v == container:
		return s.flags
	}
	return nil
}

// variable returns the setting's environment variable, or "".
func (s *setting) variable() string {
	if s.name == "" {
		return ""
	}
	return Prefix + s.name
}

// label returns the setting's name for messages. flagsOnly leaves out the variable, where it has no effect.
func (s *setting) label(v variant, flagsOnly bool) string {
	names := s.names(v)
	switch {
	case len(names) == 0:
		return s.variable()
	case flagsOnly || s.name == "":
		return "-" + names[0]
	}
	return "-" + names[0] + " (" + s.variable() + ")"
}

// defaultIn returns the variant's default, written as a flag's value.
func (s *setting) defaultIn(v variant) string {
	if v == probe && s.probeFallback != "" {
		return s.probeFallback
	}
	return s.fallback
}

// isSwitch reports whether the setting's flag needs no value.
func (s *setting) isSwitch() bool {
	_, ok := s.field(new(values)).(*bool)
	return ok
}

// howToWrite says how to write a value of the field's type, where the text cannot be read. Text needs no case: it can always be read.
func howToWrite(field any, text string) string {
	fault := "the value cannot be read"
	if strings.Contains(text, " ") {
		fault = "has a space"
	}
	switch field.(type) {
	case *bool:
		return fault + ": write true or false (1, 0, t and f mean the same)"
	case *int:
		return fault + ": write a whole number"
	}
	if _, err := strconv.ParseFloat(text, 64); err == nil {
		return "the value has no unit: write 5s for five seconds, or 500ms"
	}
	return fault + ": write a duration such as 500ms or 2s"
}
