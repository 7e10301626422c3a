package clients

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"
)

const checkPath = "/grpc.health.v1.Health/Check"

// libraries are grpc-js, Python's grpcio and the kubelet's prober, each without TLS and with.
func libraries(p programs) []checker {
	var found []checker
	for _, secure := range []bool{false, true} {
		where := func(d *deployment, service string) question {
			if secure {
				return question{Target: d.secure, Service: service, CA: d.ca}
			}
			return question{Target: d.plain, Service: service}
		}
		for name, library := range map[string]*program{"grpc-js": p.node, "grpcio": p.python} {
			name = title(name, secure)
			found = append(found, checker{name, columnGRPC, func(t *testing.T, d *deployment, service string) string {
				var a answer
				library.ask(t, where(d, service), &a)
				return conclude(t, d, a)
			}})
		}
		found = append(found, checker{title("the kubelet's prober", secure), columnKubelet, func(t *testing.T, d *deployment, service string) string {
			var a probed
			p.kubelet.ask(t, where(d, service), &a)
			return healthy(a.Healthy)
		}})
	}
	return found
}

func title(name string, secure bool) string {
	if secure {
		return name + " with TLS"
	}
	return name
}

// throughFronts are grpc-go through HAProxy and nginx, and HAProxy's own checks.
func throughFronts(t *testing.T, p programs, d *deployment) []checker {
	t.Helper()
	haproxy, nginx := startHAProxy(t, p.haproxy, d), startNginx(t, p.nginx, d)
	var found []checker
	for name, socket := range map[string]string{
		"through HAProxy": haproxy.plain, "through HAProxy and TLS": haproxy.secure,
		"through nginx": nginx.plain, "through nginx and TLS": nginx.secure,
	} {
		found = append(found, checker{name, columnGRPC, func(t *testing.T, d *deployment, service string) string {
			return conclude(t, d, askGo(t, "unix:"+socket, insecure.NewCredentials(), service))
		}})
	}
	for _, server := range []string{byOptions, byGet, byGetTLS, byGetHTTP1} {
		found = append(found, checker{"HAProxy's check " + server, columnChecks, func(t *testing.T, d *deployment, _ string) string {
			verdict := haproxy.verdict(t, server)
			code := d.state.want[slices.Index(columns, columnHTTP)]
			if want := map[bool]string{true: "L7OK ", false: "L7STS "}[code == "200"] + code; verdict != want {
				t.Errorf("HAProxy says %q, want %q", verdict, want)
			}
			return healthy(strings.HasPrefix(verdict, "L7OK"))
		}})
	}
	return found
}

// askGo asks with grpc-go.
func askGo(t *testing.T, target string, creds credentials.TransportCredentials, service string, md ...string) answer {
	t.Helper()
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(creds))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), md...), patience)
	defer cancel()
	var header, trailer metadata.MD
	response, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{Service: service}, grpc.Header(&header), grpc.Trailer(&trailer))
	a := answer{Code: int(status.Code(err)), Message: status.Convert(err).Message(), Status: int(response.GetStatus()), Metadata: make(map[string]string)}
	for name, values := range metadata.Join(header, trailer) {
		a.Metadata[name] = values[0]
	}
	return a
}

