package idtoken

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.com/grpc-health-http/internal/clock"
)

const audience = "https://upstream-abc.a.run.app?x=1&y=2"

// metadataServer is a metadata server on loopback that GCE_METADATA_HOST leads to. answer may be
// replaced while it serves.
type metadataServer struct {
	requests atomic.Int32
	answer   atomic.Pointer[http.HandlerFunc]
}

func startMetadataServer(t *testing.T, answer http.HandlerFunc) *metadataServer {
	t.Helper()
	m := &metadataServer{}
	m.answer.Store(&answer)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.requests.Add(1)
		(*m.answer.Load())(w, r)
	}))
	t.Cleanup(func() {
		server.CloseClientConnections() // a silent answer would hold Close up
		server.Close()
	})
	t.Setenv("GCE_METADATA_HOST", server.Listener.Addr().String())
	return m
}

func (m *metadataServer) set(answer http.HandlerFunc) { m.answer.Store(&answer) }

// jwt is an ID token as the metadata server gives it, its signature aside.
func jwt(claims string) string {
	part := base64.RawURLEncoding.EncodeToString
	return part([]byte(`{"alg":"RS256","typ":"JWT"}`)) + "." + part([]byte(claims)) + "." + part([]byte("signature"))
}

func expiring(at time.Time) string {
	return jwt(fmt.Sprintf(`{"aud":%q,"exp":%d}`, audience, at.Unix()))
}

func answerWith(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, text) }
}

// silent does not answer until the client has left.
func silent(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

// testClock moves only when it is advanced.
type testClock struct{ nanoseconds atomic.Int64 }

func newClock() *testClock {
	c := &testClock{}
	c.nanoseconds.Store(time.Now().Truncate(time.Second).UnixNano())
	return c
}

func (c *testClock) read() clock.Moment {
	ns := c.nanoseconds.Load()
	return clock.Moment{Mono: ns, Wall: ns}
}

func (c *testClock) now() time.Time          { return time.Unix(0, c.nanoseconds.Load()) }
func (c *testClock) advance(d time.Duration) { c.nanoseconds.Add(int64(d)) }

// patientSource returns a source that waits for an answer, however busy the machine is.
func patientSource(c *testClock) *Source { return newSource(audience, c.read, 10*time.Second) }

func mustToken(t *testing.T, s *Source, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	got, err := s.Token(ctx)
	if err != nil {
		t.Fatalf("Token: %v", err)
	}
	if got != want {
		t.Fatalf("Token: another token than the one wanted")
	}
}

// eventually waits until condition holds.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !condition(); {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

func TestRequest(t *testing.T) {
	c := newClock()
	want := expiring(c.now().Add(time.Hour))
	startMetadataServer(t, func(w http.ResponseWriter, r *http.Request) {
		query := r.URL.Query()
		if r.URL.Path != "/computeMetadata/v1/instance/service-accounts/default/identity" ||
			r.Header.Get("Metadata-Flavor") != "Google" || query.Get("audience") != audience || query.Get("format") != "full" {
			t.Errorf("request %s with headers %v", r.URL, r.Header)
		}
		fmt.Fprint(w, want)
	})
	mustToken(t, patientSource(c), want)
}

func TestKeptUntilShortlyBeforeItsEnd(t *testing.T) {
	for _, test := range []struct {
		name          string
		life          time.Duration
		last, renewed time.Duration // ages at which the token is not renewed yet, and not used any more
	}{
		{"an hour", time.Hour, 50*time.Minute - time.Second, 55 * time.Minute},
		{"short", 100 * time.Second, 79 * time.Second, 90 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := newClock()
			first := expiring(c.now().Add(test.life))
			server := startMetadataServer(t, answerWith(first))
			s := patientSource(c)
			mustToken(t, s, first)

			second := expiring(c.now().Add(10 * time.Hour))
			server.set(answerWith(second))
			c.advance(test.last)
			mustToken(t, s, first)
			if n := server.requests.Load(); n != 1 {
				t.Fatalf("%d requests while the token was good, want 1", n)
			}
			c.advance(test.renewed - test.last)
			mustToken(t, s, second)
			if n := server.requests.Load(); n != 2 {
				t.Fatalf("%d requests after the renewal, want 2", n)
			}
		})
	}
}

func TestRenewedAheadWithoutWaiting(t *testing.T) {
	c := newClock()
	first := expiring(c.now().Add(time.Hour))
	server := startMetadataServer(t, answerWith(first))
	s := patientSource(c)
	mustToken(t, s, first)

	second := expiring(c.now().Add(2 * time.Hour))
	release := make(chan struct{})
	server.set(func(w http.ResponseWriter, _ *http.Request) {
		<-release
		fmt.Fprint(w, second)
	})
	c.advance(52 * time.Minute)
	for range 10 {
		mustToken(t, s, first) // although the server gives no answer yet
	}
	eventually(t, "the fetch ahead of need", func() bool { return server.requests.Load() == 2 })
	close(release)
	s.tokens.Settle(t.Context())
	mustToken(t, s, second)
	if n := server.requests.Load(); n != 2 {
		t.Fatalf("%d requests, want 2", n)
	}
}

