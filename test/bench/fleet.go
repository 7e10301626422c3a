//go:build linux

package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// The servers that check a fleet beside ours.
const (
	leastFleet      kind = "least: raw HTTP/2, dialling"
	blackbox        kind = "blackbox_exporter"
	gatus           kind = "gatus"
	cloudproberDial kind = "cloudprober, dialling"
	cloudproberKeep kind = "cloudprober, keeping"
)

// fleetPlan is what -fleet measures.
type fleetPlan struct {
	targets  []int
	interval time.Duration                                 // between two checks of a target
	window   time.Duration                                 // of one measurement, once each target has been checked
	peers    struct{ blackbox, gatus, cloudprober string } // their programs; "" is not measured
}

// fleetTargets are those that goals are about.
var fleetTargets = []int{1000, 10000}

// fleetCell is one line of the table.
type fleetCell struct {
	transport transport
	targets   int
	kind      kind
}

// fleetFigures are what checks of many targets cost.
type fleetFigures struct {
	rate  float64       // checks per second
	cpu   time.Duration // of the process, per check
	conns float64       // connections per check
	rss   int64         // at the end, in bytes
	sweep sweepFigures  // nothing where nobody can ask
}

// sweepFigures are what it costs to have all checked at once.
type sweepFigures struct {
	took time.Duration // until the last answer
	cpu  time.Duration // of the process, per check
	peak int64         // the process's memory, in bytes
}

// fleetCells are all lines: what is compared is next to each other.
func (p plan) fleetCells() []fleetCell {
	var all []fleetCell
	for i, n := range p.fleet.targets {
		for _, t := range []transport{plain, tlsBehind} {
			for _, k := range []kind{leastFleet, ours, blackbox, gatus, cloudproberDial, cloudproberKeep} {
				switch {
				case p.only != "" && t != p.only:
				case i > 0 && (k == gatus || k == cloudproberDial || k == cloudproberKeep): // gatus would need 37 minutes to start
				case k == blackbox && p.fleet.peers.blackbox == "", k == gatus && p.fleet.peers.gatus == "":
				case (k == cloudproberDial || k == cloudproberKeep) && p.fleet.peers.cloudprober == "":
				default:
					all = append(all, fleetCell{t, n, k})
				}
			}
		}
	}
	return all
}

// manyTargets makes the table of fleets, and compares it with the goals.
func (b *bench) manyTargets(ctx context.Context) error {
	for _, peer := range []struct{ flag, path string }{
		{"-blackbox", b.fleet.peers.blackbox}, {"-gatus", b.fleet.peers.gatus}, {"-cloudprober", b.fleet.peers.cloudprober},
	} {
		if peer.path == "" {
			fmt.Fprintf(b.out, "\nwithout %s, the path of a program built from its public source: no rows of it\n", peer.flag)
		}
	}
	fmt.Fprintf(b.out, "\nEach target every %v, over %v:\n\n| | targets | server | checks/s | CPU ms per check | connections per check | RSS | sweep | its CPU ms per check | its peak RSS | load |\n"+
		"|---|---|---|---|---|---|---|---|---|---|---|\n", b.fleet.interval, b.fleet.window)
	results := make(map[fleetCell]fleetFigures)
	for _, c := range b.fleetCells() {
		f, err := b.underFleet(ctx, c)
		if err != nil {
			return fmt.Errorf("%s, %s, %d targets: %w", c.kind, c.transport, c.targets, err)
		}
		results[c] = f
		sweep := " | |"
		if f.sweep.took > 0 {
			sweep = fmt.Sprintf("%.2f s | %.3f | %s", f.sweep.took.Seconds(), f.sweep.cpu.Seconds()*1e3, mebibytes(f.sweep.peak))
		}
		load, err := os.ReadFile("/proc/loadavg")
		if err != nil {
			return err
		}
		late := ""
		if want := float64(c.targets) / b.fleet.interval.Seconds(); f.rate < 0.95*want {
			late = fmt.Sprintf(" **of %.0f**", want)
		}
		fmt.Fprintf(b.out, "| %s | %d | %s | %.0f%s | %.3f | %.2f | %s | %s | %s |\n",
			c.transport, c.targets, c.kind, f.rate, late, f.cpu.Seconds()*1e3, f.conns, mebibytes(f.rss), sweep, strings.Fields(string(load))[0])
	}
	b.compareFleets(results)
	return nil
}

