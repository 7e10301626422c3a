// Package targets keeps what is checked the same as a targets file.
//
// The file may be replaced, by a symlink too, or written in place. What has changed is taken once it was read twice, a second apart, without a
// difference: so a file that is being written is not taken for a shorter one. A file that is wrong, or gone, changes nothing: the last good one stays
// in use. Where a process runs all the time, Watch reads the file. Where it may be frozen between requests, Refresh does, at a request; there files
// are replaced whole by the platform, and are taken as they are read.
package targets

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"sync"
	"time"

	"example.com/grpc-health-http/internal/clock"
	"example.com/grpc-health-http/internal/settings"
)

const (
	// every is how often Watch reads the file, and settled how long a change must be the same.
	every   = 3 * time.Second
	settled = time.Second
	// old is the age of the last reading from which Refresh reads again, and patience how long a request waits for that.
	old      = 5 * time.Second
	patience = 100 * time.Millisecond
	// readFor is how long a reading may take.
	readFor = 10 * time.Second
)

// Options say where targets come from, and who gets them. All but Clock are required.
type Options struct {
	// Read returns the file's content.
	Read func(ctx context.Context) ([]byte, error)
	// Parse makes targets of the content; warnings are sentences to log.
	Parse func(content []byte) (targets []settings.Target, warnings []string, err error)
	// Set takes the targets, or says which of their settings cannot be used.
	Set func([]settings.Target) error
	// Loaded is called for each content that is new: with the targets' number, the warnings, and the error why it is not used. An error of reading is passed on once as
	// long as it stays the same. Calls do not overlap.
	Loaded func(n int, warnings []string, err error)
	// Clock reads the machine's clocks; nil is clock.System.
	Clock func() clock.Moment
}

// File is a targets file. It is safe for concurrent use.
type File struct {
	o Options

	mu      sync.Mutex // held while the file is read
	seen    [sha256.Size]byte
	failure string // why the file could not be read last; empty where it could be

	states  sync.Mutex
	loaded  bool // there are targets
	began   clock.Moment
	ever    bool
	running chan struct{} // closed when the reading in progress has ended; nil where there is none
}

// New returns a File. It reads nothing yet.
func New(o Options) *File {
	if o.Clock == nil {
		o.Clock = clock.System()
	}
	return &File{o: o}
}

// Load reads the file. The error is why there are no new targets: then the last good ones stay in use.
func (f *File) Load(ctx context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.take(f.read(ctx))
}

func (f *File) read(ctx context.Context) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, readFor)
	defer cancel()
	return f.o.Read(ctx)
}

// take uses a content that is new.
func (f *File) take(content []byte, err error) error {
	if err != nil {
		if text := err.Error(); text != f.failure {
			f.failure = text
			f.o.Loaded(0, nil, err)
		}
		return err
	}
	f.failure = ""
	sum := sha256.Sum256(content)
	if sum == f.seen {
		return nil
	}
	f.seen = sum
	targets, warnings, err := f.o.Parse(content)
	if err == nil {
		err = f.o.Set(targets)
	}
	f.o.Loaded(len(targets), warnings, err)
	if err == nil {
		f.states.Lock()
		f.loaded = true
		f.states.Unlock()
	}
	return err
}

// Watch keeps the targets the same as the file until ctx ends.
func (f *File) Watch(ctx context.Context) {
	for wait(ctx, every) {
		f.look(ctx)
	}
}

// look reads the file, and takes it where it has changed and is the same a second later.
func (f *File) look(ctx context.Context) {
	f.mu.Lock()
	defer f.mu.Unlock()
	content, err := f.read(ctx)
	for err == nil && sha256.Sum256(content) != f.seen && wait(ctx, settled) {
		var again []byte
		if again, err = f.read(ctx); err == nil && bytes.Equal(content, again) {
			break
		}
		content = again
	}
	if ctx.Err() == nil {
		_ = f.take(content, err) // Loaded gets the error
	}
}

// wait waits, and reports whether ctx has not ended.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// errNone says that there have never been targets.
var errNone = errors.New("there are no targets yet")

// Refresh reads the file again where the last reading is old, and waits for that a moment, or, where there are no targets yet, as long as ctx and the reading
// allow. The error says that there are none.
func (f *File) Refresh(ctx context.Context) error {
	f.states.Lock()
	now := f.o.Clock()
	if f.running == nil && (!f.ever || now.Since(f.began) >= old) {
		f.ever, f.began, f.running = true, now, make(chan struct{})
		go func(done chan struct{}) {
			_ = f.Load(context.WithoutCancel(ctx)) // Loaded gets the error
			f.states.Lock()
			defer f.states.Unlock()
			f.running = nil
			close(done)
		}(f.running)
	}
	running, loaded := f.running, f.loaded
	f.states.Unlock()
	if running != nil {
		var late <-chan time.Time
		if loaded {
			timer := time.NewTimer(patience)
			defer timer.Stop()
			late = timer.C
		}
		select {
		case <-running:
		case <-late:
		case <-ctx.Done():
		}
	}
	f.states.Lock()
	defer f.states.Unlock()
	if !f.loaded {
		return errNone
	}
	return nil
}
