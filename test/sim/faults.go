//go:build !race

package sim

import (
	"context"
	"sync"
	"time"

	"example.com/grpc-health-http/test/simnet"
)

func isNamed(s *settings) bool     { return s.named }
func hasTLS(s *settings) bool      { return s.tls }
func hasMetadata(s *settings) bool { return s.metadata }

// kinds are all kinds of faults.
var kinds = []kind{
	{name: "the server dies and starts again", phases: reaching | calling, longest: 0.3, begin: func(w *world, f *fault) func() {
		return w.down(false)
	}},
	{name: "the server drains and starts again", phases: reaching | calling, longest: 0.3, begin: func(w *world, f *fault) func() {
		return w.down(true)
	}},
	{name: "the server is replaced", phases: reaching | calling, longest: 0.05, begin: func(w *world, f *fault) func() {
		w.roll()
		return nil
	}},
	{name: "the server is replaced several times", phases: reaching | calling, begin: func(w *world, f *fault) func() {
		n := 2 + f.random.IntN(3)
		f.tell("%d times", n)
		for range n {
			w.roll()
			time.Sleep(upTo(f.random, w.shorter()/30))
		}
		return nil
	}},
	{name: "the server is replaced whenever a connection is new", phases: reaching | calling, longest: 0.7, begin: rollAtDials},
	{name: "nothing comes through", phases: reaching | calling, longest: 1.2, begin: func(w *world, f *fault) func() {
		end := w.impair(simnet.LoseSYN)
		w.hitAll(pointsOfProof, (*simnet.Conn).BlackHole)
		return end
	}},
	{name: "new connections fail", phases: reaching, longest: 1.5, begin: func(w *world, f *fault) func() {
		mode := pick(f.random, simnet.Refuse, simnet.LoseSYN, simnet.Mute, simnet.ResetOnAccept, simnet.ResetLater)
		f.tell("mode %d", mode)
		return w.impair(mode)
	}},
	{name: "new connections to some addresses fail", phases: reaching, longest: 1.5, fits: func(s *settings) bool { return len(s.alive()) > 1 },
		begin: func(w *world, f *fault) func() {
			alive := w.alive()
			some := alive[:1+f.random.IntN(len(alive)-1)]
			mode := pick(f.random, simnet.Refuse, simnet.LoseSYN, simnet.Mute, simnet.ResetOnAccept, simnet.ResetLater)
			f.tell("mode %d at %v", mode, some)
			return w.impair(mode, some...)
		}},
	{name: "a service hangs", longest: 1.2, harms: harmsServices, phases: calling, begin: func(w *world, f *fault) func() {
		return w.hang(f, w.key(f.random))
	}},
	{name: "a service hangs, and callers keep coming", longest: 2, harms: harmsServices, phases: calling, begin: hangInCrowd},
	{name: "a service is slow, and connections break", longest: 0.7, harms: harmsServices | harmsConnections, phases: reaching | calling, begin: slowAndBroken},
	{name: "a service is slow", longest: 0.5, harms: harmsServices, phases: calling, begin: func(w *world, f *fault) func() {
		return w.slowDown(f, w.key(f.random))
	}},
	{name: "packets are slow", phases: reaching | calling, longest: 0.5, begin: func(w *world, f *fault) func() {
		by := upTo(f.random, w.shorter()/40)
		f.tell("by %v", by)
		var over func()
		return w.change(func() { over = w.delays.begin(by); w.setLatencyLocked() }, func() { over(); w.setLatencyLocked() })
	}},

	{name: "connections break", phases: reaching | calling, harms: harmsConnections, begin: breakConnections},
	{name: "older connections break", phases: calling, harms: harmsConnections, begin: func(w *world, f *fault) func() {
		w.mu.Lock()
		oldest := w.oldestLocked()
		w.mu.Unlock()
		b := drawBreak(f)
		for _, c := range w.net.Conns() {
			if c.Began.Before(oldest) {
				w.hitOne(c, b.points, b.do)
			}
		}
		return nil
	}},

	{name: "lookups fail", phases: resolving, longest: 0.7, fits: isNamed, begin: func(w *world, f *fault) func() { return w.failing(&w.lookups) }},
	{name: "lookups are lost", phases: resolving, longest: 0.7, fits: isNamed, begin: func(w *world, f *fault) func() { return w.silent(&w.lookups) }},
	{name: "lookups are late", phases: resolving | reaching, longest: 0.7, fits: isNamed, begin: func(w *world, f *fault) func() { return w.lateness(f, &w.lookups) }},
	{name: "lookups find one address family", phases: resolving | reaching, longest: 0.7, fits: isNamed, begin: func(w *world, f *fault) func() {
		family := pick(f.random, ipv4, ipv6)
		f.tell("%v", family)
		var over func()
		return w.change(func() { w.family, over = family, w.partly.begin() }, func() { w.family = noFamily; over() })
	}},
	{name: "lookups for one address family are lost", phases: resolving | reaching, longest: 0.7, fits: isNamed, begin: func(w *world, f *fault) func() {
		family := pick(f.random, ipv4, ipv6)
		f.tell("%v", family)
		var over, late func()
		return w.change(func() {
			w.unanswered[family]++
			over, late = w.partly.begin(), w.late.begin(resolutionDelay)
		}, func() {
			w.unanswered[family]--
			over()
			late()
		})
	}},
	{name: "an answer of the name server is lost", phases: resolving | reaching, longest: 0.7, fits: isNamed, begin: func(w *world, f *fault) func() {
		about := pick(f.random, []family{ipv4}, []family{ipv6}, []family{ipv4, ipv6}, []family{ipv4, ipv6})
		f.tell("about %v", about)
		lose := func(lost bool) {
			for _, one := range about {
				w.losing[one] = lost
			}
		}
		var late func()
		return w.change(func() {
			lose(true)
			late = w.late.begin(w.connectTimeout / 4)
		}, func() {
			lose(false)
			late()
		})
	}},

	{name: "credentials fail", phases: loading, longest: 0.7, begin: func(w *world, f *fault) func() { return w.failing(&w.secrets) }},
	{name: "credentials do not come", phases: loading, longest: 0.7, begin: func(w *world, f *fault) func() { return w.silent(&w.secrets) }},
	{name: "credentials are late", phases: loading | reaching | resolving, longest: 0.7, begin: func(w *world, f *fault) func() { return w.lateness(f, &w.secrets) }},
	{name: "metadata fail", phases: loading, longest: 0.7, fits: hasMetadata, begin: func(w *world, f *fault) func() { return w.failing(&w.metadatas) }},
	{name: "metadata do not come", phases: loading, longest: 0.7, fits: hasMetadata, begin: func(w *world, f *fault) func() { return w.silent(&w.metadatas) }},
	{name: "metadata are late", phases: loading | reaching | resolving, longest: 0.7, fits: hasMetadata, begin: func(w *world, f *fault) func() { return w.lateness(f, &w.metadatas) }},
	{name: "the server's certificate rotates", phases: securing, fits: hasTLS, begin: func(w *world, f *fault) func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.rotations.begin()()
		w.identity.leaf = 1 - w.identity.leaf
		return nil
	}},
	{name: "the authority rotates", phases: securing, fits: hasTLS, longest: 0.7, begin: rotate},
	{name: "the authority rotates, and the files follow later", phases: securing, fits: hasTLS, longest: 0.7, begin: rotateFirst},

	{name: "frozen", begin: func(w *world, f *fault) func() {
		w.freeze(f, func() {})
		return nil
	}},
	{name: "frozen, and connections break meanwhile", phases: reaching | calling, begin: func(w *world, f *fault) func() {
		w.freeze(f, func() { breakConnections(w, f) })
		return nil
	}},
	{name: "a service is slow, frozen, and it changes meanwhile", phases: calling, longest: 0.1, begin: func(w *world, f *fault) func() {
		key := pick(f.random, w.configured()...)
		end := w.slowDown(f, key)
		return func() {
			w.freeze(f, func() {
				w.mu.Lock()
				defer w.mu.Unlock()
				w.setLocked(key, pick(f.random, changes...))
			})
			end()
		}
	}},
	{name: "nothing comes through until a freeze is over", phases: reaching | calling, longest: 0.7, begin: func(w *world, f *fault) func() {
		end := w.impair(simnet.LoseSYN)
		w.hitAll(pointsOfProof, (*simnet.Conn).BlackHole)
		return func() { w.freeze(f, end) }
	}},
	{name: "the server is down until a freeze is over", phases: reaching | calling, longest: 0.7, begin: func(w *world, f *fault) func() {
		end := w.down(false)
		return func() { w.freeze(f, end) }
	}},
	{name: "the wall clock is set", begin: func(w *world, f *fault) func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		by := upTo(f.random, time.Hour)
		f.tell("back by %v", by)
		w.wall -= by
		w.setBack = append(w.setBack, time.Now())
		return nil
	}},
}

