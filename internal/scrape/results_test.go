package scrape_test

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"example.com/grpc-health-http/internal/asker"
	"example.com/grpc-health-http/internal/check"
	"example.com/grpc-health-http/internal/creds"
	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/internal/settings"
	"example.com/grpc-health-http/internal/upstream"
	"example.com/grpc-health-http/test/healthtest"
)

// checked is an upstream that a real Checker checks.
func checked(t *testing.T, name string, s settings.Upstream) *asker.Upstream {
	t.Helper()
	s.ConnectTimeout, s.RPCTimeout = 5*time.Second, 5*time.Second
	o, err := upstream.Options(&s, creds.Options{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	c := check.New(o)
	t.Cleanup(c.Close)
	return &asker.Upstream{Name: name, Budget: 10 * time.Second, Check: func(ctx context.Context, service string) health.Verdict {
		proof := c.Proof(ctx, service)
		v, evidence := proof.Verdict, proof.Evidence
		health.GiveEvidence(ctx, service, evidence)
		return v
	}}
}

// The answer has what is known of the way to the upstream, also after a check that uses a connection that was there already.
func TestWay(t *testing.T) {
	t.Parallel()
	ca := healthtest.NewCA(t)
	config := ca.ServerTLS(t)
	plain, secure := healthtest.Start(t), healthtest.Start(t, healthtest.TLS(config))
	for _, up := range []*healthtest.Upstream{plain, secure} {
		up.SetStatus("", healthpb.HealthCheckResponse_SERVING)
	}
	roots := ca.WriteFile(t, t.TempDir(), "ca")
	h := many(
		checked(t, "plain", settings.Upstream{Addr: plain.Addr(), ConnMaxAge: time.Hour}),
		checked(t, "tls", settings.Upstream{Addr: secure.Target(), TLS: true, CACert: roots, ConnMaxAge: time.Hour}),
		checked(t, "refused", settings.Upstream{Addr: "127.0.0.3:1"}),
		checked(t, "untrusted", settings.Upstream{Addr: secure.Target(), TLS: true, CACert: healthtest.NewCA(t).WriteFile(t, t.TempDir(), "ca")}),
		checked(t, "nowhere", settings.Upstream{Addr: "unix:/nowhere"}),
	)
	leaf := config.Certificates[0].Leaf
	if leaf == nil {
		var err error
		if leaf, err = x509.ParseCertificate(config.Certificates[0].Certificate[0]); err != nil {
			t.Fatal(err)
		}
	}
	fingerprint := sha256.Sum256(leaf.Raw)
	chain := fmt.Sprintf(`probe_ssl_last_chain_info{fingerprint_sha256=%q,issuer=%q,serialnumber=%q,subject=%q,subjectalternative=%q} 1`,
		hex.EncodeToString(fingerprint[:]), leaf.Issuer.String(), fmt.Sprintf("%x", leaf.SerialNumber.Bytes()), leaf.Subject.String(), strings.Join(leaf.DNSNames, ","))
	// Of 127.0.0.1 and 127.0.0.3, as blackbox_exporter has them.
	const here, elsewhere = "probe_ip_addr_hash 3.668918509e+09", "probe_ip_addr_hash 3.635363271e+09"
	expiry := "probe_ssl_earliest_cert_expiry "
	for range 2 { // the second time over the connection of the first
		for name, want := range map[string]struct{ there, missing []string }{
			"plain": {[]string{"probe_success 1", "probe_ip_protocol 4", here, "probe_timeout_seconds 9.5"}, []string{expiry, "probe_tls_version_info", "probe_ssl_last_chain_info"}},
			"tls": {[]string{"probe_success 1", "probe_ip_protocol 4", here, `probe_tls_version_info{version="TLS 1.3"} 1`, chain, "probe_grpc_ssl 1", "probe_timeout_seconds 9.5",
				expiry + fmt.Sprint(float64(first(t, config.Certificates[0].Certificate).Unix()))}, nil},
			"refused":   {[]string{"probe_success 0", "probe_ip_protocol 4", elsewhere, "probe_grpc_status_code 14"}, []string{"probe_tls_version_info"}},
			"untrusted": {[]string{"probe_success 0", "probe_ip_protocol 4", here, "probe_grpc_status_code 14"}, []string{"probe_tls_version_info", "probe_ssl_last_chain_info"}},
			"nowhere":   {[]string{"probe_success 0", "probe_ip_protocol 0", "probe_ip_addr_hash 0", "probe_dns_lookup_time_seconds 0"}, nil},
		} {
			_, _, lines := get(t, h, "GET", "/probe?target="+name, "X-Prometheus-Scrape-Timeout-Seconds", "10")
			for _, sample := range want.there {
				if !slices.Contains(lines, sample) {
					t.Errorf("%s: no %s in\n%s", name, sample, strings.Join(lines, "\n"))
				}
			}
			for _, sample := range want.missing {
				if slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, sample) }) {
					t.Errorf("%s: there is %s in\n%s", name, sample, strings.Join(lines, "\n"))
				}
			}
		}
	}
	if n := plain.Connections(); n != 1 {
		t.Errorf("%d connections for two probes", n)
	}
}

