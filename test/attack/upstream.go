//go:build linux

package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"example.com/grpc-health-http/test/healthtest"
)

// maxAnswer bounds an answer for some services, or the names of a List, in bytes.
const maxAnswer = 1 << 20

// upstreamAttacks are the upstream's, or those of what lies between it and the proxy. The log is at the level debug.
func upstreamAttacks() []attack {
	return []attack{{
		name: "message of 4 MB", what: "the upstream answers with a status message of 4 MB",
		path: good, settings: evil(message(4_000_000)), do: askEvil,
	}, {
		name: "message of 15 MB", what: "the upstream answers with a status message of 15 MB",
		path: good, settings: evil(message(15_000_000)), do: askEvil,
	}, {
		name: "metadata of 1 MB", what: "the upstream answers with 1 MB of metadata before and after the message",
		path: good, do: askEvil,
		settings: evil(func(ctx context.Context, _ string) (*healthpb.HealthCheckResponse, error) {
			much := metadata.Pairs("x-much", strings.Repeat("m", 1<<20))
			_ = grpc.SetHeader(ctx, much) // they fail only without an RPC
			_ = grpc.SetTrailer(ctx, much)
			return nil, status.Error(codes.Internal, "with much metadata")
		}),
	}, {
		name: "HPACK bomb of upstream", what: "the upstream answers with 5 KB of headers that are 15 MB when they are decoded", wants: anyVerdict,
		settings: func(t *trial) []string { return debug("GRPC_HEALTH_ADDR=" + bomb(t)) },
		do:       askSome,
	}, {
		name: "gzip bomb", what: "the upstream's message of 16 KB has 16 MB when it is decompressed", wants: anyVerdict,
		settings: func(t *trial) []string {
			var zipped bytes.Buffer
			w := gzip.NewWriter(&zipped)
			_, _ = w.Write(make([]byte, 15<<20)) // a buffer has no errors
			_ = w.Close()
			up := healthtest.StartFrontEnd(t, healthtest.Message(zipped.String(), "gzip"))
			return debug("GRPC_HEALTH_ADDR="+up.Addr(), "GRPC_HEALTH_GZIP=true")
		},
		do: askSome,
	}, {
		name: "GOAWAY with 16 KB", what: "the upstream ends each connection with 16 KB of debug data", wants: anyVerdict,
		settings: func(t *trial) []string { return debug("GRPC_HEALTH_ADDR=" + goAway(t, 16<<10)) },
		do:       askSome,
	}, {
		name: "List of 70,000 names", what: "10 callers ask for the list of an upstream that has 70,000 services",
		settings: services(70_000, 20), do: askList,
	}, {
		name: "List of 2,000 names", what: "the same with 2,000 services, whose names have 200 bytes",
		settings: services(2_000, 200), do: askList,
	}, {
		name: "certificate of 7,000 names", what: "the upstream's certificate has 7,000 names, none of them right", wants: "CONNECTION_FAILED",
		settings: func(t *trial) []string {
			var names []string
			for i := range 7_000 {
				names = append(names, fmt.Sprintf("host-%d.attack.test", i))
			}
			ca := healthtest.NewCA(t)
			up := healthtest.Start(t, healthtest.TLS(ca.ServerTLS(t, healthtest.DNSNames(names...))))
			return debug("GRPC_HEALTH_ADDR="+up.Target(), "GRPC_HEALTH_TLS=true", "GRPC_HEALTH_CA_CERT="+string(ca.PEM()))
		},
		do: askSome,
	}, {
		name: "4,000 addresses", what: "the upstream's name has 4,000 addresses, and each refuses the connection", wants: "CONNECTION_FAILED",
		settings: func(t *trial) []string {
			return debug("GRPC_HEALTH_ADDR=dns://" + addresses(t, 4_000) + "/many.attack.test:9")
		},
		do: askSome,
	}, {
		name: "one good address of 64", what: "the upstream's name has 64 addresses, and connecting hangs for all but the last",
		settings: func(t *trial) []string {
			up := healthtest.Start(t, healthtest.Listen("tcp", "127.2.0.64:0"))
			_, port, err := net.SplitHostPort(up.Addr())
			if err != nil {
				t.Fatal(err)
			}
			var all []string
			var hanging sync.WaitGroup
			for i := range 63 {
				address := fmt.Sprint("127.2.0.", i+1)
				all = append(all, address)
				hanging.Go(func() { healthtest.DropSYNs(t, address+":"+port) })
			}
			hanging.Wait()
			names := healthtest.StartNameServer(t, append(all, "127.2.0.64")...)
			return debug("GRPC_HEALTH_ADDR="+names.Target(port), "GRPC_HEALTH_CONN_MAX_AGE=0s")
		},
		do: askSome,
	}, {
		name: "HTTP proxy's status line", what: "the HTTP proxy's status line never ends", wants: anyVerdict,
		settings: throughProxy("HTTP/1.1 200 ", "o"),
		do:       askSome,
	}, {
		name: "HTTP proxy's headers", what: "the HTTP proxy's header fields never end", wants: anyVerdict,
		settings: throughProxy("HTTP/1.1 200 OK\r\n", "x-field: value\r\n"),
		do:       askSome,
	}, {
		name: "log of one request", what: "at the level debug a caller asks for 100 long names, and sends 2.5 KB of headers; each RPC fails with a message of 1 KB",
		settings: func(t *trial) []string {
			t.up.HandleUnknown(message(1_000))
			return debug()
		},
		do: func(t *trial) { t.logOfOne(names(100, "%s", strings.Repeat("n", 80))) },
	}, {
		name: "log of invisible names", what: "the same with names that have to be escaped",
		settings: func(t *trial) []string {
			t.up.HandleUnknown(message(1_000))
			return debug()
		},
		do: func(t *trial) { t.logOfOne(names(100, "%s", strings.Repeat("\u202e", 15))) },
	}}
}

