//go:build linux

package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http2"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// memoryAttacks take memory and time, as callers.
func memoryAttacks() []attack {
	const (
		connections = 400
		page        = "Accept: text/html"
	)
	return []attack{{
		name: "unfinished headers", what: "400 connections send 16 KB of tiny header fields, and never end them",
		do: func(t *trial) {
			var fields strings.Builder
			for i := 0; fields.Len() < 16<<10; i++ {
				fmt.Fprintf(&fields, "%x:\r\n", i)
			}
			t.connect(connections, func(_ int, c *conn) {
				_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: attack.test\r\n"+fields.String())
			})
			t.hold(lasts)
		},
	}, {
		name: "waiting requests", what: "3,000 callers wait for an upstream that takes a second",
		settings: func(t *trial) []string {
			t.up.SetDelay("", time.Second)
			return []string{"GRPC_HEALTH_RPC_TIMEOUT=2s"}
		},
		do: func(t *trial) {
			t.connect(3_000, func(_ int, c *conn) {
				if t.get(c, "/") == nil {
					t.receive(bufio.NewReader(c))
				}
			})
			t.hold(lasts)
		},
	}, {
		name: "idle connections", what: "2,900 connections stay open, half of them after a request", do: idle,
	}, {
		name: "idle connections, TLS", what: "the same over TLS", https: true, do: idle,
	}, {
		name: "60 streams of 100 names", what: "one HTTP/2 connection has 60 streams, and each asks a hung upstream for 100 names", https: true, h2c: true,
		settings: hung,
		do: func(t *trial) {
			t.connect(1, func(_ int, c *conn) { t.streams(c, 60) })
			t.hold(lasts)
		},
	}, {
		name: "4 connections, 250 streams", what: "4 HTTP/2 connections have 250 streams each, and each asks a hung upstream for 100 names", https: true, h2c: true,
		settings: hung,
		do: func(t *trial) {
			t.connect(4, func(_ int, c *conn) { t.streams(c, 250) })
			t.hold(lasts)
		},
	}, {
		name: "made-up names", what: "100 callers ask a hung upstream for 100 made-up names each",
		settings: hung,
		do: func(t *trial) {
			t.connect(100, func(i int, c *conn) {
				if t.get(c, names(100, "%d.", i)) == nil {
					t.receive(bufio.NewReader(c))
				}
			})
			t.hold(lasts)
		},
	}, {
		name: "slow readers", what: "400 callers read a page of 100 long names by a byte per 100 ms",
		do: func(t *trial) {
			t.connectWith(smallWindow, connections, func(i int, c *conn) {
				if t.get(c, longNames(i), page) == nil {
					t.slowly(c)
				}
			})
			t.hold(lasts)
		},
	}, {
		name: "slow readers, one page", what: "400 callers read the page of 20 configured services by a byte per 100 ms",
		settings: func(t *trial) []string {
			var services []string
			for i := range 20 {
				services = append(services, fmt.Sprintf("%d.%s", i, strings.Repeat("<", 240))) // which makes a page long
				t.up.SetStatus(services[i], healthpb.HealthCheckResponse_SERVING)
			}
			return []string{"GRPC_HEALTH_SERVICE_NAME=" + strings.Join(services, ",")}
		},
		do: func(t *trial) {
			t.connectWith(smallWindow, connections, func(_ int, c *conn) {
				if t.get(c, "/", page) == nil {
					t.slowly(c)
				}
			})
			t.hold(lasts)
		},
	}, {
		name: "slow readers, TLS", what: "the same over TLS", https: true,
		do: func(t *trial) {
			t.connectWith(smallWindow, connections, func(i int, c *conn) {
				if secured := t.secure(c); secured != nil && t.get(secured, longNames(i), page) == nil {
					t.slowly(secured)
				}
			})
			t.hold(lasts)
		},
	}, {
		name: "slow readers, HTTP/2", what: "4 HTTP/2 connections have 250 streams each for pages, and let nothing be sent", https: true, h2c: true,
		do: func(t *trial) {
			t.connect(4, func(i int, c *conn) {
				if h := t.http2(c, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}); h != nil {
					for range 250 {
						_ = h.get(longNames(i), "accept", "text/html") // an error comes again from flush
					}
					_ = h.flush() // the proxy may close the connection
				}
			})
			t.hold(lasts)
		},
	}, {
		name: "slow readers of metrics", what: "400 callers read the metrics by a byte per 100 ms", metrics: true,
		do: func(t *trial) {
			t.connectWith(smallWindow, connections, func(_ int, c *conn) {
				if t.get(c, "/metrics") == nil {
					t.slowly(c)
				}
			})
			t.hold(lasts)
		},
	}, {
		name: "slow handshakes", what: "800 connections send a ClientHello by a byte per 20 ms", https: true,
		do: func(t *trial) {
			hello := clientHello(t)
			t.connect(800, func(_ int, c *conn) {
				for i := range hello {
					if _, err := c.Write(hello[i : i+1]); err != nil {
						return
					}
					select {
					case <-time.After(20 * time.Millisecond):
					case <-t.ctx.Done():
						return
					}
				}
			})
			t.hold(lasts)
		},
	}, {
		name: "CONTINUATION flood", what: "8 HTTP/2 connections send headers that never end, in CONTINUATION frames", https: true, h2c: true,
		do: func(t *trial) {
			t.again(8, func(i int, h *h2) error {
				var fields []string
				for n := range 100 {
					fields = append(fields, fmt.Sprintf("x-%d", n), strings.Repeat("v", 100))
				}
				h.mu.Lock()
				defer h.mu.Unlock()
				stream := h.nextLocked()
				block := h.blockLocked("/", fields...)
				if err := h.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block}); err != nil {
					return err
				}
				for !t.over() {
					if i%2 == 0 {
						block = nil // empty frames cost a sender next to nothing
					} else {
						block = h.blockLocked("/", fields...)
					}
					if err := h.WriteContinuation(stream, false, block); err != nil {
						return err
					}
				}
				return h.out.Flush()
			})
		},
	}, {
		name: "HPACK bomb", what: "4 HTTP/2 connections have 250 streams each, whose 600 bytes of headers are 2 MB when they are decoded", https: true, h2c: true,
		do: func(t *trial) {
			t.connect(4, func(_ int, c *conn) {
				h := t.http2(c)
				if h == nil {
					return
				}
				var fields []string
				for range 500 { // the dynamic table has it once, and each is a byte
					fields = append(fields, "x-bomb", strings.Repeat("b", 4_000))
				}
				for range 250 {
					_ = h.get("/", fields...) // an error comes again from flush
				}
				_ = h.flush() // the proxy may close the connection
			})
			t.hold(lasts)
		},
	}, {
		name: "rapid reset", what: "4 HTTP/2 connections begin requests for a slow upstream, and reset each at once", https: true, h2c: true,
		settings: busy,
		do: func(t *trial) {
			t.again(4, func(_ int, h *h2) error { return h.beginAndReset(50, 0) })
		},
	}, {
		name: "reset after a moment", what: "the same, but each is reset after 5 ms", https: true, h2c: true,
		settings: busy,
		do: func(t *trial) {
			t.again(4, func(_ int, h *h2) error { return h.beginAndReset(20, 5*time.Millisecond) })
		},
	}, {
		name: "callers who leave", what: "16 callers ask a slow upstream over HTTP/1.1, and leave after a moment, over and over",
		settings: busy,
		do: func(t *trial) {
			var leaving sync.WaitGroup
			ends := time.Now().Add(lasts)
			for i := range 16 {
				leaving.Go(func() {
					for time.Now().Before(ends) && !t.over() {
						if c := t.dial(&net.Dialer{}); c != nil {
							_ = t.get(c, "/") // the proxy may have no room
							time.Sleep(time.Duration(i) * time.Millisecond)
							_ = c.Conn.(*net.TCPConn).SetLinger(0) // a reset
							c.Close()
						}
					}
				})
			}
			leaving.Wait()
		},
	}, {
		name: "frame flood", what: "8 HTTP/2 connections send PING and SETTINGS without end, and read no answer", https: true, h2c: true,
		do: func(t *trial) {
			t.connectWith(smallWindow, 8, func(_ int, c *conn) {
				secured := t.secure(c, "h2")
				if secured == nil {
					return
				}
				out := bufio.NewWriter(secured)
				framer := http2.NewFramer(out, nil)
				_, err := out.WriteString(http2.ClientPreface)
				for err == nil && !t.over() {
					_ = framer.WriteSettings() // out keeps an error
					err = framer.WritePing(false, [8]byte{})
				}
			})
			t.hold(lasts)
		},
	}, {
		name: "large bodies", what: "20 callers send bodies without end, with GET and with POST",
		do: func(t *trial) {
			t.connect(20, func(i int, c *conn) {
				t.running.Go(func() { t.receive(bufio.NewReader(c)) })
				head := "GET / HTTP/1.1\r\nHost: attack.test\r\nContent-Length: 1000000000000\r\n\r\n"
				if i%2 == 0 {
					head = "POST / HTTP/1.1\r\nHost: attack.test\r\nTransfer-Encoding: chunked\r\n\r\n"
				}
				t.requests.Add(1)
				_, err := io.WriteString(c, head)
				for chunk := fmt.Sprintf("%x\r\n%s\r\n", 32<<10, strings.Repeat("b", 32<<10)); err == nil; {
					_, err = io.WriteString(c, chunk)
				}
			})
			t.hold(lasts)
		},
	}, {
		name: "pipelined requests", what: "8 callers send 5,000 requests in one write each, and half of them read no answer",
		do: func(t *trial) {
			const requests = 5_000
			all := strings.Repeat("GET / HTTP/1.1\r\nHost: attack.test\r\n\r\n", requests)
			t.connectWith(smallWindow, 8, func(i int, c *conn) {
				if i%2 == 0 {
					t.running.Go(func() { _, _ = io.Copy(io.Discard, c) })
				}
				t.requests.Add(requests)
				_, _ = io.WriteString(c, all) // the proxy may close the connection
			})
			t.hold(lasts)
		},
	}}
}

