package healthtest_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"example.com/grpc-health-http/test/healthtest"
)

// notNow is how long a test waits to see that something does not happen. If it did, it would happen sooner.
const notNow = 200 * time.Millisecond

// startForwarded starts an upstream with a forwarder in front of it, and returns a client that is connected through it.
func startForwarded(t *testing.T) (*healthtest.Upstream, *healthtest.Forwarder, healthpb.HealthClient) {
	t.Helper()
	up := healthtest.Start(t)
	f := healthtest.Forward(t, up.Target())
	client := dial(t, f.Addr())
	want(t, client, "", "SERVING")
	return up, f, client
}

func TestForwarderPasses(t *testing.T) {
	t.Parallel()
	for _, option := range []healthtest.Option{healthtest.IPv6(), healthtest.Unix()} {
		up := healthtest.Start(t, option)
		f := healthtest.Forward(t, up.Target())
		client := dial(t, f.Addr())
		want(t, client, "", "SERVING")
		want(t, client, echo, "NotFound")
		if f.Connections() != 1 || f.OpenConnections() != 1 || up.Connections() != 1 || up.RPCs() != 2 {
			t.Errorf("got %d connections, %d open, %d at the upstream, %d RPCs",
				f.Connections(), f.OpenConnections(), up.Connections(), up.RPCs())
		}
		up.Stop()
		healthtest.Eventually(t, "the client's connection ends with the upstream", func() bool { return f.OpenConnections() == 0 })
	}
}

func TestForwarderModesForNewConnections(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		mode   healthtest.Mode
		within time.Duration
		want   string
		// seen checks what a client that sends "hello" receives; nil expects a reset.
		seen func(t *testing.T, conn *net.TCPConn)
	}{
		{"silent", healthtest.Silent, notNow, "DeadlineExceeded", func(t *testing.T, conn *net.TCPConn) {
			t.Helper()
			if err := conn.SetReadDeadline(time.Now().Add(notNow)); err != nil {
				t.Fatal(err)
			}
			var timeout net.Error
			if _, err := conn.Read(make([]byte, 1)); !errors.As(err, &timeout) || !timeout.Timeout() {
				t.Errorf("got %v, want silence", err)
			}
		}},
		{"reset", healthtest.ResetOnAccept, patience, "Unavailable", nil},
		{"reset on first bytes", healthtest.ResetOnFirstBytes, patience, "Unavailable", func(t *testing.T, conn *net.TCPConn) {
			t.Helper()
			if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("got %v, want a reset", err)
			}
		}},
		{"close on first bytes", healthtest.CloseOnFirstBytes, patience, "Unavailable", func(t *testing.T, conn *net.TCPConn) {
			t.Helper()
			if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
				t.Errorf("got %v, want the end of the stream", err)
			}
		}},
		{"garbage", healthtest.Garbage, patience, "Unavailable", func(t *testing.T, conn *net.TCPConn) {
			t.Helper()
			if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || line[:4] != "220 " {
				t.Errorf("got %q, %v", line, err)
			}
		}},
		{"HTTP/1.1", healthtest.HTTP1, patience, "Unavailable", func(t *testing.T, conn *net.TCPConn) {
			t.Helper()
			response, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			response.Body.Close()
			if response.StatusCode != http.StatusBadRequest || response.ProtoMajor != 1 {
				t.Errorf("got %s %s", response.Proto, response.Status)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			up, f, established := startForwarded(t)

			f.SetMode(c.mode)
			if c.seen == nil {
				wantReset(t, f.Addr())
			} else {
				conn := connect(t, f.Addr())
				if _, err := io.WriteString(conn, "hello"); err != nil {
					t.Fatal(err)
				}
				c.seen(t, conn)
			}
			if got := checkOnce(dial(t, f.Addr()), "", c.within); got != c.want {
				t.Errorf("new connection: got %s, want %s", got, c.want)
			}
			want(t, established, "", "SERVING")
			if f.Connections() < 3 || up.Connections() != 1 {
				t.Errorf("got %d connections, %d at the upstream", f.Connections(), up.Connections())
			}
			f.SetMode(healthtest.Pass)
			want(t, dial(t, f.Addr()), "", "SERVING")
		})
	}
}

func TestForwarderRefuses(t *testing.T) {
	t.Parallel()
	_, f, established := startForwarded(t)
	for range 2 {
		f.SetMode(healthtest.Refuse)
		if conn, err := net.DialTimeout("tcp", f.Addr(), patience); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatalf("got %v, %v, want refused", conn, err)
		}
		want(t, established, "", "SERVING")
		f.SetMode(healthtest.Pass)
		want(t, dial(t, f.Addr()), "", "SERVING")
	}
}

