package app

import (
	"io"
	"net"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"example.com/grpc-health-http/internal/settings"
	"example.com/grpc-health-http/test/healthtest"
)

// two starts upstreams on 127.0.0.2 and 127.0.0.3, on one port, and a name server that knows both.
func two(t *testing.T) (up []*healthtest.Upstream, names *healthtest.NameServer, port string) {
	t.Helper()
	hosts := []string{"127.0.0.2", "127.0.0.3"}
	for range 100 {
		first, err := net.Listen("tcp", hosts[0]+":0")
		if err != nil {
			t.Fatal(err)
		}
		_, port, _ = net.SplitHostPort(first.Addr().String())
		second, err := net.Listen("tcp", net.JoinHostPort(hosts[1], port))
		first.Close()
		if err != nil {
			continue
		}
		second.Close()
		for _, host := range hosts {
			up = append(up, healthtest.Start(t, healthtest.Listen("tcp", net.JoinHostPort(host, port))))
		}
		return up, healthtest.StartNameServer(t, hosts...), port
	}
	t.Fatal("no port is free on both addresses")
	return nil, nil, ""
}

// Log, JSON and page name each address. Callers see addresses only where they may see causes.
func TestEachAddressIsTold(t *testing.T) {
	t.Parallel()
	up, names, port := two(t)
	down := "127.0.0.3:" + port
	s := settings.Settings{Upstream: settings.Upstream{
		Addr: names.Target(port), Services: []string{"s"}, ConnectTimeout: time.Second, RPCTimeout: time.Second, AllAddresses: true,
	}}
	up[0].SetStatus("s", healthpb.HealthCheckResponse_SERVING)
	up[1].SetStatus("s", healthpb.HealthCheckResponse_NOT_SERVING)
	ask := func(a *App, query string) (int, string) {
		w := httptest.NewRecorder()
		a.Handler.ServeHTTP(w, httptest.NewRequest("GET", query, nil))
		body, _ := io.ReadAll(w.Result().Body)
		return w.Code, string(body)
	}
	closed, log := newApp(t, s, Platform{})
	for query, want := range map[string]string{"/": "s NOT_SERVING\n", "/?format=json": `"status":"NOT_SERVING"`, "/?format=html": "1 of 2 addresses is serving. The server answers, and says that it is not serving."} {
		code, body := ask(closed, query)
		if code != 503 || !strings.Contains(body, want) || strings.Contains(body, "127.0.0.") || strings.Contains(body, `"addresses":`) {
			t.Errorf("%s: %d %s", query, code, body)
		}
	}
	said := `msg="s NOT_SERVING: 1 of 2 addresses is not serving: ` + down + ` NOT_SERVING"`
	each := `addresses="[` + down + ` NOT_SERVING 127.0.0.2:` + port + ` SERVING]" attempts="[` + down + ": dial "
	if !strings.Contains(log.String(), said) || !strings.Contains(log.String(), each) {
		t.Errorf("log:\n%s\nwant %s and %s", log, said, each)
	}
	s.ShowCause = true
	open, _ := newApp(t, s, Platform{})
	if code, body := ask(open, "/"); code != 503 || body != "s NOT_SERVING\n" {
		t.Errorf("text: %d %q", code, body)
	}
	_, body := ask(open, "/?format=json")
	for _, want := range []string{
		`"addresses":[{"address":"` + down + `","status":"NOT_SERVING","grpc_code":"OK","phase":"","duration_seconds":0.`,
		`},{"address":"127.0.0.2:` + port + `","status":"SERVING","grpc_code":"OK","phase":"","duration_seconds":0.`, `"addresses_needed":2}`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("JSON %s, want %s", body, want)
		}
	}
	if _, body := ask(open, "/?format=html"); !strings.Contains(body, `<dd id="addresses"><bdi>`+down+` NOT_SERVING</bdi><br><bdi>127.0.0.2:`+port+` SERVING</bdi></dd>`) {
		t.Errorf("page %s", body[strings.Index(body, "<dl>"):])
	}
}

// That enough addresses serve hides none that does not: the log says so when it changes.
func TestDegradedIsLogged(t *testing.T) {
	t.Parallel()
	up, names, port := two(t)
	a, log := newApp(t, settings.Settings{Upstream: settings.Upstream{
		Addr: names.Target(port), ConnectTimeout: time.Second, RPCTimeout: time.Second, AllAddresses: true, MinHealthyAddresses: "50%",
	}}, Platform{})
	check := func(want string) {
		t.Helper()
		for range 3 {
			if r := get(t, a.Handler, "/", ""); r.StatusCode != 200 {
				t.Errorf("status %d", r.StatusCode)
			}
		}
		if n := strings.Count(log.String(), "\n"); want == "" && n > 0 || want != "" && (n != 1 || !strings.Contains(log.String(), want)) {
			t.Errorf("log %s, want a line with %s", log, want)
		}
		log.Reset()
	}
	check("")
	up[1].Stop()
	check(`level=WARN msg="(server) SERVING: 1 of 2 addresses is serving; 1 must be." upstream=`)
	check("")
	up[1].Restart()
	check(`level=INFO msg="(server) SERVING: 2 of 2 addresses are serving; 1 must be." upstream=`)
	check("")
}

// Targets that become addresses, and such that are no more, leave no connection.
func TestAllAddressesIsATargetsOwn(t *testing.T) {
	t.Parallel()
	up, names, port := two(t)
	s := settings.Upstream{Addr: names.Target(port), ConnectTimeout: time.Second, RPCTimeout: time.Second, ConnMaxAge: time.Minute}
	a, _ := newApp(t, settings.Settings{Upstream: s}, Platform{})
	check := func(most int) {
		t.Helper()
		if r := get(t, a.Handler, "/", ""); r.StatusCode != 200 {
			t.Errorf("status %d", r.StatusCode)
		}
		healthtest.Eventually(t, "as many connections as there should be", func() bool { return up[0].OpenConnections()+up[1].OpenConnections() == most })
	}
	check(1)
	s.AllAddresses = true
	if err := a.SetTargets([]settings.Target{{Upstream: s}}); err != nil {
		t.Fatal(err)
	}
	check(2)
	s.AllAddresses = false
	if err := a.SetTargets([]settings.Target{{Upstream: s}}); err != nil {
		t.Fatal(err)
	}
	check(1)
}
