package prometheus

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"example.com/grpc-health-http/test/healthtest"
	"example.com/grpc-health-http/test/scripttest"
)

var blackbox = flag.String("blackbox", "", "the path of a blackbox_exporter to compare /probe with")

// probed is an upstream to be probed by both.
type probed struct {
	name, addr, service string
	module              string            // of blackbox_exporter's configuration
	differs             map[string]string // the series that differ, and how: "ours only", "theirs only", or "value"
}

// upstreams are what both probe.
func upstreams(t *testing.T) (all []probed, ca string) {
	t.Helper()
	authority := healthtest.NewCA(t)
	ca = authority.WriteFile(t, t.TempDir(), "ca")
	start := func(status healthpb.HealthCheckResponse_ServingStatus, options ...healthtest.Option) *healthtest.Upstream {
		up := healthtest.Start(t, options...)
		up.SetStatus("", status)
		return up
	}
	serving := healthpb.HealthCheckResponse_SERVING
	slow := start(serving)
	slow.SetDelay("", 2200*time.Millisecond)
	silent := start(serving)
	silent.SetDelay("", time.Minute)
	localhost := func(up *healthtest.Upstream) string {
		_, port, _ := net.SplitHostPort(up.Addr())
		return "localhost:" + port
	}
	plain := start(serving)
	yesterday := func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().AddDate(0, 0, -3), time.Now().AddDate(0, 0, -1)
	}
	// A certificate that could not be verified has its end in the answer, and the answer says that TLS was to be used.
	unverified := map[string]string{"probe_grpc_ssl": "value", "probe_ssl_earliest_cert_expiry": "ours only"}
	return []probed{
		{name: "serving", addr: plain.Addr(), module: "plain"},
		{name: "by-name", addr: localhost(plain), module: "plain"},
		{name: "not-serving", addr: start(healthpb.HealthCheckResponse_NOT_SERVING).Addr(), module: "plain"},
		{name: "unknown", addr: start(healthpb.HealthCheckResponse_UNKNOWN).Addr(), module: "plain"},
		{name: "service-unknown", addr: plain.Addr(), service: "nobody", module: "plain-nobody"},
		{name: "no-health-service", addr: healthtest.Start(t, healthtest.WithoutHealth()).Addr(), module: "plain"},
		{name: "slow", addr: slow.Addr(), module: "plain"},
		{name: "down", addr: "127.0.0.1:1", module: "plain"},
		{name: "no-such-name", addr: "nowhere.invalid:1", module: "plain", differs: map[string]string{
			"probe_grpc_status_code": "value", `probe_grpc_duration_seconds{phase="check"}`: "ours only",
			`probe_grpc_healthcheck_response{serving_status="UNKNOWN"}`: "ours only", `probe_grpc_healthcheck_response{serving_status="SERVING"}`: "ours only",
			`probe_grpc_healthcheck_response{serving_status="NOT_SERVING"}`: "ours only", `probe_grpc_healthcheck_response{serving_status="SERVICE_UNKNOWN"}`: "ours only",
		}},
		{name: "silent", addr: silent.Addr(), module: "plain", differs: map[string]string{"*": "theirs never answers: its time-out does not reach the RPC"}},
		{name: "tls", addr: localhost(start(serving, healthtest.TLS(authority.ServerTLS(t)))), module: "tls"},
		{name: "tls-not-serving", addr: localhost(start(healthpb.HealthCheckResponse_NOT_SERVING, healthtest.TLS(authority.ServerTLS(t)))), module: "tls"},
		{name: "tls-ten-days", addr: localhost(start(serving, healthtest.TLS(authority.ServerTLS(t, healthtest.ValidUntil(time.Now().AddDate(0, 0, 10)))))), module: "tls"},
		{name: "tls-expired", addr: localhost(start(serving, healthtest.TLS(authority.ServerTLS(t, yesterday)))), module: "tls", differs: unverified},
		{name: "tls-untrusted", addr: localhost(start(serving, healthtest.TLS(healthtest.NewCA(t).ServerTLS(t)))), module: "tls", differs: unverified},
		{name: "tls-to-plaintext", addr: localhost(plain), module: "tls", differs: map[string]string{"probe_grpc_ssl": "value"}},
	}, ca
}

