//go:build linux && long

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"example.com/grpc-health-http/test/healthtest"
)

// usage is what a process has in use, by its own metrics.
type usage struct {
	goroutines, descriptors int
	heap                    int // bytes
}

func (p *process) usage() usage {
	p.t.Helper()
	values := make(map[string]int)
	for line := range strings.Lines(p.scrape()) {
		name, text, _ := strings.Cut(strings.TrimSpace(line), " ")
		if value, err := strconv.ParseFloat(text, 64); err == nil {
			values[name] = int(value)
		}
	}
	return usage{values["go_goroutines"], values["process_open_fds"], values["go_memstats_heap_alloc_bytes"]}
}

// frugal makes a process collect garbage often, so that its heap is what it holds.
var frugal = []string{"GOGC=10"}

// roomy is frugal, and lets the process take thousands of callers at once.
var roomy = append(frugal[:1:1], "GOMEMLIMIT=1GiB")

// rest is what a process with nothing to do has in use, after a few checks.
func (p *process) rest() usage {
	p.t.Helper()
	for range 20 {
		if r, err := p.dial().get("/", "Connection: close"); err != nil || r.code != http.StatusOK {
			p.t.Fatalf("before the load: %+v, %v", r, err)
		}
	}
	u := p.usage()
	if u.goroutines == 0 || u.descriptors == 0 || u.heap == 0 {
		p.t.Fatalf("metrics tell %+v", u)
	}
	return u
}

// wantRest waits until no more is in use than was before, but for a little, and for room in the heap, in
// bytes: a map that was large keeps its buckets.
func (p *process) wantRest(before usage, room int) {
	p.t.Helper()
	var now usage
	defer func() { p.t.Logf("before the load %+v, after it %+v", before, now) }()
	eventually(p.t, "as little in use as before the load", func() bool {
		now = p.usage()
		return now.goroutines <= before.goroutines+20 && now.descriptors <= before.descriptors+10 && now.heap <= before.heap+room
	})
}

// asking asks for a target over and over, each time as soon as the answer to the last is there and a
// moment has passed, until stop is called. It fails the test where an answer is not SERVING, or late.
func (p *process) asking(target string) (stop func()) {
	done := make(chan struct{})
	var asking sync.WaitGroup
	var answers atomic.Int64
	for range 4 {
		c := p.dial()
		asking.Go(func() {
			for {
				r, err := c.get(target)
				switch {
				case err != nil:
					p.t.Errorf("%s beside the load: %v", target, err)
					return
				case r.code != http.StatusOK || r.header.Get("Grpc-Health-Status") != "SERVING" || r.took > budget+slack:
					p.t.Errorf("%s beside the load: %+v", target, r)
				}
				answers.Add(1)
				select {
				case <-done:
					c.Close()
					return
				case <-time.After(5 * time.Millisecond):
				}
			}
		})
	}
	return func() {
		close(done)
		asking.Wait()
		p.t.Logf("%s: %d answers beside the load, all SERVING", target, answers.Load())
	}
}

// together calls do(0) to do(n-1), as many at a time as workers.
func together(n, workers int, do func(i int)) {
	var next atomic.Int64
	var working sync.WaitGroup
	for range workers {
		working.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				do(i)
			}
		})
	}
	working.Wait()
}

// raise makes a maximum at least n.
func raise(maximum *atomic.Int64, n int64) {
	for m := maximum.Load(); n > m && !maximum.CompareAndSwap(m, n); m = maximum.Load() {
	}
}

