// Package terraform tests the Terraform modules and their examples. It has tests only.
package terraform

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"example.com/grpc-health-http/internal/settings"
)

// deployments are the modules that deploy a program: how its environment is made, and which of the
// program's variables it has no use for, and why.
var deployments = map[string]struct {
	listens  bool
	unwanted map[string]string
}{
	"gcp-function": {},
	"aws-lambda": {unwanted: map[string]string{
		"ALTS":                         "works on Google Cloud only",
		"ALTS_TARGET_SERVICE_ACCOUNTS": "works on Google Cloud only",
		"ID_TOKEN_AUDIENCE":            "works on Google Cloud only",
	}},
	"gcp-cloudrun": {listens: true, unwanted: map[string]string{
		"HTTP_LISTEN_ADDR":    "PORT says where to listen",
		"METRICS_HTTP_PATH":   "the sidecar knows the default",
		"HTTPS_LISTEN_CERT":   "TLS ends in front of the container",
		"HTTPS_LISTEN_KEY":    "TLS ends in front of the container",
		"HTTPS_LISTEN_VERIFY": "TLS ends in front of the container",
		"HTTPS_LISTEN_CA":     "TLS ends in front of the container",
	}},
}

// nowhere are the variables that none of these platforms has a use for, and why.
var nowhere = map[string]string{
	"SPIFFE":           "there is no Workload API",
	"SPIFFE_SERVER_ID": "there is no Workload API",
	"USE_PROXY":        "HTTPS_PROXY, which it obeys, is no setting of the program's",
}

// cli runs Terraform, with a cache of providers.
type cli struct {
	program, cache string
}

func (tf cli) run(dir string, args ...string) ([]byte, error) {
	cmd := exec.Command(tf.program, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "TF_IN_AUTOMATION=1", "CHECKPOINT_DISABLE=1",
		// Lock files name checksums: the modules have none, so that they take the newest that fits.
		"TF_PLUGIN_CACHE_DIR="+tf.cache, "TF_PLUGIN_CACHE_MAY_BREAK_DEPENDENCY_LOCK_FILE=1")
	return cmd.CombinedOutput()
}

// everyProvider wants the newest of each provider that the modules admit.
const everyProvider = `terraform {
  required_providers {
    google  = { source = "hashicorp/google", version = ">= 7.21, < 9" }
    aws     = { source = "hashicorp/aws", version = "~> 6.28" }
    archive = { source = "hashicorp/archive", version = "~> 2.7" }
  }
}
`

// find returns Terraform with the providers in its cache. Where either is not to be had the test is skipped.
func find(t *testing.T) cli {
	t.Helper()
	program, err := exec.LookPath("terraform")
	if err != nil {
		t.Skipf("Terraform is not installed: %v", err)
	}
	tf := cli{program: program, cache: t.TempDir()}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "main.tf"), []byte(everyProvider), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := tf.run(dir, "init", "-backend=false", "-input=false", "-no-color"); err != nil {
		t.Skipf("the providers are not to be had from the registry, nor from a CLI configuration that the environment names: %v\n%s", err, out)
	}
	return tf
}

// modules are the folders with a configuration, relative to this one: modules, nested ones and examples.
func modules(t *testing.T) []string {
	t.Helper()
	found := make(map[string]bool)
	walk(t, func(path string) {
		if filepath.Ext(path) == ".tf" {
			found[filepath.Dir(path)] = true
		}
	})
	var dirs []string
	for dir := range found {
		dirs = append(dirs, dir)
	}
	slices.Sort(dirs)
	return dirs
}

