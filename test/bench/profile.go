//go:build linux

package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// profilePath is where the compiler looks for the profile, from the module's root
// (https://go.dev/doc/pgo).
const profilePath = "cloudrun/default.pgo"

// profiled is the source that is added to grpc_health_proxy for the profile alone.
//
//go:embed profiled.go.txt
var profiled []byte

// profile measures where grpc_health_proxy spends its time, under the loads that sharing is for and
// with one caller, and writes that down for the compiler.
func (b *bench) profile(ctx context.Context) error {
	program, err := b.buildProfiled(ctx)
	if err != nil {
		return err
	}
	b.programs.proxy = program
	var parts []string
	for i, c := range []cell{{plain, 1, ours}, {plain, 64, ours}, {plain, 512, ours}, {mutualBoth, 64, ours}} {
		part := filepath.Join(b.programs.dir, fmt.Sprintf("%d.pprof", i))
		if err := b.profileUnder(ctx, c, part); err != nil {
			return err
		}
		parts = append(parts, part)
	}
	args := slices.Concat([]string{"tool", "pprof", "-proto", "-output", profilePath}, parts)
	if out, err := exec.CommandContext(ctx, "go", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("merge the profiles: %w\n%s", err, out)
	}
	fmt.Fprintln(b.out, profilePath)
	return nil
}

// buildProfiled builds grpc_health_proxy with the additional file, which never lies in its directory.
func (b *bench) buildProfiled(ctx context.Context) (string, error) {
	added := filepath.Join(b.programs.dir, "profiled.go")
	if err := os.WriteFile(added, profiled, 0o600); err != nil {
		return "", fmt.Errorf("write what is added: %w", err)
	}
	in, err := filepath.Abs("cloudrun/profiled.go")
	if err != nil {
		return "", fmt.Errorf("find cloudrun: %w", err)
	}
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{in: added}})
	if err != nil {
		return "", err
	}
	list := filepath.Join(b.programs.dir, "overlay.json")
	if err := os.WriteFile(list, overlay, 0o600); err != nil {
		return "", fmt.Errorf("write what is added: %w", err)
	}
	program := filepath.Join(b.programs.dir, "profiled")
	return program, compile(ctx, program, "cloudrun", append(slices.Clone(shipped), "-pgo=off", "-overlay", list))
}

// profileUnder writes the profile of one load to path.
func (b *bench) profileUnder(ctx context.Context, c cell, path string) error {
	config, err := b.certificates.upstream(c.transport)
	if err != nil {
		return err
	}
	u, err := newUpstream(config, 0)
	if err != nil {
		return err
	}
	defer u.stop()
	s, err := b.start(ctx, c.kind, c.transport, u, "CPU_PROFILE="+path)
	if err != nil {
		return err
	}
	defer s.stop()
	if config, err = b.certificates.caller(c.transport); err != nil {
		return err
	}
	const window = 5 * time.Second
	if _, err := newLoad(s.addr, config, "/", serving).measure(ctx, s, u, c.callers, window); err != nil {
		return err
	}
	// The profile is complete when the server has ended.
	return errors.Join(s.cmd.Process.Signal(syscall.SIGUSR1), s.cmd.Wait())
}
