//go:build linux

package main

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"example.com/grpc-health-http/internal/platform"
	"example.com/grpc-health-http/test/faults"
	"example.com/grpc-health-http/test/healthtest"
	"example.com/grpc-health-http/test/secretstest"
)

// whole asks for what is configured.
const whole = `{}`

// verdicts is the JSON of the answer.
type verdicts struct {
	Status   string
	Services []struct {
		Target, Service, Status, Phase string
		GRPCCode                       string  `json:"grpc_code"`
		Duration                       float64 `json:"duration_seconds"`
	}
	Error string
}

// ask invokes the function directly.
func (d *deployed) ask(payload string) verdicts {
	d.t.Helper()
	return d.parse(d.invoke(payload))
}

func (d *deployed) parse(result string) verdicts {
	d.t.Helper()
	var v verdicts
	if err := json.Unmarshal([]byte(result), &v); err != nil {
		d.t.Fatalf("result %s: %v", result, err)
	}
	return v
}

// want asks for what is configured, and checks the worst status.
func (d *deployed) want(status string) {
	d.t.Helper()
	if v := d.ask(whole); v.Status != status {
		d.t.Errorf("%+v, want %s\n%s", v, status, d.stderr.String())
	}
}

// wantSoon asks until the worst status is there.
func (d *deployed) wantSoon(status string) {
	d.t.Helper()
	for end := time.Now().Add(15 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		v := d.ask(whole)
		if v.Status == status {
			return
		}
		if time.Now().After(end) {
			d.t.Fatalf("%+v, want %s\n%s", v, status, d.stderr.String())
		}
	}
}

// reply is the result of an HTTP event.
type reply struct {
	StatusCode int
	Headers    map[string]string
	Body       string
}

// get sends a request through the function URL; header is "Name: value" or empty.
func (d *deployed) get(query, header string) reply {
	d.t.Helper()
	name, value, _ := strings.Cut(header, ": ")
	event, err := json.Marshal(map[string]any{
		"version": "2.0", "rawPath": "/", "rawQueryString": query, "headers": map[string]string{name: value},
		"requestContext": map[string]any{"http": map[string]string{"method": "GET"}},
	})
	if err != nil {
		d.t.Fatal(err)
	}
	var r reply
	if err := json.Unmarshal([]byte(d.invoke(string(event))), &r); err != nil {
		d.t.Fatal(err)
	}
	return r
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
	d := deploy(t, "GRPC_HEALTH_ADDR="+up.Addr(), "GRPC_HEALTH_RPC_TIMEOUT=2s", "GRPC_HEALTH_ALLOW_LIST=true")
	for service, want := range map[string]struct {
		status string
		http   int
		code   string
		phase  string
	}{
		"":        {"SERVING", 200, "OK", ""},
		"up":      {"SERVING", 200, "OK", ""},
		"down":    {"NOT_SERVING", 503, "OK", ""},
		"unknown": {"UNKNOWN", 503, "OK", ""},
		"gone":    {"SERVICE_UNKNOWN", 404, "OK", ""},
		"nobody":  {"SERVICE_UNKNOWN", 404, "NOT_FOUND", ""},
		"failing": {"RPC_FAILED", 503, "INTERNAL", ""},
		"hung":    {"TIMEOUT", 503, "DEADLINE_EXCEEDED", "rpc"},
	} {
		payload, err := json.Marshal(map[string]string{"service": service})
		if err != nil {
			t.Fatal(err)
		}
		v := d.ask(string(payload))
		if v.Status != want.status || len(v.Services) != 1 {
			t.Errorf("%q: %+v, want %s", service, v, want.status)
			continue
		}
		if s := v.Services[0]; s.Service != service || s.Status != want.status || s.GRPCCode != want.code || s.Phase != want.phase || s.Duration <= 0 {
			t.Errorf("%q: %+v, want %+v", service, s, want)
		}
		text := strings.TrimSpace(service+" "+want.status) + "\n"
		r := d.get("service="+service, "")
		if r.StatusCode != want.http || r.Body != text || r.Headers["Grpc-Health-Status"] != want.status {
			t.Errorf("%q: %+v, want %d %q", service, r, want.http, text)
		}
		if evidence := r.Headers["Grpc-Health-Evidence"]; (evidence == "") != (want.status == "SERVING") || !strings.Contains(d.stderr.String(), evidence) {
			t.Errorf("%q: evidence %q", service, evidence)
		}
	}
	if r := d.get("service=up&service=down", ""); r.StatusCode != 503 || r.Body != "up SERVING\ndown NOT_SERVING\n" {
		t.Errorf("two services: %+v", r)
	}
	if r := d.get("list", "Accept: application/json"); r.StatusCode != 503 || !strings.Contains(r.Body, `{"service":"unknown","status":"UNKNOWN"`) {
		t.Errorf("the list: %+v", r)
	}

	plain := healthtest.Start(t, healthtest.WithoutHealth())
	d = deploy(t, "GRPC_HEALTH_ADDR="+plain.Addr())
	d.want("UNIMPLEMENTED")
	plain.Stop()
	d.want("CONNECTION_FAILED")
}

