package dial_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"example.com/grpc-health-http/internal/clock"
	"example.com/grpc-health-http/internal/health"
)

// said is what a name server says to one question.
type said struct {
	after time.Duration // the question; negative never
	ips   []string
	err   error
}

// names has the world look upstream.test up at a name server, which says to the questions of each family in their order what is listed, and
// at the end the last of it again. asked are the questions, with their times.
func (w *world) names(six, four []said) (asked func() []string) {
	w.o.Target = parse(w.t, "upstream.test:1")
	var mu sync.Mutex
	var all []string
	next := map[string][]said{"ip6": six, "ip4": four}
	w.o.Lookup = func(ctx context.Context, network, host string, _ bool) ([]netip.Addr, error) {
		mu.Lock()
		all = append(all, fmt.Sprintf("%s at %v", network, w.now()))
		list := next[network]
		s := list[0]
		if len(list) > 1 {
			next[network] = list[1:]
		}
		mu.Unlock()
		if host != "upstream.test" {
			w.t.Errorf("asked for %q", host)
		}
		if s.after < 0 {
			<-ctx.Done()
			return nil, &net.DNSError{Err: ctx.Err().Error(), Name: host, IsTimeout: true}
		}
		select {
		case <-time.After(s.after):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		var ips []netip.Addr
		for _, text := range s.ips {
			ips = append(ips, netip.MustParseAddr(text))
		}
		return ips, s.err
	}
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(all)
	}
}

var (
	never    = said{after: -1}
	notFound = said{err: &net.DNSError{Err: "no such host", Name: "upstream.test", IsNotFound: true}}
	servfail = said{err: &net.DNSError{Err: "server misbehaving", Name: "upstream.test", Server: "192.0.2.53:53", IsTemporary: true}}
	refusing = said{err: &net.DNSError{Err: "read udp: connection refused", Name: "upstream.test", IsTemporary: true}}
	otherFam = said{err: &net.AddrError{Err: "no suitable address found", Addr: "upstream.test"}}
)

// found is an answer with addresses.
func found(after time.Duration, ips ...string) said { return said{after: after, ips: ips} }

// late is a failure that comes late.
func late(after time.Duration, s said) said { return said{after: after, err: s.err} }

