package dial_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"example.com/grpc-health-http/internal/clock"
	"example.com/grpc-health-http/internal/dial"
	"example.com/grpc-health-http/internal/grpcconn"
	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/internal/target"
	"example.com/grpc-health-http/test/healthtest"
)

const (
	ms     = time.Millisecond
	budget = time.Second
)

// parse is a target.
func parse(t testing.TB, text string) target.Target {
	t.Helper()
	parsed, err := target.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

// world is a Dialer in a bubble, whose time begins at 0, with an upstream in memory, of which Connect may reach each address
// by another way.
type world struct {
	t     *testing.T
	o     dial.Options
	up    *healthtest.Upstream
	way   *healthtest.Memory
	start time.Time
	jump  atomic.Int64 // nanoseconds for which the process was stopped

	mu      sync.Mutex
	connect map[string]func(ctx context.Context) (net.Conn, error) // by address; others go by way
	tried   []string                                               // addresses, with the time
	told    []string                                               // by the Trace
}

func bubble(t *testing.T, test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		way := healthtest.NewMemory(t)
		w := &world{t: t, way: way, up: healthtest.Start(t, healthtest.On(way)), start: time.Now(), connect: make(map[string]func(context.Context) (net.Conn, error))}
		tell := func(what string) { w.mu.Lock(); defer w.mu.Unlock(); w.told = append(w.told, what) }
		w.o = dial.Options{
			Target: parse(t, "192.0.2.1:1"), ConnectTimeout: budget,
			Connect: func(ctx context.Context, network, address string) (net.Conn, error) {
				w.mu.Lock()
				w.tried = append(w.tried, fmt.Sprintf("%s at %v", address, w.now()))
				connect := w.connect[address]
				w.mu.Unlock()
				if connect != nil {
					return connect(ctx)
				}
				return way.Connect(ctx, network, address)
			},
			Trace: &health.Trace{
				Dial:  func(result string) { tell("dial " + result) },
				Retry: func(reason string) { tell("retry " + reason) },
			},
		}
		test(t, w)
		synctest.Wait()
		if n := way.OpenConnections(); n > 0 {
			t.Errorf("%d connections are left", n)
		}
	})
}

func (w *world) now() time.Duration { return time.Since(w.start) }

func (w *world) clock() *clock.Running {
	c := clock.NewRunning(func() clock.Moment {
		at := int64(w.now()) + w.jump.Load()
		return clock.Moment{Mono: at, Wall: at}
	})
	c.Begin() // a check is in progress
	return c
}

// dial dials, makes an RPC on the connection, and closes it. took is the bubble's time, which is exact.
func (w *world) dial() (d health.Dial, took time.Duration) {
	w.t.Helper()
	return w.dialWith(w.t.Context(), new(dial.Progress))
}

func (w *world) dialWith(ctx context.Context, p *dial.Progress) (d health.Dial, took time.Duration) {
	w.t.Helper()
	began := w.now()
	c, d := dial.New(w.o, w.clock()).Dial(ctx, p)
	took = w.now() - began
	if (c == nil) != (d.Err != nil) || (d.Err == nil) != (d.Phase == health.PhaseNone) {
		w.t.Errorf("connection %v, phase %q, error %v", c != nil, d.Phase, d.Err)
	}
	if c != nil {
		rpc, cancel := context.WithTimeout(w.t.Context(), time.Minute)
		defer cancel()
		if a := c.Do(rpc, grpcconn.Request{}, nil, new(grpcconn.Progress)); a.Status != health.Serving {
			w.t.Errorf("an RPC: %v", a)
		}
		c.Close()
		synctest.Wait()
	}
	return d, took
}

// want checks how a dial ended.
func want(t *testing.T, d health.Dial, phase health.Phase, cause string) {
	t.Helper()
	if d.Phase != phase || d.Err == nil && cause != "" || d.Err != nil && !strings.Contains(d.Err.Error(), cause) {
		t.Errorf("phase %q, %v; want %q and %q", d.Phase, d.Err, phase, cause)
	}
}

