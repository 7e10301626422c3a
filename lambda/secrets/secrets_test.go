package secrets

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"example.com/grpc-health-http/internal/atmost"
	"example.com/grpc-health-http/internal/clock"
	"example.com/grpc-health-http/test/secretstest"
)

const (
	tlsARN  = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:tls-AbCdEf"
	content = "what-nobody-may-see"
)

// fixture is a Reader with a clock that only the test moves.
type fixture struct {
	*Reader
	t       *testing.T
	manager *secretstest.Manager
	log     *bytes.Buffer

	mu  sync.Mutex
	now clock.Moment
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{t: t, manager: secretstest.Start(t), log: new(bytes.Buffer), now: clock.Moment{Wall: 1e18}}
	t.Setenv("AWS_ENDPOINT_URL_SECRETS_MANAGER", f.manager.URL)
	t.Setenv("AWS_REGION", "us-east-1")
	t.Setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", "")
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
	t.Setenv("AWS_SECRET_ACCESS_KEY", content)
	t.Setenv("AWS_SESSION_TOKEN", content)
	f.Reader = New(slog.New(slog.NewTextHandler(f.log, nil)))
	f.clock = func() clock.Moment {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.now
	}
	return f
}

func (f *fixture) pass(wall, mono time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now = clock.Moment{Wall: f.now.Wall + int64(wall), Mono: f.now.Mono + int64(mono)}
}

func (f *fixture) eventually(what string, condition func() bool) {
	f.t.Helper()
	for end := time.Now().Add(10 * time.Second); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			f.t.Fatalf("after 10 s still not: %s", what)
		}
	}
}

// want reads tlsARN, and checks what comes and how often it has been fetched so far.
func (f *fixture) want(text string, fetches int) {
	f.t.Helper()
	got, err := f.Read(f.t.Context(), tlsARN)
	if err != nil || string(got) != text {
		f.t.Errorf("%q, %v, want %q", got, err, text)
	}
	if n := f.manager.Fetches(tlsARN); n != fetches {
		f.t.Errorf("%d fetches, want %d", n, fetches)
	}
}

func TestCachedForFiveMinutes(t *testing.T) {
	f := newFixture(t)
	f.manager.SetString(tlsARN, "first")
	f.want("first", 1)
	f.manager.SetString(tlsARN, "second")
	f.pass(5*time.Minute-1, 5*time.Minute-1)
	f.want("first", 1)
	f.pass(1, 1)
	f.want("second", 2)

	// A frozen machine stops the monotonic clock, and somebody may set the wall clock back.
	f.manager.SetString(tlsARN, "third")
	f.pass(5*time.Minute, 0)
	f.want("third", 3)
	f.manager.SetString(tlsARN, "fourth")
	f.pass(-time.Hour, 5*time.Minute)
	f.want("fourth", 4)
}

func TestFetchedAgainAfterAFailedDial(t *testing.T) {
	f := newFixture(t)
	f.manager.SetString(tlsARN, "first")
	f.want("first", 1)
	f.pass(time.Minute, time.Minute)
	f.manager.SetString(tlsARN, "second")
	f.Dialed("ok")
	f.want("first", 1)
	f.Dialed("tls")
	f.want("second", 2)
	f.want("second", 2)

	// Never more than one fetch a second.
	f.manager.SetString(tlsARN, "third")
	f.Dialed("tls")
	f.pass(time.Second-1, time.Second-1)
	f.want("second", 2)
	f.pass(1, 1)
	f.want("third", 3)
}

func TestLastGoodOneIsKept(t *testing.T) {
	f := newFixture(t)
	f.manager.SetString(tlsARN, "first")
	f.want("first", 1)
	f.manager.SetDown(true)
	f.pass(time.Hour, time.Hour)
	f.want("first", 2)
	f.want("first", 2)
	f.manager.SetDown(false)
	f.manager.SetError(tlsARN, "ThrottlingException")
	f.pass(time.Second, time.Second)
	f.want("first", 3)
	if log := f.log.String(); strings.Count(log, "the last good one stays in use") != 2 || !strings.Contains(log, tlsARN) {
		t.Errorf("log: %s", log)
	}
	f.manager.SetString(tlsARN, "second")
	f.pass(time.Second, time.Second)
	f.want("second", 4)
}

