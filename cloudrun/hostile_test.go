package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"example.com/grpc-health-http/test/healthtest"
)

// raw sends bytes over a connection of its own, and returns all that comes back: until its end, or until
// nothing has followed that many answers for a moment.
func (p *process) raw(request string, answers int) string {
	p.t.Helper()
	c := p.dial()
	defer c.Close()
	go func() {
		// An error says that the proxy has closed the connection before it had read everything.
		_, _ = io.WriteString(c, request)
	}()
	var got []byte
	for buffer := make([]byte, 64<<10); ; {
		wait := patience
		if len(statuses(string(got))) >= answers {
			wait = 100 * time.Millisecond
		}
		_ = c.SetReadDeadline(time.Now().Add(wait))
		n, err := c.Read(buffer)
		got = append(got, buffer[:n]...)
		if err != nil { // the end, a reset, for there were bytes left, or the deadline
			p.discreet("answer", string(got))
			return string(got)
		}
	}
}

// statuses are the codes of the answers in what came over a connection.
func statuses(answers string) []string {
	var codes []string
	for line := range strings.Lines(answers) {
		if rest, ok := strings.CutPrefix(line, "HTTP/1.1 "); ok {
			codes = append(codes, rest[:3])
		} else if rest, ok := strings.CutPrefix(line, "HTTP/1.0 "); ok {
			codes = append(codes, rest[:3])
		}
	}
	return codes
}

// refused is what becomes of a request that net/http does not take for one, with whichever of the refusals.
const refused = "refused"

var refusals = []string{"400", "417", "431", "501", "505"}

