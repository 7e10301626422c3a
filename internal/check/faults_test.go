package check

import (
	"context"
	"io"
	"net"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"example.com/grpc-health-http/internal/clock"
	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/test/healthtest"
)

// What prove allows: so many times may a GOAWAY exclude a check's request from a fresh connection, or a fresh connection be
// lost, until that is the verdict.
const (
	goAwaysAllowed         = 4
	lostConnectionsAllowed = 2
)

// Calls that are stuck in dials from an outage do not hold up who comes when it is over.
func TestFirstCheckBehindStuckDials(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	way := healthtest.Forward(t, up.Target())
	way.SetMode(healthtest.Silent)
	c := checker(t, way.Addr(), func(o *Options) { o.ConnectTimeout = 8 * time.Second })
	var stuck sync.WaitGroup
	for n := 1; n <= promptCalls; n++ {
		stuck.Go(func() { want(t, c.Check(t.Context(), ""), health.Serving, health.PhaseNone) })
		eventually(t, "its dial is in progress", func() bool { return way.Connections() == n })
	}
	way.SetMode(healthtest.Pass)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second) // far less than the dials have left
	defer cancel()
	want(t, c.Check(ctx, ""), health.Serving, health.PhaseNone)
	stuck.Wait()
}

func TestCloseDuringADial(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	way := healthtest.Forward(t, up.Target())
	way.Hold(300 * time.Millisecond)
	c := checker(t, way.Addr(), func(o *Options) { o.ConnectTimeout = 10 * time.Second })
	done := make(chan health.Verdict, 1)
	go func() { done <- c.Check(t.Context(), "") }()
	eventually(t, "the dial is under way", func() bool { return way.Connections() == 1 })
	c.Close()
	want(t, <-done, health.Serving, health.PhaseNone)
	eventually(t, "no connection is left", func() bool { return up.OpenConnections() == 0 })
}

// The RPC's own deadline, which its context and the server know, is no answer of the server and no
// loss, also where a busy machine lets the check look at its clock only afterwards.
func TestOwnDeadlineIsNoAnswer(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	defer up.Hang("hung")()
	real := clock.System()
	slow := func() clock.Moment {
		m := real()
		return clock.Moment{Mono: m.Mono / 2, Wall: m.Wall / 2}
	}
	for _, reused := range []bool{false, true} {
		c := checkerAt(t, slow, up.Target(), services("", "hung"))
		if reused {
			want(t, c.Check(t.Context(), ""), health.Serving, health.PhaseNone)
		}
		want(t, c.Check(t.Context(), "hung"), health.Timeout, health.PhaseRPC)
		if n := c.retried("lost"); n != 0 {
			t.Errorf("reused %v: %d connections counted as lost", reused, n)
		}
	}
}

// A check that is down to one RPC lets others of the same service make a second one.
func TestSecondRPCIsGivenBackAfterAFreeze(t *testing.T) {
	t.Parallel()
	for try := 1; !secondRPCIsGivenBack(t) && try < 10; try++ {
		t.Log("a busy machine stopped this process: once more")
	}
}

func secondRPCIsGivenBack(t *testing.T) (ran bool) {
	up := healthtest.Start(t)
	up.SetStatus("s", serving)
	var jump atomic.Int64
	real := clock.System()
	clock := func() clock.Moment { m := real(); m.Wall += jump.Load(); return m }
	c := checkerAt(t, clock, up.Target(), services("s"), func(o *Options) { o.RPCTimeout = 4 * time.Second })
	want(t, c.Check(t.Context(), "s"), health.Serving, health.PhaseNone)
	release := up.Hang("s")
	done := make(chan health.Verdict, 1)
	go func() { done <- c.Check(t.Context(), "s") }()
	eventually(t, "there are two RPCs", func() bool { return up.InFlightFor("s") == 2 || c.retried("frozen") > 0 })
	if c.retried("frozen") > 0 {
		release()
		<-done
		return false
	}
	jump.Store(int64(time.Hour))
	eventually(t, "one RPC is left", func() bool { return c.retried("frozen") > 0 && up.InFlightFor("s") == 1 })
	second := make(chan health.Verdict, 1)
	go func() { second <- c.Check(t.Context(), "s") }()
	eventually(t, "another check has two", func() bool { return up.InFlightFor("s") == 3 })
	release()
	want(t, <-done, health.Serving, health.PhaseNone)
	want(t, <-second, health.Serving, health.PhaseNone)
	return true
}

