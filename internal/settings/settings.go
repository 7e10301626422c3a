// Package settings declares every setting once: its name, environment variable, flags, default, help and validation. It reads
// the settings of each variant from flags and the environment, and keeps those of an upstream apart from those of the
// process.
package settings

import (
	"io"
	"strings"
	"time"

	"example.com/grpc-health-http/internal/platform"
)

// Settings are the validated values of all settings. A field that the variant does not read has its default.
type Settings struct {
	Upstream
	Process

	// FromEnvironment lists the variables that values were read from, in the order of the declaration.
	FromEnvironment []string
	// Names are the targets to check, where -runcli has words after its flags and there is a targets file; empty is all.
	Names []string
	// Warnings are sentences to log at the start. They name settings, never values.
	Warnings []string

	variant variant
	// flagsOnly says that the variables of the upstream have no effect: the probe has -addr.
	flagsOnly bool
}

// Upstream are the settings of one upstream: what to check, and how to reach it. The comments name the settings.
type Upstream struct {
	Addr           string        // ADDR, a target that target.Parse accepts
	Services       []string      // SERVICE_NAME, split at commas, without duplicates; empty is the whole server
	ConnectTimeout time.Duration // CONNECT_TIMEOUT
	RPCTimeout     time.Duration // RPC_TIMEOUT
	ConnMaxAge     time.Duration // CONN_MAX_AGE; 0 dials for every RPC
	UserAgent      string        // USER_AGENT
	Headers        []Header      // RPC_HEADERS, in the order given
	Authority      string        // AUTHORITY
	Gzip           bool          // GZIP
	UseProxy       bool          // USE_PROXY

	TLS        bool   // TLS
	CACert     string // CA_CERT: a path, PEM text, or (Lambda) a secret's ARN
	ClientCert string // CLIENT_CERT: as CA_CERT
	ClientKey  string // CLIENT_KEY: as CA_CERT
	NoVerify   bool   // TLS_NO_VERIFY
	ServerName string // SNI_SERVER_NAME

	SPIFFE                    bool     // SPIFFE
	SPIFFEServerID            string   // SPIFFE_SERVER_ID: spiffe://domain or spiffe://domain/path
	ALTS                      bool     // ALTS
	ALTSTargetServiceAccounts []string // ALTS_TARGET_SERVICE_ACCOUNTS, split at commas
	IDTokenAudience           string   // ID_TOKEN_AUDIENCE

	AllAddresses        bool   // ALL_ADDRESSES: each address behind the name is checked on its own
	MinHealthyAddresses string // MIN_HEALTHY_ADDRESSES: a number, or "67%"; empty is all
}

// MaxTargetBudget is the longest that CONNECT_TIMEOUT and RPC_TIMEOUT of a target may be together: targets change while the process runs, and the time that its
// listener gives an answer does not.
const MaxTargetBudget = time.Minute

// Target is one upstream of a targets file, or the only one where there is no file.
type Target struct {
	Name  string // empty where there is no file
	Group string // empty where it is in none
	Upstream
}

