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
