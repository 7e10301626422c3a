// Package scripttest runs scripts against a built command, with real upstreams, certificates and HTTP requests. The scripts are
// testscript's (https://pkg.go.dev/github.com/rogpeppe/go-internal/testscript), and show how to use the command. Build builds a
// command for other tests, too. Only tests import the package, and the soak.
//
// In addition to testscript's own commands, a script has:
//
//	exits CODE [NAME=VALUE...] PROGRAM [ARGUMENT...]
//	    Run the command, and check its exit code. Its environment has only these variables.
//	start PROCESS [NAME=VALUE...] PROGRAM [ARGUMENT...]
//	    Run the command in the background.
//	proxy PROCESS [NAME=VALUE...] [ARGUMENT...]
//	    Start grpc_health_proxy in the background, and wait until it answers. The system chooses its ports, unless the line
//	    sets them. $PROCESS is its URL without the path, $PROCESS_addr and $PROCESS_port are parts of it, and $PROCESS_metrics,
//	    $PROCESS_metrics_addr and $PROCESS_metrics_port the same of its metrics.
//	logs PROCESS PATTERN [ARGUMENTS OF GET]
//	    Wait until the standard error of the process matches. With arguments of get, make that request before each look, since
//	    the proxy reads files again only when it uses them.
//	signal PROCESS TERM|INT
//	    Send a signal to the process.
//	ended PROCESS CODE
//	    Wait until the process has ended, and check its exit code. stdout and stderr are what it wrote.
//
//	upstream [-unix] [-ipv6] [-no-health] [-cert FILE -key FILE [-client-ca FILE] [-no-alpn]] UPSTREAM
//	    Start a gRPC server. $UPSTREAM is its address. The whole server is SERVING, every other service NOT_FOUND.
//	answer UPSTREAM SERVICE STATUS
//	    Make RPCs for the service return a serving status. An empty SERVICE ('') is the whole server.
//	refuse UPSTREAM SERVICE CODE
//	    Make RPCs for the service return a gRPC code, such as NOT_FOUND.
//	hang UPSTREAM SERVICE, release UPSTREAM SERVICE
//	    Leave RPCs for the service without an answer; answer them again.
//	halt UPSTREAM, restart UPSTREAM
//	    Stop the server; start it again.
//	saw UPSTREAM
//	    Print the service, compression and metadata of the latest RPC, or "no RPC".
//	faulty NAME FAULT [UPSTREAM]
//	    Start a server that does not behave as a gRPC server, see the variable faults. Some of them forward to the upstream.
//	    $NAME is its address.
//	heal NAME
//	    Make it forward everything to the upstream.
//	connected NAME N, asked UPSTREAM N
//	    Wait until N connections have been accepted, or N RPCs have arrived.
//
//	ca NAME
//	    Make a certificate authority, and write its certificate to NAME_crt.pem.
//	certificate [-client] [-expired] [-name HOST[,ADDRESS]] [-spiffe ID] CA NAME
//	    Issue a certificate, and write NAME_crt.pem and NAME_key.pem. Without -name and -spiffe it is for localhost, 127.0.0.1
//	    and ::1.
//	workloadapi NAME
//	    Start a SPIFFE Workload API. $NAME is its address. At first it issues no identity.
//	issue NAME CA ID
//	    Make it issue a new identity with this ID, and the CA's trust bundle.
//
//	[!] get [-ca FILE] [-cert FILE -key FILE] [-bearer TOKEN] [-basic USER:PASSWORD] [-method METHOD]
//	    [-accept TYPE] [-until PATTERN] URL
//	    Make a request, and print the status, headers, certificate and body of its answer. With ! there must be no answer; the
//	    cause is printed to standard error. -until repeats the request until the printed text matches, for at most 10 s, which is
//	    how long a rotation may take.
//	ask NAME [ARGUMENTS OF GET]
//	    Make a request in the background.
//	answered NAME
//	    Wait for the answer to that request, and print it.
//	taken NAME
//	    Listen on a port, so that no other program can. $NAME is its address.
//	metadataserver NAME
//	    Start a Google metadata server that issues ID tokens. $NAME is its address.
//	secret TEXT
//	    Mark a text as secret.
//
// The condition [googlecloud] holds on Google Cloud's machines.
//
// At the end of each script, the output and the answers of its processes must contain no secret. Secrets are the contents of
// PEM files, ID tokens, the tokens that callers sent, and what the script marked with secret.
package scripttest

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"example.com/grpc-health-http/test/healthtest"
	"example.com/grpc-health-http/test/spiffetest"
)

const (
	// patience bounds every wait.
	patience = 30 * time.Second
	// interval is the time between two tries.
	interval = 10 * time.Millisecond
)

