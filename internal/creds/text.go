package creds

import (
	"bytes"
	"context"
	"crypto/sha256"
)

// text holds what parse makes of one file's content.
func text[T any](o Options, what Material, f file, parse func(content []byte) (T, error)) *held[T] {
	return newHeld(o, what, f.String(), func(ctx context.Context, held digest) (T, digest, error) {
		var none T
		content, err := f.content(ctx)
		if err != nil {
			return none, digest{}, err
		}
		found := digest(sha256.Sum256(content))
		if found == held {
			return none, found, nil
		}
		value, err := parse(content)
		return value, found, err
	})
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