func hang(ctx context.Context) (net.Conn, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func refuse(context.Context) (net.Conn, error) { return nil, syscall.ECONNREFUSED }

// after delays what comes.
func after(d time.Duration, connect func(context.Context) (net.Conn, error)) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		select {
		case <-time.After(d):
			return connect(ctx)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// stuck is what can hang in each phase of a dial.
var stuck = []struct {
	name    string
	phase   health.Phase
	cause   string
	arrange func(w *world)
}{
	{"credentials", health.PhaseCredentials, "the credentials did not come within 1s", func(w *world) {
		w.o.Credentials = func(ctx context.Context, _ bool) (credentials.TransportCredentials, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
	}},
	{"one of the credentials", health.PhaseCredentials, "the credentials did not come within 1s: CA_CERT ca.pem: not loaded in time", func(w *world) {
		w.o.Credentials = func(ctx context.Context, _ bool) (credentials.TransportCredentials, error) {
			<-ctx.Done()
			return nil, fmt.Errorf("CA_CERT ca.pem: not loaded in time: %w", context.Cause(ctx))
		}
	}},
	{"lookup", health.PhaseDNS, "the target's host was not looked up within 1s", func(w *world) {
		w.o.Target = parse(w.t, "upstream.test:1")
		w.o.Lookup = func(ctx context.Context, _, _ string, _ bool) ([]netip.Addr, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
	}},
	{"connect", health.PhaseConnect, "no connection to 192.0.2.1:1 within 1s", func(w *world) { w.way.SetMode(healthtest.Backlogged) }},
	{"the proxy's answer", health.PhaseConnect, "no connection to 192.0.2.1:1 within 1s", func(w *world) {
		w.way.SetMode(healthtest.Silent)
		w.o.Proxy = func(string) (*url.URL, error) { return &url.URL{Scheme: "http", Host: "192.0.2.9:3128"}, nil }
	}},
	{"TLS handshake", health.PhaseTLS, "the TLS handshake with 192.0.2.1:1 did not end within 1s", func(w *world) {
		w.way.SetMode(healthtest.Silent)
		w.o.Credentials = always(credentials.NewTLS(nil))
	}},
	{"SETTINGS", health.PhaseHTTP2, "no HTTP/2 SETTINGS from 192.0.2.1:1 within 1s", func(w *world) { w.way.SetMode(healthtest.Silent) }},
}

func always(tc credentials.TransportCredentials) func(context.Context, bool) (credentials.TransportCredentials, error) {
	return func(context.Context, bool) (credentials.TransportCredentials, error) { return tc, nil }
}

// Whatever hangs, a dial ends when its budget is used up, to the nanosecond, and says what it was. Until then its Progress does.
func TestBudget(t *testing.T) {
	t.Parallel()
	for _, row := range stuck {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T, w *world) {
				row.arrange(w)
				p := dial.NewProgress(clock.Moment{})
				time.AfterFunc(700*ms, func() {
					now := clock.Moment{Mono: int64(700 * ms)}
					s := p.Snapshot(now)
					if p.Phase() != row.phase || s.Phase != row.phase || s.Took != 700*ms || !errors.Is(s.Err, health.ErrInProgress) {
						t.Errorf("phase %q, shown %q for %v: %v", p.Phase(), s.Phase, s.Took, s.Err)
					}
					reached := row.phase != health.PhaseCredentials && row.phase != health.PhaseDNS
					if reached != (len(s.Addresses) == 1) || reached && (s.Addresses[0].Phase != row.phase || !errors.Is(s.Addresses[0].Err, health.ErrInProgress)) {
						t.Errorf("addresses %+v", s.Addresses)
					}
				})
				d, took := w.dialWith(t.Context(), p)
				want(t, d, row.phase, row.cause)
				if took != budget || !errors.Is(d.Err, clock.ErrBudget) || d.Took != budget {
					t.Errorf("took %v, by what it says %v: %v", took, d.Took, d.Err)
				}
				if !slices.Equal(w.told, []string{"dial " + string(row.phase)}) {
					t.Errorf("told %q", w.told)
				}
			})
		})
	}
}

// The caller can end a dial at any time; that is no failure to tell.
func TestCancel(t *testing.T) {
	t.Parallel()
	for _, row := range stuck {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T, w *world) {
				row.arrange(w)
				ctx, cancel := context.WithCancel(t.Context())
				time.AfterFunc(123*ms, cancel)
				d, took := w.dialWith(ctx, new(dial.Progress))
				want(t, d, row.phase, "context canceled")
				if took != 123*ms || errors.Is(d.Err, clock.ErrBudget) || len(w.told) > 0 {
					t.Errorf("took %v: %v; told %q", took, d.Err, w.told)
				}
			})
		})
	}
}

