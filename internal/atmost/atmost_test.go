package atmost_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"example.com/grpc-health-http/internal/atmost"
)

func TestReader(t *testing.T) {
	t.Parallel()
	for length, long := range map[int]bool{0: false, 1: false, 1023: false, 1024: false, 1025: true, 4096: true} {
		text := bytes.Repeat([]byte("x"), length)
		for name, wrap := range map[string]func(io.Reader) io.Reader{
			"at once": func(r io.Reader) io.Reader { return r }, "a byte each": iotest.OneByteReader, "the end with the data": iotest.DataErrReader,
		} {
			r := atmost.Reader(wrap(bytes.NewReader(text)), 1024)
			got, err := io.ReadAll(r)
			want, isLong := min(length, 1024), errors.As(err, new(*atmost.TooLong))
			if len(got) != want || isLong != long || err != nil && !long {
				t.Errorf("%d bytes, %s: %d, %v", length, name, len(got), err)
			}
			if _, again := r.Read(make([]byte, 10)); long && !errors.As(again, new(*atmost.TooLong)) {
				t.Errorf("%d bytes, %s: then %v", length, name, again)
			}
		}
	}
	if got := (&atmost.TooLong{Limit: 64 << 10}).Error(); got != "it is longer than 64 KiB" {
		t.Error(got)
	}
}

func TestFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, size := range map[string]int{"empty": 0, "small": 10, "largest": atmost.FileLimit, "too large": atmost.FileLimit + 1} {
		path := filepath.Join(dir, name)
		content := bytes.Repeat([]byte("x"), size)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := atmost.File(path)
		if size > atmost.FileLimit {
			if err == nil || !strings.HasSuffix(err.Error(), "/too large: it is longer than 4 MiB") {
				t.Errorf("%s: %v", name, err)
			}
		} else if err != nil || !bytes.Equal(got, content) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
	if _, err := atmost.File(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if _, err := atmost.File(dir); !errors.As(err, new(*fs.PathError)) {
		t.Errorf("a directory: %v", err)
	}
}

// Files that have no size, or no end.
func TestSpecialFiles(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("there is /dev/zero, and so on")
	}
	t.Parallel()
	if got, err := atmost.File("/dev/null"); err != nil || len(got) != 0 {
		t.Errorf("/dev/null: %q, %v", got, err)
	}
	if got, err := atmost.File("/proc/self/status"); err != nil || !bytes.Contains(got, []byte("Pid:")) {
		t.Errorf("/proc/self/status: %q, %v", got, err)
	}
	for _, name := range []string{"/dev/zero", "/dev/urandom"} {
		if _, err := atmost.File(name); !errors.As(err, new(*atmost.TooLong)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for n := 0; r.URL.Path == "/endless" || n < 1024; n += 512 {
			if _, err := w.Write(make([]byte, 512)); err != nil {
				return
			}
		}
	}))
	t.Cleanup(server.Close)
	client := http.Client{Transport: atmost.Answers(http.DefaultTransport, 1024)}
	for path, long := range map[string]bool{"/": false, "/endless": true} {
		response, err := client.Get(server.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(response.Body)
		if len(got) != 1024 || errors.As(err, new(*atmost.TooLong)) != long {
			t.Errorf("%s: %d bytes, %v", path, len(got), err)
		}
		response.Body.Close()
	}
}
