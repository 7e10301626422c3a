package web_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/grpc-health-http/internal/asker"
	"example.com/grpc-health-http/internal/check"
	"example.com/grpc-health-http/internal/dial"
	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/internal/memory"
	"example.com/grpc-health-http/internal/target"
	"example.com/grpc-health-http/internal/web"
	"example.com/grpc-health-http/test/healthtest"
)

// audience is callers who all hold what they have of an answer until the last of them has begun to get it.
type audience struct {
	begun          chan struct{}
	leave, release chan struct{}
	all, leaving   sync.WaitGroup

	mu      sync.Mutex
	bodies  map[*byte]string // each one that is sent, by its place in memory
	codes   map[int]int
	expects int
}

func newAudience() *audience {
	return &audience{begun: make(chan struct{}, 1000), leave: make(chan struct{}), release: make(chan struct{}), bodies: make(map[*byte]string), codes: make(map[int]int)}
}

// ask has a caller ask, who leaves in the middle of the answer if he is to.
func (a *audience) ask(h http.Handler, target string, leaves bool) {
	a.expects++
	group := &a.all
	if leaves {
		group = &a.leaving
	}
	group.Go(func() {
		defer func() { _ = recover() }() // as a server would
		w := holding{httptest.NewRecorder(), a, leaves}
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, target, nil))
	})
}

// attend waits until all hold an answer.
func (a *audience) attend() {
	for ; a.expects > 0; a.expects-- {
		<-a.begun
	}
}

// thin has those leave who are to.
func (a *audience) thin() {
	close(a.leave)
	a.leaving.Wait()
}

// end lets the others have their answers.
func (a *audience) end() {
	close(a.release)
	a.all.Wait()
}

// holding is one of the callers.
type holding struct {
	*httptest.ResponseRecorder
	*audience
	leaves bool
}

func (w holding) Write(p []byte) (int, error) {
	w.mu.Lock()
	w.bodies[&p[0]] = string(p)
	w.codes[w.Code]++
	w.mu.Unlock()
	w.begun <- struct{}{}
	if w.leaves {
		<-w.leave
		panic(http.ErrAbortHandler)
	}
	<-w.release
	return len(p), nil
}

// names are so many services as a query.
func names(n int) string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprintf("service=a.Service%d", i))
	}
	return "?" + strings.Join(all, "&")
}

// Callers side by side who get the same verdicts send one body, which is charged once, for as long as one of them sends it.
func TestSameVerdictsShareOneBody(t *testing.T) {
	t.Parallel()
	at := time.Now()
	for name, test := range map[string]struct {
		target string
		err    error
		list   bool
	}{
		"page":                       {target: "/?format=html"},
		"page of several":            {target: "/" + names(20) + "&format=html"},
		"page of a failure":          {target: "/?format=html", err: context.DeadlineExceeded},
		"page of a List":             {target: "/?list&format=html", list: true},
		"JSON of several":            {target: "/" + names(20) + "&format=json"},
		"JSON with a cause":          {target: "/?format=json", err: fmt.Errorf("%s", strings.Repeat("c", 1000))},
		"text of several":            {target: "/" + names(100)},
		"text of a List":             {target: "/?list", list: true},
		"errors that do not compare": {target: "/?format=html", err: uncomparable{"a"}},
	} {
		const callers = 300
		answers := memory.NewShare(256 << 10) // for few bodies, also while they are made
		verdict := health.Verdict{Status: health.Serving, Asked: true, At: at, Since: at, Duration: time.Millisecond, Err: test.err}
		var together sync.WaitGroup // the check that all callers have
		together.Add(callers)
		meet := func() {
			together.Done()
			together.Wait()
		}
		up := asker.Upstream{Check: func(_ context.Context, service string) health.Verdict {
			if service == "" || service == "a.Service0" {
				meet()
			}
			return verdict
		}}
		if test.list {
			up.List = func(context.Context) []health.Verdict {
				meet()
				list := make([]health.Verdict, 100)
				for i := range list {
					list[i] = verdict
					list[i].Service = fmt.Sprint("a.Service", i)
				}
				return list
			}
		}
		h := web.New(web.Options{Asker: asker.New(asker.Options{Fleet: asker.One(&up)}), Answers: answers, ShowCause: true})
		a := newAudience()
		for i := range callers {
			a.ask(h, test.target, i%3 == 0)
		}
		a.attend()
		size := 0
		for _, body := range a.bodies {
			size += len(body)
		}
		if len(a.bodies) != 1 || a.codes[http.StatusServiceUnavailable] > 0 {
			t.Errorf("%s: %d bodies, status %v", name, len(a.bodies), a.codes)
		}
		for _, when := range []string{"all are there", "some have left"} {
			if used := answers.Used(); used < int64(size) || used > 2*int64(size)+1<<10 { // a buffer may have room left
				t.Errorf("%s: when %s, callers of a body of %d bytes use %d", name, when, size, used)
			}
			if when == "all are there" {
				a.thin()
			}
		}
		a.end()
		if used := answers.Used(); used != 0 {
			t.Errorf("%s: when all is over, %d bytes are in use", name, used)
		}
	}
}

