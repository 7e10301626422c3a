package upstream

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"example.com/grpc-health-http/internal/check"
	"example.com/grpc-health-http/internal/creds"
	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/internal/settings"
	"example.com/grpc-health-http/test/healthtest"
)

// told is what a check says of a failure, in the verdict and in the evidence.
func told(t *testing.T, s settings.Upstream, token func(context.Context) (string, error)) string {
	t.Helper()
	s.ConnectTimeout, s.RPCTimeout = 10*time.Second, 10*time.Second
	o, err := Options(&s, creds.Options{}, token)
	if err != nil {
		t.Fatal(err)
	}
	var text string
	o.Trace = &health.Trace{Verdict: func(_ context.Context, v health.Verdict, e health.Evidence) (time.Time, string) {
		text += fmt.Sprint(v.Err, e.Lines())
		return time.Time{}, ""
	}}
	c := check.New(o)
	defer c.Close()
	v := c.Check(t.Context(), "quoting")
	if v.Err == nil {
		t.Fatalf("%v", v.Status)
	}
	return v.Err.Error() + text
}

// Servers quote what they were sent, in many ways.
func TestWhatWasSentIsNotTold(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	up.Handle("quoting", func(ctx context.Context, _ string) (*healthpb.HealthCheckResponse, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		all, authorization := map[string][]string(md), md.Get("authorization") // an MD itself prints no values
		return nil, status.Errorf(codes.Unauthenticated, "refused %v %q adr-passw0rd %d", all, all, len(authorization))
	})
	got := told(t, settings.Upstream{Addr: "passthrough://user:adr-passw0rd@ignored/" + up.Addr(), Headers: []settings.Header{
		{Name: "authorization", Value: "Bearer t0ken-of-ours"}, {Name: "x-key", Value: "t0ken-of"}, {Name: "x-pair-bin", Value: "\x00\x01s3cret\"bin"}, {Name: "x-short", Value: "abc"},
	}}, func(context.Context) (string, error) { return "id.t0ken.signature", nil })
	for _, secret := range []string{"t0ken", "-ours", "passw0rd", "s3cret", "signature"} {
		if strings.Contains(got, secret) {
			t.Errorf("%q in %s", secret, got)
		}
	}
	if !strings.Contains(got, "abc") || !strings.Contains(got, "refused") {
		t.Errorf("told %s", got)
	}
}

// A secret across the place where a message is cut leaves no part.
func TestNoPartOfASecretIsTold(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	up.Handle("quoting", func(ctx context.Context, _ string) (*healthpb.HealthCheckResponse, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		before, err := strconv.Atoi(md.Get("before")[0])
		if err != nil {
			return nil, err
		}
		return nil, status.Error(codes.Internal, strings.Repeat("\n", before/2)+strings.Repeat("z", before%2)+md.Get("x-key")[0]+strings.Repeat("y", 1000))
	})
	for before := 900; before < 1030; before++ {
		got := told(t, settings.Upstream{Addr: up.Addr(), Headers: []settings.Header{
			{Name: "before", Value: strconv.Itoa(before)}, {Name: "x-key", Value: "s3cret-key-of-ours"},
		}}, nil)
		if strings.Contains(got, "s3") || !strings.Contains(got, "cut") {
			t.Fatalf("%d before: %s", before, got)
		}
	}
}

// An HTTP proxy knows the password that it gets, and can say it in place of an answer, or of the server behind it: also so that
// a message that quotes some of that would end within the password.
func TestAProxysPasswordIsNotTold(t *testing.T) { // not parallel: it sets a variable
	const decoded, pair = "pa$sw0rd/of:ours", "prober:pa$sw0rd/of:ours"
	answers := []string{
		decoded + "\r\n\r\n", "HTTP/1.1 " + decoded + "\r\n\r\n", decoded + " 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\n" + decoded + "\r\n\r\n", "HTTP/1.1 200 OK\r\nX" + decoded + "é: 1\r\n\r\n",
		strings.Repeat(pair, 100000),
		"HTTP/1.1 200 OK\r\nContent-Length: " + pair + "\r\n\r\n", "HTTP/1.1 407 " + decoded + "\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: " + decoded + "\r\n\r\n",
	}
	for before := 35; before < 66; before++ {
		answers = append(answers, "HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 400 "+strings.Repeat("x", before)+decoded+"\r\n\r\n")
	}
	answer := make(chan string, 1)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			if _, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
				_, _ = conn.Write([]byte(<-answer))
				_ = conn.(*net.TCPConn).CloseWrite()
			}
			_ = conn.SetReadDeadline(time.Now().Add(time.Second))
			_, _ = bufio.NewReader(conn).ReadString(0)
			conn.Close()
		}
	}()
	for _, variable := range []string{"HTTPS_PROXY", "https_proxy"} {
		t.Setenv("HTTPS_PROXY", "")
		t.Setenv("https_proxy", "")
		t.Setenv(variable, "http://prober:pa%24sw0rd%2fof%3Aours@"+listener.Addr().String())
		for _, text := range answers {
			answer <- text
			got := told(t, settings.Upstream{Addr: "upstream.test:1", UseProxy: true}, nil)
			if strings.Contains(got, "pa$") || strings.Contains(got, "sw0rd") || strings.Contains(got, "prober") {
				t.Errorf("%q: %s", text, got)
			}
			select {
			case <-answer: // it was not asked
			default:
			}
		}
		if variable == "HTTPS_PROXY" {
			answers = answers[:3]
		}
	}
}

// Parsers quote what they cannot read: no such error is shown.
func TestParsersQuoteNoPassword(t *testing.T) { // not parallel: it sets variables
	for _, text := range []string{
		"http://u:s3cret%zz@proxy.test:1", "http://u:s3cret@proxy.test:port", "http://u:s3cret@[::1", "http://u:s3 cret@proxy test", "ht tp://u:s3cret@proxy.test", "https://u:s3cret@proxy.test:1", "//u:s3cret@", "u:s3cret@%zz:1", "http://u:s3cret\x7f@h:1",
	} {
		for _, variable := range []string{"HTTPS_PROXY", "https_proxy"} {
			t.Setenv("HTTPS_PROXY", "")
			t.Setenv("https_proxy", "")
			t.Setenv(variable, text)
			if _, err := Options(&settings.Upstream{Addr: "upstream.test:1", UseProxy: true}, creds.Options{}, nil); err != nil && strings.Contains(err.Error(), "s3") {
				t.Errorf("%s=%s: %v", variable, text, err)
			}
		}
	}
	for _, addr := range []string{
		"dns://u:s3cret@ns.test:port/host:1", "dns://u:s3cret@[::1/host:1", "passthrough://u:s3cret%zz@/host:1", "http://u:s3cret@host:1", "u:s3cret@host:1", "xds:///u:s3cret", "dns:///u:s3cret@host:1", "u:s3cret%zz@host", "dns://u:s3cret@ns.test/",
	} {
		if _, err := Options(&settings.Upstream{Addr: addr}, creds.Options{}, nil); err != nil && strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", addr, err)
		}
	}
}
