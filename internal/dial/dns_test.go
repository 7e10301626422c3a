package dial_test

import (
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"example.com/grpc-health-http/internal/dial"
	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/test/healthtest"
)

// question is one that a nameServer was asked.
type question struct {
	six bool
	n   int // how many of this family and name were asked before
	tcp bool
}

// reply is what a nameServer says; its zero value is NODATA.
type reply struct {
	lost      bool
	after     time.Duration
	rcode     dnsmessage.RCode
	truncated bool
	ips       []string
}

// nameServer is a DNS server on loopback, over UDP and TCP. It answers as answer says, for upstream.test and no other name.
type nameServer struct {
	address string

	mu    sync.Mutex
	asked []string // "A", "AAAA", with "tcp" behind
	names map[string]int
}

func startNameServer(t *testing.T, answer func(question) reply) *nameServer {
	t.Helper()
	s := &nameServer{names: make(map[string]int)}
	var udp net.PacketConn
	var tcp net.Listener
	for udp == nil { // until a port is free for both
		var err error
		if tcp, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		if udp, err = net.ListenPacket("udp", tcp.Addr().String()); err != nil {
			tcp.Close()
		}
	}
	s.address = tcp.Addr().String()
	t.Cleanup(func() { udp.Close(); tcp.Close() })
	go func() {
		buffer := make([]byte, 1500)
		for {
			n, from, err := udp.ReadFrom(buffer)
			if err != nil {
				return
			}
			if text, after := s.say(buffer[:n], false, answer); text != nil {
				time.AfterFunc(after, func() { udp.WriteTo(text, from) })
			}
		}
	}()
	go func() {
		for {
			c, err := tcp.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				var size [2]byte
				if _, err := io.ReadFull(c, size[:]); err != nil {
					return
				}
				query := make([]byte, binary.BigEndian.Uint16(size[:]))
				if _, err := io.ReadFull(c, query); err != nil {
					return
				}
				if text, _ := s.say(query, true, answer); text != nil {
					c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(text))), text...))
				}
			}()
		}
	}()
	return s
}

func (s *nameServer) say(query []byte, tcp bool, answer func(question) reply) (text []byte, after time.Duration) {
	var m dnsmessage.Message
	if m.Unpack(query) != nil || len(m.Questions) != 1 {
		return nil, 0
	}
	q := m.Questions[0]
	s.mu.Lock()
	what := strings.TrimPrefix(q.Type.String(), "Type")
	if tcp {
		what += " tcp"
	}
	s.asked = append(s.asked, what)
	key := q.Name.String() + what
	n := s.names[key]
	s.names[key]++
	s.mu.Unlock()
	r := reply{rcode: dnsmessage.RCodeNameError}
	if q.Name.String() == "upstream.test." {
		r = answer(question{six: q.Type == dnsmessage.TypeAAAA, n: n, tcp: tcp})
	}
	if r.lost {
		return nil, 0
	}
	m.Response, m.RecursionAvailable, m.Additionals, m.RCode, m.Truncated = true, true, nil, r.rcode, r.truncated
	for _, ip := range r.ips {
		a := netip.MustParseAddr(ip)
		header := dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET}
		if a.Is4() {
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: header, Body: &dnsmessage.AResource{A: a.As4()}})
		} else {
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: header, Body: &dnsmessage.AAAAResource{AAAA: a.As16()}})
		}
	}
	text, err := m.Pack()
	if err != nil {
		panic(err)
	}
	return text, r.after
}

// questions are those that were asked.
func (s *nameServer) questions() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.asked)
}

func (s *nameServer) count(what string) (n int) {
	for _, a := range s.questions() {
		if strings.HasPrefix(a+" ", what+" ") {
			n++
		}
	}
	return n
}

