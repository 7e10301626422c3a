//go:build long

// Package terraform tests the Terraform modules and their examples. It has tests only.
package terraform

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"example.com/grpc-health-http/internal/settings"
)

// image is an image for the module of Google Cloud, which deploys the function without one.
const image = "europe-west1-docker.pkg.dev/my-project/images/grpc-health-http:v1"

// deployments are what the modules deploy: whether the program listens by itself there, and which of its
// variables it has no use for, and why.
var deployments = map[string][]struct {
	name     string
	image    string
	listens  bool
	unwanted map[string]string
}{
	"gcp": {
		{name: "function"},
		{name: "cloudrun", image: image, listens: true, unwanted: map[string]string{
			"GRPC_HEALTH_HTTP_LISTEN_ADDR":    "PORT says where to listen",
			"GRPC_HEALTH_METRICS_HTTP_PATH":   "the sidecar knows the default",
			"GRPC_HEALTH_HTTPS_LISTEN_CERT":   "TLS ends in front of the container",
			"GRPC_HEALTH_HTTPS_LISTEN_KEY":    "TLS ends in front of the container",
			"GRPC_HEALTH_HTTPS_LISTEN_VERIFY": "TLS ends in front of the container",
			"GRPC_HEALTH_HTTPS_LISTEN_CA":     "TLS ends in front of the container",
			"GRPC_HEALTH_CHECK_INTERVAL":      "an instance gets CPU time for requests alone",
		}},
	},
	"aws": {
		{name: "lambda", unwanted: map[string]string{
			"GRPC_HEALTH_ALTS":                         "works on Google Cloud only",
			"GRPC_HEALTH_ALTS_TARGET_SERVICE_ACCOUNTS": "works on Google Cloud only",
			"GRPC_HEALTH_ID_TOKEN_AUDIENCE":            "works on Google Cloud only",
		}},
	},
	ecs: {
		{name: "ecs", listens: true, unwanted: map[string]string{
			"GRPC_HEALTH_ALTS":                         "works on Google Cloud only",
			"GRPC_HEALTH_ALTS_TARGET_SERVICE_ACCOUNTS": "works on Google Cloud only",
			"GRPC_HEALTH_ID_TOKEN_AUDIENCE":            "works on Google Cloud only",
			"GRPC_HEALTH_HTTP_AUTH_TOKEN_FILE":         "a load balancer's health checks send none",
			"GRPC_HEALTH_HTTP_LISTEN_PATH":             "health checks over gRPC have paths of their own",
			"GRPC_HEALTH_HTTPS_LISTEN_CERT":            "the health checks use no TLS",
			"GRPC_HEALTH_HTTPS_LISTEN_KEY":             "the health checks use no TLS",
			"GRPC_HEALTH_HTTPS_LISTEN_VERIFY":          "a load balancer shows no client certificate",
			"GRPC_HEALTH_HTTPS_LISTEN_CA":              "a load balancer shows no client certificate",
			"GRPC_HEALTH_METRICS_HTTP_LISTEN_ADDR":     "nobody is let in there",
			"GRPC_HEALTH_METRICS_HTTP_PATH":            "nobody is let in there",
			"GRPC_HEALTH_CHECK_INTERVAL":               "the load balancer asks",
			"GRPC_HEALTH_TARGETS_FILE":                 "the load balancer asks about the server beside the proxy",
		}},
	},
}

// ecs is the example of a server behind a load balancer of AWS. It has no module, and is tested as they are.
const ecs = "../example/ecs"

// madeHere names a file that the modules make: it is given as targets, and never as a secret.
const madeHere = "GRPC_HEALTH_TARGETS_FILE"

// nowhere are the variables that none of these platforms has a use for, and why.
var nowhere = map[string]string{
	"GRPC_HEALTH_SPIFFE":           "there is no Workload API",
	"GRPC_HEALTH_SPIFFE_SERVER_ID": "there is no Workload API",
	"GRPC_HEALTH_USE_PROXY":        "HTTPS_PROXY, which it obeys, is no setting of the program's",
}