// public are expressions of alerts and panels that others have published for blackbox_exporter, with where they were found (repositories and dashboards as of
// November 2026). $cluster is empty, as without several; $job and $instance are all. A condition that would take a state that is not made here is replaced.
var public = []struct{ source, expr, replace, by string }{
	{"samber/awesome-prometheus-alerts, dist/rules/blackbox: BlackboxProbeFailed", `probe_success == 0`, "", ""},
	{"samber/awesome-prometheus-alerts: BlackboxSlowProbe", `avg_over_time(probe_duration_seconds[1m]) > 1`, "", ""},
	{"samber/awesome-prometheus-alerts: BlackboxSslCertificateWillExpireSoon", `3 <= round((last_over_time(probe_ssl_earliest_cert_expiry[10m]) - time()) / 86400, 0.1) < 20`, "", ""},
	{"samber/awesome-prometheus-alerts: BlackboxSslCertificateWillExpireVerySoon", `0 <= round((last_over_time(probe_ssl_earliest_cert_expiry[10m]) - time()) / 86400, 0.1) < 3`, "", ""},
	{"samber/awesome-prometheus-alerts: BlackboxSslCertificateExpired", `round((last_over_time(probe_ssl_earliest_cert_expiry[10m]) - time()) / 86400, 0.1) < 0`, "", ""},
	{"adinhodovic/blackbox-exporter-mixin, alerts: BlackboxLowUptime30d", `avg_over_time(probe_success{job="grpc"}[30d]) * 100 < 99.9`, "", ""},
	{"adinhodovic/blackbox-exporter-mixin: BlackboxSslCertificateWillExpireSoon", `probe_ssl_earliest_cert_expiry{job="grpc"} - time() < 21 * 24 * 3600`, "", ""},
	{"adinhodovic/blackbox-exporter-mixin, dashboard: status map", `max by (instance) (probe_success{cluster="", job=~"grpc"})`, "", ""},
	{"adinhodovic/blackbox-exporter-mixin, dashboard: probes", `count(probe_success{cluster="", job=~"grpc"})`, "", ""},
	{"adinhodovic/blackbox-exporter-mixin, dashboard: success rate", `(count(probe_success{cluster="", job=~"grpc"} == 1) OR vector(0)) / count(probe_success{cluster="", job=~"grpc"})`, "", ""},
	{"adinhodovic/blackbox-exporter-mixin, dashboard: average duration", `avg(probe_duration_seconds{cluster="", job=~"grpc"})`, "", ""},
	{"adinhodovic/blackbox-exporter-mixin, dashboard: uptime", `avg_over_time(probe_success{cluster="", job=~"grpc", instance=~".*"}[30d])`, "", ""},
	{"adinhodovic/blackbox-exporter-mixin, dashboard: DNS lookup", `avg by (instance) (probe_dns_lookup_time_seconds{cluster="", job=~"grpc", instance=~".*"})`, "", ""},
	{"adinhodovic/blackbox-exporter-mixin, dashboard: latency", `avg by (instance) (probe_duration_seconds{cluster="", job=~"grpc", instance=~".*"})`, "", ""},
	{"adinhodovic/blackbox-exporter-mixin, dashboard: TLS version", `max by (instance,version) (probe_tls_version_info{cluster="", job=~"grpc", instance=~".*"})`, "", ""},
	{"adinhodovic/blackbox-exporter-mixin, dashboard: certificate", `min by (instance) (probe_ssl_earliest_cert_expiry{cluster="", job=~"grpc", instance=~".*"} - time())`, "", ""},
	{"kubernetes/test-infra, prober_alerts.libsonnet", `min(probe_success{instance="not-serving"}) == 0`, "", ""},
	{"PacktPublishing/Mastering-Prometheus, ch11", `last_over_time(probe_success{job="grpc"}[5m]) != 1`, "", ""},
	{"srerun/prometheus-alerts, content/runbooks/blackbox-exporter/BlackboxSlowProbe.md", `avg_over_time(probe_duration_seconds[1m]) > 1`, "", ""},
	{"vpsfreecz/vpsfree-cz-configuration, int.mon/rules/dns-resolvers.nix: DnsResolverDown", `probe_success{job="grpc"} == 0`, "", ""},
	{"kitnil/dotfiles, guixsd/blackbox.scm: BlackboxSlowProbe", `avg_over_time(probe_duration_seconds[1m]) > 10`, "> 10", "> 1"},
	{"kitnil/dotfiles: BlackboxSslCertificateWillExpireSoon", `probe_ssl_earliest_cert_expiry - time() < 86400 * 3`, "", ""},
	{"runbooks.gitlab-static.net: BlackboxProbeFailures", `avg_over_time(probe_success{job="grpc"}[10m]) * 100 < 75`, "", ""},
	{"ping7io/docs, exporters/blackbox/rules.md", `probe_ssl_earliest_cert_expiry - time() < 86400 * 30`, "", ""},
	{"ministryofjustice/bichard7-next-infrastructure-docker-images, blackbox-endpoint-prober.json: SSL Cert Expiry", `probe_ssl_earliest_cert_expiry-time()`, "", ""},
	{"akhil27051999/devops-cloud-interview-guide: uptime panel", `probe_success{job="grpc"}`, "", ""},
	{"a mixin whose repository the index of public code does not name: BlackboxIpFlapping", `changes(probe_ip_addr_hash[5m]) > 3`, "> 3", ">= 0"},
	{"the same mixin: BlackboxHighLatency", `probe_duration_seconds > 2`, "", ""},
	{"the same mixin: BlackboxSlowDnsResolution", `probe_dns_lookup_time_seconds > 1`, "> 1", "> 0"},
	{"a Grafana library, not named there either: certMin", `min((probe_ssl_earliest_cert_expiry{cluster=~"", job=~"grpc", instance=~".*"} - time()) / 86400)`, "", ""},
	{"the same library: failing", `count(probe_success{cluster=~"", job=~"grpc", instance=~".*"} == 0) or vector(0)`, "", ""},
	{"the same library: ipProtocol", `max by (instance, job) (probe_ip_protocol{cluster=~"", job=~"grpc", instance=~".*"})`, "", ""},
	{"the same library: tlsVersionCount", `count by (version) (probe_tls_version_info{cluster=~"", job=~"grpc", instance=~".*"})`, "", ""},
	{"an API's manual (WeakTLSVersion)", `probe_tls_version_info{version!="TLS 1.3"} == 1`, `!="TLS 1.3"`, `="TLS 1.3"`},
	{"a test of a monitoring stack: gRPC checks", `probe_grpc_duration_seconds{instance="serving",phase="check"}`, "", ""},
	{"kubegems: gRPC probes", `count by (__name__) ({job="grpc"})`, "", ""},
	{"prober/grpc.go itself: what the server answered", `probe_grpc_healthcheck_response{serving_status="NOT_SERVING"} == 1`, "", ""},
	{"prober/grpc.go itself: codes that are not OK", `probe_grpc_status_code != 0`, "", ""},
	{"prober/grpc.go itself: without TLS", `probe_grpc_ssl == 0`, "", ""},
	{"prober/tls.go itself: certificates", `probe_ssl_last_chain_info * on (instance) group_left () probe_success`, "", ""},
}

