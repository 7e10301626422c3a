//go:build unix

package healthhttp

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"go/parser"
	"go/token"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"example.com/grpc-health-http/test/healthtest"
)

// generatedMain is the main package that Google's build pack adds to the source. It imports the module for its init function
// and starts the Functions Framework
// (https://github.com/GoogleCloudPlatform/buildpacks/tree/main/cmd/go/functions_framework).
const generatedMain = `package main

import (
	"log"
	"net/http"
	"os"

	_ "example.com/grpc-health-http"

	"github.com/GoogleCloudPlatform/functions-framework-go/funcframework"
)

func main() {
	http.HandleFunc("/robots.txt", http.NotFound)
	http.HandleFunc("/favicon.ico", http.NotFound)
	if err := funcframework.Start(os.Getenv("PORT")); err != nil {
		log.Fatal(err)
	}
}
`

// buildFunction builds the function as a deployment does: it copies the tree without what .gcloudignore names, adds the main
// package, tidies the module and builds. It returns the program's path.
var buildFunction = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "function")
	if err != nil {
		return "", err
	}
	source := filepath.Join(dir, "serverless_function_source_code")
	list := func(args ...string) (map[string]bool, error) {
		out, err := exec.Command("git", append([]string{"ls-files", "-z", "--cached", "--others", "--exclude-standard"}, args...)...).Output()
		if err != nil {
			return nil, fmt.Errorf("git ls-files: %w", err)
		}
		files := make(map[string]bool)
		for name := range strings.SplitSeq(strings.TrimRight(string(out), "\x00"), "\x00") {
			files[name] = true
		}
		return files, nil
	}
	all, err := list()
	if err != nil {
		return "", err
	}
	// .gcloudignore has .gitignore's syntax.
	out, err := exec.Command("git", "ls-files", "-z", "--cached", "--others", "--ignored", "--exclude-from=.gcloudignore").Output()
	if err != nil {
		return "", fmt.Errorf("git ls-files: %w", err)
	}
	for name := range strings.SplitSeq(string(out), "\x00") {
		delete(all, name)
	}
	for name := range all {
		content, err := os.ReadFile(name)
		if os.IsNotExist(err) {
			continue // deleted, and not committed yet
		}
		if err != nil {
			return "", err
		}
		to := filepath.Join(source, name)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return "", err
		}
		if err := os.WriteFile(to, content, 0o644); err != nil {
			return "", err
		}
	}
	if err := onePackage("."); err != nil { // checks the tests too, which are not uploaded
		return "", err
	}
	main := filepath.Join(source, "functions.local", "app")
	if err := os.MkdirAll(main, 0o755); err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(main, "main.go"), []byte(generatedMain), 0o644); err != nil {
		return "", err
	}
	program := filepath.Join(dir, "function")
	for _, args := range [][]string{{"mod", "tidy"}, {"build", "-o", program, "./functions.local/app"}} {
		cmd := exec.Command("go", args...)
		cmd.Dir = source
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
		}
	}
	return program, nil
})

// onePackage checks that all Go files of a folder, tests included, have the same package name. The build pack refuses a
// folder with two.
func onePackage(dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return err
	}
	names := make(map[string]bool)
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.PackageClauseOnly)
		if err != nil {
			return err
		}
		names[file.Name.Name] = true
	}
	if len(names) != 1 {
		return fmt.Errorf("the folder %s has the packages %v, want one", dir, names)
	}
	return nil
}

func TestMain(m *testing.M) {
	code := healthtest.RunMany(m)
	if program, err := buildFunction(); err == nil {
		os.RemoveAll(filepath.Dir(program))
	}
	os.Exit(code)
}

// deployed is the function, running in a process of its own.
type deployed struct {
	t   *testing.T
	url string
	cmd *exec.Cmd

	mu  sync.Mutex
	log bytes.Buffer
}

func (d *deployed) Write(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.log.Write(p)
}