// messages are settings and variables that a module refuses, and what it says about them.
var messages = map[string]struct {
	module, variables string
	want              []string
}{
	"function": {
		module: "gcp",
		variables: `
  settings = {
    GZIP                       = true
    GRPC_TLS                   = true
    GRPC_HEALTH_ADDR           = "grpc.example.com:443"
    GRPC_HEALTH_CLIENT_KEY     = "key.pem"
    GRPC_HEALTH_RPC_HEADERS    = "authorization: Bearer abc"
    GRPC_HEALTH_TSL            = true
    GRPC_HEALTH_SHUTDOWN_GRACE = "5s"
  }
`,
		want: []string{
			"write GRPC_HEALTH_TLS instead of GRPC_TLS, GRPC_HEALTH_GZIP instead of GZIP.",
			"write grpc_addr instead of GRPC_HEALTH_ADDR, secrets instead of GRPC_HEALTH_CLIENT_KEY, secret_headers instead of GRPC_HEALTH_RPC_HEADERS.",
			"settings: GRPC_HEALTH_SHUTDOWN_GRACE, GRPC_HEALTH_TSL cannot be set here:",
		},
	},
	"function_is_not_cloudrun": {
		module: "gcp",
		variables: `
  path                = "/health"
  http2               = true
  deletion_protection = true
  metrics_sidecar     = true
  load_balancer       = { domain = "health.example.com", client_cas = ["-----BEGIN CERTIFICATE-----"] }
`,
		want: []string{
			"path: the function answers every path: leave path out, or give an image for Cloud Run.",
			"http2: a function speaks HTTP/1.1 behind its URL, and no gRPC: leave http2 out, or give an image for Cloud Run.",
			"deletion_protection: a function has none: leave deletion_protection out, or give an image for Cloud Run.",
			"metrics_sidecar: a function has no metrics port and no sidecar: leave metrics_sidecar out, or give an image for Cloud Run.",
			"load_balancer: a function takes no ID tokens for a domain: leave load_balancer out, or give an image for Cloud Run.",
		},
	},
	"targets": {
		module: "gcp",
		variables: `
  grpc_addr      = null
  targets = {
    "check out" = { address = "checkout.internal:443" }
    ledger      = { addr = "ledger.internal:443", CA_CERT = "ca.pem", services = ["a"], colour = "red", rpc_timeout = 2, group = "-" }
    search      = { log_level = "debug", addr = "search.internal:443" }
  }
  target_defaults = { connect_timeout = "1s", rpc-headers = ["a: b"] }
`,
		want: []string{
			`targets: not a name of a target: [\"check out\"]: write 1 to 63 letters,`,
			"target_defaults: write rpc_headers instead of rpc-headers; targets.check out: write addr instead of address; targets.ledger: write ca_cert instead of CA_CERT; " +
				"targets.ledger: no such key: colour; targets.ledger: write service_name instead of services; targets.search: no such key: log_level. The keys are addr, all_addresses,",
			"targets.ledger: not a name of a group:",
			"targets.ledger.rpc_timeout: a time is text with a unit:",
			"targets: no addr: check out: write addr =",
			"target_defaults: the variables connect_timeout and rpc_timeout of this module, in seconds, are the defaults: leave connect_timeout out here.",
		},
	},
	"targets_and_one": {
		module: "gcp",
		variables: `
  services       = ["quiz"]
  secret_headers = { x-api-key = { secret = "api-key" } }
  targets        = { search = { addr = "search.internal:443", ca_cert = "/secrets/ca/value" } }
  secrets        = { backend-ca = { secret = "backend-ca" } }
`,
		want: []string{
			"grpc_addr: is one upstream, and there are targets: leave it out, or write it as addr in one of them.",
			"services: are of one upstream, and there are targets: write service_name in each, or in target_defaults.",
			"secret_headers: are for one upstream, and there are targets: mount the secret by a NAME in secrets,",
			`targets: nothing is mounted there: /secrets/ca/value. What secrets mounts is [\"/secrets/backend-ca/value\"].`,
		},
	},
	"targets_and_settings": {
		module: "gcp",
		variables: `
  grpc_addr = null
  targets   = { search = { addr = "search.internal:443" } }
  settings  = { GRPC_HEALTH_TLS = true, GRPC_HEALTH_CONN_MAX_AGE = "1s", GRPC_HEALTH_LOG_LEVEL = "debug" }
`,
		want: []string{
			"settings: are the whole deployment's where there are targets: write conn_max_age in targets or target_defaults instead of GRPC_HEALTH_CONN_MAX_AGE, tls in targets or target_defaults instead of GRPC_HEALTH_TLS.",
		},
	},
	"targets_and_secrets": {
		module: "gcp",
		variables: `
  grpc_addr = null
  targets   = { search = { addr = "search.internal:443" } }
  secrets   = { GRPC_HEALTH_CA_CERT = { secret = "upstream-ca" } }
`,
		want: []string{"secrets: with targets write a name for each,"},
	},
	"targets_file": {
		module:    "gcp",
		variables: `settings = { GRPC_HEALTH_TARGETS_FILE = "/targets.yaml" }`,
		want:      []string{"write targets instead of GRPC_HEALTH_TARGETS_FILE."},
	},
	"cloudrun": {
		module: "gcp",
		variables: `
  image                 = "` + image + `"
  settings              = { GRPC_HEALTH_METRICS_HTTP_LISTEN_ADDR = ":9000" }
  source_dir            = "../.."
  build_service_account = "projects/p/serviceAccounts/build@p.iam.gserviceaccount.com"
`,
		want: []string{
			"write metrics_sidecar instead of GRPC_HEALTH_METRICS_HTTP_LISTEN_ADDR.",
			"source_dir: an image is not built from source: leave source_dir out, or write image = null for the function.",
			"build_service_account: an image is not built here: leave build_service_account out, or write image = null for the function.",
		},
	},
	"lambda": {
		module: "aws",
		variables: `
  settings = {
    SERVICE_NAME            = "quiz"
    GRPC_CLIENT_CERT        = "cert.pem"
    GRPC_HEALTH_RPC_TIMEOUT = "2s"
    GRPC_HEALTH_CA_CERT     = "ca.pem"
    GRPC_HEALTH_RPC_HEADERS = "authorization: Bearer abc"
    GRPC_HEALTH_ALTS        = true
  }
`,
		want: []string{
			"write GRPC_HEALTH_CLIENT_CERT instead of GRPC_CLIENT_CERT, GRPC_HEALTH_SERVICE_NAME instead of SERVICE_NAME.",
			"write secrets instead of GRPC_HEALTH_CA_CERT, secret_headers instead of GRPC_HEALTH_RPC_HEADERS, rpc_timeout instead of GRPC_HEALTH_RPC_TIMEOUT.",
			"settings: GRPC_HEALTH_ALTS cannot be set here:",
		},
	},
	"lambda_targets": {
		module: "aws",
		variables: `
  services        = ["quiz"]
  secret_headers  = { x-api-key = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:key-AbCdEf" }
  targets         = { search = { addr = "search.internal:443", tls = true, ca_cert = "ca.pem", client_cert = "/opt/client.pem" } }
`,
		want: []string{
			"grpc_addr: is one upstream, and there are targets: leave it out, or write it as addr in one of them.",
			"services: are of one upstream, and there are targets: write service_name in each, or in target_defaults.",
			"secret_headers: are for one upstream, and there are targets: write rpc_headers = ",
			"targets: the function has no such file or secret: /opt/client.pem: write a secret's whole ARN,",
		},
	},
	"lambda_targets_without": {
		module: "aws",
		variables: `
  grpc_addr    = null
  targets      = { search = { address = "search.internal:443" } }
  settings     = { GRPC_HEALTH_TLS = true, GRPC_HEALTH_PAGE_TITLE = "targets" }
  secrets      = { GRPC_HEALTH_CA_CERT = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:ca-AbCdEf" }
`,
		want: []string{
			"secrets: are the whole function's where there are targets: write ca_cert in targets or target_defaults instead of GRPC_HEALTH_CA_CERT, with the secret's ARN.",
			"targets.search: write addr instead of address.",
		},
	},
	"ecs": {
		module: ecs,
		variables: `
  health_port              = 50051
  server_image             = "echo"
  load_balancer_subnet_ids = ["subnet-0123456789abcdef0"]
  cpu                      = 512
  memory                   = 512
  rpc_timeout              = 5
`,
		want: []string{
			"health_port: the containers of a task share their ports, and 50051 is taken: 9000 is the proxy's metrics, 50051 the server.",
			"server_image: write the image with its tag or digest,",
			"load_balancer_subnet_ids: write the IDs of two subnets or more,",
			"memory: with cpu = 512 Fargate has 1024, 2048, 3072, 4096.",
			"health_check: the proxy answers within connect_timeout and rpc_timeout, 6 s: write a timeout above that,",
		},
	},
	"ecs_settings": {
		module: ecs,
		variables: `
  settings = {
    SERVICE_NAME                     = "quiz"
    GRPC_HEALTH_ADDR                 = "localhost:50051"
    GRPC_HEALTH_CA_CERT              = "ca.pem"
    GRPC_HEALTH_HTTP_AUTH_TOKEN_FILE = "/token"
  }
`,
		want: []string{
			"write GRPC_HEALTH_SERVICE_NAME instead of SERVICE_NAME.",
			"write grpc_port instead of GRPC_HEALTH_ADDR, secrets instead of GRPC_HEALTH_CA_CERT.",
			"settings: GRPC_HEALTH_HTTP_AUTH_TOKEN_FILE cannot be set here:",
		},
	},
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
		"TF_PLUGIN_CACHE_DIR="+tf.cache, "TF_PLUGIN_CACHE_MAY_BREAK_DEPENDENCY_LOCK_FILE=1",
		// Terraform and its providers live for a moment here: collecting their garbage less often takes a seventh of the time off.
		"GOGC=400")
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