// TestPublicExpressions has a real Prometheus scrape all targets, which it gets by http_sd_configs, and make queries that others have written for
// blackbox_exporter.
func TestPublicExpressions(t *testing.T) {
	t.Parallel()
	need(t, "prometheus")
	all, ca := upstreams(t)
	_, metrics := startTargets(t, all, ca)
	dir := t.TempDir()
	config := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(config, []byte(`global: {scrape_interval: 3s}
scrape_configs:
  - job_name: grpc
    http_sd_configs: [{url: "http://`+metrics+`/targets", refresh_interval: 1s}]
`), 0o600); err != nil {
		t.Fatal(err)
	}
	p := server{start(t, exec.Command("prometheus", "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address=127.0.0.1:0"),
		`"Listening on" address=(\S+)`)[0]}
	p.await(t, fmt.Sprintf("(count(up{job=\"grpc\", instance=~\".+\", target=~\".+\"} == 1) == %d) and (count(probe_success) == %[1]d)", len(all)))
	for _, q := range public {
		if !strings.Contains(q.expr, q.replace) {
			t.Errorf("%s: %s is not in %s", q.source, q.replace, q.expr)
		}
		p.await(t, strings.Replace(q.expr, q.replace, q.by, 1))
	}
}

// TestShards has two Prometheus servers share the targets of one proxy: each is scraped by one of them.
func TestShards(t *testing.T) {
	t.Parallel()
	need(t, "prometheus")
	all, ca := upstreams(t)
	_, metrics := startTargets(t, all, ca)
	content, err := os.ReadFile("sharded.yml")
	if err != nil {
		t.Fatal(err)
	}
	const host, remainder = "grpc-health:9000", `regex: "0"`
	if !bytes.Contains(content, []byte(host)) || !bytes.Contains(content, []byte(remainder)) {
		t.Fatalf("sharded.yml is without %s or %s", host, remainder)
	}
	scraped := make(map[string]int)
	for shard := range 2 {
		dir := t.TempDir()
		config := filepath.Join(dir, "prometheus.yml")
		mine := strings.NewReplacer(host, metrics, remainder, fmt.Sprintf("regex: \"%d\"", shard)).Replace(string(content))
		if err := os.WriteFile(config, []byte("global: {scrape_interval: 1s}\n"+mine), 0o600); err != nil {
			t.Fatal(err)
		}
		p := server{start(t, exec.Command("prometheus", "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address=127.0.0.1:0"),
			`"Listening on" address=(\S+)`)[0]}
		p.await(t, "count(probe_success)")
		var targets struct {
			ActiveTargets []struct{ Labels map[string]string }
		}
		if err := p.get("/api/v1/targets", url.Values{"state": {"active"}}, &targets); err != nil {
			t.Fatal(err)
		}
		for _, target := range targets.ActiveTargets {
			scraped[target.Labels["target"]]++
		}
	}
	if len(scraped) != len(all) {
		t.Errorf("scraped are %v, want %d targets", scraped, len(all))
	}
	for name, times := range scraped {
		if times != 1 {
			t.Errorf("%s is scraped by %d servers", name, times)
		}
	}
}

