package serve

import (
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var hammerDrains = flag.Int("drains", 6, "how many servers TestHammer drains")

// Clients send requests in every way that a stream of bytes allows, one by one or pipelined, whole or in pieces, at once or
// late, to servers that are drained meanwhile. Each request of which a byte was read before the drain gets its
// answer, each that had a handler gets it, and all come in order.
func TestHammer(t *testing.T) {
	t.Parallel()
	var sum counts
	for i := range *hammerDrains {
		var config *tls.Config
		if i%3 == 2 {
			config = &tls.Config{Certificates: []tls.Certificate{certificate(t)}}
		}
		hammer(t, config, &sum)
		if t.Failed() {
			break
		}
	}
	t.Logf("%d drains, %d requests answered, of which %d after the drain began; %d requests without an answer were not read before it",
		*hammerDrains, sum.answered.Load(), sum.late.Load(), sum.unread.Load())
}

type counts struct{ answered, late, unread atomic.Int64 }

func hammer(t *testing.T, config *tls.Config, sum *counts) {
	const clients = 24
	l := listenRead(t)
	var entered atomic.Int64 // requests that had a handler
	r := start(t, Server{TLS: config, Listener: l, HeaderTimeout: patience, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		entered.Add(1)
		if rand.N(8) == 0 {
			time.Sleep(rand.N(2 * time.Millisecond)) // a check takes its time
		}
		io.WriteString(w, r.URL.Path)
	})})
	var connections []*hammerClient
	for range clients {
		connect := dial
		if config != nil {
			connect = func(t *testing.T, address string) *client { return dialTLS(t, address) }
		}
		c := connect(t, r.address())
		connections = append(connections, &hammerClient{client: c, answers: make(chan struct{}, ahead)})
	}
	eventually(t, "all connections are accepted", func() bool { return r.conns.count() == clients })
	var before atomic.Int64
	var working sync.WaitGroup
	for _, c := range connections {
		working.Go(func() { c.send(); close(c.answers) })
		working.Go(func() { c.receive(t, &before) })
	}
	load := int64(500 + rand.N(1500))
	eventually(t, "the load is on", func() bool { return before.Load() > load || t.Failed() })
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	read := make([]int, clients)
	for i, c := range connections {
		l.mu.Lock()
		read[i] = l.seen[c.LocalAddr().String()]
		l.mu.Unlock()
	}
	atDrain := before.Load()
	r.end(ctx, linger)
	working.Wait()
	if ctx.Err() != nil {
		t.Error("the drain has not ended within the grace period")
	}
	for i, c := range connections {
		// Every request has the same length.
		began := (read[i] + len(hammerRequest(0)) - 1) / len(hammerRequest(0))
		if config == nil && c.received < began {
			t.Errorf("%d answers, and bytes of %d requests had been read when the drain began", c.received, began)
		}
		sum.answered.Add(int64(c.received))
		sum.unread.Add(c.sent.Load() - int64(c.received))
	}
	sum.late.Add(before.Load() - atDrain)
	if entered.Load() != before.Load() {
		t.Errorf("%d requests had a handler, and %d got an answer", entered.Load(), before.Load())
	}
}

type hammerClient struct {
	*client
	sent     atomic.Int64 // requests of which bytes were sent
	answers  chan struct{}
	received int
}

func hammerRequest(n int) string {
	return fmt.Sprintf("GET /%08d HTTP/1.1\r\nHost: test\r\n\r\n", n)
}

// ahead is how many requests a client sends before their answers: more than the server reads at once.
const ahead = 200

// send sends requests until the server ends the connection.
func (c *hammerClient) send() {
	most := []int{1, 2, 8, ahead / 2}[rand.N(4)]
	for n := 0; ; {
		var burst string
		for range 1 + rand.N(most) {
			c.answers <- struct{}{}
			burst += hammerRequest(n)
			n++
		}
		for rest := burst; rest != ""; {
			part := len(rest)
			if rand.N(2) == 0 {
				part = 1 + rand.N(len(rest))
			}
			if _, err := io.WriteString(c, rest[:part]); err != nil {
				return
			}
			rest = rest[part:]
			c.sent.Store(int64(n - len(rest)/len(hammerRequest(0))))
			if rand.N(8) == 0 {
				time.Sleep(rand.N(time.Millisecond))
			}
		}
	}
}

// receive checks answers up to the last.
func (c *hammerClient) receive(t *testing.T, all *atomic.Int64) {
	defer c.Close()
	defer func() { // lets send go on, until it finds the connection closed
		go func() {
			for range c.answers {
			}
		}()
	}()
	for {
		response, err := c.answer()
		if err != nil {
			return // what was read before the drain is counted in the end
		}
		body, _ := io.ReadAll(response.Body)
		if want := fmt.Sprintf("/%08d", c.received); string(body) != want {
			t.Errorf("got %q, want %q", body, want)
			return
		}
		c.received++
		<-c.answers
		all.Add(1)
		if response.Close {
			return
		}
	}
}
