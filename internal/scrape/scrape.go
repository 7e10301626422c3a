// Package scrape lets Prometheus make the checks: a scrape of /probe checks a target and answers with what that check found, under the names that
// blackbox_exporter's gRPC prober gives (https://github.com/prometheus/blackbox_exporter/blob/master/prober/grpc.go), and /targets lists what can be
// scraped, for http_sd_configs.
package scrape

import (
	"context"
	"encoding/json"
	"html"
	"io"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"example.com/grpc-health-http/internal/asker"
	"example.com/grpc-health-http/internal/health"
)

// The paths of the metrics port beside that of the metrics.
const (
	ProbePath   = "/probe"
	TargetsPath = "/targets"
)

// Options say what is scraped. All are required.
type Options struct {
	// Asker makes the checks.
	Asker *asker.Asker
	// TLS reports whether a target is checked over TLS.
	TLS func(target string) bool
	// MetricsPath is where the metrics are.
	MetricsPath string
	// Refuse answers a request that leads to no check. The reason repeats nothing of the request.
	Refuse func(w http.ResponseWriter, r *http.Request, code int, reason string)
}

// Handler answers GET and HEAD of ProbePath, TargetsPath and "/"; it knows no other path.
func Handler(o Options) http.Handler {
	mux := map[string]http.HandlerFunc{ProbePath: o.probe, TargetsPath: o.targets, "/": o.index}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := mux[r.URL.Path]
		switch {
		case answer == nil:
			o.Refuse(w, r, http.StatusNotFound, "not found")
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			w.Header().Set("Allow", "GET, HEAD")
			o.Refuse(w, r, http.StatusMethodNotAllowed, "use GET or HEAD")
		default:
			w.Header()["Cache-Control"] = []string{"no-store"}
			w.Header()["X-Content-Type-Options"] = []string{"nosniff"}
			answer(w, r)
		}
	})
}

// Paths reports whether Handler answers a path.
func Paths(path string) bool { return path == ProbePath || path == TargetsPath || path == "/" }

// margin is a tenth of the time that Prometheus gives a scrape, half a second at most: the answer has to reach it.
func margin(timeout time.Duration) time.Duration { return min(timeout/10, 500*time.Millisecond) }

// timeout is how long a check may take by what Prometheus says that it waits for; 0 where it says nothing of use.
func timeout(r *http.Request) time.Duration {
	seconds, err := strconv.ParseFloat(r.Header.Get("X-Prometheus-Scrape-Timeout-Seconds"), 64)
	const most = 3600
	if err != nil || !(seconds > 0) || seconds > most {
		return 0
	}
	scrape := time.Duration(seconds * float64(time.Second))
	return scrape - margin(scrape)
}

// deadline bounds a scrape's checks by what Prometheus says it waits for.
func deadline(ctx context.Context, r *http.Request) (context.Context, context.CancelFunc) {
	within := timeout(r)
	if within == 0 {
		return ctx, func() {}
	}
	return context.WithTimeoutCause(ctx, within, health.ErrCallerDeadline)
}

// within is how long a check of the upstream may take for this scrape; 0 is not known.
func within(r *http.Request, u *asker.Upstream) time.Duration {
	asked := timeout(r)
	if u == nil || u.Budget == 0 || asked > 0 && asked < u.Budget {
		return asked
	}
	return u.Budget
}

// evidenceOf keeps the evidence of checks, by their services.
type evidenceOf struct {
	mu  sync.Mutex
	all map[string]health.Evidence
}

func (e *evidenceOf) add(service string, found health.Evidence) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.all == nil {
		e.all = make(map[string]health.Evidence)
	}
	e.all[service] = found
}

func (e *evidenceOf) of(service string) health.Evidence {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.all[service]
}