// TestFaults runs the fault table against the built function.
func TestFaults(t *testing.T) {
	t.Parallel()
	faults.Run(t, func(t *testing.T, env ...string) faults.Ask {
		d := deploy(t, env...)
		return func(t *testing.T) []byte {
			t.Helper()
			return []byte(d.invoke(whole))
		}
	})
}

func TestOverloaded(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	up.SetStatus("a", healthpb.HealthCheckResponse_SERVING)
	release := up.Hang("a")
	t.Cleanup(release)
	d := deploy(t, "GRPC_HEALTH_ADDR="+up.Addr(), "GRPC_HEALTH_MAX_CONCURRENT_CHECKS=1", "GRPC_HEALTH_RPC_TIMEOUT=30s", "AWS_LAMBDA_MAX_CONCURRENCY=2")
	first := d.begin(`{"service":"a"}`, 20*time.Second)
	until(t, "the first RPC to be under way", func() bool { return up.InFlightFor("a") == 1 })
	if v := d.ask(`{"service":"b"}`); v.Status != "OVERLOADED" {
		t.Errorf("%+v", v)
	}
	release()
	d.wait(first)
	for _, line := range d.stdout.lines() {
		// The one that was refused says nothing of how the service is.
		if _, has := line["Up"]; has != (line["Service"] == "a") {
			t.Errorf("metrics %v", line)
		}
	}
	if n := len(d.stdout.lines()); n != 2 {
		t.Errorf("%d lines of metrics", n)
	}
}

