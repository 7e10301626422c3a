// Command zip builds the deployment package of the Lambda function. The same source and the same Go
// release make the same bytes, wherever it runs.
package main

import (
	"archive/zip"
	"bytes"
	"compress/flate"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"
)

const source = "example.com/grpc-health-http/lambda"

// binary is the name that the runtime provided.al2023 starts.
const binary = "bootstrap"

// architectures are Lambda's, by their Go names; each has the oldest processors that it runs on.
var architectures = map[string]string{
	"amd64": "GOAMD64=v1",
	"arm64": "GOARM64=v8.0",
}

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("zip", flag.ContinueOnError)
	flags.SetOutput(stderr)
	arch := flags.String("arch", "arm64", "the function's architecture: arm64 or amd64 (which Lambda calls x86_64)")
	out := flags.String("o", "", "the `file` to write (default grpc-health-lambda-ARCH.zip)")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	case flags.NArg() > 0 || architectures[*arch] == "":
		fmt.Fprintln(stderr, "write -arch arm64 or -arch amd64, and no arguments (-help lists the flags)")
		return 2
	}
	if *out == "" {
		*out = "grpc-health-lambda-" + *arch + ".zip"
	}
	content, err := build(*arch, stderr)
	if err == nil {
		err = os.WriteFile(*out, content, 0o644)
	}
	if err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	sum := sha256.Sum256(content)
	// The form of the sum is that of Terraform's source_code_hash and of Lambda's CodeSha256.
	fmt.Fprintf(stdout, "%s %d bytes, base64 SHA-256 %s\n", *out, len(content), base64.StdEncoding.EncodeToString(sum[:]))
	return 0
}

// build compiles the function and packs it. What the compiler has to say goes to stderr.
func build(arch string, stderr io.Writer) ([]byte, error) {
	dir, err := os.MkdirTemp("", "lambda")
	if err != nil {
		return nil, fmt.Errorf("make a directory to build in: %w", err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, binary)
	// lambda.norpc leaves out a runtime that is gone; grpcnotrace takes 3 MB off.
	cmd := exec.Command("go", "build", "-o", path, "-trimpath", "-buildvcs=false",
		"-tags=lambda.norpc,grpcnotrace", "-ldflags=-s -w", source)
	// The last value of a variable counts: nothing of the caller's gets into the binary.
	cmd.Env = append(slices.Clone(os.Environ()),
		"GOOS=linux", "GOARCH="+arch, architectures[arch], "CGO_ENABLED=0", "GOFLAGS=", "GOEXPERIMENT=", "GOFIPS140=off")
	cmd.Stderr = stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("build the function: %w", err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read what was built: %w", err)
	}
	return pack(content)
}

// pack makes a zip of an executable, with a time that is always the same.
func pack(executable []byte) ([]byte, error) {
	var packed bytes.Buffer
	w := zip.NewWriter(&packed)
	w.RegisterCompressor(zip.Deflate, func(to io.Writer) (io.WriteCloser, error) {
		return flate.NewWriter(to, flate.BestCompression)
	})
	header := &zip.FileHeader{Name: binary, Method: zip.Deflate, Modified: time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)}
	header.SetMode(0o755)
	entry, err := w.CreateHeader(header)
	if err != nil {
		return nil, fmt.Errorf("pack: %w", err)
	}
	if _, err := entry.Write(executable); err != nil {
		return nil, fmt.Errorf("pack: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("pack: %w", err)
	}
	return packed.Bytes(), nil
}