// Run builds the command of the current directory, with these additional flags for go build, and runs the scripts of testdata in
// parallel. name is the name of the program.
func Run(t *testing.T, name string, flags ...string) {
	t.Helper()
	program := Build(t, ".", name, flags...)
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			env.Values[sessionKey{}] = newSession(env, program)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":          command(2, exits),
			"start":          command(2, start),
			"proxy":          command(1, proxy),
			"logs":           command(2, logs),
			"signal":         command(2, signal),
			"ended":          command(2, ended),
			"upstream":       command(1, upstream),
			"answer":         command(3, answer),
			"refuse":         command(3, refuse),
			"hang":           command(2, hang),
			"release":        command(2, release),
			"halt":           command(1, halt),
			"restart":        command(1, restart),
			"saw":            command(1, saw),
			"faulty":         command(2, faulty),
			"heal":           command(1, heal),
			"connected":      command(2, connected),
			"asked":          command(2, asked),
			"ca":             command(1, authority),
			"certificate":    command(2, certificate),
			"workloadapi":    command(1, startWorkloadAPI),
			"issue":          command(3, issue),
			"get":            get,
			"ask":            command(2, ask),
			"answered":       command(1, answered),
			"taken":          command(1, taken),
			"metadataserver": command(1, metadataServer),
			"secret":         command(1, secret),
		},
		Condition: func(name string) (bool, error) {
			if name != "googlecloud" {
				return false, fmt.Errorf("unknown condition %q", name)
			}
			// ALTS looks at the same file.
			product, _ := os.ReadFile("/sys/class/dmi/id/product_name") // the file does not exist everywhere
			return strings.HasPrefix(string(product), "Google"), nil
		},
		RequireUniqueNames: true,
	})
}

// Build builds the command of a package, and returns the program's path, which ends in name. It builds as a release is built, or
// with the race detector, which needs cgo, if this test has it too.
func Build(t testing.TB, pkg, name string, flags ...string) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), name)
	args, cgo := []string{"build", "-trimpath", "-o", program}, "0"
	if raceDetector {
		args, cgo = []string{"build", "-race", "-o", program}, "1"
	}
	cmd := exec.Command("go", append(append(args, flags...), pkg)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED="+cgo)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", name, err, out)
	}
	return program
}

// session is the state of one script.
type session struct {
	t       testing.TB
	dir     string
	program string

	processes    map[string]*process
	upstreams    map[string]*healthtest.Upstream
	releases     map[string]func()
	frontEnds    map[string]frontEnd
	authorities  map[string]*healthtest.CA
	workloadAPIs map[string]*spiffetest.WorkloadAPI
	answers      map[string]chan *reply

	mu      sync.Mutex
	printed bytes.Buffer // all output and all answers of the processes
	secrets []string
}

type sessionKey struct{}

func newSession(env *testscript.Env, program string) *session {
	s := &session{
		t:            env.T().(testing.TB),
		dir:          env.WorkDir,
		program:      program,
		processes:    make(map[string]*process),
		upstreams:    make(map[string]*healthtest.Upstream),
		releases:     make(map[string]func()),
		frontEnds:    make(map[string]frontEnd),
		authorities:  make(map[string]*healthtest.CA),
		workloadAPIs: make(map[string]*spiffetest.WorkloadAPI),
		answers:      make(map[string]chan *reply),
	}
	env.Defer(s.end)
	return s
}

// end ends the processes, and searches their output for secrets.
func (s *session) end() {
	for name, p := range s.processes {
		p.end()
		if s.t.Failed() {
			s.t.Logf("standard error of %s:\n%s", name, p.stderr.String())
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, found := range leaks(s.printed.String(), s.secrets) {
		s.t.Errorf("a secret was printed: %s", found)
	}
}

// record keeps a printed text, for the search for secrets.
func (s *session) record(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.printed.WriteString(text)
	s.printed.WriteByte('\n')
}

// hide marks texts as secret.
func (s *session) hide(secrets ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.secrets = append(s.secrets, secrets...)
}

// leaks returns the secrets that a text contains.
func leaks(text string, secrets []string) []string {
	return slices.DeleteFunc(slices.Clone(secrets), func(secret string) bool {
		return !strings.Contains(text, secret)
	})
}

// command makes a script's command of run. It cannot be negated with !, and needs minArgs arguments or more.
func command(minArgs int, run func(*session, *testscript.TestScript, []string)) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if neg {
			ts.Fatalf("this command cannot be negated with !")
		}
		if len(args) < minArgs {
			ts.Fatalf("%d arguments, want %d", len(args), minArgs)
		}
		run(ts.Value(sessionKey{}).(*session), ts, args)
	}
}

func secret(s *session, _ *testscript.TestScript, args []string) { s.hide(args[0]) }

// poll waits until a condition holds, and ends the script if that takes longer than patience.
func poll(ts *testscript.TestScript, what string, holds func() bool) {
	for end := time.Now().Add(patience); !holds(); time.Sleep(interval) {
		if time.Now().After(end) {
			ts.Fatalf("not within %v: %s", patience, what)
		}
	}
}
