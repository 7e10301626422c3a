package scripttest

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"

	"github.com/rogpeppe/go-internal/testscript"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"example.com/grpc-health-http/test/healthtest"
)

// parse parses flags, and returns the arguments after them, of which there must be want.
func parse(ts *testscript.TestScript, flags *flag.FlagSet, args []string, want int) []string {
	flags.SetOutput(io.Discard)
	ts.Check(flags.Parse(args))
	if flags.NArg() != want {
		ts.Fatalf("%d arguments, want %d", flags.NArg(), want)
	}
	return flags.Args()
}

func upstream(s *session, ts *testscript.TestScript, args []string) {
	flags := flag.NewFlagSet("upstream", flag.ContinueOnError)
	unix, ipv6 := flags.Bool("unix", false, ""), flags.Bool("ipv6", false, "")
	noHealth, noALPN := flags.Bool("no-health", false, ""), flags.Bool("no-alpn", false, "")
	cert, key, clientCA := flags.String("cert", "", ""), flags.String("key", "", ""), flags.String("client-ca", "", "")
	name := parse(ts, flags, args, 1)[0]
	var options []healthtest.Option
	if *unix {
		options = append(options, healthtest.Unix())
	}
	if *ipv6 {
		options = append(options, healthtest.IPv6())
	}
	if *noHealth {
		options = append(options, healthtest.WithoutHealth())
	}
	if *noALPN {
		options = append(options, healthtest.WithoutALPN())
	}
	if *cert != "" {
		options = append(options, healthtest.TLS(serverTLS(ts, *cert, *key, *clientCA)))
	}
	u := healthtest.Start(s.t, options...)
	s.upstreams[name] = u
	ts.Setenv(name, u.Target())
}

func serverTLS(ts *testscript.TestScript, cert, key, clientCA string) *tls.Config {
	config := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair(ts, cert, key)}}
	if clientCA != "" {
		config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, pool(ts, clientCA)
	}
	return config
}

func pair(ts *testscript.TestScript, cert, key string) tls.Certificate {
	loaded, err := tls.LoadX509KeyPair(ts.MkAbs(cert), ts.MkAbs(key))
	ts.Check(err)
	return loaded
}

func pool(ts *testscript.TestScript, file string) *x509.CertPool {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(ts.ReadFile(file))) {
		ts.Fatalf("no certificate in %s", file)
	}
	return roots
}

func (s *session) upstream(ts *testscript.TestScript, name string) *healthtest.Upstream {
	u := s.upstreams[name]
	if u == nil {
		ts.Fatalf("no upstream %s", name)
	}
	return u
}

func answer(s *session, ts *testscript.TestScript, args []string) {
	number, ok := healthpb.HealthCheckResponse_ServingStatus_value[args[2]]
	if n, err := strconv.ParseInt(args[2], 10, 32); err == nil {
		number, ok = int32(n), true // a value that the protocol does not define
	}
	if !ok {
		ts.Fatalf("no serving status %s", args[2])
	}
	s.upstream(ts, args[0]).SetStatus(args[1], healthpb.HealthCheckResponse_ServingStatus(number))
}

func refuse(s *session, ts *testscript.TestScript, args []string) {
	var code codes.Code
	ts.Check(json.Unmarshal([]byte(strconv.Quote(args[2])), &code))
	s.upstream(ts, args[0]).SetError(args[1], code)
}

func hang(s *session, ts *testscript.TestScript, args []string) {
	s.releases[args[0]+" "+args[1]] = s.upstream(ts, args[0]).Hang(args[1])
}

func release(s *session, ts *testscript.TestScript, args []string) {
	releaseRPCs := s.releases[args[0]+" "+args[1]]
	if releaseRPCs == nil {
		ts.Fatalf("the service does not hang")
	}
	releaseRPCs()
}

func halt(s *session, ts *testscript.TestScript, args []string)    { s.upstream(ts, args[0]).Stop() }
func restart(s *session, ts *testscript.TestScript, args []string) { s.upstream(ts, args[0]).Restart() }

func saw(s *session, ts *testscript.TestScript, args []string) {
	u := s.upstream(ts, args[0])
	if u.RPCs() == 0 {
		fmt.Fprintln(ts.Stdout(), "no RPC")
		return
	}
	call := u.Last()
	fmt.Fprintf(ts.Stdout(), "service: %s\ncompression: %s\n", call.Service, call.Compression)
	for _, name := range slices.Sorted(maps.Keys(call.Metadata)) {
		for _, value := range call.Metadata[name] {
			fmt.Fprintf(ts.Stdout(), "%s: %s\n", name, value)
		}
	}
}

// frontEnd is a server in front of an upstream, or in place of one.
type frontEnd interface {
	Addr() string
	Connections() int
}

// faults are the faults that the command faulty knows, besides bad-gateway.
var faults = map[string]healthtest.Mode{
	"refuse":           healthtest.Refuse,         // does not listen
	"silent":           healthtest.Silent,         // accepts, and sends nothing
	"reset":            healthtest.ResetOnAccept,  // resets every connection at once
	"garbage":          healthtest.Garbage,        // sends text that is neither TLS nor HTTP
	"http1":            healthtest.HTTP1,          // supports only HTTP/1.1
	"close-on-request": healthtest.CloseOnRequest, // closes the connection when the RPC arrives
}

func faulty(s *session, ts *testscript.TestScript, args []string) {
	if args[1] == "bad-gateway" { // like a load balancer without back ends
		front := healthtest.StartFrontEnd(s.t, healthtest.HTTPStatus(502))
		s.frontEnds[args[0]] = front
		ts.Setenv(args[0], front.Addr())
		return
	}
	mode, ok := faults[args[1]]
	if !ok {
		ts.Fatalf("no fault %s", args[1])
	}
	target := ""
	if len(args) > 2 {
		target = s.upstream(ts, args[2]).Target()
	}
	forwarder := healthtest.Forward(s.t, target)
	forwarder.SetMode(mode)
	s.frontEnds[args[0]] = forwarder
	ts.Setenv(args[0], forwarder.Addr())
}

func heal(s *session, ts *testscript.TestScript, args []string) {
	forwarder, ok := s.frontEnds[args[0]].(*healthtest.Forwarder)
	if !ok {
		ts.Fatalf("%s is not a forwarder", args[0])
	}
	forwarder.SetMode(healthtest.Pass)
}

func connected(s *session, ts *testscript.TestScript, args []string) {
	front := s.frontEnds[args[0]]
	if front == nil {
		front = s.upstream(ts, args[0])
	}
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	poll(ts, args[1]+" connections were accepted", func() bool { return front.Connections() >= n })
}

func asked(s *session, ts *testscript.TestScript, args []string) {
	u := s.upstream(ts, args[0])
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	poll(ts, args[1]+" RPCs have arrived", func() bool { return u.RPCs() >= n })
}