// walk visits the files below this folder, but for what Terraform makes.
func walk(t *testing.T, visit func(path string)) {
	t.Helper()
	err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && entry.Name() == ".terraform":
			return fs.SkipDir
		case !entry.IsDir() && entry.Name() != ".terraform.lock.hcl":
			visit(path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// copyTree copies what Terraform reads of the repository, so that it leaves nothing in it.
func copyTree(t *testing.T) (terraformDir string) {
	t.Helper()
	root := t.TempDir()
	write := func(path, text string) {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(root, ".gcloudignore"), read(t, "../.gcloudignore"))
	walk(t, func(path string) { write(filepath.Join(root, "terraform", path), read(t, path)) })
	for module := range deployments {
		write(filepath.Join(root, "terraform", module, "tests", "program.tftest.hcl"), programTest(module))
	}
	write(filepath.Join(root, "terraform", "gcp-function", "tests", "upload.tftest.hcl"), uploadTest(t))
	return filepath.Join(root, "terraform")
}

func TestFormat(t *testing.T) {
	t.Parallel()
	program, err := exec.LookPath("terraform")
	if err != nil {
		t.Skipf("Terraform is not installed: %v", err)
	}
	if out, err := (cli{program: program}).run(".", "fmt", "-check", "-diff", "-recursive", "-no-color"); err != nil {
		t.Errorf("terraform fmt -recursive terraform: %v\n%s", err, out)
	}
}

// TestModules initialises, validates and tests each module and each example.
func TestModules(t *testing.T) {
	t.Parallel()
	tf := find(t)
	tree := copyTree(t)
	var initialise sync.Mutex         // the cache takes one at a time
	running := make(chan struct{}, 2) // Terraform is busy with its CPUs
	for _, module := range modules(t) {
		t.Run(module, func(t *testing.T) {
			t.Parallel()
			running <- struct{}{}
			defer func() { <-running }()
			dir := filepath.Join(tree, module)
			initialise.Lock()
			out, err := tf.run(dir, "init", "-backend=false", "-input=false", "-no-color")
			initialise.Unlock()
			if err != nil {
				t.Fatalf("terraform init: %v\n%s", err, out)
			}
			if out, err := tf.run(dir, "validate", "-no-color"); err != nil {
				t.Fatalf("terraform validate: %v\n%s", err, out)
			}
			out, err = tf.run(dir, "test", "-no-color")
			if err != nil {
				t.Fatalf("terraform test: %v\n%s", err, out)
			}
			if passed := regexp.MustCompile(`Success! [1-9]\d* passed, 0 failed\.`); !passed.Match(out) {
				t.Errorf("terraform test: no test ran:\n%s", out)
			}
		})
	}
}

// programTest is a test of Terraform that compares the names of the settings in a module with those
// that the program declares.
func programTest(module string) string {
	deployment := deployments[module]
	var all, files []string
	for _, v := range settings.Variables() {
		if v.Listener && !deployment.listens || deployment.unwanted[v.Name] != "" || nowhere[v.Name] != "" {
			continue
		}
		all = append(all, v.Name)
		if v.File {
			files = append(files, v.Name)
		}
	}
	return fmt.Sprintf(`mock_provider "google" {
  source = "../mocks/google"
}

mock_provider "archive" {
  source = "../mocks/archive"
}

mock_provider "aws" {
  source = "../mocks/aws"
}

variables {
  project_id = "my-project"
  region     = "europe-west1"
  grpc_addr  = "grpc.example.com:443"
  image      = "grpc-health-http:v1"
  package    = "main.tf"
}

run "names" {
  command = plan
  assert {
    condition     = setunion(local.other_settings, local.file_settings, keys(local.own_settings)) == toset(%[1]s)
    error_message = "The module's settings are not the program's: ${jsonencode(setunion(local.other_settings, local.file_settings, keys(local.own_settings)))}, and not %[3]s"
  }
  assert {
    condition     = toset(local.file_settings) == toset(%[2]s)
    error_message = "The settings that name files are not the program's."
  }
}
`, list(all), list(files), strings.Join(all, " "))
}

// uploadTest is a test of Terraform that compares what the function's archive takes of the repository
// with what gcloud would upload: the tracked files, less what .gcloudignore names.
func uploadTest(t *testing.T) string {
	t.Helper()
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	git := func(args ...string) []string {
		cmd := exec.Command("git", append([]string{"ls-files", "-z", "--cached"}, args...)...)
		cmd.Dir = root
		out, err := cmd.Output()
		if err != nil {
			t.Skipf("what is uploaded is told by git, in a checkout: %v", err)
		}
		return strings.Split(strings.TrimRight(string(out), "\x00"), "\x00")
	}
	tracked := git()
	ignored := git("--ignored", "--exclude-from=.gcloudignore")
	uploaded := slices.DeleteFunc(slices.Clone(tracked), func(name string) bool { return slices.Contains(ignored, name) })
	if !slices.Contains(uploaded, "function.go") || len(ignored) == 0 {
		t.Fatalf("git tells that this is uploaded: %q", uploaded)
	}
	return fmt.Sprintf(`mock_provider "google" {
  source = "../mocks/google"
}

mock_provider "archive" {
  source = "../mocks/archive"
}

variables {
  project_id = "my-project"
  region     = "europe-west1"
  grpc_addr  = "grpc.example.com:443"
  source_dir = %[1]q
}

run "upload" {
  command = plan
  assert {
    condition = setsubtract(%[2]s, flatten([
      for glob in data.archive_file.source.excludes : concat(tolist(fileset(%[1]q, glob)), tolist(fileset(%[1]q, "${glob}/**")))
    ])) == toset(%[3]s)
    error_message = "What is uploaded is what gcloud uploads."
  }
}
`, root, list(tracked), list(uploaded))
}

// list writes a list in Terraform's language.
func list(texts []string) string {
	var b strings.Builder
	b.WriteString("[")
	for _, text := range texts {
		fmt.Fprintf(&b, "%q, ", text)
	}
	return b.String() + "]"
}

// TestCommon compares the files that the modules for Google Cloud have in common.
func TestCommon(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"common.tf", "tests/common.tftest.hcl", "tests/common_validation.tftest.hcl"} {
		if read(t, filepath.Join("gcp-function", name)) != read(t, filepath.Join("gcp-cloudrun", name)) {
			t.Errorf("gcp-function/%[1]s and gcp-cloudrun/%[1]s differ: copy the newer over the other", name)
		}
	}
}

// TestREADMEs compares each module's README with the module: its examples, variables and outputs.
func TestREADMEs(t *testing.T) {
	t.Parallel()
	block := regexp.MustCompile(`(?ms)^(variable|output) "(\w+)" \{\n(.*?)^\}`)
	description := regexp.MustCompile(`(?m)^  description\s*= "(.*)"$`)
	fallback := regexp.MustCompile(`(?m)^  default\s*= (.*)$`)
	row := regexp.MustCompile("(?m)^\\| `\\w+` \\|.*$")
	for module := range deployments {
		text := read(t, filepath.Join(module, "README.md"))
		var there []string
		for _, file := range glob(t, module, "*.tf") {
			for _, found := range block.FindAllStringSubmatch(read(t, file), -1) {
				kind, name, body := found[1], found[2], found[3]
				cells := []string{"`" + name + "`"}
				if kind == "variable" {
					cell := "required"
					if match := fallback.FindStringSubmatch(body); match != nil {
						cell = "`" + match[1] + "`"
					}
					cells = append(cells, cell)
				}
				match := description.FindStringSubmatch(body)
				if match == nil {
					t.Errorf("%s: %s %s has no description", file, kind, name)
					continue
				}
				cells = append(cells, strings.ReplaceAll(match[1], `\"`, `"`))
				there = append(there, "| "+strings.Join(cells, " | ")+" |")
			}
		}
		documented := row.FindAllString(text, -1)
		for _, line := range there {
			if !slices.Contains(documented, line) {
				t.Errorf("%s/README.md lacks the row\n%s", module, line)
			}
		}
		if len(documented) > len(there) {
			t.Errorf("%s/README.md has rows of variables or outputs that the module has not", module)
		}
		examples := glob(t, module, "examples/*/main.tf")
		if len(examples) == 0 {
			t.Errorf("%s has no example", module)
		}
		for _, example := range examples {
			if !strings.Contains(text, "```hcl\n"+read(t, example)+"```\n") {
				t.Errorf("%s/README.md does not show %s as it is", module, example)
			}
		}
	}
}

func glob(t *testing.T, module, pattern string) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(module, pattern))
	if err != nil {
		t.Fatal(err)
	}
	return paths
}