func TestForwarderChangesTheTarget(t *testing.T) {
	t.Parallel()
	first, second := healthtest.Start(t), healthtest.Start(t, healthtest.Unix())
	f := healthtest.Forward(t, first.Target())
	established := dial(t, f.Addr())
	want(t, established, "", "SERVING")
	f.SetTarget(second.Target())
	want(t, established, "", "SERVING")
	want(t, dial(t, f.Addr()), "", "SERVING")
	if first.RPCs() != 2 || second.RPCs() != 1 {
		t.Errorf("RPCs: got %d and %d, want 2 and 1", first.RPCs(), second.RPCs())
	}
}

func TestForwarderClosesOnRequest(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	f := healthtest.Forward(t, up.Target())
	f.SetMode(healthtest.CloseOnRequest)
	want(t, dial(t, f.Addr()), "", "Unavailable")
	if got := up.Connections(); got == 0 {
		t.Error("the connection did not reach the upstream")
	}
	if got := up.RPCs(); got != 0 {
		t.Errorf("RPCs at the upstream: got %d, want 0", got)
	}
}

func TestForwarderBlackHoles(t *testing.T) {
	t.Parallel()
	up, f, established := startForwarded(t)
	release := up.Hang("")
	answer, giveUp := checkUntil(t, established)
	healthtest.Eventually(t, "the RPC is in flight", func() bool { return up.InFlight() == 1 })

	f.BlackHole()
	release()
	select {
	case got := <-answer:
		t.Errorf("an answer on a black-holed connection: %s", got)
	case <-time.After(notNow):
		giveUp()
		<-answer
	}
	if got := checkOnce(established, "", notNow); got != "DeadlineExceeded" {
		t.Errorf("established connection: got %s, want DeadlineExceeded", got)
	}
	if got := up.RPCs(); got != 2 {
		t.Errorf("RPCs at the upstream: got %d, want 2", got)
	}
	want(t, dial(t, f.Addr()), "", "SERVING")

	up.Stop()
	healthtest.Eventually(t, "only the black-holed connection is left", func() bool { return f.OpenConnections() == 1 })
	if got := checkOnce(established, "", notNow); got != "DeadlineExceeded" {
		t.Errorf("after the upstream has closed: got %s, want DeadlineExceeded", got)
	}
}

func TestForwarderDeafens(t *testing.T) {
	t.Parallel()
	up, f, established := startForwarded(t)
	f.Deafen()
	if got := checkOnce(established, "", notNow); got != "DeadlineExceeded" {
		t.Errorf("established connection: got %s, want DeadlineExceeded", got)
	}
	if got := up.RPCs(); got != 2 {
		t.Errorf("RPCs at the upstream: got %d, want 2", got)
	}
	want(t, dial(t, f.Addr()), "", "SERVING")
}

func TestForwarderHalfOpens(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	f := healthtest.Forward(t, up.Target())
	conn := connect(t, f.Addr())
	healthtest.Eventually(t, "the connection is established", func() bool { return up.OpenConnections() == 1 })
	// The upstream's SETTINGS arrive before.
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	f.HalfOpen()
	up.Stop()
	if err := conn.SetReadDeadline(time.Now().Add(notNow)); err != nil {
		t.Fatal(err)
	}
	var timeout net.Error
	if _, err := io.Copy(io.Discard, conn); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("got %v before the client has sent anything, want silence", err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v, want a reset", err)
	}
}

func TestForwarderBreaksOnlyOlderConnections(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	f := healthtest.Forward(t, up.Target())
	for _, test := range []struct {
		do   func(time.Time) int
		want string
	}{{f.BlackHoleOlder, "DeadlineExceeded"}, {f.ResetOlder, "Unavailable"}} {
		f.Reset()
		healthtest.Eventually(t, "no connection is left", func() bool { return f.OpenConnections() == 0 })
		older := dial(t, f.Addr())
		want(t, older, "", "SERVING")
		since := time.Now()
		younger := dial(t, f.Addr())
		want(t, younger, "", "SERVING")
		release := up.Hang("")
		result := make(chan string, 1)
		go func() { result <- checkOnce(older, "", time.Second) }()
		healthtest.Eventually(t, "the RPC is in flight", func() bool { return up.InFlight() == 1 })
		if n := test.do(since); n != 1 {
			t.Errorf("%d connections were broken, want 1", n)
		}
		release()
		if got := <-result; got != test.want {
			t.Errorf("the older connection: got %s, want %s", got, test.want)
		}
		connections := f.Connections()
		if want(t, younger, "", "SERVING"); f.Connections() != connections {
			t.Error("the younger connection was broken too")
		}
	}
}