// A stopped process uses up no budget.
func TestStoppedProcess(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, w *world) {
		w.way.Hold(900 * ms)
		time.AfterFunc(500*ms, func() { w.jump.Add(int64(time.Hour)) })
		if d, took := w.dial(); d.Err != nil || took != 900*ms || !slices.Equal(w.told, []string{"dial ok"}) {
			t.Errorf("after %v: %v; told %q", took, d.Err, w.told)
		}
	})
}

// A peer that gives up before its SETTINGS ends the dial at once, or after the short time in which the rest of what it says is
// read; and never after the budget.
func TestPeerGivesUpBeforeSettings(t *testing.T) {
	t.Parallel()
	const rest = 20 * ms
	for _, at := range []time.Duration{2 * ms, budget - 5*ms} {
		for _, row := range []struct {
			name   string
			handle func(server net.Conn)
			within time.Duration
			cause  string
		}{
			{"closes", func(server net.Conn) { server.Close() }, 0, "closed by the peer"},
			{"speaks something else", func(server net.Conn) { io.WriteString(server, "220 mail.example ESMTP\r\n") }, rest, "what came is not HTTP/2"},
			{"speaks HTTP/1", func(server net.Conn) { io.WriteString(server, "HTTP/1.1 400 Bad Request\r\n\r\n") }, rest, "it speaks HTTP/1"},
		} {
			bubble(t, func(t *testing.T, w *world) {
				w.way.Handle(func(server net.Conn) {
					go io.Copy(io.Discard, server)
					time.Sleep(at)
					row.handle(server)
				})
				d, took := w.dial()
				want(t, d, health.PhaseHTTP2, "")
				if took < at || took > min(at+row.within, budget) {
					t.Errorf("%s after %v: took %v", row.name, at, took)
				}
				if at+row.within < budget && !strings.Contains(d.Err.Error(), row.cause) {
					t.Errorf("%s after %v: %v", row.name, at, d.Err)
				}
			})
		}
	}
}

// four has the world look up four addresses.
func (w *world) four() {
	w.o.Target = parse(w.t, "upstream.test:1")
	w.o.Lookup = func(context.Context, string, string, bool) ([]netip.Addr, error) {
		var all []netip.Addr
		for i := range byte(4) {
			all = append(all, netip.AddrFrom4([4]byte{192, 0, 2, 1 + i}))
		}
		return all, nil
	}
}

// Addresses that hang do not keep the credentials from being read again when TLS has failed on the others, nor those from being tried
// within the budget.
func TestRefreshBesideAnAddressThatHangs(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		budget time.Duration
		hang   []string
		took   time.Duration
	}{
		{2 * time.Second, []string{"192.0.2.1:1"}, 250 * ms},
		{2 * time.Second, []string{"192.0.2.1:1", "192.0.2.3:1"}, 500 * ms},
		{300 * ms, []string{"192.0.2.1:1"}, 75 * ms},
		{300 * ms, []string{"192.0.2.1:1", "192.0.2.4:1"}, 131250 * time.Microsecond},
		{300 * ms, []string{"192.0.2.1:1", "192.0.2.2:1", "192.0.2.3:1"}, 225 * ms},
	} {
		bubble(t, func(t *testing.T, w *world) {
			w.four()
			w.o.ConnectTimeout = row.budget
			w.connect = make(map[string]func(context.Context) (net.Conn, error))
			for _, to := range row.hang {
				w.connect[to] = hang
			}
			rotated := insecure.NewCredentials()
			stale := &failing{rotated, errors.New("unknown authority")}
			w.o.Credentials = func(_ context.Context, refresh bool) (credentials.TransportCredentials, error) {
				if refresh {
					return rotated, nil
				}
				return stale, nil
			}
			d, took := w.dial()
			want(t, d, health.PhaseNone, "")
			if took != row.took {
				t.Errorf("%v, %q hang: took %v, want %v; tried %q", row.budget, row.hang, took, row.took, w.tried)
			}
		})
	}
}

