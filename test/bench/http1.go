//go:build linux

package main

import (
	"bytes"
	"fmt"
)

// http1 asks with GET over HTTP/1.1.
type http1 struct {
	asks []byte
	body string // of the right answer
}

func (h http1) request() ([]byte, error) { return h.asks, nil }

// arrived reads no more of HTTP than it must.
func (h http1) arrived(held []byte) (used int, whole bool, err error) {
	header := bytes.Index(held, []byte("\r\n\r\n"))
	if header < 0 || len(held) < header+len("\r\n\r\n")+len(h.body) {
		return 0, false, nil
	}
	if !bytes.HasPrefix(held, []byte("HTTP/1.1 200 ")) || string(held[header+len("\r\n\r\n"):]) != h.body {
		return 0, true, fmt.Errorf("a wrong answer: %q", held)
	}
	return len(held), true, nil
}
