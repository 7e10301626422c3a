package settings

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/internal/pemfile"
	"example.com/grpc-health-http/internal/platform"
	"example.com/grpc-health-http/internal/target"
)

// LivenessPath is the path that grpc_health_proxy answers itself, on both ports, without a check.
const LivenessPath = "/livez"

// maxTimeout is the longest timeout. It guards the sum of several against an overflow.
const maxTimeout = 365 * 24 * time.Hour

// maxTitle is the length of the longest PAGE_TITLE, in characters.
const maxTitle = 100

// validate checks each value, and that the values fit together.
func (r *reader) validate() {
	if r.RunCLI && r.CheckSelf {
		r.excludes(&r.RunCLI, &r.CheckSelf)
	}
	if !r.CheckSelf {
		if r.TargetsFile == "" {
			r.validateOneUpstream()
		}
		if r.MaxConcurrentChecks < 1 {
			r.wrong(&r.MaxConcurrentChecks, "must be 1 or more")
		}
		if r.CheckInterval != 0 && r.CheckInterval < time.Second {
			r.wrong(&r.CheckInterval, "must be 1s or more, or 0 to check only when somebody asks")
		} else if r.CheckInterval > maxTimeout {
			r.wrong(&r.CheckInterval, "is more than a year: write a duration such as 10s or 1m")
		}
	}
	if !r.RunCLI {
		r.validateListeners()
	}
	if r.CheckSelf {
		r.validateCheckSelf()
	}
	r.validateOutput()
	r.validateFiles()
}

// index returns the place in the declaration of the setting that has this field.
func (r *reader) index(field any) int {
	return slices.IndexFunc(declaration[:], func(s setting) bool { return s.field(&r.values) == field })
}

// label returns the name, for messages, of the setting that has this field.
func (r *reader) label(field any) string {
	return r.labelOf(r.index(field))
}

func (r *reader) labelOf(i int) string {
	if r.file != nil {
		return declaration[i].key()
	}
	return declaration[i].label(r.variant, r.flagsOnly)
}

// report notes a problem with setting i.
func (r *reader) report(i int, text string) {
	if r.file != nil {
		r.file.report(i, text)
		return
	}
	r.problems = append(r.problems, r.labelOf(i)+": "+text)
}

// warn notes a warning about the setting that has this field.
func (r *reader) warn(field any, text string) {
	if r.file != nil {
		r.file.warn(r.index(field), text)
		return
	}
	r.Warnings = append(r.Warnings, r.label(field)+": "+text)
}

// wrong reports a problem with the setting that has this field, unless its text could not be used anyway.
func (r *reader) wrong(field any, text string) {
	if i := r.index(field); r.faults[i] == "" {
		r.report(i, text)
	}
}

// needs reports a setting that has a meaning only together with another.
func (r *reader) needs(field, needed any) {
	if r.faults[r.index(needed)] != "" {
		return // it may well have been meant to be set
	}
	if r.file != nil && (r.file.forSome(needed) || r.file.drop(field)) {
		return
	}
	r.wrong(field, "means nothing without "+r.label(needed)+": set both, or neither")
}

// excludes reports two settings that contradict each other.
func (r *reader) excludes(field, other any) {
	if r.file != nil && (r.file.drop(other) || r.file.drop(field)) {
		return
	}
	r.wrong(field, "contradicts "+r.label(other)+": set only one of them")
}

// inherited reports whether the setting that has this field is a default of a targets file, which was validated with the defaults.
func (r *reader) inherited(field any) bool {
	return r.file != nil && r.file.inherited(r.index(field))
}

