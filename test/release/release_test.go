//go:build long

package release

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
)

const (
	root   = "../.."
	module = "example.com/grpc-health-http"
	// tag and commit are those of the release that the tests build.
	tag, commit = "v1.2.3-test", "0123456789abcdef0123456789abcdef01234567"
)

// TestReproducible builds every binary of a release in two directories, one of them a git checkout. They must be the same.
func TestReproducible(t *testing.T) {
	t.Parallel()
	build := builds(t)
	ldflags := strings.NewReplacer("{{ .Tag }}", tag, "{{ .FullCommit }}", commit).Replace(strings.Join(list(t, build, "ldflags"), " "))
	flags := append(list(t, build, "flags"), "-tags="+strings.Join(list(t, build, "tags"), ","), "-ldflags="+ldflags)

	mains := regexp.MustCompile(`(?m)^    main: (\S+)$`).FindAllStringSubmatch(build, -1)
	if len(mains) != 2 {
		t.Fatalf("%d commands, want 2, in\n%s", len(mains), build)
	}

	checkout, archive := t.TempDir(), filepath.Join(t.TempDir(), "another", "directory")
	copySource(t, checkout)
	git(t, checkout, "init", "-q")
	commitAll(t, checkout)
	copySource(t, archive)
	for _, goos := range list(t, build, "goos") {
		for _, goarch := range list(t, build, "goarch") {
			env := append(list(t, build, "env"), "GOOS="+goos, "GOARCH="+goarch)
			for _, main := range mains {
				t.Run(goos+" "+goarch+" "+main[1], func(t *testing.T) {
					args := append(slices.Clone(flags), main[1])
					one := compile(t, checkout, env, args...)
					if another := compile(t, archive, env, args...); sum(t, one) != sum(t, another) {
						t.Error("two builds differ")
					}
					if goos == runtime.GOOS && goarch == runtime.GOARCH {
						wantVersion(t, one, tag, commit)
					}
				})
			}
		}
	}
}

// TestImages compares the image of a release with the one that the Dockerfile builds. Both must be used in the same way.
func TestImages(t *testing.T) {
	t.Parallel()
	used := func(name string) []string {
		return regexp.MustCompile(`(?m)^(USER|ENV|EXPOSE|ENTRYPOINT) .*$`).FindAllString(read(t, name), -1)
	}
	if ours, released := used("Dockerfile"), used("Dockerfile.release"); len(ours) == 0 || !slices.Equal(ours, released) {
		t.Errorf("the Dockerfile has %q, the release's %q", ours, released)
	}
}

// TestWorkflows checks that workflows pin actions by commit, since tags can be moved, and that jobs have no permissions by default.
func TestWorkflows(t *testing.T) {
	t.Parallel()
	workflows, err := filepath.Glob(filepath.Join(root, ".github/workflows/*.yml"))
	if err != nil || len(workflows) == 0 {
		t.Fatalf("no workflows: %v", err)
	}
	pinned := regexp.MustCompile(`@[0-9a-f]{40} # v\d|uses: \./`)
	for _, path := range workflows {
		name, err := filepath.Rel(root, path)
		if err != nil {
			t.Fatal(err)
		}
		content := read(t, name)
		for _, use := range regexp.MustCompile(`(?m)^.*\buses:.*$`).FindAllString(content, -1) {
			if !pinned.MatchString(use) {
				t.Errorf("%s: not pinned to a commit: %s", name, use)
			}
		}
		if !strings.Contains(content, "\npermissions: {}\n") {
			t.Errorf("%s: jobs have permissions by default", name)
		}
	}
}