// A secret that the service says to be gone, or not ours, is an error after its five minutes, and is back as soon as the service has it.
func TestGone(t *testing.T) {
	for kind, want := range map[string]error{
		"ResourceNotFoundException": fs.ErrNotExist,
		"InvalidRequestException":   fs.ErrNotExist,
		"AccessDeniedException":     fs.ErrPermission,
		"DecryptionFailure":         fs.ErrPermission,
		// These say nothing about the secret.
		"ThrottlingException":           nil,
		"InternalServiceError":          nil,
		"ExpiredTokenException":         nil,
		"UnrecognizedClientException":   nil,
		"RequestLimitExceededException": nil,
	} {
		t.Run(kind, func(t *testing.T) {
			f := newFixture(t)
			f.manager.SetString(tlsARN, `{"key":"first"}`)
			read := func() error { _, err := f.Read(t.Context(), tlsARN+"#key"); return err }
			if err := read(); err != nil {
				t.Fatal(err)
			}
			f.manager.SetError(tlsARN, kind)
			f.pass(5*time.Minute-1, 5*time.Minute-1)
			if err := read(); err != nil {
				t.Errorf("within five minutes: %v", err)
			}
			f.pass(1, 1)
			for range 2 {
				if err := read(); (err != nil) != (want != nil) || want != nil && !errors.Is(err, want) {
					t.Errorf("after them: %v, want %v", err, want)
				}
			}
			if warned := strings.Count(f.log.String(), "a secret is gone or not permitted"); warned != map[bool]int{true: 1}[want != nil] {
				t.Errorf("warned %d times: %s", warned, f.log)
			}
			if n := f.manager.Fetches(tlsARN); n != 2 {
				t.Errorf("%d fetches, want 2: one a second at most", n)
			}
			f.manager.SetString(tlsARN, `{"another":"x"}`)
			f.pass(time.Second, time.Second)
			if err := read(); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("without the key: %v", err)
			}
			f.manager.SetString(tlsARN, `{"key":"second"}`)
			f.pass(5*time.Minute, 5*time.Minute)
			if err := read(); err != nil {
				t.Errorf("once it is back: %v", err)
			}
		})
	}
}

func TestWithoutAGoodOneItIsAnError(t *testing.T) {
	f := newFixture(t)
	f.manager.SetDown(true)
	for range 2 {
		if _, err := f.Read(t.Context(), tlsARN); err == nil || !strings.Contains(err.Error(), "AWS Secrets Manager does not answer: ") {
			t.Errorf("down: %v", err)
		}
	}
	if n := f.manager.Fetches(tlsARN); n != 1 {
		t.Errorf("%d fetches within the same second", n)
	}
	f.manager.SetDown(false)
	f.manager.SetString(tlsARN, "first")
	f.pass(time.Second, time.Second)
	f.want("first", 2)
}