// Ten thousand idle connections, and a thousand clients whose headers never end, keep no check from its
// answer. The slow ones are cut off, and what all of them took is given back.
func TestIdleAndSlowClients(t *testing.T) {
	t.Parallel()
	const idle, slow = 10_000, 1_000
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	// A listener has five eighths, and here other tests want some, too. Go has raised the limit as far as it may.
	if want := uint64((idle+slow)*8/5 + 1_000); limit.Cur < want {
		t.Skipf("this machine allows %d open files, %d are wanted: raise the hard limit (ulimit -Hn)", limit.Cur, want)
	}
	up := healthtest.Start(t)
	p := start(t, roomy, "-grpc-addr="+up.Addr())
	before := p.rest()
	stop := p.asking("/")

	connections := make([]*caller, idle+slow)
	defer func() {
		for _, c := range connections {
			if c != nil {
				c.Close()
			}
		}
	}()
	together(len(connections), 8, func(i int) {
		c, err := p.connect(p.health, nil)
		if err != nil {
			t.Error(err)
			return
		}
		connections[i] = c
		if i >= idle {
			_, err = io.WriteString(c, "GET / HTTP/1.1\r\nHost: test\r\nX-Never-Ends: ")
		} else {
			_, err = c.get("/livez")
		}
		if err != nil {
			t.Error(err)
		}
	})
	if t.Failed() {
		return
	}
	eventually(t, "all connections are open", func() bool { return p.usage().descriptors >= idle })
	t.Logf("with %d idle and %d slow clients: %+v", idle, slow, p.usage())

	// One more byte each second: what counts is the time of the whole, not that of a byte.
	open := connections[idle:]
	for end := time.Now().Add(patience); len(open) > 0; {
		if time.Now().After(end) {
			t.Fatalf("%d slow clients are not cut off", len(open))
		}
		var left []*caller
		for _, c := range open {
			_ = c.SetReadDeadline(time.Now().Add(time.Millisecond))
			_, err := c.answer.Peek(1)
			if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
				left = append(left, c)
				_, _ = io.WriteString(c, "x") // an error comes up at the next look
			}
		}
		open = left
	}
	for _, c := range connections[:100] { // the idle ones are not
		_ = c.SetReadDeadline(time.Now().Add(patience))
		if r, err := c.get("/"); err != nil || r.code != http.StatusOK {
			t.Errorf("over a connection that was idle: %+v, %v", r, err)
		}
	}
	stop()
	for _, c := range connections {
		c.Close()
	}
	p.wantRest(before, 16<<20)
}

// Those who open more connections than the process can have open files cannot take the files that a check
// needs: no verdict is a false one, and others are let in.
func TestMoreConnectionsThanFiles(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	p := startBy(t, []string{"sh", "-c", `ulimit -n 64 && exec "$0" "$@"`}, nil, "-grpc-addr="+up.Addr(), "-conn-max-age=0s")
	get := func(target string) (*reply, error) {
		c := p.dial() // which stays open
		_ = c.SetDeadline(time.Now().Add(budget))
		return c.get(target)
	}
	for range 100 {
		if _, err := get("/livez"); err != nil { // there was no room
			break
		}
	}
	for range 50 {
		eventually(t, "an answer", func() bool {
			r, err := get("/")
			if err == nil && r.header.Get("Grpc-Health-Status") != "SERVING" {
				t.Fatalf("%+v", r)
			}
			return err == nil
		})
	}
	if u := p.usage(); u.descriptors > 64 {
		t.Errorf("%+v", u)
	}
}

// Two thousand callers of a hung service get their answer in time, from a few RPCs; the configured
// service beside it is SERVING for everybody. What they took is given back.
func TestHungServiceWithManyCallers(t *testing.T) {
	t.Parallel()
	const callers = 2_000
	up := healthtest.Start(t)
	for _, name := range []string{"well", "hung"} {
		up.SetStatus(name, healthpb.HealthCheckResponse_SERVING)
	}
	release := up.Hang("hung")
	defer release()
	p := start(t, roomy, "-grpc-addr="+up.Addr(), "-service-name=well,hung")
	if r, err := p.dial().get("/?service=well"); err != nil || r.code != http.StatusOK {
		t.Fatalf("%+v, %v", r, err)
	}
	before := p.usage()
	stop := p.asking("/?service=well")
	var slowest atomic.Int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		together(callers, callers, func(int) {
			c, err := p.connect(p.health, nil)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			r, err := c.get("/?service=hung")
			if err != nil || r.code != http.StatusServiceUnavailable || r.header.Get("Grpc-Health-Status") != "TIMEOUT" {
				t.Errorf("%+v, %v, want TIMEOUT", r, err)
				return
			}
			raise(&slowest, int64(r.took))
		})
	}()
	peak := 0
	for waiting := true; waiting; {
		select {
		case <-done:
			waiting = false
		case <-time.After(100 * time.Millisecond):
			peak = max(peak, p.usage().heap)
		}
	}
	stop()
	t.Logf("%d callers: the slowest answer took %v, %d RPCs, %d of them at once, %d bytes of heap at most",
		callers, time.Duration(slowest.Load()), up.RPCsFor("hung"), up.MaxInFlightFor("hung"), peak)
	if peak > before.heap+callers*64<<10 { // a connection with a request that waits takes about 15 KB
		t.Errorf("%d bytes of heap", peak)
	}
	if took := time.Duration(slowest.Load()); took > budget+slack {
		t.Errorf("an answer took %v", took)
	}
	if n := up.MaxInFlightFor("hung"); n > 8 {
		t.Errorf("%d RPCs at once for one service", n)
	}
	eventually(t, "no RPC is left", func() bool { return up.InFlight() == 0 })
	p.wantRest(before, 4<<20)
}

