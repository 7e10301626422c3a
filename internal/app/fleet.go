package app

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"example.com/grpc-health-http/internal/asker"
	"example.com/grpc-health-http/internal/settings"
)

// fleet is the upstreams of an App. Those that change are replaced; the others keep their connections and what is known about them.
type fleet struct {
	settings *settings.Settings
	platform Platform
	named    bool // they are those of a targets file

	changing sync.Mutex
	current  atomic.Pointer[snapshot] // nil before the first targets
}

// snapshot is the fleet at a moment. It does not change.
type snapshot struct {
	*asker.Fleet
	upstreams []*Upstream
	began     time.Time
}

// changes are the names of targets that a reading of the file has changed.
type changes struct{ added, changed, removed []string }

// set makes the fleet that of the targets. An error is one of the settings of a target; then nothing changes.
func (f *fleet) set(targets []settings.Target) (changes, error) {
	f.changing.Lock()
	defer f.changing.Unlock()
	var c changes
	before := make(map[string]*Upstream)
	next := &snapshot{began: time.Now()}
	if current := f.current.Load(); current != nil {
		next.began = current.began
		for _, u := range current.upstreams {
			before[u.ask.Name] = u
		}
	}
	var made []*Upstream
	var problems []string
	for i := range targets {
		t := &targets[i]
		if u := before[t.Name]; u != nil && u.Target().Equal(t) {
			delete(before, t.Name)
			next.upstreams = append(next.upstreams, u)
			continue
		}
		var like *Upstream
		if n := len(next.upstreams); n > 0 {
			like = next.upstreams[n-1]
		}
		u, err := newUpstream(t, f.settings, f.platform, like)
		if err != nil {
			for line := range strings.Lines(err.Error()) {
				problems = append(problems, strings.TrimSuffix(f.place(t)+line, "\n"))
			}
			continue
		}
		if before[t.Name] != nil {
			c.changed = append(c.changed, t.Name)
		} else {
			c.added = append(c.added, t.Name)
		}
		made = append(made, u)
		next.upstreams = append(next.upstreams, u)
	}
	if len(problems) > 0 {
		for _, u := range made {
			u.close()
		}
		return changes{}, errors.New(strings.Join(problems, "\n"))
	}
	asked := make([]*asker.Upstream, len(next.upstreams))
	for i, u := range next.upstreams {
		asked[i] = &u.ask
	}
	next.Fleet = asker.NewFleet(asked, f.named, next.began)
	f.current.Store(next)
	for name, u := range before { // checks in progress are not ended
		if !slices.Contains(c.changed, name) {
			c.removed = append(c.removed, name)
		}
		u.close()
	}
	slices.Sort(c.removed)
	return c, nil
}

// place says which target a problem is of.
func (f *fleet) place(t *settings.Target) string {
	if !f.named {
		return ""
	}
	return fmt.Sprintf("target %s: ", t.Name)
}

// now is asker.Options' Fleet.
func (f *fleet) now(context.Context) *asker.Fleet {
	if s := f.current.Load(); s != nil {
		return s.Fleet
	}
	return nil
}

// all are the upstreams.
func (f *fleet) all() []*Upstream {
	if s := f.current.Load(); s != nil {
		return slices.Clone(s.upstreams)
	}
	return nil
}