func TestErrors(t *testing.T) {
	fails := func(kind string) func(*fixture) { return func(f *fixture) { f.manager.SetError(tlsARN, kind) } }
	holds := func(text string) func(*fixture) { return func(f *fixture) { f.manager.SetString(tlsARN, text) } }
	answers := func(status int) func(*fixture) {
		return func(f *fixture) { f.manager.SetAnswer(tlsARN, status, content) }
	}
	for name, test := range map[string]struct {
		set  func(*fixture)
		read string // tlsARN where empty
		want []string
	}{
		"no such secret":       {set: func(*fixture) {}, want: []string{"ResourceNotFoundException", "check the ARN"}},
		"access denied":        {set: fails("AccessDeniedException"), want: []string{"AccessDeniedException", "secretsmanager:GetSecretValue", "kms:Decrypt"}},
		"not decrypted":        {set: fails("DecryptionFailure"), want: []string{"kms:Decrypt"}},
		"to be deleted":        {set: fails("InvalidRequestException"), want: []string{"deletion"}},
		"throttled":            {set: fails("ThrottlingException"), want: []string{"AWS Secrets Manager says ThrottlingException"}},
		"not its language":     {set: answers(200), want: []string{"the answer of AWS Secrets Manager is not understood"}},
		"an error of no form":  {set: answers(500), want: []string{"AWS Secrets Manager"}},
		"nobody there":         {set: func(f *fixture) { f.manager.SetDown(true) }, want: []string{"AWS Secrets Manager does not answer"}},
		"key of no object":     {set: holds(content), read: tlsARN + "#key", want: []string{"is no JSON object"}},
		"key of a list":        {set: holds(`["` + content + `"]`), read: tlsARN + "#key", want: []string{"is no JSON object"}},
		"key of null":          {set: holds("null"), read: tlsARN + "#key", want: []string{"does not have the key"}},
		"absent key":           {set: holds(`{"Key":"` + content + `"}`), read: tlsARN + "#key", want: []string{"does not have the key"}},
		"a value without text": {set: holds(`{"key":{"a":"` + content + `"}}`), read: tlsARN + "#key", want: []string{"is no text"}},
		"a null value":         {set: holds(`{"key":null}`), read: tlsARN + "#key", want: []string{"is no text"}},
		"no secret's ARN":      {set: func(*fixture) {}, read: "arn:aws:ssm:eu-west-1:1:parameter/a", want: []string{"write arn:aws:secretsmanager:"}},
		"no region":            {set: func(*fixture) {}, read: "arn:aws:secretsmanager::1:secret:a", want: []string{"REGION"}},
		"an ARN cut off":       {set: func(*fixture) {}, read: "arn:aws:secretsmanager", want: []string{"write arn:aws:secretsmanager:"}},
		"no credentials":       {set: func(f *fixture) { f.t.Setenv("AWS_ACCESS_KEY_ID", "") }, want: []string{"give the function a role"}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			test.set(f)
			got, err := f.Read(t.Context(), cmp.Or(test.read, tlsARN))
			if err == nil {
				t.Fatalf("content: %q", got)
			}
			for _, part := range test.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%v: lacks %q", err, part)
				}
			}
			if strings.Contains(err.Error()+f.log.String(), content) {
				t.Errorf("shows content: %v\n%s", err, f.log)
			}
		})
	}
}

func TestForms(t *testing.T) {
	f := newFixture(t)
	path := filepath.Join(t.TempDir(), "a")
	if err := os.WriteFile(path, []byte("file"), 0o600); err != nil {
		t.Fatal(err)
	}
	f.manager.SetString(tlsARN, `{"cert":"c\n","a#b":"hash","":"empty"}`)
	const binary = "arn:aws-cn:secretsmanager:cn-north-1:123456789012:secret:binary"
	f.manager.SetBinary(binary, []byte("\x00\xff"))
	for name, want := range map[string]string{
		path: "file", tlsARN + "#cert": "c\n", tlsARN + "#a#b": "hash", tlsARN + "#": "empty", binary: "\x00\xff",
	} {
		if got, err := f.Read(t.Context(), name); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v, want %q", name, got, err, want)
		}
	}
	if n := f.manager.Fetches(tlsARN); n != 1 {
		t.Errorf("%d fetches for all keys of a secret", n)
	}
	if _, err := f.Read(t.Context(), filepath.Join(path, "b")); !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("a file that is not there: %v", err)
	}
}

func TestSigning(t *testing.T) {
	f := newFixture(t)
	f.manager.SetString(tlsARN, "first")
	f.want("first", 1)
	// The region is the ARN's, whatever the function's own.
	if a := f.manager.Authorization(); !strings.Contains(a, "Credential=AKIDEXAMPLE/") || !strings.Contains(a, "/eu-west-1/secretsmanager/") {
		t.Errorf("signed by %s", a)
	}
}

func TestCredentialsFromAnEndpoint(t *testing.T) {
	f := newFixture(t)
	var status atomic.Int64
	status.Store(http.StatusForbidden)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if status.Load() != http.StatusOK || r.Header.Get("Authorization") != "token-"+content {
			w.WriteHeader(http.StatusForbidden)
			io.WriteString(w, `{"code":"Forbidden","message":"`+content+`"}`)
			return
		}
		io.WriteString(w, `{"AccessKeyId":"AKIDENDPOINT","SecretAccessKey":"`+content+`","Token":"t","Expiration":"2100-01-01T00:00:00Z"}`)
	}))
	t.Cleanup(server.Close)
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("token-"+content+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", server.URL)
	t.Setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token)
	f.manager.SetString(tlsARN, "first")
	_, err := f.Read(t.Context(), tlsARN)
	if err == nil || !strings.Contains(err.Error(), "AWS_CONTAINER_CREDENTIALS_FULL_URI") || strings.Contains(err.Error(), content) {
		t.Errorf("refused: %v", err)
	}
	status.Store(http.StatusOK)
	f.pass(time.Second, time.Second)
	f.want("first", 1)
	if a := f.manager.Authorization(); !strings.Contains(a, "Credential=AKIDENDPOINT/") {
		t.Errorf("signed by %s", a)
	}
}

