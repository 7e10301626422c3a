package clients

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"example.com/grpc-health-http/test/healthtest"
	"example.com/grpc-health-http/test/proxytest"
)

// testToken asks a proxy that wants a token. The kubelet and load balancers cannot send one.
func testToken(t *testing.T, p programs) {
	const token = "correct horse battery staple"
	file := filepath.Join(t.TempDir(), "token")
	writeFile(t, file, token+"\n")
	d := deploy(t, p.proxy, states[0], "GRPC_HEALTH_HTTP_AUTH_TOKEN_FILE="+file)

	for _, secure := range []bool{false, true} {
		for name, library := range map[string]*program{"grpc-js": p.node, "grpcio": p.python} {
			q := question{Target: d.at(secure)}
			if secure {
				q.CA = d.ca
			}
			for sent, want := range map[string]codes.Code{"": codes.Unauthenticated, "wrong" + token: codes.Unauthenticated, token: codes.OK} {
				q.Token = sent
				var a answer
				library.ask(t, q, &a)
				if codes.Code(a.Code) != want || want == codes.OK && conclude(t, d, a) != "`OK`, SERVING" {
					t.Errorf("%s with the token %q: got %+v, want %v", title(name, secure), sent, a, want)
				}
			}
		}
		q := question{Target: d.at(secure)}
		if secure {
			q.CA = d.ca
		}
		var a probed
		if p.kubelet.ask(t, q, &a); a.Healthy {
			t.Errorf("%s needs no token: %+v", title("the kubelet's prober", secure), a)
		}
		lb := loadBalancer{d.at(secure), secure}
		for _, path := range []string{albPath, codeOnlyPath(named), checkPath} {
			if code := lb.grpc(t, path, frame(nil)); code != codes.Unauthenticated {
				t.Errorf("%s with %s: got %v, want %v", title("a load balancer", secure), path, code, codes.Unauthenticated)
			}
		}
		if code := lb.http(t, "/"); code != http.StatusUnauthorized {
			t.Errorf("%s: got %d", title("a load balancer over HTTP/2", secure), code)
		}
	}
	for sent, want := range map[string]string{"wrong" + token: "401", token: "200"} {
		plain, _ := curl(t, p.curl, "--header", "Authorization: Bearer "+sent, "--http2-prior-knowledge", "http://"+d.plain)
		secure, _ := curl(t, p.curl, "--user", "health:"+sent, "--http2", "--cacert", d.ca, "https://"+d.secure)
		if plain != want || secure != want {
			t.Errorf("curl with the token %q: got %s, and %s with TLS, want %s", sent, plain, secure, want)
		}
	}
	haproxy, nginx := startHAProxy(t, p.haproxy, d), startNginx(t, p.nginx, d)
	for name, socket := range map[string]string{
		"HAProxy": haproxy.plain, "HAProxy with TLS": haproxy.secure, "nginx": nginx.plain, "nginx with TLS": nginx.secure,
	} {
		for sent, want := range map[string]codes.Code{"wrong" + token: codes.Unauthenticated, token: codes.OK} {
			a := askGo(t, "unix:"+socket, insecure.NewCredentials(), "", "authorization", "Bearer "+sent)
			if codes.Code(a.Code) != want {
				t.Errorf("through %s with the token %q: got %+v, want %v", name, sent, a, want)
			}
		}
	}
	if got, want := haproxy.verdict(t, byGet), "L7STS 401"; got != want {
		t.Errorf("HAProxy's check without a token: got %q, want %q", got, want)
	}
}

