//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
)

const module = "example.com/grpc-health-http"

// shipped are the flags that the Dockerfile builds with.
var shipped = []string{"-trimpath", "-tags", "grpcnotrace", "-ldflags", "-s -w"}

// programs are the paths of what is measured.
type programs struct {
	dir                                             string // all that the bench writes is here
	proxy, peers, relay, probe, least, swarm, certs string
	nginx                                           string // "" where it is not installed
}

// build compiles what is measured, into a new directory. The flags are those of go build.
func build(ctx context.Context, flags []string) (programs, error) {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return programs{}, fmt.Errorf("make a directory to build in: %w", err)
	}
	p := programs{dir: dir, nginx: findNginx()}
	for _, b := range []struct {
		path   *string
		source string
	}{
		{&p.proxy, "cloudrun"}, {&p.peers, "test/bench"}, {&p.relay, "test/bench/relay"}, {&p.probe, "probe"}, {&p.least, "test/bench/least"}, {&p.swarm, "test/bench/swarm"}, {&p.certs, "example/certs"},
	} {
		*b.path = filepath.Join(dir, filepath.Base(b.source))
		if err := compile(ctx, *b.path, b.source, flags); err != nil {
			os.RemoveAll(dir)
			return programs{}, err
		}
	}
	return p, nil
}

func compile(ctx context.Context, path, source string, flags []string) error {
	args := slices.Concat([]string{"build", "-o", path}, flags, []string{module + "/" + source})
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", source, err, out)
	}
	return nil
}