// Addresses are raced: each has a head start, less where the budget is short, and the next one follows at once where one has failed. The
// first connection wins, and the others are closed.
func TestRace(t *testing.T) {
	t.Parallel()
	type ways map[string]func(context.Context) (net.Conn, error)
	const first, second, third = "192.0.2.1:1", "192.0.2.2:1", "192.0.2.3:1"
	for _, row := range []struct {
		name   string
		budget time.Duration
		ways   func(w *world) ways
		tried  []string
		took   time.Duration
		err    string
	}{
		{"the first serves", 4 * time.Second, func(*world) ways { return nil }, []string{first + " at 0s"}, 0, ""},
		{"the first is slow", 4 * time.Second, func(w *world) ways { return ways{first: after(249*ms, w.memory)} }, []string{first + " at 0s"}, 249 * ms, ""},
		{"the first is too slow", 4 * time.Second, func(w *world) ways { return ways{first: after(251*ms, w.memory)} },
			[]string{first + " at 0s", second + " at 250ms"}, 250 * ms, ""},
		{"two hang", 4 * time.Second, func(*world) ways { return ways{first: hang, second: hang} },
			[]string{first + " at 0s", second + " at 250ms", third + " at 500ms"}, 500 * ms, ""},
		{"the first fails", 4 * time.Second, func(*world) ways { return ways{first: after(10*ms, refuse), second: hang} },
			[]string{first + " at 0s", second + " at 10ms", third + " at 260ms"}, 260 * ms, ""},
		{"a short budget", 400 * ms, func(*world) ways { return ways{first: hang, second: hang} },
			[]string{first + " at 0s", second + " at 100ms", third + " at 200ms"}, 200 * ms, ""},
		{"a very short budget", 35 * ms, func(*world) ways { return ways{first: hang, second: hang} },
			[]string{first + " at 0s", second + " at 8.75ms", third + " at 17.5ms"}, 17500 * time.Microsecond, ""},
		{"the slow one wins after all", 4 * time.Second, func(w *world) ways { return ways{first: after(400*ms, w.memory), second: hang} },
			[]string{first + " at 0s", second + " at 250ms"}, 400 * ms, ""},
		{"all refuse", 4 * time.Second, func(*world) ways {
			return ways{first: refuse, second: refuse, third: refuse, "192.0.2.4:1": refuse}
		}, []string{first + " at 0s", second + " at 0s", third + " at 0s", "192.0.2.4:1 at 0s"}, 0, "connection refused"},
		{"all hang", time.Second, func(*world) ways { return ways{first: hang, second: hang, third: hang, "192.0.2.4:1": hang} },
			[]string{first + " at 0s", second + " at 250ms", third + " at 500ms", "192.0.2.4:1 at 750ms"}, time.Second, "within 1s"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T, w *world) {
				w.four()
				w.o.ConnectTimeout = row.budget
				w.connect = row.ways(w)
				d, took := w.dial()
				if took != row.took || !slices.Equal(w.tried, row.tried) {
					t.Errorf("took %v, want %v; tried %q, want %q", took, row.took, w.tried, row.tried)
				}
				phase := health.PhaseConnect
				if row.err == "" {
					phase = health.PhaseNone
				}
				want(t, d, phase, row.err)
				if len(d.Addresses) != len(row.tried) {
					t.Errorf("%d addresses are shown, want %d", len(d.Addresses), len(row.tried))
				}
			})
		})
	}
}

// memory connects to the upstream.
func (w *world) memory(ctx context.Context) (net.Conn, error) { return w.way.Connect(ctx, "", "") }