// testClientCertificate asks a proxy that wants a client certificate.
func testClientCertificate(t *testing.T, p programs) {
	ca, dir, up := healthtest.NewCA(t), t.TempDir(), healthtest.Start(t)
	caFile := ca.WriteFile(t, dir, "ca")
	cert, key := ca.Server(t).WriteFiles(t, dir, "server")
	client := ca.Client(t)
	clientCert, clientKey := client.WriteFiles(t, dir, "client")
	proxy := proxytest.Start(t, p.proxy, "GRPC_HEALTH_ADDR="+up.Target(), "GRPC_HEALTH_CONNECT_TIMEOUT=30s", "GRPC_HEALTH_RPC_TIMEOUT=30s",
		"GRPC_HEALTH_HTTPS_LISTEN_CERT="+cert, "GRPC_HEALTH_HTTPS_LISTEN_KEY="+key, "GRPC_HEALTH_HTTPS_LISTEN_VERIFY=true", "GRPC_HEALTH_HTTPS_LISTEN_CA="+caFile)
	d := &deployment{state: states[0], secure: address(t, proxy), ca: caFile}

	for name, library := range map[string]*program{"grpc-js": p.node, "grpcio": p.python} {
		q := question{Target: d.secure, CA: d.ca, Seconds: shortly}
		var without, with answer
		library.ask(t, q, &without)
		q.Cert, q.Key, q.Seconds = clientCert, clientKey, 0
		library.ask(t, q, &with)
		if without.Code == 0 || with.Code != 0 || conclude(t, d, with) != "`OK`, SERVING" {
			t.Errorf("%s: got %+v without a client certificate, and %+v with one", name, without, with)
		}
	}
	var a probed
	if p.kubelet.ask(t, question{Target: d.secure, CA: d.ca, Seconds: shortly}, &a); a.Healthy {
		t.Errorf("the kubelet's prober needs no client certificate: %+v", a)
	}
	if got, _ := curl(t, p.curl, "--http2", "--cert", clientCert, "--key", clientKey, "--cacert", d.ca, "https://"+d.secure); got != "200" {
		t.Errorf("curl: got %s", got)
	}
	roots := x509.NewCertPool()
	pem, err := os.ReadFile(caFile)
	if err != nil || !roots.AppendCertsFromPEM(pem) {
		t.Fatalf("%s: %v", caFile, err)
	}
	creds := credentials.NewTLS(&tls.Config{RootCAs: roots, Certificates: []tls.Certificate{client.TLS}})
	if got := conclude(t, d, askGo(t, d.secure, creds, "")); got != "`OK`, SERVING" {
		t.Errorf("grpc-go: got %s", got)
	}
}

// testMutualTLSBehind lets checkers that know no TLS ask about a server that wants a client certificate.
func testMutualTLSBehind(t *testing.T, p programs) {
	ca, dir := healthtest.NewCA(t), t.TempDir()
	up := healthtest.Start(t, healthtest.TLS(ca.MutualTLS(t)))
	cert, key := ca.Client(t).WriteFiles(t, dir, "client")
	settings := []string{
		"GRPC_HEALTH_ADDR=" + up.Target(), "GRPC_HEALTH_CONNECT_TIMEOUT=30s", "GRPC_HEALTH_RPC_TIMEOUT=30s",
		"GRPC_HEALTH_TLS=true", "GRPC_HEALTH_CA_CERT=" + ca.WriteFile(t, dir, "ca"),
	}
	with := append(slices.Clone(settings), "GRPC_HEALTH_CLIENT_CERT="+cert, "GRPC_HEALTH_CLIENT_KEY="+key)
	for _, c := range []struct {
		name, status string
		env          []string
		code         codes.Code
	}{
		{"with a client certificate", "SERVING", with, codes.OK},
		{"without", "CONNECTION_FAILED", settings, codes.Unavailable},
	} {
		target := address(t, proxytest.Start(t, p.proxy, c.env...))
		d := &deployment{state: state{status: c.status}, plain: target}
		for name, library := range map[string]*program{"grpc-js": p.node, "grpcio": p.python} {
			var a answer
			if library.ask(t, question{Target: target}, &a); codes.Code(a.Code) != c.code {
				t.Errorf("%s: %s: got %+v, want %v", c.name, name, a, c.code)
			}
			conclude(t, d, a)
		}
		var a probed
		if p.kubelet.ask(t, question{Target: target}, &a); a.Healthy != (c.code == codes.OK) {
			t.Errorf("%s: the kubelet's prober: got %+v", c.name, a)
		}
		if code := (loadBalancer{target: target}).grpc(t, albPath, frame(nil)); code != c.code {
			t.Errorf("%s: a load balancer: got %v, want %v", c.name, code, c.code)
		}
	}
}

// testMistypedPath asks for a method that there is not. With the default matcher a load balancer takes any such answer for healthy.
func testMistypedPath(t *testing.T, p programs) {
	for _, s := range []string{"SERVING", "CONNECTION_FAILED"} {
		d := deploy(t, p.proxy, stateOf(t, s))
		for _, path := range []string{"/grpc.health.v1.Health/Chek", "/grpc.health.v1.Health/Watch", "/AWS.ALB/healthchek", "/healthz"} {
			for _, secure := range []bool{false, true} {
				code := loadBalancer{d.at(secure), secure}.grpc(t, path, frame(nil))
				if code != codes.Unimplemented || !matches(t, albGRPCMatcher, int(code)) || matches(t, "0", int(code)) {
					t.Errorf("%s: %s: got %v, want %v", s, path, code, codes.Unimplemented)
				}
			}
		}
		// A group of HTTP/2 gets what is at no path of ours.
		if code := (loadBalancer{target: d.plain}).http(t, albPath); code != http.StatusNotFound {
			t.Errorf("%s: GET %s: got %s", s, albPath, strconv.Itoa(code))
		}
	}
}

// stateOf returns the first state with a status.
func stateOf(t *testing.T, status string) state {
	t.Helper()
	for _, s := range states {
		if s.status == status {
			return s
		}
	}
	t.Fatalf("no state is %s", status)
	return state{}
}