// A real resolver asks a real DNS server, which answers in every way that people meet. One lost datagram, and one family about which
// nobody says anything, are no failure.
func TestNameServers(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t) // on 127.0.0.1
	_, port, err := net.SplitHostPort(up.Addr())
	if err != nil {
		t.Fatal(err)
	}
	here, servfail := reply{ips: []string{"127.0.0.1"}}, reply{rcode: dnsmessage.RCodeServerFailure}
	lost, nxdomain := reply{lost: true}, reply{rcode: dnsmessage.RCodeNameError}
	families := func(six, four func(q question) reply) func(question) reply {
		return func(q question) reply {
			if q.six {
				return six(q)
			}
			return four(q)
		}
	}
	always := func(r reply) func(question) reply { return func(question) reply { return r } }
	firstLost := func(r reply) func(question) reply {
		return func(q question) reply {
			if q.n == 0 {
				return lost
			}
			return r
		}
	}
	const budget = 4 * time.Second
	soon, asked, ended := [2]time.Duration{0, 900 * ms}, [2]time.Duration{900 * ms, 2500 * ms}, [2]time.Duration{budget, budget + time.Second}
	for _, row := range []struct {
		name   string
		answer func(question) reply
		took   [2]time.Duration // between
		cause  string
	}{
		{"both at once", families(always(reply{}), always(here)), soon, ""},
		{"the first A lost", families(always(reply{}), firstLost(here)), asked, ""},
		{"the first AAAA lost", families(firstLost(reply{}), always(here)), soon, ""},
		{"the first of both lost", families(firstLost(reply{}), firstLost(here)), asked, ""},
		{"AAAA never answered", families(always(lost), always(here)), soon, ""},
		{"AAAA SERVFAIL", families(always(servfail), always(here)), soon, ""},
		{"AAAA refused", families(always(reply{rcode: dnsmessage.RCodeRefused}), always(here)), soon, ""},
		{"AAAA not implemented", families(always(reply{rcode: dnsmessage.RCodeNotImplemented}), always(here)), soon, ""},
		{"AAAA NXDOMAIN", families(always(nxdomain), always(here)), soon, ""},
		{"an answer to the first after the second was asked", families(always(reply{}), func(q question) reply {
			if q.n == 0 {
				return reply{after: 1300 * ms, ips: here.ips}
			}
			return lost
		}), asked, ""},
		{"truncated", families(always(reply{}), func(q question) reply {
			if !q.tcp {
				return reply{truncated: true}
			}
			return here
		}), soon, ""},
		{"SERVFAIL once", families(always(reply{}), func(q question) reply {
			if q.n < 2 { // package net asks twice
				return servfail
			}
			return here
		}), asked, ""},
		{"NXDOMAIN", always(nxdomain), soon, "no such host"},
		{"NODATA", always(reply{}), soon, "no such host"},
		{"SERVFAIL", always(servfail), asked, "server misbehaving"},
		{"never", always(lost), ended, "the target's host was not looked up by"},
		{"no AAAA, A never", families(always(reply{}), always(lost)), ended, "the IPv4 addresses of the target's host were not looked up by"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			var server *nameServer
			var d health.Dial
			var took time.Duration
			for range 5 { // a busy machine takes longer than that now and then, and a dial that waits too long each time
				server = startNameServer(t, row.answer)
				began := time.Now()
				d, _ = dialReal(t, "dns://"+server.address+"/upstream.test:"+port, func(o *dial.Options) { o.ConnectTimeout = budget })
				if took = time.Since(began); took <= row.took[1] {
					break
				}
			}
			phase := health.PhaseNone
			if row.cause != "" {
				phase = health.PhaseDNS
				if d.Err == nil || !strings.Contains(d.Err.Error(), server.address) {
					t.Errorf("the cause does not name the server that was asked, %s", server.address)
				}
			}
			want(t, d, phase, row.cause)
			if took < row.took[0] || took > row.took[1] {
				t.Errorf("took %v, want %v; asked %q", took, row.took, server.questions())
			}
			if a, aaaa := server.count("A"), server.count("AAAA"); a == 0 || aaaa == 0 || a > 4 || aaaa > 4 {
				t.Errorf("asked %q", server.questions())
			}
		})
	}
}

// A probe that waits for a name asks a handful of times in a second.
func TestHandfulOfQuestions(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		rcode dnsmessage.RCode
		most  int
	}{{dnsmessage.RCodeNameError, 8}, {dnsmessage.RCodeServerFailure, 16}, {dnsmessage.RCodeSuccess, 8}} {
		server := startNameServer(t, func(question) reply { return reply{rcode: row.rcode} })
		d, _ := dialReal(t, "dns://"+server.address+"/upstream.test:1", func(o *dial.Options) { o.Redial, o.ConnectTimeout = 50*ms, time.Second })
		if n := len(server.questions()); d.Phase != health.PhaseDNS || n < 4 || n > row.most {
			t.Errorf("%v: %d questions: %v", row.rcode, n, d.Err)
		}
	}
}

// A zone is a matter of this machine: the connection uses it, and neither the name that is verified nor :authority has it.
func TestZone(t *testing.T) {
	t.Parallel()
	ca := healthtest.NewCA(t)
	up := healthtest.Start(t, healthtest.IPv6(), healthtest.TLS(ca.ServerTLS(t, healthtest.IPs("::1"))))
	_, port, err := net.SplitHostPort(up.Addr())
	if err != nil {
		t.Fatal(err)
	}
	loopback := loopbackName(t)
	for _, text := range []string{"[::1%" + loopback + "]:" + port, "[::1%25" + loopback + "]:" + port, "dns:///[::1%25" + loopback + "]:" + port} {
		d, _ := dialReal(t, text, with(&tls.Config{RootCAs: ca.Pool()}))
		want(t, d, health.PhaseNone, "")
		if got := up.Last().Authority; got != "[::1]:"+port {
			t.Errorf("%s: :authority %q", text, got)
		}
		if got := d.Addresses[0].Address; !strings.Contains(got, "%"+loopback) {
			t.Errorf("%s: connected to %s", text, got)
		}
	}
}