// TestReleaseIsGuarded checks what stands between a tag and a release.
func TestReleaseIsGuarded(t *testing.T) {
	t.Parallel()
	content := read(t, ".github/workflows/release.yml")
	release := job(t, content, "release")
	for what, rule := range map[string]string{
		"waits for all tests":                    `(?m)^    needs: test$`,
		"runs in the protected environment":      `(?m)^    environment: release\b`,
		"releases tags only":                     `(?m)^    if: github\.ref_type == 'tag'$`,
		"refuses images without a digest, first": `(?s)run: \.ci/images check\n.*goreleaser-action`,
		"builds with the latest patch of Go":     `check-latest: true`,
	} {
		if !regexp.MustCompile(rule).MatchString(release) {
			t.Errorf("the release's job lacks what %s: %s", what, rule)
		}
	}
	if !regexp.MustCompile(`(?m)^  workflow_dispatch:`).MatchString(content) {
		t.Error("the workflow update cannot start a release")
	}
}

// TestUpdates checks that what a release is made of is looked at each day, and that nothing is released without all tests.
func TestUpdates(t *testing.T) {
	t.Parallel()
	content := read(t, ".github/workflows/update.yml")
	if !regexp.MustCompile(`(?m)^  schedule:\n    - cron: "\d+ \d+ \* \* \*"$`).MatchString(content) {
		t.Error("it does not run each day")
	}
	for name, rules := range map[string][]string{
		"build-patch": {`\.ci/update patch "\$RUNNER_TEMP/released"`, `check-latest: true`, `git switch --detach "\$tag"`},
		"test-patch":  {`(?m)^    needs: build-patch$`, `uses: \./\.github/workflows/test\.yml`, `ref: patch`},
		"patch":       {`(?m)^    needs: \[build-patch, test-patch\]$`, `gh workflow run release\.yml --ref "\$RELEASE"`, `ref: patch`},
		"update":      {`\.ci/update update`},
		"test-update": {`(?m)^    needs: update$`, `ref: update`},
		"propose":     {`(?m)^    needs: test-update$`},
	} {
		section := job(t, content, name)
		for _, rule := range rules {
			if !regexp.MustCompile(rule).MatchString(section) {
				t.Errorf("the job %s lacks %s", name, rule)
			}
		}
	}
	for file, rule := range map[string]string{
		".ci/fixed":              `golang\.org/x/vuln/cmd/govulncheck@v\d+\.\d+\.\d+ `,
		".ci/update":             `\.ci/images pin`,
		".github/dependabot.yml": `package-ecosystem: github-actions`,
	} {
		if !regexp.MustCompile(rule).MatchString(read(t, file)) {
			t.Errorf("%s lacks %s", file, rule)
		}
	}
}

// job returns a job of a workflow. It uses no YAML parser, which would be another dependency.
func job(t *testing.T, workflow, name string) string {
	t.Helper()
	section := regexp.MustCompile(`(?ms)^  ` + name + `:\n(.*?)(?:^  \w|\z)`).FindStringSubmatch(workflow[strings.Index(workflow, "\njobs:\n"):])
	if section == nil {
		t.Fatalf("no job %s", name)
	}
	return section[1]
}