// A server that takes one request per connection and then says GOAWAY with NO_ERROR, asked for several
// services at once: the requests that it has not looked at are no failures.
func TestOneRequestPerConnection(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	names := []string{"a", "b", "c", "d", "e", "f"}
	for _, name := range names {
		up.SetStatus(name, serving)
		up.SetDelay(name, 50*time.Millisecond)
	}
	c := checker(t, oneRequestPerConnection(t, up.Addr()), services(names...))
	for range 5 {
		var all sync.WaitGroup
		for _, name := range names {
			all.Go(func() { want(t, c.Check(t.Context(), name), health.Serving, health.PhaseNone) })
		}
		all.Wait()
	}
}

// A GOAWAY that says that the request under way was not looked at, while its answer is on the way.
func TestGoAwayBesideTheAnswer(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	way := healthtest.Forward(t, up.Target())
	c := checker(t, way.Addr())
	for range 300 {
		want(t, c.Check(t.Context(), ""), health.Serving, health.PhaseNone)
		rpcs := up.RPCs()
		done := make(chan health.Verdict, 1)
		go func() { done <- c.Check(t.Context(), "") }()
		for up.RPCs() == rpcs && len(done) == 0 {
			time.Sleep(10 * time.Microsecond)
		}
		way.GoAway(0, http2.ErrCodeNo)
		want(t, <-done, health.Serving, health.PhaseNone)
	}
}

// oneRequestPerConnection forwards to target, and follows the first HEADERS of a client with a GOAWAY
// that excludes all others. It returns its address.
func oneRequestPerConnection(t *testing.T, target string) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer client.Close()
				server, err := net.Dial("tcp", target)
				if err != nil {
					return
				}
				defer server.Close()
				var writing sync.Mutex
				go func() {
					defer client.Close()
					from, to := http2.NewFramer(nil, server), http2.NewFramer(client, nil)
					for {
						frame, err := from.ReadFrame()
						if err != nil {
							return
						}
						writing.Lock()
						err = pass(to, frame)
						writing.Unlock()
						if err != nil {
							return
						}
					}
				}()
				preface := make([]byte, len(http2.ClientPreface))
				if _, err := io.ReadFull(client, preface); err != nil {
					return
				}
				if _, err := server.Write(preface); err != nil {
					return
				}
				from, to := http2.NewFramer(nil, client), http2.NewFramer(server, nil)
				for {
					frame, err := from.ReadFrame()
					if err != nil {
						return
					}
					if h, ok := frame.(*http2.HeadersFrame); ok {
						if h.StreamID > 1 {
							continue // never looked at, as the GOAWAY says
						}
						go func() {
							time.Sleep(20 * time.Millisecond) // until others have sent theirs
							writing.Lock()
							defer writing.Unlock()
							_ = http2.NewFramer(client, nil).WriteGoAway(1, http2.ErrCodeNo, nil)
						}()
					} else if frame.Header().StreamID > 1 {
						continue
					}
					if pass(to, frame) != nil {
						return
					}
				}
			}()
		}
	}()
	return listener.Addr().String()
}

// pass writes a frame that was read.
func pass(to *http2.Framer, frame http2.Frame) error {
	header := frame.Header()
	var payload []byte
	switch f := frame.(type) {
	case *http2.SettingsFrame:
		if f.IsAck() {
			return to.WriteSettingsAck()
		}
		var settings []http2.Setting
		_ = f.ForeachSetting(func(s http2.Setting) error { settings = append(settings, s); return nil })
		return to.WriteSettings(settings...)
	case *http2.HeadersFrame:
		payload = f.HeaderBlockFragment()
		header.Flags &^= http2.FlagHeadersPadded | http2.FlagHeadersPriority
	case *http2.DataFrame:
		return to.WriteData(header.StreamID, f.StreamEnded(), f.Data())
	case *http2.PingFrame:
		return to.WritePing(f.IsAck(), f.Data)
	case *http2.WindowUpdateFrame:
		return to.WriteWindowUpdate(header.StreamID, f.Increment)
	case *http2.RSTStreamFrame:
		return to.WriteRSTStream(header.StreamID, f.ErrCode)
	default:
		return nil
	}
	return to.WriteRawFrame(header.Type, header.Flags, header.StreamID, payload)
}