// underFleet measures one server.
func (b *bench) underFleet(ctx context.Context, c fleetCell) (fleetFigures, error) {
	u, err := b.startSwarm(ctx, c.transport)
	if err != nil {
		return fleetFigures{}, err
	}
	defer u.stop()
	s, err := b.startFleet(ctx, c, u, b.fleet.interval)
	if err != nil {
		return fleetFigures{}, err
	}
	f, err := b.steady(ctx, c, s, u)
	s.stop()
	if err != nil || c.kind == gatus || c.kind == cloudproberDial || c.kind == cloudproberKeep {
		return f, err
	}
	var rounds []sweepFigures
	for range b.rounds {
		one, err := b.sweep(ctx, c, u)
		if err != nil {
			return f, err
		}
		rounds = append(rounds, one)
	}
	f.sweep = sweepFigures{
		took: median(rounds, func(s sweepFigures) time.Duration { return s.took }),
		cpu:  median(rounds, func(s sweepFigures) time.Duration { return s.cpu }),
		peak: median(rounds, func(s sweepFigures) int64 { return s.peak }),
	}
	return f, nil
}

// steady measures what regular checks cost.
func (b *bench) steady(ctx context.Context, c fleetCell, s *server, u swarm) (fleetFigures, error) {
	ctx, cancel := context.WithCancel(ctx)
	asked := make(chan error, 1)
	if c.kind == blackbox {
		go func() { asked <- askEvenly(ctx, s, c.targets, b.fleet.interval, u) }()
	} else {
		asked <- nil
	}
	f, err := b.between(ctx, c, s, u)
	cancel()
	return f, errors.Join(err, <-asked)
}

