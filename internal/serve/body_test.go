package serve

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"example.com/grpc-health-http/internal/memory"
)

// echo answers with the body, in the end.
var echo = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
	}
	fmt.Fprintf(w, "%d:%.4s", len(body), body)
})

// everyProtocol runs a test over each protocol, with TLS and without.
func everyProtocol(t *testing.T, test func(t *testing.T, config *tls.Config, http2 bool)) {
	for _, http2 := range []bool{false, true} {
		for _, secure := range []bool{false, true} {
			t.Run(fmt.Sprintf("HTTP/2 %v, TLS %v", http2, secure), func(t *testing.T) {
				t.Parallel()
				var config *tls.Config
				if secure {
					config = &tls.Config{Certificates: []tls.Certificate{certificate(t)}}
				}
				test(t, config, http2)
			})
		}
	}
}

// A handler gets the body of a request, whatever its length and however it is sent.
func TestBodiesAreRead(t *testing.T) {
	t.Parallel()
	everyProtocol(t, func(t *testing.T, config *tls.Config, two bool) {
		r := start(t, Server{Handler: echo, TLS: config})
		c := httpClient(t, two)
		for _, n := range []int{1, 5, 4 << 10, 16<<10 - 1, 16 << 10, 40 << 10} {
			for _, known := range []bool{true, false} {
				for _, expect := range []string{"", "100-continue"} {
					request, err := http.NewRequest(http.MethodPost, r.url(), io.MultiReader(strings.NewReader(strings.Repeat("b", n))))
					if err != nil {
						t.Fatal(err)
					}
					if known {
						request.ContentLength = int64(n)
					}
					if expect != "" {
						request.Header.Set("Expect", expect)
					}
					response, err := c.Do(request)
					if err != nil {
						t.Fatalf("%d bytes: %v", n, err)
					}
					body, err := io.ReadAll(response.Body)
					response.Body.Close()
					if want := fmt.Sprintf("%d:%.4s", n, strings.Repeat("b", min(n, 4))); string(body) != want || response.ProtoMajor == 2 != two {
						t.Errorf("%d bytes, known %v, expect %q: %s %q, %v", n, known, expect, response.Proto, body, err)
					}
				}
			}
		}
		c.CloseIdleConnections()
		r.wantNothingInUse(t)
	})
}

// A client that waits for "100 Continue" gets it where the handler reads the body, and else the answer.
func TestExpectContinue(t *testing.T) {
	t.Parallel()
	secured(t, func(t *testing.T, config *tls.Config, dial func(*testing.T, string) *client) {
		r := start(t, Server{TLS: config, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/read" {
				echo(w, r)
			}
		})})
		head := "POST %s HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"
		c := dial(t, r.address())
		if response, err := c.ask(fmt.Sprintf(head, "/read")); err != nil || response.StatusCode != 100 {
			t.Fatalf("first: %v, %v", response, err)
		}
		response, err := c.ask("body")
		if err != nil || response.StatusCode != 200 || !response.Close {
			t.Fatalf("then: %v, %v", response, err)
		}
		if body, _ := io.ReadAll(response.Body); string(body) != "4:body" {
			t.Errorf("got %q", body)
		}
		c.wantEnd(t, "after it")
		c = dial(t, r.address())
		if response, err := c.ask(fmt.Sprintf(head, "/")); err != nil || response.StatusCode != 200 || !response.Close {
			t.Errorf("a handler that reads no body: %v, %v", response, err)
		}
		c.wantEnd(t, "after that")
	})
}

// A body that does not come in the time for headers is none: the handler gets an error.
func TestSlowBody(t *testing.T) {
	t.Parallel()
	secured(t, func(t *testing.T, config *tls.Config, dial func(*testing.T, string) *client) {
		for name, sent := range map[string]string{
			"nothing of it": "Content-Length: 5\r\n\r\n",
			"a part":        "Content-Length: 5\r\n\r\nbody",
			"no chunk":      "Transfer-Encoding: chunked\r\n\r\n",
			"an open chunk": "Transfer-Encoding: chunked\r\n\r\n5\r\nbody",
			"no last chunk": "Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n",
			"an open line":  "Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0",
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				failed := make(chan error, 1)
				r := start(t, Server{TLS: config, HeaderTimeout: brief, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					_, err := io.ReadAll(r.Body)
					failed <- err
					w.WriteHeader(http.StatusRequestTimeout)
				})})
				c := dial(t, r.address())
				response, err := c.ask("POST / HTTP/1.1\r\nHost: test\r\n" + sent)
				if err != nil || response.StatusCode != http.StatusRequestTimeout {
					t.Fatalf("%v, %v", response, err) // it may be that no handler has the request
				}
				if err := <-failed; !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("the handler got %v", err)
				}
			})
		}
	})
}

