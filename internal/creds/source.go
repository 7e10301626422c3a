package creds

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"example.com/grpc-health-http/internal/clock"
	"example.com/grpc-health-http/internal/refresh"
)

const (
	// freshFor is the age from which a value is loaded again at its next use.
	freshFor = 5 * time.Second
	// patience is how long a use waits for a load while the last good value can serve it.
	patience = 100 * time.Millisecond
	// loadTimeout bounds one load.
	loadTimeout = 10 * time.Second
)

// digest tells content from other content.
type digest [sha256.Size]byte

// loader returns a value and the digest of the content that it is made of. Where that is the digest known already, the value is
// not looked at and need not be made.
type loader[T any] func(ctx context.Context, known digest) (T, digest, error)

// version is a value with the digest of the content that it is made of.
type version[T any] struct {
	value   T
	content digest
}

// source has a value that is loaded again by the package's rule. A nil source has the zero value.
type source[T any] struct {
	versions *refresh.Value[*version[T]]
	clock    func() clock.Moment
	changed  func(T)      // is called with each new value; may be nil
	usable   func(T) bool // says whether a value can be used still; may be nil
	inline   bool         // the content lies in the settings and cannot change
	files    []file       // where the content comes from; nil where that is no file
}

func newSource[T any](o Options, what Kind, name string, load loader[T]) *source[T] {
	if o.clock == nil {
		o.clock = clock.System()
	}
	s := &source[T]{clock: o.clock}
	var reported clock.Moment // when a failure was reported last; zero after a success
	loaded := func(before, after *version[T], err error) {
		replaced := before != nil && s.state(before, 0) != refresh.Expired
		if err != nil {
			if now := o.clock(); replaced && (reported == clock.Moment{} || now.Since(reported) > freshFor) {
				reported = now
				o.reloaded(what, err)
			}
			return
		}
		reported = clock.Moment{}
		if before == after {
			return
		}
		if replaced {
			o.reloaded(what, nil)
		}
		if s.changed != nil {
			s.changed(after.value)
		}
	}
	s.versions = refresh.New(refresh.Options[*version[T]]{
		Name: name,
		Load: func(ctx context.Context, current *version[T]) (*version[T], error) {
			ctx, cancel := context.WithTimeout(ctx, loadTimeout)
			defer cancel()
			var known digest
			if current != nil {
				known = current.content
			}
			value, content, err := load(ctx, known)
			if err == nil && content == known {
				return current, nil
			}
			return &version[T]{value, content}, err
		},
		State:    func(current *version[T], age, _ time.Duration) refresh.State { return s.state(current, age) },
		Loaded:   loaded,
		Clock:    o.clock,
		Patience: cmp.Or(o.patience, patience),
	})
	return s
}

func (s *source[T]) state(v *version[T], age time.Duration) refresh.State {
	switch {
	case s.usable != nil && !s.usable(v.value):
		return refresh.Expired
	case s.inline || age <= freshFor:
		return refresh.Fresh
	}
	return refresh.Stale
}

// get returns the value, loaded again where the rule says so; force asks for a load whatever the age. It fails only without a
// good value, by the end of ctx at the latest.
func (s *source[T]) get(ctx context.Context, force bool) (T, error) {
	var none T
	if s == nil {
		return none, nil
	}
	v, err := s.versions.Get(ctx, force && !s.inline)
	if err != nil {
		return none, s.late(ctx, err)
	}
	return v.value, nil
}

// late says of an error that is the end of ctx which file kept it waiting.
func (s *source[T]) late(ctx context.Context, err error) error {
	cause := context.Cause(ctx)
	if cause == nil || !errors.Is(err, cause) {
		return err
	}
	var slow []string
	for _, f := range s.files {
		if f.reading.now() {
			slow = append(slow, f.String())
		}
	}
	if len(slow) == 0 {
		return err
	}
	return fmt.Errorf("%s: not loaded in time: %w", strings.Join(slow, " and "), cause)
}

// reading counts the reads of a file that are under way.
type reading struct{ n atomic.Int32 }

func (r *reading) begin() (end func()) {
	r.n.Add(1)
	return func() { r.n.Add(-1) }
}

func (r *reading) now() bool { return r.n.Load() > 0 }

// latest returns the value as it is, and loads nothing.
func (s *source[T]) latest() T {
	var none T
	if s == nil {
		return none
	}
	if v := s.versions.Latest(); v != nil {
		return v.value
	}
	return none
}

// loadInline loads what lies in the settings alone: where that is wrong, so are the settings.
func (s *source[T]) loadInline(files ...file) error {
	for _, f := range files {
		if !f.inline() {
			return nil
		}
	}
	s.inline = true
	_, err := s.get(context.Background(), false)
	return err
}

// fromFile has what parse makes of a file's content.
func fromFile[T any](o Options, what Kind, f file, parse func(content []byte) (T, error)) *source[T] {
	s := newSource(o, what, f.String(), func(ctx context.Context, known digest) (value T, found digest, err error) {
		content, err := f.content(ctx)
		if err != nil {
			return value, found, err
		}
		if found = sha256.Sum256(content); found != known {
			value, err = parse(content)
		}
		return value, found, err
	})
	s.files = []file{f}
	return s
}

// line is content without the white space around it, which must be one line of printable ASCII: what
// gRPC metadata (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md, ASCII-Value) and
// an HTTP header can carry. An empty file is one that is being written.
func line(f file, content []byte) ([]byte, error) {
	content = bytes.TrimSpace(content)
	if len(content) == 0 {
		return nil, f.wrong("is empty")
	}
	for _, b := range content {
		if b < ' ' || b > '~' {
			return nil, f.wrong("holds something else than one line of printable ASCII")
		}
	}
	return content, nil
}

// tlsSource makes a T, such as a TLS configuration, of roots and a certificate. It makes another one only when one of the two
// was replaced, so that users can compare with ==.
type tlsSource[T any] struct {
	roots *source[*rootSet]
	pair  *source[*tls.Certificate]
	build func(*rootSet, *tls.Certificate) T

	mu    sync.Mutex
	built bool
	value T
	from  struct {
		roots *rootSet
		pair  *tls.Certificate
	}
}

func (s *tlsSource[T]) get(ctx context.Context, force bool) (T, error) {
	var rootsErr error
	var loading sync.WaitGroup
	if s.pair == nil {
		_, rootsErr = s.roots.get(ctx, force)
	} else { // side by side, because each may take its patience
		loading.Go(func() { _, rootsErr = s.roots.get(ctx, force) })
	}
	_, pairErr := s.pair.get(ctx, force)
	loading.Wait()
	if err := errors.Join(pairErr, rootsErr); err != nil {
		var none T
		return none, err
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	// The latest of both, not what get returned: another use may have loaded newer ones since.
	if roots, pair := s.roots.latest(), s.pair.latest(); !s.built || roots != s.from.roots || pair != s.from.pair {
		s.value, s.built = s.build(roots, pair), true
		s.from.roots, s.from.pair = roots, pair
	}
	return s.value, nil
}
