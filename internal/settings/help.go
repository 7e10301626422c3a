package settings

import (
	"cmp"
	"fmt"
	"io"
	"strings"
)

// writeHelp writes a command's help, with the settings in groups.
func writeHelp(out io.Writer, v variant) {
	var b strings.Builder
	switch v {
	case probe:
		b.WriteString("grpc_health_probe asks a gRPC server once how it is; the exit code is the answer.\n\n" +
			"Usage: grpc_health_probe -addr host:port [flags]\n\n" +
			"Without -addr, the environment variables say what to check and how; a flag wins over the variable beside it.\n" +
			"With -addr they have no effect: credentials for one server never go to another.\n")
	default:
		b.WriteString("grpc_health_proxy answers HTTP requests with the health of a gRPC server.\n\n" +
			"Usage: grpc_health_proxy -grpc-addr host:port [flags]\n\n" +
			"A flag wins over the environment variable beside it. An empty variable counts as unset.\n")
	}
	group := ""
	for i := range declaration {
		s := &declaration[i]
		if !s.readBy(v) {
			continue
		}
		if s.group != group {
			group = s.group
			fmt.Fprintf(&b, "\n%s:\n", group)
		}
		fmt.Fprintf(&b, "  %s\n", strings.Join(s.usages(v), ", "))
		fmt.Fprintf(&b, "        %s\n        (%s)\n", strings.Join(wrapped(plain(s.help)), "\n        "), s.origin(v))
	}
	b.WriteString(endings[v])
	io.WriteString(out, b.String())
}

// endings are what the help of a command ends with: its exit codes and two examples.
var endings = map[variant]string{
	container: `
Exit codes of -runcli:
  0   serving
  1   no usable connection, or not in time
  2   the RPC failed, or its time ran out
  3   the server does not know the service
  4   the server has no health service
  5   the server answered, and the answer is not SERVING
-check-self: 0 if the proxy is up, 1 if not.
Always: 64 for wrong settings, an address that cannot be listened on among them; 70 for a server that could not go on
serving.

Examples:
  grpc_health_proxy -grpc-addr localhost:50051 -service-name echo.EchoServer -http-listen-addr :8080
  grpc_health_proxy -runcli -grpc-addr grpc.example.com:443 -grpc-tls -format json
`,
	probe: `
Exit codes:
  0   serving
  1   wrong arguments
  2   no usable connection in time
  3   the RPC failed (unknown service and no health service among it), the connection was lost, or the time ran out
  4   the server answered, and the answer is not SERVING
  20  there are no SPIFFE credentials

Examples:
  grpc_health_probe -addr localhost:50051 -service echo.EchoServer
  grpc_health_probe -addr grpc.example.com:443 -tls -connect-timeout 5s
`,
}

// helpWidth is the maximum length of a line of a help text, without its indentation.
const helpWidth = 88

// wrapped breaks a text into lines between words.
func wrapped(text string) []string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && len(line)+1+len(word) > helpWidth {
			lines, line = append(lines, line), ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}

// usages returns the setting's flags as a user writes them.
func (s *setting) usages(v variant) []string {
	var usages []string
	for _, name := range s.names(v) {
		usages = append(usages, strings.TrimSpace("-"+name+" "+s.placeholder))
	}
	if v == container {
		for _, short := range s.shorthands {
			usages = append(usages, short.usage())
		}
	}
	return usages
}

func (s *shorthand) usage() string {
	if s.counts {
		return "-" + s.name + " N"
	}
	return "-" + s.name
}

// origin says where a value comes from if no flag gives it.
func (s *setting) origin(v variant) string {
	text := plain(cmp.Or(s.fallbackNote, s.defaultIn(v), "none"))
	if text != "required" {
		text = "default: " + text
	}
	if (v == container || v == probe) && s.name != "" {
		text += "; environment: " + s.variable()
		if s.inVariable != "" {
			text += ", " + s.inVariable
		}
	}
	return text
}

// plain removes the Markdown from a help text.
func plain(text string) string { return strings.ReplaceAll(text, "`", "") }

// Variable is a setting's environment variable, for deployments, which must name every one.
type Variable struct {
	Name string
	// Listener says that the function and Lambda do not read the variable, because the platform listens for them.
	Listener bool
	// File says that the variable names a file.
	File bool
}

// Variables returns the variables of all settings that have one, in the order of the help.
func Variables() []Variable {
	var all []Variable
	for i := range declaration {
		if s := &declaration[i]; s.name != "" {
			all = append(all, Variable{Name: s.variable(), Listener: s.listener, File: s.file != noFile})
		}
	}
	return all
}

// MarkdownTable returns the manual's table of all settings.
func MarkdownTable() string {
	var b strings.Builder
	b.WriteString("| environment | flag of `grpc_health_proxy` (aliases) | flag of `grpc_health_probe` | default | meaning |\n|---|---|---|---|---|\n")
	for i := range declaration {
		s := &declaration[i]
		variable := code(s.variable())
		if s.inVariable != "" {
			variable += ", " + s.inVariable
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", variable, s.markdownFlags(), code(dash(s.probe)), s.markdownDefault(), s.help)
	}
	return b.String()
}

func (s *setting) markdownFlags() string {
	if len(s.flags) == 0 {
		return code("")
	}
	text := code(dash(s.flags[0]))
	var aliases []string
	for _, alias := range s.flags[1:] {
		aliases = append(aliases, code(dash(alias)))
	}
	for i := range s.shorthands {
		aliases = append(aliases, code(s.shorthands[i].usage()))
	}
	if len(aliases) > 0 {
		text += " (" + strings.Join(aliases, ", ") + ")"
	}
	return text
}

func (s *setting) markdownDefault() string {
	switch {
	case s.fallbackNote != "":
		return s.fallbackNote
	case s.fallback == "":
		return "none"
	case s.probeFallback != "":
		return code(s.fallback) + ", " + code(s.probeFallback)
	}
	return code(s.fallback)
}

func dash(name string) string {
	if name == "" {
		return ""
	}
	return "-" + name
}

// code marks the text of a table cell as code. An empty cell gets a dash.
func code(text string) string {
	if text == "" {
		return "–"
	}
	return "`" + text + "`"
}