func (b *bench) between(ctx context.Context, c fleetCell, s *server, u swarm) (fleetFigures, error) {
	// gatus waits 222 ms between the starts of two.
	for late := time.Now().Add(3*b.fleet.interval + time.Duration(c.targets)*250*time.Millisecond); ; {
		seen, err := u.seen()
		if err != nil {
			return fleetFigures{}, err
		}
		if seen.Targets == c.targets {
			break
		}
		if time.Now().After(late) {
			return fleetFigures{}, fmt.Errorf("only %d targets were checked", seen.Targets)
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return fleetFigures{}, err
		}
	}
	if err := pause(ctx, b.fleet.interval); err != nil {
		return fleetFigures{}, err
	}
	cpu, errCPU := s.cpuTime()
	from, errSeen := u.seen()
	began := time.Now()
	if err := errors.Join(errCPU, errSeen, pause(ctx, b.fleet.window)); err != nil {
		return fleetFigures{}, err
	}
	cpuAfter, errCPU := s.cpuTime()
	until, errSeen := u.seen()
	took := time.Since(began)
	rss, errRSS := memory(s.cmd.Process.Pid, residentNow)
	if err := errors.Join(errCPU, errSeen, errRSS); err != nil {
		return fleetFigures{}, err
	}
	checks := until.Checks - from.Checks
	if checks == 0 {
		return fleetFigures{}, errors.New("no checks came any more")
	}
	return fleetFigures{
		rate:  float64(checks) / took.Seconds(),
		cpu:   (cpuAfter - cpu) / time.Duration(checks),
		conns: float64(until.Conns-from.Conns) / float64(checks),
		rss:   rss,
	}, nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// swarm is the upstreams: a process of their own, so that what they cost is not counted. Many addresses have one port.
type swarm struct {
	*server
	port  int
	roots string // what their certificates are verified with, a file; "" is without TLS
}

// seen is what has come to the upstreams.
type seen struct{ Port, Checks, Conns, Targets int }

func (b *bench) startSwarm(ctx context.Context, t transport) (swarm, error) {
	var u swarm
	args := []string{"serve"}
	if t.secured() {
		roots, err := os.CreateTemp(b.programs.dir, "roots")
		if err != nil {
			return u, fmt.Errorf("start the upstreams: %w", err)
		}
		roots.Close()
		u.roots = roots.Name()
		args = append(args, u.roots)
	}
	s, err := startServer(ctx, b.programs.swarm, args, nil)
	if err != nil {
		return u, err
	}
	u.server = s
	first, err := u.seen()
	if err != nil {
		s.stop()
	}
	u.port = first.Port
	return u, err
}

func (u swarm) seen() (s seen, err error) {
	response, err := http.Get("http://" + u.addr + "/")
	if err != nil {
		return s, fmt.Errorf("ask the upstreams what they saw: %w", err)
	}
	defer response.Body.Close()
	if err := json.NewDecoder(response.Body).Decode(&s); err != nil {
		return s, fmt.Errorf("ask the upstreams what they saw: %w", err)
	}
	return s, nil
}

// host is the address of a target, each its own: local ports that were used wait for a minute for each of them alone.
func host(i int) string { return fmt.Sprintf("127.%d.%d.%d", 1+i>>16, i>>8&0xff, i&0xff) }

func (u swarm) target(i int) string { return net.JoinHostPort(host(i), strconv.Itoa(u.port)) }

// startFleet starts a server that checks the targets that often; 0 is not by itself.
func (b *bench) startFleet(ctx context.Context, c fleetCell, u swarm, interval time.Duration) (*server, error) {
	file := filepath.Join(b.programs.dir, "fleet-"+strconv.Itoa(u.port)) // others may run beside it
	write := func(config string) error {
		if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
			return fmt.Errorf("configure %s: %w", c.kind, err)
		}
		return nil
	}
	if c.kind == leastFleet {
		args := []string{"check", strconv.Itoa(c.targets), strconv.Itoa(u.port), interval.String()}
		if u.roots != "" {
			args = append(args, u.roots)
		}
		return startServer(ctx, b.programs.swarm, args, nil)
	}
	if c.kind == ours {
		if err := write(u.oursFile(c)); err != nil {
			return nil, err
		}
		return startServer(ctx, b.programs.proxy, nil, []string{
			"GRPC_HEALTH_TARGETS_FILE=" + file, "GRPC_HEALTH_CHECK_INTERVAL=" + interval.String(),
			"GRPC_HEALTH_HTTP_LISTEN_ADDR=127.0.0.1:0", "GRPC_HEALTH_METRICS_HTTP_LISTEN_ADDR=127.0.0.1:0",
		})
	}
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	var config string
	var cmd *exec.Cmd
	switch c.kind {
	case blackbox:
		security := ""
		if u.roots != "" {
			security = fmt.Sprintf(", tls: true, tls_config: {ca_file: %q}", u.roots)
		}
		config = fmt.Sprintf("modules: {grpc: {prober: grpc, timeout: 2s, grpc: {preferred_ip_protocol: ip4%s}}}\n", security)
		cmd = inGroup(ctx, b.fleet.peers.blackbox, "--config.file="+file, "--web.listen-address="+addr)
	case gatus:
		config = u.gatusFile(c, addr, interval)
		cmd = inGroup(ctx, b.fleet.peers.gatus)
		cmd.Env = []string{"GATUS_CONFIG_PATH=" + file, "SSL_CERT_FILE=" + u.roots, "SSL_CERT_DIR=" + file} // it has no setting of the roots
	case cloudproberDial, cloudproberKeep:
		config = u.cloudproberFile(c, addr, interval)
		cmd = inGroup(ctx, b.fleet.peers.cloudprober, "--config_file="+file)
	}
	if err := write(config); err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", c.kind, err)
	}
	s := &server{cmd: cmd, addr: addr}
	for late := time.Now().Add(startWithin); ; {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			conn.Close()
			return s, nil
		}
		if errPause := pause(ctx, 10*time.Millisecond); errPause != nil || time.Now().After(late) {
			s.stop()
			return nil, fmt.Errorf("%s does not listen: %w", c.kind, err)
		}
	}
}

// freeAddr is where a server can listen that cannot choose for itself.
func freeAddr() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a port: %w", err)
	}
	defer listener.Close()
	return listener.Addr().String(), nil
}

func (u swarm) oursFile(c fleetCell) string {
	var out strings.Builder
	out.WriteString("defaults:\n  conn_max_age: 10s\n")
	if u.roots != "" {
		fmt.Fprintf(&out, "  tls: true\n  ca_cert: %q\n", u.roots)
	}
	out.WriteString("targets:\n")
	for i := range c.targets {
		fmt.Fprintf(&out, "  t%d: {addr: %q}\n", i, u.target(i))
	}
	return out.String()
}

func (u swarm) gatusFile(c fleetCell, addr string, interval time.Duration) string {
	var out strings.Builder
	_, port, _ := net.SplitHostPort(addr)
	scheme := "grpc"
	if u.roots != "" {
		scheme = "grpcs"
	}
	fmt.Fprintf(&out, "web: {address: 127.0.0.1, port: %s}\nmetrics: true\nconcurrency: 64\nendpoints:\n", port)
	for i := range c.targets {
		fmt.Fprintf(&out, "  - {name: t%d, url: \"%s://%s\", interval: %s, client: {timeout: 2s}, conditions: [\"[CONNECTED] == true\", \"[BODY].status == SERVING\"]}\n",
			i, scheme, u.target(i), interval)
	}
	return out.String()
}