// With HTTP/2 a body has no longer than the answer.
func TestSlowBodyOfStream(t *testing.T) {
	t.Parallel()
	for name, config := range map[string]*tls.Config{"plain": nil, "TLS": {Certificates: []tls.Certificate{certificate(t)}}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			failed := make(chan error, 1)
			const answer = 3 * time.Second // which a TLS handshake has, too
			r := start(t, Server{TLS: config, Budget: answer - transferTime, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, err := io.ReadAll(r.Body)
				failed <- err
			})})
			c := dialHTTP2(t, r)
			c.begin(1, false, ":method", "POST", ":path", "/")
			c.until("the end of the stream", func(f http2.Frame) bool {
				_, reset := f.(*http2.RSTStreamFrame)
				return reset
			})
			if err := <-failed; err == nil {
				t.Error("the handler got a body")
			}
			c.begin(3, true, ":method", "GET", ":path", "/") // the connection is as good as before
			c.until("the next answer", func(f http2.Frame) bool {
				_, answer := f.(*http2.HeadersFrame)
				return answer && f.Header().StreamID == 3
			})
		})
	}
}

// A handler may set a time of its own.
func TestTimeOfHandlerForBody(t *testing.T) {
	t.Parallel()
	everyProtocol(t, func(t *testing.T, config *tls.Config, two bool) {
		r := start(t, Server{TLS: config, HeaderTimeout: time.Hour, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if err := http.NewResponseController(w).SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
				t.Error(err)
			}
			echo(w, r)
		})})
		body, sends := io.Pipe()
		defer sends.Close()
		request, err := http.NewRequest(http.MethodPost, r.url(), body)
		if err != nil {
			t.Fatal(err)
		}
		response, err := httpClient(t, two).Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusBadRequest {
			t.Errorf("got %s, want that the body has not come", response.Status)
		}
	})
}

// The time for a body does not end the work that follows it.
func TestTimeAfterBody(t *testing.T) {
	t.Parallel()
	everyProtocol(t, func(t *testing.T, config *tls.Config, two bool) {
		const timeout = brief
		r := start(t, Server{TLS: config, HeaderTimeout: timeout, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			select {
			case <-r.Context().Done():
			case <-time.After(2 * timeout):
			}
			fmt.Fprint(w, string(body), " ", err, " ", r.Context().Err())
		})})
		response, err := httpClient(t, two).Post(r.url(), "text/plain", strings.NewReader("body"))
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		if body, err := io.ReadAll(response.Body); string(body) != "body <nil> <nil>" || err != nil {
			t.Errorf("got %q, %v", body, err)
		}
	})
}

// waits is a client that has begun a request, and whose body the server waits for; more sends a part of it.
type waits struct {
	more   func(part string, end bool)
	closed func() bool // reports, or waits for it with HTTP/2, that the server has closed the connection
}

func beginBody(t *testing.T, r *running, two bool, path string) *waits {
	if two {
		c := dialHTTP2(t, r)
		c.begin(1, false, ":method", "POST", ":path", path)
		return &waits{func(part string, end bool) { _ = c.WriteData(1, end, []byte(part)) }, func() bool {
			for {
				if _, err := c.ReadFrame(); err != nil {
					return true
				}
			}
		}}
	}
	c := dialAs(t, r)
	io.WriteString(c, "POST "+path+" HTTP/1.1\r\nHost: test\r\nContent-Length: 8\r\n\r\n")
	return &waits{func(part string, _ bool) { io.WriteString(c, part) }, func() bool { return c.closed(t) }}
}

