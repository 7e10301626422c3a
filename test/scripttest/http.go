package scripttest

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// rotation is how long the proxy may take until it uses a file that has changed.
const rotation = 10 * time.Second

// reply is the answer to a request, as text.
type reply struct {
	text string
	err  error
}

// caller makes the request that the arguments of get describe.
type caller struct {
	send  func() *reply
	until *regexp.Regexp // what the answer must match; nil if any will do
}

func newCaller(s *session, ts *testscript.TestScript, args []string) *caller {
	flags := flag.NewFlagSet("get", flag.ContinueOnError)
	ca, cert, key := flags.String("ca", "", ""), flags.String("cert", "", ""), flags.String("key", "", "")
	bearer, basic := flags.String("bearer", "", ""), flags.String("basic", "", "")
	method, accept := flags.String("method", http.MethodGet, ""), flags.String("accept", "", "")
	until := flags.String("until", "", "")
	url := parse(ts, flags, args, 1)[0]

	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if *ca != "" {
		config.RootCAs = pool(ts, *ca)
	}
	if *cert != "" {
		certificate := pair(ts, *cert, *key)
		// With config.Certificates, the certificate would not be sent to a server that names other authorities.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &certificate, nil }
	}
	request, err := http.NewRequestWithContext(context.Background(), *method, url, nil)
	ts.Check(err)
	if *accept != "" {
		request.Header.Set("Accept", *accept)
	}
	if *bearer != "" {
		request.Header.Set("Authorization", "Bearer "+*bearer)
		s.hide(*bearer)
	}
	if user, password, ok := strings.Cut(*basic, ":"); ok {
		request.SetBasicAuth(user, password)
		s.hide(password, base64.StdEncoding.EncodeToString([]byte(*basic)))
	}
	c := &caller{send: func() *reply {
		r := send(config, request)
		s.record(r.text)
		return r
	}}
	if *until != "" {
		c.until, err = regexp.Compile(*until)
		ts.Check(err)
	}
	return c
}

func get(ts *testscript.TestScript, neg bool, args []string) {
	c := newCaller(ts.Value(sessionKey{}).(*session), ts, args)
	r := c.send()
	if c.until != nil {
		for end := time.Now().Add(rotation); !c.until.MatchString(r.text); r = c.send() {
			if time.Now().After(end) {
				ts.Fatalf("no answer matches within %v; the last one: %v %s", rotation, r.err, r.text)
			}
			time.Sleep(interval)
		}
	}
	_, _ = io.WriteString(ts.Stdout(), r.text)
	if r.err != nil {
		_, _ = fmt.Fprintln(ts.Stderr(), r.err)
	}
	switch {
	case neg && r.err == nil:
		ts.Fatalf("got an answer, want none")
	case !neg && r.err != nil:
		ts.Fatalf("no answer")
	}
}

// send makes a request on a new connection.
func send(config *tls.Config, request *http.Request) *reply {
	transport := &http.Transport{TLSClientConfig: config}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: patience}
	response, err := client.Do(request)
	if err != nil {
		return &reply{err: err}
	}
	defer response.Body.Close()
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s\n", response.Proto, response.Status)
	_ = response.Header.Write(&b) // writing to a Builder cannot fail
	if response.Close && response.Header.Get("Connection") == "" {
		b.WriteString("Connection: close\n")
	}
	if response.TLS != nil {
		fmt.Fprintf(&b, "certificate: %s\n", strings.Join(response.TLS.PeerCertificates[0].DNSNames, " "))
	}
	b.WriteByte('\n')
	_, err = io.Copy(&b, response.Body)
	return &reply{text: strings.ReplaceAll(b.String(), "\r", ""), err: err}
}

func ask(s *session, ts *testscript.TestScript, args []string) {
	c := newCaller(s, ts, args[1:])
	answer := make(chan *reply, 1)
	s.answers[args[0]] = answer
	go func() { answer <- c.send() }()
}

func answered(s *session, ts *testscript.TestScript, args []string) {
	answer := s.answers[args[0]]
	if answer == nil {
		ts.Fatalf("no request %s", args[0])
	}
	r := <-answer // send has a time-out
	ts.Check(r.err)
	_, _ = io.WriteString(ts.Stdout(), r.text)
}

func taken(s *session, ts *testscript.TestScript, args []string) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	s.t.Cleanup(func() { listener.Close() })
	ts.Setenv(args[0], listener.Addr().String())
}

func metadataServer(s *session, ts *testscript.TestScript, args []string) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Metadata-Flavor", "Google")
		if r.Header.Get("Metadata-Flavor") != "Google" || !strings.HasSuffix(r.URL.Path, "/service-accounts/default/identity") {
			http.NotFound(w, r)
			return
		}
		token := idToken(r.URL.Query().Get("audience"))
		s.hide(token)
		_, _ = io.WriteString(w, token)
	}))
	s.t.Cleanup(server.Close)
	ts.Setenv(args[0], server.Listener.Addr().String())
}

// idToken returns a JWT for an audience, valid for an hour. Its signature is not a valid one: nothing verifies it here.
func idToken(audience string) string {
	encode := base64.RawURLEncoding.EncodeToString
	payload := fmt.Sprintf(`{"aud":%q,"exp":%d}`, audience, time.Now().Add(time.Hour).Unix())
	return encode([]byte(`{"alg":"RS256"}`)) + "." + encode([]byte(payload)) + "." + encode([]byte("signature"))
}