// upstreamBesideFile reports the settings of one upstream that stand beside a targets file, where they would have no effect.
func (r *reader) upstreamBesideFile() {
	if r.TargetsFile == "" || r.CheckSelf {
		return
	}
	for i := range declaration {
		s := &declaration[i]
		if !s.ofUpstream() || !r.present[i] {
			continue
		}
		place := "under defaults"
		if s.name == "ADDR" {
			place = "under a target"
		}
		r.problem("%s: contradicts %s: put it %s in that file, as %s", r.labelOf(i), r.label(&r.TargetsFile), place, s.key())
		r.faults[i] = "" // one problem is enough
	}
}

// validateOneUpstream checks the settings of one upstream. What decides which others have a meaning comes first.
func (r *reader) validateOneUpstream() {
	r.validateCredentials()
	r.validateUpstream()
	r.validateTLS()
	r.validateIdentity()
	r.validateAddresses()
}

func (r *reader) validateUpstream() {
	if r.Addr == "" && r.file != nil && r.file.inDefaults {
		// Each target has its own.
	} else if r.Addr == "" {
		r.wrong(&r.Addr, "required: write the upstream as host:port")
	} else if _, err := target.Parse(r.Addr); err != nil {
		text := err.Error()
		if strings.Contains(r.Addr, " ") {
			text = "has a space: write host:port"
		}
		r.wrong(&r.Addr, text)
	}
	r.validateServices()
	r.validateHeaders()
	for _, timeout := range []*time.Duration{&r.ConnectTimeout, &r.RPCTimeout} {
		switch {
		case *timeout <= 0:
			r.wrong(timeout, "must be above zero: write a duration such as 500ms or 2s")
		case *timeout > maxTimeout:
			r.wrong(timeout, "is more than a year: write a duration such as 500ms or 2s")
		}
	}
	if r.file != nil && r.ConnectTimeout <= maxTimeout && r.RPCTimeout <= maxTimeout && r.ConnectTimeout+r.RPCTimeout > MaxTargetBudget {
		r.wrong(&r.RPCTimeout, "is with connect_timeout more than a minute, the most for a target: write less")
	}
	if r.ConnMaxAge < 0 {
		r.wrong(&r.ConnMaxAge, "must not be below zero: write a duration such as 10s, or 0 to dial for every RPC")
	}
	if !printable(r.UserAgent) {
		r.wrong(&r.UserAgent, "has a character that is not printable ASCII: write it without")
	}
	if fault := wordFault(r.Authority); fault != "" {
		r.wrong(&r.Authority, fault+": write a name, or name:port")
	}
}