// rawClients are grpc-go, gRPC-Web, curl and the load balancer.
func rawClients(p programs) []checker {
	found := []checker{
		{"grpc-go", columnGRPC, func(t *testing.T, d *deployment, service string) string {
			return conclude(t, d, askGo(t, d.plain, insecure.NewCredentials(), service))
		}},
		{"grpc-go with TLS", columnGRPC, func(t *testing.T, d *deployment, service string) string {
			return conclude(t, d, askGo(t, d.secure, credentials.NewTLS(&tls.Config{InsecureSkipVerify: true}), service))
		}},
	}
	byCurl := func(name string, args func(d *deployment, path string) []string) checker {
		return checker{name, columnHTTP, func(t *testing.T, d *deployment, service string) string {
			code, line := curl(t, p.curl, args(d, d.httpPath(service))...)
			if !strings.HasSuffix(line, d.state.status) {
				t.Errorf("the answer is %q, want it to end with %s", line, d.state.status)
			}
			return code
		}}
	}
	found = append(found, byCurl("curl --http2-prior-knowledge", func(d *deployment, path string) []string {
		return []string{"--http2-prior-knowledge", "http://" + d.plain + path}
	}), byCurl("curl --http2 with TLS", func(d *deployment, path string) []string {
		return []string{"--http2", "--cacert", d.ca, "https://" + d.secure + path}
	}))
	for _, proto := range []protocol{{}, {http2: true}, {tls: true}, {http2: true, tls: true}} {
		name := "gRPC-Web over " + proto.String()
		found = append(found, checker{name, columnGRPC, func(t *testing.T, d *deployment, service string) string {
			return conclude(t, d, askWeb(t, d.at(proto.tls), proto, service))
		}})
	}
	for _, secure := range []bool{false, true} {
		codeOnly := func(t *testing.T, d *deployment, service, matcher string) string {
			lb := loadBalancer{d.at(secure), secure}
			code := lb.grpc(t, codeOnlyPath(service), frame(nil))
			if want := d.state.codeOnly(); code != want {
				t.Errorf("%s: the code is %v, want %v", codeOnlyPath(service), code, want)
			}
			if without := lb.grpc(t, codeOnlyPath(service), nil); without != code {
				t.Errorf("%s: the code is %v without a message, and %v with an empty one", codeOnlyPath(service), without, code)
			}
			for matcher, want := range map[string]bool{
				"0-5": code == codes.OK, "0,12": code == codes.OK, "0": code == codes.OK, "1-13,15,16": code == codes.ResourceExhausted, "0-99": true,
			} {
				if got := matches(t, matcher, int(code)); got != want {
					t.Errorf("%s: the matcher %q takes the code %v: %v", codeOnlyPath(service), matcher, code, got)
				}
			}
			return healthy(matches(t, matcher, int(code)))
		}
		check := func(t *testing.T, d *deployment, service, matcher string) string {
			// AWS names no service. With one it is the same in all states, and the only way into one of them.
			message, err := proto.Marshal(&healthpb.HealthCheckRequest{Service: service})
			if err != nil {
				t.Fatal(err)
			}
			return healthy(matches(t, matcher, int(loadBalancer{d.at(secure), secure}.grpc(t, checkPath, frame(message)))))
		}
		for _, c := range []struct {
			column, matcher string
			ask             func(t *testing.T, d *deployment, service, matcher string) string
		}{
			{columnALB0, "0", codeOnly},
			{columnALB12, albGRPCMatcher, codeOnly},
			{columnCheck0, "0", check},
			{columnCheck12, albGRPCMatcher, check},
			{columnChecks, albHTTPMatcher, func(t *testing.T, d *deployment, service, matcher string) string {
				return healthy(matches(t, matcher, loadBalancer{d.at(secure), secure}.http(t, d.httpPath(service))))
			}},
		} {
			found = append(found, checker{title(c.column, secure), c.column, func(t *testing.T, d *deployment, service string) string {
				return c.ask(t, d, service, c.matcher)
			}})
		}
	}
	return found
}

// at is the address of the proxy with TLS, or without.
func (d *deployment) at(secure bool) string {
	if secure {
		return d.secure
	}
	return d.plain
}

// curl returns the HTTP code of an answer and its first line. It fails the test unless the answer came over HTTP/2.
func curl(t *testing.T, program string, args ...string) (code, line string) {
	t.Helper()
	args = append([]string{
		"--silent", "--show-error", "--max-time", strconv.Itoa(int(patience.Seconds())), "--write-out", "\n%{http_version} %{http_code}",
	}, args...)
	out, err := exec.CommandContext(t.Context(), program, args...).Output()
	if err != nil {
		if failed, ok := errors.AsType[*exec.ExitError](err); ok {
			t.Fatalf("curl %q: %v\n%s", args, err, failed.Stderr)
		}
		t.Fatalf("curl %q: %v", args, err)
	}
	lines := strings.Split(string(out), "\n")
	version, code, _ := strings.Cut(lines[len(lines)-1], " ")
	if version != "2" {
		t.Errorf("curl %q: the answer came over HTTP/%s", args, version)
	}
	return code, lines[0]
}

// frame puts a message into a gRPC frame: no compression, and the length.
func frame(message []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
}

// webTrailers is the flag of a gRPC-Web frame that holds trailers, as lines of HTTP/1.1.
const webTrailers = 0x80

