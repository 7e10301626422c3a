package manual

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// notRun are the blocks of commands that TestCommands leaves out, by their first line, and why.
var notRun = map[string]string{
	"go run ./example/quickstart": "runs until Ctrl-C; its own test tries everything that it prints",
	"go test ./...":               "is what runs this test",
	"go test ./test/sim":          "is among what runs beside this test",
	"go test -run TestFaults ./internal/app ./cloudrun ./lambda": "is among what runs beside this test",
	"go run ./test/soak -for 2m":                                 "takes two minutes; its own test runs it for less",
	"go run ./test/bench":                                        "takes three minutes, and fills the machine; its own tests measure for less",
	"go run ./test/bench -fleet -blackbox blackbox_exporter -gatus gatus -cloudprober cloudprober": "takes half an hour; a test measures a small fleet",
	`docker build --build-arg VERSION="$(git describe --tags --always)" \`: "wants a container engine and " +
		"a registry; TestDockerfile does what can be done without",
	"docker run --rm -p 8080:8080 -e GRPC_HEALTH_ADDR=grpc.example.com:443 -e GRPC_HEALTH_TLS=true ghcr.io/owner/repository:v0.1.0": "wants a " +
		"container engine and a release",
	`prometheus --config.file=example/prometheus/prometheus.yml --storage.tsdb.path="$(mktemp -d)"`: "runs until Ctrl-C; the tests of example/prometheus run it",
	"kubectl apply -f example/kubernetes/sidecar.yaml":                                              "wants a cluster; the tests of example/kubernetes decode it",
	`cosign verify-blob checksums.txt --bundle checksums.txt.sigstore.json \`:                       "wants a release",
	`gcloud functions deploy health --gen2 --region=europe-west1 --runtime=go126 --source=. --entry-point=HealthCheck \`: "wants a " +
		"project on Google Cloud; function_test.go does what the build pack does",
	`gcloud run deploy health --region=europe-west1 --no-allow-unauthenticated \`:             "wants a project on Google Cloud",
	`aws lambda create-function --function-name grpc-health \`:                                "wants an account on AWS; lambda's tests run the package",
	"aws lambda create-function-url-config --function-name grpc-health --auth-type NONE":      "wants an account on AWS",
	`gcloud monitoring uptime create "echo" --resource-type=uptime-url \`:                     "wants a project on Google Cloud",
	`gcloud run deploy health --region=europe-west1 --no-allow-unauthenticated --use-http2 \`: "wants a project on Google Cloud",
	`gcloud compute health-checks create grpc echo --global --port=8080 --check-interval=5s --timeout=3s --unhealthy-threshold=2`: "wants a " +
		"project on Google Cloud",
	`aws elbv2 create-target-group --name echo --target-type ip --vpc-id "$VPC_ID" \`: "wants an account on AWS; example/ecs is tested with its mock",
}

const (
	// sectionTime bounds one section, on a slow machine that has built nothing yet.
	sectionTime = 4 * time.Minute
	// endTime is what a section's shell has to end what it started when its time is up.
	endTime = 10 * time.Second
)

// TestCommands runs the manual's blocks of commands in their order. The blocks of a section share a shell. A block of text
// shows what the block of commands before it prints. Pages run side by side, each in a copy of the repository and with
// ports of its own. The README builds the commands; the other pages find them on the PATH, as they say.
func TestCommands(t *testing.T) {
	t.Parallel()
	for _, program := range []string{"bash", "curl"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("the manual's commands want %s: %v", program, err)
		}
	}
	all := pages(t)
	everyBlockIsKnown(t, all)
	built := buildCommands(t)
	for _, p := range all {
		if !slices.ContainsFunc(p.sections, func(s section) bool { commands, _ := s.runnable(); return len(commands) > 0 }) {
			continue
		}
		t.Run(p.path, func(t *testing.T) {
			t.Parallel()
			tree := copyTree(t)
			programs := built
			if p.path == "README.md" {
				programs = tree
			}
			environment, rewrite := environment(t, programs)
			for _, s := range p.sections {
				commands, prints := s.runnable()
				if len(commands) == 0 {
					continue
				}
				t.Run(s.title, func(t *testing.T) {
					for i := range commands {
						commands[i], prints[i] = rewrite(commands[i]), rewrite(prints[i])
					}
					outputs := runSection(t, tree, environment, commands)
					for i, want := range prints {
						if line := missing(want, outputs[i]); line != "" {
							t.Errorf("after\n%s\nthe line\n%s\nis missing, or not in its place, in what was printed:\n%s", commands[i], line, outputs[i])
						}
					}
				})
			}
		})
	}
}

// runnable returns the section's commands that are run, and beside each what it prints.
func (s section) runnable() (commands, prints []string) {
	for _, b := range s.blocks {
		switch {
		case b.isCommands() && notRun[b.first()] == "":
			commands, prints = append(commands, b.text), append(prints, "")
		case b.language == "text" && len(prints) > 0:
			prints[len(prints)-1] += b.text
		}
	}
	return commands, prints
}

func (b block) isCommands() bool { return b.language == "sh" || b.language == "bash" }

// first is the block's first line.
func (b block) first() string {
	first, _, _ := strings.Cut(b.text, "\n")
	return first
}

// everyBlockIsKnown finds blocks that are neither run nor known, and reasons not to run what is in no page.
func everyBlockIsKnown(t *testing.T, all []page) {
	t.Helper()
	listed := make(map[string]bool)
	for _, p := range all {
		for _, s := range p.sections {
			for _, b := range s.blocks {
				switch b.language {
				case "sh", "bash":
					listed[b.first()] = true
				case "text", "dockerfile", "yaml", "mermaid", "hcl", "haproxy", "nginx":
				default:
					t.Errorf("%s, line %d: a block of %q: neither run nor known", p.path, b.line, b.language)
				}
			}
		}
	}
	for first := range notRun {
		if !listed[first] {
			t.Errorf("in no page, and yet listed as not run: %s", first)
		}
	}
}

// buildCommands builds both commands, and returns the folder that they are in.
func buildCommands(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for command, source := range map[string]string{"grpc_health_proxy": "./cloudrun", "grpc_health_probe": "./probe"} {
		build := exec.Command("go", "build", "-trimpath", "-o", filepath.Join(dir, command), source)
		build.Dir = root
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", command, err, out)
		}
	}
	return dir
}

// runSection runs the commands in one shell, and returns what each of them printed.
func runSection(t *testing.T, dir string, environment, commands []string) []string {
	t.Helper()
	const separator = "\x1e" // ASCII's record separator
	var script strings.Builder
	// Job control is what a newcomer's shell has: %1 is a job, and a signal reaches all of it.
	script.WriteString("set -m\n")
	// Whatever happens, what is running in the background ends with the shell.
	script.WriteString("trap 'for job in $(jobs -rp); do kill -KILL -- -$job; done' EXIT\n")
	for _, c := range commands {
		// A shell with a prompt looks for jobs that have ended each time it shows it. The
		// number of such a job is free again.
		fmt.Fprintf(&script, "%s\njobs >/dev/null\nprintf '\\036'\n", c)
	}
	script.WriteString("if [ -n \"$(jobs -rp)\" ]; then echo left running:; jobs -r; exit 1; fi\n")

	ctx, cancel := context.WithTimeout(t.Context(), sectionTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", script.String())
	cmd.Dir, cmd.Env = dir, environment
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = endTime
	err := cmd.Run()
	outputs := strings.Split(strings.ReplaceAll(output.String(), "\r\n", "\n"), separator)
	if err != nil {
		failed := min(len(outputs), len(commands)) - 1
		t.Fatalf("%v in or after\n%s\nwhich printed:\n%s", err, commands[failed], strings.Join(outputs[failed:], "\n"))
	}
	if len(outputs) != len(commands)+1 {
		t.Fatalf("%d outputs of %d commands:\n%s", len(outputs)-1, len(commands), &output)
	}
	return outputs[:len(commands)]
}

// environment is a newcomer's, in which no setting is left over, and rewrite moves the manual's
// ports to free ones: what runs on this machine, other tests among it, may have them.
func environment(t *testing.T, programs string) (environment []string, rewrite func(string) string) {
	t.Helper()
	kept := regexp.MustCompile(`^(GO\w*|CGO_\w+|CC|HOME|USER|TMPDIR|XDG_CACHE_HOME)=`)
	for _, variable := range os.Environ() {
		if kept.MatchString(variable) {
			environment = append(environment, variable)
		}
	}
	ports := map[string]string{"8080": freePort(t), "9000": freePort(t), "50051": freePort(t)}
	environment = append(environment,
		"PATH="+programs+string(os.PathListSeparator)+os.Getenv("PATH"),
		// The copy's path would make every build of it a new one.
		"GOFLAGS="+strings.TrimSpace(os.Getenv("GOFLAGS")+" -trimpath"),
		// No command names the metrics' port.
		"GRPC_HEALTH_METRICS_HTTP_LISTEN_ADDR=localhost:"+ports["9000"],
	)
	documented := regexp.MustCompile(`\b(8080|9000|50051)\b`)
	return environment, func(text string) string {
		return documented.ReplaceAllStringFunc(text, func(port string) string { return ports[port] })
	}
}

// given are the ports that freePort has returned.
var given sync.Map

// freePort finds a port on which nobody listens, and that no other test here was given. It is below those that systems give
// to whoever asks for any (on Linux from 32768): tests that run at the same time do.
func freePort(t *testing.T) string {
	t.Helper()
	var err error
	for range 100 {
		port := strconv.Itoa(20000 + rand.IntN(10000))
		if _, taken := given.LoadOrStore(port, true); taken {
			continue
		}
		var listener net.Listener
		if listener, err = net.Listen("tcp", ":"+port); err == nil {
			listener.Close()
			return port
		}
	}
	t.Fatalf("no free port: %v", err)
	return ""
}

// missing returns the first line of want that is not a line of got, behind the one before it; it is empty
// where all of them are. An ellipsis in want stands for any text.
func missing(want, got string) string {
	lines := strings.Split(got, "\n")
	for line := range strings.Lines(want) {
		line = strings.TrimSuffix(line, "\n")
		pattern := regexp.MustCompile("^" + strings.ReplaceAll(regexp.QuoteMeta(line), "…", ".*") + "$")
		for len(lines) > 0 && !pattern.MatchString(lines[0]) {
			lines = lines[1:]
		}
		if len(lines) == 0 {
			return line
		}
		lines = lines[1:]
	}
	return ""
}

func TestMissing(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, want, got, missing string }{
		{"nothing wanted", "", "a\n", ""},
		{"in order, with others between", "a\nc\n", "a\nb\nc\n", ""},
		{"not in order", "b\na\n", "a\nb\n", "a"},
		{"once, wanted twice", "a\na\n", "a\n", "a"},
		{"a part of a line", "SERVING\n", "NOT_SERVING\n", "SERVING"},
		{"an ellipsis", "dial …: refused\n", "dial 127.0.0.1:1: refused\n", ""},
		{"signs of regular expressions", "a.c\n", "abc\n", "a.c"},
	} {
		if got := missing(test.want, test.got); got != test.missing {
			t.Errorf("%s: %q is missing, want %q", test.name, got, test.missing)
		}
	}
}

// copyTree copies what git knows of, or would add, to a temporary directory: what the commands make
// lands there, and what lies about here does not help them.
func copyTree(t *testing.T) string {
	t.Helper()
	list := exec.Command("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	list.Dir = root
	names, err := list.Output()
	if err != nil {
		t.Skipf("this is no git checkout, so that nobody knows which files belong to it: %v", err)
	}
	tree := t.TempDir()
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names), "\x00"), "\x00") {
		from, to := filepath.Join(root, name), filepath.Join(tree, name)
		info, err := os.Stat(from)
		if err != nil || info.IsDir() {
			continue // deleted, and not committed yet
		}
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		content, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, content, info.Mode()&fs.ModePerm); err != nil {
			t.Fatal(err)
		}
	}
	return tree
}