// Of those that do not win, one that connects later is closed; bubble sees to it. And of the failures, that of the address that came
// furthest is the dial's.
func TestLosersOfARace(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, w *world) {
		w.four()
		w.o.ConnectTimeout = 4 * time.Second
		ctxIgnored := func(context.Context) (net.Conn, error) {
			time.Sleep(2 * time.Second) // until long after another one has won
			return w.memory(t.Context())
		}
		w.connect["192.0.2.1:1"] = ctxIgnored
		if d, took := w.dial(); d.Err != nil || took != 250*ms {
			t.Errorf("after %v: %v", took, d.Err)
		}
		time.Sleep(3 * time.Second)
	})
	for range 50 {
		bubble(t, func(t *testing.T, w *world) { // two connect at the same moment
			w.four()
			w.o.ConnectTimeout = 4 * time.Second
			w.connect["192.0.2.1:1"], w.connect["192.0.2.2:1"] = after(300*ms, w.memory), after(50*ms, w.memory)
			if d, took := w.dial(); d.Err != nil || took != 300*ms {
				t.Errorf("after %v: %v", took, d.Err)
			}
		})
	}
	bubble(t, func(t *testing.T, w *world) {
		w.four()
		w.o.ConnectTimeout = 4 * time.Second
		for _, address := range []string{"192.0.2.1:1", "192.0.2.2:1", "192.0.2.4:1"} {
			w.connect[address] = refuse
		}
		w.way.Handle(func(server net.Conn) { server.Close() })
		d, _ := w.dial()
		want(t, d, health.PhaseHTTP2, "192.0.2.3:1")
		for i, phase := range []health.Phase{health.PhaseConnect, health.PhaseConnect, health.PhaseHTTP2, health.PhaseConnect} {
			if a := d.Addresses[i]; a.Phase != phase || a.Err == nil || a.Address != fmt.Sprintf("192.0.2.%d:1", i+1) {
				t.Errorf("address %d: %+v", i, a)
			}
		}
	})
}

// A Progress shows every address of a race.
func TestProgressOfARace(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, w *world) {
		w.four()
		w.o.ConnectTimeout = 4 * time.Second
		w.connect["192.0.2.1:1"] = after(100*ms, refuse)
		w.connect["192.0.2.2:1"] = hang
		w.way.SetMode(healthtest.Silent)
		lookup := w.o.Lookup
		w.o.Lookup = func(ctx context.Context, network, host string, again bool) ([]netip.Addr, error) {
			time.Sleep(50 * ms)
			return lookup(ctx, network, host, again)
		}
		p := dial.NewProgress(clock.Moment{})
		if p.Phase() != health.PhaseCredentials {
			t.Errorf("phase %q before the dial began", p.Phase())
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(450*ms, func() {
			s := p.Snapshot(clock.Moment{Mono: int64(450 * ms)})
			if s.Phase != health.PhaseHTTP2 || s.Lookup != 50*ms || len(s.Addresses) != 3 {
				t.Errorf("shown %+v", s)
				cancel()
				return
			}
			for i, row := range []struct {
				phase health.Phase
				err   error
			}{{health.PhaseConnect, syscall.ECONNREFUSED}, {health.PhaseConnect, health.ErrInProgress}, {health.PhaseHTTP2, health.ErrInProgress}} {
				if a := s.Addresses[i]; a.Phase != row.phase || !errors.Is(a.Err, row.err) {
					t.Errorf("address %d: phase %q, %v", i, a.Phase, a.Err)
				}
			}
			cancel()
		})
		w.dialWith(ctx, p)
	})
}

// Redial dials again until the budget is used up; what an earlier try met is the cause where the budget ended the last one no
// further on.
func TestRedial(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, w *world) { // a server that is just starting
		w.o.Redial = 50 * ms
		w.up.Stop()
		time.AfterFunc(195*ms, w.up.Restart)
		d, took := w.dial()
		want(t, d, health.PhaseNone, "")
		if took != 200*ms || d.Redials != 4 || d.Took != took {
			t.Errorf("took %v, by what it says %v, with %d redials", took, d.Took, d.Redials)
		}
		if !slices.Equal(w.told, []string{"dial ok"}) {
			t.Errorf("told %q", w.told)
		}
	})
	bubble(t, func(t *testing.T, w *world) { // one that does not come
		w.o.Redial = 50 * ms
		w.way.SetMode(healthtest.Refuse)
		d, took := w.dial()
		want(t, d, health.PhaseConnect, "refused")
		if took != budget || d.Redials < 19 || d.Redials > 20 || errors.Is(d.Err, clock.ErrBudget) {
			t.Errorf("took %v with %d redials: %v", took, d.Redials, d.Err)
		}
	})
	bubble(t, func(t *testing.T, w *world) { // the budget ends a later try no further on
		w.o.Redial = 50 * ms
		w.way.SetMode(healthtest.Refuse)
		time.AfterFunc(500*ms, func() { w.way.SetMode(healthtest.Backlogged) })
		d, took := w.dial()
		want(t, d, health.PhaseConnect, "refused")
		if took != budget {
			t.Errorf("took %v", took)
		}
	})
	bubble(t, func(t *testing.T, w *world) { // or further on
		w.o.Redial = 50 * ms
		w.way.SetMode(healthtest.Refuse)
		time.AfterFunc(500*ms, func() { w.way.SetMode(healthtest.Silent) })
		d, took := w.dial()
		want(t, d, health.PhaseHTTP2, "within 1s")
		if took != budget || !errors.Is(d.Err, clock.ErrBudget) {
			t.Errorf("took %v: %v", took, d.Err)
		}
	})
	bubble(t, func(t *testing.T, w *world) { // credentials that do not come, in a later try
		w.o.Redial = 50 * ms
		w.way.SetMode(healthtest.Refuse)
		held := true
		w.o.Credentials = func(ctx context.Context, _ bool) (credentials.TransportCredentials, error) {
			if held {
				held = false
				return credentials.NewTLS(nil), nil
			}
			<-ctx.Done()
			return nil, ctx.Err()
		}
		d, took := w.dial()
		want(t, d, health.PhaseConnect, "refused")
		if took != budget {
			t.Errorf("took %v", took)
		}
	})
}

