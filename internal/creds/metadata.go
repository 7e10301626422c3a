package creds

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"google.golang.org/grpc/metadata"

	"example.com/grpc-health-http/internal/redact"
	"example.com/grpc-health-http/internal/settings"
)

const headersSetting = "RPC_HEADERS"

// Metadata returns what to send with an RPC, as check.Options.Metadata wants it; nil where there is
// nothing. token, where not nil, gives the token of an "authorization: Bearer" header. Values in
// files must be one line of printable ASCII, white space around it aside; those of names that end in
// "-bin" are sent as they are. The result of a call must not be changed.
func Metadata(s *settings.Upstream, o Options, token func(ctx context.Context) (string, error)) func(ctx context.Context) (metadata.MD, error) {
	fixed := metadata.MD{}
	var files []*source[string] // one for each header in order; nil for a value in the settings
	changes := token != nil
	if token != nil {
		get := token
		token = func(ctx context.Context) (string, error) {
			text, err := get(ctx)
			o.Secrets.Set("ID token", text)
			return text, err
		}
	}
	for i, header := range s.Headers {
		if header.File == "" {
			fixed.Append(header.Name, header.Value)
			o.Secrets.Set(fmt.Sprintf("the value of header %d", i), redact.Header(header.Name, header.Value)...)
			files = append(files, nil)
			continue
		}
		changes = true
		files = append(files, headerFile(o, header))
	}
	switch {
	case changes:
		return func(ctx context.Context) (metadata.MD, error) {
			return gather(ctx, s.Headers, files, token)
		}
	case len(fixed) > 0:
		return func(context.Context) (metadata.MD, error) { return fixed, nil }
	default:
		return nil
	}
}

func headerFile(o Options, header settings.Header) *source[string] {
	f := file{setting: o.setting(headersSetting) + " " + header.Name, value: header.File, read: o.read, reading: new(reading)}
	return fromFile(o, HeaderValue, f, func(content []byte) (string, error) {
		value, err := content, error(nil)
		if !strings.HasSuffix(header.Name, "-bin") {
			value, err = line(f, content)
		}
		o.Secrets.Set(f.String(), redact.Header(header.Name, string(value))...)
		return string(value), err
	})
}

// gather reads all files and gets the token side by side, because each may take its time.
func gather(ctx context.Context, headers []settings.Header, files []*source[string], token func(context.Context) (string, error)) (metadata.MD, error) {
	values := make([]string, len(headers))
	errs := make([]error, len(headers))
	var reading sync.WaitGroup
	for i, header := range headers {
		if files[i] == nil {
			values[i] = header.Value
			continue
		}
		reading.Go(func() { values[i], errs[i] = files[i].get(ctx, false) })
	}
	var bearer string
	var tokenErr error
	if token != nil {
		bearer, tokenErr = token(ctx)
	}
	reading.Wait()
	if err := errors.Join(append(errs, tokenErr)...); err != nil {
		return nil, err
	}
	md := make(metadata.MD, len(headers)+1)
	for i, header := range headers {
		md.Append(header.Name, values[i])
	}
	if token != nil {
		md.Append("authorization", "Bearer "+bearer)
	}
	return md, nil
}
