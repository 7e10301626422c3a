package settings

import (
	"fmt"
	"testing"
	"time"
)

// TestHash changes each setting, those that are declared later included, and looks whether the hash changes.
func TestHash(t *testing.T) {
	t.Parallel()
	seen := map[uint64]string{new(Settings).Hash(): "nothing"}
	for i := range declaration {
		d := &declaration[i]
		name := fmt.Sprint(d.name, d.flags, d.probe)
		v := new(values)
		switch value := d.field(v).(type) {
		case *string:
			*value = "changed"
		case *bool:
			if value == &v.logToStderr {
				continue // which has no effect
			}
			*value = true
		case *int:
			*value = 1
		case *time.Duration:
			*value = 1
		case *[]string:
			*value = []string{"changed"}
		case *headerLines:
			v.Headers = []Header{{Name: "changed"}}
		default:
			t.Errorf("%s has a type that this test does not know", name)
		}
		hash := v.Settings.Hash()
		if other, ok := seen[hash]; ok {
			t.Errorf("the hash is the same with %s changed as with %s", name, other)
		}
		seen[hash] = name
		if hash != v.Settings.Hash() || hash >= 1<<48 {
			t.Errorf("%s: the hash is %d, and then %d", name, hash, v.Settings.Hash())
		}
	}
}

// Whoever may scrape the metrics could try one secret after the other against a hash that has a part of them.
func TestHashHasNoSecret(t *testing.T) {
	t.Parallel()
	hash := func(change func(*Settings)) uint64 {
		s := new(Settings)
		s.Addr = "dns://10.0.0.53/upstream:443"
		s.Headers = []Header{{Name: "x-key", Value: "one"}}
		s.ClientKey, s.HTTPSKey = "-----BEGIN PRIVATE KEY-----\none", "-----BEGIN PRIVATE KEY-----\none"
		change(s)
		return s.Hash()
	}
	before := hash(func(*Settings) {})
	for name, change := range map[string]func(*Settings){
		"header":                   func(s *Settings) { s.Headers[0].Value = "another" },
		"client key":               func(s *Settings) { s.ClientKey = "-----BEGIN PRIVATE KEY-----\nanother" },
		"listener's key":           func(s *Settings) { s.HTTPSKey = "-----BEGIN PRIVATE KEY-----\nanother" },
		"address with a password":  func(s *Settings) { s.Addr = "dns://user:secret@10.0.0.53/upstream:443" },
		"address with a user only": func(s *Settings) { s.Addr = "dns://token@10.0.0.53/upstream:443" },
	} {
		if hash(change) != before {
			t.Errorf("%s: its secret has a part in the hash", name)
		}
	}
	for name, change := range map[string]func(*Settings){
		"header's name":  func(s *Settings) { s.Headers[0].Name = "x-other" },
		"header's file":  func(s *Settings) { s.Headers[0] = Header{Name: "x-key", File: "/etc/key"} },
		"another header": func(s *Settings) { s.Headers = append(s.Headers, Header{Name: "x-more", Value: "one"}) },
		"path of a key":  func(s *Settings) { s.ClientKey = "/etc/tls/tls.key" },
	} {
		if hash(change) == before {
			t.Errorf("%s: the hash does not change", name)
		}
	}
	two, one := hash(func(s *Settings) { s.Services = []string{"a", "b"} }), hash(func(s *Settings) { s.Services = []string{"a b"} })
	if two == one {
		t.Error("two services have the hash of one with a space")
	}
}

func TestShownAddr(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string]string{
		"grpc.example.com:443":                    "grpc.example.com:443",
		"[::1]:443":                               "[::1]:443",
		"dns:///grpc.example.com:443":             "dns:///grpc.example.com:443",
		"dns://10.0.0.53/grpc.example.com:443":    "dns://10.0.0.53/grpc.example.com:443",
		"dns://u:p@10.0.0.53:53/grpc.example.com": "dns://10.0.0.53:53/grpc.example.com",
		"passthrough://u:p@w@h/127.0.0.1:1":       "passthrough://h/127.0.0.1:1",
		"unix:///run/user@1000/grpc.sock":         "unix:///run/user@1000/grpc.sock",
		"unix:relative@a.sock":                    "unix:relative@a.sock",
		"unix-abstract:name@host":                 "unix-abstract:name@host",
		"dns:///path@host:1":                      "dns:///path@host:1",
	} {
		if got := (&Upstream{Addr: addr}).ShownAddr(); got != want {
			t.Errorf("%s is shown as %s, want %s", addr, got, want)
		}
	}
}
