// Package prometheus keeps the examples for Prometheus and Grafana true. It has tests only: they run
// promtool, and a real Prometheus that scrapes the proxy and answers every query of the rules and the dashboard.
package prometheus

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"example.com/grpc-health-http/test/healthtest"
)

const (
	// dashboardFile is what Grafana is provisioned with.
	dashboardFile = "../grafana/dashboards/grpc-health.json"
	// patience bounds every wait for what must happen.
	patience = 30 * time.Second
	// interval is the time between two looks, and between two checks of a service.
	interval = 50 * time.Millisecond
)

// TestPromtool checks the files by themselves, and runs the tests of the rules.
func TestPromtool(t *testing.T) {
	t.Parallel()
	wanted(t, "promtool")
	for _, args := range [][]string{
		{"check", "config", "prometheus.yml"},
		{"check", "rules", "rules.yml"},
		{"test", "rules", "rules_test.yml"},
	} {
		if out, err := exec.Command("promtool", args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

// undriven are the alerts whose conditions take minutes to arise, or no proxy at all. Of each the query is asked
// without what makes it a condition.
var (
	undriven  = []string{"GrpcHealthNotAsked", "GrpcHealthProxyMissing"}
	condition = regexp.MustCompile(`^absent\((.*)\)$|^(.*) > \d+$`)
)

// TestQueries brings about what the other alerts are for, and asks Prometheus every query of the rules and the
// dashboard.
func TestQueries(t *testing.T) {
	t.Parallel()
	wanted(t, "prometheus")
	const flapping = "demo.Flapping"
	ca := healthtest.NewCA(t)
	upstream := healthtest.Start(t, healthtest.TLS(ca.ServerTLS(t))) // its certificate ends in a day
	services := []string{"demo.Up", flapping, "demo.Slow"}
	for _, service := range services {
		upstream.SetStatus(service, healthpb.HealthCheckResponse_SERVING)
	}
	upstream.SetDelay("demo.Slow", 700*time.Millisecond)
	health, metrics := startProxy(t, upstream.Target(), ca.WriteFile(t, t.TempDir(), "ca"), services)
	p := startPrometheus(t, metrics)
	for _, service := range services {
		keepAsking(t, health+"?service="+service)
	}

	up := fmt.Sprintf("grpc_health_check_up{service_name=%q} == ", flapping)
	p.await(t, up+"1")
	for range 2 { // with the last one, five changes
		upstream.SetStatus(flapping, healthpb.HealthCheckResponse_NOT_SERVING)
		p.await(t, up+"0")
		upstream.SetStatus(flapping, healthpb.HealthCheckResponse_SERVING)
		p.await(t, up+"1")
	}
	upstream.SetStatus(flapping, healthpb.HealthCheckResponse_NOT_SERVING)

	manual, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, rule := range p.rules(t) {
		t.Run(rule.Name, func(t *testing.T) {
			if rule.Type == "alerting" && !strings.Contains(string(manual), "`"+rule.Name+"`") {
				t.Errorf("docs/metrics.md does not say when %s alerts", rule.Name)
			}
			switch {
			case rule.Type == "recording":
				p.await(t, rule.Name)
			case slices.Contains(undriven, rule.Name):
				parts := condition.FindStringSubmatch(rule.Query)
				if parts == nil {
					t.Fatalf("not known what the condition is in %s", rule.Query)
				}
				p.await(t, parts[1]+parts[2])
			default:
				p.await(t, fmt.Sprintf("ALERTS{alertname=%q}", rule.Name))
			}
		})
	}
	for _, q := range dashboard(t) {
		t.Run(q.name, func(t *testing.T) { p.await(t, q.text, q.labels...) })
	}
}

// wanted skips the test where a program is not installed.
func wanted(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skipf("install the package prometheus, which has %s: %v", program, err)
	}
}

// startProxy builds grpc_health_proxy and starts it in front of the upstream. It returns the URL that answers
// health checks, and the address of the metrics.
func startProxy(t *testing.T, upstream, ca string, services []string) (health, metrics string) {
	t.Helper()
	program := filepath.Join(t.TempDir(), "grpc_health_proxy")
	if out, err := exec.Command("go", "build", "-o", program, "../../cloudrun").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	cmd := exec.Command(program, "-http-listen-addr=127.0.0.1:0", "-metrics-http-listen-addr=127.0.0.1:0",
		"-grpc-addr="+upstream, "-grpc-tls", "-grpc-ca-cert="+ca, "-service-name="+strings.Join(services, ","))
	said := start(t, cmd, `answering health checks" url=(\S+)`, `answering Prometheus" url=http://([^/\s]+)`)
	return said[0], said[1]
}

// keepAsking asks for a service until the test ends.
func keepAsking(t *testing.T, url string) {
	t.Helper()
	ask := func() {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Error(err)
			return
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			if t.Context().Err() == nil {
				t.Error(err)
			}
			return
		}
		response.Body.Close()
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			ask()
			select {
			case <-t.Context().Done():
				return
			case <-time.After(interval):
			}
		}
	}()
	t.Cleanup(func() { <-done })
}

// server is a Prometheus.
type server struct{ address string }