func TestBlackHoledConnectionEndsWithItsClient(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	f := healthtest.Forward(t, up.Target())
	conn := connect(t, f.Addr())
	healthtest.Eventually(t, "the connection is established", func() bool { return up.OpenConnections() == 1 })
	f.BlackHole()
	conn.Close()
	healthtest.Eventually(t, "both sides are closed", func() bool { return f.OpenConnections() == 0 && up.OpenConnections() == 0 })
}

func TestForwarderResets(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	f := healthtest.Forward(t, up.Target())
	conn := connect(t, f.Addr())
	client := dial(t, f.Addr())
	want(t, client, "", "SERVING")
	up.Hang(echo)
	result := make(chan string, 1)
	go func() { result <- checkOnce(client, echo, patience) }()
	healthtest.Eventually(t, "the RPC is in flight", func() bool { return up.InFlight() == 1 && up.OpenConnections() == 2 })
	f.Reset()
	if got := <-result; got != "Unavailable" {
		t.Errorf("RPC in flight: got %s, want Unavailable", got)
	}
	// The upstream's SETTINGS may arrive before the reset.
	if _, err := io.Copy(io.Discard, conn); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v, want a reset", err)
	}
	healthtest.Eventually(t, "the upstream sees the reset", func() bool { return up.InFlight() == 0 })
	want(t, client, "", "SERVING")
}

func TestForwarderClosesOnBytes(t *testing.T) {
	t.Parallel()
	up, f, client := startForwarded(t)
	answered := 1
	// The next bytes can also be a frame that the client sends after an answer. Then the check uses a new connection.
	healthtest.Eventually(t, "the next bytes are a request", func() bool {
		f.CloseOnBytes()
		got := checkOnce(client, "", patience)
		if got == "SERVING" {
			answered++
		}
		return got == "Unavailable"
	})
	if got := up.RPCs(); got != answered {
		t.Errorf("RPCs at the upstream: got %d, want the %d that were answered", got, answered)
	}
	want(t, dial(t, f.Addr()), "", "SERVING")
}

func TestForwarderHoldsNewConnections(t *testing.T) {
	t.Parallel()
	_, f, established := startForwarded(t)
	const hold = 150 * time.Millisecond
	f.Hold(hold)
	begin := time.Now()
	want(t, dial(t, f.Addr()), "", "SERVING")
	if took := time.Since(begin); took < hold {
		t.Errorf("answered after %v, want at least %v", took, hold)
	}
	f.Hold(time.Hour)
	connect(t, f.Addr())
	if got := checkOnce(dial(t, f.Addr()), "", notNow); got != "DeadlineExceeded" {
		t.Errorf("held: got %s, want DeadlineExceeded", got)
	}
	want(t, established, "", "SERVING")
}

func TestForwarderDelays(t *testing.T) {
	t.Parallel()
	up, f, client := startForwarded(t)
	const delay = 100 * time.Millisecond
	for _, c := range []struct{ towardsTarget, towardsClient time.Duration }{{delay, 0}, {0, delay}, {delay, delay}} {
		f.Delay(c.towardsTarget, c.towardsClient)
		begin := time.Now()
		want(t, client, "", "SERVING")
		if took := time.Since(begin); took < c.towardsTarget+c.towardsClient {
			t.Errorf("%v: answered after %v", c, took)
		}
	}
	f.Delay(0, time.Hour)
	answer, giveUp := checkUntil(t, client)
	healthtest.Eventually(t, "the request has arrived", func() bool { return up.RPCs() == 5 })
	select {
	case got := <-answer:
		t.Errorf("an answer in spite of the delay: %s", got)
	case <-time.After(notNow):
		giveUp()
		<-answer
	}
}

func TestForwarderPausesAndResumes(t *testing.T) {
	t.Parallel()
	up, f, established := startForwarded(t)

	f.Pause()
	f.Pause()
	results := make(chan string, 2)
	for _, client := range []healthpb.HealthClient{established, dial(t, f.Addr())} {
		go func() { results <- checkOnce(client, "", patience) }()
	}
	healthtest.Eventually(t, "the new connection is accepted", func() bool { return f.Connections() == 2 })
	select {
	case got := <-results:
		t.Fatalf("an answer while paused: %s", got)
	case <-time.After(notNow):
	}
	if up.RPCs() != 1 || up.Connections() != 1 {
		t.Errorf("%d RPCs on %d connections at the upstream while paused, want 1 on 1", up.RPCs(), up.Connections())
	}
	f.Resume()
	f.Resume()
	for range cap(results) {
		if got := <-results; got != "SERVING" {
			t.Errorf("after Resume: got %s", got)
		}
	}
	if got := f.Connections(); got != 2 {
		t.Errorf("connections: got %d, want 2: no connection may be lost", got)
	}
}

