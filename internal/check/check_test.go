package check

import (
	"cmp"
	"context"
	"crypto/tls"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"example.com/grpc-health-http/internal/clock"
	"example.com/grpc-health-http/internal/dial"
	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/internal/redact"
	"example.com/grpc-health-http/internal/target"
	"example.com/grpc-health-http/test/healthtest"
)

const (
	serving    = healthpb.HealthCheckResponse_SERVING
	notServing = healthpb.HealthCheckResponse_NOT_SERVING
)

// overSockets is the budget for a connection, and that for an RPC, of a test that has nothing to say about them.
const overSockets = 5 * time.Second

// counted is a Checker of a test, with counts of what its Trace heard.
type counted struct {
	*Checker
	options             Options
	dials, rpcs, shared atomic.Int32

	told    sync.Mutex // guards what follows
	retries map[string]int
	proofs  []health.Evidence
}

// checker makes a Checker of address that ends with the test.
func checker(t testing.TB, address string, change ...func(*Options)) *counted {
	t.Helper()
	return checkerAt(t, clock.System(), address, change...)
}

func checkerAt(t testing.TB, clock func() clock.Moment, address string, change ...func(*Options)) *counted {
	t.Helper()
	parsed, err := target.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	c := &counted{retries: map[string]int{}}
	o := Options{MaxAge: time.Minute, Clock: clock, Options: dial.Options{
		Target: parsed,
		Trace: &health.Trace{
			Dial:   func(string) { c.dials.Add(1) },
			RPC:    func(string) { c.rpcs.Add(1) },
			Shared: func() { c.shared.Add(1) },
			Retry: func(reason string) {
				c.told.Lock()
				defer c.told.Unlock()
				c.retries[reason]++
			},
			Verdict: func(_ context.Context, v health.Verdict, proof health.Evidence) (time.Time, string) {
				if v.Status != health.Serving {
					c.told.Lock()
					defer c.told.Unlock()
					c.proofs = append(c.proofs, proof)
				}
				return time.Time{}, ""
			},
		},
	}}
	for _, f := range change {
		f(&o)
	}
	if o.Connect == nil { // over sockets, where a busy machine takes long; in a bubble time is exact
		o.ConnectTimeout, o.RPCTimeout = cmp.Or(o.ConnectTimeout, overSockets), cmp.Or(o.RPCTimeout, overSockets)
	} else {
		o.ConnectTimeout, o.RPCTimeout = cmp.Or(o.ConnectTimeout, time.Second), cmp.Or(o.RPCTimeout, time.Second)
	}
	c.options, c.Checker = o, New(o)
	t.Cleanup(c.Close)
	return c
}

func (c *counted) retried(reason string) int {
	c.told.Lock()
	defer c.told.Unlock()
	return c.retries[reason]
}

func services(names ...string) func(*Options) { return func(o *Options) { o.Services = names } }

// tlsFrom uses a client configuration as it is.
func tlsFrom(config *tls.Config) func(*Options) {
	tc := credentials.NewTLS(config)
	return func(o *Options) {
		o.Credentials = func(context.Context, bool) (credentials.TransportCredentials, error) {
			return tc, nil
		}
	}
}

// want checks a verdict's status and phase.
func want(t testing.TB, v health.Verdict, status health.Status, phase health.Phase) {
	t.Helper()
	if v.Status != status || v.Phase != phase {
		t.Errorf("verdict %v, phase %q; want %v, phase %q; cause: %v", v.Status, v.Phase, status, phase, v.Err)
	}
}

// eventually waits for a condition that something else brings about.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("after 10 s still not: %s", what)
		}
	}
}