// The answer for one family does not wait for the other's, but for the Resolution Delay where IPv4's comes first. A question that
// nobody answers is asked again, and one that the name server fails at, too. The times are exact.
func TestFamiliesApart(t *testing.T) {
	t.Parallel()
	const v4, v6 = "192.0.2.1:1", "[2001:db8::1]:1"
	four, six := found(0, "192.0.2.1"), found(0, "2001:db8::1")
	for _, row := range []struct {
		name      string
		six, four []said
		tried     []string
		took      time.Duration
		asked     int // questions
		phase     health.Phase
		cause     string
	}{
		{"both at once", []said{six}, []said{four}, []string{v6 + " at 0s"}, 0, 2, "", ""},
		{"IPv6 first", []said{six}, []said{never}, []string{v6 + " at 0s"}, 0, 2, "", ""},
		{"IPv4 first", []said{found(30*ms, "2001:db8::1")}, []said{four}, []string{v6 + " at 30ms"}, 30 * ms, 2, "", ""},
		{"IPv4 first, and IPv6 too late", []said{found(51*ms, "2001:db8::1")}, []said{four}, []string{v4 + " at 50ms"}, 50 * ms, 2, "", ""},
		{"IPv6 never", []said{never}, []said{four}, []string{v4 + " at 50ms"}, 50 * ms, 2, "", ""},
		{"IPv6 never, IPv4 late", []said{never}, []said{found(100*ms, "192.0.2.1")}, []string{v4 + " at 150ms"}, 150 * ms, 2, "", ""},
		{"no IPv6", []said{notFound}, []said{four}, []string{v4 + " at 0s"}, 0, 2, "", ""},
		{"no IPv6, said late", []said{late(20*ms, notFound)}, []said{four}, []string{v4 + " at 20ms"}, 20 * ms, 2, "", ""},
		{"no IPv6 in the hosts file", []said{otherFam}, []said{four}, []string{v4 + " at 0s"}, 0, 2, "", ""},
		{"IPv6 fails", []said{servfail}, []said{four}, []string{v4 + " at 50ms"}, 50 * ms, 2, "", ""},
		{"no IPv4", []said{six}, []said{notFound}, []string{v6 + " at 0s"}, 0, 2, "", ""},
		{"no IPv4, IPv6 late", []said{found(200*ms, "2001:db8::1")}, []said{notFound}, []string{v6 + " at 200ms"}, 200 * ms, 2, "", ""},
		{"both lost once", []said{never, six}, []said{never, four}, []string{v6 + " at 250ms"}, 250 * ms, 4, "", ""},
		{"both lost twice", []said{never, never, six}, []said{never, never, four}, []string{v6 + " at 500ms"}, 500 * ms, 6, "", ""},
		{"IPv4 lost once, no IPv6", []said{notFound}, []said{never, four}, []string{v4 + " at 250ms"}, 250 * ms, 3, "", ""},
		{"the first answer comes after the second question", []said{notFound}, []said{found(300*ms, "192.0.2.1"), never}, []string{v4 + " at 300ms"}, 300 * ms, 3, "", ""},
		{"IPv4 fails once", []said{notFound}, []said{servfail, four}, []string{v4 + " at 250ms"}, 250 * ms, 3, "", ""},
		{"the name server comes back", []said{refusing, notFound}, []said{refusing, four}, []string{v4 + " at 250ms"}, 250 * ms, 4, "", ""},
		{"a mapped address", []said{found(0, "::ffff:192.0.2.1")}, []said{four}, []string{v4 + " at 0s"}, 0, 2, "", ""},

		{"no such name", []said{notFound}, []said{notFound}, nil, 0, 2, health.PhaseDNS, "look up the target's host: lookup upstream.test: no such host"},
		{"no such name, said late", []said{notFound}, []said{late(70*ms, notFound)}, nil, 70 * ms, 2, health.PhaseDNS, "no such host"},
		{"nothing at all", []said{found(0)}, []said{found(0)}, nil, 0, 2, health.PhaseDNS, "it has no addresses"},
		{"both fail", []said{servfail}, []said{servfail}, nil, 250 * ms, 4, health.PhaseDNS, "on 192.0.2.53:53: server misbehaving"},
		{"IPv6 fails, and no IPv4", []said{servfail}, []said{notFound}, nil, 250 * ms, 3, health.PhaseDNS, "server misbehaving"},
		{"no IPv6, and IPv4 never", []said{notFound}, []said{never}, nil, budget, 4, health.PhaseDNS, "the IPv4 addresses of the target's host were not looked up within 1s"},
		{"IPv6 never, and no IPv4", []said{never}, []said{notFound}, nil, budget, 4, health.PhaseDNS, "the IPv6 addresses of the target's host were not looked up within 1s"},
		{"IPv6 never, and IPv4 fails", []said{never}, []said{servfail}, nil, budget, 5, health.PhaseDNS, "server misbehaving) within 1s"},
		{"neither ever", []said{never}, []said{never}, nil, budget, 6, health.PhaseDNS, "the target's host was not looked up within 1s"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T, w *world) {
				asked := w.names(row.six, row.four)
				d, took := w.dial()
				want(t, d, row.phase, row.cause)
				if took != row.took || !slices.Equal(w.tried, row.tried) {
					t.Errorf("took %v, want %v; tried %q, want %q", took, row.took, w.tried, row.tried)
				}
				if d.Lookup != row.took || len(asked()) != row.asked {
					t.Errorf("a lookup of %v, with the questions %q", d.Lookup, asked())
				}
				if ended := took == budget; errors.Is(d.Err, clock.ErrBudget) != ended {
					t.Errorf("%v", d.Err)
				}
			})
		})
	}
}

