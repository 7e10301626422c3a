package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

var allFiles = []string{
	"CA_crt.pem",
	"client_crt.pem", "client_key.pem",
	"grpc_server_crt.pem", "grpc_server_key.pem",
	"http_server_crt.pem", "http_server_key.pem",
	"proxy_client_crt.pem", "proxy_client_key.pem",
}

func generated(t *testing.T, args ...string) (dir, stdout string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "made", "here")
	var out, errs bytes.Buffer
	if code := run(append([]string{"-dir", dir}, args...), &out, &errs); code != 0 {
		t.Fatalf("exit code %d: %s", code, &errs)
	}
	if errs.Len() > 0 {
		t.Errorf("on standard error: %s", &errs)
	}
	return dir, out.String()
}

func listed(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func read(t *testing.T, dir, name string) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func TestWritesWhatItPrintsAndNothingElse(t *testing.T) {
	t.Parallel()
	dir, stdout := generated(t)
	if got := listed(t, dir); !slices.Equal(got, allFiles) {
		t.Errorf("got %q, want %q", got, allFiles)
	}
	printed := strings.Fields(stdout)
	slices.Sort(printed)
	for i, name := range allFiles {
		if i >= len(printed) || printed[i] != filepath.Join(dir, name) {
			t.Fatalf("printed %q", printed)
		}
	}
	for _, name := range allFiles {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		want := os.FileMode(0o644)
		if strings.HasSuffix(name, "_key.pem") {
			want = 0o600
		}
		if runtime.GOOS != "windows" && info.Mode().Perm() != want {
			t.Errorf("%s: mode %v, want %v", name, info.Mode().Perm(), want)
		}
	}
}

func TestCertificatesFitTheirPurpose(t *testing.T) {
	t.Parallel()
	const days = 10
	before := time.Now()
	dir, _ := generated(t, "-days", "10")
	after := time.Now()
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(read(t, dir, "CA_crt.pem")) {
		t.Fatal("no CA certificate")
	}
	serials := make(map[string]bool)
	for _, c := range []struct {
		name         string
		usage, wrong x509.ExtKeyUsage
		hosts        []string
	}{
		{"grpc_server", x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth, []string{"grpc.domain.com", "server.domain.com", "localhost", "127.0.0.1", "::1"}},
		{"http_server", x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth, []string{"http.domain.com", "localhost", "127.0.0.1", "::1"}},
		{"client", x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth, nil},
		{"proxy_client", x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth, nil},
	} {
		pair, err := tls.X509KeyPair(read(t, dir, c.name+"_crt.pem"), read(t, dir, c.name+"_key.pem"))
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		leaf := pair.Leaf
		verify := func(usage x509.ExtKeyUsage) error {
			_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{usage}})
			return err
		}
		if err := verify(c.usage); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if verify(c.wrong) == nil {
			t.Errorf("%s is also valid for the other usage", c.name)
		}
		for _, host := range c.hosts {
			if err := leaf.VerifyHostname(host); err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
		}
		if got := len(leaf.DNSNames) + len(leaf.IPAddresses); got != len(c.hosts) {
			t.Errorf("%s: %d names, want %d", c.name, got, len(c.hosts))
		}
		if key, ok := pair.PrivateKey.(*ecdsa.PrivateKey); !ok || key.Curve != elliptic.P256() {
			t.Errorf("%s: key is a %T", c.name, pair.PrivateKey)
		}
		if leaf.IsCA || leaf.Subject.CommonName == "" {
			t.Errorf("%s: CA %t, name %q", c.name, leaf.IsCA, leaf.Subject.CommonName)
		}
		if leaf.NotBefore.After(before) || leaf.NotAfter.Before(before.AddDate(0, 0, days).Truncate(time.Second)) || leaf.NotAfter.After(after.AddDate(0, 0, days)) {
			t.Errorf("%s: valid from %v to %v", c.name, leaf.NotBefore, leaf.NotAfter)
		}
		serials[leaf.SerialNumber.String()] = true
	}
	if len(serials) != 4 {
		t.Errorf("%d serial numbers for 4 certificates", len(serials))
	}
}

