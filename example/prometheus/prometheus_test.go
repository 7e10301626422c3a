// Package prometheus tests the examples for Prometheus and Grafana. It runs promtool, and a real Prometheus that scrapes the proxy and
// answers every query of the rules and the dashboard.
package prometheus

import (
	"bufio"
	"encoding/json"
	"fmt"
	"maps"
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
	"example.com/grpc-health-http/test/scripttest"
)

const (
	// dashboardFile is what Grafana is provisioned with.
	dashboardFile = "../grafana/dashboards/grpc-health.json"
	// patience bounds every wait.
	patience = 30 * time.Second
	// interval is the time between two tries, and between two checks of a service.
	interval = 50 * time.Millisecond
)

// TestPromtool checks the configuration and the rules, and runs the rules' tests.
func TestPromtool(t *testing.T) {
	t.Parallel()
	need(t, "promtool")
	for _, args := range [][]string{
		{"check", "config", "prometheus.yml"},
		{"check", "config", "sharded.yml"},
		{"check", "rules", "rules.yml"},
		{"test", "rules", "rules_test.yml"},
	} {
		if out, err := exec.Command("promtool", args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

// notFired are the alerts that need minutes, or a proxy that is not there, with the condition in each of their queries, and
// another in its place: for these TestQueries makes a query that has data at once.
var notFired = map[string][2]string{
	"GrpcHealthLate":         {"60 + 3 *", "-600 +"},
	"GrpcHealthNotAsked":     {"> 300", ">= 0"},
	"GrpcHealthTargetsFile":  {"> 0", ">= 0"},
	"GrpcHealthProxyMissing": {"absent(", "("},
}

// TestQueries causes what the other alerts are for, and makes every query of the rules and the dashboard.
func TestQueries(t *testing.T) {
	t.Parallel()
	need(t, "prometheus")
	const flapping = "demo.Flapping"
	ca := healthtest.NewCA(t)
	upstream := healthtest.Start(t, healthtest.TLS(ca.ServerTLS(t))) // its certificate ends in a day
	services := []string{"demo.Up", flapping, "demo.Slow"}
	for _, service := range services {
		upstream.SetStatus(service, healthpb.HealthCheckResponse_SERVING)
	}
	upstream.SetDelay("demo.Slow", 700*time.Millisecond)
	roots := ca.WriteFile(t, t.TempDir(), "ca")
	health, metrics := startProxy(t, upstream.Target(), roots, services)
	// Another proxy, in front of an upstream that is dead.
	const dead = "127.0.0.1:1"
	deadHealth, deadMetrics := startProxy(t, dead, roots, services)
	// And one in front of both, which makes its checks by itself.
	manyHealth, manyMetrics := startTargets(t, []probed{
		{name: "up", addr: upstream.Target(), service: "demo.Up", module: "tls"}, {name: "dead", addr: dead, service: "demo.Up", module: "tls"},
	}, roots, "-check-interval=1s")
	p := startPrometheus(t, metrics, deadMetrics, manyMetrics)
	for _, service := range services {
		keepChecking(t, health+"?service="+service)
	}
	keepChecking(t, deadHealth)
	keepChecking(t, "http://"+manyHealth)

	up := fmt.Sprintf("grpc_health_check_up{service_name=%q, instance=%q} == ", flapping, metrics)
	p.await(t, up+"1")
	for range 2 { // together with the change after the loop, five changes
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
			case notFired[rule.Name][0] != "":
				condition := notFired[rule.Name]
				if !strings.Contains(rule.Query, condition[0]) {
					t.Fatalf("no condition %s in %s", condition[0], rule.Query)
				}
				p.await(t, strings.ReplaceAll(rule.Query, condition[0], condition[1]))
			default:
				p.await(t, fmt.Sprintf("ALERTS{alertname=%q}", rule.Name))
			}
		})
	}
	// Each query has data of a proxy with a targets file, too.
	for _, q := range dashboard(t, map[string]string{"instance": manyMetrics}) {
		t.Run(q.name+" of many", func(t *testing.T) { p.await(t, q.text) })
	}
	for _, q := range dashboard(t, nil) {
		t.Run(q.name, func(t *testing.T) { p.await(t, q.text, q.labels...) })
		// Half of the upstreams being up is no state: each has its own, and so has each share of SERVING.
		if q.ofUpstreams() {
			t.Run(q.name+" of each upstream", func(t *testing.T) {
				p.await(t, fmt.Sprintf("((%s) and on (upstream) grpc_health_check_upstream_info{upstream=%q}) == 0", q.text, dead), "upstream")
				p.await(t, fmt.Sprintf("((%s) and on (upstream) grpc_health_check_upstream_info{upstream=%q}) > 0", q.text, upstream.Target()), "upstream")
			})
		}
	}
}

