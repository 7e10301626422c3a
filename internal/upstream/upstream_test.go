package upstream

import (
	"context"
	"crypto/tls"
	"strings"
	"testing"
	"time"

	"example.com/grpc-health-http/internal/check"
	"example.com/grpc-health-http/internal/creds"
	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/internal/settings"
	"example.com/grpc-health-http/test/healthtest"
)

func TestSettingsReachTheUpstream(t *testing.T) {
	t.Parallel()
	ca := healthtest.NewCA(t)
	up := healthtest.Start(t, healthtest.TLS(ca.MutualTLS(t, healthtest.DNSNames("grpc.test"))))
	cert, key := ca.Client(t).WriteFiles(t, t.TempDir(), "client")
	o, err := Options(&settings.Upstream{
		Addr: up.Addr(), Services: []string{""}, ConnectTimeout: 5 * time.Second, RPCTimeout: 5 * time.Second, ConnMaxAge: time.Minute,
		UserAgent: "tester/1", Authority: "authority.test", Gzip: true,
		Headers: []settings.Header{{Name: "x-one", Value: "1"}},
		TLS:     true, CACert: ca.WriteFile(t, t.TempDir(), "ca"), ClientCert: cert, ClientKey: key, ServerName: "grpc.test",
	}, creds.Options{}, func(context.Context) (string, error) { return "a-token", nil })
	if err != nil {
		t.Fatal(err)
	}
	if o.MaxAge != time.Minute || o.ConnectTimeout != 5*time.Second || o.RPCTimeout != 5*time.Second || len(o.Services) != 1 || o.Proxy != nil {
		t.Errorf("options %+v", o)
	}
	c := check.New(o)
	defer c.Close()
	if v := c.Check(t.Context(), ""); v.Status != health.Serving {
		t.Fatalf("%v: %v", v.Status, v.Err)
	}
	call := up.Last()
	if call.Authority != "authority.test" || call.Compression != "gzip" || call.UserAgent[:8] != "tester/1" {
		t.Errorf("the upstream saw %+v", call)
	}
	if got := call.Metadata.Get("x-one"); len(got) != 1 || got[0] != "1" {
		t.Errorf("x-one: %q", got)
	}
	if got := call.Metadata.Get("authorization"); len(got) != 1 || got[0] != "Bearer a-token" {
		t.Errorf("authorization: %q", got)
	}
}

// The reason of a failed handshake comes through to the verdict, also where the server gives it after the handshake (TLS 1.3).
func TestTLSReasonsReachTheVerdict(t *testing.T) {
	t.Parallel()
	ca := healthtest.NewCA(t)
	roots := string(ca.PEM())
	for _, test := range []struct {
		name   string
		server *tls.Config
		roots  string
		want   health.TLSFault
	}{
		{"expired", ca.ServerTLS(t, healthtest.Expired()), roots, health.CertificateExpired},
		{"not yet valid", ca.ServerTLS(t, healthtest.NotYetValid()), roots, health.CertificateNotYetValid},
		{"another name", ca.ServerTLS(t, healthtest.DNSNames("a.example")), roots, health.WrongName},
		{"another authority", ca.ServerTLS(t), string(healthtest.NewCA(t).PEM()), health.UnknownAuthority},
		{"a client certificate is required", ca.MutualTLS(t), roots, health.ClientCertificateRequired},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			up := healthtest.Start(t, healthtest.TLS(test.server))
			o, err := Options(&settings.Upstream{
				Addr: up.Addr(), ConnectTimeout: 10 * time.Second, RPCTimeout: 10 * time.Second, TLS: true, CACert: test.roots,
			}, creds.Options{}, nil)
			if err != nil {
				t.Fatal(err)
			}
			c := check.New(o)
			defer c.Close()
			v := c.Check(t.Context(), "")
			told := v.TLSError()
			if test.want == health.ClientCertificateRequired && told == nil && v.Phase == health.PhaseHTTP2 {
				if !strings.Contains(v.Err.Error(), "and none was sent") { // the server's reset came before its alert
					t.Errorf("cause %v", v.Err)
				}
				return
			}
			if v.Status != health.ConnectionFailed || v.Phase != health.PhaseTLS || told == nil || told.Fault != test.want {
				t.Errorf("%v in phase %s: %v with the reason %+v, want %d", v.Status, v.Phase, v.Err, told, test.want)
			}
		})
	}
}

func TestProxyFromTheEnvironment(t *testing.T) {
	t.Setenv("HTTPS_PROXY", "http://user:secret@proxy.test:3128")
	t.Setenv("NO_PROXY", "direct.test")
	o, err := Options(&settings.Upstream{Addr: "upstream.test:1", UseProxy: true}, creds.Options{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	proxy, err := o.Proxy("upstream.test:1")
	if err != nil || proxy == nil || proxy.Host != "proxy.test:3128" || proxy.User == nil {
		t.Errorf("proxy %v, %v", proxy, err)
	}
	if proxy, err := o.Proxy("direct.test:1"); err != nil || proxy != nil {
		t.Errorf("NO_PROXY: proxy %v, %v", proxy, err)
	}
}

func TestWrongAddress(t *testing.T) {
	t.Parallel()
	if _, err := Options(&settings.Upstream{Addr: "nowhere:"}, creds.Options{}, nil); err == nil {
		t.Error("an address with an empty port was accepted")
	}
}

func TestUnusableProxy(t *testing.T) {
	for _, text := range []string{"http://u:secret@%zz:1", "https://proxy.test:1", "socks5://proxy.test:1", "http://"} {
		t.Setenv("HTTPS_PROXY", text)
		_, err := Options(&settings.Upstream{Addr: "upstream.test:1", UseProxy: true}, creds.Options{}, nil)
		if err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", text, err)
		}
	}
	for _, text := range []string{"proxy.test:3128", "http://proxy.test", ""} {
		t.Setenv("HTTPS_PROXY", text)
		if _, err := Options(&settings.Upstream{Addr: "upstream.test:1", UseProxy: true}, creds.Options{}, nil); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
}
