// Package atmost reads what others wrote, and no more of it than a limit: a file or an answer that has no end costs no memory and no
// time, and is an error that says so.
package atmost

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
)

// FileLimit is the most that is read of a file that a setting names, in bytes: the certificates of all public authorities have a
// quarter of a megabyte.
const FileLimit = 4 << 20

// TooLong is the error of what is longer than a limit.
type TooLong struct {
	Limit int64 // in bytes
}

func (e *TooLong) Error() string {
	if e.Limit%(1<<20) == 0 {
		return fmt.Sprintf("it is longer than %d MiB", e.Limit>>20)
	}
	return fmt.Sprintf("it is longer than %d KiB", e.Limit>>10)
}

// File is os.ReadFile, with the error TooLong in an fs.PathError for more than FileLimit.
func File(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var content bytes.Buffer
	if info, err := f.Stat(); err == nil { // without a size the buffer grows
		content.Grow(int(min(info.Size(), FileLimit)) + bytes.MinRead)
	}
	if _, err := content.ReadFrom(Reader(f, FileLimit)); err != nil {
		if long, ok := err.(*TooLong); ok {
			err = &fs.PathError{Op: "read", Path: name, Err: long}
		}
		return nil, err
	}
	return content.Bytes(), nil
}

// Reader reads from r, and has the error TooLong in place of what is beyond the limit, in bytes.
func Reader(r io.Reader, limit int64) io.Reader { return &reader{r, limit, limit} }

type reader struct {
	io.Reader
	limit, left int64 // left is negative once it was too long
}

func (r *reader) Read(p []byte) (int, error) {
	if r.left < 0 {
		return 0, &TooLong{r.limit}
	}
	if int64(len(p)) > r.left+1 { // one byte more shows what is longer than the limit
		p = p[:r.left+1]
	}
	n, err := r.Reader.Read(p)
	r.left -= int64(n)
	if r.left < 0 {
		return n - 1, &TooLong{r.limit}
	}
	return n, err
}

// Answers makes requests with a RoundTripper, and reads the body of an answer as Reader does.
func Answers(next http.RoundTripper, limit int64) http.RoundTripper { return answers{next, limit} }

type answers struct {
	http.RoundTripper
	limit int64
}

func (a answers) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := a.RoundTripper.RoundTrip(r)
	if err == nil {
		response.Body = struct {
			io.Reader
			io.Closer
		}{Reader(response.Body, a.limit), response.Body}
	}
	return response, err
}
