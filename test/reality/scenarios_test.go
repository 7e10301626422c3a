package reality

import (
	"time"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/test/healthtest"
	"example.com/grpc-health-http/test/simnet"
)

// scenario is a check beside a fault, and what is expected of it.
type scenario struct {
	name string
	// kinds, mode and break say of what it is the smoke test: kinds of faults of test/sim, a mode and a method of test/simnet.
	kinds []string
	mode  simnet.Mode
	how   string

	shape shape
	// reused: the checker has a connection from an earlier check.
	reused bool
	// before happens before the check, and meanwhile while it is in progress; nil is nothing.
	before, meanwhile func(*world)
	want              want
	// onlySimulated says why the scenario cannot happen in reality; empty where it can.
	onlySimulated string
}

// Kinds of test/sim that several scenarios are smoke tests of.
const (
	dies          = "the server dies and starts again"
	drains        = "the server drains and starts again"
	replaced      = "the server is replaced"
	newFail       = "new connections fail"
	someFail      = "new connections to some addresses fail"
	breaks        = "connections break"
	olderBreak    = "older connections break"
	nothing       = "nothing comes through"
	oneFamily     = "lookups find one address family"
	familyLost    = "lookups for one address family are lost"
	frozen        = "frozen"
	breaksFrozen  = "frozen, and connections break meanwhile"
	changesFrozen = "a service is slow, frozen, and it changes meanwhile"
)

// scenarios are all of them.
func scenarios() (all []scenario) {
	serving := want{status: health.Serving}
	add := func(s scenario) { all = append(all, s) }
	all = append(all, newConnections()...)
	all = append(all, breakingConnections()...)
	all = append(all, servers()...)
	all = append(all, inputs()...)
	all = append(all, rotations()...)
	all = append(all, freezes()...)

	add(scenario{
		name: "nothing comes through", kinds: []string{nothing}, shape: shape{budget: shortBudget}, reused: true,
		before: func(w *world) { w.impair(simnet.LoseSYN, false); w.breakAll("BlackHole") },
		want: want{
			status: health.Timeout, phases: []health.Phase{health.PhaseConnect}, took: shortBudget/4 + shortBudget, dials: [2]int{1, 1},
			retries: "silent", shows: "gave-up", cause: "budget",
		},
	})
	add(scenario{
		name: "a service hangs", kinds: []string{"a service hangs", "a service hangs, and callers keep coming"}, shape: shape{budget: shortBudget},
		before: func(w *world) { w.hang() },
		want: want{
			status: health.Timeout, phases: []health.Phase{health.PhaseRPC}, took: shortBudget, dials: [2]int{1, 1},
		},
	})
	add(scenario{
		name: "a service is slow", kinds: []string{"a service is slow"}, reused: true,
		before: func(w *world) { w.service.slow(longBudget / 8) },
		want:   with(serving, func(w *want) { w.took = longBudget / 8 }),
	})
	add(scenario{
		name: "a service is slow, and connections break", kinds: []string{"a service is slow, and connections break"}, reused: true,
		before: func(w *world) { w.service.slow(longBudget / 8) },
		meanwhile: func(w *world) {
			w.untilAsked(1)
			w.breakAll("Reset")
		},
		want: with(serving, func(w *want) {
			w.took, w.dials, w.retries, w.shows = longBudget/8, [2]int{1, 1}, "lost", "reset"
		}),
	})
	add(scenario{
		// SETTINGS, HEADERS and DATA. That the handshake of TCP takes another round trip is only simulated: no relay can delay it.
		name: "packets are slow", kinds: []string{"packets are slow"},
		before: func(w *world) { w.slow(lateness) },
		want:   with(serving, func(w *want) { w.took, w.jitter, w.dials = 3*lateness, 3*lateness, [2]int{1, 1} }),
	})
	add(scenario{
		name: "the streams of a connection are used up", shape: shape{streams: 1, budget: longBudget / 4}, reused: true,
		before: func(w *world) { w.useUpStreams() },
		want:   with(serving, func(w *want) { w.took, w.dials, w.retries = longBudget/16, [2]int{1, 1}, "silent" }),
	})
	add(scenario{
		name: "the wall clock is set", kinds: []string{"the wall clock is set"}, reused: true,
		before:        func(w *world) { w.place.(interface{ setBack(time.Duration) }).setBack(time.Hour) },
		want:          serving,
		onlySimulated: "a test cannot set the machine's clock; internal/clock.TestRunning sets its own",
	})
	return all
}

