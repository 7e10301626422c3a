package healthtest

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// nameServed is the name that a NameServer knows.
const nameServed = "upstream.test"

// mostByUDP is the length of the longest answer in a datagram, in bytes: that of RFC 1035. A longer one is fetched by TCP.
const mostByUDP = 512

// NameServer is a DNS server on loopback, over UDP and TCP, that knows one name, upstream.test. Its methods are safe for concurrent use.
type NameServer struct {
	conn    net.PacketConn
	tcp     net.Listener
	running sync.WaitGroup

	mu        sync.Mutex
	addresses []string
	delay     time.Duration
	failing   bool
	lost      func(dnsmessage.Type) bool // nil loses nothing
}

// StartNameServer starts a name server. It ends with the test. addresses are those of upstream.test, of either family; without any,
// the name does not exist (NXDOMAIN).
func StartNameServer(t testing.TB, addresses ...string) *NameServer {
	t.Helper()
	var conn net.PacketConn
	var tcp net.Listener
	for conn == nil { // until a port is free for both
		var err error
		if tcp, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatalf("start name server: %v", err)
		}
		if conn, err = net.ListenPacket("udp", tcp.Addr().String()); err != nil {
			tcp.Close()
		}
	}
	n := &NameServer{conn: conn, tcp: tcp, addresses: addresses}
	n.running.Go(func() {
		if err := n.serveTCP(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("name server: %v", err)
		}
	})
	n.running.Go(func() {
		if err := n.serve(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("name server: %v", err)
		}
	})
	t.Cleanup(func() {
		conn.Close()
		tcp.Close()
		n.running.Wait()
	})
	return n
}

// Target returns grpc-go's target for a port of upstream.test. It makes the client ask this name server.
func (n *NameServer) Target(port string) string {
	return "dns://" + n.conn.LocalAddr().String() + "/" + nameServed + ":" + port
}

// SetAddresses replaces the addresses. Without any, the name does not exist.
func (n *NameServer) SetAddresses(addresses ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.addresses = addresses
}

// SetDelay delays the answers from now on.
func (n *NameServer) SetDelay(d time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.delay = d
}

// SetFailing makes the server answer with a failure of its own (SERVFAIL).
func (n *NameServer) SetFailing() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.failing = true
}

// SetSilent makes the server stop answering.
func (n *NameServer) SetSilent() { n.Lose(func(dnsmessage.Type) bool { return true }) }

// Lose makes the server not answer the questions that lost says, by their type.
func (n *NameServer) Lose(lost func(dnsmessage.Type) bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lost = lost
}

func (n *NameServer) serve() error {
	const maxQuery = 1500 // bytes
	for buffer := make([]byte, maxQuery); ; {
		size, from, err := n.conn.ReadFrom(buffer)
		if err != nil {
			return err
		}
		answer, delay := n.answer(buffer[:size], mostByUDP)
		if answer == nil {
			continue
		}
		if delay == 0 {
			if _, err := n.conn.WriteTo(answer, from); err != nil {
				return err
			}
			continue
		}
		time.AfterFunc(delay, func() { _, _ = n.conn.WriteTo(answer, from) }) // fails only where the test has ended
	}
}

// serveTCP answers one query on each connection.
func (n *NameServer) serveTCP() error {
	for {
		conn, err := n.tcp.Accept()
		if err != nil {
			return err
		}
		n.running.Go(func() {
			defer conn.Close()
			var size [2]byte
			if _, err := io.ReadFull(conn, size[:]); err != nil {
				return
			}
			query := make([]byte, binary.BigEndian.Uint16(size[:]))
			if _, err := io.ReadFull(conn, query); err != nil {
				return
			}
			answer, delay := n.answer(query, 1<<16-1)
			if answer == nil {
				return
			}
			time.Sleep(delay)
			// A client that has left gets no answer.
			_, _ = conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...))
		})
	}
}

// answer returns the answer to a query, of which most bytes may be sent, and its delay. There is none to an invalid query, or one that is lost.
func (n *NameServer) answer(query []byte, most int) ([]byte, time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	var m dnsmessage.Message
	if err := m.Unpack(query); err != nil || n.lost != nil && len(m.Questions) > 0 && n.lost(m.Questions[0].Type) {
		return nil, 0
	}
	m.Response, m.RecursionAvailable, m.Additionals = true, true, nil
	addresses := n.addresses
	switch {
	case n.failing:
		m.RCode, addresses = dnsmessage.RCodeServerFailure, nil
	case len(addresses) == 0:
		m.RCode = dnsmessage.RCodeNameError
	}
	for _, q := range m.Questions {
		for _, text := range addresses {
			var body dnsmessage.ResourceBody
			switch a := netip.MustParseAddr(text); {
			case a.Is4() && q.Type == dnsmessage.TypeA:
				body = &dnsmessage.AResource{A: a.As4()}
			case a.Is6() && q.Type == dnsmessage.TypeAAAA:
				body = &dnsmessage.AAAAResource{AAAA: a.As16()}
			default:
				continue
			}
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET}, Body: body})
		}
	}
	answer, err := m.Pack()
	if err == nil && len(answer) > most {
		m.Answers, m.Truncated = nil, true
		answer, err = m.Pack()
	}
	if err != nil {
		return nil, 0
	}
	return answer, n.delay
}