// Addresses that come late join the race; where they never come and no other serves, the cause says so.
func TestLateFamily(t *testing.T) {
	t.Parallel()
	noRoute := func(context.Context) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Err: syscall.ENETUNREACH}
	}
	const v4, v6, v6b = "192.0.2.1:1", "[2001:db8::1]:1", "[2001:db8::2]:1"
	for _, row := range []struct {
		name      string
		six, four []said
		ways      map[string]func(context.Context) (net.Conn, error)
		tried     []string
		took      time.Duration
		phase     health.Phase
		cause     string
	}{
		{"after all others have failed", []said{found(0, "2001:db8::1")}, []said{found(100*ms, "192.0.2.1")},
			map[string]func(context.Context) (net.Conn, error){v6: refuse}, []string{v6 + " at 0s", v4 + " at 100ms"}, 100 * ms, "", ""},
		{"while another is tried, in its turn", []said{found(0, "2001:db8::1", "2001:db8::2")}, []said{found(100*ms, "192.0.2.1")},
			map[string]func(context.Context) (net.Conn, error){v6: hang, v6b: hang}, []string{v6 + " at 0s", v4 + " at 250ms"}, 250 * ms, "", ""},
		{"while another is tried, its head start over", []said{found(0, "2001:db8::1")}, []said{found(400*ms, "192.0.2.1")},
			map[string]func(context.Context) (net.Conn, error){v6: hang}, []string{v6 + " at 0s", v4 + " at 400ms"}, 400 * ms, "", ""},
		{"IPv6 joins", []said{found(100*ms, "2001:db8::1")}, []said{found(0, "192.0.2.1", "192.0.2.2")},
			map[string]func(context.Context) (net.Conn, error){v4: hang}, []string{v4 + " at 50ms", v6 + " at 300ms"}, 300 * ms, "", ""},
		{"no route to the only one", []said{found(0, "2001:db8::1")}, []said{never},
			map[string]func(context.Context) (net.Conn, error){v6: noRoute}, []string{v6 + " at 0s"}, budget, health.PhaseDNS, "the target's IPv4 addresses did not come within 1s"},
		{"no route to the only one, and the other family fails", []said{found(0, "2001:db8::1")}, []said{servfail},
			map[string]func(context.Context) (net.Conn, error){v6: noRoute}, []string{v6 + " at 0s"}, 250 * ms, health.PhaseDNS, "the target's IPv4 addresses were not found"},
		{"the only one refuses", []said{found(0, "2001:db8::1")}, []said{servfail},
			map[string]func(context.Context) (net.Conn, error){v6: refuse}, []string{v6 + " at 0s"}, 250 * ms, health.PhaseConnect, "refused; the target's IPv4 addresses were not found"},
		{"no route to one, the other refuses", []said{found(0, "2001:db8::1")}, []said{found(0, "192.0.2.1")},
			map[string]func(context.Context) (net.Conn, error){v6: noRoute, v4: refuse}, []string{v6 + " at 0s", v4 + " at 0s"}, 0, health.PhaseConnect, "refused"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T, w *world) {
				w.names(row.six, row.four)
				w.connect = row.ways
				d, took := w.dial()
				want(t, d, row.phase, row.cause)
				if took != row.took || !slices.Equal(w.tried, row.tried) {
					t.Errorf("took %v, want %v; tried %q, want %q", took, row.took, w.tried, row.tried)
				}
			})
		})
	}
}

// The families alternate (RFC 8305, section 4).
// However late and many addresses come, the budget reaches each of them: the more wait, the sooner the next one is tried.
func TestBudgetReachesAllAddresses(t *testing.T) {
	t.Parallel()
	var many []string
	for i := range 100 {
		many = append(many, fmt.Sprintf("192.0.2.%d", i+1))
	}
	for _, row := range []struct {
		name      string
		budget    time.Duration
		six, four said
		serves    string
		took      time.Duration
		tried     int
	}{
		{"the other family comes a little later", 300 * ms, found(0, "2001:db8::1"), found(30*ms, "192.0.2.1", "192.0.2.2"), "192.0.2.2:1", 195 * ms, 3},
		{"it comes when the next one is due", 300 * ms, found(0, "2001:db8::1"), found(200*ms, "192.0.2.1", "192.0.2.2"), "192.0.2.2:1", 250 * ms, 3},
		{"the last of 64", time.Second, notFound, found(0, many[:64]...), "192.0.2.64:1", 63 * time.Second / 64, 64},
		{"those after 64 are not tried", time.Second, notFound, found(0, many...), "192.0.2.65:1", time.Second, 64},
		{"64 of both families", time.Second, found(0, "2001:db8::1", "2001:db8::2"), found(0, many...), "192.0.2.62:1", 63 * time.Second / 64, 64},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T, w *world) {
				w.names([]said{row.six}, []said{row.four})
				w.o.ConnectTimeout = row.budget
				w.connect = make(map[string]func(context.Context) (net.Conn, error))
				for _, ip := range append(row.six.ips, row.four.ips...) {
					if to := net.JoinHostPort(ip, "1"); to != row.serves {
						w.connect[to] = hang
					}
				}
				_, took := w.dial()
				if diff := took - row.took; diff.Abs() > time.Microsecond || len(w.tried) != row.tried {
					t.Errorf("took %v, want %v; tried %d, want %d: %q", took, row.took, len(w.tried), row.tried, w.tried)
				}
			})
		})
	}
}