func (u swarm) cloudproberFile(c fleetCell, addr string, interval time.Duration) string {
	_, port, _ := net.SplitHostPort(addr)
	hosts := make([]string, c.targets)
	for i := range hosts {
		hosts[i] = host(i)
	}
	security := "insecure_transport: true"
	if u.roots != "" {
		security = fmt.Sprintf("tls_config { ca_cert_file: %q }", u.roots)
	}
	return fmt.Sprintf("host: \"127.0.0.1\"\nport: %s\nprobe {\n  name: \"fleet\"\n  type: GRPC\n  targets { host_names: %q }\n  interval_msec: %d\n  timeout_msec: %d\n"+
		"  grpc_probe { method: HEALTH_CHECK port: %d %s disable_reuse_conn: %v }\n}\n",
		port, strings.Join(hosts, ","), interval.Milliseconds(), min(interval, 2*time.Second).Milliseconds(), u.port, security, c.kind == cloudproberDial)
}

// askers is how many ask for a check at once.
const askers = 64

// sweep asks a new process for a check of each target, once.
func (b *bench) sweep(ctx context.Context, c fleetCell, u swarm) (sweepFigures, error) {
	s, err := b.startFleet(ctx, c, u, 0)
	if err != nil {
		return sweepFigures{}, err
	}
	defer s.stop()
	callers, paths, body := askers, make([]string, c.targets), serving
	for i := range paths {
		paths[i] = fmt.Sprintf("/?target=t%d", i)
		if c.kind == blackbox {
			paths[i], body = blackboxPath(u.target(i)), blackboxSuccess
		}
	}
	if c.kind == leastFleet {
		callers, paths = 1, []string{"/sweep"}
	}
	all, err := scrapers(s.addr, callers, body)
	if err != nil {
		return sweepFigures{}, err
	}
	defer closeAll(all)
	before, errBefore := u.seen()
	idle, errIdle := s.cpuTime()
	var next atomic.Int64
	var asking sync.WaitGroup
	errs := make([]error, len(all))
	began := time.Now()
	for i, one := range all {
		asking.Go(func() {
			for n := next.Add(1) - 1; n < int64(len(paths)) && errs[i] == nil; n = next.Add(1) - 1 {
				errs[i] = one.askFor(paths[n])
			}
		})
	}
	asking.Wait()
	took := time.Since(began)
	used, errUsed := s.cpuTime()
	peak, errPeak := s.peak()
	after, errAfter := u.seen()
	if err := errors.Join(slices.Concat(errs, []error{errBefore, errIdle, errUsed, errPeak, errAfter})...); err != nil {
		return sweepFigures{}, err
	}
	if checks := after.Checks - before.Checks; checks != c.targets {
		return sweepFigures{}, fmt.Errorf("a sweep made %d checks", checks)
	}
	return sweepFigures{took: took, cpu: (used - idle) / time.Duration(c.targets), peak: peak}, nil
}

const blackboxSuccess = "probe_success 1\n"

func blackboxPath(target string) string {
	return "/probe?module=grpc&target=" + url.QueryEscape(target)
}

// askEvenly asks blackbox_exporter for each target, each at its own time of the interval, until ctx ends.
func askEvenly(ctx context.Context, s *server, targets int, interval time.Duration, u swarm) error {
	all, err := scrapers(s.addr, askers, blackboxSuccess)
	if err != nil {
		return err
	}
	defer closeAll(all)
	due := make(chan int)
	errs := make([]error, len(all))
	var asking sync.WaitGroup
	for i, one := range all {
		asking.Go(func() {
			for n := range due {
				errs[i] = cmp.Or(errs[i], one.askFor(blackboxPath(u.target(n))))
			}
		})
	}
	began := time.Now()
	for n := 0; pause(ctx, time.Until(began.Add(time.Duration(n)*interval/time.Duration(targets)))) == nil; n++ {
		due <- n % targets
	}
	close(due)
	asking.Wait()
	return cmp.Or(errs...) // one says enough
}

// scraper asks for one path after the other over HTTP/1.1.
type scraper struct {
	host, path string
	body       string // what the right answer has
}