// Requests that one server could read otherwise than the next one, and those that are none: each gets
// one answer at most, and no byte behind its end is taken for a request. (/livez, hidden in
// bodies here, would answer "ok".)
func TestRequestShapes(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	elsewhere, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { elsewhere.Close() }) // when all shapes were tried, which is later than this function's end
	go func() {
		if conn, err := elsewhere.Accept(); err == nil {
			conn.Close()
			t.Error("a request made the proxy connect to what it named")
		}
	}()
	p := start(t, nil, "-grpc-addr="+up.Addr(), "-log-level=debug")

	const host, hidden = "Host: test\r\n", "GET /livez HTTP/1.1\r\nHost: test\r\n\r\n"
	chunked := fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(hidden), hidden)
	post := "POST / HTTP/1.1\r\n" + host
	for name, test := range map[string]struct {
		request string
		want    string // the statuses, or refused
	}{
		// Bodies: GET / does not read one, and ends the connection.
		"length":                          {"GET / HTTP/1.1\r\n" + host + fmt.Sprintf("Content-Length: %d\r\n\r\n", len(hidden)) + hidden, "200"},
		"length and chunks":               {post + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked + hidden, "405"},
		"chunks and length":               {post + "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n" + chunked + hidden, "405"},
		"two lengths":                     {post + "Content-Length: 0\r\nContent-Length: 4\r\n\r\n" + hidden, refused},
		"the same length twice":           {post + "Content-Length: 4\r\nContent-Length: 4\r\n\r\n" + hidden, "405"},
		"a list of lengths":               {post + "Content-Length: 4, 4\r\n\r\n" + hidden, refused},
		"negative length":                 {post + "Content-Length: -1\r\n\r\n" + hidden, refused},
		"signed length":                   {post + "Content-Length: +4\r\n\r\n" + hidden, refused},
		"a length that overflows":         {post + "Content-Length: 18446744073709551617\r\n\r\n" + hidden, refused},
		"a large length":                  {post + "Content-Length: 1099511627776\r\n\r\n" + hidden, "405"},
		"chunked and something else":      {post + "Transfer-Encoding: chunked, identity\r\n\r\n" + chunked, refused},
		"something like chunked":          {post + "Transfer-Encoding: xchunked\r\nContent-Length: 4\r\n\r\n" + hidden, refused},
		"two encodings":                   {post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n" + chunked, refused},
		"encoding behind a space":         {post + "Transfer-Encoding : chunked\r\n\r\n" + chunked, refused},
		"encoding behind a tab":           {post + "Transfer-Encoding:\tchunked\r\n\r\n" + chunked + hidden, "405"},
		"encoding behind a vertical tab":  {post + "Transfer-Encoding: \vchunked\r\n\r\n" + chunked, refused},
		"encoding in HTTP/1.0":            {"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked + hidden, "405"},
		"chunk size with a sign":          {post + "Transfer-Encoding: chunked\r\n\r\n-1\r\n" + hidden, "405"},
		"chunk size that overflows":       {post + "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n" + hidden, "405"},
		"no chunk size":                   {post + "Transfer-Encoding: chunked\r\n\r\n\r\n" + hidden, "405"},
		"chunk without its end":           {post + "Transfer-Encoding: chunked\r\n\r\n1\r\nxx" + hidden, "405"},
		"chunk with an extension":         {post + "Transfer-Encoding: chunked\r\n\r\n0;a=\"\r\n" + hidden, "405"},
		"a promise of a body":             {post + "Content-Length: 4\r\nExpect: 100-continue\r\n\r\n", "405"},
		"another expectation":             {post + "Content-Length: 4\r\nExpect: money\r\n\r\n" + hidden, refused},
		"a trailer that is a header":      {post + "Transfer-Encoding: chunked\r\nTrailer: Content-Length\r\n\r\n0\r\nContent-Length: 4\r\n\r\n" + hidden, refused},
		"two requests in one packet":      {"GET / HTTP/1.1\r\n" + host + "\r\n" + "GET /nowhere HTTP/1.1\r\n" + host + "\r\n", "200 404"},
		"a length in a request of no use": {"GET /nowhere HTTP/1.1\r\n" + host + "Content-Length: 4\r\n\r\n" + hidden, "404"},

		// Lines.
		"folded line":                {"GET / HTTP/1.1\r\n" + host + "X-A: b\r\n Content-Length: 4\r\n\r\n", "200"},
		"folded first line":          {"GET / HTTP/1.1\r\n " + host + "\r\n", refused},
		"bare line feeds":            {"GET / HTTP/1.1\nHost: test\n\n", "200"},
		"bare carriage return":       {"GET / HTTP/1.1\r\n" + host + "X-A: b\rContent-Length: 4\r\n\r\n", refused},
		"null byte in the target":    {"GET /\x00 HTTP/1.1\r\n" + host + "\r\n", refused},
		"null byte in a name":        {"GET / HTTP/1.1\r\n" + host + "X\x00: a\r\n\r\n", refused},
		"null byte in a value":       {"GET / HTTP/1.1\r\n" + host + "X-A: \x00\r\n\r\n", refused},
		"null byte in the method":    {"G\x00T / HTTP/1.1\r\n" + host + "\r\n", refused},
		"empty name":                 {"GET / HTTP/1.1\r\n" + host + ": a\r\n\r\n", refused},
		"no colon":                   {"GET / HTTP/1.1\r\n" + host + "X-A\r\n\r\n", refused},
		"no host":                    {"GET / HTTP/1.1\r\n\r\n", refused},
		"two hosts":                  {"GET / HTTP/1.1\r\n" + host + host + "\r\n", refused},
		"a host with a slash":        {"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", refused},
		"an encoded line break":      {"GET /%0d%0aX-A:%20b HTTP/1.1\r\n" + host + "\r\n", "404"},
		"a line break in the query":  {"GET /?service=%0d%0aX-A:%20b HTTP/1.1\r\n" + host + "\r\n", "400"},
		"an upgrade to HTTP/2":       {"GET / HTTP/1.1\r\n" + host + "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n", "200"},
		"an upgrade to WebSocket":    {"GET / HTTP/1.1\r\n" + host + "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n", "200"},
		"hop-by-hop headers":         {"GET / HTTP/1.1\r\n" + host + "Connection: close, Authorization\r\n\r\n", "200"},
		"a method that is forwarded": {"GET / HTTP/1.1\r\n" + host + "X-HTTP-Method-Override: POST\r\nX-Forwarded-Host: " + elsewhere.Addr().String() + "\r\n\r\n", "200"},

		// Targets and versions.
		"absolute form":          {"GET http://" + elsewhere.Addr().String() + "/ HTTP/1.1\r\n" + host + "\r\n", "200"},
		"another scheme":         {"GET file:///etc/passwd HTTP/1.1\r\n" + host + "\r\n", "404"},
		"authority form":         {"CONNECT " + elsewhere.Addr().String() + " HTTP/1.1\r\n" + host + "\r\n", "404"},
		"authority form of GET":  {"GET " + elsewhere.Addr().String() + " HTTP/1.1\r\n" + host + "\r\n", refused},
		"asterisk form":          {"OPTIONS * HTTP/1.1\r\n" + host + "\r\n", "405"},
		"asterisk form of GET":   {"GET * HTTP/1.1\r\n" + host + "\r\n", "404"},
		"a path without a slash": {"GET livez HTTP/1.1\r\n" + host + "\r\n", refused},
		"two slashes":            {"GET // HTTP/1.1\r\n" + host + "\r\n", "404"},
		"dots":                   {"GET /../ HTTP/1.1\r\n" + host + "\r\n", "404"},
		"an encoded slash":       {"GET /%2e%2e%2f HTTP/1.1\r\n" + host + "\r\n", "404"},
		"a bad escape":           {"GET /%zz HTTP/1.1\r\n" + host + "\r\n", refused},
		"a fragment":             {"GET /#x HTTP/1.1\r\n" + host + "\r\n", "404"},
		"a space in the target":  {"GET / / HTTP/1.1\r\n" + host + "\r\n", refused},
		"an address in a query":  {"GET /?grpc-addr=" + elsewhere.Addr().String() + "&GRPC_HEALTH_ADDR=" + elsewhere.Addr().String() + " HTTP/1.1\r\n" + host + "\r\n", "200"},
		"TRACE":                  {"TRACE / HTTP/1.1\r\n" + host + "X-A: reflected\r\n\r\n", "405"},
		"a method in small":      {"get / HTTP/1.1\r\n" + host + "\r\n", "405"},
		"HTTP/1.0":               {"GET / HTTP/1.0\r\n\r\n", "200"},
		"HTTP/1.0, kept":         {"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET / HTTP/1.0\r\n\r\n", "200 200"},
		"HTTP/0.9":               {"GET /\r\n", refused},
		"HTTP/1.2":               {"GET / HTTP/1.2\r\n" + host + "\r\n", "200"},
		"HTTP/3":                 {"GET / HTTP/3.0\r\n" + host + "\r\n", refused},
		"no version":             {"GET / HTTP\r\n" + host + "\r\n", refused},
		"TLS":                    {"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03\r\n\r\n", refused},
		"SSH":                    {"SSH-2.0-OpenSSH_9.9\r\n\r\n", refused},

		// Sizes.
		"long target":       {"GET /?x=" + strings.Repeat("a", 32<<10) + " HTTP/1.1\r\n" + host + "\r\n", refused},
		"long header":       {"GET / HTTP/1.1\r\n" + host + "X-A: " + strings.Repeat("a", 32<<10) + "\r\n\r\n", refused},
		"many headers":      {"GET / HTTP/1.1\r\n" + host + strings.Repeat("X-A: b\r\n", 8<<10) + "\r\n", refused},
		"many services":     {"GET /?" + strings.Repeat("service&", 101) + " HTTP/1.1\r\n" + host + "\r\n", "400"},
		"a long name":       {"GET /?service=" + strings.Repeat("a", 256) + " HTTP/1.1\r\n" + host + "\r\n", "400"},
		"a long token":      {"GET / HTTP/1.1\r\n" + host + "Authorization: Bearer " + strings.Repeat("a", 8<<10) + "\r\n\r\n", "200"},
		"a long Accept":     {"GET / HTTP/1.1\r\n" + host + "Accept: " + strings.Repeat("a/b;q=0.1,", 1000) + "\r\n\r\n", "200"},
		"a long method":     {strings.Repeat("A", 8<<10) + " / HTTP/1.1\r\n" + host + "\r\n", "405"},
		"a body of 1 MiB":   {post + "Content-Length: 1048576\r\n\r\n" + strings.Repeat(hidden, 1<<20/len(hidden)), "405"},
		"a chunk of 1 MiB":  {post + "Transfer-Encoding: chunked\r\n\r\n100000\r\n" + strings.Repeat(hidden, 1<<20/len(hidden)), "405"},
		"nothing but lines": {strings.Repeat("\r\n", 100), refused},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			answers := p.raw(test.request, len(strings.Fields(test.want)))
			got := strings.Join(statuses(answers), " ")
			if test.want == refused && slices.Contains(refusals, got) {
				got = refused
			}
			if got != test.want {
				t.Errorf("statuses %q, want %q:\n%s", got, test.want, tail(answers))
			}
			if strings.Contains(answers, "\r\n\r\nok\n") {
				t.Errorf("what a request hid was taken for a request:\n%s", tail(answers))
			}
			for _, word := range []string{"100 Continue", "101 Switching", "reflected", "X-A:"} {
				if strings.Contains(answers, word) {
					t.Errorf("the answer has %q:\n%s", word, tail(answers))
				}
			}
		})
	}
}