func TestInterleave(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, w *world) {
		w.names([]said{found(0, "2001:db8::1", "2001:db8::2", "2001:db8::3")}, []said{found(0, "192.0.2.1", "192.0.2.2")})
		// Both answers are there before the first address refuses, whichever of them is read first.
		for _, a := range []string{"[2001:db8::1]:1", "[2001:db8::2]:1", "[2001:db8::3]:1", "192.0.2.1:1", "192.0.2.2:1"} {
			w.connect[a] = after(ms, refuse)
		}
		d, _ := w.dial()
		want(t, d, health.PhaseConnect, "refused")
		var order []string
		for _, a := range d.Addresses {
			order = append(order, a.Address)
		}
		if !slices.Equal(order, []string{"[2001:db8::1]:1", "192.0.2.1:1", "[2001:db8::2]:1", "192.0.2.2:1", "[2001:db8::3]:1"}) {
			t.Errorf("%q", order)
		}
	})
}

// Each dial looks up again, and a cause names the name server that was asked.
func TestLookup(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, w *world) {
		asked := w.names([]said{notFound}, []said{found(5*ms, "192.0.2.7"), found(5*ms, "192.0.2.8")})
		for range 2 {
			if d, _ := w.dial(); d.Err != nil || d.Lookup != 5*ms {
				t.Errorf("%v after a lookup of %v", d.Err, d.Lookup)
			}
		}
		if !slices.Equal(w.tried, []string{"192.0.2.7:1 at 5ms", "192.0.2.8:1 at 10ms"}) || len(asked()) != 4 {
			t.Errorf("tried %q, asked %q", w.tried, asked())
		}
	})
	bubble(t, func(t *testing.T, w *world) {
		w.names([]said{never}, []said{never})
		w.o.Target = parse(t, "dns://192.0.2.53/upstream.test:1")
		d, _ := w.dial()
		want(t, d, health.PhaseDNS, "the target's host was not looked up by 192.0.2.53:53 within 1s")
	})
	// Where no lookup is needed nobody is asked.
	for _, text := range []string{"192.0.2.1:1", "[2001:db8::1%eth0]:1", ":1", "unix:///run/s", "192.0.2.1"} {
		bubble(t, func(t *testing.T, w *world) {
			w.o.Target = parse(t, text)
			w.o.Lookup = func(context.Context, string, string, bool) ([]netip.Addr, error) {
				t.Error("asked")
				return nil, nil
			}
			if d, _ := w.dial(); d.Err != nil || strings.Contains(d.String(), "failed") {
				t.Errorf("%s: %v", text, d)
			}
		})
	}
}

// A long budget does not make a lost datagram cost long, and the shortest does no harm.
func TestLookupWithOtherBudgets(t *testing.T) {
	t.Parallel()
	for budget, took := range map[time.Duration]time.Duration{time.Hour: time.Second, 400 * ms: 100 * ms, 12 * ms: 10 * ms} {
		bubble(t, func(t *testing.T, w *world) {
			w.o.ConnectTimeout = budget
			w.names([]said{notFound}, []said{never, found(0, "192.0.2.1")})
			if d, at := w.dial(); d.Err != nil || at != took {
				t.Errorf("with %v: %v after %v", budget, d.Err, at)
			}
		})
	}
	bubble(t, func(t *testing.T, w *world) {
		w.o.ConnectTimeout = 1
		w.names([]said{never}, []said{never})
		d, _ := w.dial()
		want(t, d, health.PhaseDNS, "within 1ns")
	})
}
