//go:build linux && long

package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"example.com/grpc-health-http/test/healthtest"
)

// small makes a process divide its memory as in a container of 64 MiB.
var small = []string{"GOMEMLIMIT=48MiB"}

// smallPeak is what such a process may have at most, in KiB: the container, and the pages of the program, which the system can drop.
const smallPeak = 64<<10 + 16<<10

// peak is the most resident memory that the process has had, in KiB.
func (p *process) peak() int {
	p.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		p.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	kib, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		p.t.Fatal(err)
	}
	return kib
}

// held opens connections, sends to each, and returns them; the process may close any.
func (p *process) held(n int, send func(i int) string, config *tls.Config) (release func()) {
	var mu sync.Mutex
	var all []net.Conn
	together(n, 32, func(i int) {
		c, err := p.connect(p.health, config)
		if err != nil {
			return // it made room before its handshake had ended
		}
		_ = c.SetWriteDeadline(time.Now().Add(patience))
		_, _ = io.WriteString(c, send(i)) // an error says that it made room
		mu.Lock()
		defer mu.Unlock()
		all = append(all, c)
	})
	return func() {
		for _, c := range all {
			c.Close()
		}
	}
}

// streams sends requests for a path side by side over one HTTP/2 connection, and reads nothing but what is needed to send them.
func (p *process) streams(n int, path string, window uint32, config *tls.Config) (release func()) {
	p.t.Helper()
	config = config.Clone()
	config.NextProtos = []string{"h2"}
	c, err := p.connect(p.health, config)
	if err != nil {
		return func() {} // it made room
	}
	framer := http2.NewFramer(c, c)
	_, _ = io.WriteString(c, http2.ClientPreface) // errors say that the connection made room
	_ = framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: window})
	var block strings.Builder
	encoder := hpack.NewEncoder(&block)
	for i := range n {
		block.Reset()
		for _, f := range [][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", "test"}, {":path", path}} {
			_ = encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}) // to a Builder
		}
		_ = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: uint32(2*i + 1), BlockFragment: []byte(block.String()), EndStream: true, EndHeaders: true})
	}
	go func() { _, _ = io.Copy(io.Discard, c) }() // flow control holds the answers back
	return func() { c.Close() }
}

// beside asks for what is configured and for /livez, each over a connection of its own, until stop is called. It fails the test
// where an answer is not right, or late.
func (p *process) beside(config *tls.Config) (stop func()) {
	done := make(chan struct{})
	var asking sync.WaitGroup
	for target, want := range map[string]string{"/": "SERVING\n", "/livez": "ok\n"} {
		asking.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-done:
					p.t.Logf("%s: %d answers beside the attack", target, n)
					return
				case <-time.After(50 * time.Millisecond):
				}
				c, err := p.connect(p.health, config)
				if err != nil {
					p.t.Errorf("%s beside the attack: %v", target, err)
					continue
				}
				if r, err := c.get(target); err != nil || r.code != http.StatusOK || r.body != want || r.took > budget+slack {
					p.t.Errorf("%s beside the attack: %+v, %v", target, r, err)
				}
				c.Close()
			}
		})
	}
	return func() {
		close(done)
		asking.Wait()
	}
}

// What callers can take is bounded by what the process may use: none of this ends it, and who asks for what is configured meanwhile is
// answered. (test/attack does more of the kind, in a cgroup.)
func TestMemoryIsBounded(t *testing.T) {
	ca := healthtest.NewCA(t)
	cert, key := ca.Server(t).WriteFiles(t, t.TempDir(), "listener")
	secure := []string{"-https-listen-cert=" + cert, "-https-listen-key=" + key}
	clientTLS := &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost", NextProtos: []string{"http/1.1"}}
	var hundred []string
	for i := range 100 {
		hundred = append(hundred, fmt.Sprint("made.up.", i))
	}
	names := "/?service=" + strings.Join(hundred, "&service=")
	request := func(target string) string { return "GET " + target + " HTTP/1.1\r\nHost: test\r\n\r\n" }
	var fields strings.Builder
	for i := 0; fields.Len() < 15<<10; i++ {
		fields.WriteString(strconv.FormatInt(int64(i), 36) + ":\r\n")
	}
	for name, test := range map[string]struct {
		args   []string
		attack func(p *process) (release func())
	}{
		"unfinished headers": {nil, func(p *process) func() {
			return p.held(400, func(int) string { return "GET / HTTP/1.1\r\n" + fields.String() }, nil)
		}},
		"whole headers": {nil, func(p *process) func() {
			return p.held(400, func(int) string { return "GET /?service=made.up HTTP/1.1\r\nHost: test\r\n" + fields.String() + "\r\n" }, nil)
		}},
		"waiting requests": {nil, func(p *process) func() {
			return p.held(3000, func(i int) string { return request(fmt.Sprint("/?service=made.up.", i%7)) }, nil)
		}},
		"idle connections": {nil, func(p *process) func() {
			return p.held(2900, func(int) string { return request("/livez") }, nil)
		}},
		"idle connections with TLS": {secure, func(p *process) func() {
			return p.held(1500, func(int) string { return request("/livez") }, clientTLS)
		}},
		"many names": {nil, func(p *process) func() {
			return p.held(100, func(int) string { return request(names) }, nil)
		}},
		"slow readers": {nil, func(p *process) func() {
			return p.held(400, func(int) string { return strings.Repeat(request("/?format=html&service=page"), 16) }, nil)
		}},
		"streams of many names": {secure, func(p *process) func() {
			return p.streams(60, names, 1<<16, clientTLS)
		}},
		"streams that read nothing": {secure, func(p *process) func() {
			var all []func()
			for range 40 {
				all = append(all, p.streams(100, "/?format=html", 0, clientTLS))
			}
			return func() {
				for _, release := range all {
					release()
				}
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			up := healthtest.Start(t)
			up.SetStatus("page", healthpb.HealthCheckResponse_SERVING)
			up.HandleUnknown(func(ctx context.Context, _ string) (*healthpb.HealthCheckResponse, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			})
			p := start(t, small, append(test.args, "-grpc-addr="+up.Addr())...)
			var config *tls.Config
			if test.args != nil {
				config = clientTLS
			}
			side := p.beside(config)
			release := test.attack(p)
			time.Sleep(2 * time.Second) // the attack lasts
			side()
			release()
			if kib := p.peak(); kib > smallPeak {
				t.Errorf("the process had %d KiB", kib)
			} else {
				t.Logf("the process had %d KiB", kib)
			}
		})
	}
}
