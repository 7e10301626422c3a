package web

import (
	"errors"
	"net/http"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"example.com/grpc-health-http/internal/asker"
	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/internal/memory"
)

// Each field of a verdict is a part of the key, in every format: one that is forgotten would let callers have the answer of others.
func TestBodyKeyHasAllOfAVerdict(t *testing.T) {
	t.Parallel()
	one := health.Verdict{
		Target: "t", Service: "s", LeftOut: 1, Status: health.Serving, Code: 1, Phase: "p", Duration: 1,
		At: time.Unix(1, 1), Since: time.Unix(1, 1), EvidenceID: "e", Err: errors.New("e"),
		Addresses: &health.Addresses{Needed: 1, All: []health.AddressVerdict{{Address: "a", Asked: true, Code: 1, Phase: "p", Duration: 1, Err: errors.New("e")}}},
	}
	fleet := asker.NewFleet(nil, true, time.Unix(1, 0))
	for _, f := range []format{formatText, formatJSON, formatHTML} {
		key := func(verdicts ...health.Verdict) bodyKey {
			return newBodyKey(f, query{}, asker.Answer{Verdicts: verdicts, Fleet: fleet}, shown{now: time.Unix(2, 0)})
		}
		keys := map[bodyKey]string{key(): "no verdict", key(one): "one", key(one, one): "two"}
		add := func(what string, v health.Verdict) {
			k := key(v)
			if other, taken := keys[k]; taken {
				t.Errorf("%s: %s has the same key as %s", f, what, other)
			}
			keys[k] = what
		}
		for i := range reflect.TypeFor[health.Verdict]().NumField() {
			field := reflect.TypeFor[health.Verdict]().Field(i)
			other := one
			value := reflect.ValueOf(&other).Elem().Field(i)
			switch v := value.Interface().(type) {
			case time.Time:
				value.Set(reflect.ValueOf(v.Add(1)))
				add(field.Name+" later", other)
				value.Set(reflect.ValueOf(time.Time{}))
			case *health.Addresses:
				last := one.Addresses
				for what, change := range map[string]func(*health.Addresses){
					"none":        func(a *health.Addresses) { a.All = nil },
					"another":     func(a *health.Addresses) { a.All[0].Address = "b" },
					"its status":  func(a *health.Addresses) { a.All[0].Status = health.Timeout },
					"its code":    func(a *health.Addresses) { a.All[0].Code = 2 },
					"its phase":   func(a *health.Addresses) { a.All[0].Phase = "q" },
					"its time":    func(a *health.Addresses) { a.All[0].Duration = 2 },
					"its cause":   func(a *health.Addresses) { a.All[0].Err = errors.New("f") },
					"its route":   func(a *health.Addresses) { a.All[0].NoRoute = true },
					"the needed":  func(a *health.Addresses) { a.Needed = 2 },
					"the missing": func(a *health.Addresses) { a.LeftOut = 1 },
				} {
					changed := *last
					changed.All = slices.Clone(last.All)
					change(&changed)
					other.Addresses = &changed
					add("Addresses: "+what, other)
				}
				value.SetZero()
			case error:
				value.Set(reflect.ValueOf(errors.New("f")))
				add(field.Name+" else", other)
				value.SetZero()
			default:
				switch value.Kind() {
				case reflect.String:
					value.SetString(value.String() + "x")
				case reflect.Bool:
					value.SetBool(!value.Bool())
				case reflect.Uint32:
					value.SetUint(value.Uint() + 1)
				default:
					value.SetInt(value.Int() + 1)
				}
			}
			add(field.Name, other)
		}
		// What is moved from one text to the next is not the same.
		moved := one
		moved.Target, moved.Service = "ts", ""
		add("a name that moved", moved)
	}
}