func TestEveryAnswerOfTheServer(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	c := checker(t, up.Target())
	type row struct {
		name   string
		set    func(name string)
		status health.Status
		code   codes.Code
	}
	rows := []row{
		{"serving", func(n string) { up.SetStatus(n, serving) }, health.Serving, codes.OK},
		{"not serving", func(n string) { up.SetStatus(n, notServing) }, health.NotServing, codes.OK},
		{"unknown", func(n string) { up.SetStatus(n, healthpb.HealthCheckResponse_UNKNOWN) }, health.Unknown, codes.OK},
		{"service unknown", func(n string) { up.SetStatus(n, healthpb.HealthCheckResponse_SERVICE_UNKNOWN) }, health.ServiceUnknown, codes.OK},
		{"a value of tomorrow", func(n string) { up.SetStatus(n, 42) }, health.Unknown, codes.OK},
	}
	for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
		status := health.RPCFailed
		switch code {
		case codes.NotFound:
			status = health.ServiceUnknown
		case codes.Unimplemented:
			status = health.Unimplemented
		}
		rows = append(rows, row{code.String(), func(n string) { up.SetError(n, code) }, status, code})
	}
	for _, r := range rows {
		r.set(r.name)
		for _, connection := range []string{"fresh", "reused"} {
			before, frozen := up.RPCsFor(r.name), c.retried("frozen")
			v := c.Check(t.Context(), r.name)
			want(t, v, r.status, health.PhaseNone)
			if v.Code != r.code || !v.Asked || v.Service != r.name {
				t.Errorf("%s, %s: code %v, asked %v, service %q", r.name, connection, v.Code, v.Asked, v.Service)
			}
			if n := up.RPCsFor(r.name) - before; n != 1 && c.retried("frozen") == frozen {
				t.Errorf("%s, %s: the server was asked %d times; what it said is never asked again", r.name, connection, n)
			}
			if (v.Err != nil) != (r.code != codes.OK) {
				t.Errorf("%s: cause %v", r.name, v.Err)
			}
		}
	}
	if n := up.Connections(); n != 1 && c.retried("frozen") == 0 { // a busy machine may have stopped this process
		t.Errorf("%d connections for healthy answers, want 1", n)
	}
}

func TestFreshWhileTheStatusFlips(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	// epoch is even while the service is SERVING. Each RPC answers as the epoch is when it runs; a
	// verdict is stale when the server had that status at no time between the request and its answer.
	var epoch atomic.Int64
	up.Handle("flip", func(context.Context, string) (*healthpb.HealthCheckResponse, error) {
		s := serving
		if epoch.Load()%2 == 1 {
			s = notServing
		}
		return &healthpb.HealthCheckResponse{Status: s}, nil
	})
	c := checker(t, up.Target(), services("flip"))
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	var callers sync.WaitGroup
	var checks, stale atomic.Int64
	for range 64 {
		callers.Go(func() {
			for ctx.Err() == nil {
				before := epoch.Load()
				v := c.Check(t.Context(), "flip")
				after := epoch.Load()
				checks.Add(1)
				ok := v.Status == health.Serving || v.Status == health.NotServing
				if before == after {
					ok = v.Status == health.Serving && before%2 == 0 || v.Status == health.NotServing && before%2 == 1
				}
				if !ok {
					stale.Add(1)
				}
			}
		})
	}
	for ctx.Err() == nil {
		epoch.Add(1)
		time.Sleep(3 * time.Millisecond)
	}
	callers.Wait()
	if stale.Load() > 0 {
		t.Errorf("%d of %d verdicts were stale", stale.Load(), checks.Load())
	}
	if c.shared.Load() == 0 {
		t.Error("64 callers shared nothing")
	}
	t.Logf("%d checks, %d RPCs, %d flips", checks.Load(), up.RPCsFor("flip"), epoch.Load())
}

func TestSharing(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	c := checker(t, up.Target(), services("slow"))
	up.SetStatus("slow", serving)
	want(t, c.Check(t.Context(), "slow"), health.Serving, health.PhaseNone)
	up.SetDelay("slow", 200*time.Millisecond)
	before := up.RPCsFor("slow")
	var callers sync.WaitGroup
	for range 500 {
		callers.Go(func() { want(t, c.Check(t.Context(), "slow"), health.Serving, health.PhaseNone) })
	}
	callers.Wait()
	if n := up.RPCsFor("slow") - before; n > 8 {
		t.Errorf("500 callers at once made %d RPCs, want 8 at most", n)
	}
	if n := up.MaxInFlightFor("slow"); n > 8 {
		t.Errorf("%d RPCs at once, want 8 at most", n)
	}
}