// TestDashboardOfMany makes every query of the dashboard for one target, a few and many, for each target's row too. What is down is counted, and
// is a target of its own in the row.
func TestDashboardOfMany(t *testing.T) {
	t.Parallel()
	need(t, "prometheus")
	ca := healthtest.NewCA(t)
	upstream := healthtest.Start(t, healthtest.TLS(ca.ServerTLS(t)))
	upstream.SetStatus("demo.Up", healthpb.HealthCheckResponse_SERVING)
	upstream.SetStatus("demo.Down", healthpb.HealthCheckResponse_NOT_SERVING)
	roots := ca.WriteFile(t, t.TempDir(), "ca")
	sizes := []int{1, 3, 40}
	proxies := make([]string, 0, len(sizes))
	for _, n := range sizes {
		var targets []probed
		for i := range n {
			targets = append(targets, probed{name: fmt.Sprintf("of%d-%d", n, i), addr: upstream.Target(), service: "demo.Up", module: "tls"})
		}
		targets[n-1].service = "demo.Down"
		health, metrics := startTargets(t, targets, roots, "-check-interval=1s")
		keepChecking(t, "http://"+health+"?target="+targets[0].name) // the others are checked by the interval
		proxies = append(proxies, metrics)
	}
	p := startPrometheus(t, proxies...)
	for k, n := range sizes {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			for _, q := range dashboard(t, map[string]string{"instance": proxies[k]}) {
				p.await(t, q.text)
				switch q.name {
				case "Upstreams":
					p.await(t, fmt.Sprintf("(%s) == %d", q.text, n))
				case "Down":
					p.await(t, fmt.Sprintf("(%s) == 1", q.text))
				case "Late":
					p.await(t, fmt.Sprintf("(%s) == 0", q.text))
				}
			}
			for i := range n {
				name := fmt.Sprintf("of%d-%d", n, i)
				rows := 0
				for _, q := range dashboard(t, map[string]string{"instance": proxies[k], "target": name}) {
					if !q.repeated {
						continue
					}
					rows++
					p.await(t, q.text, q.labels...)
					p.await(t, fmt.Sprintf("count(count by (target) (%s)) == 1", q.text))
					if i == n-1 && q.ofUpstreams() {
						p.await(t, fmt.Sprintf("max(%s) == 0", q.text))
					}
				}
				if rows == 0 {
					t.Fatal("the dashboard has no row for each target")
				}
			}
		})
	}
}

// TestAnnotations looks whether each alert says what has happened, what to do, and where the manual says more.
func TestAnnotations(t *testing.T) {
	t.Parallel()
	rules, err := os.ReadFile("rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	manual, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	anchors := make(map[string]bool)
	for _, heading := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(string(manual), -1) {
		anchors[strings.ToLower(strings.NewReplacer(" ", "-", "`", "", ",", "").Replace(heading[1]))] = true
	}
	alerts := strings.Split(string(rules), "- alert: ")[1:]
	if len(alerts) == 0 {
		t.Fatal("there are no alerts")
	}
	for _, alert := range alerts {
		name, text, _ := strings.Cut(alert, "\n")
		for _, annotation := range []string{"summary", "description", "runbook"} {
			if !strings.Contains(text, "\n          "+annotation+": ") {
				t.Errorf("%s has no %s", name, annotation)
			}
		}
		runbook := regexp.MustCompile(`runbook: docs/metrics\.md#(\S+)`).FindStringSubmatch(text)
		if runbook == nil || !anchors[runbook[1]] || !strings.Contains(runbook[1], strings.ToLower(name)) {
			t.Errorf("the manual has no section for %s: %q", name, runbook)
		}
		if name != "GrpcHealthProxyMissing" && !regexp.MustCompile(`summary: [^\n]*(\n {12}[^\n]*)*upstream`).MatchString(text) {
			t.Errorf("the summary of %s does not name the upstream", name)
		}
	}
}

// need skips the test if a program is not installed.
func need(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skipf("install the package prometheus, which has %s: %v", program, err)
	}
}

// startProxy builds grpc_health_proxy and starts it in front of the upstream. It returns the URL for health checks and the
// address of the metrics.
func startProxy(t *testing.T, upstream, ca string, services []string) (health, metrics string) {
	t.Helper()
	program := scripttest.Build(t, "../../cloudrun", "grpc_health_proxy")
	cmd := exec.Command(program, "-http-listen-addr=127.0.0.1:0", "-metrics-http-listen-addr=127.0.0.1:0",
		"-grpc-addr="+upstream, "-grpc-tls", "-grpc-ca-cert="+ca, "-service-name="+strings.Join(services, ","))
	found := start(t, cmd, `answering health checks" url=(\S+)`, `answering Prometheus" url=http://([^/\s]+)`)
	return found[0], found[1]
}