// startTargets starts the proxy with a targets file of the upstreams. It returns the addresses of both ports.
func startTargets(t *testing.T, all []probed, ca string, args ...string) (health, metrics string) {
	t.Helper()
	content := "defaults: {conn_max_age: 0s, rpc_timeout: 2.5s}\ntargets:\n"
	for _, p := range all {
		content += fmt.Sprintf("  %s: {addr: %q", p.name, p.addr)
		if p.service != "" {
			content += fmt.Sprintf(", service_name: [%s]", p.service)
		}
		if p.module == "tls" {
			content += fmt.Sprintf(", tls: true, ca_cert: %q", ca)
		}
		content += "}\n"
	}
	file := filepath.Join(t.TempDir(), "targets.yaml")
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(scripttest.Build(t, "../../cloudrun", "grpc_health_proxy"),
		append([]string{"-http-listen-addr=127.0.0.1:0", "-metrics-http-listen-addr=127.0.0.1:0", "-targets-file=" + file}, args...)...)
	found := start(t, cmd, `answering health checks" url=http://([^/\s]+)`, `answering Prometheus" url=http://([^/\s]+)`)
	return found[0], found[1]
}

// scraped is an exposition: the values by their series, and the types by their names.
type scraped struct{ values, types map[string]string }

// scrape gets a probe's exposition.
func scrape(ctx context.Context, target string) (scraped, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return scraped{}, err
	}
	request.Header.Set("X-Prometheus-Scrape-Timeout-Seconds", "10")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return scraped{}, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = errors.New(response.Status)
	}
	found := scraped{make(map[string]string), make(map[string]string)}
	for line := range strings.Lines(string(body)) {
		if fields := strings.Fields(line); len(fields) == 4 && fields[1] == "TYPE" {
			found.types[fields[2]] = fields[3]
		} else if i := strings.LastIndex(line, " "); i > 0 && !strings.HasPrefix(line, "#") {
			found.values[line[:i]] = strings.TrimSpace(line[i:])
		}
	}
	return found, err
}

