package scrape

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"hash/fnv"
	"net/netip"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/internal/inert"
)

// results are the metrics of a check. Where several services were checked they are of the worst one.
type results struct {
	verdict  health.Verdict
	evidence health.Evidence
	took     time.Duration
	// within is how long the check might have taken; 0 where that has no bound that is known.
	within time.Duration
	// tls says that the upstream is checked over TLS.
	tls bool
	// certificateEnds is when the upstream's certificate ends, as it was seen last; zero where none was seen.
	certificateEnds time.Time
}

// chainLabels are those of probe_ssl_last_chain_info.
var chainLabels = []string{"fingerprint_sha256", "subject", "issuer", "subjectalternative", "serialnumber"}

var (
	successDesc  = prometheus.NewDesc("probe_success", "1 where every service that was checked is SERVING, else 0.", nil, nil)
	durationDesc = prometheus.NewDesc("probe_duration_seconds", "How long the probe took.", nil, nil)
	timeoutDesc  = prometheus.NewDesc("probe_timeout_seconds", "How long the probe may take.", nil, nil)
	lookupDesc   = prometheus.NewDesc("probe_dns_lookup_time_seconds", "How long the lookup of the upstream's name took; 0 where the check needed none.", nil, nil)
	protocolDesc = prometheus.NewDesc("probe_ip_protocol", "4 or 6, the version of IP to the upstream; 0 where there is none.", nil, nil)
	addressDesc  = prometheus.NewDesc("probe_ip_addr_hash", "A hash of the upstream's IP address, which changes when that does; 0 where there is none.", nil, nil)
	phaseDesc    = prometheus.NewDesc("probe_grpc_duration_seconds", "How long the check took, by phase.", []string{"phase"}, nil)
	tlsDesc      = prometheus.NewDesc("probe_grpc_ssl", "1 where the check uses TLS, else 0.", nil, nil)
	codeDesc     = prometheus.NewDesc("probe_grpc_status_code", "The gRPC code of the check.", nil, nil)
	responseDesc = prometheus.NewDesc("probe_grpc_healthcheck_response", "1 for the status that the server answered, 0 for the others.", []string{"serving_status"}, nil)
	expiryDesc   = prometheus.NewDesc("probe_ssl_earliest_cert_expiry", "When the first of the certificates ends that the upstream has shown, as Unix time.", nil, nil)
	versionDesc  = prometheus.NewDesc("probe_tls_version_info", "Always 1; the label is the version of TLS to the upstream.", []string{"version"}, nil)
	chainDesc    = prometheus.NewDesc("probe_ssl_last_chain_info", "Always 1; the labels describe the upstream's own certificate.", chainLabels, nil)
)

// Describe is of prometheus.Collector.
func (r results) Describe(descs chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		successDesc, durationDesc, timeoutDesc, lookupDesc, protocolDesc, addressDesc, phaseDesc, tlsDesc, codeDesc, responseDesc, expiryDesc, versionDesc, chainDesc,
	} {
		descs <- d
	}
}

// Collect is of prometheus.Collector.
func (r results) Collect(metrics chan<- prometheus.Metric) {
	gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
		metrics <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	way := wayOf(r.evidence)
	gauge(successDesc, number(r.verdict.Status == health.Serving))
	gauge(durationDesc, r.took.Seconds())
	if r.within > 0 {
		gauge(timeoutDesc, r.within.Seconds())
	}
	gauge(lookupDesc, way.lookup.Seconds())
	gauge(protocolDesc, float64(way.protocol()))
	gauge(addressDesc, way.hash())
	gauge(phaseDesc, way.lookup.Seconds(), "resolve")
	took := r.verdict.Duration
	if took == 0 { // the scrape's time was up
		took = r.took
	}
	gauge(phaseDesc, max(took-way.lookup, 0).Seconds(), "check")
	gauge(tlsDesc, number(r.tls))
	gauge(codeDesc, float64(code(r.verdict)))
	response := ""
	if r.verdict.Asked && r.verdict.Code == codes.OK && r.verdict.Phase == health.PhaseNone {
		response = r.verdict.Status.String()
	}
	for status := range healthpb.HealthCheckResponse_ServingStatus_value {
		gauge(responseDesc, number(status == response), status)
	}
	ends := r.certificateEnds
	if state := way.tls; state != nil {
		gauge(versionDesc, 1, tls.VersionName(state.Version))
		ends = time.Time{}
		for _, c := range state.PeerCertificates {
			if ends.IsZero() || c.NotAfter.Before(ends) {
				ends = c.NotAfter
			}
		}
		if len(state.PeerCertificates) > 0 {
			leaf := state.PeerCertificates[0]
			fingerprint := sha256.Sum256(leaf.Raw)
			gauge(chainDesc, 1, hex.EncodeToString(fingerprint[:]), label(leaf.Subject.String()), label(leaf.Issuer.String()),
				label(strings.Join(leaf.DNSNames, ",")), fmt.Sprintf("%x", leaf.SerialNumber.Bytes()))
		}
	}
	if !ends.IsZero() {
		gauge(expiryDesc, float64(ends.Unix()))
	}
}

// label makes a label's value of a text from outside.
func label(text string) string { return inert.Text(strings.ToValidUTF8(text, "\uFFFD")) }

// way is how a check got to the upstream.
type way struct {
	lookup time.Duration
	ip     netip.Addr           // the zero Addr where none is known
	tls    *tls.ConnectionState // nil where there was no TLS connection
}

// wayOf is that of the attempt that decided. A connection that was there already needed no lookup.
func wayOf(e health.Evidence) (w way) {
	if len(e.Attempts) == 0 {
		return w
	}
	last := e.Attempts[len(e.Attempts)-1]
	w.lookup = last.Dial.Lookup
	switch {
	case last.Peer != nil:
		w.ip, w.tls = addressOf(last.Peer.Address), last.Peer.TLS
	case len(last.Dial.Addresses) > 0:
		w.ip = addressOf(last.Dial.Addresses[0].Address)
	}
	return w
}

// addressOf reads the address of an attempt to connect: "192.0.2.1:443" or a text that is none, as that of a socket or a proxy.
func addressOf(text string) netip.Addr {
	at, err := netip.ParseAddrPort(text)
	if err != nil {
		return netip.Addr{}
	}
	return at.Addr().Unmap().WithZone("")
}

func (w way) protocol() int {
	switch {
	case w.ip.Is4():
		return 4
	case w.ip.Is6():
		return 6
	}
	return 0
}

// hash is the 32-bit FNV-1a of the address's bytes, as that of blackbox_exporter.
func (w way) hash() float64 {
	if !w.ip.IsValid() {
		return 0
	}
	h := fnv.New32a()
	h.Write(w.ip.AsSlice()) // never fails: hash.Hash
	return float64(h.Sum32())
}

// code is the gRPC code that a client of the upstream would have got.
func code(v health.Verdict) codes.Code {
	switch {
	case v.Asked:
		return v.Code
	case v.Status == health.Timeout:
		return codes.DeadlineExceeded
	case v.Status == health.Overloaded:
		return codes.ResourceExhausted
	case v.Status == health.ConnectionFailed:
		return codes.Unavailable
	}
	return codes.Unknown
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
