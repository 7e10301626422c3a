//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"example.com/grpc-health-http/test/healthtest"
)

var update = flag.Bool("update", false, "write what the function answers to testdata/results")

// What differs from run to run.
var (
	durations = regexp.MustCompile(`(duration_seconds\\*": ?)[0-9.e-]+`)
	pages     = regexp.MustCompile(`(\\u003c!DOCTYPE html\\u003e).*(\\u003c/html\\u003e)`)
	hashes    = regexp.MustCompile(`sha256-[A-Za-z0-9+/]+=`)
	evidence  = regexp.MustCompile(`("Grpc-Health-Evidence": \[?\s*"|\\*"evidence\\*": ?\\*")[0-9a-f]+`)
)

// TestRecordedEvents sends the events of testdata/events, and compares the results with those of
// testdata/results.
func TestRecordedEvents(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	for name, status := range map[string]healthpb.HealthCheckResponse_ServingStatus{
		"up":              healthpb.HealthCheckResponse_SERVING,
		"down":            healthpb.HealthCheckResponse_NOT_SERVING,
		"echo.EchoServer": healthpb.HealthCheckResponse_SERVING,
		"a b&c":           healthpb.HealthCheckResponse_SERVING,
	} {
		up.SetStatus(name, status)
	}
	d := deploy(t, "GRPC_HEALTH_ADDR="+up.Addr())
	paths, err := filepath.Glob(filepath.Join("testdata", "events", "*.json"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no events: %v", err)
	}
	for _, path := range paths {
		payload, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var got bytes.Buffer
		if err := json.Indent(&got, []byte(d.invoke(string(payload))), "", "  "); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		got.WriteByte('\n')
		text := durations.ReplaceAll(got.Bytes(), []byte("${1}0.001"))
		text = evidence.ReplaceAll(text, []byte(`${1}ID`))
		text = pages.ReplaceAll(text, []byte(`${1}…${2}`))
		text = hashes.ReplaceAll(text, []byte("sha256-HASH"))
		golden := filepath.Join("testdata", "results", filepath.Base(path))
		if *update {
			if err := os.WriteFile(golden, text, 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(text, want) {
			t.Errorf("%s:\n%swant\n%s", path, text, want)
		}
	}
}

// An upstream is not asked for what came to the wrong place.
func TestNoRPCWithoutNeed(t *testing.T) {
	t.Parallel()
	up := healthtest.Start(t)
	d := deploy(t, "GRPC_HEALTH_ADDR="+up.Addr())
	none := []string{"function_url_favicon", "function_url_post_base64", "target_group_post_base64", "lattice_v2_post_base64", "lattice_v1_delete",
		"direct_illegal_name", "direct_no_text", "hostile_types"}
	for _, pattern := range []string{"other_*.json", "authorizer_*.json"} {
		paths, err := filepath.Glob(filepath.Join("testdata", "events", pattern))
		if err != nil || len(paths) < 5 {
			t.Fatalf("%s: %q, %v", pattern, paths, err)
		}
		for _, path := range paths {
			none = append(none, strings.TrimSuffix(filepath.Base(path), ".json"))
		}
	}
	for _, name := range none {
		payload, err := os.ReadFile(filepath.Join("testdata", "events", name+".json"))
		if err != nil {
			t.Fatal(err)
		}
		d.invoke(string(payload))
	}
	for _, payload := range []string{"", "{", `{"service":`, strings.Repeat("[", 100000), `{"service":"` + strings.Repeat("a", 300) + `"}`} {
		if v := d.ask(payload); v.Error == "" || v.Status != "" {
			t.Errorf("%.20q: %+v", payload, v)
		}
	}
	if n := up.RPCs(); n != 0 {
		t.Errorf("%d RPCs", n)
	}
}

func TestShapesThatLookLikeOthers(t *testing.T) {
	t.Parallel()
	for payload, want := range map[string]error{
		`{"type":"REQUEST","routeArn":"a","requestContext":{"http":{"method":"GET"}},"rawPath":"/"}`:                           errAuthorizer,
		`{"version":"2.0","identitySource":null,"routeArn":"a","method":"GET","path":"/","requestContext":{"serviceArn":"a"}}`: errAuthorizer,
		`{"type":"REQUEST","methodArn":"a","requestContext":{"elb":{}},"httpMethod":"GET","path":"/"}`:                         errAuthorizer,
		`{"authorizationToken":"t","raw_path":"/","method":"GET"}`:                                                             errAuthorizer,
		`{"identitySource":["x"],"service":"a"}`:                                                                               errAuthorizer,
		`{"method":"GET","path":"/"}`:                                                                                          errNotUnderstood,
		`{"method":"GET","path":"/","requestContext":{"serviceArn":null}}`:                                                     errNotUnderstood,
		`{"raw_path":"/","method":null}`:                                                                                       errNotUnderstood,
		`{"raw_path":{},"method":"GET"}`:                                                                                       errNotUnderstood,
		`{"raw_path":"/","method":"GET","headers":{"host":{"a":"b"}}}`:                                                         errNotUnderstood,
		`{"requestContext":{"serviceArn":"a"},"path":"/"}`:                                                                     errNotUnderstood,
	} {
		if e, err := parse([]byte(payload)); err != want {
			t.Errorf("%s: %+v, %v; want %v", payload, e, err, want)
		}
	}
	for _, payload := range []string{
		`{"requestContext":{"http":null}}`, `{"requestContext":{"elb":null}}`, `{"httpMethod":null}`,
		`{"type":"REQUEST","methodArn":"arn:aws:execute-api:eu-west-1:1:a/b/GET/","httpMethod":"GET","path":"/"}`,
	} {
		if e, err := parse([]byte(payload)); err == nil {
			t.Errorf("%s is understood as %+v", payload, e.request)
		}
	}
	for rawPath, want := range map[string]string{"/prod/favicon.ico": "/favicon.ico", "/prod/": "/", "/production": "/production", "/x/prod/": "/x/prod/"} {
		e, err := parse([]byte(`{"version":"2.0","rawPath":"` + rawPath + `","requestContext":{"stage":"prod","http":{"method":"GET"}}}`))
		if err != nil || e.request.URL.Path != want {
			t.Errorf("%s: %v, want the path %s", rawPath, e, want)
		}
	}
}