// So is all that a page shows beside the verdicts.
func TestBodyKeyHasAllThatAPageShows(t *testing.T) {
	t.Parallel()
	at := time.Unix(1000, 0)
	verdicts := []health.Verdict{{Service: "s", At: at}, {Service: "u", At: at}}
	keys := make(map[bodyKey]string)
	for what, s := range map[string]shown{
		"nothing":               {},
		"more rows":             {tally: tally{rows: 1}},
		"more that serve":       {tally: tally{serving: 1}},
		"groups":                {tally: tally{groups: true}},
		"a certificate":         {certificate: pageCertificate{Text: "text"}},
		"another one":           {certificate: pageCertificate{Tone: "text"}},
		"its end":               {certificate: pageCertificate{Ends: at}},
		"its target":            {certificate: pageCertificate{Of: "text"}},
		"strips":                {kept: kept{strips: []string{"gg", "b"}}},
		"other strips":          {kept: kept{strips: []string{"gg", "u"}}},
		"strips that moved":     {kept: kept{strips: []string{"g", "gb"}}},
		"a history":             {kept: kept{all: []past{{at: at}}}},
		"another status":        {kept: kept{all: []past{{at: at, status: health.Serving}}}},
		"another time":          {kept: kept{all: []past{{at: at.Add(1)}}}},
		"the age of a summary":  {now: at.Add(time.Hour)},
		"the age after a while": {now: at.Add(2 * time.Hour)},
	} {
		k := newBodyKey(formatHTML, query{}, asker.Answer{Verdicts: verdicts, Summary: true, Fleet: asker.NewFleet(nil, true, at)}, s)
		if other, taken := keys[k]; taken {
			t.Errorf("%s has the same key as %s", what, other)
		}
		keys[k] = what
	}
	// The targets file can put a target into another group between two answers with the same verdicts.
	targets := []health.Verdict{{Target: "s", At: at}, {Target: "u", At: at}}
	for what, groups := range map[string][2]string{"no group": {}, "one": {"a", ""}, "the other": {"", "a"}, "another": {"b", ""}} {
		fleet := asker.NewFleet([]*asker.Upstream{{Name: "s", Group: groups[0]}, {Name: "u", Group: groups[1]}}, true, at)
		k := newBodyKey(formatHTML, query{}, asker.Answer{Verdicts: targets, Fleet: fleet}, shown{})
		if other, taken := keys[k]; taken {
			t.Errorf("%s has the same key as %s", what, other)
		}
		keys[k] = what
	}
}

// A body that cannot be made is nobody's: those who wait for it end as who makes it does, and the next one is made anew.
func TestBodyThatCannotBeMade(t *testing.T) {
	t.Parallel()
	var s sharing
	share := memory.NewShare(100)
	first, mine := s.take(bodyKey{1}, 60, share)
	second, others := s.take(bodyKey{1}, 60, share)
	if !mine || others || first != second || share.Used() != 60 {
		t.Fatalf("mine %v, %v, %d bytes", mine, others, share.Used())
	}
	if b, _ := s.take(bodyKey{2}, 60, share); b != nil {
		t.Error("there is memory for another one")
	}
	recovered := func(f func()) (p any) {
		defer func() { p = recover() }()
		f()
		return nil
	}
	var waiting sync.WaitGroup
	waiting.Go(func() {
		defer s.leave(second, share)
		if p := recovered(func() { second.wait() }); p != http.ErrAbortHandler {
			t.Errorf("who waits: %v", p)
		}
	})
	if p := recovered(func() {
		defer s.leave(first, share)
		s.make(first, share, func() []byte { panic("broken") })
	}); p != "broken" {
		t.Errorf("who makes it: %v", p)
	}
	waiting.Wait()
	if n := share.Used(); n != 0 || len(s.bodies) != 0 {
		t.Errorf("%d bytes and %d bodies are kept", n, len(s.bodies))
	}
	again, mine := s.take(bodyKey{1}, 60, share)
	if !mine {
		t.Fatal("a body that could not be made is there")
	}
	s.make(again, share, func() []byte { return []byte("body") })
	if got := string(again.wait().body); got != "body" || share.Used() != 4 {
		t.Errorf("%q, %d bytes", got, share.Used())
	}
	s.leave(again, share)
	if n := share.Used(); n != 0 || len(s.bodies) != 0 {
		t.Errorf("%d bytes and %d bodies are kept", n, len(s.bodies))
	}
}
