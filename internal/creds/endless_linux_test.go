package creds

import (
	"context"
	"strings"
	"testing"

	"example.com/grpc-health-http/internal/settings"
)

// A setting that names a file without an end is an error that says so, whatever the file is for.
func TestFilesWithoutEnd(t *testing.T) {
	t.Parallel()
	const endless = "/dev/zero"
	var o Options
	for name, load := range map[string]func(context.Context) error{
		"roots": func(ctx context.Context) error {
			roots, err := o.roots(UpstreamRoots, "CA_CERT", endless)
			if err != nil {
				return err
			}
			_, err = roots.get(ctx, false)
			return err
		},
		"certificate and key": func(ctx context.Context) error {
			pair, err := o.pair(ClientCertificate, "CLIENT_CERT", endless, "CLIENT_KEY", endless)
			if err != nil {
				return err
			}
			_, err = pair.get(ctx, false)
			return err
		},
		"header": func(ctx context.Context) error {
			_, err := headerFile(o, settings.Header{Name: "x", File: endless}).get(ctx, false)
			return err
		},
		"binary header": func(ctx context.Context) error {
			_, err := headerFile(o, settings.Header{Name: "x-bin", File: endless}).get(ctx, false)
			return err
		},
		"token": func(ctx context.Context) error {
			_, err := Token(&settings.Settings{Process: settings.Process{AuthTokenFile: endless}}, o)(ctx, "presented")
			return err
		},
	} {
		if err := load(t.Context()); err == nil || !strings.Contains(err.Error(), ": it is longer than 4 MiB") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