// Neither port has anything but its own paths: no directory, no profile, no variable.
func TestNothingElseIsServed(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	p := start(t, nil, "-grpc-addr="+up.Addr(), "-http-listen-path=/health")
	paths := []string{
		"/", "/index.html", "/health/", "/health/..", "/Health", "/metrics/", "/livez/", "/healthz", "/readyz", "/-/reload", "/-/quit",
		"/debug", "/debug/", "/debug/vars", "/debug/pprof", "/debug/pprof/", "/debug/pprof/cmdline", "/debug/pprof/profile",
		"/debug/pprof/goroutine?debug=2", "/debug/requests", "/debug/events", "/debug/rpcz", "/debug/tracez", "/trace",
		"/config", "/env", "/version", "/status", "/admin", "/graph", "/api/v1/query", "/grpc.health.v1.Health/Check",
		"/.git/config", "/.env", "/etc/passwd", "/proc/self/environ", "/static/", "/favicon.ico", "/robots.txt", "/.well-known/security.txt",
	}
	for port, only := range map[string][]string{p.health: {"/health", "/livez"}, p.metrics: {"/", "/metrics", "/livez"}} {
		for _, path := range append(paths, "/health", "/metrics", "/livez") {
			c, err := p.connect(port, nil)
			if err != nil {
				t.Fatal(err)
			}
			r, err := c.get(path)
			c.Close()
			want := http.StatusNotFound
			if slices.Contains(only, path) {
				want = http.StatusOK
			}
			if err != nil || r.code != want {
				t.Errorf("%s: %+v, %v, want %d", path, r, err, want)
			} else if r.header.Get("Cache-Control") != "no-store" || r.header.Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("%s: headers %v", path, r.header)
			}
		}
	}
	if n := up.RPCs(); n != 1 {
		t.Errorf("%d RPCs, want that of /health alone", n)
	}
}