// debug adds the level debug to settings.
func debug(settings ...string) []string { return append(settings, "GRPC_HEALTH_LOG_LEVEL=debug") }

// services lets callers list n services, whose names have so many bytes.
func services(n, bytes int) func(*trial) []string {
	return func(t *trial) []string {
		t.up.HandleList(func(context.Context) (*healthpb.HealthListResponse, error) {
			response := &healthpb.HealthListResponse{Statuses: make(map[string]*healthpb.HealthCheckResponse)}
			for i := range n {
				name := fmt.Sprintf("%0*d", bytes, i)
				response.Statuses[name] = &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVING}
			}
			return response, nil
		})
		return debug("GRPC_HEALTH_ALLOW_LIST=true")
	}
}

func askList(t *trial) {
	t.askInTurn(10, func(i int) string { return "/?list&format=" + []string{"html", "json", "text"}[i%3] })
}

// good is what probes ask for where the service evil is attacked with.
const good = "/?service=good"

// evil configures two services: one that serves, and one that answers with what the handler returns.
func evil(handler healthtest.Handler) func(*trial) []string {
	return func(t *trial) []string {
		t.up.SetStatus("good", healthpb.HealthCheckResponse_SERVING)
		t.up.Handle("evil", handler)
		return debug("GRPC_HEALTH_SERVICE_NAME=good,evil", "GRPC_HEALTH_SHOW_CAUSE=true")
	}
}

// message answers with a status message of n bytes.
func message(n int) healthtest.Handler {
	text := strings.Repeat("long message, ", n/14)
	return func(context.Context, string) (*healthpb.HealthCheckResponse, error) {
		return nil, status.Error(codes.Internal, text)
	}
}

func askEvil(t *trial) { t.askInTurn(6, func(int) string { return "/?service=evil" }) }

func askSome(t *trial) { t.askInTurn(6, func(int) string { return "/" }) }

// logOfOne makes one request, and looks at how much of the log came of it.
func (t *trial) logOfOne(target string) {
	before := len(t.proxy.text())
	fields := []string{"Connection: close", "User-Agent: " + strings.Repeat("u", 500), "Traceparent: " + strings.Repeat("t", 500),
		"X-Forwarded-For: " + strings.Repeat("10.0.0.1, ", 50), "X-Cloud-Trace-Context: " + strings.Repeat("c", 500), "X-Request-Id: " + strings.Repeat("r", 500)}
	t.connect(1, func(_ int, c *conn) {
		if t.get(c, target, fields...) == nil {
			t.receive(bufio.NewReader(c))
		}
	})
	t.hold(lasts)
	// Those of the probes are among them: a line each, of which each is short.
	const ofProbes = 200
	probing := int(lasts/probeEvery) * ofProbes
	if n := len(t.proxy.text()) - before; n > maxLogOfOne+probing {
		t.Errorf("the log of one request has %d bytes", n-probing)
	}
}

// askInTurn makes n requests, two at a time, and looks at the lengths of the answers. The probes have some time after them.
func (t *trial) askInTurn(n int, target func(i int) string) {
	defer t.hold(lasts / 3)
	const atOnce = 2
	done := make(chan struct{}, atOnce)
	for first := 0; first < n && t.proxy.alive(); first += atOnce {
		for i := first; i < first+atOnce; i++ {
			go func() {
				defer func() { done <- struct{}{} }()
				c := t.dial(&net.Dialer{})
				if c == nil || t.get(c, target(i), "Connection: close") != nil {
					return
				}
				if _, body := t.receive(bufio.NewReader(c)); len(body) > maxAnswer {
					t.Errorf("the answer to %s has %d bytes", target(i), len(body))
				}
			}()
		}
		for range atOnce {
			select {
			case <-done:
			case <-t.proxy.done:
				return
			}
		}
	}
}

// listen serves connections on loopback until the attack ends, and returns the address.
func (t *trial) listen(serve func(net.Conn)) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return // the end
			}
			t.keep(c)
			go func() {
				defer c.Close()
				serve(c)
			}()
		}
	}()
	return listener.Addr().String()
}

