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
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

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
	clock  func() moment
	failed atomic.Int64 // dials that failed

	mu      sync.Mutex
	secrets map[string]*secret
}

// New returns a Reader. It reads nothing yet; region, credentials and endpoint are taken from the
// process's environment at the first secret that is read.
func New(logger *slog.Logger) *Reader {
	return &Reader{
		logger: logger, client: sync.OnceValue(newClient), clock: systemClock(),
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

// Dialed is told how a dial to the upstream ended, as a check.Trace's Dial.
func (r *Reader) Dialed(result string) {
	if result != "ok" {
		r.failed.Add(1)
	}
}

func (r *Reader) secret(arn string) *secret {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.secrets[arn]
	if s == nil {
		s = &secret{arn: arn, turn: make(chan struct{}, 1)}
		r.secrets[arn] = s
	}
	return s
}

// secret is what is held of one secret.
type secret struct {
	arn string

	turn      chan struct{} // holds the token of who works with what follows
	good      bool          // content is
	content   []byte
	fetchedAt moment // when the fetch began that brought content
	failed    int64  // dials that had failed by then
	tried     bool
	triedAt   moment // when the latest fetch began
	err       error  // of the latest fetch
}

// read returns the content, fetched again where that is due. Those who read at the same time share a fetch.
func (s *secret) read(ctx context.Context, r *Reader) ([]byte, error) {
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	now, failed := r.clock(), r.failed.Load()
	due := !s.good || now.since(s.fetchedAt) >= freshFor || failed != s.failed || creds.Refresh(ctx)
	if due && (!s.tried || now.since(s.triedAt) >= fetchInterval) {
		s.tried, s.triedAt = true, now
		var content []byte
		if content, s.err = fetch(ctx, r.client(), s.arn); s.err == nil {
			s.good, s.content, s.fetchedAt, s.failed = true, content, now, failed
		} else if s.good {
			r.logger.Warn("cannot fetch a secret again; the last good one goes on", "secret", s.arn, "cause", s.err.Error())
		}
	}
	if !s.good {
		return nil, s.err
	}
	return s.content, nil
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

// moment is one reading of both clocks: a frozen machine stops the monotonic clock, and the wall clock can
// be set back.
type moment struct {
	wall time.Time
	mono time.Duration
}

// since is the larger of what the two clocks say.
func (m moment) since(earlier moment) time.Duration {
	return max(m.mono-earlier.mono, m.wall.Sub(earlier.wall))
}

// systemClock reads the machine's clocks.
func systemClock() func() moment {
	start := time.Now()
	return func() moment {
		now := time.Now()
		return moment{wall: now.Round(0), mono: now.Sub(start)}
	}
}