// deploy starts the function with the environment that the platform sets, and env. The platform names the port; here another process may take it
// before the function does.
func deploy(t *testing.T, env ...string) *deployed {
	t.Helper()
	program, err := buildFunction()
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		if d := start(t, program, env); d != nil {
			return d
		}
	}
	t.Fatal("each port was taken")
	return nil
}

// start returns the function once it listens, or nil where its port was taken.
func start(t *testing.T, program string, env []string) *deployed {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	listener.Close()
	d := &deployed{t: t, url: "http://127.0.0.1:" + port, cmd: exec.Command(program)}
	d.cmd.Env = append([]string{"FUNCTION_TARGET=HealthCheck", "K_SERVICE=health", "GOOGLE_CLOUD_PROJECT=a-project", "PORT=" + port}, env...)
	d.cmd.Stdout, d.cmd.Stderr = d, d
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.cmd.Process.Kill(); d.cmd.Wait() })
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if strings.Contains(d.text(), "address already in use") {
			return nil
		}
		conn, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err == nil {
			conn.Close()
			return d
		}
		if time.Now().After(end) {
			t.Fatalf("the function does not listen: %s", d.text())
		}
	}
}

func (d *deployed) text() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.log.String()
}

// lines returns the lines of the log, each of which must be JSON.
func (d *deployed) lines() []map[string]any {
	var lines []map[string]any
	text := d.text()
	scanner := bufio.NewScanner(strings.NewReader(text[:strings.LastIndex(text, "\n")+1])) // the last line may be incomplete
	for scanner.Scan() {
		if scanner.Text() == "" {
			continue // the framework writes an empty line after each request
		}
		var line map[string]any
		if err := json.Unmarshal(scanner.Bytes(), &line); err != nil {
			d.t.Errorf("a log line is not JSON: %s", scanner.Text())
			continue
		}
		if line["severity"] == nil || line["message"] == nil {
			d.t.Errorf("a log line lacks severity or message: %s", scanner.Text())
		}
		lines = append(lines, line)
	}
	return lines
}

// line waits for the log line that has this value for a key. The test may not have read yet what the process wrote.
func (d *deployed) line(key, value string) map[string]any {
	d.t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		for _, line := range d.lines() {
			if line[key] == value {
				return line
			}
		}
	}
	d.t.Fatalf("no line has %s %q:\n%s", key, value, d.text())
	return nil
}