// A connection whose handlers only wait for bodies can make room, also when bytes of them come; one of which a handler has the body
// never does.
func TestWaitingForBodiesMakesRoom(t *testing.T) {
	t.Parallel()
	everyProtocol(t, func(t *testing.T, config *tls.Config, two bool) {
		const limit = 4
		began, works, release := make(chan struct{}, limit), make(chan struct{}, limit), make(chan struct{})
		r := start(t, Server{TLS: config, MaxConnections: limit, HeaderTimeout: patience, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			began <- struct{}{}
			if r.URL.Path == "/unread" {
				<-release
				return
			}
			if _, err := io.ReadAll(r.Body); err == nil && r.URL.Path == "/work" {
				works <- struct{}{}
				<-release
			}
		})})
		// One works with its body, one without reading it, and the others wait.
		work := beginBody(t, r, two, "/work")
		wait(t, "the first", began)
		work.more("all of it", true)
		wait(t, "its body", works)
		beginBody(t, r, two, "/unread")
		wait(t, "the second", began)
		var waiting []*waits
		for range limit - 2 {
			c := beginBody(t, r, two, "/")
			wait(t, "a request", began)
			c.more("part", false)
			waiting = append(waiting, c)
		}
		eventually(t, "two can make room", func() bool { return r.evictable() == limit-2 })
		waiting[0].more("s", false) // which does not make it younger
		for range 5 {
			eventually(t, "an answer", func() bool {
				c := httpClient(t, two)
				defer c.CloseIdleConnections()
				response, err := c.Get(r.url() + "/new")
				if err != nil {
					return false
				}
				response.Body.Close()
				<-began
				return response.StatusCode == 200
			})
		}
		eventually(t, "the one that waited for longest made room", waiting[0].closed)
		eventually(t, "two busy connections are left", func() bool { // those of the last answers may still be about to close
			r.conns.mu.Lock()
			defer r.conns.mu.Unlock()
			busy := 0
			for c := range r.conns.open {
				if c.busy() {
					busy++
				}
			}
			return busy == 2
		})
		close(release)
	})
}

// What a handler has read of a body is not taken for the headers of another request.
func TestReadBodiesAreNoHeaders(t *testing.T) {
	t.Parallel()
	everyProtocol(t, func(t *testing.T, config *tls.Config, two bool) {
		read, release := make(chan struct{}), make(chan struct{})
		r := start(t, Server{TLS: config, Memory: 1 << 20, HeaderMemory: 1 << 20, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.ReadFull(r.Body, make([]byte, 12<<10))
			close(read)
			<-release
		})})
		answered := make(chan error, 1)
		go func() {
			response, err := httpClient(t, two).Post(r.url(), "text/plain", strings.NewReader(strings.Repeat("b", 12<<10)))
			if err == nil {
				response.Body.Close()
			}
			answered <- err
		}()
		wait(t, "the body", read)
		if _, excess := r.usage(); excess != 0 {
			t.Errorf("%d bytes are in use for headers", excess)
		}
		close(release)
		if err := <-answered; err != nil {
			t.Error(err)
		}
	})
}

// A connection does not make room while its answer is sent, also if its handler has not read the whole body.
func TestAnswerBeforeBodyMakesNoRoom(t *testing.T) {
	t.Parallel()
	secured(t, func(t *testing.T, config *tls.Config, dial func(*testing.T, string) *client) {
		r := start(t, Server{TLS: config, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = r.Body.Read(make([]byte, 1)) })})
		c := dial(t, r.address())
		go io.WriteString(c, "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 8\r\n\r\nb")
		done := make(chan struct{})
		go func() {
			defer close(done)
			if response, err := c.answer(); err != nil || response.StatusCode != 200 {
				t.Errorf("%v, %v", response, err)
			}
		}()
		wait(t, "the answer", done)
		r.conns.mu.Lock()
		defer r.conns.mu.Unlock()
		for c := range r.conns.open {
			if c.handlers == 0 && c.listed {
				t.Error("it can make room")
			}
		}
	})
}