// loopbackName is the name of the loopback interface.
func loopbackName(t *testing.T) string {
	t.Helper()
	all, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(all, func(i net.Interface) bool { return i.Flags&net.FlagLoopback != 0 })
	if i < 0 {
		t.Skip("there is no loopback interface")
	}
	return all[i].Name
}

// The cause quotes what a port says that is not the gRPC server's, bounded and on one line, with what to do about it.
func TestBanners(t *testing.T) {
	t.Parallel()
	tlsTo := with(&tls.Config{InsecureSkipVerify: true})
	none := func(*dial.Options) {}
	for _, row := range []struct {
		name, says string
		change     func(*dial.Options)
		causes     []string
	}{
		{"SSH", "SSH-2.0-OpenSSH_9.6p1\r\n", none, []string{`it says "SSH-2.0-OpenSSH_9.6p1"`, "gRPC port"}},
		{"SMTP", "220 mail.example ESMTP\r\n", none, []string{`it says "220 mail.example ESMTP"`}},
		{"FTP", "220 (vsFTPd 3.0.5)\r\n", none, []string{"vsFTPd"}},
		{"Redis", "-ERR unknown command 'PRI'\r\n", none, []string{"ERR unknown command"}},
		{"a long line", strings.Repeat("x", 600), none, []string{`"` + strings.Repeat("x", 64) + `…"`}},
		{"MySQL", "\x4a\x00\x00\x00\x0a8.0.36\x00", none, []string{"not HTTP/2"}},
		{"nginx's TLS port", "HTTP/1.1 400 Bad Request\r\nServer: nginx\r\n\r\n<center>The plain HTTP request was sent to HTTPS port</center>", none, []string{"wants TLS: set MY_TLS"}},
		{"Go's TLS port", "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n", none, []string{"wants TLS: set MY_TLS"}},
		{"Apache's TLS port", "HTTP/1.1 400 Bad Request\r\n\r\nYou're speaking plain HTTP to an SSL-enabled server port.\n", none, []string{"wants TLS: set MY_TLS"}},
		{"an HTTP/1 port that refuses", "HTTP/1.1 400 Bad Request\r\n\r\n", none, []string{"is MY_TLS set, and is the address that of the gRPC port?"}},
		{"an HTTP/1 port", "HTTP/1.1 505 HTTP Version Not Supported\r\n\r\n", none, []string{`says "HTTP/1.1 505 HTTP Version Not Supported"`, "gRPC port"}},
		{"a TLS alert", "\x15\x03\x01\x00\x02\x02\x46", none, []string{"it speaks TLS: set MY_TLS"}},
		{"TLS to SSH", "SSH-2.0-OpenSSH_9.6p1\r\n", tlsTo, []string{"does not speak TLS", `says "SSH-2.0-OpenSSH_9.6p1"`}},
		{"TLS to HTTP/1", "HTTP/1.1 400 Bad Request\r\n\r\n", tlsTo, []string{"does not speak TLS", "do without MY_TLS"}},
		{"TLS to plaintext gRPC", "\x00\x00\x00\x04\x00\x00\x00\x00\x00", tlsTo, []string{"does not speak TLS", "do without MY_TLS"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer listener.Close()
			go func() {
				for {
					c, err := listener.Accept()
					if err != nil {
						return
					}
					go func() {
						defer c.Close()
						c.Read(make([]byte, 16<<10)) // what the client begins with
						io.WriteString(c, row.says)
						c.(*net.TCPConn).CloseWrite()
						io.Copy(io.Discard, c)
					}()
				}
			}()
			d, _ := dialReal(t, listener.Addr().String(), row.change, func(o *dial.Options) { o.TLSSetting = "MY_TLS" })
			if d.Err == nil {
				t.Fatal("there is a connection")
			}
			for _, cause := range row.causes {
				if !strings.Contains(d.Err.Error(), cause) {
					t.Errorf("%v; want %q", d.Err, cause)
				}
			}
			if strings.ContainsAny(d.Err.Error(), "\r\n") || len(d.Err.Error()) > 1<<10 {
				t.Errorf("%q", d.Err)
			}
		})
	}
}