// scrapers connects so many.
func scrapers(addr string, n int, body string) ([]*caller, error) {
	return load{addr: addr, protocol: func() (protocol, error) { return &scraper{host: addr, body: body}, nil }}.connectAll(n)
}

// askFor is ask for this path.
func (c *caller) askFor(path string) error {
	c.protocol.(*scraper).path = path
	c.conn.SetDeadline(time.Now().Add(time.Minute)) // /sweep is all checks in one
	return c.ask()
}

func (s *scraper) request() ([]byte, error) {
	return []byte("GET " + s.path + " HTTP/1.1\r\nHost: " + s.host + "\r\n\r\n"), nil
}

func (s *scraper) arrived(held []byte) (used int, whole bool, err error) {
	response, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(held)), nil)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return 0, false, nil
	}
	if err != nil {
		return 0, true, err
	}
	body, err := io.ReadAll(response.Body)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return 0, false, nil
	}
	if err != nil || response.StatusCode != http.StatusOK || !strings.Contains(string(body), s.body) {
		return 0, true, fmt.Errorf("a wrong answer to %s: %s %.500q", s.path, response.Status, body)
	}
	return len(held), true, nil
}

// fleetGoal is a figure, or a ratio, that is to be at most this.
type fleetGoal struct {
	name           string
	of             fleetCell
	to             kind // "" is none: the figure itself
	value          func(fleetFigures) float64
	floor, stretch float64
}

func fleetGoals() []fleetGoal {
	cpu := func(f fleetFigures) float64 { return f.cpu.Seconds() * 1e3 }
	rss := func(f fleetFigures) float64 { return float64(f.rss) / (1 << 20) }
	sweep := func(f fleetFigures) float64 { return f.sweep.took.Seconds() }
	few, many := fleetTargets[0], fleetTargets[1]
	return []fleetGoal{
		{"CPU ms per check", fleetCell{plain, few, ours}, "", cpu, 0.5, 0.2},
		{"CPU ms per check", fleetCell{tlsBehind, few, ours}, "", cpu, 0.95, 0.65},
		{"CPU", fleetCell{plain, few, ours}, blackbox, cpu, 0.46, 0.18},
		{"CPU", fleetCell{tlsBehind, few, ours}, blackbox, cpu, 0.51, 0.35},
		{"CPU", fleetCell{plain, few, ours}, gatus, cpu, 0.65, 0.26},
		{"CPU", fleetCell{tlsBehind, few, ours}, gatus, cpu, 0.66, 0.45},
		{"RSS in MiB", fleetCell{plain, few, ours}, "", rss, 30, 22},
		{"RSS in MiB", fleetCell{tlsBehind, few, ours}, "", rss, 30, 22},
		{"sweep in s", fleetCell{plain, few, ours}, "", sweep, 0.3, 0.15},
		{"sweep in s", fleetCell{tlsBehind, few, ours}, "", sweep, 0.75, 0.55},
		{"CPU ms per check", fleetCell{plain, many, ours}, "", cpu, 0.3, 0.1},
		{"CPU ms per check", fleetCell{tlsBehind, many, ours}, "", cpu, 0.7, 0.5},
		{"RSS in MiB", fleetCell{plain, many, ours}, "", rss, 80, 45},
		{"RSS in MiB", fleetCell{tlsBehind, many, ours}, "", rss, 80, 45},
		{"sweep in s", fleetCell{plain, many, ours}, "", sweep, 2.5, 1.4},
		{"sweep in s", fleetCell{tlsBehind, many, ours}, "", sweep, 7, 5},
	}
}

// compareFleets makes the table of the goals.
func (b *bench) compareFleets(results map[fleetCell]fleetFigures) {
	fmt.Fprint(b.out, "\n| figure of ours | measured | floor | stretch |\n|---|---|---|---|\n")
	for _, g := range fleetGoals() {
		f, found := results[g.of]
		if !found {
			continue
		}
		name, value := fmt.Sprintf("%s, %s, %d targets", g.name, g.of.transport, g.of.targets), g.value(f)
		if g.to != "" {
			peer, found := results[fleetCell{g.of.transport, g.of.targets, g.to}]
			if !found {
				continue
			}
			name, value = name+", beside "+string(g.to), value/g.value(peer)
		}
		verdict := ""
		if value > g.floor {
			verdict = "**missed**"
		}
		fmt.Fprintf(b.out, "| %s | %.2f %s | %g | %g |\n", name, value, verdict, g.floor, g.stretch)
	}
}