// durations are not equal, however much alike two probes are; probe_timeout_seconds is each one's own setting.
var durations = []string{"probe_duration_seconds", "probe_dns_lookup_time_seconds", `probe_grpc_duration_seconds{phase="check"}`, `probe_grpc_duration_seconds{phase="resolve"}`, "probe_timeout_seconds"}

// TestSideBySide compares /probe with a real blackbox_exporter: every series is there, with the same type and the same value, but for what the manual says.
// Its source is at https://github.com/prometheus/blackbox_exporter; the flag -blackbox has the path of the program.
func TestSideBySide(t *testing.T) {
	if *blackbox == "" {
		t.Skip("the flag -blackbox has no path of a blackbox_exporter")
	}
	all, ca := upstreams(t)
	_, metrics := startTargets(t, all, ca)
	config := filepath.Join(t.TempDir(), "blackbox.yml")
	if err := os.WriteFile(config, []byte(`modules:
  plain: {prober: grpc, timeout: 3s, grpc: {preferred_ip_protocol: ip4}}
  plain-nobody: {prober: grpc, timeout: 3s, grpc: {service: nobody, preferred_ip_protocol: ip4}}
  tls: {prober: grpc, timeout: 3s, grpc: {tls: true, tls_config: {ca_file: `+ca+`}, preferred_ip_protocol: ip4}}
`), 0o600); err != nil {
		t.Fatal(err)
	}
	theirs := start(t, exec.Command(*blackbox, "--config.file="+config, "--web.listen-address=127.0.0.1:0"), `Listening on.* address=(\S+)`)[0]
	var table bytes.Buffer
	for _, p := range all {
		ours, err := scrape(t.Context(), "http://"+metrics+"/probe?target="+p.name)
		if err != nil {
			t.Errorf("%s: %v", p.name, err)
			continue
		}
		ctx, cancel := context.WithTimeout(t.Context(), 12*time.Second)
		other, err := scrape(ctx, "http://"+theirs+"/probe?module="+p.module+"&target="+url.QueryEscape(p.addr))
		cancel()
		if p.differs["*"] != "" {
			if err == nil {
				t.Errorf("%s: there is an answer", p.name)
			}
			fmt.Fprintf(&table, "| %s | * | %d series, success %s | none (%v) |\n", p.name, len(ours.values), ours.values["probe_success"], err)
			continue
		}
		if err != nil {
			t.Errorf("%s: blackbox_exporter: %v", p.name, err)
			continue
		}
		series := maps.Clone(ours.values)
		maps.Copy(series, other.values)
		equal := 0
		for _, s := range slices.Sorted(maps.Keys(series)) {
			name, _, _ := strings.Cut(s, "{")
			mine, here := ours.values[s]
			its, there := other.values[s]
			found := ""
			switch {
			case !there:
				found = "ours only"
			case !here:
				found = "theirs only"
			case ours.types[name] != other.types[name]:
				found = "type"
			case mine != its && !slices.Contains(durations, s):
				found = "value"
			default:
				equal++
			}
			if found != p.differs[s] {
				t.Errorf("%s: %s: ours %q, theirs %q: %q, want %q", p.name, s, mine, its, found, p.differs[s])
			}
			if found != "" || slices.Contains(durations, s) {
				fmt.Fprintf(&table, "| %s | %s | %s | %s |\n", p.name, s, mine, its)
			}
		}
		fmt.Fprintf(&table, "| %s | equal | %d series | |\n", p.name, equal)
	}
	t.Logf("\n%s", table.String())
}
