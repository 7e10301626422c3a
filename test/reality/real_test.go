//go:build linux

package reality

import (
	"context"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"example.com/grpc-health-http/internal/creds"
	"example.com/grpc-health-http/internal/settings"
	"example.com/grpc-health-http/internal/upstream"
	"example.com/grpc-health-http/test/healthtest"
	"example.com/grpc-health-http/test/simnet"
)

// real is a place on this machine. Between the checker and the server is a relay, unless the checker reaches the server directly.
type real struct {
	*world
	address string // of the server; it stays reserved while nobody listens there
	relay   *healthtest.Forwarder
	names   *healthtest.NameServer
	files   string // the folder of the checker's files
	process *serverProcess
	stops   *checkerProcess
}

// TestReal has the scenarios happen on this machine.
func TestReal(t *testing.T) {
	t.Parallel()
	for _, s := range scenarios() {
		if s.onlySimulated != "" {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			s.tryReal(t)
		})
	}
}

// tryReal has a scenario happen, and once more where the machine stalled: what is late then makes another scenario of it.
func (s *scenario) tryReal(t *testing.T) {
	const tries = 5
	for try := 1; ; try++ {
		var stalled atomic.Bool
		stop := healthtest.WatchStalls(func(time.Time, time.Time) { stalled.Store(true) })
		wrong := s.play(t, s.shape, newReal)
		stop()
		if len(wrong) == 0 {
			return
		}
		if stalled.Load() && try < tries {
			t.Logf("once more, because the machine stalled: %q", wrong)
			continue
		}
		for _, one := range wrong {
			t.Error(one)
		}
		return
	}
}

func newReal(w *world) place {
	r := &real{world: w, files: w.t.TempDir(), address: reserve(w.t)}
	if !w.direct && !w.serverDies {
		r.relay = healthtest.Forward(w.t, r.address)
	}
	if w.named {
		addresses := []string{"127.0.0.1"}
		switch {
		case w.families:
			addresses = []string{"::1", "127.0.0.1"}
		case w.addresses == 2:
			addresses = []string{"127.0.0.2", "127.0.0.1"}
		}
		r.names = healthtest.StartNameServer(w.t, addresses...)
	}
	return r
}

// slack is more than a busy machine adds, and less than what a check would take that waits for a quarter of longBudget.
func (r *real) slack() time.Duration { return longBudget/4 - 100*time.Millisecond }

// reusePort is Linux' SO_REUSEPORT, which package syscall lacks.
const reusePort = 15

// reserve reserves an address for listen: it is bound, and nobody listens there.
func reserve(t *testing.T) (address string) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, reusePort, 1); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	in := name.(*syscall.SockaddrInet4)
	return netip.AddrPortFrom(netip.AddrFrom4(in.Addr), uint16(in.Port)).String()
}

// listen listens at an address that others may listen at, too.
func listen(address string) (net.Listener, error) {
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		failed := c.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, reusePort, 1) })
		if failed != nil {
			return failed
		}
		return err
	}}
	l, err := config.Listen(context.Background(), "tcp", address)
	if err != nil {
		return nil, err
	}
	return listener{l.(*net.TCPListener)}, nil
}

// listener ends with its Close, also where a process that is being started has a copy of it until its exec.
type listener struct{ *net.TCPListener }

func (l listener) Close() error {
	ours, err := l.File()
	if err != nil {
		return err // closed before
	}
	defer ours.Close()
	l.TCPListener.Close()
	raw, err := ours.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Control(func(fd uintptr) { _ = syscall.Shutdown(int(fd), syscall.SHUT_RDWR) })
}

func (r *real) listen() net.Listener {
	l, err := listen(r.address)
	if err != nil {
		r.t.Fatal(err)
	}
	return l
}

func (r *real) up() {
	if !r.serverDies {
		r.serve()
		return
	}
	r.process = startServer(r.t, r.address)
}

func (r *real) kill() { r.process.kill() }

func (r *real) hang() {
	if r.serverDies {
		r.process.hang()
		return
	}
	r.service.hang()
}

func (r *real) asked() int {
	if r.serverDies {
		return int(r.process.asked.Load())
	}
	return r.service.asked()
}

