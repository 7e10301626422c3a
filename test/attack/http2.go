//go:build linux

package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"time"

	"golang.org/x/net/http2"
)

// grpcType makes a request one of the gRPC front.
const grpcType = "application/grpc"

// checkMethod is the front's method that waits for a message.
const checkMethod = "/grpc.health.v1.Health/Check"

// http2Attacks send what only HTTP/2 has, and bodies.
func http2Attacks() []attack {
	return []attack{{
		name: "unread bodies", what: "4 HTTP/2 connections have 100 streams each with a body of 16 KiB that nobody reads, and ask a hung upstream", https: true, h2c: true,
		settings: hung,
		do: func(t *trial) {
			t.connect(4, func(i int, c *conn) { t.bodies(c, 100, names(1, "b%d.", i), maxBody) })
			t.hold(lasts / 2)
		},
	}, {
		name: "a byte of each body", what: "40 HTTP/2 connections have 100 streams each, and send a byte of a body of 16 KiB on each",
		settings: hung,
		do: func(t *trial) {
			t.connect(40, func(i int, c *conn) { t.bodies(c, 100, names(1, "b%d.", i), 1) })
			t.hold(lasts / 2)
		},
	}, {
		name: "messages that never end", what: "40 HTTP/2 connections have 100 gRPC calls each, and send a byte of each message",
		do: func(t *trial) {
			t.connect(40, func(_ int, c *conn) {
				t.bodies(c, 100, checkMethod, 1, "content-type", grpcType, "te", "trailers")
			})
			t.hold(lasts / 2)
		},
	}, {
		name: "bodies and resets", what: "8 HTTP/2 connections send bodies of 16 KiB to a slow upstream, and reset each stream at once", https: true, h2c: true,
		settings: busy,
		do: func(t *trial) {
			t.again(8, func(_ int, h *h2) error {
				if err := h.post("/", maxBody-1); err != nil {
					return err
				}
				h.mu.Lock()
				defer h.mu.Unlock()
				if err := h.WriteRSTStream(h.stream, http2.ErrCodeCancel); err != nil {
					return err
				}
				return h.out.Flush()
			})
		},
	}, {
		name: "gRPC-Web by the byte", what: "600 connections send a gRPC-Web call over HTTP/1.1, a byte of its body per 100 ms",
		do: func(t *trial) {
			t.connect(600, func(_ int, c *conn) {
				t.requests.Add(1)
				_, err := fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: attack.test\r\nContent-Type: application/grpc-web+proto\r\nTransfer-Encoding: chunked\r\n\r\n", checkMethod)
				t.trickle(c, err, "1\r\n\x00\r\n")
			})
			t.hold(lasts / 2)
		},
	}, {
		name: "preface by the byte", what: "400 connections send HTTP/2's preface by a byte per 30 ms, and half of them the wrong end",
		do: func(t *trial) {
			t.connect(400, func(i int, c *conn) {
				preface := []byte(http2.ClientPreface)
				if i%2 == 0 {
					preface[len(preface)-1]++
				}
				for i := range preface {
					if _, err := c.Write(preface[i : i+1]); err != nil || !t.pause(30*time.Millisecond) {
						return
					}
				}
			})
			t.hold(lasts / 2)
		},
	}, {
		name: "idle h2c connections", what: "1,000 HTTP/2 connections without TLS stay open after a frame of 16 KiB, half of them after a request",
		do: func(t *trial) {
			t.connect(1_000, func(i int, c *conn) {
				h := t.http2(c)
				if h == nil {
					return
				}
				_ = h.frame(0x77, maxBody) // of an unknown type, which is ignored
				if i%2 == 0 {
					_ = h.get("/livez") // an error comes again from flush
				}
				_ = h.flush() // the proxy may have no room
			})
			t.hold(lasts / 2)
		},
	}, {
		name: "rubbish after the preface", what: "h2c connections send noise after the preface, over and over", do: func(t *trial) {
			ends := time.Now().Add(lasts / 2)
			noise := make([]byte, 4<<10)
			for i := range noise {
				noise[i] = byte(i*i + i/7)
			}
			for i := range 16 {
				t.running.Go(func() {
					for n := i; time.Now().Before(ends) && !t.over(); n++ {
						if c := t.dial(&net.Dialer{}); c != nil {
							_, _ = io.WriteString(c, http2.ClientPreface+"\x00\x00\x00\x04\x00\x00\x00\x00\x00") // the proxy may have no room
							_, _ = c.Write(noise[n%len(noise)/2:])
							_ = c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
							_, _ = io.Copy(io.Discard, bufio.NewReader(c))
							c.Close()
						}
					}
				})
			}
			t.hold(lasts / 2)
		},
	}, {
		name: "h2c on the metrics port", what: "40 HTTP/2 connections without TLS ask for the metrics on 100 streams each, and let nothing be sent", metrics: true,
		do: func(t *trial) {
			t.connect(40, func(_ int, c *conn) {
				if h := t.http2(c, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}); h != nil {
					for range 100 {
						_ = h.get("/metrics") // an error comes again from flush
					}
					_ = h.flush() // the proxy may close the connection
				}
			})
			t.hold(lasts / 2)
		},
	}}
}

// bodies begins n streams with bodies that have no end, and sends so many bytes of each.
func (t *trial) bodies(c *conn, n int, path string, sent int, fields ...string) {
	h := t.http2(c)
	if h == nil {
		return
	}
	for range n {
		_ = h.post(path, sent, fields...) // an error comes again from flush
	}
	_ = h.flush() // the proxy may close the connection
}

// trickle sends a text every 100 ms, until the connection or the attack ends, or err is one.
func (t *trial) trickle(w io.Writer, err error, text string) {
	for err == nil && t.pause(100*time.Millisecond) {
		_, err = io.WriteString(w, text)
	}
}

// pause waits, and reports whether the attack has not ended.
func (t *trial) pause(d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-t.ctx.Done():
		return false
	}
}

// frame writes a frame of a connection, without sending it yet.
func (h *h2) frame(kind http2.FrameType, size int) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.WriteRawFrame(kind, 0, 0, make([]byte, size))
}
