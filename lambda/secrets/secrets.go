// Package secrets reads secrets of AWS Secrets Manager, which Lambda does not mount as files.
//
// What was fetched serves for 5 minutes, and until a dial to the upstream fails, for then it may have
// been rotated. A secret is fetched once a second at most. The last good content goes on where fetching it
// again fails. No error and no log line holds content.
package secrets

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"example.com/grpc-health-http/internal/clock"
	"example.com/grpc-health-http/internal/creds"
)

const (
	// freshFor is how long content serves without another fetch.
	freshFor = 5 * time.Minute
	// fetchInterval is the time from the begin of a fetch of a secret to that of its next one.
	fetchInterval = time.Second
	// fetchTimeout bounds one fetch.
	fetchTimeout = 3 * time.Second
)

// Reader reads secrets. It is safe for concurrent use, and does nothing between reads.
type Reader struct {
	logger *slog.Logger
	client func() *secretsmanager.Client
	clock  func() clock.Moment
	failed atomic.Int64 // dials that failed

	mu      sync.Mutex
	secrets map[string]*secret
}

// New returns a Reader. It reads nothing yet; region, credentials and endpoint are taken from the
// process's environment at the first secret that is read.
func New(logger *slog.Logger) *Reader {
	return &Reader{
		logger: logger, client: sync.OnceValue(newClient), clock: clock.System(),
		secrets: make(map[string]*secret),
	}
}

// Read returns what a name stands for: "arn:aws:secretsmanager:..." the content of a secret,
// "arn:...#key" the text of a key of a JSON object in it, and all else that of the file of that name. It is a
// creds.Options's Read.
func (r *Reader) Read(ctx context.Context, name string) ([]byte, error) {
	if !strings.HasPrefix(name, "arn:") {
		return os.ReadFile(name)
	}
	arn, key, hasKey := strings.Cut(name, "#")
	content, err := r.secret(arn).read(ctx, r)
	if err != nil || !hasKey {
		return content, err
	}
	return member(content, key)
}

// Dialed is told how a dial to the upstream ended, as a health.Trace's Dial.
func (r *Reader) Dialed(result string) {
	if result != "ok" {
		r.failed.Add(1)
	}
}

// Settle waits until no fetch is under way, by the end of ctx at the latest. A platform that freezes the process after an answer
// would let a fetch that no answer has waited for never end, and each one after it neither.
func (r *Reader) Settle(ctx context.Context) {
	r.mu.Lock()
	all := slices.Collect(maps.Values(r.secrets))
	r.mu.Unlock()
	for _, s := range all {
		s.mu.Lock()
		f := s.latest
		s.mu.Unlock()
		if f == nil {
			continue
		}
		select {
		case <-f.done:
		case <-ctx.Done():
			return
		}
	}
}

func (r *Reader) secret(arn string) *secret {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.secrets[arn]
	if s == nil {
		s = &secret{arn: arn, renewed: make(chan struct{})}
		r.secrets[arn] = s
	}
	return s
}

// secret is what is held of one secret.
type secret struct {
	arn string

	mu        sync.Mutex
	good      bool // content is
	content   []byte
	fetchedAt clock.Moment  // when the fetch began that brought content
	failed    int64         // dials that had failed by then
	latest    *fetching     // nil before the first
	renewed   chan struct{} // closed, and made anew, when content comes
}

// fetching is one fetch. It belongs to no single read, so no read's context ends it.
type fetching struct {
	began clock.Moment
	done  chan struct{} // closed at its end
	err   error         // set before done is closed
}

// read returns the content, fetched again where that is due. Those who read at the same time share a fetch. One
// that has not answered within fetchInterval gets another beside it, so that an answer lost on the way, or in a
// machine's freeze, costs no more than that.
func (s *secret) read(ctx context.Context, r *Reader) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := r.clock()
	if s.good && now.Since(s.fetchedAt) < freshFor && r.failed.Load() == s.failed && !creds.Refresh(ctx) {
		return s.content, nil
	}
	for {
		if s.latest == nil || now.Since(s.latest.began) >= fetchInterval {
			s.latest = &fetching{began: now, done: make(chan struct{})}
			go s.fetch(r, s.latest)
		}
		f, renewed := s.latest, s.renewed
		another := time.NewTimer(fetchInterval - now.Since(f.began))
		s.mu.Unlock()
		brought := false
		select {
		case <-renewed:
			brought = true
		case <-f.done:
		case <-another.C:
		case <-ctx.Done():
		}
		another.Stop()
		s.mu.Lock()
		switch {
		case brought:
			return s.content, nil
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case s.latest == f && f.ended() && s.good:
			return s.content, nil
		case s.latest == f && f.ended():
			return nil, f.err
		}
		now = r.clock()
	}
}

// ended says whether the fetch has.
func (f *fetching) ended() bool {
	select {
	case <-f.done:
		return true
	default:
		return false
	}
}

// fetch does one fetch.
func (s *secret) fetch(r *Reader, f *fetching) {
	failed := r.failed.Load()
	content, err := fetch(context.Background(), r.client(), s.arn)
	s.mu.Lock()
	defer s.mu.Unlock()
	defer close(f.done)
	f.err = err
	switch {
	case err == nil && (!s.good || !f.began.Before(s.fetchedAt)):
		s.good, s.content, s.fetchedAt, s.failed = true, content, f.began, failed
		close(s.renewed)
		s.renewed = make(chan struct{})
	case err != nil && s.good && s.latest == f:
		r.logger.Warn("cannot fetch a secret again; the last good one goes on", "secret", s.arn, "cause", err.Error())
	}
}

// member is the text of one key of a JSON object.
func member(content []byte, key string) ([]byte, error) {
	// The parser's errors are not told: they quote what they read.
	var object map[string]json.RawMessage
	if json.Unmarshal(content, &object) != nil {
		return nil, errors.New("the secret is no JSON object: leave out # and the key, or store keys and values")
	}
	raw, ok := object[key]
	if !ok {
		return nil, errors.New("the secret's JSON object does not have the key")
	}
	var text *string
	if json.Unmarshal(raw, &text) != nil || text == nil {
		return nil, errors.New("the value of the key in the secret's JSON object is no text")
	}
	return []byte(*text), nil
}