// probe makes a check, and answers with its metrics.
func (o Options) probe(w http.ResponseWriter, r *http.Request) {
	ctx, cancel, refusal := o.Asker.Begin(r)
	defer cancel()
	if refusal != asker.NotRefused {
		o.Refuse(w, r, http.StatusServiceUnavailable, refusal.String())
		return
	}
	ctx, stop := deadline(ctx, r)
	defer stop()
	fleet := o.Asker.Fleet(ctx)
	if fleet == nil {
		o.Refuse(w, r, http.StatusServiceUnavailable, asker.NotConfigured.String())
		return
	}
	name, fault := theTarget(r, fleet)
	if fault != "" {
		o.Refuse(w, r, http.StatusBadRequest, fault)
		return
	}
	question := asker.Question{Targets: []string{name}}
	for _, service := range r.URL.Query()["service"] {
		if fault := health.NameFault(service); fault != "" {
			o.Refuse(w, r, http.StatusBadRequest, fault)
			return
		}
		if !slices.Contains(question.Services, service) {
			question.Services = append(question.Services, service)
		}
	}
	if len(question.Services) > health.MaxServices {
		o.Refuse(w, r, http.StatusBadRequest, "more than 100 services are asked for: ask in several scrapes")
		return
	}
	var evidence evidenceOf
	upstream := fleet.Find(name)
	began := time.Now()
	found, refusal := o.Asker.Ask(health.WithEvidence(ctx, evidence.add), r, &question, nil)
	switch refusal {
	case asker.NotRefused:
	case asker.NoRoom:
		w.Header().Set("Retry-After", "1")
		o.Refuse(w, r, http.StatusServiceUnavailable, refusal.String())
		return
	default:
		o.Refuse(w, r, http.StatusNotFound, refusal.String())
		return
	}
	result := results{took: time.Since(began), within: within(r, upstream), tls: o.TLS(name)}
	worst := health.Worst(found.Verdicts)
	if i := slices.IndexFunc(found.Verdicts, func(v health.Verdict) bool { return v.Status == worst }); i >= 0 {
		result.verdict = found.Verdicts[i]
		result.evidence = evidence.of(result.verdict.Service)
	}
	if upstream != nil && upstream.CertificateEnds != nil {
		result.certificateEnds = upstream.CertificateEnds()
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(result)
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(w, r)
}

// theTarget is the one that a scrape is about.
func theTarget(r *http.Request, fleet *asker.Fleet) (name, fault string) {
	switch names := r.URL.Query()["target"]; {
	case len(names) > 1:
		return "", "several targets are asked for: scrape each by itself"
	case len(names) == 1 && names[0] == "":
		return "", "target is empty: name one, /targets has them all"
	case len(names) == 1:
		return names[0], ""
	case !fleet.Named():
		return asker.Default, ""
	case len(fleet.Upstreams()) == 1:
		return fleet.Upstreams()[0].Name, ""
	}
	return "", "there are several targets: name one with target, /targets has them all"
}

// group is what http_sd_configs takes (https://prometheus.io/docs/prometheus/latest/http_sd/).
type group struct {
	Targets []string          `json:"targets"`
	Labels  map[string]string `json:"labels"`
}

// targets lists all targets, each as one to be scraped here.
func (o Options) targets(w http.ResponseWriter, r *http.Request) {
	fleet := o.Asker.Fleet(r.Context())
	groups := []group{}
	if fleet != nil {
		for _, u := range fleet.Upstreams() {
			name := u.Name
			if !fleet.Named() {
				name = asker.Default
			}
			labels := map[string]string{"__metrics_path__": ProbePath, "__param_target": name, "target": name, "instance": name}
			if u.Group != "" {
				labels["group"] = u.Group
			}
			groups = append(groups, group{Targets: []string{r.Host}, Labels: labels})
		}
	}
	body, err := json.Marshal(groups)
	if err != nil {
		panic(err) // strings have a JSON form
	}
	w.Header()["Content-Type"] = []string{"application/json"}
	w.Header()["Content-Length"] = []string{strconv.Itoa(len(body))}
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) // an error means that the caller has gone
	}
}

// index is a short page with the links.
func (o Options) index(w http.ResponseWriter, r *http.Request) {
	page := "<!DOCTYPE html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>grpc_health_proxy</title>\n<h1>grpc_health_proxy</h1>\n<ul>\n"
	for _, link := range [][2]string{
		{o.MetricsPath, "metrics of this process and what it has found out"},
		{TargetsPath, "the targets, for Prometheus’ http_sd_configs"},
		{ProbePath, "check the only target; add ?target=NAME where there are several"},
		{"/livez", "whether this process is up"},
	} {
		href := html.EscapeString(link[0])
		page += "<li><a href=\"" + href + "\">" + href + "</a>: " + link[1] + "\n"
	}
	page += "</ul>\n</html>\n"
	w.Header()["Content-Type"] = []string{"text/html; charset=utf-8"}
	w.Header()["Content-Security-Policy"] = []string{"default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"}
	w.Header()["Content-Length"] = []string{strconv.Itoa(len(page))}
	if r.Method != http.MethodHead {
		_, _ = io.WriteString(w, page) // an error means that the caller has gone
	}
}