// TestImagesAreByDigest runs .ci/images on copies of the Dockerfiles. A program that answers as Docker does stands for the registries.
func TestImagesAreByDigest(t *testing.T) {
	t.Parallel()
	digest := "sha256:" + strings.Repeat("0123456789abcdef", 4)
	const fromScratch = "FROM scratch\nCOPY . .\n"
	for name, test := range map[string]struct {
		dockerfile, released string
		docker               string // what it prints
		fails                bool   // check, before anything is pinned
		pinned               []string
		notPinned            bool
	}{
		"as they are here":  {dockerfile: read(t, "Dockerfile"), released: read(t, "Dockerfile.release"), pinned: []string{"FROM golang:1.26.8-bookworm@" + digest + " AS build\n", "\nFROM scratch\n", "FROM gcr.io/distroless/static-debian13:nonroot@" + digest + "\n"}},
		"one of two":        {dockerfile: "FROM a/b:1@" + digest + "\n", released: "FROM c/d:2\n", fails: true, pinned: []string{"FROM a/b:1@" + digest + "\n", "FROM c/d:2@" + digest + "\n"}},
		"an older digest":   {dockerfile: "FROM a/b:1@sha256:" + strings.Repeat("f", 64) + " AS x\n", released: fromScratch, pinned: []string{"FROM a/b:1@" + digest + " AS x\n", fromScratch}},
		"a registry's port": {dockerfile: "FROM localhost:5000/b:1\n", released: fromScratch, fails: true, pinned: []string{"FROM localhost:5000/b:1@" + digest + "\n"}},
		"a short digest":    {dockerfile: "FROM a/b:1@sha256:0123\n", released: fromScratch, fails: true, pinned: []string{"FROM a/b:1@" + digest + "\n"}},
		"scratch alone":     {dockerfile: fromScratch, released: fromScratch},
		"no such image":     {dockerfile: "FROM a/b:1\n", released: fromScratch, docker: "ERROR: not found", fails: true, notPinned: true},
		"no digest":         {dockerfile: "FROM a/b:1\n", released: fromScratch, docker: "{}", fails: true, notPinned: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			write(t, filepath.Join(dir, "Dockerfile"), []byte(test.dockerfile))
			write(t, filepath.Join(dir, "Dockerfile.release"), []byte(test.released))
			script, docker := filepath.Join(dir, ".ci", "images"), filepath.Join(dir, "bin", "docker")
			write(t, script, []byte(read(t, ".ci/images")))
			if test.docker == "" {
				test.docker = `{"mediaType": "x", "digest": "` + digest + `", "size": 1}`
			}
			write(t, docker, []byte("#!/bin/sh\ncat <<'END'\n"+test.docker+"\nEND\n"))
			if err := os.Chmod(docker, 0o755); err != nil {
				t.Fatal(err)
			}
			run := func(args ...string) error {
				cmd := exec.Command("bash", append([]string{script}, args...)...)
				cmd.Env = append(os.Environ(), "PATH="+filepath.Join(dir, "bin")+":"+os.Getenv("PATH"))
				return cmd.Run()
			}
			if err := run("check"); (err != nil) != test.fails {
				t.Errorf("check: %v, want a failure: %t", err, test.fails)
			}
			if err := run("pin"); (err != nil) != test.notPinned {
				t.Fatalf("pin: %v, want a failure: %t", err, test.notPinned)
			}
			if err := run("check"); (err != nil) != test.notPinned {
				t.Errorf("check after pin: %v", err)
			}
			one, _ := os.ReadFile(filepath.Join(dir, "Dockerfile"))
			two, _ := os.ReadFile(filepath.Join(dir, "Dockerfile.release"))
			for _, want := range test.pinned {
				if !strings.Contains(string(one)+string(two), want) {
					t.Errorf("lacks %q:\n%s%s", want, one, two)
				}
			}
		})
	}
}

