// Package idtoken gets Google ID tokens from the metadata server of the machine that the process
// runs on (https://cloud.google.com/run/docs/securing/service-identity#fetching_identity_and_access_tokens_using_the_metadata_server).
package idtoken

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"cloud.google.com/go/compute/metadata"
)

const (
	// margin is how long before its end a token is no longer the one to send.
	margin = 5 * time.Minute
	// shortMargin is the same for a token that has no more than margin left when it comes, as a
	// part of what it has left.
	shortMargin = 0.1
	// patience is how long a use waits for the next token while the one that is held is valid still.
	patience = 100 * time.Millisecond
	// fetchTimeout bounds one fetch with all the retries of Google's library.
	fetchTimeout = 5 * time.Second
	// joinable is the age from which a fetch that all have left is not joined again.
	joinable = 500 * time.Millisecond
	// latest is an end of life, in seconds, beyond which it is none that a clock will show.
	latest = 1e12
)

// Source has the ID tokens of one audience. It is safe for concurrent use.
type Source struct {
	audience string
	client   *metadata.Client
	now      func() time.Time
	patience time.Duration

	mu      sync.Mutex
	token   token
	nextTry time.Time // when a fetch ahead of need may begin
	fetch   *fetch    // the fetch that a use may join; nil where there is none
}

// token is an ID token with its times. They are compared by the wall clock, as the server does.
type token struct {
	text    string
	renewAt time.Time // from then on another one is wanted
	expires time.Time
}

// fetch is one request to the metadata server that uses share.
type fetch struct {
	began   time.Time
	done    chan struct{} // closed at its end
	err     error         // set before done is closed
	waiters int           // uses that wait for it
}

// New returns the source for an audience: a Cloud Run service's URL, for example. It makes no request.
func New(audience string) *Source {
	return &Source{
		audience: audience,
		client: metadata.NewClient(&http.Client{
			// Tokens are fetched once an hour: a connection kept that long, through a machine's
			// freeze perhaps, would be dead. No proxy leads to the metadata server.
			Transport: &http.Transport{
				DialContext:       (&net.Dialer{Timeout: 2 * time.Second}).DialContext,
				DisableKeepAlives: true,
			},
		}),
		now:      time.Now,
		patience: patience,
	}
}

// Token returns a token that is good for some minutes (the last tenth of its life, where it is a
// short one), by the end of ctx at the latest. The request to the metadata server is shared by
// those who wait, and outlives them, so that what comes late serves the next use. While the
// token that is held is valid, a failure to get the next one is none.
func (s *Source) Token(ctx context.Context) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	if now.Before(s.token.renewAt) {
		if !now.Before(s.nextTry) && s.fetch == nil {
			// A metadata server that has no newer token yet is asked again after a while.
			s.nextTry = now.Add(s.token.renewAt.Sub(now) / 4)
			s.join()
		}
		return s.token.text, nil
	}

	var enough <-chan time.Time // never, with no token to go on with
	if now.Before(s.token.expires) {
		timer := time.NewTimer(s.patience)
		defer timer.Stop()
		enough = timer.C
	}
	f, joined := s.join()
	done := s.await(ctx, f, enough)
	if done && joined && f.err != nil {
		// That fetch began before this use: its failure says nothing of the server now.
		f, _ = s.join()
		done = s.await(ctx, f, enough)
	}
	switch {
	case s.now().Before(s.token.expires):
		return s.token.text, nil
	case done && f.err != nil:
		return "", f.err
	case done:
		return "", s.wrap(errors.New("the metadata server's token expired on the way"))
	default:
		return "", s.wrap(fmt.Errorf("no answer from the metadata server in time: %w", context.Cause(ctx)))
	}
}

// join returns the fetch under way, or begins one. The caller holds s.mu.
func (s *Source) join() (f *fetch, joined bool) {
	if s.fetch != nil {
		return s.fetch, true
	}
	s.fetch = &fetch{began: time.Now(), done: make(chan struct{})}
	go s.run(s.fetch)
	return s.fetch, false
}