func (r *reader) validateServices() {
	if r.inherited(&r.Services) {
		return
	}
	var names []string
	warned, spaced, faults := false, false, make(map[string]bool)
	for _, name := range r.Services {
		name = strings.TrimSpace(name)
		fault := health.NameFault(name)
		if name == "" {
			fault = "has an empty member: write names with one comma between two of them"
		}
		if fault != "" {
			if !faults[fault] {
				r.wrong(&r.Services, fault)
			}
			faults[fault] = true
			continue
		}
		if strings.Contains(name, "/") && !warned {
			warned = true
			r.warn(&r.Services, "service name looks like a method path: use the service's name only")
		}
		if strings.Contains(name, " ") && !spaced {
			spaced = true
			r.warn(&r.Services, "service name has a space: separate names with commas")
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if len(names) > health.MaxServices {
		r.wrong(&r.Services, "names more than 100 services: name fewer")
	}
	r.Services = names
}

func (r *reader) validateHeaders() {
	for i, line := range r.headerLines {
		h, fault := r.parseHeader(line)
		if fault != "" {
			r.wrong(&r.headerLines, "header "+strconv.Itoa(i+1)+": "+fault)
			continue
		}
		if quoted := textFault(h.Value, true); quoted != "" && !strings.HasSuffix(h.Name, "-bin") {
			r.warn(&r.headerLines, "header "+strconv.Itoa(i+1)+": the value is in quotes, which are sent too")
		}
		if h.File != "" && !strings.HasPrefix(h.File, "arn:") {
			r.validatePath(&r.headerLines, "header "+strconv.Itoa(i+1)+": ", h.File)
		}
		r.Headers = append(r.Headers, h)
	}
}

const illegalHeaderName = "an illegal character in the name: write it with letters, digits, -, _ and . only"

// parseHeader reads "name: value". fault says what is wrong, or is empty. Names and values follow gRPC's rules
// (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md, Custom-Metadata).
func (r *reader) parseHeader(line string) (h Header, fault string) {
	name, value, found := strings.Cut(line, ":")
	h.Name = strings.ToLower(strings.TrimSpace(name))
	value = strings.TrimSpace(value)
	odd := textFault(strings.TrimSpace(name), false)
	if odd == "" && !strings.HasSuffix(h.Name, "-bin") {
		odd = invisible(value)
	}
	switch {
	case odd != "":
		return h, odd
	case !found:
		return h, "no colon: write name: value"
	case h.Name == "":
		return h, "no name before the first colon: write name: value"
	case strings.ContainsFunc(h.Name, notInHeaderName):
		return h, illegalHeaderName
	case reservedHeader(h.Name):
		return h, "a name that belongs to gRPC or HTTP/2: leave it out (the user agent has a setting of its own)"
	}
	switch {
	case strings.HasPrefix(value, "@/"):
		h.File = value[1:]
		return h, ""
	case strings.HasPrefix(value, "@arn:"):
		h.File = value[1:]
		return h, r.arnFault(h.File)
	case !strings.HasSuffix(h.Name, "-bin") && !printable(value):
		return h, "a character in the value that is not printable ASCII: only a name that ends in -bin may have any bytes"
	}
	h.Value = value
	return h, ""
}

func notInHeaderName(c rune) bool {
	return !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '_' || c == '.')
}

// reservedHeader reports whether gRPC sets the header itself, or HTTP/2 forbids it (RFC 9113, section 8.2.2).
func reservedHeader(name string) bool {
	switch name {
	case "content-type", "content-length", "te", "user-agent", "host",
		"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "http2-settings":
		return true
	}
	return strings.HasPrefix(name, "grpc-")
}

func (r *reader) validateTLS() {
	if !r.TLS {
		for _, option := range []*string{&r.CACert, &r.ClientCert, &r.ClientKey, &r.ServerName} {
			if *option != "" {
				r.needs(option, &r.TLS)
			}
		}
		if r.NoVerify {
			r.needs(&r.NoVerify, &r.TLS)
		}
	}
	r.validatePair(&r.ClientCert, &r.ClientKey)
	if r.NoVerify {
		if r.CACert != "" {
			r.excludes(&r.CACert, &r.NoVerify)
		}
		r.warn(&r.NoVerify, "the upstream's certificate is not verified: anyone can pose as the upstream")
	}
	if fault := wordFault(r.ServerName); fault != "" {
		r.wrong(&r.ServerName, fault+": write a host name")
	}
}

func (r *reader) validatePair(cert, key *string) {
	switch {
	case *cert != "" && *key == "":
		r.needs(cert, key)
	case *cert == "" && *key != "":
		r.needs(key, cert)
	}
}

// validateCredentials checks that there is one kind of credentials at most.
func (r *reader) validateCredentials() {
	if r.TLS && r.ALTS {
		r.excludes(&r.TLS, &r.ALTS)
	}
	if r.TLS && r.SPIFFE {
		r.excludes(&r.TLS, &r.SPIFFE)
	}
	if r.ALTS && r.SPIFFE {
		r.excludes(&r.ALTS, &r.SPIFFE)
	}
}

func (r *reader) validateIdentity() {
	if r.SPIFFEServerID != "" {
		if !r.SPIFFE {
			r.needs(&r.SPIFFEServerID, &r.SPIFFE)
		}
		if _, err := spiffeid.FromString(r.SPIFFEServerID); err != nil {
			r.wrong(&r.SPIFFEServerID, "not a SPIFFE ID: write spiffe://trust-domain/path, or spiffe://trust-domain for any of that domain")
		}
	}
	r.validateAccounts()
	if r.IDTokenAudience != "" {
		if !r.TLS {
			r.needs(&r.IDTokenAudience, &r.TLS)
		}
		if slices.ContainsFunc(r.Headers, func(h Header) bool { return h.Name == "authorization" }) {
			r.excludes(&r.headerLines, &r.IDTokenAudience) // both are the authorization header
		}
		if fault := wordFault(r.IDTokenAudience); fault != "" {
			r.wrong(&r.IDTokenAudience, fault+": write the URL of the upstream's service")
		}
	}
}

func (r *reader) validateAccounts() {
	if len(r.ALTSTargetServiceAccounts) == 0 {
		return
	}
	if !r.ALTS {
		r.needs(&r.ALTSTargetServiceAccounts, &r.ALTS)
	}
	if r.inherited(&r.ALTSTargetServiceAccounts) {
		return
	}
	for i, account := range r.ALTSTargetServiceAccounts {
		account = strings.TrimSpace(account)
		if account == "" || !word(account) {
			r.wrong(&r.ALTSTargetServiceAccounts, "account "+strconv.Itoa(i+1)+" is empty, or has a space or a character that is not printable ASCII: write name@project.iam.gserviceaccount.com")
		}
		r.ALTSTargetServiceAccounts[i] = account
	}
}

// validateAddresses checks what is said about the addresses behind a name.
func (r *reader) validateAddresses() {
	if r.AllAddresses && r.UseProxy {
		r.excludes(&r.AllAddresses, &r.UseProxy) // the proxy looks the name up
	}
	if r.AllAddresses && r.Addr != "" {
		if t, err := target.Parse(r.Addr); err == nil && t.IsUnix() {
			if r.inherited(&r.AllAddresses) {
				r.file.drop(&r.AllAddresses)
			} else {
				r.wrong(&r.AllAddresses, "a unix socket has no addresses: leave it out")
			}
		}
	}
	if r.MinHealthyAddresses == "" {
		return
	}
	if !r.AllAddresses {
		r.needs(&r.MinHealthyAddresses, &r.AllAddresses)
	}
	if fault := minHealthyFault(r.MinHealthyAddresses); fault != "" {
		r.wrong(&r.MinHealthyAddresses, fault)
	}
}

// minHealthyFault says what is wrong with a number of addresses, or a share of them; empty where nothing is.
func minHealthyFault(text string) string {
	const advice = ": write a number of addresses such as 2, or a share from 1% to 100%"
	digits, share := strings.CutSuffix(text, "%")
	n, err := strconv.Atoi(digits)
	switch {
	case strings.Contains(text, " "):
		return "has a space" + advice
	case digits == "" || strings.Trim(digits, "0123456789") != "" || err != nil:
		return "not a whole number, with or without %" + advice
	case n == 0:
		return "must be above zero" + advice
	case digits[0] == '0':
		return "begins with 0, which some take for an octal number" + advice
	case share && n > 100:
		return "is more than 100%" + advice
	}
	return ""
}

// MinHealthy is how many addresses must be serving, of those that can be reached: MIN_HEALTHY_ADDRESSES, a share rounded up, or all.
// It is at least 1, and may be more than can be reached.
func (u *Upstream) MinHealthy(reachable int) int {
	if u.MinHealthyAddresses == "" {
		return max(1, reachable)
	}
	digits, share := strings.CutSuffix(u.MinHealthyAddresses, "%")
	n, _ := strconv.Atoi(digits) // was validated
	if share {
		n = (n*reachable + 99) / 100
	}
	return max(1, n)
}

// validateCheckSelf checks that the settings say whom to ask.
func (r *reader) validateCheckSelf() {
	asked := &r.ListenAddr
	if r.HTTPSVerify {
		asked = &r.MetricsAddr
	}
	if *asked == "" {
		r.wrong(&r.CheckSelf, "has nobody to ask: "+r.label(&r.HTTPSVerify)+" keeps it out of the port for checks, and "+r.label(&r.MetricsAddr)+" is empty: set that")
	} else if _, port, ok := splitListen(*asked); ok && port == "0" {
		r.wrong(asked, "with port 0 only the system knows the port: write one that -check-self can ask")
	}
}

func (r *reader) validateListeners() {
	host, port, listens := splitListen(r.ListenAddr)
	if !listens {
		r.wrong(&r.ListenAddr, notHostPort(r.ListenAddr)+": write localhost:8080, or :8080 for all addresses; where it is not set, PORT gives the port")
	}
	if r.MetricsAddr != "" {
		metricsHost, metricsPort, ok := splitListen(r.MetricsAddr)
		switch {
		case !ok:
			r.wrong(&r.MetricsAddr, notHostPort(r.MetricsAddr)+": write localhost:9000, or :9000 for all addresses")
		case listens && port != "0" && port == metricsPort && overlap(host, metricsHost):
			r.wrong(&r.MetricsAddr, "is the address of "+r.label(&r.ListenAddr)+": use another port")
		}
	}
	for _, path := range []*string{&r.ListenPath, &r.MetricsPath} {
		switch {
		case !strings.HasPrefix(*path, "/"):
			r.wrong(path, "does not begin with /: write a path such as /health")
		case *path == LivenessPath:
			r.wrong(path, LivenessPath+" says that this process is up: use another path")
		case !word(*path) || strings.ContainsAny(*path, "?#"):
			r.wrong(path, "has a character that no path has: write a path such as /health")
		}
	}
	if r.variant == container && platform.CloudRun() && strings.HasSuffix(r.ListenPath, "z") {
		r.Warnings = append(r.Warnings, r.label(&r.ListenPath)+": Cloud Run keeps paths that end in z for itself: requests to this one may not arrive")
	}

	r.validatePair(&r.HTTPSCert, &r.HTTPSKey)
	if r.HTTPSVerify {
		if r.HTTPSCA == "" {
			r.needs(&r.HTTPSVerify, &r.HTTPSCA)
		}
		if r.HTTPSCert == "" {
			r.needs(&r.HTTPSVerify, &r.HTTPSCert)
		}
	}
	switch {
	case utf8.RuneCountInString(r.PageTitle) > maxTitle:
		r.wrong(&r.PageTitle, "is longer than 100 characters: write a shorter one")
	case strings.ContainsFunc(r.PageTitle, func(c rune) bool { return !unicode.IsPrint(c) }):
		r.wrong(&r.PageTitle, "has a character that cannot be printed: write it without")
	}
	if r.ShutdownGrace < 0 {
		r.wrong(&r.ShutdownGrace, "must not be below zero: write a duration such as 8s")
	}
}

// splitListen parses an address to listen on. Port 0 lets the system choose. A port may be a service's name, such as http.
func splitListen(addr string) (host, port string, ok bool) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil || !word(host) || port == "" {
		return "", "", false
	}
	if strings.Trim(port, "0123456789") != "" {
		n, err := net.LookupPort("tcp", port)
		return host, strconv.Itoa(n), err == nil
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return host, strconv.FormatUint(n, 10), err == nil
}

// notHostPort says what is wrong with an address that splitListen does not take.
func notHostPort(addr string) string {
	if fault := wordFault(addr); fault != "" {
		return fault
	}
	return "not host:port"
}

// overlap reports whether listeners on these two hosts cannot share a port.
func overlap(a, b string) bool {
	return a == b || wildcard(a) || wildcard(b)
}

func wildcard(host string) bool {
	return host == "" || net.ParseIP(host).IsUnspecified()
}

func (r *reader) validateOutput() {
	for _, word := range []*string{&r.LogFormat, &r.LogLevel, &r.Format} {
		*word = strings.ToLower(*word)
	}
	for _, format := range []*string{&r.LogFormat, &r.Format} {
		if *format != "text" && *format != "json" {
			r.wrong(format, "not a known format: write text or json")
		}
	}
	switch r.LogLevel {
	case "debug", "info", "warn", "error":
	case "warning":
		r.LogLevel = "warn"
	default:
		r.wrong(&r.LogLevel, "not a known level: write debug, info, warn or error")
	}
}

// validateFiles checks the text of settings that name files. The files are read later, when a check needs them. Only the
// commands check at the start that a file exists: platforms may mount it later.
func (r *reader) validateFiles() {
	for i := range declaration {
		s := &declaration[i]
		if s.file == noFile || !r.reads(i) || r.CheckSelf || s.ofUpstream() && (r.TargetsFile != "" || r.inherited(s.field(&r.values))) {
			continue
		}
		field := s.field(&r.values).(*string)
		switch {
		case *field == "":
		case s.file == pemFile && strings.Contains(*field, "-----BEGIN"):
			if !slices.ContainsFunc(pemfile.Blocks([]byte(*field)), func(b pemfile.Block) bool { return b.Fault == "" }) {
				r.wrong(field, "PEM text without a whole block: keep its line breaks, from the BEGIN line to the END line")
			}
		case s.file == pemFile && pemfile.Base64(*field):
			r.wrong(field, "PEM text in base64: decode it first")
		case strings.HasPrefix(*field, "arn:"):
			if fault := r.arnFault(*field); fault != "" {
				r.wrong(field, fault)
			}
		default:
			r.validatePath(field, "", *field)
		}
	}
}

// NamesSecret reports whether an ARN names a secret, in any of AWS's partitions, such as aws-cn and aws-us-gov.
func NamesSecret(arn string) bool {
	return regexp.MustCompile(`^arn:aws[a-z-]*:secretsmanager:`).MatchString(arn)
}

// arnFault says what is wrong with an ARN in place of a file, or returns "".
func (r *reader) arnFault(arn string) string {
	switch {
	case r.variant != lambda:
		return "names an AWS secret, which only Lambda reads: write a file's path"
	case !NamesSecret(arn):
		return "names an AWS resource that is no secret: write arn:aws:secretsmanager:..."
	}
	return ""
}

// exists reports whether a text is the path of a file.
func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// validatePath reports a file that does not exist, if a command needs it. One that a targets file names is only worth a warning:
// it must not keep the other targets from being checked. The place begins the report.
func (r *reader) validatePath(field any, place, path string) {
	if r.file != nil {
		if fault := r.file.missing(path); fault != "" {
			r.warn(field, place+fault)
		}
		return
	}
	if r.variant != container && r.variant != probe {
		return
	}
	if fault := missingFault(path); fault != "" {
		r.wrong(field, place+fault)
	}
}

// missingFault says that a file does not exist. It returns "" if the file exists, or if that cannot be found out.
func missingFault(path string) string {
	_, err := os.Stat(path)
	// The last three errors are for text that cannot be a file's path.
	missing := []error{fs.ErrNotExist, syscall.ENOTDIR, syscall.ENAMETOOLONG, syscall.EINVAL}
	if !slices.ContainsFunc(missing, func(e error) bool { return errors.Is(err, e) }) {
		return ""
	}
	if PathForm(path) {
		return "the file " + path + " does not exist: name one that does"
	}
	return "the file that it names does not exist: name one that does"
}

// printable reports whether a text has only printable ASCII characters and spaces.
func printable(text string) bool {
	return !strings.ContainsFunc(text, func(c rune) bool { return c < ' ' || c > '~' })
}

// word reports whether a text has only printable ASCII characters, and no spaces.
func word(text string) bool {
	return printable(text) && !strings.Contains(text, " ")
}