// Process are the settings of the process, which it has once for all upstreams.
type Process struct {
	TargetsFile   string        // TARGETS_FILE: a path or (Lambda) a secret's ARN; empty where Upstream is the only one
	CheckInterval time.Duration // CHECK_INTERVAL; 0 checks only when somebody asks

	MaxConcurrentChecks int  // MAX_CONCURRENT_CHECKS
	AllowList           bool // ALLOW_LIST
	ShowCause           bool // SHOW_CAUSE: answers to callers have the cause of a failure

	ListenAddr    string // HTTP_LISTEN_ADDR
	ListenPath    string // HTTP_LISTEN_PATH
	AuthTokenFile string // HTTP_AUTH_TOKEN_FILE: a path or (Lambda) a secret's ARN
	HTTPSCert     string // HTTPS_LISTEN_CERT: a path or PEM text
	HTTPSKey      string // HTTPS_LISTEN_KEY: a path or PEM text
	HTTPSVerify   bool   // HTTPS_LISTEN_VERIFY
	HTTPSCA       string // HTTPS_LISTEN_CA: a path or PEM text; unused unless HTTPSVerify

	PageTitle     string        // PAGE_TITLE
	MetricsAddr   string        // METRICS_HTTP_LISTEN_ADDR; empty turns metrics off
	MetricsPath   string        // METRICS_HTTP_PATH
	ShutdownGrace time.Duration // SHUTDOWN_GRACE

	LogFormat string // LOG_FORMAT: "text" or "json"
	LogLevel  string // LOG_LEVEL: "debug", "info", "warn" or "error"
	LogTarget string // -logTarget: a file to append to; empty is standard error

	RunCLI    bool   // -runcli: check once and exit; the settings of the listeners were not validated
	CheckSelf bool   // -check-self: ask the own LivenessPath and exit; only the settings of the listeners were validated
	Format    string // -format: "text" or "json"
	Version   bool   // -version: print the version and exit; nothing else was validated
	Verbose   bool   // -v of the probe
}

// Name returns what messages call a setting. For "CA_CERT" it is "-grpc-ca-cert (GRPC_HEALTH_CA_CERT)", or what the user of
// this variant can set, or the key "ca_cert" where a targets file has the setting. It returns a name that no setting has unchanged.
func (s *Settings) Name(name string) string {
	for i := range declaration {
		if declaration[i].name == name {
			if s.TargetsFile != "" && declaration[i].ofUpstream() {
				return declaration[i].key()
			}
			return declaration[i].label(s.variant, s.flagsOnly)
		}
	}
	return name
}

// Header is one piece of RPC metadata.
type Header struct {
	Name  string // lower case, legal
	Value string // empty where File is set; never logged
	File  string // the path (Lambda: or the secret's ARN) that the value is read from
}

// String returns the header with its value hidden.
func (h Header) String() string {
	if h.File != "" {
		return h.Name + ": @" + h.File
	}
	return h.Name + ": (redacted)"
}

// Problems are all problems that were found with the settings. Each names the setting and says what to do. None contains a
// value, except for the path of a file that does not exist.
type Problems []string

// Error returns one line for each problem.
func (p Problems) Error() string { return strings.Join(p, "\n") }

// FromEnvironment reads the settings of the function and of Lambda from the process's environment. A wrong one is an error of type Problems.
func FromEnvironment() (*Settings, error) {
	if platform.Lambda() {
		return read(lambda, nil, io.Discard)
	}
	return read(function, nil, io.Discard)
}

// ParseProxy reads the settings of grpc_health_proxy from its arguments, without the program's
// name, and from the process's environment for those that no argument sets. -help writes help to
// out and returns flag.ErrHelp; wrong settings are an error of type Problems.
func ParseProxy(args []string, out io.Writer) (*Settings, error) {
	return read(container, args, out)
}

// ParseProbe reads the settings of grpc_health_probe from its arguments, without the program's
// name, and from the process's environment for those that no argument sets. Where the arguments have -addr, they alone say what is
// checked and how: credentials in the environment are for another server. -help writes help to out and returns
// flag.ErrHelp; wrong settings are an error of type Problems.
func ParseProbe(args []string, out io.Writer) (*Settings, error) {
	return read(probe, args, out)
}

func read(v variant, args []string, out io.Writer) (*Settings, error) {
	r := newReader(v)
	r.defaults()
	if err := r.arguments(args); err != nil {
		writeHelp(out, v)
		return nil, err
	}
	if r.Version {
		return &r.Settings, nil
	}
	r.environment()
	r.readWords()
	r.upstreamBesideFile()
	r.reportFaults()
	r.unknownVariables()
	r.validate()
	if len(r.problems) > 0 {
		return nil, append(r.problems, r.ignored...)
	}
	r.Warnings = append(r.Warnings, r.ignored...)
	return &r.Settings, nil
}