// await waits for f, with s.mu unlocked, and says whether it ended.
func (s *Source) await(ctx context.Context, f *fetch, enough <-chan time.Time) (done bool) {
	f.waiters++
	s.mu.Unlock()
	select {
	case <-f.done:
		done = true
	case <-enough:
	case <-ctx.Done():
	}
	s.mu.Lock()
	f.waiters--
	if ctx.Err() != nil && f.waiters == 0 && s.fetch == f && time.Since(f.began) > joinable {
		// Nobody waits any more, and the library may be in a pause that the next use is not to inherit.
		s.fetch = nil
	}
	return done
}

// run does the fetch. It belongs to no single use, so no use's context ends it.
func (s *Source) run(f *fetch) {
	ctx, cancel := context.WithTimeout(context.Background(), fetchTimeout)
	defer cancel()
	fetched, err := s.request(ctx)

	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err != nil:
	case fetched.expires.After(s.token.expires):
		s.token = fetched
		// As long ahead of need as need is ahead of the end.
		s.nextTry = fetched.renewAt.Add(-fetched.expires.Sub(fetched.renewAt))
	case fetched.expires.Equal(s.token.expires):
		// The server's cache has no newer one yet: this one is kept for nine tenths of what it has left.
		s.token = fetched
	}
	f.err = err
	if s.fetch == f {
		s.fetch = nil
	}
	close(f.done)
}

// request asks the metadata server. Its errors hold nothing of what the server answered.
func (s *Source) request(ctx context.Context) (token, error) {
	query := url.Values{"audience": {s.audience}, "format": {"full"}}
	text, err := s.client.GetWithContext(ctx, "instance/service-accounts/default/identity?"+query.Encode())
	if err != nil {
		return token{}, s.wrap(cause(err))
	}
	fetched, err := parse(strings.TrimSpace(text), s.now())
	if err != nil {
		return token{}, s.wrap(err)
	}
	return fetched, nil
}

func (s *Source) wrap(err error) error {
	return fmt.Errorf("no Google ID token for audience %s: %w", s.audience, err)
}

// cause says why the metadata server gave no token.
func cause(err error) error {
	if _, ok := errors.AsType[metadata.NotDefinedError](err); ok {
		return errors.New("the metadata server answered 404: is a service account attached?")
	}
	if answer, ok := errors.AsType[*metadata.Error](err); ok {
		return fmt.Errorf("the metadata server answered %d", answer.Code)
	}
	if failed, ok := errors.AsType[*url.Error](err); ok {
		err = failed.Err // without the address, whose query repeats the audience
	}
	return fmt.Errorf("ask the metadata server: %w", err)
}

// parse reads the end of an ID token's life, which is a JWT (RFC 7519). Its signature is the
// upstream's to verify.
func parse(text string, now time.Time) (token, error) {
	errGarbage := errors.New("what the metadata server answered is no ID token")
	parts := strings.Split(text, ".")
	if len(parts) != 3 || strings.ContainsAny(text, "\r\n") { // which the decoder below would pass over
		return token{}, errGarbage
	}
	var payload []byte
	for i, part := range parts {
		decoded, err := base64.RawURLEncoding.Strict().DecodeString(part)
		if err != nil {
			return token{}, errGarbage
		}
		if i == 1 {
			payload = decoded
		}
	}
	var claims struct {
		Expires float64 `json:"exp"` // seconds; RFC 7519 allows fractions
	}
	// A JSON error quotes what it met, so it is left out.
	if json.Unmarshal(payload, &claims) != nil || claims.Expires <= 0 || claims.Expires > latest {
		return token{}, errGarbage
	}
	expires := time.Unix(int64(claims.Expires), 0)
	left := expires.Sub(now)
	if left <= 0 {
		return token{}, fmt.Errorf("the metadata server's token expired at %s: is this machine's clock right?", expires.UTC().Format(time.RFC3339))
	}
	early := margin
	if left <= margin {
		early = time.Duration(shortMargin * float64(left))
	}
	return token{text: text, renewAt: expires.Add(-early), expires: expires}, nil
}