// rollAtDials replaces the server three times, each time some moments after a connection was accepted.
func rollAtDials(w *world, f *fault) func() {
	delay := upTo(f.random, 4*w.latency)
	f.tell("%v later", delay)
	var mu sync.Mutex
	left := 3
	w.net.OnConnect(func() {
		time.Sleep(delay)
		mu.Lock()
		roll := left > 0
		left--
		mu.Unlock()
		if roll {
			w.roll()
		}
	})
	return func() {
		w.net.OnConnect(nil)
		mu.Lock()
		defer mu.Unlock()
		left = 0
	}
}

// hangInCrowd has a service hang, while further callers ask for it one after the other.
func hangInCrowd(w *world, f *fault) func() {
	key := pick(f.random, w.configured()...)
	every := time.Millisecond + upTo(f.random, 30*time.Millisecond)
	f.tell("every %v", every)
	end := w.hang(f, key)
	ctx, stop := context.WithCancel(context.Background())
	w.crowd.Go(func() {
		for i := 0; simnet.Sleep(ctx, every) == nil; i++ {
			w.crowd.Go(func() { w.ask(context.Background(), &answer{caller: 10000 + i, key: key}) })
		}
	})
	return func() {
		stop()
		end()
	}
}

// slowAndBroken has a service answer slowly, and breaks connections meanwhile.
func slowAndBroken(w *world, f *fault) func() {
	end := w.slowDown(f, pick(f.random, w.configured()...))
	time.Sleep(upTo(f.random, f.length/2))
	breakConnections(w, f)
	return end
}