// modules are the folders with a configuration, relative to this one: modules, nested ones, examples, and the example for ECS.
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

// walk visits the files below this folder and of the example for ECS, but for what Terraform makes.
func walk(t *testing.T, visit func(path string)) {
	t.Helper()
	for _, root := range []string{".", ecs} {
		err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
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
	terraformDir = filepath.Join(root, "terraform")
	for module := range deployments {
		write(filepath.Join(terraformDir, module, "tests", "program.tftest.hcl"), programTest(module))
	}
	write(filepath.Join(terraformDir, ecs, "tests", "readme.tftest.hcl"), readmeTest(t))
	gcp := filepath.Join(terraformDir, "gcp")
	for _, name := range []string{"both", "targets"} {
		write(filepath.Join(gcp, "tests", name+"_cloudrun.tftest.hcl"), withImage(t, read(t, filepath.Join("gcp", "tests", name+".tftest.hcl"))))
	}
	write(filepath.Join(gcp, "tests", "upload.tftest.hcl"), uploadTest(t))
	for name, refused := range messages {
		write(filepath.Join(terraformDir, refused.module, "messages", name+".tftest.hcl"),
			mocks(refused.module)+fmt.Sprintf("variables {%s}\n\nrun \"refused\" {\n  command = plan\n  variables {%s}\n}\n", required, refused.variables))
	}
	return terraformDir
}

func TestFormat(t *testing.T) {
	t.Parallel()
	program, err := exec.LookPath("terraform")
	if err != nil {
		t.Skipf("Terraform is not installed: %v", err)
	}
	for _, dir := range []string{".", ecs} {
		if out, err := (cli{program: program}).run(dir, "fmt", "-check", "-diff", "-recursive", "-no-color"); err != nil {
			t.Errorf("terraform fmt -recursive %s: %v\n%s", dir, err, out)
		}
	}
}

// TestModules initialises, validates and tests each module and each example. Their test files run beside each other.
func TestModules(t *testing.T) {
	t.Parallel()
	tf := find(t)
	tree := copyTree(t)
	var initialise sync.Mutex // the cache of providers takes one at a time
	for _, module := range modules(t) {
		dir := filepath.Join(tree, module)
		t.Run(module, func(t *testing.T) {
			t.Parallel()
			initialise.Lock()
			out, err := tf.run(dir, "init", "-backend=false", "-input=false", "-no-color")
			initialise.Unlock()
			if err != nil {
				t.Fatalf("terraform init: %v\n%s", err, out)
			}
			if out, err := tf.run(dir, "validate", "-no-color"); err != nil {
				if module == ecs && strings.Contains(string(out), `does not support resource type "aws_ecs_`) {
					t.Skipf("the provider at hand is one for the modules alone: .ci/run adds what it lacks\n%s", out)
				}
				t.Fatalf("terraform validate: %v\n%s", err, out)
			}
			files := append(glob(t, dir, "*.tftest.hcl"), glob(t, dir, "tests/*.tftest.hcl")...)
			if len(files) == 0 {
				t.Error("there is no test")
			}
			for _, path := range files {
				file, err := filepath.Rel(dir, path)
				if err != nil {
					t.Fatal(err)
				}
				t.Run(filepath.Base(file), func(t *testing.T) {
					t.Parallel()
					out, err := tf.run(dir, "test", "-no-color", "-filter="+file)
					if err != nil {
						t.Fatalf("terraform test: %v\n%s", err, out)
					}
					if passed := regexp.MustCompile(`Success! [1-9]\d* passed, 0 failed\.`); !passed.Match(out) {
						t.Errorf("terraform test: no test ran:\n%s", out)
					}
				})
			}
			for name, refused := range messages {
				if refused.module != module {
					continue
				}
				t.Run("messages/"+name, func(t *testing.T) {
					t.Parallel()
					out, err := tf.run(dir, "test", "-json", "-test-directory=messages", "-filter="+filepath.Join("messages", name+".tftest.hcl"))
					if err == nil {
						t.Error("nothing is refused")
					}
					for _, want := range refused.want {
						if !strings.Contains(string(out), want) {
							t.Errorf("terraform does not say %q:\n%s", want, out)
						}
					}
				})
			}
		})
	}
}

// mocks are the providers of a test that is written here, for any of the modules.
func mocks(module string) string {
	folder := "../mocks"
	if module == ecs {
		folder = "../../terraform/mocks"
	}
	var text string
	for _, provider := range []string{"google", "archive", "aws"} {
		text += fmt.Sprintf("mock_provider %q {\n  source = %q\n}\n\n", provider, folder+"/"+provider)
	}
	return text
}

// required are the variables without a default, of any of the modules.
const required = `
  project_id = "my-project"
  region     = "europe-west1"
  package    = "main.tf"
  grpc_addr  = "grpc.example.com:443"

  server_image             = "ghcr.io/example/echo-server:v1.0.0"
  proxy_image              = "ghcr.io/example/grpc-health-http:v0.1.0"
  vpc_id                   = "vpc-0123456789abcdef0"
  subnet_ids               = ["subnet-0123456789abcdef0"]
  load_balancer_subnet_ids = ["subnet-0123456789abcdef0", "subnet-0fedcba9876543210"]
  allowed_cidrs            = ["10.0.0.0/8"]
  certificate_arn          = "arn:aws:acm:eu-central-1:123456789012:certificate/01234567-89ab-cdef-0123-456789abcdef"
`

// withImage is a test for the function made one for Cloud Run.
func withImage(t *testing.T, text string) string {
	t.Helper()
	const variables = "\nvariables {\n"
	if strings.Count(text, variables) != 1 {
		t.Fatal("there is no place for the image")
	}
	return strings.Replace(text, variables, fmt.Sprintf("%s  image = %q\n", variables, image), 1)
}

// programTest is a test of Terraform that compares the names of the settings in a module with those
// that the program declares.
func programTest(module string) string {
	text := mocks(module) + fmt.Sprintf("variables {%s}\n", required)
	for _, deployment := range deployments[module] {
		var all, files []string
		for _, v := range settings.Variables() {
			if v.Listener && !deployment.listens || deployment.unwanted[v.Name] != "" || nowhere[v.Name] != "" {
				continue
			}
			all = append(all, v.Name)
			if v.File && v.Name != madeHere {
				files = append(files, v.Name)
			}
		}
		image := ""
		if deployment.image != "" {
			image = fmt.Sprintf("\n  variables {\n    image = %q\n  }", deployment.image)
		}
		text += fmt.Sprintf(`
run %[1]q {
  command = plan%[2]s
  assert {
    condition     = toset(local.known_settings) == toset(%[3]s)
    error_message = "The module's settings are not the program's: ${jsonencode(local.known_settings)}, and not %[5]s"
  }
  assert {
    condition     = toset(local.file_settings) == toset(%[4]s)
    error_message = "The settings that name files are not the program's."
  }
}
`, deployment.name, image, list(all), list(files), strings.Join(all, " "))
	}
	return text
}

// readmeTest is a test of Terraform with the variables that the example's README shows.
func readmeTest(t *testing.T) string {
	t.Helper()
	_, text, found := strings.Cut(read(t, filepath.Join(ecs, "README.md")), "```hcl\n")
	variables, _, ended := strings.Cut(text, "```\n")
	if !found || !ended {
		t.Fatal("the README shows no variables")
	}
	return mocks(ecs) + "variables {\n" + variables + `}

run "readme" {
  assert {
    condition     = aws_lb_target_group.grpc.health_check[0].matcher == "0" && length(var.repository_arns) == 2
    error_message = "The README's variables are enough."
  }
}
`
}

// uploadTest is a test of Terraform that compares what the function's archive takes of the repository
// with what gcloud would upload.
func uploadTest(t *testing.T) string {
	t.Helper()
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	tracked, uploaded := upload(t)
	return mocks("gcp") + fmt.Sprintf(`variables {%[4]s  source_dir = %[1]q
}

run "upload" {
  command = plan
  assert {
    condition = setsubtract(%[2]s, flatten([
      for glob in data.archive_file.source[0].excludes : concat(tolist(fileset(%[1]q, glob)), tolist(fileset(%[1]q, "${glob}/**")))
    ])) == toset(%[3]s)
    error_message = "What is uploaded is what gcloud uploads."
  }
}
`, root, list(tracked), list(uploaded), required)
}

// upload returns the repository's files, and those that gcloud would upload: all but those that .gcloudignore names.
func upload(t *testing.T) (tracked, uploaded []string) {
	t.Helper()
	git := func(args ...string) []string {
		cmd := exec.Command("git", append([]string{"ls-files", "-z", "--cached"}, args...)...)
		cmd.Dir = ".."
		out, err := cmd.Output()
		if err != nil {
			t.Skipf("what is uploaded is told by git, in a checkout: %v", err)
		}
		return strings.Split(strings.TrimRight(string(out), "\x00"), "\x00")
	}
	tracked = git()
	ignored := git("--ignored", "--exclude-from=.gcloudignore")
	uploaded = slices.DeleteFunc(slices.Clone(tracked), func(name string) bool { return slices.Contains(ignored, name) })
	if !slices.Contains(uploaded, "function.go") || len(ignored) == 0 {
		t.Fatalf("git tells that this is uploaded: %q", uploaded)
	}
	return tracked, uploaded
}

// TestUpload compares the folders that are uploaded with the packages that the function is made of.
func TestUpload(t *testing.T) {
	t.Parallel()
	_, uploaded := upload(t)
	cmd := exec.Command("go", "list", "-deps", "-f", "{{with .Module}}{{if .Main}}{{$.ImportPath}}{{end}}{{end}}", ".")
	cmd.Dir = ".."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	needed := make(map[string]bool)
	for pkg := range strings.FieldsSeq(string(out)) {
		needed[strings.TrimPrefix(strings.TrimPrefix(pkg, "example.com/grpc-health-http"), "/")] = true
	}
	for _, name := range uploaded {
		dir, file := path.Split(name)
		inRoot := dir == "" && (path.Ext(file) == ".go" || slices.Contains([]string{"go.mod", "go.sum", "LICENSE"}, file))
		if !inRoot && (dir == "" || !needed[strings.TrimSuffix(dir, "/")]) {
			t.Errorf("%s is uploaded with the function, which does not need it: name it in .gcloudignore", name)
		}
	}
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
		if module == ecs {
			continue // is an example itself
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
