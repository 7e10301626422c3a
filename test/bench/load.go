//go:build linux

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"
)

// load is callers that ask one server, each over a connection of its own, again as soon as they have the answer.
type load struct {
	addr     string
	tls      *tls.Config // nil is without
	protocol func() (protocol, error)
}

// protocol is how one caller asks. It does no more than it must: the work of callers competes with the server's.
type protocol interface {
	// request is the next request; its bytes stay until the call after.
	request() ([]byte, error)
	// arrived reads what the server sent and was not used yet, and says whether an answer is whole. An error says that it
	// is not the right one.
	arrived(held []byte) (used int, whole bool, err error)
}

// newLoad is a load of GET requests.
func newLoad(addr string, config *tls.Config, path, body string) load {
	p := http1{asks: []byte("GET " + path + " HTTP/1.1\r\nHost: " + addr + "\r\n\r\n"), body: body}
	return load{addr: addr, tls: config, protocol: func() (protocol, error) { return p, nil }}
}

// newGRPCLoad is a load of gRPC's, without TLS.
func newGRPCLoad(addr string) load {
	return load{addr: addr, protocol: func() (protocol, error) { return newGRPCCaller(addr) }}
}

// patience is how long callers wait for a connection, or an answer.
const patience = 10 * time.Second

// caller is one connection.
type caller struct {
	protocol
	tls    bool
	conn   net.Conn
	buffer []byte // what the server sent, of which
	held   int    // so many bytes are not used yet
}

// connect opens a connection.
func (l load) connect() (*caller, error) {
	p, err := l.protocol()
	if err != nil {
		return nil, err
	}
	conn, err := net.DialTimeout("tcp", l.addr, patience)
	if err != nil {
		return nil, fmt.Errorf("connect to the server: %w", err)
	}
	if l.tls != nil {
		secured := tls.Client(conn, l.tls)
		if err := secured.Handshake(); err != nil {
			conn.Close()
			return nil, fmt.Errorf("connect to the server: %w", err)
		}
		conn = secured
	}
	return &caller{protocol: p, tls: l.tls != nil, conn: conn, buffer: make([]byte, 1<<10)}, nil
}

// connectAll opens so many connections.
func (l load) connectAll(n int) ([]*caller, error) {
	const atOnce = 32 // a listener's queue is short
	callers := make([]*caller, n)
	errs := make([]error, n)
	var all sync.WaitGroup
	for first := range min(atOnce, n) {
		all.Go(func() {
			for i := first; i < n; i += atOnce {
				callers[i], errs[i] = l.connect()
			}
		})
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		closeAll(callers)
		return nil, err
	}
	return callers, nil
}

func closeAll(callers []*caller) {
	for _, c := range callers {
		if c != nil {
			c.conn.Close()
		}
	}
}

// ask makes one request, and waits for the answer.
func (c *caller) ask() error {
	request, err := c.request()
	if err != nil {
		return err
	}
	if _, err := c.conn.Write(request); err != nil {
		return fmt.Errorf("ask: %w", err)
	}
	for {
		read, err := c.conn.Read(c.room())
		if whole, wrong := c.took(read); whole || wrong != nil {
			return wrong
		}
		if err != nil {
			return fmt.Errorf("read the answer: %w", err)
		}
	}
}

// room is where the next part of an answer goes.
func (c *caller) room() []byte {
	if c.held == len(c.buffer) {
		c.buffer = append(c.buffer, make([]byte, c.held)...)
	}
	return c.buffer[c.held:]
}

// took takes in n more bytes, and says whether an answer is whole; an error says that it is not the right one.
func (c *caller) took(n int) (whole bool, err error) {
	c.held += n
	used, whole, err := c.arrived(c.buffer[:c.held])
	c.held = copy(c.buffer, c.buffer[used:c.held])
	return whole, err
}

// figures are what a server does under load.
type figures struct {
	rate     float64       // answers per second
	p50, p99 time.Duration // from a request until its answer
	rpcs     float64       // RPCs to the upstream per answer
	cpu      time.Duration // of the server, per answer
	peak     int64         // its memory, in bytes
}

// counters are what is read at both ends of a measurement.
type counters struct {
	at   time.Time
	rpcs int64
	cpu  time.Duration
}

func count(s *server, u *upstream) (counters, error) {
	cpu, err := s.cpuTime()
	return counters{at: time.Now(), rpcs: u.rpcs.Load(), cpu: cpu}, err
}

// errNoAnswer says that a server was too slow for the length of a measurement.
var errNoAnswer = errors.New("no answer in the time of a measurement: make -window longer")

// measure lets so many callers ask, and measures for the length of window once they have asked for a while.
func (l load) measure(ctx context.Context, s *server, u *upstream, callers int, window time.Duration) (figures, error) {
	all, err := l.connectAll(callers)
	if err != nil {
		return figures{}, err
	}
	defer closeAll(all)
	from := time.Now().Add(window / 3)
	until := from.Add(window)
	var times []time.Duration
	asked := make(chan error, 1)
	go func() {
		var err error
		times, err = askAll(all, from, until)
		asked <- err
	}()
	first, errFirst := countAt(ctx, from, s, u)
	last, errLast := countAt(ctx, until, s, u)
	err = <-asked
	peak, errPeak := s.peak()
	if err := errors.Join(err, errFirst, errLast, errPeak, ctx.Err()); err != nil {
		return figures{}, err
	}
	if len(times) == 0 {
		return figures{}, errNoAnswer
	}
	slices.Sort(times)
	f := figures{
		rate: float64(len(times)) / window.Seconds(),
		p50:  times[len(times)/2],
		p99:  times[len(times)*99/100],
		peak: peak,
	}
	answers := f.rate * last.at.Sub(first.at).Seconds() // between the counters, which were read a little late
	f.rpcs = float64(last.rpcs-first.rpcs) / answers
	f.cpu = time.Duration(float64(last.cpu-first.cpu) / answers)
	return f, nil
}

// askAll lets all ask until the time is over, and returns how long each answer took that came between the two.
func askAll(callers []*caller, from, until time.Time) ([]time.Duration, error) {
	if !callers[0].tls {
		return poll(callers, from, until)
	}
	took := make([][]time.Duration, len(callers))
	errs := make([]error, len(callers))
	var asking sync.WaitGroup
	for i, c := range callers {
		asking.Go(func() { took[i], errs[i] = c.askBetween(from, until) })
	}
	asking.Wait()
	return slices.Concat(took...), errors.Join(errs...)
}

func (c *caller) askBetween(from, until time.Time) ([]time.Duration, error) {
	var took []time.Duration
	c.conn.SetDeadline(until.Add(patience))
	for began := time.Now(); began.Before(until); {
		if err := c.ask(); err != nil {
			return nil, err
		}
		now := time.Now()
		if !now.Before(from) && now.Before(until) {
			took = append(took, now.Sub(began))
		}
		began = now
	}
	return took, nil
}

// countAt reads the counters at a time.
func countAt(ctx context.Context, at time.Time, s *server, u *upstream) (counters, error) {
	select {
	case <-time.After(time.Until(at)):
	case <-ctx.Done():
	}
	return count(s, u)
}