// until waits for a condition.
func until(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(15 * time.Second); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func TestConfiguredServices(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	up.SetStatus("a", healthpb.HealthCheckResponse_SERVING)
	up.SetStatus("b", healthpb.HealthCheckResponse_NOT_SERVING)
	d := deploy(t, "GRPC_HEALTH_ADDR="+up.Addr(), "GRPC_HEALTH_SERVICE_NAME=a,b")
	for _, payload := range []string{whole, `{"source":"aws.events","detail-type":"Scheduled Event","detail":{}}`} {
		v := d.ask(payload)
		if v.Status != "NOT_SERVING" || len(v.Services) != 2 || v.Services[0].Service != "a" || v.Services[1].Status != "NOT_SERVING" {
			t.Errorf("%s: %+v", payload, v)
		}
	}
	if v := d.ask(`{"service":"a"}`); v.Status != "SERVING" || len(v.Services) != 1 {
		t.Errorf("one of them: %+v", v)
	}
	for _, payload := range []string{`{"service":"c"}`, `{"service":""}`} {
		if v := d.ask(payload); v.Status != "" || !strings.Contains(v.Error, "not offered") {
			t.Errorf("%s: %+v", payload, v)
		}
	}
	if n := up.RPCsFor("c") + up.RPCsFor(""); n != 0 {
		t.Errorf("%d RPCs for services that are not offered", n)
	}
}

func TestToken(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	manager := secretstest.Start(t)
	const token = "the-token-of-callers"
	manager.SetString(arnOf("token"), token)
	d := deploy(t, "GRPC_HEALTH_ADDR="+up.Addr(), "GRPC_HEALTH_HTTP_AUTH_TOKEN_FILE="+arnOf("token"), "AWS_ENDPOINT_URL_SECRETS_MANAGER="+manager.URL)
	for header, status := range map[string]int{"": 401, "authorization: Bearer another": 401, "authorization: Bearer " + token: 200} {
		if r := d.get("", header); r.StatusCode != status {
			t.Errorf("%q: %+v, want %d", header, r, status)
		}
	}
	d.want("SERVING") // IAM has let this one in
	d.wantNowhere(token, "another")
	for _, want := range []string{"it sent no token", "it sent a wrong token"} {
		if log := d.stderr.String(); strings.Count(log, `"msg":"a caller was turned away: `+want+`","reason":"token"`) != 1 {
			t.Errorf("the log does not say once that %s: %s", want, log)
		}
	}
}

// A secret in the place of a path is in no log line, whoever asks.
func TestMisplacedSecretsAreNotLogged(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	for setting, secret := range map[string]string{
		"GRPC_HEALTH_HTTP_AUTH_TOKEN_FILE=": "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
		"GRPC_HEALTH_CA_CERT=":              "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgevZzL1gdAFr88hb2OF/2NxApJCzGCEDd",
		"GRPC_HEALTH_RPC_HEADERS=x-key: @":  "/Q8f3kE7m9Zr2/pX4vT6nB1cD5sG8hJ0",
	} {
		d := deploy(t, "GRPC_HEALTH_ADDR="+up.Addr(), setting+secret, "GRPC_HEALTH_TLS="+strconv.FormatBool(strings.Contains(setting, "CA_CERT")))
		if r := d.get("", "authorization: Bearer a-token"); r.StatusCode != 503 {
			t.Errorf("%s: %+v", setting, r)
		}
		d.wantNowhere(secret)
	}
}

func TestWrongSettings(t *testing.T) {
	t.Parallel()
	const secret = "do-not-show-this"
	d := deploy(t, "GRPC_HEALTH_ADDR=nowhere:0", "GRPC_HEALTH_RPC_TIMEOUT="+secret, "GRPC_HEALTH_CLIENT_CERT=arn:aws:secretsmanager:eu-west-1:1:secret:a", "GRPC_HEALTH_RPC_HEADERS=authorization "+secret)
	const body = "the health check is not configured: its log says what is wrong"
	for range 2 {
		if r := d.get("", ""); r.StatusCode != 500 || r.Body != body+"\n" {
			t.Errorf("%+v", r)
		}
		if v := d.ask(whole); v.Error != body || v.Status != "" {
			t.Errorf("%+v", v)
		}
	}
	// Each problem once, however many invocations there were.
	text, lines := d.stderr.String(), d.stderr.lines()
	for _, name := range []string{"GRPC_HEALTH_ADDR", "GRPC_HEALTH_RPC_TIMEOUT", "GRPC_HEALTH_CLIENT_KEY", "GRPC_HEALTH_TLS", "GRPC_HEALTH_RPC_HEADERS"} {
		if !strings.Contains(text, name) {
			t.Errorf("the log does not name %s:\n%s", name, text)
		}
	}
	seen := make(map[any]bool)
	for _, line := range lines {
		if line["level"] != "ERROR" || seen[line["problem"]] {
			t.Errorf("line %v", line)
		}
		seen[line["problem"]] = true
	}
	d.wantNowhere(secret)
	if d.stdout.String() != "" {
		t.Errorf("metrics without a check: %s", d.stdout.String())
	}

	// What only shows when the parts are put together is a wrong setting too.
	d = deploy(t, "GRPC_HEALTH_ADDR=localhost:1", "GRPC_HEALTH_TLS=true", "GRPC_HEALTH_CA_CERT=-----BEGIN CERTIFICATE-----\n"+strings.Repeat("QUFB", 8)+"\n-----END CERTIFICATE-----\n")
	if v := d.ask(whole); v.Error != body {
		t.Errorf("%+v", v)
	}
	if !strings.Contains(d.stderr.String(), "GRPC_HEALTH_CA_CERT") {
		t.Errorf("the log does not name GRPC_HEALTH_CA_CERT: %s", d.stderr.String())
	}
}

func TestUpstreamRestartsBetweenInvocations(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	d := deploy(t, "GRPC_HEALTH_ADDR="+up.Addr())
	for range 3 {
		d.want("SERVING")
		up.Restart()
	}
	d.want("SERVING")
	up.Stop()
	d.want("CONNECTION_FAILED")
	up.Restart()
	d.want("SERVING")
}

// The platform stops an environment between invocations: what it finds after that is right.
func TestFrozenBetweenInvocations(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	way := healthtest.Forward(t, up.Target())
	d := deploy(t, "GRPC_HEALTH_ADDR="+way.Addr(), "GRPC_HEALTH_CONN_MAX_AGE=1h")
	d.want("SERVING")
	d.cmd.Process.Signal(syscall.SIGSTOP)
	way.BlackHole() // what is on the way is forgotten, as after a long pause
	up.Restart()
	time.Sleep(3 * time.Second)
	d.cmd.Process.Signal(syscall.SIGCONT)
	d.want("SERVING")
}

// inTime is the result of an invocation that has so long, and how long before its deadline it came. On a machine that is busy for longer
// than the platform's margin a result may be late, but not every time.
func (d *deployed) inTime(within time.Duration) (verdicts, time.Duration) {
	d.t.Helper()
	for range 10 {
		i := d.begin(whole, within)
		select {
		case result := <-i.result:
			if left := time.Until(i.deadline); left > 0 {
				return d.parse(result), left
			}
		case <-d.exited:
			d.t.Fatalf("the function has exited: %v\n%s", d.cmd.ProcessState, d.stderr.String())
		case <-time.After(20 * time.Second):
			d.t.Fatalf("no result\n%s", d.stderr.String())
		}
	}
	d.t.Fatalf("no result by the deadline, ten times\n%s", d.stderr.String())
	return verdicts{}, 0
}

func TestHungUpstreamAndTheInvocationsDeadline(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	t.Cleanup(up.Hang(""))
	d := deploy(t, "GRPC_HEALTH_ADDR="+up.Addr(), "GRPC_HEALTH_RPC_TIMEOUT=1m")
	d.ask(`{"service":"warm"}`)
	v, left := d.inTime(time.Second)
	if v.Status != "TIMEOUT" || v.Services[0].Phase != "rpc" {
		t.Errorf("%+v", v)
	}
	if left > platform.Margin+100*time.Millisecond {
		t.Errorf("the result came %v before the deadline", left)
	}
	// A deadline that has nearly passed is no reason for a function error.
	if v, _ := d.inTime(150 * time.Millisecond); v.Status != "TIMEOUT" {
		t.Errorf("with hardly any time: %+v", v)
	}
}

func TestConcurrentInvocations(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	d := deploy(t, "GRPC_HEALTH_ADDR="+up.Addr(), "AWS_LAMBDA_MAX_CONCURRENCY=4", "GRPC_HEALTH_RPC_TIMEOUT=15s")
	var releases []func()
	var under []*invocation
	for i := range 4 {
		name := strconv.Itoa(i)
		up.SetStatus(name, healthpb.HealthCheckResponse_SERVING)
		releases = append(releases, up.Hang(name))
		under = append(under, d.begin(`{"service":"`+name+`"}`, 20*time.Second))
	}
	t.Cleanup(func() {
		for _, release := range releases {
			release()
		}
	})
	until(t, "four RPCs side by side", func() bool { return up.InFlight() == 4 })
	for i, release := range releases {
		release()
		if v := d.parse(d.wait(under[i])); v.Status != "SERVING" || v.Services[0].Service != strconv.Itoa(i) {
			t.Errorf("%d: %+v", i, v)
		}
	}
	var all sync.WaitGroup
	for range 40 {
		all.Go(func() {
			if v := d.ask(whole); v.Status != "SERVING" {
				t.Errorf("%+v", v)
			}
		})
	}
	all.Wait()
	if n := len(d.stdout.lines()); n != 44 {
		t.Errorf("%d lines of metrics, want 44", n)
	}
}

func TestSIGTERM(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	d := deploy(t, "GRPC_HEALTH_ADDR="+up.Addr())
	d.want("SERVING")
	select {
	case <-d.registered:
	default:
		t.Error("no extension, without which Lambda sends no SIGTERM")
	}
	if n := up.OpenConnections(); n != 1 {
		t.Errorf("%d connections", n)
	}
	d.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-d.exited:
	case <-time.After(10 * time.Second):
		t.Fatal("the process does not exit")
	}
	if code := d.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit code %d: %s", code, d.stderr.String())
	}
	until(t, "the connection to be closed", func() bool { return up.OpenConnections() == 0 })
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	up.SetStatus("down", healthpb.HealthCheckResponse_NOT_SERVING)
	d := deploy(t, "GRPC_HEALTH_ADDR="+up.Addr())
	before := time.Now()
	d.want("SERVING")
	d.ask(`{"service":"down"}`)
	d.ask(`{"service":"nobody"}`)
	d.ask(`{"service":"somebody"}`)
	d.get("service=down&service=", "")
	wants := []struct {
		service string
		up      float64
	}{{"(server)", 1}, {"down", 0}, {"other", 0}, {"other", 0}, {"(server)", 1}, {"down", 0}}
	type metricLine struct {
		AWS struct {
			Timestamp         int64
			CloudWatchMetrics []struct {
				Namespace  string
				Dimensions [][]string
				Metrics    []struct{ Name, Unit string }
			}
		} `json:"_aws"`
		Function, Service   string
		Up                  *float64
		Latency             *float64
		CertificateDaysLeft *float64
	}
	var lines []metricLine
	for text := range strings.Lines(d.stdout.String()) {
		var l metricLine
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if l.Up == nil || l.Latency == nil || *l.Latency <= 0 || *l.Latency > 20000 {
			t.Fatalf("values of %s", text)
		}
		if at := time.UnixMilli(l.AWS.Timestamp); at.Before(before.Truncate(time.Millisecond)) || at.After(time.Now()) {
			t.Errorf("time %v of %s", at, text)
		}
		units := map[string]string{}
		if len(l.AWS.CloudWatchMetrics) == 1 {
			for _, m := range l.AWS.CloudWatchMetrics[0].Metrics {
				units[m.Name] = m.Unit
			}
		}
		if len(units) != 2 || units["Up"] != "None" || units["Latency"] != "Milliseconds" {
			t.Errorf("metrics of %s", text)
		}
		if set := l.AWS.CloudWatchMetrics[0]; set.Namespace != "GrpcHealth" || len(set.Dimensions) != 1 || !slices.Equal(set.Dimensions[0], []string{"Function", "Service"}) {
			t.Errorf("namespace and dimensions of %s", text)
		}
		if l.Function != "health" || l.CertificateDaysLeft != nil {
			t.Errorf("function, and a certificate without TLS: %s", text)
		}
		lines = append(lines, l)
	}
	if len(lines) != len(wants) {
		t.Fatalf("%d lines, want %d:\n%s", len(lines), len(wants), d.stdout.String())
	}
	if lines[4].Service == "down" { // the last two checks ran side by side
		lines[4], lines[5] = lines[5], lines[4]
	}
	for i, want := range wants {
		if lines[i].Service != want.service || *lines[i].Up != want.up {
			t.Errorf("line %d: %s %v, want %+v", i, lines[i].Service, *lines[i].Up, want)
		}
	}
}