// keepChecking makes requests until the test ends.
func keepChecking(t *testing.T, url string) {
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

// server is a running Prometheus.
type server struct{ address string }

// startPrometheus starts Prometheus with the example's rules and configuration. In the configuration it changes the targets, to the
// proxies and a server without metrics, and the intervals, to shorter ones.
func startPrometheus(t *testing.T, metrics ...string) server {
	t.Helper()
	without := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(without.Close)
	dir := t.TempDir()
	for name, changes := range map[string][]string{
		"prometheus.yml": {"15s", "500ms", "localhost:9000", strings.Join(append(metrics, without.Listener.Addr().String()), `", "`)},
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

// start starts a command, and waits until lines of its log match the patterns, in this order. It returns what their groups match.
// The command ends with the test.
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
	var log strings.Builder // only read it when ended is closed
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
		_ = cmd.Process.Kill() // fails only if the command has ended
		<-ended
		_ = cmd.Wait() // returns an error, because it was killed
		if t.Failed() {
			t.Logf("the log of %s:\n%s", filepath.Base(cmd.Path), log.String())
		}
	})
	select {
	case matches := <-found:
		return matches
	case <-ended:
		t.Fatalf("%s ended before it logged where it listens", filepath.Base(cmd.Path))
	case <-time.After(patience):
		t.Fatalf("%s has not logged where it listens within %v", filepath.Base(cmd.Path), patience)
	}
	return nil
}

// get makes a request to the API (https://prometheus.io/docs/prometheus/latest/querying/api/) and decodes its data. Errors that
// Prometheus reports, for example about a query, are errors too.
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

// rule is a recording or alerting rule that Prometheus has loaded.
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

// await repeats a query until it returns a number in a series that has all of the labels.
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

// query is a query of the dashboard.
type query struct {
	name, text string
	labels     []string // the labels in its legend
	repeated   bool     // it is in the row that is there for each target
}

// ofUpstreams says whether the query tells how each upstream is: 0 for one that is dead.
func (q query) ofUpstreams() bool {
	return strings.HasPrefix(q.name, "State") || strings.HasPrefix(q.name, "SERVING of all verdicts")
}

// dashboard returns the queries of the dashboard's panels, variables and annotations. Variables have the values that they have when
// the dashboard is opened, all, but for those that are chosen.
func dashboard(t *testing.T, chosen map[string]string) []query {
	t.Helper()
	content, err := os.ReadFile(dashboardFile)
	if err != nil {
		t.Fatal(err)
	}
	type variable struct {
		Name, Definition, AllValue string
	}
	type panel struct {
		Title   string
		Repeat  string // a variable: there is a copy of the row for each of its values
		Targets []struct{ Expr, LegendFormat string }
		Panels  []panel // of a row that is folded
	}
	var d struct {
		Panels      []panel
		Templating  struct{ List []variable }
		Annotations struct{ List []struct{ Name, Expr string } }
	}
	if err := json.Unmarshal(content, &d); err != nil {
		t.Fatal(err)
	}

	// Grafana's own variables have the values for a few minutes.
	values := map[string]string{"__rate_interval": "1m", "__range": "5m"}
	for _, v := range d.Templating.List {
		values[v.Name] = v.AllValue
	}
	maps.Copy(values, chosen)
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
	if len(d.Panels) == 0 || d.Panels[0].Title != "At a glance" {
		t.Error("the dashboard does not begin with all upstreams at a glance")
	}
	panels, inRow := d.Panels, len(d.Panels)
	for _, panel := range d.Panels {
		if len(panel.Panels) > 0 && panel.Repeat != "target" {
			t.Errorf("the folded row %s is not there for each target", panel.Title)
		}
		panels = append(panels, panel.Panels...)
	}
	for i, panel := range panels {
		for _, target := range panel.Targets {
			q := query{name: panel.Title, text: substitute(target.Expr), repeated: i >= inRow}
			for _, m := range legend.FindAllStringSubmatch(target.LegendFormat, -1) {
				q.labels = append(q.labels, m[1])
			}
			all = append(all, q)
		}
	}
	labelValues := regexp.MustCompile(`^label_values\((.+), (\w+)\)$`)
	for _, v := range d.Templating.List {
		if m := labelValues.FindStringSubmatch(v.Definition); m != nil {
			all = append(all, query{name: "variable " + v.Name, text: substitute(m[1]), labels: m[2:]})
		} else if v.Definition != "" {
			t.Errorf("variable %s: unknown definition %s", v.Name, v.Definition)
		}
	}
	for _, a := range d.Annotations.List {
		all = append(all, query{name: "annotation " + a.Name, text: substitute(a.Expr)})
	}
	return all
}