// get sends a request to the function; header is "Name: value" or empty.
func (d *deployed) get(query, header string) (int, http.Header, string) {
	d.t.Helper()
	request, err := http.NewRequest(http.MethodGet, d.url+"/"+query, nil)
	if err != nil {
		d.t.Fatal(err)
	}
	if name, value, ok := strings.Cut(header, ": "); ok {
		request.Header.Set(name, value)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		d.t.Fatalf("%v\n%s", err, d.text())
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	return response.StatusCode, response.Header, string(body)
}

// want sends a request to the function, and checks the HTTP status and the body.
func (d *deployed) want(query string, status int, body string) {
	d.t.Helper()
	gotStatus, _, gotBody := d.get(query, "")
	if gotStatus != status || gotBody != body {
		d.t.Errorf("%q: %d %q, want %d %q\n%s", query, gotStatus, gotBody, status, body, d.text())
	}
}

func TestEveryStatus(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	up.SetStatus("up", healthpb.HealthCheckResponse_SERVING)
	up.SetStatus("down", healthpb.HealthCheckResponse_NOT_SERVING)
	up.SetStatus("unknown", healthpb.HealthCheckResponse_UNKNOWN)
	up.SetStatus("gone", healthpb.HealthCheckResponse_SERVICE_UNKNOWN)
	up.SetError("failing", codes.Internal)
	t.Cleanup(up.Hang("hung"))
	d := deploy(t, "GRPC_HEALTH_ADDR="+up.Addr(), "GRPC_HEALTH_RPC_TIMEOUT=500ms", "GRPC_HEALTH_ALLOW_LIST=true")
	d.want("", 200, "SERVING\n")
	d.want("any/path", 200, "SERVING\n")
	d.want("?service=up", 200, "up SERVING\n")
	d.want("?service=down", 503, "down NOT_SERVING\n")
	d.want("?service=unknown", 503, "unknown UNKNOWN\n")
	d.want("?service=gone", 404, "gone SERVICE_UNKNOWN\n")
	d.want("?service=nobody", 404, "nobody SERVICE_UNKNOWN\n")
	d.want("?service=failing", 503, "failing RPC_FAILED\n")
	d.want("?service=hung", 503, "hung TIMEOUT\n")
	d.want("?service=up&service=down", 503, "up SERVING\ndown NOT_SERVING\n")
	for query, header := range map[string]string{"?service=up&format=json": "", "?service=up": "Accept: application/json"} {
		if status, _, body := d.get(query, header); status != 200 || !strings.Contains(body, `"service":"up","status":"SERVING","grpc_code":"OK"`) {
			t.Errorf("JSON: %d %s", status, body)
		}
	}
	if status, _, _ := d.get("favicon.ico", ""); status != 404 {
		t.Errorf("favicon.ico: %d", status)
	}
	plain := healthtest.Start(t, healthtest.WithoutHealth())
	deploy(t, "GRPC_HEALTH_ADDR="+plain.Addr()).want("", 503, "UNIMPLEMENTED\n")
	plain.Stop()
	deploy(t, "GRPC_HEALTH_ADDR="+plain.Addr()).want("", 503, "CONNECTION_FAILED\n")
}

func TestOverloaded(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	up.SetStatus("a", healthpb.HealthCheckResponse_SERVING)
	release := up.Hang("a")
	t.Cleanup(release)
	d := deploy(t, "GRPC_HEALTH_ADDR="+up.Addr(), "GRPC_HEALTH_MAX_CONCURRENT_CHECKS=1", "GRPC_HEALTH_RPC_TIMEOUT=30s")
	var first sync.WaitGroup
	first.Go(func() { d.want("?service=a", 200, "a SERVING\n") })
	healthtest.Eventually(t, "the first RPC is in flight", func() bool { return up.InFlightFor("a") > 0 })
	if status, header, body := d.get("?service=b", ""); status != 503 || body != "b OVERLOADED\n" || header.Get("Retry-After") != "1" {
		t.Errorf("%d %v %q", status, header, body)
	}
	release()
	first.Wait()
}

func TestToken(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	file := filepath.Join(t.TempDir(), "token")
	const token = "the-token-of-callers"
	if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := deploy(t, "GRPC_HEALTH_ADDR="+up.Addr(), "GRPC_HEALTH_HTTP_AUTH_TOKEN_FILE="+file)
	for header, status := range map[string]int{"": 401, "Authorization: Bearer another": 401, "Authorization: Bearer " + token: 200} {
		if got, _, _ := d.get("", header); got != status {
			t.Errorf("%q: %d, want %d", header, got, status)
		}
	}
	for _, want := range []string{"it sent no token", "it sent a wrong token"} {
		d.line("message", "a caller was turned away: "+want)
		if strings.Count(d.text(), "a caller was turned away: "+want) != 1 {
			t.Errorf("the log does not say once that %s: %s", want, d.text())
		}
	}
	if strings.Contains(d.text(), token) {
		t.Error("the log shows the token")
	}
}

// A secret in the place of a path is in no log line, whoever asks.
func TestMisplacedSecretsAreNotLogged(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	for i, secret := range []string{"ghp_16C7e42F292c6912E7710c838347Ae178B4a", "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgevZzL1gdAFr88hb2OF/2NxApJCzGCEDd", "/Q8f3kE7m9Zr2/pX4vT6nB1cD5sG8hJ0"} {
		d := deploy(t, "GRPC_HEALTH_ADDR="+up.Addr(), []string{
			"GRPC_HEALTH_HTTP_AUTH_TOKEN_FILE=" + secret, "GRPC_HEALTH_CA_CERT=" + secret, "GRPC_HEALTH_RPC_HEADERS=x-key: @" + secret,
		}[i], "GRPC_HEALTH_TLS="+strconv.FormatBool(i == 1))
		if code, _, body := d.get("", "Authorization: Bearer a-token"); code != 503 || strings.Contains(body, secret) {
			t.Errorf("%d %s", code, body)
		}
		if i == 0 {
			d.line("message", "nobody is let in")
		} else {
			d.line("phase", "credentials")
		}
		if strings.Contains(d.text(), secret) {
			t.Errorf("the log shows the secret: %s", d.text())
		}
	}
}

// The Functions Framework, which owns the server and its mux, and net/http below it answer some requests before the function sees
// them. Neither offers a hook for these answers, so they lack the function's headers; but they hold no verdict, make no RPC, send
// nobody to another host, and are none that a cache keeps for a path of the function's.
func TestAnswersOfTheFramework(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	d := deploy(t, "GRPC_HEALTH_ADDR="+up.Addr())
	for request, want := range map[string]struct {
		code     int
		location string
		ours     bool
	}{
		"GET //x":                    {code: 307, location: "/x"},
		"GET //evil.example/x":       {code: 307, location: "/evil.example/x"},
		"GET /a/../b?service=c":      {code: 307, location: "/b?service=c"},
		"GET /.//evil.example":       {code: 307, location: "/evil.example"},
		"GET http://evil.example//x": {code: 307, location: "/x"},
		"OPTIONS *":                  {code: 200},
		"GET /favicon.ico":           {code: 404, ours: true},
		"GET /robots.txt":            {code: 404, ours: true},
		"GET /%zz":                   {code: 400},
		"GET /\x00":                  {code: 400},
		"GET x":                      {code: 400},
		"GET /?service=a&service=a":  {code: 404, ours: true},
		"OPTIONS /":                  {code: 200, ours: true},
		"POST /":                     {code: 405, ours: true},
		"GET /%2e%2e/x":              {code: 200, ours: true},
		"GET /?service=" + strings.Repeat("a", 256): {code: 400, ours: true},
	} {
		before := up.RPCs()
		conn, err := net.Dial("tcp", strings.TrimPrefix(d.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		fmt.Fprintf(conn, "%s HTTP/1.1\r\nHost: function.example\r\nConnection: close\r\n\r\n", request)
		method, _, _ := strings.Cut(request, " ")
		response, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
		conn.Close()
		if err != nil {
			t.Errorf("%s: %v", request, err)
			continue
		}
		h := response.Header
		if response.StatusCode != want.code || h.Get("Location") != want.location {
			t.Errorf("%s: %d to %q, want %d to %q", request, response.StatusCode, h.Get("Location"), want.code, want.location)
		}
		if ours := h.Get("Cache-Control") == "no-store" && h.Get("X-Content-Type-Options") == "nosniff"; ours != want.ours {
			t.Errorf("%s: has the function's headers: %t, want %t: %v", request, ours, want.ours, h)
		}
		if !want.ours && (h.Get("Grpc-Health-Status") != "" || up.RPCs() != before || h.Get("Cache-Control") != "" || h.Get("Expires") != "") {
			t.Errorf("%s: %v, and %d RPCs", request, h, up.RPCs()-before)
		}
	}
}

func TestConfiguredServices(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	up.SetStatus("a", healthpb.HealthCheckResponse_SERVING)
	up.SetStatus("b", healthpb.HealthCheckResponse_NOT_SERVING)
	d := deploy(t, "GRPC_HEALTH_ADDR="+up.Addr(), "GRPC_HEALTH_SERVICE_NAME=a,b")
	d.want("", 503, "a SERVING\nb NOT_SERVING\n")
	d.want("?service=a", 200, "a SERVING\n")
	if status, _, _ := d.get("?service=c", ""); status != 404 || up.RPCsFor("c") != 0 {
		t.Errorf("another service: %d, and %d RPCs for it", status, up.RPCsFor("c"))
	}
}

// Many upstreams of a file, which may change between requests; a file that has never been good is 500.
func TestTargets(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	up.SetStatus("a", healthpb.HealthCheckResponse_NOT_SERVING)
	file := filepath.Join(t.TempDir(), "targets.yaml")
	write := func(content string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d := deploy(t, "GRPC_HEALTH_TARGETS_FILE="+file)
	d.want("", 500, "the health check is not configured: its log says what is wrong\n")
	write(fmt.Sprintf("defaults: {service_name: a}\ntargets: {one: {addr: %q, service_name: ''}, two: {addr: %q}}", up.Addr(), up.Addr()))
	time.Sleep(5100 * time.Millisecond)
	d.want("", 503, "one SERVING\ntwo a NOT_SERVING\n")
	d.want("?target=one", 200, "one SERVING\n")
	d.want("?target=three", 404, "a target or group was asked for that is not there\n")
	write("targets: {")
	time.Sleep(5100 * time.Millisecond)
	d.want("?target=one", 200, "one SERVING\n")
}

func TestLogLines(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	up.Stop()
	d := deploy(t, "GRPC_HEALTH_ADDR="+up.Addr())
	const trace = "0123456789abcdef0123456789abcdef"
	for _, header := range []string{"X-Cloud-Trace-Context: " + trace + "/1;o=1", "Traceparent: 00-" + trace + "-0123456789abcdef-01"} {
		_, answer, _ := d.get("", header)
		line := d.line("evidence", answer.Get("Grpc-Health-Evidence"))
		if line["severity"] != "WARNING" || line["logging.googleapis.com/trace"] != "projects/a-project/traces/"+trace {
			t.Errorf("the line with the evidence: %v", line)
		}
	}
}

func TestWrongSettings(t *testing.T) {
	t.Parallel()
	const secret = "do-not-show-this"
	d := deploy(t, "GRPC_HEALTH_ADDR=nowhere:1:2", "GRPC_HEALTH_RPC_TIMEOUT="+secret, "GRPC_HEALTH_CLIENT_CERT=/secrets/cert/tls.crt", "GRPC_HEALTH_RPC_HEADERS=authorization "+secret)
	for range 2 {
		status, _, body := d.get("", "")
		if status != 500 || strings.Contains(body, "GRPC_HEALTH_ADDR") || strings.Contains(body, "nowhere") {
			t.Errorf("%d %q", status, body)
		}
	}
	names := []string{"GRPC_HEALTH_ADDR", "GRPC_HEALTH_RPC_TIMEOUT", "GRPC_HEALTH_CLIENT_KEY", "GRPC_HEALTH_TLS", "GRPC_HEALTH_RPC_HEADERS"}
	for _, name := range names {
		healthtest.Eventually(t, "the log names "+name, func() bool { return strings.Contains(d.text(), name) })
	}
	text := d.text()
	if strings.Contains(text, secret) {
		t.Errorf("the log shows a value:\n%s", text)
	}
	for _, line := range d.lines() {
		if line["severity"] != "ERROR" {
			t.Errorf("severity of %v", line)
		}
	}
}

func TestUpstreamRestartsBetweenRequests(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	d := deploy(t, "GRPC_HEALTH_ADDR="+up.Addr())
	for range 3 {
		d.want("", 200, "SERVING\n")
		up.Restart()
	}
	d.want("", 200, "SERVING\n")
}

// TestFrozenBetweenRequests stops the process, as the platform does with an idle instance. The first verdict after that must be right.
func TestFrozenBetweenRequests(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	forwarder := healthtest.Forward(t, up.Target())
	d := deploy(t, "GRPC_HEALTH_ADDR="+forwarder.Addr(), "GRPC_HEALTH_CONN_MAX_AGE=1h")
	d.want("", 200, "SERVING\n")
	d.cmd.Process.Signal(syscall.SIGSTOP)
	forwarder.BlackHole() // middleboxes have forgotten the connection, as after a long pause
	up.Restart()
	time.Sleep(3 * time.Second)
	d.cmd.Process.Signal(syscall.SIGCONT)
	d.want("", 200, "SERVING\n")
}

func TestAnswersBeforeThePlatformsDeadline(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	t.Cleanup(up.Hang(""))
	d := deploy(t, "GRPC_HEALTH_ADDR="+up.Addr(), "GRPC_HEALTH_RPC_TIMEOUT=1m", "CLOUD_RUN_TIMEOUT_SECONDS=3")
	began := time.Now()
	status, answer, body := d.get("", "")
	if took := time.Since(began); took >= 3*time.Second {
		t.Errorf("answered after %v, which is the platform's deadline", took)
	}
	if status != 503 || body != "TIMEOUT\n" {
		t.Errorf("%d %q", status, body)
	}
	line := d.line("evidence", answer.Get("Grpc-Health-Evidence"))
	if attempts, _ := line["attempts"].([]any); len(attempts) == 0 || !strings.Contains(fmt.Sprint(line["message"], line["msg"]), "the request's own deadline") {
		t.Errorf("the line with the evidence: %v", line)
	}
}

func TestConcurrentRequests(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	d := deploy(t, "GRPC_HEALTH_ADDR="+up.Addr())
	d.want("", 200, "SERVING\n")
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() { d.want("", 200, "SERVING\n") })
	}
	all.Wait()
	if n := up.Connections(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

func TestMutualTLSAndRotation(t *testing.T) {
	t.Parallel()
	ca := healthtest.NewCA(t)
	up := healthtest.Start(t, healthtest.TLS(ca.MutualTLS(t)))
	first := ca.Client(t)
	m := healthtest.Mount(t)
	m.Write(t, first.CertPEM, first.KeyPEM, ca.PEM())
	d := deploy(t, m.Env(up.Addr())...)
	d.want("", 200, "SERVING\n")

	// A certificate without its key is never used: the last matching pair stays in use.
	second := ca.Client(t)
	m.Write(t, second.CertPEM, first.KeyPEM, ca.PEM())
	time.Sleep(5100 * time.Millisecond) // credentials are read again after 5 s
	d.want("", 200, "SERVING\n")

	// With a new CA on both sides the handshake fails, and the credentials are read again at once.
	other := healthtest.NewCA(t)
	third := other.Client(t)
	up.SetTLS(other.MutualTLS(t))
	m.Write(t, third.CertPEM, third.KeyPEM, other.PEM())
	d.want("", 200, "SERVING\n")
	for _, secret := range []*healthtest.Leaf{first, second, third} {
		if body := strings.Split(string(secret.KeyPEM), "\n")[1]; strings.Contains(d.text(), body) {
			t.Error("the log shows a key")
		}
	}
}

func TestMismatchedPairAtTheFirstRequest(t *testing.T) {
	t.Parallel()
	ca := healthtest.NewCA(t)
	up := healthtest.Start(t, healthtest.TLS(ca.MutualTLS(t)))
	first, second := ca.Client(t), ca.Client(t)
	m := healthtest.Mount(t)
	m.Write(t, first.CertPEM, first.KeyPEM, ca.PEM())
	m.Write(t, first.CertPEM, second.KeyPEM, ca.PEM())
	d := deploy(t, m.Env(up.Addr())...)
	if status, _, body := d.get("?format=json", ""); status != 503 || !strings.Contains(body, `"phase":"credentials"`) {
		t.Errorf("mismatched pair: %d %s", status, body)
	}
	m.Write(t, second.CertPEM, second.KeyPEM, ca.PEM())
	d.want("", 200, "SERVING\n")
}

func TestOneWayTLS(t *testing.T) {
	t.Parallel()
	ca := healthtest.NewCA(t)
	up := healthtest.Start(t, healthtest.TLS(ca.ServerTLS(t)))
	roots := ca.WriteFile(t, t.TempDir(), "ca")
	deploy(t, "GRPC_HEALTH_ADDR="+up.Addr(), "GRPC_HEALTH_TLS=true", "GRPC_HEALTH_CA_CERT="+roots).want("", 200, "SERVING\n")
	deploy(t, "GRPC_HEALTH_ADDR="+up.Addr(), "GRPC_HEALTH_TLS=true").want("", 503, "CONNECTION_FAILED\n")
}
