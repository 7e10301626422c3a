//go:build long

package terraform

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/grpc-health-http/internal/settings"
)

// every is a configuration with the module that makes the targets file. Together the targets have every key.
const every = `
variable "token" {
  default   = "of a variable that is sensitive"
  sensitive = true
}

# Is known after the plan only, as the address of a load balancer is.
resource "terraform_data" "address" {
  input = "late.internal"
}

# Needs to know which checks there are before it is known where the upstream is.
resource "terraform_data" "check" {
  for_each = module.targets.checks
}

module "targets" {
  source = "../modules/targets"

  targets = {
    "0.a_B-9" = {
      addr                  = "dns:///a.internal:443"
      group                 = "the.group"
      service_name          = ["a.A", "b#b:[c]"]
      connect_timeout       = "250ms"
      rpc_timeout           = "1.5s"
      conn_max_age          = "0"
      user_agent            = "checks \"all\": yes # no"
      authority             = "authority.example.com"
      gzip                  = true
      tls                   = true
      ca_cert               = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
      client_cert           = "/secrets/cert/value"
      client_key            = "/secrets/key/value"
      sni_server_name       = "true"
      all_addresses         = true
      min_healthy_addresses = "67%"
      rpc_headers = {
        authorization = "@/secrets/token/value"
        x-absent      = null
        x-number      = 12
        x-text        = "null"
        x-token       = var.token
        x-yaml        = "*a & b: {c} <d>"
      }
    }
    alts = {
      addr                         = "alts.internal:443"
      alts                         = true
      alts_target_service_accounts = ["a@b.iam.gserviceaccount.com", "c@d.iam.gserviceaccount.com"]
      use_proxy                    = "false"
    }
    late = {
      addr         = "${terraform_data.address.output}:443"
      service_name = "a, b"
      rpc_headers  = ["x-a: b: c", "x-d: e"]
      group        = ""
    }
    noverify = {
      addr              = "[2001:db8::1]:443"
      tls               = true
      tls_no_verify     = true
      id_token_audience = "https://audience.example.com"
      min_healthy_addresses = 2
      all_addresses     = true
      gzip              = null
    }
    spiffe = {
      addr             = "spiffe.internal:443"
      spiffe           = true
      spiffe_server_id = "spiffe://example.com/server"
    }
  }
  defaults    = { group = "default", gzip = true }
  timeouts    = { connect_timeout = 0.5, rpc_timeout = 2 }
  checks      = null
  most_checks = { number = 100, reason = "a quota" }
  most_bytes  = { number = 65536, advice = "make two" }
}

output "content" {
  value     = module.targets.content
  sensitive = true
}

output "keys" {
  value = module.targets.keys
}
`

// TestTargets compares what the program reads of the file that the modules make with what was written in Terraform.
func TestTargets(t *testing.T) {
	t.Parallel()
	tf := find(t)
	tree := copyTree(t)
	dir := filepath.Join(tree, "every")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "main.tf"), []byte(every), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"init", "-input=false", "-no-color"}, {"apply", "-auto-approve", "-input=false", "-no-color"}} {
		if out, err := tf.run(dir, args...); err != nil {
			t.Fatalf("terraform %s: %v\n%s", args[0], err, out)
		}
	}
	state, err := os.ReadFile(filepath.Join(dir, "terraform.tfstate"))
	if err != nil {
		t.Fatal(err)
	}
	var outputs struct {
		Outputs struct {
			Content struct{ Value string }
			Keys    struct{ Value []string }
		}
	}
	if err := json.Unmarshal(state, &outputs); err != nil {
		t.Fatal(err)
	}
	content, keys := outputs.Outputs.Content.Value, outputs.Outputs.Keys.Value

	got, _, err := new(settings.Settings).ReadTargets([]byte(content))
	if err != nil {
		t.Fatalf("the program cannot read the file: %v\n%s", err, content)
	}
	base := settings.Upstream{ConnectTimeout: 500 * time.Millisecond, RPCTimeout: 2 * time.Second, ConnMaxAge: 10 * time.Second, UserAgent: got[0].UserAgent, Gzip: true}
	upstream := func(change func(*settings.Upstream)) settings.Upstream {
		u := base
		u.UserAgent = got[1].UserAgent // the program's own
		change(&u)
		return u
	}
	want := []settings.Target{
		{Name: "0.a_B-9", Group: "the.group", Upstream: upstream(func(u *settings.Upstream) {
			u.Addr, u.Services = "dns:///a.internal:443", []string{"a.A", "b#b:[c]"}
			u.ConnectTimeout, u.RPCTimeout, u.ConnMaxAge = 250*time.Millisecond, 1500*time.Millisecond, 0
			u.UserAgent, u.Authority = `checks "all": yes # no`, "authority.example.com"
			u.TLS, u.CACert, u.ClientCert, u.ClientKey = true, "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----", "/secrets/cert/value", "/secrets/key/value"
			u.ServerName, u.AllAddresses, u.MinHealthyAddresses = "true", true, "67%"
			u.Headers = []settings.Header{
				{Name: "authorization", File: "/secrets/token/value"},
				{Name: "x-number", Value: "12"},
				{Name: "x-text", Value: "null"},
				{Name: "x-token", Value: "of a variable that is sensitive"},
				{Name: "x-yaml", Value: "*a & b: {c} <d>"},
			}
		})},
		{Name: "alts", Group: "default", Upstream: upstream(func(u *settings.Upstream) {
			u.Addr, u.ALTS = "alts.internal:443", true
			u.ALTSTargetServiceAccounts = []string{"a@b.iam.gserviceaccount.com", "c@d.iam.gserviceaccount.com"}
		})},
		{Name: "late", Upstream: upstream(func(u *settings.Upstream) {
			u.Addr, u.Services = "late.internal:443", []string{"a", "b"}
			u.Headers = []settings.Header{{Name: "x-a", Value: "b: c"}, {Name: "x-d", Value: "e"}}
		})},
		{Name: "noverify", Group: "default", Upstream: upstream(func(u *settings.Upstream) {
			u.Addr, u.TLS, u.NoVerify, u.IDTokenAudience = "[2001:db8::1]:443", true, true, "https://audience.example.com"
			u.AllAddresses, u.MinHealthyAddresses = true, "2"
		})},
		{Name: "spiffe", Group: "default", Upstream: upstream(func(u *settings.Upstream) {
			u.Addr, u.SPIFFE, u.SPIFFEServerID = "spiffe.internal:443", true, "spiffe://example.com/server"
		})},
	}
	if len(got) != len(want) {
		t.Fatalf("%d targets, want %d", len(got), len(want))
	}
	for i := range want {
		if !reflect.DeepEqual(got[i], want[i]) {
			t.Errorf("target %s:\n got %+v\nwant %+v", want[i].Name, got[i], want[i])
		}
	}

	// The module knows the keys of the program, and the file above has each.
	var schema struct {
		Defs struct {
			Target struct{ Properties map[string]any }
		} `json:"$defs"`
	}
	if err := json.Unmarshal([]byte(read(t, "../docs/targets.schema.json")), &schema); err != nil {
		t.Fatal(err)
	}
	if len(schema.Defs.Target.Properties) != len(keys) {
		t.Errorf("the module knows %d keys, and the program %d", len(keys), len(schema.Defs.Target.Properties))
	}
	for key := range schema.Defs.Target.Properties {
		if !slices.Contains(keys, key) {
			t.Errorf("the module does not know the key %s", key)
		}
		if !strings.Contains(content, `"`+key+`":`) {
			t.Errorf("the test does not write the key %s", key)
		}
	}
}