// What HTTP/2 allows to be written, and HTTP/1.1 does not, becomes no other request: it is refused, or
// it is one answer.
func TestRequestShapesHTTP2(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	ca := healthtest.NewCA(t)
	cert, key := ca.Server(t).WriteFiles(t, t.TempDir(), "listener")
	p := start(t, nil, "-grpc-addr="+up.Addr(), "-https-listen-cert="+cert, "-https-listen-key="+key)
	tlsConfig := &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost", NextProtos: []string{"h2"}}

	usual := []string{":method", "GET", ":scheme", "https", ":authority", "test", ":path", "/"}
	with := func(fields ...string) []string { return append(slices.Clone(usual), fields...) }
	path := func(path string) []string {
		return []string{":method", "GET", ":scheme", "https", ":authority", "test", ":path", path}
	}
	for name, test := range map[string]struct {
		fields []string
		want   string
	}{
		"usual":                    {usual, "200"},
		"no path":                  {usual[:6], refused},
		"empty path":               {path(""), refused},
		"no method":                {usual[2:], refused},
		"no scheme":                {[]string{":method", "GET", ":authority", "test", ":path", "/"}, refused},
		"two methods":              {with(":method", "POST"), refused},
		"two paths":                {with(":path", "/livez"), refused},
		"unknown pseudo-header":    {append([]string{":protocol", "websocket"}, usual...), refused},
		"a pseudo-header of ours":  {append([]string{":status", "200"}, usual...), refused},
		"pseudo-header at the end": {[]string{":method", "GET", ":scheme", "https", "x-a", "b", ":authority", "test", ":path", "/"}, refused},
		"capital letters":          {with("X-A", "b"), refused},
		"connection":               {with("connection", "close"), refused},
		"transfer-encoding":        {with("transfer-encoding", "chunked"), refused},
		"te":                       {with("te", "gzip"), refused},
		"line break in a value":    {with("x-a", "b\r\nx-c: d"), refused},
		"null byte in a value":     {with("x-a", "\x00"), refused},
		"line break in a name":     {with("x-a\r\nx-b", "c"), refused},
		"line break in the path":   {path("/ HTTP/1.1\r\nHost: a\r\n\r\nGET /livez"), refused},
		"null byte in the path":    {path("/\x00"), refused},
		"space in the method":      {[]string{":method", "GET /livez", ":scheme", "https", ":authority", "test", ":path", "/"}, "405"},
		"path without a slash":     {path("livez"), refused},
		"asterisk":                 {path("*"), "404"},
		"absolute form":            {path("https://test/"), "200"},
		"another host":             {with("host", "elsewhere"), "200"},
		"a length without a body":  {with("content-length", "4"), "200"},
		"CONNECT":                  {[]string{":method", "CONNECT", ":authority", "test:443"}, "404"},
		"long headers":             {with("x-a", strings.Repeat("a", 64<<10)), refused},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := p.connect(p.health, tlsConfig)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if got := askHTTP2(t, c, test.fields); got != test.want {
				t.Errorf("%s, want %s", got, test.want)
			}
		})
	}
}