func (r *real) checker() asker {
	address := r.address
	if r.relay != nil {
		address = r.relay.Addr()
	}
	if r.named {
		address = r.names.Target(portOf(address))
	}
	s := &settings.Upstream{
		Addr: address, Services: []string{"", hung}, ConnectTimeout: r.budget, RPCTimeout: r.budget, ConnMaxAge: time.Minute, ServerName: "localhost",
	}
	if r.secure {
		s.TLS, s.CACert, s.ClientCert, s.ClientKey = true, r.file("ca"), r.file("cert"), r.file("key")
	}
	if r.shape.metadata {
		s.Headers = []settings.Header{{Name: "from", File: r.file("from")}}
		r.write("from", []byte("a scenario"))
	}
	if r.clientStops {
		r.stops = startChecker(r.t, s)
		return r.stops
	}
	o, err := upstream.Options(s, creds.Options{}, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	return newLocal(o)
}

func portOf(address string) string { return address[strings.LastIndex(address, ":")+1:] }

func (r *real) impair(mode simnet.Mode, firstAlone bool) {
	if firstAlone {
		r.impairFirst(mode, "127.0.0.2:"+portOf(r.relay.Addr()))
		return
	}
	r.relay.SetMode(map[simnet.Mode]healthtest.Mode{
		simnet.Pass: healthtest.Pass, simnet.Refuse: healthtest.Refuse, simnet.LoseSYN: healthtest.Backlogged, simnet.Mute: healthtest.Silent,
		simnet.ResetOnAccept: healthtest.ResetOnAccept, simnet.ResetLater: healthtest.ResetOnFirstBytes,
	}[mode])
}

// impairFirst makes an address of which nobody has made use so.
func (r *real) impairFirst(mode simnet.Mode, address string) {
	switch mode {
	case simnet.Refuse:
		return // nobody listens
	case simnet.LoseSYN:
		healthtest.DropSYNs(r.t, address)
		return
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { l.Close() })
	if mode == simnet.Mute {
		return // the system accepts
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if mode == simnet.ResetLater {
				_, _ = c.Read(make([]byte, 1))
			}
			_ = c.(*net.TCPConn).SetLinger(0) // makes Close send a reset; it fails only if the connection is broken already
			c.Close()
		}
	}()
}

func (r *real) breakAll(how string) {
	map[string]func(){
		"Reset": r.relay.Reset, "BlackHole": r.relay.BlackHole, "Deafen": r.relay.Deafen, "HalfOpen": r.relay.HalfOpen,
	}[how]()
}

func (r *real) breakOlder(how string, than time.Time) {
	map[string]func(time.Time) int{"Reset": r.relay.ResetOlder, "BlackHole": r.relay.BlackHoleOlder}[how](than)
}

func (r *real) slow(by time.Duration) { r.relay.Delay(by, by) }

func (r *real) lookups(in input) {
	switch in {
	case fails:
		r.names.SetFailing()
	case never:
		r.names.SetSilent()
	case late:
		r.names.SetDelay(lateness)
	}
}

func (r *real) find(family int) {
	r.names.SetAddresses(map[int]string{4: "127.0.0.1", 6: "::1"}[family])
}

func (r *real) lose(family int, all bool) {
	about := map[int]dnsmessage.Type{4: dnsmessage.TypeA, 6: dnsmessage.TypeAAAA}[family]
	lost := false // the name server guards it
	r.names.Lose(func(t dnsmessage.Type) bool {
		if t != about || lost && !all {
			return false
		}
		lost = true
		return true
	})
}

func (r *real) secrets(in input)  { r.input("ca", in) }
func (r *real) metadata(in input) { r.input("from", in) }

// input makes a file that is missing, or one that does not come before somebody writes into it: a FIFO.
func (r *real) input(name string, in input) {
	path := r.file(name)
	content, err := os.ReadFile(path)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		r.t.Fatal(err)
	}
	if in == fails {
		return
	}
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		r.t.Fatal(err)
	}
	write := func(content []byte) {
		fifo, err := os.OpenFile(path, os.O_RDWR, 0) // does not wait for a reader
		if err != nil {
			r.t.Error(err)
			return
		}
		defer fifo.Close()
		if _, err := fifo.Write(content); err != nil {
			r.t.Error(err)
		}
	}
	if in == never {
		r.t.Cleanup(func() { write(nil) }) // for the reader to end
		return
	}
	r.running.Go(func() {
		time.Sleep(lateness)
		write(content)
	})
}

func (r *real) file(name string) string { return filepath.Join(r.files, name) }

func (r *real) write(name string, content []byte) {
	if err := os.WriteFile(r.file(name), content, 0o600); err != nil {
		r.t.Fatal(err)
	}
}

func (r *real) hold(trusts []*healthtest.CA, shows *healthtest.CA) {
	var roots []byte
	for _, ca := range trusts {
		roots = append(roots, ca.PEM()...)
	}
	own := shows.Client(r.t)
	r.write("ca", roots)
	r.write("cert", own.CertPEM)
	r.write("key", own.KeyPEM)
}

func (r *real) freeze(d time.Duration, meanwhile func()) { r.stops.freeze(d, meanwhile) }