func TestCallerThatLeavesStopsCostingWork(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	defer up.Hang("hung")()
	c := checker(t, up.Target(), func(o *Options) { o.RPCTimeout = time.Minute })
	ctx, cancel := context.WithCancel(t.Context())
	returned := make(chan struct{})
	go func() {
		defer close(returned)
		c.Check(ctx, "hung")
	}()
	eventually(t, "the RPC is under way", func() bool { return up.InFlightFor("hung") == 1 })
	cancel()
	<-returned
	eventually(t, "the RPC is cancelled", func() bool { return up.InFlightFor("hung") == 0 })
}

func TestOneCallerLeavesTheOthersStay(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	up.SetStatus("s", serving)
	release := up.Hang("s")
	c := checker(t, up.Target(), func(o *Options) { o.RPCTimeout = time.Minute })
	first, cancelFirst := context.WithCancel(t.Context())
	var all sync.WaitGroup
	all.Go(func() { c.Check(first, "s") })
	eventually(t, "the first RPC is under way", func() bool { return up.InFlightFor("s") == 1 })
	leaving, cancel := context.WithCancel(t.Context())
	for i := range 10 {
		all.Go(func() {
			if i%2 == 0 {
				c.Check(leaving, "s")
				return
			}
			want(t, c.Check(t.Context(), "s"), health.Serving, health.PhaseNone)
		})
	}
	eventually(t, "the others share an RPC", func() bool { return up.InFlightFor("s") >= 2 })
	cancel()
	cancelFirst()
	release()
	all.Wait()
}

func TestMaxAge(t *testing.T) {
	t.Parallel()
	var wall, mono atomic.Int64
	real := clock.System()
	clock := func() clock.Moment {
		m := real()
		return clock.Moment{Mono: m.Mono + mono.Load(), Wall: m.Wall + wall.Load()}
	}
	for name, jump := range map[string]*atomic.Int64{"the wall clock": &wall, "the monotonic clock": &mono} {
		up := healthtest.Start(t)
		c := checkerAt(t, clock, up.Target(), func(o *Options) { o.MaxAge = 10 * time.Second })
		for range 3 {
			want(t, c.Check(t.Context(), ""), health.Serving, health.PhaseNone)
		}
		if n := up.Connections(); n != 1 && c.retried("frozen") == 0 { // a busy machine may have stopped this process
			t.Fatalf("%d connections before the age is reached, want 1", n)
		}
		jump.Add(int64(11 * time.Second))
		want(t, c.Check(t.Context(), ""), health.Serving, health.PhaseNone)
		if n := up.Connections(); n != 2 {
			t.Errorf("11 s later by %s: %d connections in all, want 2", name, n)
		}
		eventually(t, "the old connection is closed", func() bool { return up.OpenConnections() == 1 })
	}
}

func TestMaxAgeZeroDialsForEveryRPC(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	c := checker(t, up.Target(), func(o *Options) { o.MaxAge = 0 })
	for i := range 5 {
		want(t, c.Check(t.Context(), ""), health.Serving, health.PhaseNone)
		if n := up.Connections(); n != i+1 {
			t.Errorf("%d connections after %d checks", n, i+1)
		}
	}
	eventually(t, "no connection is left", func() bool { return up.OpenConnections() == 0 })
}