// askHTTP2 sends header fields as the one request of a connection, and returns the answer's status, or
// refused where it, or the connection, was.
func askHTTP2(t *testing.T, conn net.Conn, fields []string) string {
	t.Helper()
	var block strings.Builder
	encoder := hpack.NewEncoder(&block)
	for i := 0; i < len(fields); i += 2 {
		if err := encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}); err != nil {
			t.Fatal(err)
		}
	}
	framer := http2.NewFramer(conn, conn)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	framer.AllowIllegalWrites = true
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	if err := framer.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	// Errors from here on say that the proxy has closed the connection.
	rest := block.String()
	for first := true; first || rest != ""; first = false {
		part := rest[:min(len(rest), 16<<10)]
		rest = rest[len(part):]
		if first {
			_ = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte(part), EndStream: true, EndHeaders: rest == ""})
		} else {
			_ = framer.WriteContinuation(1, rest == "", []byte(part))
		}
	}
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			return refused
		}
		switch frame := frame.(type) {
		case *http2.MetaHeadersFrame:
			if code := frame.PseudoValue("status"); !slices.Contains(refusals, code) {
				return code
			}
			return refused
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			return refused
		}
	}
}

// Callers who reset each request as soon as it was sent (HTTP/2 rapid reset) cost the upstream no more RPCs at once than callers who
// wait, although it continues with an RPC that was cancelled; and who asks beside them is answered.
func TestResetRequestsHTTP2(t *testing.T) {
	t.Parallel()
	const slow = 300 * time.Millisecond
	up := healthtest.Start(t)
	up.SetStatus("s", healthpb.HealthCheckResponse_SERVING)
	var now, most, all atomic.Int64
	up.Handle("s", func(context.Context, string) (*healthpb.HealthCheckResponse, error) {
		all.Add(1)
		for n := now.Add(1); n > most.Load(); {
			most.Store(n)
		}
		defer now.Add(-1)
		time.Sleep(slow)
		return &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVING}, nil
	})
	ca := healthtest.NewCA(t)
	cert, key := ca.Server(t).WriteFiles(t, t.TempDir(), "listener")
	p := start(t, nil, "-grpc-addr="+up.Addr(), "-service-name=s", "-https-listen-cert="+cert, "-https-listen-key="+key)
	tlsConfig := &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost", NextProtos: []string{"h2"}}
	var block strings.Builder
	encoder := hpack.NewEncoder(&block)
	for _, f := range [][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", "test"}, {":path", "/"}} {
		if err := encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}); err != nil {
			t.Fatal(err)
		}
	}
	var callers sync.WaitGroup
	end := time.Now().Add(2 * time.Second)
	for range 4 {
		callers.Go(func() {
			for time.Now().Before(end) { // net/http ends a connection with too many resets
				conn, err := tls.Dial("tcp", p.health, tlsConfig)
				if err != nil {
					t.Error(err)
					return
				}
				go io.Copy(io.Discard, conn)
				framer := http2.NewFramer(conn, conn)
				_, err = io.WriteString(conn, http2.ClientPreface)
				err = errors.Join(err, framer.WriteSettings())
				encoded := []byte(block.String())
				for stream := uint32(1); err == nil && time.Now().Before(end) && stream < 2000; stream += 2 {
					err = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: encoded, EndStream: true, EndHeaders: true})
					time.Sleep(time.Millisecond)
					err = errors.Join(err, framer.WriteRSTStream(stream, http2.ErrCodeCancel))
				}
				conn.Close()
			}
		})
	}
	asked := 0
	for ; time.Now().Before(end); asked++ {
		c, err := p.connect(p.health, &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost"})
		if err != nil {
			t.Fatal(err)
		}
		if r, err := c.get("/"); err != nil || r.code != http.StatusOK {
			t.Errorf("beside the resets: %+v, %v", r, err)
		}
		c.Close()
	}
	callers.Wait()
	t.Logf("%d RPCs, %d of them at once, %d answers beside the resets", all.Load(), most.Load(), asked)
	if n := most.Load(); n > 8 {
		t.Errorf("%d RPCs at once", n)
	}
}

// Forty callers who close their side behind the request, as "nc -N" does, get the verdict; and forty who close all leave nothing behind.
func TestCallersWhoCloseTheirSide(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	up.SetDelay("", 100*time.Millisecond)
	p := start(t, nil, "-grpc-addr="+up.Addr())
	var callers sync.WaitGroup
	ask := func(stays bool) {
		c, err := net.Dial("tcp", p.health)
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: test\r\n\r\n")
		if !stays {
			return
		}
		if err := c.(*net.TCPConn).CloseWrite(); err != nil {
			t.Error(err)
		}
		if answer, err := io.ReadAll(c); err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 200 OK\r\n") {
			t.Errorf("%q, %v", answer, err)
		}
	}
	for range 40 {
		callers.Go(func() { ask(true) })
		callers.Go(func() { ask(false) })
	}
	callers.Wait()
	eventually(t, "no RPC is left", func() bool { return up.InFlight() == 0 })
}