// endless writes without an end, until the reader closes the connection; beginning is what it begins with.
func endless(w http.ResponseWriter, beginning string) {
	io.WriteString(w, beginning) // an error comes again
	for block := bytes.Repeat([]byte("x"), 64<<10); ; {
		if _, err := w.Write(block); err != nil {
			return
		}
	}
}

// An answer without an end costs little, and is an error that says so; the last good content stays in use.
func TestAnswerWithoutEnd(t *testing.T) {
	for name, test := range map[string]struct {
		status    int
		header    string
		beginning string
	}{
		"a secret":             {200, "", `{"SecretString":"`},
		"no JSON":              {200, "", ""},
		"space":                {200, "", strings.Repeat(" ", 2<<20)},
		"an error":             {400, "", `{"__type":"ResourceNotFoundException","Message":"`},
		"an error of a proxy":  {502, "", "<html>"},
		"compressed by itself": {200, "gzip", ""},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body) // a client gives up where the answer comes before it has sent its request
				w.Header().Set("Content-Type", "application/x-amz-json-1.1")
				if test.header != "" {
					w.Header().Set("Content-Encoding", test.header)
					w.WriteHeader(test.status)
					packed := gzip.NewWriter(w)
					for block := make([]byte, 1<<20); ; { // which is a thousand times as short
						if _, err := packed.Write(block); err != nil || packed.Flush() != nil {
							return
						}
					}
				}
				w.WriteHeader(test.status)
				endless(w, test.beginning)
			}))
			t.Cleanup(server.Close)
			t.Setenv("AWS_ENDPOINT_URL_SECRETS_MANAGER", server.URL)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := f.Read(t.Context(), tlsARN)
			runtime.ReadMemStats(&after)
			if err == nil || !strings.Contains(err.Error(), "the answer of AWS Secrets Manager is no secret: it is longer than 1 MiB") {
				t.Errorf("%v", err)
			}
			if took := after.TotalAlloc - before.TotalAlloc; took > 24<<20 {
				t.Errorf("%d KiB were allocated", took>>10)
			}
		})
	}
}

func TestAnswerWithoutEndLeavesTheLastGoodOne(t *testing.T) {
	f := newFixture(t)
	f.manager.SetString(tlsARN, "first")
	f.want("first", 1)
	f.manager.SetAnswer(tlsARN, http.StatusOK, `{"SecretString":"`+strings.Repeat("x", mostOfAnswer)+`"}`)
	f.pass(freshFor, freshFor)
	f.want("first", 2)
	if log := f.log.String(); !strings.Contains(log, "the last good one stays in use") || !strings.Contains(log, "it is longer than 1 MiB") {
		t.Errorf("log: %s", log)
	}
	// The longest secret there is, in the longest form that JSON has for it.
	long := strings.Repeat("\x01", 64<<10)
	f.manager.SetString(tlsARN, long)
	f.pass(freshFor, freshFor)
	f.want(long, 3)
}