// What a server that is just starting may show is tried again: at once where it does not listen yet, and ever later where a lookup
// fails, or something else answers in its place. What another dial cannot change is not.
func TestRedialKinds(t *testing.T) {
	t.Parallel()
	const once = "" // not tried again
	handle := func(f func(server net.Conn)) func(w *world) { return func(w *world) { w.way.Handle(f) } }
	says := func(text string) func(w *world) {
		return handle(func(server net.Conn) {
			go io.Copy(io.Discard, server)
			io.WriteString(server, text)
			server.Close()
		})
	}
	reset := func(context.Context) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Err: syscall.EHOSTUNREACH}
	}
	fails := func(err error) func(w *world) {
		return func(w *world) {
			w.o.Credentials = always(&failing{insecure.NewCredentials(), err})
		}
	}
	tlsTo := func(f func(w *world)) func(w *world) {
		return func(w *world) { f(w); w.o.Credentials = always(credentials.NewTLS(nil)) }
	}
	proxied := func(status string) func(w *world) {
		return func(w *world) {
			w.proxy(func(client net.Conn, _ *http.Request, _ *bufio.Reader) {
				io.WriteString(client, "HTTP/1.1 "+status+"\r\nContent-Length: 0\r\n\r\n")
			})
		}
	}
	const every50, later = "every 50 ms", "after 100, 200, 400 ms"
	for _, row := range []struct {
		name    string
		arrange func(w *world)
		again   string
	}{
		{"refused", func(w *world) { w.way.SetMode(healthtest.Refuse) }, every50},
		{"no such socket", func(w *world) {
			w.o.Target = parse(t, "unix:///run/s")
			w.connect["/run/s"] = func(context.Context) (net.Conn, error) { return nil, &net.OpError{Op: "dial", Err: syscall.ENOENT} }
		}, every50},
		{"a socket that nobody listens on", func(w *world) {
			w.o.Target = parse(t, "unix:///run/s")
			w.connect["/run/s"] = refuse
		}, every50},
		{"no route", func(w *world) { w.connect["192.0.2.1:1"] = reset }, later},
		{"no such name", func(w *world) { w.names([]said{notFound}, []said{notFound}) }, later},
		{"no addresses", func(w *world) { w.names([]said{found(0)}, []said{found(0)}) }, later},
		{"a peer that closes", handle(func(server net.Conn) { server.Close() }), later},
		{"a peer that closes in the handshake", tlsTo(handle(func(server net.Conn) {
			server.Read(make([]byte, 16<<10)) // the ClientHello
			server.Close()
		})), later},
		{"a proxy that does not reach it", proxied("503 Service Unavailable"), later},
		{"a proxy's gateway", proxied("502 Bad Gateway"), later},

		{"a proxy that forbids it", proxied("403 Forbidden"), once},
		{"a proxy that wants a password", proxied("407 Proxy Authentication Required"), once},
		{"credentials that cannot be had", func(w *world) {
			w.o.Credentials = func(context.Context, bool) (credentials.TransportCredentials, error) { return nil, errors.New("torn") }
		}, once},
		{"credentials that cannot be had in the handshake", fails(&dial.CredentialsError{Err: io.EOF}), once},
		{"an unknown authority", fails(&tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}), once},
		{"another name", fails(x509.HostnameError{Certificate: new(x509.Certificate), Host: "x"}), once},
		{"an alert", fails(&net.OpError{Op: "remote error", Err: tls.AlertError(40)}), once},
		{"HTTP/1", says("HTTP/1.1 400 Bad Request\r\n\r\n"), once},
		{"SSH", says("SSH-2.0-OpenSSH_9.6\r\n"), once},
		{"a TLS alert to plaintext", says("\x15\x03\x01\x00\x02\x02\x46"), once},
		{"TLS to plaintext", tlsTo(says("\x00\x00\x00\x04\x00\x00\x00\x00\x00")), once},
		{"TLS to SMTP", tlsTo(says("220 mail.example ESMTP\r\n")), once},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T, w *world) {
				w.o.Redial = 50 * ms
				row.arrange(w)
				d, took := w.dial()
				if d.Err == nil {
					t.Fatal("there is a connection")
				}
				want := map[string]int{once: 0, every50: 19, later: 3}[row.again]
				redials := min(d.Redials, 19) // a 20th would begin when the time runs out
				if redials != want || (took < 100*ms) != (row.again == once) {
					t.Errorf("%d redials within %v, want %d: %v", d.Redials, took, want, d.Err)
				}
			})
		})
	}
	// With more time, a name that appears is found within a second.
	bubble(t, func(t *testing.T, w *world) {
		w.o.Redial, w.o.ConnectTimeout = 50*ms, time.Minute
		asked := w.names([]said{notFound}, []said{notFound, notFound, notFound, notFound, notFound, notFound, notFound, found(0, "192.0.2.1")})
		d, took := w.dial()
		if d.Err != nil || took != (100+200+400+800+3*1000)*ms {
			t.Errorf("after %v: %v; asked %q", took, d.Err, asked())
		}
	})
}