func TestList(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	up.SetStatus("b", serving)
	up.SetStatus("a", notServing)
	c := checker(t, up.Target())
	list := c.List(t.Context())
	if len(list) != 3 || list[0].Service != "" || list[1].Service != "a" || list[2].Service != "b" {
		t.Fatalf("listed %+v", list)
	}
	want(t, list[0], health.Serving, health.PhaseNone)
	want(t, list[1], health.NotServing, health.PhaseNone)
	if health.Worst(list) != health.NotServing {
		t.Errorf("worst of the list: %v", health.Worst(list))
	}
	up.Stop()
	list = c.List(t.Context())
	if len(list) != 1 || list[0].Service != "" {
		t.Fatalf("listed %+v of a stopped server", list)
	}
	want(t, list[0], health.ConnectionFailed, health.PhaseConnect)
}

// Callers who share a List may each change what they got.
func TestCallersOfAListHaveTheirOwn(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	up.HandleList(func(context.Context) (*healthpb.HealthListResponse, error) {
		time.Sleep(50 * time.Millisecond) // so that those who come meanwhile share the next one
		return &healthpb.HealthListResponse{Statuses: map[string]*healthpb.HealthCheckResponse{"a": {Status: serving}}}, nil
	})
	var shared atomic.Int64
	c := checker(t, up.Target(), func(o *Options) { o.Trace.Shared = func() { shared.Add(1) } })
	lists := make([][]health.Verdict, 10)
	var all sync.WaitGroup
	for i := range lists {
		all.Go(func() {
			lists[i] = c.List(t.Context())
			lists[i][0].Target = "changed"
		})
	}
	all.Wait()
	if shared.Load() == 0 {
		t.Fatal("no caller has shared a List")
	}
	seen := make(map[*health.Verdict]bool)
	for _, list := range lists {
		if seen[&list[0]] {
			t.Error("two callers have the same list")
		}
		seen[&list[0]] = true
	}
}

func TestWhatTheServerSees(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	for _, row := range []struct {
		change    func(*Options)
		authority string
	}{
		{func(*Options) {}, up.Addr()},
		{func(o *Options) { o.ServerName = "name.test" }, "name.test"},
		{func(o *Options) { o.ServerName, o.Authority = "name.test", "authority.test:1" }, "authority.test:1"},
	} {
		c := checker(t, up.Target(), func(o *Options) { o.UserAgent, o.Gzip, o.RPCTimeout = "tester/1", true, time.Minute }, row.change)
		want(t, c.Check(t.Context(), ""), health.Serving, health.PhaseNone)
		call := up.Last()
		if call.Authority != row.authority {
			t.Errorf("authority %q, want %q", call.Authority, row.authority)
		}
		if call.Compression != "gzip" {
			t.Errorf("compression %q", call.Compression)
		}
		if len(call.UserAgent) < 8 || call.UserAgent[:8] != "tester/1" {
			t.Errorf("user agent %q", call.UserAgent)
		}
		if call.Timeout <= 50*time.Second || call.Timeout > time.Minute+200*time.Millisecond { // a busy machine sends it late
			t.Errorf("grpc-timeout %v, want a little above the RPC's budget of a minute", call.Timeout)
		}
	}
}

// Servers quote the token that they refuse.
func TestWhatWasSentIsNotQuoted(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	up.Handle("s", func(ctx context.Context, _ string) (*healthpb.HealthCheckResponse, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		return nil, status.Errorf(codes.Unauthenticated, "bad credentials %v, token s3cret", md.Get("authorization"))
	})
	var secrets redact.Secrets
	secrets.Set("authorization", redact.Header("authorization", "Bearer s3cret")...)
	c := checker(t, up.Target(), func(o *Options) {
		o.Metadata = func(context.Context) (metadata.MD, error) {
			return metadata.Pairs("authorization", "Bearer s3cret"), nil
		}
		o.Redact = secrets.Text
	})
	v := c.Check(t.Context(), "s")
	want(t, v, health.RPCFailed, health.PhaseNone)
	told := v.Err.Error() + strings.Join(c.proofs[0].Lines(), "")
	if strings.Contains(told, "s3cret") || !strings.Contains(told, "bad credentials") {
		t.Errorf("told %s", told)
	}
}
