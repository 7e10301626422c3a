// Package secrets reads secrets of AWS Secrets Manager, which Lambda does not mount as files.
//
// What was fetched serves for 5 minutes, and until a dial to the upstream fails: then it may have been rotated. A secret is
// fetched once a second at most. Where fetching it again fails, the last good content stays in use, unless the service says that
// the secret is gone or that the function may not read it: then Read says so, and whoever keeps an earlier content decides what
// that means. No error and no log line holds content.
package secrets

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"example.com/grpc-health-http/internal/atmost"
	"example.com/grpc-health-http/internal/clock"
	"example.com/grpc-health-http/internal/refresh"
)

const (
	// freshFor is how long content serves without another fetch.
	freshFor = 5 * time.Minute
	// fetchInterval is the time from the beginning of a fetch of a secret to that of the next one.
	fetchInterval = time.Second
	// fetchTimeout bounds one fetch.
	fetchTimeout = 3 * time.Second
	// mostOfAnswer is the most that is read of an answer, in bytes. A secret has 64 KiB at most, which JSON makes up to six times as
	// long
	// (https://docs.aws.amazon.com/secretsmanager/latest/userguide/reference_limits.html).
	mostOfAnswer = 1 << 20
	// mostOfHeaders is the same of an answer's headers.
	mostOfHeaders = 64 << 10
)

// Reader reads secrets. It is safe for concurrent use, and does nothing between reads.
type Reader struct {
	logger *slog.Logger
	client func() *secretsmanager.Client
	clock  func() clock.Moment
	failed atomic.Int64 // dials that failed

	mu      sync.Mutex
	secrets map[string]*refresh.Value[*version] // by ARN
}

// version is the content of a secret, with the number of dials that had failed before it was fetched.
type version struct {
	content []byte
	gone    error // why there is none any more; nil where there is
	failed  int64
}

// New returns a Reader. It reads nothing yet; region, credentials and endpoint are taken from the
// process's environment at the first secret that is read.
func New(logger *slog.Logger) *Reader {
	return &Reader{
		logger: logger, client: sync.OnceValue(newClient), clock: clock.System(),
		secrets: make(map[string]*refresh.Value[*version]),
	}
}

// Read returns the content behind a name: "arn:aws:secretsmanager:..." is a secret, "arn:...#key" the text of a key of the
// JSON object in it, and every other name a file. It is a creds.Options's Read.
func (r *Reader) Read(ctx context.Context, name string) ([]byte, error) {
	if !strings.HasPrefix(name, "arn:") {
		return atmost.File(name)
	}
	arn, key, hasKey := strings.Cut(name, "#")
	v, err := r.secret(arn).Get(ctx, refresh.Forced(ctx))
	switch {
	case err != nil:
		return nil, err
	case v.gone != nil:
		return nil, v.gone
	case hasKey:
		return member(v.content, key)
	}
	return v.content, nil
}

// Dialed takes the result of a dial to the upstream, as a health.Trace's Dial.
func (r *Reader) Dialed(result string) {
	if result != "ok" {
		r.failed.Add(1)
	}
}

// Settle waits until no fetch is under way, by the end of ctx at the latest. The platform freezes the process after an answer:
// a fetch that the answer did not wait for would never end, and neither would each one after it.
func (r *Reader) Settle(ctx context.Context) {
	r.mu.Lock()
	all := slices.Collect(maps.Values(r.secrets))
	r.mu.Unlock()
	for _, s := range all {
		s.Settle(ctx)
	}
}

func (r *Reader) secret(arn string) *refresh.Value[*version] {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.secrets[arn]
	if s == nil {
		s = refresh.New(refresh.Options[*version]{
			Name: arn,
			Load: func(ctx context.Context, _ *version) (*version, error) {
				failed := r.failed.Load()
				content, err := fetch(ctx, r.client(), arn)
				if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
					return &version{gone: err, failed: failed}, nil
				}
				return &version{content: content, failed: failed}, err
			},
			State: func(current *version, age, _ time.Duration) refresh.State {
				if current.gone == nil && age < freshFor && current.failed == r.failed.Load() {
					return refresh.Fresh
				}
				return refresh.Stale
			},
			Loaded: func(before, after *version, err error) {
				if err == nil && after.gone != nil && before != nil && before.gone == nil {
					r.logger.Warn("a secret is gone or not permitted", "secret", arn, "cause", after.gone.Error())
				}
				if err != nil && before != nil {
					r.logger.Warn("cannot fetch a secret again; the last good one stays in use", "secret", arn, "cause", err.Error())
				}
			},
			Clock:    r.clock,
			Interval: fetchInterval,
		})
		r.secrets[arn] = s
	}
	return s
}

// member is the text of one key of a JSON object.
func member(content []byte, key string) ([]byte, error) {
	// The parser's errors are left out: they quote what they read.
	var object map[string]json.RawMessage
	if json.Unmarshal(content, &object) != nil {
		return nil, &goneError{"the secret is no JSON object: leave out # and the key, or store keys and values", fs.ErrNotExist}
	}
	raw, ok := object[key]
	if !ok {
		return nil, &goneError{"the secret's JSON object does not have the key", fs.ErrNotExist}
	}
	var text *string
	if json.Unmarshal(raw, &text) != nil || text == nil {
		return nil, &goneError{"the value of the key in the secret's JSON object is no text", fs.ErrNotExist}
	}
	return []byte(*text), nil
}

// goneError says that what was asked for is not there, or not for this function. It is fs.ErrNotExist or fs.ErrPermission, as that of
// a file is.
type goneError struct {
	text string
	kind error
}

func (e *goneError) Error() string        { return e.text }
func (e *goneError) Is(target error) bool { return target == e.kind }