// TestFixedWeaknesses runs .ci/fixed with govulncheck on programs of the project, and a database of made-up weaknesses.
func TestFixedWeaknesses(t *testing.T) {
	t.Parallel()
	older, newer, same := t.TempDir(), t.TempDir(), t.TempDir()
	for dir, main := range map[string]string{older: "./probe", same: "./probe", newer: "./lambda/zip"} { // which has Go's library alone
		cmd := exec.Command("go", "build", "-trimpath", "-o", filepath.Join(dir, "program"), main)
		cmd.Dir = root
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("go build: %v\n%s", err, out)
		}
	}
	database := t.TempDir() // https://go.dev/doc/security/vuln/database#api
	const at = `"modified":"2026-01-01T00:00:00Z"`
	var vulns []string
	for _, v := range []struct{ id, module, imported, symbol string }{
		{"GO-2026-9001", "stdlib", "os", "Open"},                                          // stays
		{"GO-2026-9002", "google.golang.org/grpc", "google.golang.org/grpc", "NewClient"}, // goes
		{"GO-2026-9003", "google.golang.org/grpc", "google.golang.org/grpc/xds", "None"},  // is not linked
	} {
		vulns = append(vulns, `{"id":"`+v.id+`",`+at+`}`)
		write(t, filepath.Join(database, "ID", v.id+".json"), []byte(`{"schema_version":"1.3.1","id":"`+v.id+`",`+at+
			`,"affected":[{"package":{"name":"`+v.module+`","ecosystem":"Go"},"ranges":[{"type":"SEMVER","events":[{"introduced":"0"},{"fixed":"1.999.0"}]}],
			"ecosystem_specific":{"imports":[{"path":"`+v.imported+`","symbols":["`+v.symbol+`"]}]}}]}`))
	}
	write(t, filepath.Join(database, "index", "db.json"), []byte(`{`+at+`}`))
	write(t, filepath.Join(database, "index", "vulns.json"), []byte("["+strings.Join(vulns, ",")+"]"))
	write(t, filepath.Join(database, "index", "modules.json"), []byte(`[{"path":"google.golang.org/grpc","vulns":[{"id":"GO-2026-9002",`+at+`,"fixed":"1.999.0"},{"id":"GO-2026-9003",`+at+
		`,"fixed":"1.999.0"}]},{"path":"stdlib","vulns":[{"id":"GO-2026-9001",`+at+`,"fixed":"1.999.0"}]}]`))
	for name, test := range map[string]struct{ before, after, want string }{
		"one is closed":      {older, newer, "GO-2026-9002\n"},
		"none is closed":     {older, same, ""},
		"one more is opened": {newer, older, ""},
	} {
		cmd := exec.Command("bash", filepath.Join(root, ".ci/fixed"), test.before, test.after)
		cmd.Env = append(os.Environ(), "GOVULNDB=file://"+database)
		var said strings.Builder
		cmd.Stderr = &said
		if out, err := cmd.Output(); err != nil || string(out) != test.want {
			t.Errorf("%s: %q, %v, want %q\n%s", name, out, err, test.want, said.String())
		}
	}
}