// Two deployments in one account share no metric, though they check the same.
func TestMetricsOfTwoDeployments(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	seen := make(map[any]bool)
	for _, name := range []string{"health-eu", "health-us"} {
		d := deploy(t, "GRPC_HEALTH_ADDR="+up.Addr(), "AWS_LAMBDA_FUNCTION_NAME="+name)
		d.want("SERVING")
		for _, l := range d.stdout.lines() {
			seen[l["Function"]] = true
		}
	}
	if len(seen) != 2 || !seen["health-eu"] || !seen["health-us"] {
		t.Errorf("the functions of the metrics: %v", seen)
	}
}

// The days that are left are told where the certificate was accepted and where it was not.
func TestMetricsOfCertificates(t *testing.T) {
	t.Parallel()
	ca := healthtest.NewCA(t)
	up := healthtest.Start(t, healthtest.TLS(ca.ServerTLS(t))) // its certificate ends in a day
	roots := ca.WriteFile(t, t.TempDir(), "ca")
	for status, env := range map[string][]string{"SERVING": {"GRPC_HEALTH_CA_CERT=" + roots}, "CONNECTION_FAILED": nil} {
		d := deploy(t, append(env, "GRPC_HEALTH_ADDR="+up.Addr(), "GRPC_HEALTH_TLS=true")...)
		d.want(status)
		l := d.stdout.lines()[0]
		if days, ok := l["CertificateDaysLeft"].(float64); !ok || days <= 0 || days > 1 || l["Certificate"] != "upstream" {
			t.Errorf("%s: %v", status, l)
		}
	}
}