// The same for what gives credentials, and for files.
func TestOthersWithoutEnd(t *testing.T) {
	f := newFixture(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { endless(w, `{"AccessKeyId":"`) }))
	t.Cleanup(server.Close)
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", server.URL)
	if _, err := f.Read(t.Context(), tlsARN); err == nil || !strings.Contains(err.Error(), "AWS_CONTAINER_CREDENTIALS_FULL_URI is no AWS credentials: it is longer than 1 MiB") {
		t.Errorf("credentials: %v", err)
	}
	large := filepath.Join(t.TempDir(), "large")
	if err := os.WriteFile(large, make([]byte, atmost.FileLimit+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Read(t.Context(), large); err == nil || !strings.Contains(err.Error(), "it is longer than 4 MiB") {
		t.Errorf("a file: %v", err)
	}
}

func TestReadsAtTheSameTimeShareAFetch(t *testing.T) {
	f := newFixture(t)
	f.manager.SetString(tlsARN, `{"cert":"c","key":"k"}`)
	var all sync.WaitGroup
	for i := range 20 {
		name, want := tlsARN+"#cert", "c"
		if i%2 == 0 {
			name, want = tlsARN+"#key", "k"
		}
		all.Go(func() {
			if got, err := f.Read(context.Background(), name); err != nil || string(got) != want {
				t.Errorf("%s: %q, %v", name, got, err)
			}
		})
	}
	all.Wait()
	if n := f.manager.Fetches(tlsARN); n != 1 {
		t.Errorf("%d fetches", n)
	}
}

// A read that waits for a fetch gives up with its own context; the fetch continues, and serves the next one.
func TestWaitingEnds(t *testing.T) {
	f := newFixture(t)
	f.manager.SetHung(true)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.Read(ctx, tlsARN); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	f.eventually("it is fetched all the same", func() bool { return f.manager.Fetches(tlsARN) == 1 })
}

// An answer that was lost on the way, or while the machine was frozen, costs a second at most.
func TestLostAnswer(t *testing.T) {
	f := newFixture(t)
	f.manager.SetHung(true)
	f.manager.SetString(tlsARN, "first")
	first := make(chan string, 1)
	go func() {
		got, err := f.Read(t.Context(), tlsARN)
		if err != nil {
			t.Errorf("the first: %v", err)
		}
		first <- string(got)
	}()
	f.eventually("it is fetched", func() bool { return f.manager.Fetches(tlsARN) == 1 })
	f.manager.SetHung(false)
	f.pass(time.Hour, 0) // frozen
	f.want("first", 2)
	if got := <-first; got != "first" { // what the other fetch brought serves the one that waits, too
		t.Errorf("%q", got)
	}
	f.want("first", 2)
}

// A fetch that is not answered gets another beside it, without a further read.
func TestFetchedOnceMoreWhileItHangs(t *testing.T) {
	f := newFixture(t)
	f.clock = clock.System()
	f.manager.SetString(tlsARN, "first")
	f.manager.SetHung(true)
	unhung := make(chan struct{})
	go func() {
		defer close(unhung)
		for f.manager.Fetches(tlsARN) == 0 && t.Context().Err() == nil {
			time.Sleep(time.Millisecond)
		}
		f.manager.SetHung(false)
	}()
	f.want("first", 2)
	<-unhung
}

// What a fetch brings that nobody waits for any more is there once it has settled.
func TestSettle(t *testing.T) {
	f := newFixture(t)
	f.Settle(t.Context()) // nothing is under way
	f.manager.SetString(tlsARN, "first")
	f.manager.SetDelay(100 * time.Millisecond)
	left, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.Read(left, tlsARN); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	f.Settle(t.Context())
	if got, err := f.Read(left, tlsARN); err != nil || string(got) != "first" {
		t.Errorf("without waiting: %q, %v", got, err)
	}

	f.manager.SetHung(true)
	f.pass(freshFor, freshFor)
	if got, err := f.Read(left, tlsARN); err != nil || string(got) != "first" {
		t.Errorf("while the fetch hangs: %q, %v, want the last good one", got, err)
	}
	brief, stop := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer stop()
	f.Settle(brief) // returns
	f.eventually("it is fetched", func() bool { return f.manager.Fetches(tlsARN) == 2 })
}

func TestUnansweredFetchEnds(t *testing.T) {
	f := newFixture(t)
	f.manager.SetHung(true)
	_, err := f.Read(t.Context(), tlsARN)
	if err == nil || !strings.Contains(err.Error(), "AWS Secrets Manager did not answer within 3s") {
		t.Errorf("%v", err)
	}
}

// A connection kept for the next fetch would be dead by then.
func TestEachFetchHasItsConnection(t *testing.T) {
	f := newFixture(t)
	f.manager.SetString(tlsARN, "first")
	for n := 1; n <= 3; n++ {
		f.want("first", n)
		f.pass(freshFor, freshFor)
	}
	if n := f.manager.Connections(); n != 3 {
		t.Errorf("%d connections, want 3", n)
	}
}