// With HTTP/2 a connection has several handlers: while one of them works it does not make room, and when all the others wait it does.
func TestOneOfSeveralWorks(t *testing.T) {
	t.Parallel()
	overHTTP2(t, func(t *testing.T, config *tls.Config) {
		began, release := make(chan struct{}), make(chan struct{})
		r := start(t, Server{TLS: config, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			began <- struct{}{}
			if r.Method == http.MethodGet {
				<-release
				return
			}
			_, _ = io.ReadAll(r.Body)
		})})
		c := dialHTTP2(t, r)
		c.begin(1, false, ":method", "POST", ":path", "/")
		wait(t, "the first", began)
		eventually(t, "it waits", func() bool { return r.evictable() == 1 })
		c.request(3)
		wait(t, "the second", began)
		if r.evictable() != 0 {
			t.Error("a connection makes room of which a handler works")
		}
		c.begin(5, false, ":method", "POST", ":path", "/")
		wait(t, "the third", began)
		if err := c.WriteData(5, true, nil); err != nil {
			t.Fatal(err)
		}
		c.until("its answer", func(f http2.Frame) bool {
			return f.Header().StreamID == 5 && f.Header().Flags.Has(http2.FlagHeadersEndStream)
		})
		if r.evictable() != 0 {
			t.Error("a connection makes room of which a handler works, when another one has ended")
		}
		close(release)
		eventually(t, "the first one waits alone", func() bool { return r.evictable() == 1 })
	})
}

// What HTTP/2 keeps of a body takes memory until it has been read.
func TestUnreadBodiesCount(t *testing.T) {
	t.Parallel()
	overHTTP2(t, func(t *testing.T, config *tls.Config) {
		const room = 8
		began, read, release := make(chan struct{}), make(chan struct{}), make(chan struct{})
		r := start(t, Server{
			TLS: config, Memory: withRest(http2Cost(config) + room*(memory.Stream+memory.Body)), Overloaded: busy,
			Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				began <- struct{}{}
				<-read
				_, _ = io.ReadAll(r.Body)
				began <- struct{}{}
				<-release
			}),
		})
		c := dialHTTP2(t, r)
		for i := range uint32(room) {
			c.begin(2*i+1, false, ":method", "POST", ":path", "/")
			wait(t, "a request", began)
			if err := c.WriteData(2*i+1, true, make([]byte, 500)); err != nil {
				t.Fatal(err)
			}
		}
		if used, _ := r.usage(); used != http2Cost(config)+room*(memory.Stream+memory.Body) {
			t.Errorf("%d bytes are in use", used)
		}
		c.begin(2*room+1, false, ":method", "POST", ":path", "/")
		c.until("that there is no memory", func(f http2.Frame) bool {
			return f.Header().StreamID == 2*room+1 && f.Header().Type == http2.FrameHeaders
		})
		close(read)
		for range room {
			wait(t, "bodies are read", began)
		}
		// The answer to the one beyond may not have been sent to its end.
		left := int64(memory.Stream + memory.Body)
		eventually(t, "what they took is given back", func() bool { used, _ := r.usage(); return used <= http2Cost(config)+room*memory.Stream+left })
		close(release)
		eventually(t, "and the rest", func() bool { used, excess := r.usage(); return used == http2Cost(config) && excess == 0 })
	})
}

// A body that was half read when the drain began is read to its end, and its request is answered. One that does not come ends in time.
func TestDrainBodies(t *testing.T) {
	t.Parallel()
	everyProtocol(t, func(t *testing.T, config *tls.Config, two bool) {
		began := make(chan struct{}, 1)
		r := start(t, Server{TLS: config, HeaderTimeout: patience, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			began <- struct{}{}
			echo(w, r)
		})})
		body, sends := io.Pipe()
		answer := make(chan string, 1)
		go func() {
			response, err := httpClient(t, two).Post(r.url(), "text/plain", body)
			if err != nil {
				answer <- err.Error()
				return
			}
			defer response.Body.Close()
			got, err := io.ReadAll(response.Body)
			answer <- fmt.Sprint(string(got), err)
		}()
		io.WriteString(sends, "first")
		wait(t, "the request", began)
		over := r.drain(t, patience, time.Millisecond)
		io.WriteString(sends, "last")
		sends.Close()
		if got := <-answer; got != fmt.Sprint("9:firs", nil) {
			t.Errorf("got %s", got)
		}
		wait(t, "the drain ends", over)

		if two {
			return // its time is that of the answer
		}
		r = start(t, Server{TLS: config, HeaderTimeout: brief, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			began <- struct{}{}
			echo(w, r)
		})})
		c := dialAs(t, r)
		io.WriteString(c, "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 8\r\n\r\npart")
		wait(t, "the other request", began)
		wait(t, "the drain ends", r.drain(t, 5*patience, time.Millisecond))
	})
}