// answering starts a server that speaks HTTP/2, and answers each request with the function. An error ends the connection.
func (t *trial) answering(answer func(framer *http2.Framer, stream uint32) error) string {
	return t.listen(func(c net.Conn) {
		if _, err := io.ReadFull(c, make([]byte, len(http2.ClientPreface))); err != nil {
			return
		}
		framer := http2.NewFramer(c, c)
		if framer.WriteSettings() != nil {
			return
		}
		for {
			frame, err := framer.ReadFrame()
			if err != nil {
				return
			}
			switch frame := frame.(type) {
			case *http2.SettingsFrame:
				if !frame.IsAck() {
					err = framer.WriteSettingsAck()
				}
			case *http2.HeadersFrame:
				err = answer(framer, frame.StreamID)
			}
			if err != nil {
				return
			}
		}
	})
}

// goAway starts a server that answers the first request of each connection with a GOAWAY that has n bytes of debug data.
func goAway(t *trial, n int) string {
	return t.answering(func(framer *http2.Framer, _ uint32) error {
		if err := framer.WriteGoAway(0, http2.ErrCodeEnhanceYourCalm, []byte(strings.Repeat("go away\n", n/8))); err != nil {
			return err
		}
		return net.ErrClosed
	})
}

// bomb starts a server that answers each request with trailers alone, whose fields are one that HPACK's dynamic table has.
func bomb(t *trial) string {
	return t.answering(func(framer *http2.Framer, stream uint32) error {
		var block bytes.Buffer
		encoder := hpack.NewEncoder(&block)
		fields := []hpack.HeaderField{{Name: ":status", Value: "200"}, {Name: "content-type", Value: "application/grpc"}, {Name: "grpc-status", Value: "13"}}
		for range 3_800 {
			fields = append(fields, hpack.HeaderField{Name: "x-bomb", Value: strings.Repeat("b", 4_000)})
		}
		for _, field := range fields {
			if err := encoder.WriteField(field); err != nil {
				return err
			}
		}
		if err := framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block.Bytes(), EndStream: true, EndHeaders: true}); err != nil {
			return err
		}
		return net.ErrClosed // the next encoder begins with an empty table
	})
}

// throughProxy makes an HTTP proxy the way to the upstream. It answers CONNECT with a beginning, and something that it repeats
// for as long as the attack takes.
func throughProxy(begins, goesOn string) func(*trial) []string {
	return func(t *trial) []string {
		address := t.listen(func(c net.Conn) {
			if _, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
				return
			}
			_, err := io.WriteString(c, begins)
			for more := strings.Repeat(goesOn, 32<<10/len(goesOn)); err == nil; {
				_, err = io.WriteString(c, more)
			}
		})
		// The rules for proxies except loopback, so the name is one that only the HTTP proxy would look up.
		return debug("GRPC_HEALTH_ADDR=passthrough:///upstream.attack.test:443", "GRPC_HEALTH_USE_PROXY=true", "HTTPS_PROXY=http://"+address)
	}
}

// addresses starts a DNS server that gives every name n addresses, over TCP since they are too long for a datagram, and returns
// its address.
func addresses(t *trial, n int) string {
	address := t.listen(func(c net.Conn) {
		for {
			query, err := readPrefixed(c)
			if err != nil {
				return
			}
			answer, err := answerQuery(query, n)
			if err != nil {
				return
			}
			if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...)); err != nil {
				return
			}
		}
	})
	datagrams, err := net.ListenPacket("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { datagrams.Close() })
	go func() {
		for buffer := make([]byte, 1500); ; {
			size, from, err := datagrams.ReadFrom(buffer)
			if err != nil {
				return // the end
			}
			if answer, err := answerQuery(buffer[:size], 0); err == nil {
				_, _ = datagrams.WriteTo(answer, from) // a client asks again
			}
		}
	}()
	return address
}

// readPrefixed reads a DNS message from a stream.
func readPrefixed(r io.Reader) ([]byte, error) {
	var size uint16
	if err := binary.Read(r, binary.BigEndian, &size); err != nil {
		return nil, err
	}
	message := make([]byte, size)
	_, err := io.ReadFull(r, message)
	return message, err
}

// answerQuery answers a DNS query with n addresses of loopback. With none the answer says that it was cut, so that the client asks
// again over TCP.
func answerQuery(query []byte, n int) ([]byte, error) {
	var m dnsmessage.Message
	if err := m.Unpack(query); err != nil {
		return nil, err
	}
	m.Response, m.RecursionAvailable, m.Additionals, m.Truncated = true, true, nil, n == 0
	for _, q := range m.Questions {
		if q.Type != dnsmessage.TypeA {
			continue
		}
		for i := range n {
			m.Answers = append(m.Answers, dnsmessage.Resource{
				Header: dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET},
				Body:   &dnsmessage.AResource{A: [4]byte{127, 1, byte(i >> 8), byte(i)}},
			})
		}
	}
	return m.Pack()
}