// uncomparable is an error that cannot be compared with another one.
type uncomparable []string

func (e uncomparable) Error() string { return strings.Join(e, " ") }

// Bodies of other checks are others, also while nobody has read the first one, and so are those of other questions about the same ones.
func TestOtherVerdictsShareNothing(t *testing.T) {
	t.Parallel()
	at, ends := time.Now(), time.Now().Add(30*24*time.Hour)
	var mu sync.Mutex
	verdict, certificate := health.Verdict{Status: health.Serving, Asked: true, At: at}, ends
	h := web.New(web.Options{Asker: asker.New(asker.Options{Fleet: asker.One(&asker.Upstream{
		Check: func(context.Context, string) health.Verdict {
			mu.Lock()
			defer mu.Unlock()
			return verdict
		},
		CertificateEnds: func() time.Time {
			mu.Lock()
			defer mu.Unlock()
			return certificate
		},
	})})})
	a := newAudience()
	for n, step := range []struct {
		target      string
		at          time.Time
		certificate time.Time
	}{
		{"/?format=html", at, ends},
		{"/?format=html", at.Add(1), ends},                             // a nanosecond later
		{"/?format=html", at.Add(1), ends.Add(time.Second)},            // a new certificate
		{"/?format=html&service=", at.Add(1), ends},                    // asked for by its name
		{"/?format=html&service=a", at.Add(1), ends},                   // another service
		{"/?format=html&service=a&service=b", at.Add(1), ends},         // one more
		{"/?format=html&service=b&service=a", at.Add(1), ends},         // in another order
		{"/" + names(30) + "&format=html", at, ends},                   // many
		{"/" + names(30) + "&format=json", at, ends},                   // in another format
		{"/" + names(30) + "&format=json", at.Add(1), ends},            // later
		{"/" + names(31) + "&format=json", at.Add(1), ends},            // one more
		{"/" + names(100), at, time.Time{}},                            // as text
		{"/" + names(100), at.Add(1), time.Time{}},                     // which does not show the time
		{"/" + names(100) + "&format=text", at, ends.AddDate(1, 0, 0)}, // nor the certificate: the first one again
	} {
		mu.Lock()
		verdict.At, certificate = step.at, step.certificate
		mu.Unlock()
		a.ask(h, step.target, false)
		a.attend()
		want := n + 1
		if strings.HasSuffix(step.target, "format=text") {
			want--
		}
		if len(a.bodies) != want {
			t.Errorf("%d. %.40s: %d bodies, want %d", n, step.target, len(a.bodies), want)
		}
	}
	a.end()
}

// Callers of real checks get the body of their own check: as many bodies as there are checks, and all of them true.
func TestCallersOfAnUpstreamShareBodies(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	checker := check.New(check.Options{Options: dial.Options{Target: parse(t, up.Addr())}, RPCTimeout: 5 * time.Second})
	t.Cleanup(checker.Close)
	answers := memory.NewShare(1 << 20)
	h := web.New(web.Options{Asker: asker.New(asker.Options{Fleet: asker.One(&asker.Upstream{Check: checker.Check})}), Answers: answers})
	a := newAudience()
	for range 400 {
		a.ask(h, "/?format=html", false)
	}
	a.attend()
	size := int64(0)
	for _, body := range a.bodies {
		size += int64(len(body))
		if !strings.Contains(body, "SERVING") {
			t.Error("a page does not say SERVING")
		}
	}
	if len(a.bodies) > 30 || a.codes[http.StatusOK] != 400 { // at most 8 RPCs side by side
		t.Errorf("%d bodies, status %v", len(a.bodies), a.codes)
	}
	if used := answers.Used(); used < size || used > 3*size {
		t.Errorf("%d bytes in %d bodies use %d", size, len(a.bodies), used)
	}
	a.end()
	if used := answers.Used(); used != 0 {
		t.Errorf("when all is over, %d bytes are in use", used)
	}
}

func parse(t *testing.T, address string) target.Target {
	t.Helper()
	parsed, err := target.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}