// with changes a want.
func with(w want, change func(*want)) want {
	change(&w)
	return w
}

// newConnections are scenarios in which new connections fail.
func newConnections() (all []scenario) {
	for _, m := range []struct {
		name string
		mode simnet.Mode
		want
	}{
		{"refused", simnet.Refuse, want{
			status: health.ConnectionFailed, phases: []health.Phase{health.PhaseConnect}, shows: "refused", cause: "refused",
		}},
		{"SYN lost", simnet.LoseSYN, want{
			status: health.Timeout, phases: []health.Phase{health.PhaseConnect}, took: shortBudget, shows: "gave-up", cause: "budget",
		}},
		{"mute", simnet.Mute, want{
			status: health.Timeout, phases: []health.Phase{health.PhaseHTTP2}, took: shortBudget, cause: "budget",
		}},
		// The system tells a reset once: to who connects, writes or reads. Who reads after a write has got it sees the end.
		{"reset on accept", simnet.ResetOnAccept, want{
			status: health.ConnectionFailed, phases: []health.Phase{health.PhaseConnect, health.PhaseHTTP2}, shows: "reset", cause: "reset?",
		}},
		{"reset later", simnet.ResetLater, want{
			status: health.ConnectionFailed, phases: []health.Phase{health.PhaseHTTP2}, shows: "reset", cause: "reset",
		}},
	} {
		budget := time.Duration(0)
		if m.took > 0 {
			budget = shortBudget
		}
		m.dials = [2]int{1, 1}
		all = append(all, scenario{
			name: "new connections fail: " + m.name, kinds: []string{newFail}, mode: m.mode, shape: shape{budget: budget},
			before: func(w *world) { w.impair(m.mode, false) }, want: m.want,
		})
		some := want{status: health.Serving, dials: [2]int{2, 2}, shows: m.shows}
		if m.took > 0 {
			some.took = 250 * time.Millisecond // the head start of the first address
		}
		all = append(all, scenario{
			name: "new connections to some addresses fail: " + m.name, kinds: []string{someFail}, mode: m.mode,
			shape:  shape{named: true, addresses: 2},
			before: func(w *world) { w.impair(m.mode, true) }, want: some,
		})
		m.dials, m.retries, m.shows = [2]int{1, 1}, "lost?", m.shows+" reset"
		all = append(all, scenario{
			name: "new connections fail, and those that exist break: " + m.name, kinds: []string{newFail}, mode: m.mode, shape: shape{budget: budget},
			reused: true,
			before: func(w *world) { w.impair(m.mode, false); w.breakAll("Reset") }, want: m.want,
		})
	}
	return all
}

// breakingConnections are scenarios in which connections break.
func breakingConnections() (all []scenario) {
	for _, b := range []struct {
		how    string
		silent bool // the checker gets nothing that tells it
		idle   bool // nor while it sends nothing
	}{
		{"Reset", false, false}, {"BlackHole", true, true}, {"Deafen", true, true}, {"HalfOpen", false, true},
	} {
		idle := want{status: health.Serving, dials: [2]int{1, 1}, retries: "lost?", shows: "reset"}
		if b.silent {
			idle.took, idle.retries, idle.shows = longBudget/4, "silent", ""
		}
		all = append(all, scenario{
			name: "connections break: " + b.how, kinds: []string{breaks}, how: b.how, reused: true,
			before: func(w *world) { w.breakAll(b.how) }, want: idle,
		})
		calling := want{status: health.Serving, dials: [2]int{1, 1}, retries: "lost", shows: "reset"}
		switch {
		case b.silent:
			calling.took, calling.retries, calling.shows = longBudget/4, "silent", ""
		case b.idle: // the checker may send a frame of HTTP/2's own
			calling.jitter, calling.retries, calling.shows = longBudget/4, "silent? lost?", "reset?"
		}
		all = append(all, scenario{
			name: "connections break during the RPC: " + b.how, kinds: []string{breaks}, how: b.how, reused: true,
			before: (*world).hangs,
			meanwhile: func(w *world) {
				w.untilAsked(1)
				w.breakAll(b.how)
				w.service.release()
			},
			want: calling,
		})
	}
	for _, how := range []string{"Reset", "BlackHole"} {
		want := want{status: health.Serving, dials: [2]int{1, 1}, retries: "lost?", shows: "reset"}
		if how == "BlackHole" {
			want.took, want.retries, want.shows = longBudget/4, "silent", ""
		}
		all = append(all, scenario{
			name: "older connections break: " + how, kinds: []string{olderBreak}, reused: true,
			before: func(w *world) { w.breakOlder(how, time.Now()) }, want: want,
		})
	}
	all = append(all, scenario{
		name: "newer connections do not break", kinds: []string{olderBreak}, reused: true,
		before: func(w *world) { w.breakOlder("Reset", time.Now().Add(-time.Hour)) },
		want:   want{status: health.Serving},
	})
	return all
}