// A proxy that never ends its answer costs 64 KiB, and is a failure to connect as soon as these have come.
func TestProxyWithoutEnd(t *testing.T) {
	t.Parallel()
	for name, part := range map[string]struct{ first, again string }{
		"status line":      {"HTTP/1.1 200 ", "x"},
		"no status line":   {"", "x"},
		"header line":      {"HTTP/1.1 200 OK\r\nA: ", "x"},
		"header lines":     {"HTTP/1.1 200 OK\r\n", "A: b\r\n"},
		"refused, at last": {"HTTP/1.1 403 Forbidden\r\n", "A: b\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T, w *world) {
				sent := 0
				w.proxy(func(client net.Conn, _ *http.Request, _ *bufio.Reader) {
					defer client.Close()
					block := []byte(strings.Repeat(part.again, 1000))
					for _, err := io.WriteString(client, part.first); err == nil && sent < 8<<20; {
						var n int
						n, err = client.Write(block)
						sent += n
					}
				})
				d, _ := w.dial()
				want(t, d, health.PhaseConnect, "the proxy: the header of its answer is longer than 64 KiB")
				synctest.Wait()
				if sent >= 8<<20 {
					t.Errorf("%d bytes were taken from it", sent)
				}
			})
		})
	}
}

// proxy has connections go through an HTTP proxy in memory, which answers with the given function.
func (w *world) proxy(answer func(client net.Conn, request *http.Request, rest *bufio.Reader)) *[]string {
	var asked []string
	w.connect["192.0.2.9:3128"] = func(ctx context.Context) (net.Conn, error) {
		through := healthtest.NewMemory(w.t)
		through.Handle(func(client net.Conn) {
			reader := bufio.NewReader(client)
			request, err := http.ReadRequest(reader)
			if err != nil {
				return
			}
			w.mu.Lock()
			asked = append(asked, request.Method+" "+request.Host+" "+request.Header.Get("Proxy-Authorization"))
			w.mu.Unlock()
			answer(client, request, reader)
		})
		return through.Connect(ctx, "", "")
	}
	w.o.Proxy = func(hostPort string) (*url.URL, error) {
		if hostPort != w.o.Target.HostPort() {
			w.t.Errorf("asked for the proxy of %s", hostPort)
		}
		return &url.URL{Scheme: "http", Host: "192.0.2.9:3128", User: url.UserPassword("u", "p")}, nil
	}
	w.o.Target = parse(w.t, "upstream.test:50051")
	w.o.Lookup = func(context.Context, string, string, bool) ([]netip.Addr, error) {
		w.t.Error("the name was looked up, which is the proxy's to do")
		return nil, nil
	}
	return &asked
}

