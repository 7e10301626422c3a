package creds

import (
	"context"
	"encoding/base64"
	"errors"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"google.golang.org/grpc/metadata"

	"example.com/grpc-health-http/internal/redact"
	"example.com/grpc-health-http/internal/settings"
)

func wantMetadata(t *testing.T, get func(context.Context) (metadata.MD, error), want metadata.MD) {
	t.Helper()
	got, err := get(t.Context())
	if err != nil {
		t.Fatalf("metadata: %v", err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("metadata %v, want %v", got, want)
	}
}

func TestNoMetadata(t *testing.T) {
	t.Parallel()
	if Metadata(&settings.Upstream{}, Options{}, nil) != nil {
		t.Error("there is metadata, want none")
	}
}

func TestFixedMetadata(t *testing.T) { // not parallel, for it counts allocations
	get := Metadata(&settings.Upstream{Headers: []settings.Header{
		{Name: "a", Value: "1"}, {Name: "b", Value: "2"}, {Name: "a", Value: "3"}, {Name: "empty"},
	}}, Options{}, nil)
	wantMetadata(t, get, metadata.MD{"a": {"1", "3"}, "b": {"2"}, "empty": {""}})
	ctx := t.Context()
	if n := testing.AllocsPerRun(100, func() { _, _ = get(ctx) }); n != 0 {
		t.Errorf("%v allocations a call, want none", n)
	}
}

// The values of files are secrets, the one before the last rotation too.
func TestSecretsOfMetadata(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	key, binary := filepath.Join(dir, "key"), filepath.Join(dir, "binary")
	write(t, key, []byte("Bearer t0ken-1\n"))
	write(t, binary, []byte("\x00\xffbinary\n"))
	o, c, _ := newOptions()
	o.Secrets = new(redact.Secrets)
	id := "id.t0ken.1"
	get := Metadata(&settings.Upstream{Headers: []settings.Header{
		{Name: "x-key", Value: "fixed-value"}, {Name: "authorization", File: key}, {Name: "x-bin", File: binary},
	}}, o, func(context.Context) (string, error) { return id, nil })
	load := func() {
		t.Helper()
		if _, err := get(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	load()
	write(t, key, []byte("Bearer t0ken-2"))
	id = "id.t0ken.2"
	c.advance(stale)
	load()
	text := "fixed-value, t0ken-1, t0ken-2, id.t0ken.1, id.t0ken.2, " + base64.StdEncoding.EncodeToString([]byte("\x00\xffbinary\n"))
	if got, want := o.Secrets.Text(text), strings.TrimSuffix(strings.Repeat("(redacted), ", 6), ", "); got != want {
		t.Errorf("%q of %q", got, text)
	}
}

func TestMetadataFromFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	key, binary := filepath.Join(dir, "key"), filepath.Join(dir, "binary")
	write(t, key, []byte("\n first key \r\n"))
	write(t, binary, []byte("\x00\xff\n"))
	o, c, e := newOptions()
	get := Metadata(&settings.Upstream{Headers: []settings.Header{
		{Name: "x-key", Value: "fixed"}, {Name: "x-key", File: key}, {Name: "x-bin", File: binary},
	}}, o, nil)
	wantMetadata(t, get, metadata.MD{"x-key": {"fixed", "first key"}, "x-bin": {"\x00\xff\n"}})

	write(t, key, []byte("second"))
	wantMetadata(t, get, metadata.MD{"x-key": {"fixed", "first key"}, "x-bin": {"\x00\xff\n"}})
	c.advance(stale)
	wantMetadata(t, get, metadata.MD{"x-key": {"fixed", "second"}, "x-bin": {"\x00\xff\n"}})
	wantReload(t, e, HeaderValue, "")

	write(t, key, nil)
	c.advance(stale)
	wantMetadata(t, get, metadata.MD{"x-key": {"fixed", "second"}, "x-bin": {"\x00\xff\n"}})
	wantReload(t, e, HeaderValue, "RPC_HEADERS x-key "+key+": is empty")
}

func TestMetadataErrors(t *testing.T) {
	t.Parallel()
	const secret = "hunter2-hunter2"
	path := filepath.Join(t.TempDir(), "key")
	for _, test := range []struct{ name, content, want string }{
		{"empty", " \n", "is empty"},
		{"two lines", secret + "\n" + secret, "something else than one line of printable ASCII"},
		{"control character", secret + "\x00" + secret, "something else than one line of printable ASCII"},
		{"not ASCII", secret + "é" + secret, "something else than one line of printable ASCII"},
	} {
		t.Run(test.name, func(t *testing.T) {
			write(t, path, []byte(test.content))
			md, err := Metadata(&settings.Upstream{Headers: []settings.Header{{Name: "x-key", File: path}}}, Options{}, nil)(t.Context())
			wantError(t, err, "RPC_HEADERS x-key "+path+": ", test.want)
			if md != nil || strings.Contains(err.Error(), secret) {
				t.Errorf("error %q holds the value, or metadata came with it", err)
			}
		})
	}
}

func TestMetadataWithToken(t *testing.T) {
	t.Parallel()
	failure := error(nil)
	token := func(context.Context) (string, error) { return "abc.def.ghi", failure }
	get := Metadata(&settings.Upstream{Headers: []settings.Header{{Name: "a", Value: "1"}}}, Options{}, token)
	want := metadata.MD{"a": {"1"}, "authorization": {"Bearer abc.def.ghi"}}
	wantMetadata(t, get, want)
	wantMetadata(t, get, want) // not a second one in the same metadata
	wantMetadata(t, Metadata(&settings.Upstream{}, Options{}, token), metadata.MD{"authorization": {"Bearer abc.def.ghi"}})

	failure = errors.New("no token")
	md, err := get(t.Context())
	if !errors.Is(err, failure) || md != nil {
		t.Errorf("metadata %v, error %v; want the token's error", md, err)
	}
}
