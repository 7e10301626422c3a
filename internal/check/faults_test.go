package check

import (
	"context"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/test/healthtest"
)

// What prove allows: so many times may a GOAWAY exclude a check's request from a fresh connection, or a fresh connection be
// lost, until that is the verdict.
const (
	goAwaysAllowed = 4
	lossesAllowed  = 2
)

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

// A server that says GOAWAY as soon as a connection was made: that is known at once, not when the budget
// for the connection is used up.
func TestGoAwayAtOnce(t *testing.T) {
	t.Parallel()
	server := healthtest.StartFrontEnd(t, healthtest.GoAwayAtOnce(http2.ErrCodeNo))
	for range 50 {
		c := checker(t, server.Addr(), func(o *Options) { o.ConnectTimeout = time.Minute })
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
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

// What cannot be sent over a sound connection is the verdict at once: no second connection is made.
func TestUnsendable(t *testing.T) {
	t.Parallel()
	sends := func(pairs ...string) func(*Options) {
		return func(o *Options) {
			o.Metadata = func(context.Context) (metadata.MD, error) { return metadata.Pairs(pairs...), nil }
		}
	}
	server := healthtest.StartFrontEnd(t, healthtest.WithSettings(healthtest.Message("\x08\x01", ""), http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: 2000}))
	for name, row := range map[string]struct {
		sends func(*Options)
		code  codes.Code
	}{
		"beyond the server's limit": {sends("authorization", strings.Repeat("x", 3000)), codes.ResourceExhausted},
		"a value with a line break": {sends("authorization", "Bearer x\n"), codes.Internal},
		"an illegal name":           {sends("x:y", "z"), codes.Internal},
	} {
		c := checker(t, server.Addr(), row.sends)
		for n := range 3 {
			v := c.Check(t.Context(), "")
			want(t, v, health.RPCFailed, health.PhaseRPC)
			if v.Code != row.code || !v.Asked || strings.Contains(v.Err.Error(), "lost") {
				t.Errorf("%s: code %v: %v", name, v.Code, v.Err)
			}
			if c.dials.Load() != 1 || int(c.rpcs.Load()) != n+1 {
				t.Errorf("%s: %d dials and %d RPCs for %d checks", name, c.dials.Load(), c.rpcs.Load(), n+1)
			}
		}
	}
	if n := server.Requests(); n != 0 {
		t.Errorf("%d requests arrived", n)
	}
}

// A server that allows no RPC on its connections.
func TestNoStreamsAllowed(t *testing.T) {
	t.Parallel()
	server := healthtest.StartFrontEnd(t, healthtest.WithSettings(healthtest.Message("\x08\x01", ""), http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 0}))
	for _, age := range []time.Duration{0, time.Minute} {
		c := checker(t, server.Addr(), func(o *Options) { o.RPCTimeout, o.MaxAge = 200*time.Millisecond, age })
		v := c.Check(t.Context(), "")
		want(t, v, health.Timeout, health.PhaseRPC)
		if !strings.Contains(v.Err.Error(), "MAX_CONCURRENT_STREAMS") || v.Code != codes.DeadlineExceeded {
			t.Errorf("code %v: %v", v.Code, v.Err)
		}
	}
}
