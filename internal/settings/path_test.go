package settings

import (
	"encoding/base64"
	"encoding/hex"
	"math/rand/v2"
	"strings"
	"testing"
)

// TestPathForm has paths that people write, and what they write in a path's place by mistake.
func TestPathForm(t *testing.T) {
	t.Parallel()
	for _, shown := range []string{
		"/etc/ssl/certs/ca-certificates.crt", "/run/secrets/token", "/var/run/secrets/kubernetes.io/serviceaccount/token", "./certs/ca", "../certs/ca",
		"/secrets/ca/..data/ca.crt", "tls.key", "certs/tls.key", "/ca.pem", "ca.PEM", `C:\certs\tls.key`, `C:/certs/ca`, "/etc/secrets/API_KEY", "./MyCompanyRootCA2024.pem",
		"/etc/letsencrypt/live/www.example.com/fullchain.pem", "/mnt/secrets-store/prod-eu-west-1_client.key", "/does/not/exist",
		"/home/jane.doe@example.org/ca.crt", "/var/lib/certs/2026-11-27T02-09-00/ca",
	} {
		if !PathForm(shown) {
			t.Errorf("%q is not shown", shown)
		}
	}
	for _, hidden := range []string{
		"", "hunter2", "hunter2-hunter2", "/hunter2", "//hunter2", "correct horse battery.key", "pass/word1", "-----BEGIN PRIVATE KEY-----",
		"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U", "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
		"./hunter2", "../s3cr3t", "/./hunter2/", "/Q8f3/kE7m9Zr2/pX4vT6", "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg.key",
		"/tmp/5f4dcc3b5aa765d61d8327deb882cf99", "./9b74c9897bac770ffc029102a200c5de", "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
		"https://user:secret@example.com/ca.pem?key=1", "user:p4ss@host/ca+b", "/a/b\nc", "/a/\x00", "/a/b c", "/a/é", "arn:aws:secretsmanager:eu-west-1:1:secret:a",
		"/" + strings.Repeat("a/", 130), "/secret=value/x", "0123456789.pem0123456789", "/dev/../s3cr3t?", "{\"key\": \"value\"}.json",
	} {
		if PathForm(hidden) {
			t.Errorf("%q is shown", hidden)
		}
	}
}

// TestRandomTextIsNoPath writes keys of 16 bytes and more where a path belongs: as they are, and where they begin or end by chance as
// a path does.
func TestRandomTextIsNoPath(t *testing.T) {
	t.Parallel()
	source := rand.NewChaCha8([32]byte{}) // the same texts each time
	plain, dressed := 0, 0
	const tries = 10_000
	for i := range tries {
		b := make([]byte, 16+i%49)
		source.Read(b)
		text := []string{base64.StdEncoding.EncodeToString(b), base64.RawURLEncoding.EncodeToString(b), base64.RawStdEncoding.EncodeToString(b), hex.EncodeToString(b)}[i%4]
		if PathForm(text) {
			plain++
		}
		if PathForm("/a/"+text) || PathForm("./"+text) || PathForm(text+".key") || PathForm("/"+text) {
			dressed++
		}
	}
	if plain > 0 || dressed > tries/50 {
		t.Errorf("of %d random texts %d are shown as paths, and %d where they begin or end as one", tries, plain, dressed)
	}
}