// TestDropsTheKeyOfTheCA checks that no file has the CA's key.
func TestDropsTheKeyOfTheCA(t *testing.T) {
	t.Parallel()
	dir, _ := generated(t)
	block, _ := pem.Decode(read(t, dir, "CA_crt.pem"))
	ca, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if !ca.IsCA {
		t.Error("CA_crt.pem is not a CA certificate")
	}
	for _, name := range allFiles {
		for rest := read(t, dir, name); ; {
			if block, rest = pem.Decode(rest); block == nil {
				break
			}
			if (block.Type == "PRIVATE KEY") != strings.HasSuffix(name, "_key.pem") {
				t.Errorf("%s holds a %s", name, block.Type)
			}
			if block.Type != "PRIVATE KEY" {
				continue
			}
			key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if key.(*ecdsa.PrivateKey).PublicKey.Equal(ca.PublicKey) {
				t.Errorf("%s holds the CA's key", name)
			}
		}
	}
}

func TestOverwritesOnlyWhenForced(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	kept := filepath.Join(dir, "client_key.pem")
	if err := os.WriteFile(kept, []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	if code := run([]string{"-dir", dir}, &out, &errs); code != exitFailed {
		t.Errorf("exit code %d, want %d", code, exitFailed)
	}
	if !strings.Contains(errs.String(), "client_key.pem") || !strings.Contains(errs.String(), "-force") || out.Len() > 0 {
		t.Errorf("printed %q and %q", &out, &errs)
	}
	if got := listed(t, dir); len(got) != 1 || string(read(t, dir, "client_key.pem")) != "mine" {
		t.Errorf("it wrote files in spite of the error: %q", got)
	}

	errs.Reset()
	if code := run([]string{"-dir", dir, "-force"}, &out, &errs); code != 0 {
		t.Fatalf("exit code %d: %s", code, &errs)
	}
	if got := listed(t, dir); !slices.Equal(got, allFiles) {
		t.Errorf("got %q", got)
	}
	if _, err := tls.X509KeyPair(read(t, dir, "client_crt.pem"), read(t, dir, "client_key.pem")); err != nil {
		t.Error(err)
	}
	if info, err := os.Stat(kept); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("the key that was replaced: mode %v, %v", info.Mode().Perm(), err)
	}
}

func TestFailsClearly(t *testing.T) {
	t.Parallel()
	occupied := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(occupied, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		args []string
		code int
		says string
	}{
		{"help", []string{"-help"}, 0, "-force"},
		{"unknown flag", []string{"-keys"}, exitUsage, "-keys"},
		{"argument", []string{"certs"}, exitUsage, `"certs"`},
		{"no folder", []string{"-dir", ""}, exitUsage, "-dir"},
		{"no days", []string{"-days", "0"}, exitUsage, "-days"},
		{"too many days", []string{"-days", "36501"}, exitUsage, "-days"},
		{"folder is a file", []string{"-dir", occupied}, exitFailed, occupied},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var out, errs bytes.Buffer
			if code := run(c.args, &out, &errs); code != c.code || !strings.Contains(errs.String(), c.says) || out.Len() > 0 {
				t.Errorf("exit code %d, want %d with %q: %q %q", code, c.code, c.says, &out, &errs)
			}
		})
	}
}

func TestLeavesNoTemporaryFileBehind(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	// A folder in the way makes the rename fail.
	if err := os.Mkdir(filepath.Join(dir, "CA_crt.pem"), 0o755); err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	if code := run([]string{"-dir", dir, "-force"}, &out, &errs); code != exitFailed || !strings.Contains(errs.String(), "CA_crt.pem") {
		t.Errorf("exit code %d: %s", code, &errs)
	}
	if got := listed(t, dir); len(got) != 1 {
		t.Errorf("left behind: %q", got)
	}
}
