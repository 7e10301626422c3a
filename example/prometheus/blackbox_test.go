package prometheus

import (
	"bytes"
	"context"
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
	module              string            // what blackbox_exporter is told
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
	slow.SetDelay("", 300*time.Millisecond)
	silent := start(serving)
	silent.SetDelay("", time.Minute)
	localhost := func(up *healthtest.Upstream) string {
		_, port, _ := net.SplitHostPort(up.Addr())
		return "localhost:" + port
	}
	plain := start(serving)
	// That a certificate could not be verified is told together with its end, and that TLS was to be used.
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
		{name: "tls-expired", addr: localhost(start(serving, healthtest.TLS(authority.ServerTLS(t, healthtest.Expired())))), module: "tls", differs: unverified},
		{name: "tls-untrusted", addr: localhost(start(serving, healthtest.TLS(healthtest.NewCA(t).ServerTLS(t)))), module: "tls", differs: unverified},
		{name: "tls-to-plaintext", addr: localhost(plain), module: "tls", differs: map[string]string{"probe_grpc_ssl": "value"}},
	}, ca
}

// startTargets starts the proxy with a targets file of the upstreams. It returns the addresses of both ports.
func startTargets(t *testing.T, all []probed, ca string, args ...string) (health, metrics string) {
	t.Helper()
	content := "defaults: {conn_max_age: 0s}\ntargets:\n"
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
  plain: {prober: grpc, timeout: 2s, grpc: {preferred_ip_protocol: ip4}}
  plain-nobody: {prober: grpc, timeout: 2s, grpc: {service: nobody, preferred_ip_protocol: ip4}}
  tls: {prober: grpc, timeout: 2s, grpc: {tls: true, tls_config: {ca_file: `+ca+`}, preferred_ip_protocol: ip4}}
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