// A server that takes one RPC at a time on a connection: services that hang do not use up what the
// healthy one needs.
func TestHealthyBesideHungServicesWithFewStreams(t *testing.T) {
	t.Parallel()
	for _, streams := range []uint32{1, 2, 5} {
		t.Run(strconv.Itoa(int(streams)), func(t *testing.T) {
			t.Parallel()
			up := healthtest.Start(t, healthtest.MaxConcurrentStreams(streams))
			up.SetStatus("healthy", serving)
			names := []string{"hung1", "hung2", "hung3"}
			for _, name := range names {
				defer up.Hang(name)()
			}
			c := checker(t, up.Target(), services(append(names, "healthy")...))
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var callers sync.WaitGroup
			for _, name := range names {
				for range 20 {
					callers.Go(func() {
						for ctx.Err() == nil {
							c.Check(ctx, name)
						}
					})
				}
			}
			eventually(t, "the hung services are asked", func() bool { return up.InFlight() >= int(streams) })
			for end := time.Now().Add(5 * time.Second); time.Now().Before(end); {
				want(t, c.Check(t.Context(), "healthy"), health.Serving, health.PhaseNone)
			}
			for _, name := range names {
				if n := up.MaxInFlightFor(name); n > 8 {
					t.Errorf("%s: %d RPCs at once", name, n)
				}
			}
			cancel()
			callers.Wait()
			eventually(t, "one connection is left at most", func() bool { return up.OpenConnections() <= 1 })
		})
	}
}

// A caller whose time is up before its flight could start waited for RPCs under way, not for the connection.
func TestPhaseOfACallerThatWaitsForItsFlight(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	defer up.Hang("hung")()
	c := checker(t, up.Target(), services("hung"), func(o *Options) { o.RPCTimeout = time.Minute })
	ctx, cancel := context.WithCancel(t.Context())
	var callers sync.WaitGroup
	for n := 1; n <= maxCalls; n++ {
		callers.Go(func() { c.Check(ctx, "hung") })
		eventually(t, "its RPC is under way", func() bool { return up.InFlightFor("hung") == n })
	}
	brief, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer stop()
	v := c.Check(brief, "hung")
	want(t, v, health.Timeout, health.PhaseRPC)
	if v.Asked {
		t.Errorf("code %s, but no RPC was made for it", v.GRPCCode())
	}
	if len(c.proofs) != 1 || len(c.proofs[0].Attempts) == 0 {
		t.Errorf("proofs %+v: want one of the RPCs that it waited for", c.proofs)
	}
	cancel()
	callers.Wait()
}

// After every kind of fault, and Close, nothing is left: no goroutine, no connection, no RPC. It
// does not run beside other tests, whose goroutines it would count.
func TestNothingIsLeftBehind(t *testing.T) {
	base := runtime.NumGoroutine()
	t.Run("faults", func(t *testing.T) {
		up := healthtest.Start(t)
		up.SetStatus("s", serving)
		way := healthtest.Forward(t, up.Target())
		c := checker(t, way.Addr(), services("s", "hung"), brief)
		release := up.Hang("hung")
		var callers sync.WaitGroup
		for _, fault := range []func(){
			func() {},
			way.BlackHole,
			way.Reset,
			func() { way.GoAway(0, http2.ErrCodeNo) },
			func() { way.SetMode(healthtest.Silent); way.Reset() },
			func() { way.SetMode(healthtest.Refuse) },
			func() { way.SetMode(healthtest.CloseOnRequest) },
			func() { way.SetMode(healthtest.Pass) },
		} {
			fault()
			for i := range 40 {
				callers.Go(func() {
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					if i%4 == 3 {
						time.AfterFunc(time.Duration(i)*time.Millisecond, cancel)
					}
					c.Check(ctx, []string{"s", "hung", "made-up", strconv.Itoa(i)}[i%4])
				})
			}
			callers.Wait()
		}
		release()
		want(t, c.Check(t.Context(), "s"), health.Serving, health.PhaseNone)
		eventually(t, "only the standing connections are open", func() bool { return up.OpenConnections() <= 2 })
		eventually(t, "no RPC is under way", func() bool { return up.InFlight() == 0 })
		c.Close()
		eventually(t, "no connection is open", func() bool { return up.OpenConnections() == 0 })
	})
	eventually(t, "the goroutines have ended", func() bool { return runtime.NumGoroutine() <= base })
}