// first is when the first certificate of a chain ends.
func first(t *testing.T, chain [][]byte) (ends time.Time) {
	t.Helper()
	for _, der := range chain {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		if ends.IsZero() || c.NotAfter.Before(ends) {
			ends = c.NotAfter
		}
	}
	return ends
}

// The answer has what a check found out, with the names and values of blackbox_exporter: of the first certificate to end, of IPv6, of a name's lookup; and a
// certificate's text is safe to read.
func TestEvidence(t *testing.T) {
	t.Parallel()
	at := time.Unix(1800000000, 0)
	odd := &x509.Certificate{NotAfter: at.Add(time.Hour), SerialNumber: big.NewInt(255), DNSNames: []string{"a", "b\u202e"}}
	state := &tls.ConnectionState{Version: tls.VersionTLS12, PeerCertificates: []*x509.Certificate{odd, {NotAfter: at}}}
	for name, row := range map[string]struct {
		attempts []health.Attempt
		want     []string
	}{
		"IPv6":         {[]health.Attempt{{Peer: &health.Peer{Address: "[2001:db8::1%eth0]:443"}}}, []string{"probe_ip_protocol 6"}},
		"IPv4 in IPv6": {[]health.Attempt{{Peer: &health.Peer{Address: "[::ffff:127.0.0.1]:443"}}}, []string{"probe_ip_protocol 4", "probe_ip_addr_hash 3.668918509e+09"}},
		"the last attempt decides": {[]health.Attempt{{Peer: &health.Peer{Address: "[::1]:1"}}, {Dial: health.Dial{Lookup: time.Second / 8}, Peer: &health.Peer{Address: "127.0.0.1:1"}}},
			[]string{"probe_ip_protocol 4", "probe_dns_lookup_time_seconds 0.125", `probe_grpc_duration_seconds{phase="resolve"} 0.125`, `probe_grpc_duration_seconds{phase="check"} 0.375`}},
		"a chain": {[]health.Attempt{{Peer: &health.Peer{Address: "127.0.0.1:1", TLS: state}}}, []string{
			"probe_ssl_earliest_cert_expiry 1.8e+09", `probe_tls_version_info{version="TLS 1.2"} 1`,
			`probe_ssl_last_chain_info{fingerprint_sha256="e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",issuer="",serialnumber="ff",subject="",subjectalternative="a,b\\u202e"} 1`}},
		"a proxy": {[]health.Attempt{{Peer: &health.Peer{Address: "up.test:443 by way of proxy.test:80"}}}, []string{"probe_ip_protocol 0"}},
		"nothing": {nil, []string{"probe_ssl_earliest_cert_expiry 1.7999964e+09", "probe_ip_protocol 0", "probe_dns_lookup_time_seconds 0"}},
	} {
		// Another check has seen another certificate: it counts where this one has seen none.
		seen := func() time.Time { return at.Add(-time.Hour) }
		h := many(&asker.Upstream{Name: "a", CertificateEnds: seen, Check: func(ctx context.Context, service string) health.Verdict {
			health.GiveEvidence(ctx, service, health.Evidence{Attempts: row.attempts})
			return health.Verdict{Status: health.Serving, Asked: true, Duration: time.Second / 2}
		}})
		_, _, lines := get(t, h, "GET", "/probe")
		for _, sample := range row.want {
			if !slices.Contains(lines, sample) {
				t.Errorf("%s: no %s in\n%s", name, sample, strings.Join(lines, "\n"))
			}
		}
	}
}
