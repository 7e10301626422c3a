package simnet_test

import (
	"context"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"example.com/grpc-health-http/test/simnet"
)

const (
	latency = 8 * time.Millisecond
	slowest = latency + latency/4
	there   = "192.0.2.1:1"
)

// fixture is a network with a server that sends back what it gets.
type fixture struct {
	*simnet.Net
	t *testing.T
}

// in runs a test in a bubble.
func in(t *testing.T, test func(t *testing.T, f *fixture)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := &fixture{Net: simnet.New(1, latency), t: t}
		defer f.serve("").Close()
		test(t, f)
		for _, c := range f.Open() {
			c.Reset()
			c.Close()
		}
	})
}

// serve sends back what comes, with a prefix.
func (f *fixture) serve(prefix string) net.Listener {
	l := f.Listen(there)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for {
					p := make([]byte, 100)
					n, err := c.Read(p)
					if err != nil {
						return
					}
					c.Write(append([]byte(prefix), p[:n]...))
				}
			}()
		}
	}()
	return l
}

func (f *fixture) connect() *simnet.Conn {
	f.t.Helper()
	c, err := f.Connect(f.t.Context(), "tcp", there)
	if err != nil {
		f.t.Fatal(err)
	}
	return c.(*simnet.Conn)
}

// within checks that something took a time between two.
func (f *fixture) within(from time.Time, least, most time.Duration) {
	f.t.Helper()
	if took := time.Since(from); took < least || took > most {
		f.t.Errorf("took %v, want %v to %v", took, least, most)
	}
}

// ask sends a text, and returns what came back within a second.
func ask(c net.Conn, text string) (string, error) {
	if _, err := c.Write([]byte(text)); err != nil {
		return "", err
	}
	c.SetReadDeadline(time.Now().Add(time.Second))
	p := make([]byte, 100)
	n, err := c.Read(p)
	return string(p[:n]), err
}

func TestLatency(t *testing.T) {
	in(t, func(t *testing.T, f *fixture) {
		began := time.Now()
		c := f.connect()
		f.within(began, 2*latency, 2*slowest)
		began = time.Now()
		if got, err := ask(c, "hello"); got != "hello" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
		f.within(began, 2*latency, 2*slowest)
	})
}

// Two networks of the same seed take the same times, another seed others.
func TestJitterRepeats(t *testing.T) {
	var took [3]time.Duration
	for i, seed := range []uint64{7, 7, 8} {
		synctest.Test(t, func(t *testing.T) { took[i] = simnet.New(seed, latency).Delay(true) })
	}
	if took[0] != took[1] || took[0] == took[2] {
		t.Errorf("took %v", took)
	}
}

func TestNewConnections(t *testing.T) {
	for name, test := range map[string]struct {
		mode      simnet.Mode
		connect   error // nil: connected
		read      error
		least     time.Duration // until that error
		mostAfter time.Duration
	}{
		"pass":            {simnet.Pass, nil, nil, 0, 4 * slowest},
		"refuse":          {simnet.Refuse, syscall.ECONNREFUSED, nil, 2 * latency, 2 * slowest},
		"lose SYN":        {simnet.LoseSYN, context.DeadlineExceeded, nil, time.Second, time.Second},
		"mute":            {simnet.Mute, nil, errTimeout, time.Second, time.Second + 2*slowest},
		"reset on accept": {simnet.ResetOnAccept, nil, syscall.ECONNRESET, latency, 4 * slowest},
		"reset later":     {simnet.ResetLater, nil, syscall.ECONNRESET, 3 * latency, 5 * slowest},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, func(t *testing.T, f *fixture) {
				end := f.Impair(test.mode, there)
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				began := time.Now()
				c, err := f.Connect(ctx, "tcp", there)
				if test.connect == nil {
					if err == nil {
						_, err = ask(c, "x")
					}
					test.connect = test.read
				}
				if !errors.Is(err, test.connect) && !(test.connect == errTimeout && isTimeout(err)) {
					t.Errorf("got %v, want %v", err, test.connect)
				}
				f.within(began, test.least, test.mostAfter)
				end()
				if got, err := ask(f.connect(), "after"); got != "after" {
					t.Errorf("after the impairment: %q, %v", got, err)
				}
			})
		})
	}
}

