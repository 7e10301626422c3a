//go:build unix

package main

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.com/grpc-health-http/test/scripttest"
)

// TestQuickstart runs the README's first command, tries the commands that it prints, and ends it as Ctrl-C does.
func TestQuickstart(t *testing.T) {
	t.Parallel()
	program := scripttest.Build(t, ".", "quickstart")
	temp := t.TempDir()
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), "TMPDIR="+temp)
	// Ctrl-C sends its signal to every process of the terminal's group. Make such a group.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var errors strings.Builder
	cmd.Stderr = &errors
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })

	tries := regexp.MustCompile(`^  curl -\w+ '([^']+)'.*  (\d\d\d|all|the)\b`)
	urls := map[string]string{}
	lines := bufio.NewScanner(stdout)
	for lines.Scan() && lines.Text() != "Ctrl-C ends it." {
		if m := tries.FindStringSubmatch(lines.Text()); m != nil {
			urls[m[1]] = m[2]
		}
	}
	if len(urls) != 7 {
		t.Fatalf("it prints %d commands to try, want 7: %v\n%s", len(urls), urls, errors.String())
	}
	for url, want := range urls {
		status, body := get(t, url)
		switch want {
		case "200": // demo.Flapping can have 503
			if status != 200 && !strings.Contains(url, "Flapping") {
				t.Errorf("%s: %d, want 200", url, status)
			}
		case "503", "404":
			if fmt.Sprint(status) != want {
				t.Errorf("%s: %d, want %s", url, status, want)
			}
		case "all":
			if !strings.Contains(body, `"service":"demo.Down","status":"NOT_SERVING"`) {
				t.Errorf("%s: %s", url, body)
			}
		case "the":
			if !strings.Contains(body, "grpc_health_check_build_info") { // a metric that exists before any check
				t.Errorf("%s lacks grpc_health_check_build_info", url)
			}
		}
	}

	if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	rest, _ := io.ReadAll(stdout)
	if err := cmd.Wait(); err != nil {
		t.Errorf("it ended with %v\n%s", err, errors.String())
	}
	if !strings.Contains(string(rest), "ended") {
		t.Errorf("it printed %q after the signal, want ended", rest)
	}
	if left, _ := filepath.Glob(filepath.Join(temp, "quickstart*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// get makes a request. It tries again while the proxy is starting.
func get(t *testing.T, url string) (int, string) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		response, err := http.Get(url)
		if err == nil {
			defer response.Body.Close()
			body, _ := io.ReadAll(response.Body)
			return response.StatusCode, string(body)
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}
