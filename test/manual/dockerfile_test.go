package manual

import (
	"bytes"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestDockerfile does without an engine what an engine would do with the Dockerfile: it builds the
// commands as the build stage does, and runs the entry point in the image's environment.
func TestDockerfile(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("sh"); err != nil {
		t.Skipf("the Dockerfile's commands want sh: %v", err)
	}
	d := readDockerfile(t)

	toolchain := d.match(t, `FROM golang:(\d+\.\d+)[.0-9a-z-]*@sha256:[0-9a-f]{64} AS build`)[1]
	if wanted := module(t).Go; !strings.HasPrefix(wanted+".", toolchain+".") {
		t.Errorf("it builds with Go %s, and go.mod asks for %s", toolchain, wanted)
	}
	// runAsNonRoot of Kubernetes understands numbers only.
	d.match(t, `USER [1-9]\d*:[1-9]\d*`)

	bin := t.TempDir()
	for _, instruction := range d {
		command, isRun := strings.CutPrefix(instruction, "RUN ")
		if !isRun || !strings.Contains(command, "go build") {
			continue
		}
		build := exec.Command("sh", "-c", strings.ReplaceAll(command, "/out/", bin+"/"))
		build.Dir, build.Env = root, append(os.Environ(), "VERSION=v1.2.3-test", "COMMIT=c0ffee")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", instruction, err, out)
		}
	}
	for _, name := range []string{"grpc_health_proxy", "grpc_health_probe"} {
		out, err := exec.Command(filepath.Join(bin, name), "-version").Output()
		if err != nil || !strings.HasPrefix(string(out), "v1.2.3-test (commit c0ffee, ") {
			t.Errorf("%s -version: %q, %v: want the version and the commit of the build arguments", name, out, err)
		}
	}

	ports := d.match(t, `EXPOSE (\d+) (\d+)`)
	health, metrics := freePort(t), freePort(t)
	environment := d.match(t, `ENV (PORT=`+ports[1]+` GRPC_HEALTH_METRICS_HTTP_LISTEN_ADDR=:`+ports[2]+`)`)[1]
	environment = strings.NewReplacer(ports[1], health, ports[2], metrics).Replace(environment)
	entry := d.match(t, `ENTRYPOINT \["/bin/(\w+)"\]`)[1]
	var log bytes.Buffer
	proxy := exec.Command(filepath.Join(bin, entry))
	proxy.Env = append(strings.Fields(environment), "GRPC_HEALTH_ADDR=localhost:1") // asked by nobody here
	proxy.Stderr = &log
	if err := proxy.Start(); err != nil {
		t.Fatal(err)
	}
	// The process is stopped before its log is read.
	alive := answers("http://127.0.0.1:"+health+"/livez") && answers("http://127.0.0.1:"+metrics+"/livez")
	if err := proxy.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	if err := proxy.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
	if !alive {
		t.Errorf("no answer on both ports with %s:\n%s", environment, &log)
	}
}

// answers waits until the URL does, or for long enough.
func answers(url string) bool {
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		response, err := http.Get(url)
		if err == nil {
			response.Body.Close()
			return response.StatusCode == http.StatusOK
		}
	}
	return false
}

// dockerfile is a Dockerfile's instructions, each in a line.
type dockerfile []string

func readDockerfile(t *testing.T) dockerfile {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root, "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	joined := regexp.MustCompile(`\\\n\s*`).ReplaceAllString(string(content), "")
	return strings.Split(joined, "\n")
}

// match finds the only instruction that the whole of the pattern matches, and returns its submatches.
func (d dockerfile) match(t *testing.T, pattern string) []string {
	t.Helper()
	whole := regexp.MustCompile("^(?:" + pattern + ")$")
	var found [][]string
	for _, instruction := range d {
		if m := whole.FindStringSubmatch(instruction); m != nil {
			found = append(found, m)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d instructions match %s, want 1", len(found), pattern)
	}
	return found[0]
}
