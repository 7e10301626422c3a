// Package scripttest runs the executable manuals of the commands: testscript scripts
// (https://pkg.go.dev/github.com/rogpeppe/go-internal/testscript) against the built command, with real
// upstreams, certificates and HTTP requests. Only tests import it.
//
// Beside testscript's own commands a script has:
//
//	exits CODE [NAME=VALUE...] PROGRAM [ARGUMENT...]
//	    Run the command to its end, with these variables, and none but these, in its environment.
//	start PROCESS [NAME=VALUE...] PROGRAM [ARGUMENT...]
//	    Run it in the background.
//	proxy PROCESS [NAME=VALUE...] [ARGUMENT...]
//	    start grpc_health_proxy, on ports that the system chooses unless the line says otherwise, and wait
//	    until it answers. $PROCESS is then its URL, without the path, and $PROCESS_metrics that of its metrics.
//	logs PROCESS PATTERN [ARGUMENTS OF GET]
//	    Wait until what the process wrote to standard error matches, with a request of get at each look: files
//	    are read again when they are used.
//	signal PROCESS TERM|INT
//	ended PROCESS CODE
//	    Wait for its end. stdout and stderr are then what it wrote.
//
//	upstream [-unix] [-ipv6] [-no-health] [-cert FILE -key FILE [-client-ca FILE] [-no-alpn]] UPSTREAM
//	    Start a gRPC server. $UPSTREAM is its address. The whole server is SERVING, any other service NOT_FOUND.
//	answer UPSTREAM SERVICE STATUS
//	    Make the server answer a service with a serving status; an empty SERVICE, two quotes, is the whole server.
//	refuse UPSTREAM SERVICE CODE
//	    Make it answer with a gRPC code, NOT_FOUND for example.
//	hang UPSTREAM SERVICE, release UPSTREAM SERVICE
//	    Leave it without an answer, and answer after all.
//	halt UPSTREAM, restart UPSTREAM
//	saw UPSTREAM
//	    Print what the server saw of the latest RPC, or that there was none.
//	faulty NAME FAULT [UPSTREAM]
//	    Start what only looks like a gRPC server, with a fault of the table faults, in front of an upstream
//	    where the fault needs one. $NAME is its address.
//	heal NAME
//	    Forward to the upstream from now on.
//	connected NAME N, asked UPSTREAM N
//	    Wait until N connections, or RPCs, have arrived.
//
//	ca NAME
//	    Make a certificate authority, and write NAME_crt.pem.
//	certificate [-client] [-expired] [-name HOST[,ADDRESS]] [-spiffe ID] CA NAME
//	    Issue a certificate, for localhost, 127.0.0.1 and ::1 or for what -name and -spiffe say alone, and write
//	    NAME_crt.pem and NAME_key.pem.
//	workloadapi NAME
//	    Start a SPIFFE Workload API. $NAME is its address. It gives no identity until issue says so.
//	issue NAME CA ID
//	    Make it give a new identity with this ID, and the trust of the authority.
//
//	[!] get [-ca FILE] [-cert FILE -key FILE] [-bearer TOKEN] [-basic USER:PASSWORD] [-method METHOD]
//	    [-accept TYPE] [-until PATTERN] URL
//	    Print the answer's status, headers, certificate and body; with ! fail for want of an answer, and print the
//	    cause to standard error. -until asks again until the print matches, for 10 s, which is what a rotation may take.
//	ask NAME ARGUMENTS OF GET
//	    Send the request of get in the background.
//	answered NAME
//	    Wait for the answer to it, and print it.
//	taken NAME
//	    Listen on a port, so that nobody else can. $NAME is its address.
//	metadataserver NAME
//	    Start a Google metadata server that gives ID tokens. $NAME is its address.
//	secret TEXT
//	    Name a text that must not be printed.
//
// The condition [googlecloud] holds on Google Cloud's machines.
//
// At the end of each script everything that its processes wrote and answered is searched for secrets: the
// content of every PEM file, ID tokens, the tokens that callers sent, and what the script named with secret.
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
	// patience bounds every wait for what must happen.
	patience = 30 * time.Second
	// interval is the time between two looks.
	interval = 10 * time.Millisecond
)

// Run builds the command of the current directory under its name, with further flags for go build,
// and runs the scripts of testdata side by side.
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
			// As ALTS itself finds out.
			product, _ := os.ReadFile("/sys/class/dmi/id/product_name") // elsewhere there may be none
			return strings.HasPrefix(string(product), "Google"), nil
		},
		RequireUniqueNames: true,
	})
}

// Build builds the command of a folder under its name: as it is released, or with the race detector, which
// needs cgo, where the test has it too. It returns the program's path.
func Build(t testing.TB, folder, name string, flags ...string) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), name)
	args, cgo := []string{"build", "-trimpath", "-o", program}, "0"
	if raceDetector {
		args, cgo = []string{"build", "-race", "-o", program}, "1"
	}
	cmd := exec.Command("go", append(append(args, flags...), folder)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED="+cgo)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", name, err, out)
	}
	return program
}

// session is what one script has started and made.
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
	printed bytes.Buffer // by all processes, and in all answers
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

// end ends the processes, and looks for secrets in what they wrote.
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
		s.t.Errorf("printed, though it is secret: %s", found)
	}
}

// print notes what was printed, for the search for secrets.
func (s *session) print(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.printed.WriteString(text)
	s.printed.WriteByte('\n')
}

// hide notes secrets.
func (s *session) hide(secrets ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.secrets = append(s.secrets, secrets...)
}

// leaks returns the secrets that are part of a text.
func leaks(text string, secrets []string) []string {
	return slices.DeleteFunc(slices.Clone(secrets), func(secret string) bool {
		return !strings.Contains(text, secret)
	})
}

// command adapts a command of this package that takes no !, and that many arguments at least.
func command(least int, run func(*session, *testscript.TestScript, []string)) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if neg {
			ts.Fatalf("this command takes no !")
		}
		if len(args) < least {
			ts.Fatalf("%d arguments, want %d", len(args), least)
		}
		run(ts.Value(sessionKey{}).(*session), ts, args)
	}
}

func secret(s *session, _ *testscript.TestScript, args []string) { s.hide(args[0]) }

// poll looks until the condition holds, within patience.
func poll(ts *testscript.TestScript, what string, holds func() bool) {
	for end := time.Now().Add(patience); !holds(); time.Sleep(interval) {
		if time.Now().After(end) {
			ts.Fatalf("%s: not within %v", what, patience)
		}
	}
}