func TestOneWayTLS(t *testing.T) {
	t.Parallel()
	ca := healthtest.NewCA(t)
	up := healthtest.Start(t, healthtest.TLS(ca.ServerTLS(t)))
	roots := ca.WriteFile(t, t.TempDir(), "ca")
	deploy(t, "GRPC_HEALTH_ADDR="+up.Addr(), "GRPC_HEALTH_TLS=true", "GRPC_HEALTH_CA_CERT="+roots).want("SERVING")
	deploy(t, "GRPC_HEALTH_ADDR="+up.Addr(), "GRPC_HEALTH_TLS=true").want("CONNECTION_FAILED")
}

func TestRotationOfFiles(t *testing.T) {
	t.Parallel()
	ca := healthtest.NewCA(t)
	up := healthtest.Start(t, healthtest.TLS(ca.MutualTLS(t)))
	m, first, second := healthtest.Mount(t), ca.Client(t), ca.Client(t)
	m.Write(t, first.CertPEM, second.KeyPEM, ca.PEM())
	d := deploy(t, m.Env(up.Addr())...)

	// A torn pair is never used, also where there is no other yet.
	if v := d.ask(whole); v.Status != "CONNECTION_FAILED" || v.Services[0].Phase != "credentials" {
		t.Errorf("torn at the first request: %+v", v)
	}
	m.Write(t, first.CertPEM, first.KeyPEM, ca.PEM())
	d.want("SERVING")

	// The last good one stays in use while a rotation is half done.
	m.Write(t, second.CertPEM, first.KeyPEM, ca.PEM())
	time.Sleep(5100 * time.Millisecond) // the files are read again after 5 s
	d.want("SERVING")
	if !strings.Contains(d.stderr.String(), "the last good one stays in use") {
		t.Errorf("no word of the torn pair: %s", d.stderr.String())
	}

	// A new CA altogether, on both sides: the last good ones fail the handshake, and the files are read again at once.
	other := healthtest.NewCA(t)
	third := other.Client(t)
	up.SetTLS(other.MutualTLS(t))
	m.Write(t, third.CertPEM, third.KeyPEM, other.PEM())
	d.want("SERVING")
}