func TestServerWithoutANewerTokenIsNotAskedAtEveryUse(t *testing.T) {
	c := newClock()
	same := expiring(c.now().Add(5*time.Minute + 10*time.Second))
	server := startMetadataServer(t, answerWith(same))
	s := patientSource(c)
	uses := 0
	for ; uses < 300; uses++ {
		mustToken(t, s, same)
		s.tokens.Settle(t.Context())
		c.advance(time.Second)
	}
	if n := server.requests.Load(); n > 30 {
		t.Fatalf("%d requests for %d uses in 5 minutes", n, uses)
	}
}

func TestValidTokenOutlivesAFailingServer(t *testing.T) {
	c := newClock()
	first := expiring(c.now().Add(time.Hour))
	server := startMetadataServer(t, answerWith(first))
	s := newSource(audience, c.read, patience)
	mustToken(t, s, first)

	c.advance(56 * time.Minute) // near the end
	server.set(http.NotFound)
	mustToken(t, s, first)
	server.set(silent)
	began := time.Now()
	mustToken(t, s, first)
	if took := time.Since(began); took > fetchTimeout/2 {
		t.Errorf("Token took %v although the current token was valid", took)
	}

	c.advance(4 * time.Minute) // at the end
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if text, err := s.Token(ctx); err == nil || text != "" {
		t.Fatalf("Token gave an expired token (err %v)", err)
	}
}

func TestErrors(t *testing.T) {
	c := newClock()
	secret := "c2VjcmV0LXRva2Vu"
	expired := expiring(c.now().Add(-time.Minute))
	for _, test := range []struct {
		name   string
		answer http.HandlerFunc
		want   string
	}{
		{"no service account", http.NotFound, "no Google ID token for audience " + audience + ": the metadata server answered 404: is a service account attached?"},
		{"refusal", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, secret, http.StatusForbidden) }, "the metadata server answered 403"},
		{"no JWT", answerWith(secret), "is no ID token"},
		{"without end", func(w http.ResponseWriter, _ *http.Request) {
			for block := []byte(strings.Repeat("x", 32<<10)); ; {
				if _, err := w.Write(block); err != nil {
					return
				}
			}
		}, "is no ID token: it is longer than 64 KiB"},
		{"empty", answerWith(""), "is no ID token"},
		{"two parts", answerWith(secret + "." + secret), "is no ID token"},
		{"no base64", answerWith("a." + secret + "!.b"), "is no ID token"},
		{"line break", answerWith(strings.Replace(expiring(c.now().Add(time.Hour)), ".", "\n.", 1)), "is no ID token"},
		{"no JSON", answerWith(jwt(secret)), "is no ID token"},
		{"no exp", answerWith(jwt(`{"aud":"x"}`)), "is no ID token"},
		{"exp beyond time", answerWith(jwt(`{"exp":1e300}`)), "is no ID token"},
		{"expired", answerWith(expired), "is this machine's clock right?"},
	} {
		t.Run(test.name, func(t *testing.T) {
			startMetadataServer(t, test.answer)
			text, err := patientSource(c).Token(t.Context())
			if err == nil || text != "" {
				t.Fatalf("Token gave a token, want an error")
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %q, want %q in it", err, test.want)
			}
			if strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), expired) {
				t.Errorf("error %q holds what the server answered", err)
			}
		})
	}
}

func TestNoServer(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	listener.Close()
	t.Setenv("GCE_METADATA_HOST", address)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := New(audience).Token(ctx); err == nil {
		t.Fatal("Token gave a token, want an error")
	}
}

func TestSlowServer(t *testing.T) {
	c := newClock()
	want := expiring(c.now().Add(time.Hour))
	release := make(chan struct{})
	server := startMetadataServer(t, func(w http.ResponseWriter, _ *http.Request) {
		<-release
		fmt.Fprint(w, want)
	})
	s := patientSource(c)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err := s.Token(ctx)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "not loaded in time") {
		t.Errorf("error %v, want one of the deadline", err)
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("Token took %v of a budget of 50ms", took)
	}

	close(release) // what comes late serves the next use
	mustToken(t, s, want)
	if n := server.requests.Load(); n != 1 {
		t.Errorf("%d requests, want 1", n)
	}
}

func TestConcurrentUsesShareAFetch(t *testing.T) {
	c := newClock()
	want := expiring(c.now().Add(time.Hour))
	release := make(chan struct{})
	server := startMetadataServer(t, func(w http.ResponseWriter, _ *http.Request) {
		<-release
		fmt.Fprint(w, want)
	})
	s := patientSource(c)
	const uses = 64
	var running sync.WaitGroup
	for range uses {
		running.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			if got, err := s.Token(ctx); err != nil || got != want {
				t.Errorf("Token: wrong or no token (err %v)", err)
			}
		})
	}
	eventually(t, "the fetch", func() bool { return server.requests.Load() == 1 })
	close(release)
	running.Wait()
	if n := server.requests.Load(); n != 1 {
		t.Errorf("%d requests for %d uses, want 1", n, uses)
	}
}
