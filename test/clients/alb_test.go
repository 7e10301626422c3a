package clients

import (
	"bytes"
	"crypto/tls"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
)

// loadBalancer checks a target as AWS documents it for target groups of an Application Load Balancer
// (https://docs.aws.amazon.com/elasticloadbalancing/latest/application/target-group-health-checks.html and
// https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_Matcher.html):
//
//   - A group of the protocol version gRPC calls the method of the health check's path, /AWS.ALB/healthcheck by default, and compares
//     the gRPC code with the matcher, 12 by default. It reads no message.
//   - A group of the protocol version HTTP2 gets the path, and compares the HTTP code with the matcher, 200 by default.
//   - After each check the connection is closed.
//   - It establishes TLS where the protocol is HTTPS, and does not verify the target's certificate
//     (https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-target-groups.html).
type loadBalancer struct {
	target string
	secure bool
}

// The defaults of a health check.
const (
	albPath        = "/AWS.ALB/healthcheck"
	albGRPCMatcher = "12"
	albHTTPMatcher = "200"
)

// matches says whether a code is one of a matcher's: a value "0", several "0,12", or a range "0-5".
func matches(t *testing.T, matcher string, code int) bool {
	t.Helper()
	number := func(text string) int {
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatalf("matcher %q: %v", matcher, err)
		}
		return n
	}
	for part := range strings.SplitSeq(matcher, ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		if number(first) <= code && code <= number(last) {
			return true
		}
	}
	return false
}

// grpc makes a check of a gRPC target group, and returns the gRPC code. body is what follows the request's headers.
func (lb loadBalancer) grpc(t *testing.T, path string, body []byte) codes.Code {
	t.Helper()
	response := lb.send(t, "POST", path, body, http.Header{"Content-Type": {"application/grpc"}, "Te": {"trailers"}})
	if response.StatusCode != http.StatusOK {
		t.Fatalf("POST %s: %s, want what gRPC answers", path, response.Status)
	}
	text := response.Trailer.Get("Grpc-Status")
	if text == "" {
		text = response.Header.Get("Grpc-Status") // an answer of trailers only
	}
	code, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("POST %s: grpc-status: %v", path, err)
	}
	return codes.Code(code)
}

// http makes a check of an HTTP/2 target group, and returns the HTTP code.
func (lb loadBalancer) http(t *testing.T, path string) int {
	t.Helper()
	return lb.send(t, "GET", path, nil, http.Header{}).StatusCode
}

func (lb loadBalancer) send(t *testing.T, method, path string, body []byte, header http.Header) *http.Response {
	t.Helper()
	header.Set("User-Agent", "ELB-HealthChecker/2.0")
	response, _ := send(t, lb.target, protocol{true, lb.secure}, method, path, body, header)
	return response
}

// protocol is an HTTP version, with TLS or without.
type protocol struct{ http2, tls bool }

func (p protocol) String() string {
	return map[protocol]string{
		{false, false}: "HTTP/1.1", {true, false}: "h2c", {false, true}: "HTTP/1.1 with TLS", {true, true}: "HTTP/2 with TLS",
	}[p]
}

// url is the one of a path.
func (p protocol) url(target, path string) string {
	if p.tls {
		return "https://" + target + path
	}
	return "http://" + target + path
}

// transportFor speaks one protocol. It verifies no certificate.
func transportFor(p protocol) *http.Transport {
	transport := &http.Transport{
		Protocols:       new(http.Protocols),
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
	}
	transport.Protocols.SetHTTP1(!p.http2)
	transport.Protocols.SetHTTP2(p.http2 && p.tls)
	transport.Protocols.SetUnencryptedHTTP2(p.http2 && !p.tls)
	return transport
}

// send sends one request over a connection of its own, which it closes after the answer. It returns the answer and its body, and checks
// that both came by the protocol.
func send(t *testing.T, target string, p protocol, method, path string, body []byte, header http.Header) (*http.Response, []byte) {
	t.Helper()
	transport := transportFor(p)
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(t.Context(), method, p.url(target, path), bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header = header
	client := http.Client{Transport: transport, Timeout: patience}
	response, err := client.Do(request)
	if err != nil {
		t.Fatalf("%s %s by %v: %v", method, path, p, err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatalf("%s %s by %v: %v", method, path, p, err)
	}
	if major := map[bool]int{false: 1, true: 2}[p.http2]; response.ProtoMajor != major {
		t.Errorf("%s %s by %v: the answer came by %s", method, path, p, response.Proto)
	}
	return response, answer
}
