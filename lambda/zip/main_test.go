package main

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/base64"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// maxSize is what the package may weigh: a cold start begins with fetching it.
const maxSize = 8 << 20

// TestReproducible builds twice, in surroundings that differ.
func TestReproducible(t *testing.T) {
	t.Parallel()
	// The command as it is run: without the race detector, under which compressing takes half a minute.
	program := filepath.Join(t.TempDir(), "zip")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("build the command: %v\n%s", err, out)
	}
	first, second := filepath.Join(t.TempDir(), "first.zip"), filepath.Join(t.TempDir(), "second.zip")
	said := packOnce(t, program, first)
	packOnce(t, program, second, "TMPDIR="+t.TempDir(), "GOFLAGS=-gcflags=-N", "CGO_ENABLED=1",
		"GOOS=plan9", "GOARCH=386", "GOAMD64=v3", "GOARM64=v9.0")

	content, err := os.ReadFile(first)
	if err != nil {
		t.Fatal(err)
	}
	again, err := os.ReadFile(second)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(content, again) {
		t.Error("two builds differ")
	}
	if len(content) > maxSize {
		t.Errorf("%d bytes", len(content))
	}
	sum := sha256.Sum256(content)
	if want := fmt.Sprintf("%s %d bytes, base64 SHA-256 %s\n", first, len(content), base64.StdEncoding.EncodeToString(sum[:])); said != want {
		t.Errorf("said %q, want %q", said, want)
	}

	archive, err := zip.NewReader(bytes.NewReader(content), int64(len(content)))
	if err != nil {
		t.Fatal(err)
	}
	if len(archive.File) != 1 || archive.File[0].Name != "bootstrap" || archive.File[0].Mode() != 0o755 || archive.File[0].Modified.Year() != 1980 {
		t.Fatalf("the zip holds %+v", archive.File[0].FileHeader)
	}
	entry, err := archive.File[0].Open()
	if err != nil {
		t.Fatal(err)
	}
	executable, err := io.ReadAll(entry)
	if err != nil {
		t.Fatal(err)
	}
	build, err := buildinfo.Read(bytes.NewReader(executable))
	if err != nil {
		t.Fatal(err)
	}
	settings := make(map[string]string)
	for _, s := range build.Settings {
		settings[s.Key] = s.Value
	}
	for key, want := range map[string]string{"GOOS": "linux", "GOARCH": runtime.GOARCH, "CGO_ENABLED": "0", "-trimpath": "true", "-tags": "lambda.norpc,grpcnotrace", "vcs.revision": ""} {
		if settings[key] != want {
			t.Errorf("%s is %q, want %q", key, settings[key], want)
		}
	}
}

// packOnce runs the command for this machine's architecture, and returns what it says.
func packOnce(t *testing.T, program, out string, env ...string) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.Command(program, "-arch", runtime.GOARCH, "-o", out)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil || stderr.Len() > 0 {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	return stdout.String()
}

func TestWrongArguments(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"-arch", "x86_64"}, {"-arch", ""}, {"function.zip"}, {"-no-such-flag"}} {
		var stdout, stderr bytes.Buffer
		if code := run(args, &stdout, &stderr); code != 2 || stderr.Len() == 0 || stdout.Len() > 0 {
			t.Errorf("%v: exit code %d, %q, %q", args, code, stdout.String(), stderr.String())
		}
	}
	var stdout, stderr bytes.Buffer
	if code := run([]string{"-help"}, &stdout, &stderr); code != 0 || !strings.Contains(stderr.String(), "-arch") {
		t.Errorf("-help: exit code %d, %q", code, stderr.String())
	}
}
