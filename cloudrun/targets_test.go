package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"example.com/grpc-health-http/test/healthtest"
)

// targetsFile writes a targets file, and returns its path.
func targetsFile(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "targets.yaml")
	writeFile(t, path, []byte(content))
	return path
}

// wantAnswer asks for a path of a port.
func (p *process) wantAnswer(port, path string, code int, contains string) {
	p.t.Helper()
	c, err := p.connect(port, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	defer c.Close()
	r, err := c.get(path, "Connection: close")
	if err != nil {
		p.t.Fatal(err)
	}
	if r.code != code || !strings.Contains(r.body, contains) {
		p.t.Errorf("%s: %d %q, want %d with %q", path, r.code, r.body, code, contains)
	}
}

// Many upstreams by one process: each is asked for by its name over HTTP and gRPC, scraped, and told apart in metrics and log; a changed file changes what
// it changes, and nothing else.
func TestTargets(t *testing.T) {
	t.Parallel()
	good, bad := healthtest.Start(t), healthtest.Start(t)
	good.SetStatus("a", healthpb.HealthCheckResponse_SERVING)
	good.SetStatus("b", healthpb.HealthCheckResponse_NOT_SERVING)
	bad.SetStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
	content := fmt.Sprintf("defaults: {conn_max_age: 1h, connect_timeout: 3s, rpc_timeout: 2s}\ntargets:\n  good: {addr: %q, service_name: [a], group: g}\n  bad: {addr: %q}\n", good.Addr(), bad.Addr())
	file := targetsFile(t, content)
	p := start(t, nil, "-targets-file="+file)

	p.wantAnswer(p.health, "/", 503, "bad NOT_SERVING\ngood a SERVING\n")
	p.wantAnswer(p.health, "/?target=good", 200, "good a SERVING\n")
	p.wantAnswer(p.health, "/?group=g&format=json", 200, `"services":[{"target":"good","service":"a","status":"SERVING"`)
	p.wantAnswer(p.health, "/?target=good&service=b", 404, "not offered")
	p.wantAnswer(p.health, "/?target=other", 404, "not there")
	p.wantAnswer(p.metrics, "/probe?target=good", 200, "probe_success 1")
	p.wantAnswer(p.metrics, "/probe?target=bad", 200, "probe_success 0")
	p.wantAnswer(p.metrics, "/probe", 400, "several targets")
	p.wantAnswer(p.metrics, "/targets", 200, `"__param_target":"good"`)
	p.wantAnswer(p.metrics, "/", 200, `href="/targets"`)
	p.wantAnswer(p.health, "/targets", 404, "")

	checks := healthpb.NewHealthClient(grpcTo(t, p.health, nil))
	for name, want := range map[string]codes.Code{"": codes.OK, "good": codes.OK, "good/": codes.OK, "good/a": codes.OK, "good/b": codes.NotFound, "bad": codes.OK, "other": codes.NotFound, "other/a": codes.NotFound} {
		out, err := checks.Check(t.Context(), &healthpb.HealthCheckRequest{Service: name})
		serving := out.GetStatus() == healthpb.HealthCheckResponse_SERVING
		if status.Code(err) != want || err == nil && serving != strings.HasPrefix(name, "good") {
			t.Errorf("gRPC, %q: %v, %v", name, out, err)
		}
	}
	conn := grpcTo(t, p.health, nil)
	for name, want := range map[string]codes.Code{"AWS.ALB": codes.Unavailable, "good": codes.OK, "good/a": codes.OK, "bad": codes.Unavailable, "other": codes.Unavailable} {
		if code := aloneFor(t.Context(), conn, name); code != want {
			t.Errorf("the code alone, %s: %v, want %v", name, code, want)
		}
	}
	metrics := p.scrape()
	for _, series := range []string{
		`grpc_health_check_up{service_name="a",target="good"} 1`, `grpc_health_check_up{service_name="",target="bad"} 0`,
		`grpc_health_check_status{service_name="",status="NOT_SERVING",target="bad"} 1`, `grpc_health_check_upstream_info{target="good",upstream="` + good.Addr() + `"} 1`,
		"grpc_health_check_targets 2", `grpc_health_check_targets_reloads_total{result="ok"} 1`,
	} {
		if !strings.Contains(metrics, series) {
			t.Errorf("the metrics have no %s", series)
		}
	}
	if log := p.log(); !strings.Contains(log, "target=bad upstream="+bad.Addr()) || !strings.Contains(log, `"bad NOT_SERVING`) {
		t.Errorf("the log does not tell targets apart:\n%s", tail(log))
	}

	// A wrong file changes nothing.
	writeFile(t, file, []byte("targets: {good: {adr: x}}"))
	eventually(t, "the log has the mistake", func() bool { return strings.Contains(p.log(), "did you mean addr?") })
	p.wantAnswer(p.health, "/?target=bad", 503, "bad NOT_SERVING\n")
	// One target is replaced, by a symlink swap; the other keeps its connection.
	dials := good.Connections()
	next := filepath.Join(filepath.Dir(file), "next.yaml")
	writeFile(t, next, []byte(strings.ReplaceAll(content, "bad:", "worse:")))
	if err := os.Symlink("next.yaml", file+".new"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the new file is used", func() bool { return strings.Contains(p.scrape(), `target="worse"`) })
	p.wantAnswer(p.health, "/?target=worse", 503, "worse NOT_SERVING\n")
	p.wantAnswer(p.health, "/?target=bad", 404, "not there")
	p.wantAnswer(p.health, "/?target=good", 200, "good a SERVING\n")
	eventually(t, "the log says what has changed", func() bool {
		return strings.Contains(p.log(), `msg="targets changed" added=worse changed="" removed=bad`)
	})
	if n := good.Connections(); n != dials {
		t.Errorf("the target that did not change was dialled again: %d connections, %d before", n, dials)
	}
	if metrics := p.scrape(); strings.Contains(metrics, `target="bad"`) || !strings.Contains(metrics, `grpc_health_check_targets_reloads_total{result="error"} 1`) {
		t.Error("the metrics have a target that is gone, or no failed reload")
	}
	if code := p.signalled(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// With an interval everything is checked although nobody asks, and all of many targets are summarised.
func TestCheckInterval(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	var content strings.Builder
	content.WriteString("defaults: {connect_timeout: 3s, rpc_timeout: 2s}\ntargets:\n")
	for i := range 120 {
		fmt.Fprintf(&content, "  t%d: {addr: %q}\n", i, up.Addr())
	}
	p := start(t, nil, "-targets-file="+targetsFile(t, content.String()), "-check-interval=2s")
	var found struct {
		Status   string
		Summary  bool
		Services []struct {
			Target, Status string
			CheckedAt      time.Time `json:"checked_at"`
		}
	}
	ask := func() int {
		c := p.dial()
		defer c.Close()
		r, err := c.get("/?format=json")
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(r.body), &found); err != nil {
			t.Fatal(err)
		}
		return r.code
	}
	eventually(t, "all are checked", func() bool { return ask() == http.StatusOK })
	if !found.Summary || len(found.Services) != 120 || found.Status != "SERVING" {
		t.Errorf("%+v", found)
	}
	for _, s := range found.Services {
		if age := time.Since(s.CheckedAt); age > patience {
			t.Errorf("%s was checked %v ago", s.Target, age)
		}
	}
	if metrics := p.scrape(); strings.Count(metrics, "\ngrpc_health_check_up{") != 120 {
		t.Errorf("%d targets have a series", strings.Count(metrics, "\ngrpc_health_check_up{"))
	}
	up.SetStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
	eventually(t, "the change is seen", func() bool {
		return ask() == http.StatusServiceUnavailable && found.Status == "NOT_SERVING"
	})
	p.wantAnswer(p.health, "/?service=x", 400, "pick targets")
	// One upstream without a file is checked in the same way.
	alone := healthtest.Start(t)
	start(t, nil, "-grpc-addr="+alone.Addr(), "-check-interval=1s")
	eventually(t, "checks that nobody asks for", func() bool { return alone.RPCsFor("") >= 3 })
}

// A wrong file is wrong settings at the start, with all that is wrong in its place.
func TestWrongTargetsFile(t *testing.T) {
	t.Parallel()
	file := targetsFile(t, "targets:\n  a: {addr: \"x:1\", tsl: true}\n  b: {addr: \"y:1\", rpc_timeout: 1}\n")
	for name, args := range map[string][]string{"serving": nil, "once": {"-runcli"}} {
		path, err := program()
		if err != nil {
			t.Fatal(err)
		}
		out, code := output(path, append([]string{"-targets-file=" + file, "-http-listen-addr=127.0.0.1:0", "-metrics-http-listen-addr="}, args...)...)
		for _, want := range []string{"line 2, target a: tsl: no such key: did you mean tls?", "line 3, target b: rpc_timeout: "} {
			if strings.Count(out, want) != 1 {
				t.Errorf("%s: not once %q in\n%s", name, want, out)
			}
		}
		if code != exitSettings {
			t.Errorf("%s: exit code %d", name, code)
		}
	}
}

// output runs the program to its end.
func output(path string, args ...string) (text string, code int) {
	cmd := exec.Command(path, args...)
	cmd.Env = []string{"HOME=/no-home"}
	out, _ := cmd.CombinedOutput() // the exit code tells
	return string(out), cmd.ProcessState.ExitCode()
}