// Ten thousand names that callers make up, all of them of services that hang, take nothing from
// the one that is configured, and leave nothing behind: no RPC, no memory, no series of metrics.
func TestMadeUpNames(t *testing.T) {
	t.Parallel()
	const names, each = 10_000, 10
	up := healthtest.Start(t)
	var inFlight, most atomic.Int64
	up.HandleUnknown(func(ctx context.Context, _ string) (*healthpb.HealthCheckResponse, error) {
		now := inFlight.Add(1)
		defer inFlight.Add(-1)
		raise(&most, now)
		<-ctx.Done()
		return nil, ctx.Err()
	})
	p := start(t, roomy, "-grpc-addr="+up.Addr())
	before := p.rest()
	series := strings.Count(p.scrape(), "\n")
	stop := p.asking("/")
	statuses := make([]atomic.Int64, 2)
	together(names/each, 200, func(i int) {
		target := "/?"
		for n := range each {
			target += fmt.Sprintf("&service=made.up.%d", i*each+n)
		}
		c, err := p.connect(p.health, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		r, err := c.get(target)
		if err != nil || r.code != http.StatusServiceUnavailable || r.took > budget+slack {
			t.Errorf("%+v, %v", r, err)
			return
		}
		statuses[0].Add(int64(strings.Count(r.body, " TIMEOUT\n")))
		statuses[1].Add(int64(strings.Count(r.body, " OVERLOADED\n")))
	})
	stop()
	t.Logf("%d TIMEOUT, %d OVERLOADED, %d RPCs at once", statuses[0].Load(), statuses[1].Load(), most.Load())
	if statuses[0].Load()+statuses[1].Load() != names || statuses[1].Load() == 0 {
		t.Errorf("%d names got %d TIMEOUT and %d OVERLOADED", names, statuses[0].Load(), statuses[1].Load())
	}
	if n := most.Load(); n > 2*100 { // the server learns late that one was given up, and the next one has begun by then
		t.Errorf("%d RPCs at once for made-up names, want about 100 at most", n)
	}
	eventually(t, "no RPC is left", func() bool { return up.InFlight() == 0 })
	if n := strings.Count(p.scrape(), "\n"); n > series+100 {
		t.Errorf("the metrics had %d lines, and have %d now", series, n)
	}
	p.wantRest(before, 4<<20)
}

// SIGTERM under load costs no request that had come before it, over HTTP/1.1 and HTTP/2.
func TestShutdownUnderLoad(t *testing.T) {
	t.Parallel()
	ca := healthtest.NewCA(t)
	cert, key := ca.Server(t).WriteFiles(t, t.TempDir(), "listener")
	for name, args := range map[string][]string{
		"HTTP/1.1": nil,
		"HTTP/2.0": {"-https-listen-cert=" + cert, "-https-listen-key=" + key},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			up := healthtest.Start(t)
			up.SetDelay("", 20*time.Millisecond)
			p := start(t, nil, append(args, "-grpc-addr="+up.Addr())...)
			url := "http://" + p.health
			if args != nil {
				url = "https://" + p.health
			}
			transport := &http.Transport{
				TLSClientConfig: &tls.Config{RootCAs: ca.Pool()}, ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 128,
			}
			defer transport.CloseIdleConnections()
			client := &http.Client{Transport: transport, Timeout: patience}
			var ending atomic.Bool
			var answered atomic.Int64
			var callers sync.WaitGroup
			for range 128 {
				callers.Go(func() {
					for {
						var early atomic.Bool // it was sent before the end
						request, err := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
							WroteRequest: func(httptrace.WroteRequestInfo) { early.Store(!ending.Load()) },
						}), http.MethodGet, url, nil)
						if err != nil {
							t.Error(err)
							return
						}
						response, err := client.Do(request)
						if err != nil {
							// Over HTTP/2 a GOAWAY may say that a request was not looked at; the client then dials anew, in vain.
							unread := name == "HTTP/2.0" && errors.Is(err, syscall.ECONNREFUSED)
							if early.Load() && !unread {
								t.Errorf("a request that came before the end is lost: %v", err)
							}
							return
						}
						body, err := io.ReadAll(response.Body)
						response.Body.Close()
						if err != nil || response.StatusCode != http.StatusOK || string(body) != "SERVING\n" || response.Proto != name {
							t.Errorf("%s %s %q, %v", response.Proto, response.Status, body, err)
						}
						answered.Add(1)
					}
				})
			}
			eventually(t, "the load is on", func() bool { return answered.Load() > 1_000 })
			ending.Store(true)
			if code := p.signalled(syscall.SIGTERM); code != 0 {
				t.Errorf("exit code %d", code)
			}
			callers.Wait()
			t.Logf("%d answers", answered.Load())
		})
	}
}