// busy makes the upstream take a moment for an RPC, also for one that the client has cancelled.
func busy(t *trial) []string {
	t.up.Handle("", func(context.Context, string) (*healthpb.HealthCheckResponse, error) {
		time.Sleep(100 * time.Millisecond)
		return &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVING}, nil
	})
	return nil
}

// idle opens connections that stay open.
func idle(t *trial) {
	t.connect(2_900, func(i int, c *conn) {
		secured := t.secure(c)
		if secured != nil && i%2 == 0 && t.get(secured, "/livez") == nil {
			_, _ = io.Copy(io.Discard, secured)
		}
	})
	t.hold(lasts)
}

// longNames asks for 100 names of some length, of a caller's own.
func longNames(caller int) string {
	return names(100, "%d.%s", caller, strings.Repeat("n", 50))
}

// hung leaves RPCs for names that callers made up without an answer.
func hung(t *trial) []string {
	t.up.HandleUnknown(func(ctx context.Context, _ string) (*healthpb.HealthCheckResponse, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
	return nil
}

// streams begins streams that ask for the same 100 names: HPACK makes them a few bytes each.
func (t *trial) streams(c *conn, n int) {
	h := t.http2(c)
	if h == nil {
		return
	}
	path := names(100, "n")
	for range n {
		_ = h.get(path) // an error comes again from flush
	}
	_ = h.flush() // the proxy may close the connection
}

// again does something on n HTTP/2 connections over and over, on a new connection where the proxy has closed one, while the
// attack lasts.
func (t *trial) again(n int, do func(i int, h *h2) error) {
	ends := time.Now().Add(lasts)
	if t.short {
		ends = time.Now().Add(lasts / 2)
	}
	over := func() bool { return t.over() || time.Now().After(ends) || !t.proxy.alive() }
	var attacking sync.WaitGroup
	for i := range n {
		attacking.Go(func() {
			for !over() {
				c := t.dial(&net.Dialer{})
				if c == nil {
					time.Sleep(10 * time.Millisecond) // the proxy may have ended a moment ago
					continue
				}
				_ = c.SetDeadline(ends)
				h := t.http2(c)
				for h != nil && !over() && do(i, h) == nil {
				}
				c.Close()
			}
		})
	}
	attacking.Wait()
}

// clientHello returns the first message of a TLS handshake.
func clientHello(t *trial) []byte {
	client, server := net.Pipe()
	defer client.Close()
	defer server.Close()
	go tls.Client(client, t.clientTLS()).Handshake() //nolint:errcheck // it ends with the pipe
	hello := make([]byte, 16<<10)
	n, err := server.Read(hello)
	if err != nil {
		t.Fatal(err)
	}
	return hello[:n]
}