// useUpStreams has a check hang, and waits until it uses the only stream of two connections: the second one is kept.
func (w *world) useUpStreams() {
	w.asker.askHung()
	healthtest.Eventually(w.t, "both RPCs have reached the server", func() bool { return w.service.stuck() == 2 })
}

// hangs has the server answer no RPC.
func (w *world) hangs() { w.hang() }

// ended is how a connection ends with its process: with a reset where that had not read everything. The simulation has no such reset.
const ended = "EOF|reset"

// servers are scenarios in which the server ends.
func servers() []scenario {
	refused := want{
		status: health.ConnectionFailed, phases: []health.Phase{health.PhaseConnect}, dials: [2]int{1, 1}, retries: "lost?",
		shows: "refused " + ended, cause: "refused",
	}
	again := want{status: health.Serving, dials: [2]int{1, 1}, retries: "lost?", shows: ended}
	gone := with(again, func(w *want) { w.shows = "EOF?" }) // who closes first after a GOAWAY is open
	return []scenario{
		{
			name: "the server dies", kinds: []string{dies}, shape: shape{serverDies: true}, reused: true,
			before: func(w *world) { w.kill() }, want: refused,
		},
		{
			name: "the server dies during the RPC", kinds: []string{dies}, shape: shape{serverDies: true}, reused: true,
			before:    (*world).hangs,
			meanwhile: func(w *world) { w.untilAsked(1); w.kill() },
			// The system closes the connection before the port: the next one can still reach that.
			want: with(refused, func(w *want) {
				w.phases, w.retries = []health.Phase{health.PhaseConnect, health.PhaseHTTP2}, "lost"
				w.shows, w.cause = ended+" refused? EOF? reset?", "refused? reset?"
			}),
		},
		{
			name: "the server dies and starts again", kinds: []string{dies}, shape: shape{serverDies: true}, reused: true,
			before: func(w *world) { w.kill(); w.up() }, want: again,
		},
		{
			name: "the server drains", kinds: []string{drains}, shape: shape{direct: true}, reused: true,
			before: func(w *world) { <-w.drain() },
			want:   with(refused, func(w *want) { w.shows = "refused EOF?" }),
		},
		{
			name: "the server drains during the RPC", kinds: []string{drains}, shape: shape{direct: true}, reused: true,
			before: (*world).hangs,
			meanwhile: func(w *world) {
				w.untilAsked(1)
				drained := w.drain()
				w.service.release()
				<-drained
			},
			want: want{status: health.Serving, shows: "EOF?"},
		},
		{
			name: "the server drains and starts again", kinds: []string{drains}, shape: shape{direct: true}, reused: true,
			before: func(w *world) { <-w.drain(); w.up() }, want: gone,
		},
		{
			name: "the server is replaced", kinds: []string{replaced}, shape: shape{direct: true}, reused: true,
			before: func(w *world) { w.roll() },
			want:   with(gone, func(w *want) { w.dials[0] = 0 }), // before the GOAWAY the connection still serves
		},
		{
			name: "the server is replaced during the RPC", kinds: []string{replaced}, shape: shape{direct: true}, reused: true,
			before: (*world).hangs,
			meanwhile: func(w *world) {
				w.untilAsked(1)
				w.roll()
				w.service.release()
			},
			want: want{status: health.Serving, shows: "EOF?"},
		},
		{
			name: "the server is replaced several times", kinds: []string{"the server is replaced several times"}, shape: shape{direct: true}, reused: true,
			before: func(w *world) {
				for range 3 {
					w.roll()
				}
			},
			want: with(gone, func(w *want) { w.dials[0] = 0 }),
		},
		{
			name: "the server is replaced when a connection is new", kinds: []string{"the server is replaced whenever a connection is new"},
			shape: shape{direct: true},
			before: func(w *world) {
				w.whenConnected(w.roll)
			},
			want: want{status: health.Serving, dials: [2]int{1, 3}, retries: "lost?", shows: "EOF? reset?"},
		},
	}
}