// A reset on accept shows to who connects or, later, to who reads; and a reset is reported once.
func TestResetIsToldOnce(t *testing.T) {
	in(t, func(t *testing.T, f *fixture) {
		f.Impair(simnet.ResetOnAccept)
		told := make(map[string]int)
		for range 40 {
			c, err := f.Connect(t.Context(), "tcp", there)
			if err != nil {
				told["connecting"]++
				continue
			}
			p := make([]byte, 1)
			if _, err := c.Read(p); errors.Is(err, syscall.ECONNRESET) {
				told["reading"]++
			}
			if _, err := c.Read(p); err != io.EOF {
				t.Errorf("read again: %v", err)
			}
			if _, err := c.Write(p); !errors.Is(err, syscall.EPIPE) {
				t.Errorf("write after the reset was told: %v", err)
			}
			c.Close()
		}
		if told["connecting"] == 0 || told["reading"] == 0 || told["connecting"]+told["reading"] != 40 {
			t.Errorf("told %v", told)
		}
		f.Impair(simnet.Pass)
		c := f.connect()
		c.Reset()
		p := make([]byte, 1)
		if _, err := c.Write(p); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("first write: %v", err)
		}
		if _, err := c.Read(p); err != io.EOF {
			t.Errorf("read after a write was told: %v", err)
		}
	})
}

var errTimeout = errors.New("a read's deadline passed")

func isTimeout(err error) bool {
	timeout, ok := errors.AsType[net.Error](err)
	return ok && timeout.Timeout()
}

func TestBreaking(t *testing.T) {
	for name, test := range map[string]struct {
		do    func(*simnet.Conn)
		want  error
		after time.Duration // of the write
	}{
		"reset":      {(*simnet.Conn).Reset, syscall.ECONNRESET, 0},
		"black hole": {(*simnet.Conn).BlackHole, errTimeout, time.Second},
		"deafen":     {(*simnet.Conn).Deafen, errTimeout, time.Second},
		"half-open":  {(*simnet.Conn).HalfOpen, syscall.ECONNRESET, 2 * latency},
		"closed":     {func(c *simnet.Conn) { c.Server().Close() }, io.EOF, latency},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, func(t *testing.T, f *fixture) {
				c := f.connect()
				if got, err := ask(c, "before"); got != "before" {
					t.Fatal(got, err)
				}
				test.do(c)
				began := time.Now()
				_, err := ask(c, "x")
				if !errors.Is(err, test.want) && !(test.want == errTimeout && isTimeout(err)) {
					t.Errorf("got %v, want %v", err, test.want)
				}
				f.within(began, test.after, test.after+2*slowest)
				if len(f.Conns()) != 0 && name != "half-open" || len(f.Open()) != 1 {
					t.Errorf("%d connections count as usable, %d as open", len(f.Conns()), len(f.Open()))
				}
			})
		})
	}
}

// Of a half-open connection the client learns with a write, although the server closes its side.
func TestHalfOpenIsSilent(t *testing.T) {
	in(t, func(t *testing.T, f *fixture) {
		c := f.connect()
		c.HalfOpen()
		synctest.Wait()
		c.SetReadDeadline(time.Now().Add(time.Second))
		if n, err := c.Read(make([]byte, 1)); !isTimeout(err) {
			t.Errorf("read %d, %v before a write", n, err)
		}
		if _, err := ask(c, "x"); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("after a write: %v", err)
		}
	})
}

// A new listener takes the address over; closing the old one resets what it has not accepted.
func TestTakeover(t *testing.T) {
	in(t, func(t *testing.T, f *fixture) {
		old := f.Listen(there)
		waiting := f.connect()
		defer f.serve("new ").Close()
		old.Close()
		if _, err := ask(waiting, "x"); !errors.Is(err, syscall.ECONNRESET) || !waiting.Rejected() {
			t.Errorf("the connection that was not accepted: %v", err)
		}
		c := f.connect()
		if got, err := ask(c, "x"); got != "new x" || c.ReachedBy(old) {
			t.Errorf("got %q, %v", got, err)
		}
	})
}

func TestFreeze(t *testing.T) {
	in(t, func(t *testing.T, f *fixture) {
		c := f.connect()
		got := make(chan string)
		go func() {
			text, _ := ask(c, "x")
			got <- text
		}()
		synctest.Wait()
		thaw := f.Freeze()
		for range 2 {
			f.Deliver()
			synctest.Wait()
		}
		select {
		case text := <-got:
			t.Errorf("read %q while frozen", text)
		default:
		}
		began := time.Now()
		thaw()
		if text := <-got; text != "x" || time.Since(began) != 0 {
			t.Errorf("got %q, %v after the freeze", text, time.Since(began))
		}
	})
}