// An answer of which a GOAWAY takes back the half is lost, and not the server's word.
func TestGoAwayBeforeTrailers(t *testing.T) {
	t.Parallel()
	server := healthtest.StartFrontEnd(t, healthtest.GoAwayBeforeTrailers())
	c := checker(t, server.Addr())
	for range 500 {
		if v := c.Check(t.Context(), ""); v.Status == health.RPCFailed {
			t.Fatalf("%v: %v", v.Status, v.Err)
		}
	}
}

// One GOAWAY, at whatever time between the dial and the answer, is no failure: another connection answers.
func TestGoAwayDuringADial(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	way := healthtest.Forward(t, up.Target())
	c := checker(t, way.Addr(), func(o *Options) { o.MaxAge = 0 })
	for i := range 300 {
		before := way.OpenConnections()
		done := make(chan health.Verdict, 1)
		go func() { done <- c.Check(t.Context(), "") }()
		for way.OpenConnections() == before && len(done) == 0 {
			time.Sleep(10 * time.Microsecond)
		}
		<-time.After(time.Duration(i) * 4 * time.Microsecond)
		way.GoAway(0, http2.ErrCodeNo)
		want(t, <-done, health.Serving, health.PhaseNone)
	}
}

// A server that says GOAWAY as soon as a connection stands: that is known at once, not when the budget
// for the connection is used up.
func TestGoAwayAtOnce(t *testing.T) {
	t.Parallel()
	server := healthtest.StartFrontEnd(t, healthtest.GoAwayAtOnce(http2.ErrCodeNo))
	for range 50 {
		c := checker(t, server.Addr(), func(o *Options) { o.ConnectTimeout = time.Minute })
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		want(t, c.Check(ctx, ""), health.ConnectionFailed, health.PhaseRPC)
		if n := c.dials.Load(); n != goAwaysAllowed && c.retried("frozen") == 0 { // on a busy machine
			t.Errorf("%d dials, want %d", n, goAwaysAllowed)
		}
	}
}

// Several servers of one name that drain one after the other, each with the request not looked at.
func TestGoAwayOfSeveralServersInTurn(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	up.SetStatus("s", serving)
	up.SetDelay("s", time.Minute)
	way := healthtest.Forward(t, up.Target())
	c := checker(t, way.Addr(), services("s"), func(o *Options) { o.RPCTimeout = time.Minute })
	verdict := make(chan health.Verdict, 1)
	go func() { verdict <- c.Check(t.Context(), "s") }()
	for n := 1; n < goAwaysAllowed; n++ {
		eventually(t, "the RPC has arrived", func() bool { return int(up.RPCsFor("s")) == n })
		if n == goAwaysAllowed-1 {
			up.SetDelay("s", 0)
		}
		way.GoAway(0, http2.ErrCodeNo)
	}
	want(t, <-verdict, health.Serving, health.PhaseNone)
}

// The limit for made-up names counts second RPCs too, says OVERLOADED to the others at once, and is
// free again afterwards.
func TestLimitForMadeUpNames(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	up.SetStatus("made-up", serving)
	release := make(chan struct{})
	up.HandleUnknown(func(ctx context.Context, _ string) (*healthpb.HealthCheckResponse, error) {
		select {
		case <-release:
		case <-ctx.Done():
		}
		return &healthpb.HealthCheckResponse{Status: serving}, nil
	})
	c := checker(t, up.Target(), func(o *Options) { o.RPCTimeout, o.MaxConcurrent = 4*time.Second, 3 })
	want(t, c.Check(t.Context(), "made-up"), health.Serving, health.PhaseNone)
	began := time.Now()
	var callers sync.WaitGroup
	for _, name := range []string{"first", "second"} {
		callers.Go(func() { want(t, c.Check(t.Context(), name), health.Serving, health.PhaseNone) })
	}
	eventually(t, "both are asked, and one of them a second time", func() bool { return up.InFlight() == 3 })
	eventually(t, "both were silent for long enough", func() bool {
		want(t, c.Check(t.Context(), "third"), health.Overloaded, health.PhaseNone)
		want(t, c.Check(t.Context(), ""), health.Serving, health.PhaseNone)
		return time.Since(began) > 1500*time.Millisecond
	})
	if n := up.InFlight(); n != 3 {
		t.Errorf("%d RPCs for made-up names, with a limit of 3", n)
	}
	close(release)
	callers.Wait()
	want(t, c.Check(t.Context(), "third"), health.Serving, health.PhaseNone)
}