func TestProxy(t *testing.T) {
	t.Parallel()
	tunnel := func(w *world, readAhead bool) func(net.Conn, *http.Request, *bufio.Reader) {
		return func(client net.Conn, _ *http.Request, rest *bufio.Reader) {
			server, err := w.way.Connect(context.Background(), "", "")
			if err != nil {
				t.Error(err)
				return
			}
			defer server.Close()
			head := []byte("HTTP/1.1 200 OK\r\n\r\n")
			if readAhead { // the server's first bytes come with the answer
				first := make([]byte, 5)
				if _, err := io.ReadFull(server, first); err != nil {
					t.Error(err)
				}
				head = append(head, first...)
			}
			client.Write(head)
			if _, err := rest.Peek(1); err != nil { // until the client speaks: no more is read ahead
				return
			}
			go func() { rest.WriteTo(server); server.Close() }()
			io.Copy(client, server)
			client.Close()
		}
	}
	for _, readAhead := range []bool{false, true} {
		bubble(t, func(t *testing.T, w *world) {
			asked := w.proxy(tunnel(w, readAhead))
			if d, _ := w.dial(); d.Err != nil {
				t.Error(d.Err)
			}
			if !slices.Equal(*asked, []string{"CONNECT upstream.test:50051 Basic dTpw"}) {
				t.Errorf("the proxy was asked %q", *asked)
			}
		})
	}
	bubble(t, func(t *testing.T, w *world) {
		w.proxy(func(client net.Conn, _ *http.Request, _ *bufio.Reader) {
			io.WriteString(client, "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
		})
		d, _ := w.dial()
		want(t, d, health.PhaseConnect, "the proxy: it refused CONNECT with status 403")
	})
	bubble(t, func(t *testing.T, w *world) {
		w.proxy(func(client net.Conn, _ *http.Request, _ *bufio.Reader) { client.Close() })
		d, _ := w.dial()
		want(t, d, health.PhaseConnect, "the proxy: ")
	})
	bubble(t, func(t *testing.T, w *world) { // an address without a port has HTTP's
		w.o.Proxy = func(string) (*url.URL, error) { return &url.URL{Scheme: "http", Host: "192.0.2.9"}, nil }
		w.way.SetMode(healthtest.Refuse)
		d, _ := w.dial()
		want(t, d, health.PhaseConnect, "the proxy: ")
		if !slices.Equal(w.tried, []string{"192.0.2.9:80 at 0s"}) {
			t.Errorf("tried %q", w.tried)
		}
	})
	bubble(t, func(t *testing.T, w *world) {
		w.o.Proxy = func(string) (*url.URL, error) { return &url.URL{Scheme: "https", Host: "192.0.2.9:1"}, nil }
		d, _ := w.dial()
		want(t, d, health.PhaseConnect, "only http:// proxies")
	})
	bubble(t, func(t *testing.T, w *world) {
		w.o.Proxy = func(string) (*url.URL, error) { return nil, errors.New("no idea") }
		d, _ := w.dial()
		want(t, d, health.PhaseDNS, "choose a proxy: no idea")
	})
	bubble(t, func(t *testing.T, w *world) { // none
		w.o.Proxy = func(string) (*url.URL, error) { return nil, nil }
		if d, _ := w.dial(); d.Err != nil {
			t.Error(d.Err)
		}
	})
	bubble(t, func(t *testing.T, w *world) { // no proxy leads to a unix socket
		w.o.Target = parse(t, "unix:///run/s")
		w.o.Proxy = func(string) (*url.URL, error) { t.Error("asked for a proxy"); return nil, nil }
		if d, _ := w.dial(); d.Err != nil || !slices.Equal(w.tried, []string{"/run/s at 0s"}) {
			t.Errorf("%v; tried %q", d.Err, w.tried)
		}
	})
}