// TestVersion checks the -version of programs that are not built as a release.
func TestVersion(t *testing.T) {
	t.Parallel()
	const version = "v0.1.0"
	dir := t.TempDir()
	copySource(t, dir)
	probe := func(args ...string) string { return compile(t, dir, nil, append(args, "-trimpath", "./probe")...) }
	wantVersion(t, probe("-buildvcs=false"), "devel", "unknown")

	git(t, dir, "init", "-q")
	commitAll(t, dir)
	head := git(t, dir, "rev-parse", "HEAD")
	git(t, dir, "tag", version)
	wantVersion(t, probe("-buildvcs=true"), version, head)

	if err := os.WriteFile(filepath.Join(dir, "go.sum"), []byte(read(t, "go.sum")+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	wantVersion(t, probe("-buildvcs=true"), version+"+dirty", head+"-dirty")
	wantVersion(t, install(t, version), version, "unknown")
}

// install runs `go install module/probe@version` as if the version were published, and returns the program.
func install(t *testing.T, version string) string {
	t.Helper()
	published := t.TempDir() // a module proxy's files: https://go.dev/ref/mod#goproxy-protocol
	versions := filepath.Join(published, filepath.FromSlash(module), "@v")
	var archive bytes.Buffer
	w := zip.NewWriter(&archive)
	for _, name := range files(t) {
		entry, err := w.Create(module + "@" + version + "/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := entry.Write([]byte(read(t, name))); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"list":            version + "\n",
		version + ".info": fmt.Sprintf(`{"Version":%q}`, version),
		version + ".mod":  read(t, "go.mod"),
		version + ".zip":  archive.String(),
	} {
		write(t, filepath.Join(versions, name), []byte(content))
	}

	env := goEnv(t, "GOMODCACHE", "GOPROXY")
	bin := t.TempDir()
	cmd := exec.Command("go", "install", "-trimpath", module+"/probe@"+version)
	cmd.Dir = bin // outside this module
	cmd.Env = append(os.Environ(), "GOBIN="+bin, "GOSUMDB=off", "GOFLAGS=-modcacherw", "GOMODCACHE="+t.TempDir(),
		"GOPROXY=file://"+published+",file://"+env[0]+"/cache/download,"+env[1])
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go install: %v\n%s", err, out)
	}
	return filepath.Join(bin, "probe")
}

// builds returns the section builds of .goreleaser.yaml. It uses no YAML parser, which would be another dependency.
func builds(t *testing.T) string {
	t.Helper()
	section := regexp.MustCompile(`(?ms)^builds:\n(.*?)^\w`).FindStringSubmatch(read(t, ".goreleaser.yaml"))
	if section == nil {
		t.Fatal("no builds in .goreleaser.yaml")
	}
	return section[1]
}

// list returns the items of a key, which are written as [a, b], or one per line. The section must have the key exactly once.
func list(t *testing.T, section, key string) []string {
	t.Helper()
	m := regexp.MustCompile(`(?m)^ +`+key+`:(?: \[(.*)\].*|((?:\n +- .*)+))$`).FindAllStringSubmatch(section, -1)
	if len(m) != 1 {
		t.Fatalf("key %s: found %d times, want 1, in\n%s", key, len(m), section)
	}
	if m[0][1] != "" {
		return strings.Split(m[0][1], ", ")
	}
	var items []string
	for line := range strings.Lines(strings.TrimPrefix(m[0][2], "\n")) {
		items = append(items, strings.TrimPrefix(strings.TrimSpace(line), "- "))
	}
	return items
}

// compile builds a command, and returns the program.
func compile(t *testing.T, dir string, env []string, args ...string) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "program")
	cmd := exec.Command("go", append([]string{"build", "-o", program}, args...)...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return program
}

// wantVersion checks the -version of a program.
func wantVersion(t *testing.T, program, tag, commit string) {
	t.Helper()
	out, err := exec.Command(program, "-version").Output()
	want := fmt.Sprintf("%s (commit %s, %s)\n", tag, commit, goEnv(t, "GOVERSION")[0])
	if err != nil || string(out) != want {
		t.Errorf("-version: %v\ngot  %swant %s", err, out, want)
	}
}

func sum(t *testing.T, path string) [sha256.Size]byte {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(content)
}

// goEnv returns values of go env.
func goEnv(t *testing.T, names ...string) []string {
	t.Helper()
	out, err := exec.Command("go", append([]string{"env"}, names...)...).Output()
	if err != nil {
		t.Fatalf("go env: %v", err)
	}
	return strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
}

// git runs git with a test's identity, and returns its output.
func git(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", append([]string{"-c", "user.name=test", "-c", "user.email=test@example.com"}, args...)...)
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("git %s: %v", strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out))
}

func commitAll(t *testing.T, dir string) {
	t.Helper()
	git(t, dir, "add", "-A", "-f")
	git(t, dir, "commit", "-q", "-m", "everything")
}

// files returns the paths of the files that the commands are built from.
func files(t *testing.T) []string {
	t.Helper()
	names := []string{"go.mod", "go.sum"}
	for _, dir := range []string{"cloudrun", "probe", "internal"} {
		err := fs.WalkDir(os.DirFS(root), dir, func(path string, entry fs.DirEntry, err error) error {
			if err == nil && entry.Type().IsRegular() {
				names = append(names, path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return names
}

func copySource(t *testing.T, dir string) {
	t.Helper()
	for _, name := range files(t) {
		write(t, filepath.Join(dir, name), []byte(read(t, name)))
	}
}

// read reads a file of the project.
func read(t *testing.T, name string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func write(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
}
