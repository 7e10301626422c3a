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
	"time"

	"cloud.google.com/go/compute/metadata"

	"example.com/grpc-health-http/internal/atmost"
	"example.com/grpc-health-http/internal/clock"
	"example.com/grpc-health-http/internal/refresh"
)

const (
	// margin is how long before its end a token is replaced.
	margin = 5 * time.Minute
	// shortMargin is the same for a token that has no more than margin left when it comes, as a
	// part of what it has left.
	shortMargin = 0.1
	// patience is how long a use waits for the next token while the current one is still valid.
	patience = 100 * time.Millisecond
	// fetchTimeout bounds one fetch with all the retries of Google's library.
	fetchTimeout = 5 * time.Second
	// latest is an expiry, in seconds, that no clock will show.
	latest = 1e12
)

// mostOfAnswer is how much of an answer is read, in bytes: a token has about 1 KB.
const mostOfAnswer = 64 << 10

// Source has the ID tokens of one audience. It is safe for concurrent use.
type Source struct {
	audience string
	client   *metadata.Client
	clock    func() clock.Moment
	tokens   *refresh.Value[token]
}

// token is an ID token with its times. They are compared by the wall clock, as the server does.
type token struct {
	text    string
	renewAt time.Time // from then on another one is wanted
	expires time.Time
}

// New returns the source for an audience: a Cloud Run service's URL, for example. It makes no request.
func New(audience string) *Source { return newSource(audience, clock.System(), patience) }

func newSource(audience string, now func() clock.Moment, patience time.Duration) *Source {
	s := &Source{
		audience: audience,
		client: metadata.NewClient(&http.Client{
			// Tokens are fetched once an hour: a connection kept that long, through a machine's
			// freeze perhaps, would be dead. No proxy leads to the metadata server.
			Transport: atmost.Answers(&http.Transport{
				DialContext:            (&net.Dialer{Timeout: 2 * time.Second}).DialContext,
				DisableKeepAlives:      true,
				MaxResponseHeaderBytes: mostOfAnswer,
			}, mostOfAnswer),
		}),
		clock: now,
	}
	s.tokens = refresh.New(refresh.Options[token]{
		Name: s.failure(), Load: s.fetch, State: s.state, Clock: now, Patience: patience,
	})
	return s
}

// Token returns a token that is good for some minutes (the last tenth of its life, where it is a
// short one), by the end of ctx at the latest. While the current token is valid, a failure to get the next one is no error.
func (s *Source) Token(ctx context.Context) (string, error) {
	t, err := s.tokens.Get(ctx, false)
	return t.text, err
}

func (s *Source) state(t token, _, idle time.Duration) refresh.State {
	now := s.now()
	untilRenewal := t.renewAt.Sub(now)
	switch {
	case !now.Before(t.expires):
		return refresh.Expired
	case untilRenewal <= 0:
		return refresh.Stale
	// As long ahead of the renewal as the renewal is ahead of the end. A metadata server that has no newer token yet is asked
	// again after a quarter of the time that was left.
	case untilRenewal <= t.expires.Sub(t.renewAt) && idle >= untilRenewal/3:
		return refresh.Due
	}
	return refresh.Fresh
}

func (s *Source) now() time.Time { return time.Unix(0, s.clock().Wall) }

// fetch asks the metadata server. Its errors hold nothing of what the server answered.
func (s *Source) fetch(ctx context.Context, current token) (token, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	query := url.Values{"audience": {s.audience}, "format": {"full"}}
	text, err := s.client.GetWithContext(ctx, "instance/service-accounts/default/identity?"+query.Encode())
	if err != nil {
		return token{}, fmt.Errorf("%s: %w", s.failure(), cause(err))
	}
	fetched, err := parse(strings.TrimSpace(text), s.now())
	if err != nil {
		return token{}, fmt.Errorf("%s: %w", s.failure(), err)
	}
	if fetched.expires.Before(current.expires) {
		return current, nil
	}
	return fetched, nil
}

func (s *Source) failure() string { return "no Google ID token for audience " + s.audience }

// cause says why the metadata server gave no token.
func cause(err error) error {
	if _, ok := errors.AsType[metadata.NotDefinedError](err); ok {
		return errors.New("the metadata server answered 404: is a service account attached?")
	}
	if answer, ok := errors.AsType[*metadata.Error](err); ok {
		return fmt.Errorf("the metadata server answered %d", answer.Code)
	}
	if long, ok := errors.AsType[*atmost.TooLong](err); ok {
		return fmt.Errorf("what the metadata server answered is no ID token: %w", long)
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