// startPrometheus starts Prometheus with the example's configuration and rules, in which the proxy is elsewhere,
// another one has no metrics, and time runs faster.
func startPrometheus(t *testing.T, metrics string) server {
	t.Helper()
	without := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(without.Close)
	dir := t.TempDir()
	for name, changes := range map[string][]string{
		"prometheus.yml": {"15s", "500ms", "localhost:9000", metrics + `", "` + without.Listener.Addr().String()},
		"rules.yml":      nil,
	} {
		content, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		text := strings.NewReplacer(changes...).Replace(string(content))
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("prometheus", "--config.file="+filepath.Join(dir, "prometheus.yml"),
		"--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address=127.0.0.1:0")
	return server{start(t, cmd, `"Listening on" address=(\S+)`)[0]}
}

// start starts a command that ends with the test, and returns what the group of each pattern, in this order,
// matches in its log.
func start(t *testing.T, cmd *exec.Cmd, patterns ...string) []string {
	t.Helper()
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	found, ended := make(chan []string, 1), make(chan struct{})
	var log strings.Builder // to be read when ended is closed
	go func() {
		defer close(ended)
		var matches []string
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			fmt.Fprintln(&log, lines.Text())
			if len(matches) == len(patterns) {
				continue
			}
			if m := regexp.MustCompile(patterns[len(matches)]).FindStringSubmatch(lines.Text()); m != nil {
				if matches = append(matches, m[1]); len(matches) == len(patterns) {
					found <- matches
				}
			}
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // an error says that it has ended
		<-ended
		_ = cmd.Wait() // it was killed
		if t.Failed() {
			t.Logf("the log of %s:\n%s", filepath.Base(cmd.Path), log.String())
		}
	})
	select {
	case matches := <-found:
		return matches
	case <-ended:
		t.Fatalf("%s ended before it had said where it listens", filepath.Base(cmd.Path))
	case <-time.After(patience):
		t.Fatalf("%s has not said where it listens within %v", filepath.Base(cmd.Path), patience)
	}
	return nil
}

// get asks the API (https://prometheus.io/docs/prometheus/latest/querying/api/) and decodes its data. The error is
// Prometheus' own, such as one in a query.
func (s server) get(path string, query url.Values, data any) error {
	response, err := http.Get("http://" + s.address + path + "?" + query.Encode())
	if err != nil {
		return err
	}
	defer response.Body.Close()
	answer := struct {
		Error string
		Data  any
	}{Data: data}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return fmt.Errorf("%s: %w", response.Status, err)
	}
	if answer.Error != "" {
		return fmt.Errorf("%s: %s", response.Status, answer.Error)
	}
	return nil
}

// rule is a recording or alerting rule, as Prometheus has read it.
type rule struct{ Type, Name, Query string }

func (s server) rules(t *testing.T) []rule {
	t.Helper()
	var data struct{ Groups []struct{ Rules []rule } }
	if err := s.get("/api/v1/rules", nil, &data); err != nil {
		t.Fatal(err)
	}
	var all []rule
	for _, group := range data.Groups {
		all = append(all, group.Rules...)
	}
	if len(all) == 0 {
		t.Fatal("Prometheus has no rules")
	}
	return all
}

// await asks a query until it returns a number, from series one of which at least has all of the labels.
func (s server) await(t *testing.T, query string, labels ...string) {
	t.Helper()
	var last string
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(interval) {
		var data struct {
			Result []struct {
				Metric map[string]string
				Value  [2]any // Unix time, and a number as text
			}
		}
		if err := s.get("/api/v1/query", url.Values{"query": {query}}, &data); err != nil {
			last = err.Error()
			continue
		}
		for _, series := range data.Result {
			lacks := func(label string) bool { return series.Metric[label] == "" }
			if series.Value[1] != "NaN" && !slices.ContainsFunc(labels, lacks) {
				return
			}
		}
		last = fmt.Sprint(data.Result)
	}
	t.Errorf("no data with the labels %q within %v from\n%s\nthe last answer was %s", labels, patience, query, last)
}

// query is one of the dashboard.
type query struct {
	name, text string
	labels     []string // that its legend names
}

// dashboard reads the queries of the dashboard's panels, variables and annotations. Variables are as they are when
// one opens it: everything is chosen.
func dashboard(t *testing.T) []query {
	t.Helper()
	content, err := os.ReadFile(dashboardFile)
	if err != nil {
		t.Fatal(err)
	}
	type variable struct {
		Name, Definition, AllValue string
	}
	var d struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr, LegendFormat string }
		}
		Templating  struct{ List []variable }
		Annotations struct{ List []struct{ Name, Expr string } }
	}
	if err := json.Unmarshal(content, &d); err != nil {
		t.Fatal(err)
	}

	// Grafana's own are as if the last minutes were shown.
	values := map[string]string{"__rate_interval": "1m", "__range": "5m"}
	for _, v := range d.Templating.List {
		values[v.Name] = v.AllValue
	}
	substitute := func(text string) string {
		return os.Expand(text, func(name string) string {
			if values[name] == "" {
				t.Errorf("unknown variable %s in %s", name, text)
			}
			return values[name]
		})
	}
	var all []query
	legend := regexp.MustCompile(`{{(\w+)}}`)
	for _, panel := range d.Panels {
		for _, target := range panel.Targets {
			q := query{name: panel.Title, text: substitute(target.Expr)}
			for _, m := range legend.FindAllStringSubmatch(target.LegendFormat, -1) {
				q.labels = append(q.labels, m[1])
			}
			all = append(all, q)
		}
	}
	labelValues := regexp.MustCompile(`^label_values\((.+), (\w+)\)$`)
	for _, v := range d.Templating.List {
		if m := labelValues.FindStringSubmatch(v.Definition); m != nil {
			all = append(all, query{"variable " + v.Name, substitute(m[1]), m[2:]})
		} else if v.Definition != "" {
			t.Errorf("variable %s: unknown definition %s", v.Name, v.Definition)
		}
	}
	for _, a := range d.Annotations.List {
		all = append(all, query{name: "annotation " + a.Name, text: substitute(a.Expr)})
	}
	return all
}
