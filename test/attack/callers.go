//go:build linux

package main

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"

	"example.com/grpc-health-http/test/healthtest"
)

// rightsEnd is how soon after a change of a file nobody may get in by what it was before.
const rightsEnd = 15 * time.Second

// callerAttacks are those of callers who do not do as others, who take places, or whose rights have ended.
func callerAttacks() []attack {
	return []attack{{
		name: "half-closed connections", what: "40 callers close their side after the request, as nc -N does, and must get the true verdict",
		settings: func(t *trial) []string {
			t.up.SetDelay("", 100*time.Millisecond)
			return nil
		},
		do: func(t *trial) {
			const callers = 40
			var served atomic.Int64
			t.connect(callers, func(_ int, c *conn) {
				if t.get(c, "/") != nil || closeWrite(c) != nil {
					return
				}
				if code, _ := t.receive(bufio.NewReader(c)); code == http.StatusOK {
					served.Add(1)
				}
			})
			t.hold(lasts)
			if n := served.Load(); n != callers {
				t.Errorf("%d of %d callers got the true verdict", n, callers)
			}
		},
	}, {
		name: "one byte each", what: "a proxy that may open 128 files has 200 connections that have sent one byte", files: 128,
		do: beginnings("G"),
	}, {
		name: "one byte more", what: "the same after an answer", files: 128,
		do: beginnings("GET /livez HTTP/1.1\r\nHost: attack.test\r\n\r\nG"),
	}, {
		name: "one byte each, TLS", what: "the same over TLS, before a handshake", files: 128, https: true,
		do: beginnings("\x16"),
	}, {
		name: "idle after a request", what: "a proxy that may open 128 files has 200 connections that have had an answer", files: 128,
		do: beginnings("GET /livez HTTP/1.1\r\nHost: attack.test\r\n\r\n"),
	}, {
		name: "every first byte", what: "256 connections begin with each byte in turn", do: func(t *trial) {
			var all []string
			for b := range 256 {
				all = append(all, string([]byte{byte(b)})+"\r\n\r\n")
			}
			t.send(all)
		},
	}, {
		name: "no requests", what: "callers send what is no request: HTTP/0.9, long methods, NULs, other protocols", do: func(t *trial) { t.send(garbage(t)) },
	}, {
		name: "no requests, TLS", what: "the same to a port with TLS, in plain text", https: true, do: func(t *trial) { t.send(garbage(t)) },
	}, {
		name: "client CA replaced", what: "the CA of client certificates is replaced, and old connections must be answered no more within 15 s", slow: true, unprobed: true, https: true,
		settings: func(t *trial) []string {
			t.file, t.callers = filepath.Join(t.TempDir(), "ca.pem"), healthtest.NewCA(t)
			t.replace(t.callers.PEM())
			return []string{"GRPC_HEALTH_HTTPS_LISTEN_VERIFY=true", "GRPC_HEALTH_HTTPS_LISTEN_CA=" + t.file}
		},
		do: clientCAReplaced,
	}, {
		name: "token file emptied", what: "the token file is emptied, and nobody may get in after 15 s", slow: true, unprobed: true,
		settings: tokenFile,
		do: func(t *trial) {
			t.tokenEnds(func() error { return os.Truncate(t.file, 0) })
		},
	}, {
		name: "token file removed", what: "the token file is removed, and nobody may get in after 15 s", slow: true, unprobed: true,
		settings: tokenFile,
		do: func(t *trial) {
			t.tokenEnds(func() error { return os.Remove(t.file) })
		},
	}, {
		name: "token file not permitted", what: "the token file is not permitted, or for root no file, and nobody may get in after 15 s", slow: true, unprobed: true,
		settings: tokenFile,
		do: func(t *trial) {
			t.tokenEnds(func() error {
				if os.Geteuid() != 0 {
					return os.Chmod(t.file, 0)
				}
				if err := os.Remove(t.file); err != nil {
					return err
				}
				return os.Mkdir(t.file, 0)
			})
		},
	}, {
		name: "token file rewritten", what: "the token file is empty for half a second now and then, which is no end of rights", slow: true,
		settings: tokenFile,
		do: func(t *trial) {
			client := t.client()
			if err := t.ask(client, t.proxy.url, "SERVING"); err != nil {
				t.Fatalf("before the file is empty: %v", err)
			}
			for end := time.Now().Add(rightsEnd); time.Now().Before(end) && !t.over(); t.hold(time.Second) {
				if err := os.Truncate(t.file, 0); err != nil {
					t.Fatal(err)
				}
				t.hold(500 * time.Millisecond)
				if err := os.WriteFile(t.file, []byte(t.token), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		},
	}}
}

// closeWrite closes the caller's side of a connection.
func closeWrite(c *conn) error {
	return c.Conn.(interface{ CloseWrite() error }).CloseWrite()
}

// beginnings makes more connections than the proxy has room for, which send a text and then nothing. They do not come all at
// once: then there would be as many that are younger than a probe's.
func beginnings(sent string) func(*trial) {
	return func(t *trial) {
		for range 20 {
			t.connect(10, func(_ int, c *conn) { _, _ = io.WriteString(c, sent) })
			t.hold(lasts / 20)
		}
	}
}

// send sends each text over a connection of its own. None of them is a request, so no answer may be a verdict.
func (t *trial) send(texts []string) {
	t.connect(len(texts), func(i int, c *conn) {
		if _, err := io.WriteString(c, texts[i]); err != nil {
			return
		}
		_ = c.SetReadDeadline(time.Now().Add(lasts / 2))
		answer, _ := io.ReadAll(io.LimitReader(c, 64<<10)) // what came until the end, a reset or the deadline
		switch _, rest, found := strings.Cut(string(answer), "HTTP/1."); {
		case len(answer) == 0:
			t.answered("none")
		case !found || len(rest) < len("1 200"):
			t.answered("other")
		case rest[2] == '2':
			t.Errorf("%.40q was answered with %.40q", texts[i], answer)
		default:
			t.answered(rest[2:5])
		}
	})
	t.hold(lasts)
}

// garbage returns what is no request.
func garbage(t *trial) []string {
	const end = " HTTP/1.1\r\nHost: attack.test\r\n"
	return []string{
		"GET /\r\n", "GET / HTTP/0.9\r\n\r\n", "GET / HTTP/9.9\r\nHost: a\r\n\r\n", "GET /\r\n\r\nGET /\r\n\r\n",
		strings.Repeat("A", 8_000) + " /" + end + "\r\n", strings.Repeat("A", 1<<20), strings.Repeat("\x00", 1<<16), "GET\x00 /" + end + "\r\n", "GET /\x00" + end + "\r\n",
		"GET /" + end + "A\x00B: c\r\n\r\n", "GET /" + end + "A: b\x00c\r\n\r\n", "GET /" + end + "no colon\r\n\r\n", "GET /" + end + "Host: twice\r\n\r\n",
		"GET /" + end + "Content-Length: 1\r\nContent-Length: 2\r\n\r\n", "GET /" + end + "Content-Length: -1\r\n\r\n", "GET /" + end + "Transfer-Encoding: other\r\n\r\n",
		"GET / HTTP/1.1\r\n\r\n", "GET  /" + end + "\r\n", " GET /" + end + "\r\n", "GET /%zz" + end + "\r\n", "GET http://[::1" + end + "\r\n",
		"GET /" + end + "A: " + strings.Repeat("a", 2<<20) + "\r\n\r\n", "GET /" + strings.Repeat("a", 2<<20) + end + "\r\n",
		"SSH-2.0-attack\r\n", "EHLO attack.test\r\n", "\x16\x03\x01\x00\x05hello", "\x04\x01\x00\x50\x7f\x00\x00\x01\x00", "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n", string(clientHello(t)),
		http2.ClientPreface + strings.Repeat("\xff", 100), "PRI * HTTP/2.0\r\n\r\n", "\r\n\r\n\r\n\r\n", "\xef\xbb\xbfGET /" + end + "\r\n",
	}
}

// tokenFile makes a token file.
func tokenFile(t *trial) []string {
	t.file, t.token = filepath.Join(t.TempDir(), "token"), "token-"+random()
	t.replace([]byte(t.token))
	return []string{"GRPC_HEALTH_HTTP_AUTH_TOKEN_FILE=" + t.file}
}

// replace replaces the file of rights atomically.
func (t *trial) replace(content []byte) {
	next := t.file + ".next"
	if err := os.WriteFile(next, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, t.file); err != nil {
		t.Fatal(err)
	}
}

// tokenEnds ends the rights of the token in some way, and asks with it until well after the time by which it must be refused.
func (t *trial) tokenEnds(in func() error) {
	client := t.client()
	if err := t.ask(client, t.proxy.url, "SERVING"); err != nil {
		t.Fatalf("before the end: %v", err)
	}
	if err := in(); err != nil {
		t.Fatal(err)
	}
	t.endsWithin(client)
	for _, token := range []string{"", " ", "wrong-token"} {
		if askWith(client, token, t.proxy.url, anyVerdict) == nil {
			t.Errorf("after the end the token %q lets in", token)
		}
	}
}

// endsWithin asks over and over, and fails where there is a verdict after the time by which rights must have ended.
func (t *trial) endsWithin(clients ...*http.Client) {
	changed := time.Now()
	last := make([]time.Duration, len(clients))
	for time.Since(changed) < rightsEnd+2*time.Second && !t.over() {
		for i, client := range clients {
			at := time.Since(changed)
			t.requests.Add(1)
			if t.ask(client, t.proxy.url, anyVerdict) == nil {
				last[i] = at
			}
		}
		t.hold(250 * time.Millisecond)
	}
	for i, at := range last {
		t.answered(fmt.Sprintf("client %d let in until %v", i+1, at.Round(100*time.Millisecond)))
		if at > rightsEnd {
			t.Errorf("client %d still got a verdict %v after the change", i+1, at.Round(100*time.Millisecond))
		}
	}
}

// clientCAReplaced replaces the CA while an HTTP/1.1 and an HTTP/2 connection are open whose certificates the old one has issued.
func clientCAReplaced(t *trial) {
	caller := func(ca *healthtest.CA, http2 bool) *http.Client {
		client := t.client()
		transport := client.Transport.(*http.Transport)
		transport.ForceAttemptHTTP2 = http2
		transport.TLSClientConfig.Certificates = []tls.Certificate{ca.Client(t).TLS}
		return client
	}
	old := []*http.Client{caller(t.callers, false), caller(t.callers, true)}
	for _, client := range old {
		if err := t.ask(client, t.proxy.url, "SERVING"); err != nil {
			t.Fatalf("before the change: %v", err)
		}
	}
	next := healthtest.NewCA(t)
	t.replace(next.PEM())
	t.endsWithin(old...)
	if err := t.ask(caller(next, false), t.proxy.url, "SERVING"); err != nil {
		t.Errorf("a caller of the new CA: %v", err)
	}
}