// inputs are scenarios in which lookups, credentials or metadata do not come as they should.
func inputs() (all []scenario) {
	for _, what := range []struct {
		name  string
		shape shape
		phase health.Phase
		set   func(*world, input)
		dials int // although it has failed
	}{
		{"lookups", shape{named: true}, health.PhaseDNS, func(w *world, in input) { w.lookups(in) }, 0},
		{"credentials", shape{secure: true}, health.PhaseCredentials, func(w *world, in input) { w.secrets(in) }, 0},
		{"metadata", shape{metadata: true}, health.PhaseCredentials, func(w *world, in input) { w.place.metadata(in) }, 1},
	} {
		names := map[input]string{fails: what.name + " fail", never: what.name + " do not come", late: what.name + " are late"}
		if what.name == "lookups" {
			names[never] = "lookups are lost"
		}
		for in, want := range map[input]want{
			fails: {status: health.ConnectionFailed, phases: []health.Phase{what.phase}},
			never: {status: health.Timeout, phases: []health.Phase{what.phase}, took: shortBudget, cause: "budget"},
			late:  {status: health.Serving, took: lateness, dials: [2]int{1, 1}},
		} {
			shape := what.shape
			switch {
			case in == never:
				shape.budget = shortBudget
			case in == fails && shape.named:
				want.took = longBudget / 4 // the name server is asked again
			}
			if in != late {
				want.dials = [2]int{0, what.dials}
			}
			all = append(all, scenario{
				name: names[in], kinds: []string{names[in]}, shape: shape, before: func(w *world) { what.set(w, in) }, want: want,
			})
		}
	}
	return append(all,
		scenario{
			name: "lookups find one address family, the one that serves", kinds: []string{oneFamily}, shape: shape{named: true, families: true},
			before: func(w *world) { w.find(4) },
			want:   want{status: health.Serving, dials: [2]int{1, 1}},
		},
		scenario{
			name: "lookups find one address family, the other one", kinds: []string{oneFamily}, shape: shape{named: true, families: true},
			before: func(w *world) { w.find(6) },
			want: want{
				status: health.ConnectionFailed, phases: []health.Phase{health.PhaseConnect}, dials: [2]int{1, 1}, shows: "refused", cause: "refused",
			},
		},
		scenario{
			name: "lookups find both address families", kinds: []string{oneFamily}, shape: shape{named: true, families: true},
			want: want{status: health.Serving, dials: [2]int{2, 2}, shows: "refused"}, // IPv6 comes first
		},
		scenario{
			name: "lookups for one address family are lost, the other one serves", kinds: []string{familyLost}, shape: shape{named: true},
			before: func(w *world) { w.lose(6, true) },
			want:   want{status: health.Serving, took: 50 * time.Millisecond, dials: [2]int{1, 1}}, // the Resolution Delay of RFC 8305
		},
		scenario{
			name: "lookups for one address family are lost, the one that serves", kinds: []string{familyLost},
			shape: shape{named: true, budget: shortBudget}, before: func(w *world) { w.lose(4, true) },
			want: want{status: health.Timeout, phases: []health.Phase{health.PhaseDNS}, took: shortBudget, cause: "budget"},
		},
		scenario{
			name: "an answer of the name server is lost", kinds: []string{"an answer of the name server is lost"}, shape: shape{named: true},
			before: func(w *world) { w.lose(4, false) },
			want:   want{status: health.Serving, took: longBudget / 4, dials: [2]int{1, 1}},
		},
	)
}

// rotations are scenarios in which certificates rotate. Connections are reset for the next check to dial.
func rotations() []scenario {
	again := want{status: health.Serving, dials: [2]int{1, 1}, retries: "lost?", shows: "reset"}
	const (
		authority = "the authority rotates"
		before    = "the authority rotates, and the files follow later"
	)
	return []scenario{
		{
			name: "the server's certificate rotates", kinds: []string{"the server's certificate rotates"}, shape: shape{secure: true}, reused: true,
			before: func(w *world) {
				w.identity.Store(w.ca[0].MutualTLS(w.t))
				w.breakAll("Reset")
			},
			want: again,
		},
		{
			name: "the authority rotates, and the files trust both", kinds: []string{authority}, shape: shape{secure: true}, reused: true,
			before: func(w *world) {
				w.hold(w.ca[:], w.ca[0])
				w.breakAll("Reset")
			},
			want: again,
		},
		{
			name: "the authority rotates, the files before the server", kinds: []string{authority}, shape: shape{secure: true}, reused: true,
			before: func(w *world) {
				w.hold(w.ca[:], w.ca[0])
				w.hold(w.ca[1:], w.ca[1])
				w.identity.Store(w.ca[1].MutualTLS(w.t))
				w.breakAll("Reset")
			},
			want: with(again, func(w *want) { w.dials, w.retries = [2]int{2, 2}, "credentials lost?" }),
		},
		{
			name: "the authority rotates, and the files do not follow yet", kinds: []string{before}, shape: shape{secure: true}, reused: true,
			before: func(w *world) {
				w.identity.Store(w.ca[1].MutualTLS(w.t))
				w.breakAll("Reset")
			},
			want: want{
				status: health.ConnectionFailed, phases: []health.Phase{health.PhaseTLS}, dials: [2]int{1, 1}, retries: "lost?", shows: "reset",
			},
		},
		{
			name: "the authority rotates, and the files have followed", kinds: []string{before}, shape: shape{secure: true}, reused: true,
			before: func(w *world) {
				w.identity.Store(w.ca[1].MutualTLS(w.t))
				w.hold(w.ca[1:], w.ca[1])
				w.breakAll("Reset")
			},
			want: with(again, func(w *want) { w.dials, w.retries = [2]int{2, 2}, "credentials lost?" }),
		},
	}
}