func TestForwarderInjectsGoAway(t *testing.T) {
	t.Parallel()
	up, f, client := startForwarded(t)

	// The GOAWAY's last stream includes that of the RPC in flight.
	release, result := hanging(t, up, client)
	f.GoAway(1<<31-1, http2.ErrCodeNo)
	healthtest.Eventually(t, "the client dials for the next RPC", func() bool {
		return checkOnce(client, echo, patience) == "NotFound" && f.Connections() == 2
	})
	release()
	if got := <-result; got != "SERVING" {
		t.Errorf("RPC in flight: got %s, want SERVING", got)
	}

	// The GOAWAY says that no stream was processed, so the client retries the RPC on another connection.
	before := up.RPCs()
	release, result = hanging(t, up, client)
	defer release()
	f.GoAway(0, http2.ErrCodeEnhanceYourCalm)
	healthtest.Eventually(t, "the RPC is retried on a third connection", func() bool {
		return up.RPCs() == before+2 && f.Connections() == 3
	})
	release()
	if got := <-result; got != "SERVING" {
		t.Errorf("retried RPC: got %s, want SERVING", got)
	}
}

func TestForwarderResetsWhenTheTargetIsDown(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	f := healthtest.Forward(t, up.Target())
	up.Stop()
	wantReset(t, f.Addr())
	up.Restart()
	want(t, dial(t, f.Addr()), "", "SERVING")
}

func TestFrontEnds(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		fault    healthtest.Fault
		within   time.Duration
		want     codes.Code
		requests int
	}{
		{"502", healthtest.HTTPStatus(http.StatusBadGateway), patience, codes.Unavailable, 1},
		{"403", healthtest.HTTPStatus(http.StatusForbidden), patience, codes.PermissionDenied, 1},
		{"content type", healthtest.ContentType("text/html"), patience, codes.Unknown, 1},
		{"trailers only", healthtest.TrailersOnly(codes.DataLoss, "lost"), patience, codes.DataLoss, 1},
		{"without trailers", healthtest.WithoutTrailers(), patience, codes.Internal, 1},
		{"too large", healthtest.TooLarge(4<<20 + 1), patience, codes.ResourceExhausted, 1},
		{"reset", healthtest.ResetStream(http2.ErrCodeInternal), patience, codes.Internal, 1},
		{"GOAWAY on request", healthtest.GoAwayOnRequest(http2.ErrCodeNo), patience, codes.Unavailable, 2},
		{"no SETTINGS", healthtest.NoSettings(), notNow, codes.DeadlineExceeded, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := healthtest.StartFrontEnd(t, c.fault)
			client := dial(t, f.Addr(), grpc.WithDisableRetry())
			if got := checkOnce(client, "", c.within); got != c.want.String() {
				t.Errorf("got %s, want %s", got, c.want)
			}
			healthtest.Eventually(t, "a connection", func() bool { return f.Connections() > 0 })
			if got := f.Requests(); got != c.requests {
				t.Errorf("got %d requests, want %d", got, c.requests)
			}
			f.SetFault(healthtest.TrailersOnly(codes.Aborted, ""))
			want(t, dial(t, f.Addr()), "", "Aborted")
		})
	}
}

// TestGoAwayAtOnce checks the frames themselves, since grpc-go may or may not begin a request before it sees the GOAWAY.
func TestGoAwayAtOnce(t *testing.T) {
	t.Parallel()
	f := healthtest.StartFrontEnd(t, healthtest.GoAwayAtOnce(http2.ErrCodeEnhanceYourCalm))
	conn := connect(t, f.Addr())
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	framer := http2.NewFramer(conn, conn)
	if frame, err := framer.ReadFrame(); err != nil || frame.Header().Type != http2.FrameSettings {
		t.Fatalf("got %v, %v, want SETTINGS", frame, err)
	}
	frame, err := framer.ReadFrame()
	if err != nil {
		t.Fatal(err)
	}
	if goAway, ok := frame.(*http2.GoAwayFrame); !ok || goAway.LastStreamID != 0 || goAway.ErrCode != http2.ErrCodeEnhanceYourCalm {
		t.Errorf("got %v, want GOAWAY", frame)
	}
	if got := checkOnce(dial(t, f.Addr()), "", notNow); got == "OK" || got == "SERVING" {
		t.Errorf("got %s from a server that answers nothing", got)
	}
}