// arnOf is the ARN of a secret.
func arnOf(name string) string {
	return "arn:aws:secretsmanager:eu-west-1:123456789012:secret:" + name + "-AbCdEf"
}

// pairSecret is a secret with a certificate and its key.
func pairSecret(t *testing.T, leaf *healthtest.Leaf, ca *healthtest.CA) string {
	t.Helper()
	text, err := json.Marshal(map[string]string{"cert": string(leaf.CertPEM), "key": string(leaf.KeyPEM), "ca": string(ca.PEM())})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// withSecret are the settings of mTLS from one secret.
func withSecret(up *healthtest.Upstream, manager *secretstest.Manager) []string {
	return []string{
		"GRPC_HEALTH_ADDR=" + up.Addr(), "GRPC_HEALTH_TLS=true", "GRPC_HEALTH_CONN_MAX_AGE=0", "AWS_ENDPOINT_URL_SECRETS_MANAGER=" + manager.URL,
		"GRPC_HEALTH_CA_CERT=" + arnOf("tls") + "#ca", "GRPC_HEALTH_CLIENT_CERT=" + arnOf("tls") + "#cert", "GRPC_HEALTH_CLIENT_KEY=" + arnOf("tls") + "#key",
	}
}

func TestRotationOfSecrets(t *testing.T) {
	t.Parallel()
	ca := healthtest.NewCA(t)
	up := healthtest.Start(t, healthtest.TLS(ca.MutualTLS(t)))
	manager := secretstest.Start(t)
	manager.SetString(arnOf("tls"), pairSecret(t, ca.Client(t), ca))
	d := deploy(t, withSecret(up, manager)...)
	for range 3 {
		d.want("SERVING")
	}
	if n := manager.Fetches(arnOf("tls")); n != 1 {
		t.Errorf("%d fetches, want one for three keys", n)
	}
	if a := manager.Authorization(); !strings.Contains(a, "Credential=AKIDEXAMPLE/") || !strings.Contains(a, "/eu-west-1/secretsmanager/") {
		t.Errorf("signed by %s", a)
	}

	// A failed dial asks for the new secret, long before the five minutes are over.
	other := healthtest.NewCA(t)
	up.SetTLS(other.MutualTLS(t))
	manager.SetString(arnOf("tls"), pairSecret(t, other.Client(t), other))
	time.Sleep(time.Second) // one fetch a second is the most
	d.want("SERVING")

	// The last good one stays in use where Secrets Manager does not answer.
	manager.SetDown(true)
	up.Stop()
	d.want("CONNECTION_FAILED")
	up.Restart()
	fetched := manager.Fetches(arnOf("tls"))
	time.Sleep(5100 * time.Millisecond) // the secret is asked for again after 5 s
	d.want("SERVING")
	until(t, "a fetch", func() bool { return manager.Fetches(arnOf("tls")) > fetched })
	until(t, "the log line", func() bool {
		return strings.Contains(d.stderr.String(), "cannot fetch a secret again; the last good one stays in use")
	})
	d.want("SERVING")
}

// A rotated secret that takes longer to fetch than a check may wait for it, and a platform that freezes the process after each answer,
// so that a fetch that is still under way then is lost.
func TestRotationOfASlowSecret(t *testing.T) {
	t.Parallel()
	ca := healthtest.NewCA(t)
	up := healthtest.Start(t, healthtest.TLS(ca.MutualTLS(t)))
	manager := secretstest.Start(t)
	way := healthtest.Forward(t, strings.TrimPrefix(manager.URL, "http://"))
	manager.SetString(arnOf("tls"), pairSecret(t, ca.Client(t), ca))
	d := deploy(t, append(withSecret(up, manager), "AWS_ENDPOINT_URL_SECRETS_MANAGER=http://"+way.Addr(), "GRPC_HEALTH_CONNECT_TIMEOUT=5s")...)
	d.want("SERVING")

	manager.SetDelay(300 * time.Millisecond)
	other := healthtest.NewCA(t)
	up.SetTLS(other.MutualTLS(t))
	manager.SetString(arnOf("tls"), pairSecret(t, other.Client(t), other))
	for n := 0; ; n++ {
		d.cmd.Process.Signal(syscall.SIGSTOP)
		way.BlackHole()
		time.Sleep(5100 * time.Millisecond) // the secret is asked for again after 5 s
		d.cmd.Process.Signal(syscall.SIGCONT)
		v := d.ask(whole)
		if v.Status == "SERVING" {
			break
		}
		if n == 1 {
			t.Fatalf("%+v, although the secret was rotated two invocations ago", v)
		}
	}
}

func TestSecretsInPlaintextAndBinary(t *testing.T) {
	t.Parallel()
	ca := healthtest.NewCA(t)
	up := healthtest.Start(t, healthtest.TLS(ca.MutualTLS(t)))
	client := ca.Client(t)
	manager := secretstest.Start(t)
	manager.SetString(arnOf("ca"), string(ca.PEM()))
	manager.SetBinary(arnOf("cert"), client.CertPEM)
	manager.SetString(arnOf("key"), string(client.KeyPEM))
	manager.SetString(arnOf("header"), "Bearer a-token-for-the-upstream")
	d := deploy(t, "GRPC_HEALTH_ADDR="+up.Addr(), "GRPC_HEALTH_TLS=true", "AWS_ENDPOINT_URL_SECRETS_MANAGER="+manager.URL,
		"GRPC_HEALTH_CA_CERT="+arnOf("ca"), "GRPC_HEALTH_CLIENT_CERT="+arnOf("cert"), "GRPC_HEALTH_CLIENT_KEY="+arnOf("key"),
		"GRPC_HEALTH_RPC_HEADERS=authorization: @"+arnOf("header"))
	d.want("SERVING")
	if sent := up.Last().Metadata.Get("authorization"); len(sent) != 1 || sent[0] != "Bearer a-token-for-the-upstream" {
		t.Error("the upstream did not get the header")
	}
	d.wantNowhere("a-token-for-the-upstream")
}

func TestSecretsThatCannotBeHad(t *testing.T) {
	t.Parallel()
	ca := healthtest.NewCA(t)
	up := healthtest.Start(t, healthtest.TLS(ca.MutualTLS(t)))
	manager := secretstest.Start(t)
	good := pairSecret(t, ca.Client(t), ca)
	d := deploy(t, withSecret(up, manager)...)
	for _, step := range []struct {
		set  func()
		want string
	}{
		{func() {}, "ResourceNotFoundException"},
		{func() { manager.SetError(arnOf("tls"), "AccessDeniedException") }, "secretsmanager:GetSecretValue"},
		{func() { manager.SetDown(true) }, "AWS Secrets Manager does not answer"},
		{func() { manager.SetDown(false); manager.SetString(arnOf("tls"), `{"cert":"","ca":""}`) }, "does not have the key"},
		{func() { manager.SetString(arnOf("tls"), "no JSON") }, "is no JSON object"},
	} {
		step.set()
		until(t, "the log to say "+step.want, func() bool {
			v := d.ask(whole)
			if v.Status != "CONNECTION_FAILED" || v.Services[0].Phase != "credentials" {
				t.Fatalf("%+v", v)
			}
			return strings.Contains(d.stderr.String(), step.want)
		})
	}
	manager.SetString(arnOf("tls"), good)
	d.wantSoon("SERVING")
}