// freezes are scenarios in which the checker's process is stopped. A machine that is stopped, so that its monotonic clock stops too,
// can only be simulated.
func freezes() []scenario {
	stops := shape{clientStops: true}
	serving := want{status: health.Serving, notTimed: true, dials: [2]int{0, 2}, retries: "frozen? lost? silent?", shows: "gave-up?"}
	all := []scenario{
		{
			name: "frozen, and the answer comes meanwhile", kinds: []string{frozen}, shape: stops, reused: true,
			before: (*world).hangs,
			meanwhile: func(w *world) {
				w.untilAsked(1)
				w.freeze(shortStop, w.service.release)
			},
			want: serving,
		},
		{
			name: "frozen, and nothing is said", kinds: []string{frozen}, shape: with2(stops, shortBudget), reused: true,
			before: (*world).hangs,
			meanwhile: func(w *world) {
				w.untilAsked(1)
				w.freeze(shortStop, func() {})
			},
			want: want{
				status: health.Timeout, phases: []health.Phase{health.PhaseRPC}, notTimed: true, dials: [2]int{1, 2}, retries: "frozen silent?",
			},
		},
		{
			name: "nothing comes through until a freeze is over", kinds: []string{"nothing comes through until a freeze is over"}, shape: stops, reused: true,
			before: func(w *world) { w.impair(simnet.LoseSYN, false); w.breakAll("BlackHole") },
			meanwhile: func(w *world) {
				time.Sleep(longBudget / 8)
				w.freeze(shortStop, func() { w.impair(simnet.Pass, false) })
			},
			want: with(serving, func(w *want) { w.dials[0] = 1 }),
		},
		{
			name: "the server is down until a freeze is over", kinds: []string{"the server is down until a freeze is over"},
			shape: shape{clientStops: true, serverDies: true}, reused: true,
			before: (*world).hangs,
			meanwhile: func(w *world) {
				w.untilAsked(1)
				w.freeze(shortStop, func() {
					w.kill()
					w.service.release()
					w.up()
				})
			},
			want: with(serving, func(w *want) { w.dials[0], w.shows = 1, ended+" gave-up?" }),
		},
		{
			name: "frozen for long, and the service changes meanwhile", kinds: []string{changesFrozen}, shape: stops, reused: true,
			before: (*world).hangs,
			meanwhile: func(w *world) {
				w.untilAsked(1)
				w.freeze(longStop, func() {
					w.service.release() // and the answer waits to be read
					healthtest.Eventually(w.t, "the RPC has ended", func() bool { return w.service.ended() == 2 })
					w.service.set(healthpb.HealthCheckResponse_NOT_SERVING)
				})
			},
			want: with(serving, func(w *want) { w.status, w.dials[0] = health.NotServing, 1 }),
		},
	}
	for _, how := range []string{"Reset", "BlackHole", "Deafen", "HalfOpen"} {
		all = append(all, scenario{
			name: "frozen, and connections break meanwhile: " + how, kinds: []string{breaksFrozen}, how: how, shape: stops, reused: true,
			before: (*world).hangs,
			meanwhile: func(w *world) {
				w.untilAsked(1)
				w.freeze(shortStop, func() {
					w.breakAll(how)
					w.service.release()
				})
			},
			want: with(serving, func(w *want) { w.dials[0], w.shows = 1, "reset? gave-up?" }),
		})
	}
	return all
}

func with2(s shape, budget time.Duration) shape {
	s.budget = budget
	return s
}
