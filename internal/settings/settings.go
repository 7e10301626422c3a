// Package settings holds the one declaration of every setting: its environment variable, flags,
// default, help and validation.
package settings

import "time"

// Settings are the values of all settings, checked. A field that a variant does not read has its default.
type Settings struct {
	Addr           string        // GRPC_ADDR, a target that check.ParseTarget accepts
	Services       []string      // SERVICE_NAME, split at commas; empty is the whole server
	ConnectTimeout time.Duration // CONNECT_TIMEOUT
	RPCTimeout     time.Duration // RPC_TIMEOUT
	ConnMaxAge     time.Duration // CONN_MAX_AGE; 0 dials for every RPC
	UserAgent      string        // USER_AGENT
	Headers        []Header      // RPC_HEADERS, in the order given
	Authority      string        // GRPC_AUTHORITY
	Gzip           bool          // GZIP
	UseProxy       bool          // USE_PROXY

	TLS        bool   // GRPC_TLS
	CACert     string // GRPC_CA_CERT: a path, PEM text, or (Lambda) a secret's ARN
	ClientCert string // GRPC_CLIENT_CERT, likewise
	ClientKey  string // GRPC_CLIENT_KEY, likewise
	NoVerify   bool   // GRPC_TLS_NO_VERIFY
	ServerName string // GRPC_SNI_SERVER_NAME

	SPIFFE                    bool     // SPIFFE
	SPIFFEServerID            string   // SPIFFE_SERVER_ID
	ALTS                      bool     // ALTS
	ALTSTargetServiceAccounts []string // ALTS_TARGET_SERVICE_ACCOUNTS, split at commas
	IDTokenAudience           string   // ID_TOKEN_AUDIENCE

	MaxConcurrentChecks int  // MAX_CONCURRENT_CHECKS
	AllowList           bool // ALLOW_LIST

	ListenAddr    string // HTTP_LISTEN_ADDR
	ListenPath    string // HTTP_LISTEN_PATH
	AuthTokenFile string // HTTP_AUTH_TOKEN_FILE
	HTTPSCert     string // HTTPS_LISTEN_CERT
	HTTPSKey      string // HTTPS_LISTEN_KEY
	HTTPSVerify   bool   // HTTPS_LISTEN_VERIFY
	HTTPSCA       string // HTTPS_LISTEN_CA

	MetricsAddr   string        // METRICS_HTTP_LISTEN_ADDR; empty turns metrics off
	MetricsPath   string        // METRICS_HTTP_PATH
	ShutdownGrace time.Duration // SHUTDOWN_GRACE

	LogFormat string // LOG_FORMAT: "text" or "json"
	LogLevel  string // LOG_LEVEL: "debug", "info", "warn" or "error"
	LogTarget string // -logTarget: a file to append to; empty is standard error

	RunCLI  bool   // -runcli: check once and exit
	Format  string // -format: "text" or "json"
	Version bool   // -version: print the version and exit
	Verbose bool   // -v of the probe

	// FromEnvironment names the variables that a value was taken from, in declared order.
	FromEnvironment []string
	// Warnings are sentences to log at start.
	Warnings []string
}

// Header is one piece of RPC metadata.
type Header struct {
	Name  string // lower case, legal
	Value string // empty where File is set; never logged
	File  string // the path that the value is read from
}
