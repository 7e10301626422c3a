//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"example.com/grpc-health-http/test/healthtest"
	"example.com/grpc-health-http/test/secretstest"
)

// Many upstreams of a file: they can be asked for by name, by group, and all at once; and the file may change between invocations.
func TestTargets(t *testing.T) {
	t.Parallel()
	good, bad := healthtest.Start(t), healthtest.Start(t)
	good.SetStatus("a", healthpb.HealthCheckResponse_SERVING)
	bad.SetStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
	file := filepath.Join(t.TempDir(), "targets.yaml")
	write := func(content string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	both := fmt.Sprintf("targets:\n  good: {addr: %q, service_name: a, group: g}\n  bad: {addr: %q}\n", good.Addr(), bad.Addr())
	write(both)
	d := deploy(t, "GRPC_HEALTH_TARGETS_FILE="+file)
	for payload, want := range map[string]string{
		`{}`:                                `NOT_SERVING: bad/ NOT_SERVING, good/a SERVING`,
		`{"target":"good"}`:                 `SERVING: good/a SERVING`,
		`{"target":"good","service":"a"}`:   `SERVING: good/a SERVING`,
		`{"group":"g"}`:                     `SERVING: good/a SERVING`,
		`{"target":"bad"}`:                  `NOT_SERVING: bad/ NOT_SERVING`,
		`{"target":"none"}`:                 `error: a target or group was asked for that is not there`,
		`{"target":"good","service":"b"}`:   `error: a service was asked for that is not offered here`,
		`{"target":1}`:                      `error: the target is not a string: send {"target":"NAME"}`,
		`{"target":""}`:                     `error: target is empty: name one, or leave it out to ask for all`,
		`{"source":"aws.events","a":"b"}`:   `NOT_SERVING: bad/ NOT_SERVING, good/a SERVING`,
		`{"group":null,"target":"good"}`:    `error: the group is not a string: send {"group":"NAME"}`,
		`{"group":"g","target":["a", "b"]}`: `error: the target is not a string: send {"target":"NAME"}`,
	} {
		v := d.ask(payload)
		got := v.Status + ": "
		for i, s := range v.Services {
			if i > 0 {
				got += ", "
			}
			got += s.Target + "/" + s.Service + " " + s.Status
		}
		if v.Error != "" {
			got = "error: " + v.Error
		}
		if got != want {
			t.Errorf("%s: %s, want %s", payload, got, want)
		}
	}
	if r := d.get("target=good", ""); r.StatusCode != 200 || r.Body != "good a SERVING\n" {
		t.Errorf("through HTTP: %+v", r)
	}
	for _, l := range d.stdout.lines() {
		if l["Function"] == nil || l["Target"] != "good" && l["Target"] != "bad" {
			t.Errorf("metrics without function and target: %v", l)
		}
	}
	// A file that is wrong changes nothing; a good one is read at an invocation 5 s later.
	write("targets: {good: {adr: x}}")
	time.Sleep(5100 * time.Millisecond)
	d.want("NOT_SERVING")
	until(t, "the log line", func() bool { return strings.Contains(d.stderr.String(), "did you mean addr?") })
	d.want("NOT_SERVING")
	write(strings.ReplaceAll(both, "bad:", "worse:"))
	time.Sleep(5100 * time.Millisecond)
	if v := d.ask(`{"target":"worse"}`); v.Status != "NOT_SERVING" {
		t.Errorf("a new target: %+v", v)
	}
	if v := d.ask(`{"target":"bad"}`); v.Error == "" {
		t.Errorf("a target that is gone: %+v", v)
	}
}

// The file may be a secret.
func TestTargetsInASecret(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	manager := secretstest.Start(t)
	d := deploy(t, "GRPC_HEALTH_TARGETS_FILE="+arnOf("targets"), "AWS_ENDPOINT_URL_SECRETS_MANAGER="+manager.URL)
	if v := d.ask(whole); !strings.Contains(v.Error, "not configured") {
		t.Errorf("without the secret: %+v", v)
	}
	manager.SetString(arnOf("targets"), fmt.Sprintf("targets: {one: {addr: %q}}", up.Addr()))
	until(t, "the secret", func() bool { return d.ask(whole).Status == "SERVING" })
}