// hang has a service answer nothing.
func (w *world) hang(f *fault, key string) (end func()) {
	f.tell("%q", key)
	gate := make(chan struct{})
	var over func()
	return w.change(func() {
		if w.hung[key] == nil {
			w.hung[key] = new(spans)
		}
		over = w.hung[key].begin()
		w.hangs[key] = gate
	}, func() {
		over()
		if w.hangs[key] == gate {
			delete(w.hangs, key)
		}
		close(gate)
	})
}

// slowDown makes a service slow, mostly by less than a connection may be silent.
func (w *world) slowDown(f *fault, key string) (end func()) {
	by := upTo(f.random, w.rpcTimeout*2/5)
	if f.random.IntN(3) == 0 {
		by = w.rpcTimeout/2 + upTo(f.random, w.rpcTimeout/4)
	}
	f.tell("%q by %v", key, by)
	var over func()
	return w.change(func() {
		if w.slowed[key] == nil {
			w.slowed[key] = new(measured)
		}
		over = w.slowed[key].begin(by)
		w.slow[key] += by
	}, func() {
		over()
		w.slow[key] -= by
	})
}

// setLatencyLocked sets the network's latency by the faults that are in progress.
func (w *world) setLatencyLocked() { w.net.SetLatency(w.latency + w.delays.current()) }

func (w *world) failing(in *input) (end func()) {
	return w.change(func() { in.failing++ }, func() { in.failing-- })
}

func (w *world) silent(in *input) (end func()) {
	return w.change(func() { in.silent++ }, func() { in.silent-- })
}

func (w *world) lateness(f *fault, in *input) (end func()) {
	by := upTo(f.random, w.shorter()/4)
	f.tell("by %v", by)
	var over func()
	return w.change(func() { in.late += by; over = w.late.begin(by) }, func() { in.late -= by; over() })
}

// rotate changes the authority: first the client's files hold both, then the server and the client's certificate change.
func rotate(w *world, f *fault) func() {
	var over func()
	return w.change(func() {
		over = w.rotations.begin()
		w.identity.both = true
	}, func() {
		next := (w.identity.authority + 1) % len(authorities())
		w.identity = identity{authority: next, trusts: next, shows: next}
		over()
	})
}

// rotateFirst changes the authority of the server, and only later the client's files.
func rotateFirst(w *world, f *fault) func() {
	var over func()
	return w.change(func() {
		over = w.rotations.begin()
		w.identity.authority = (w.identity.authority + 1) % len(authorities())
	}, func() {
		next := w.identity.authority
		w.identity = identity{authority: next, trusts: next, shows: next}
		over()
	})
}

// breaking is a way to break a connection, and what that comes to.
type breaking struct {
	name   string
	points int
	do     func(*simnet.Conn)
}

func drawBreak(f *fault) breaking {
	b := pick(f.random,
		breaking{"reset", pointsOfLoss, (*simnet.Conn).Reset},
		breaking{"everything is lost", pointsOfProof, (*simnet.Conn).BlackHole},
		breaking{"what the server sends is lost", pointsOfProof, (*simnet.Conn).Deafen},
		breaking{"half-open", pointsOfProof, (*simnet.Conn).HalfOpen},
	)
	f.tell("%s", b.name)
	return b
}

// breakConnections breaks all connections, or some.
func breakConnections(w *world, f *fault) func() {
	b := drawBreak(f)
	all := f.random.IntN(2) == 0
	for _, c := range w.net.Conns() {
		if all || f.random.IntN(2) == 0 {
			w.hitOne(c, b.points, b.do)
		}
	}
	return nil
}

func (w *world) hitAll(points int, do func(*simnet.Conn)) {
	for _, c := range w.net.Conns() {
		w.hitOne(c, points, do)
	}
}

func (w *world) hitOne(c *simnet.Conn, points int, do func(*simnet.Conn)) {
	w.mu.Lock()
	w.hitLocked(c, points)
	w.mu.Unlock()
	do(c)
}