// askWeb asks by a gRPC-Web request that is made by hand, as a browser's library does
// (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-WEB.md).
func askWeb(t *testing.T, target string, p protocol, service string) answer {
	t.Helper()
	message, err := proto.Marshal(&healthpb.HealthCheckRequest{Service: service})
	if err != nil {
		t.Fatal(err)
	}
	response, body := send(t, target, p, "POST", checkPath, frame(message), http.Header{
		"Content-Type": {"application/grpc-web+proto"}, "X-Grpc-Web": {"1"}, "Accept": {"application/grpc-web+proto"},
	})
	if response.StatusCode != http.StatusOK || !strings.HasPrefix(response.Header.Get("Content-Type"), "application/grpc-web") {
		t.Fatalf("gRPC-Web over %v: got %s with %s", p, response.Status, response.Header.Get("Content-Type"))
	}
	a := answer{Code: -1, Metadata: make(map[string]string)}
	take := func(header http.Header) {
		for name, values := range header {
			a.Metadata[strings.ToLower(name)] = values[0]
		}
	}
	take(response.Header)
	for len(body) > 0 {
		if len(body) < 5 || uint64(len(body)-5) < uint64(binary.BigEndian.Uint32(body[1:])) {
			t.Fatalf("gRPC-Web over %v: a torn frame: %x", p, body)
		}
		flags, content := body[0], body[5:5+binary.BigEndian.Uint32(body[1:])]
		body = body[5+len(content):]
		switch flags {
		case 0:
			var message healthpb.HealthCheckResponse
			if err := proto.Unmarshal(content, &message); err != nil {
				t.Fatalf("gRPC-Web over %v: %v", p, err)
			}
			a.Status = int(message.GetStatus())
		case webTrailers:
			trailers, err := textproto.NewReader(bufio.NewReader(bytes.NewReader(append(content, "\r\n"...)))).ReadMIMEHeader()
			if err != nil {
				t.Fatalf("gRPC-Web over %v: trailers: %v: %q", p, err, content)
			}
			take(http.Header(trailers))
		default:
			t.Fatalf("gRPC-Web over %v: a frame with flags %#x", p, flags)
		}
	}
	code, err := strconv.Atoi(a.Metadata["grpc-status"])
	if err != nil {
		t.Fatalf("gRPC-Web over %v: grpc-status: %v", p, err)
	}
	a.Code, a.Message = code, a.Metadata["grpc-message"]
	return a
}

// byHand are the checkers that a flag names.
func byHand() []checker {
	var found []checker
	for _, secure := range []bool{false, true} {
		if *probe != "" {
			found = append(found, checker{title("grpc_health_probe", secure), columnProbe, func(t *testing.T, d *deployment, service string) string {
				args := []string{"-addr", d.at(secure), "-service", service, "-connect-timeout", patience.String(), "-rpc-timeout", patience.String()}
				if secure {
					args = append(args, "-tls", "-tls-ca-cert", d.ca)
				}
				code, out := exit(t, *probe, args...)
				t.Logf("service %q: exit code %d: %s", service, code, out)
				return strconv.Itoa(code)
			}})
		}
		if *grpcurl != "" {
			found = append(found, checker{title("grpcurl", secure), columnGRPC, func(t *testing.T, d *deployment, service string) string {
				args := []string{"-max-time", strconv.Itoa(int(patience.Seconds())), "-protoset", protoset(t), "-d", fmt.Sprintf(`{"service":%q}`, service)}
				if secure {
					args = append(args, "-cacert", d.ca)
				} else {
					args = append(args, "-plaintext")
				}
				code, out := exit(t, *grpcurl, append(args, d.at(secure), "grpc.health.v1.Health/Check")...)
				t.Logf("service %q: exit code %d: %s", service, code, out)
				// The exit code is 64 more than the RPC status.
				if code >= 64 {
					return "`" + codeName(codes.Code(code-64)) + "`"
				}
				if code != 0 {
					return out
				}
				_, status, _ := strings.Cut(out, `"status": "`)
				status, _, _ = strings.Cut(status, `"`)
				if status == "" {
					status = "UNKNOWN" // grpcurl leaves out what is 0
				}
				return "`OK`, " + status
			}})
		}
	}
	return found
}

// protoset writes the protocol for grpcurl, which asks the server for it by reflection otherwise, and returns the path.
func protoset(t *testing.T) string {
	t.Helper()
	file := protodesc.ToFileDescriptorProto(healthpb.File_grpc_health_v1_health_proto)
	bytes, err := proto.Marshal(&descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{file}})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "protoset")
	writeFile(t, path, string(bytes))
	return path
}

// exit runs a program, and returns its exit code and what it printed.
func exit(t *testing.T, program string, args ...string) (int, string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	out, err := cmd.CombinedOutput()
	var failed *exec.ExitError
	if err != nil && !errors.As(err, &failed) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), strings.TrimSpace(string(out))
}
