# Broken input, for each validation. Variables whose validations need no other variable share a run: each of them must fail.
# What only the function refuses is in function.tftest.hcl.

mock_provider "google" {
  source = "../mocks/google"
}

mock_provider "archive" {
  source = "../mocks/archive"
}

variables {
  project_id = "my-project"
  region     = "europe-west1"
  grpc_addr  = "grpc.example.com:443"
  image      = "europe-west1-docker.pkg.dev/my-project/images/grpc-health-http:v1"
}

run "first" {
  command = plan
  variables {
    name                  = "short"                                                                                 # for a service account
    grpc_addr             = "grpc.example.com"                                                                      # no port
    services              = ["a,b"]                                                                                 # in one text
    connect_timeout       = 0                                                                                       # none
    rpc_timeout           = 0                                                                                       # none
    secret_headers        = { grpc-timeout = { secret = "api-key" } }                                               # gRPC's own
    vpc                   = {}                                                                                      # of nothing
    invokers              = ["sre@example.com"]                                                                     # without a kind
    alert_emails          = ["#oncall"]                                                                             # no address
    notification_channels = ["oncall"]                                                                              # by display name
    certificate_days      = 15                                                                                      # the log is silent
    max_instances         = 0                                                                                       # none
    concurrency           = 0                                                                                       # none
    path                  = "/healthz"                                                                              # Cloud Run's own
    load_balancer         = { domain = "https://health.example.com", client_cas = ["-----BEGIN CERTIFICATE-----"] } # a URL
  }
  expect_failures = [
    var.name, var.grpc_addr, var.services, var.connect_timeout, var.rpc_timeout, var.secret_headers, var.vpc, var.invokers,
    var.alert_emails, var.notification_channels, var.max_instances, var.concurrency, var.path, var.load_balancer, var.certificate_days,
  ]
}

run "second" {
  command = plan
  variables {
    name             = "a-name-of-many-characters"                                   # for a bucket
    grpc_addr        = "2001:db8::1:443"                                             # IPv6 without brackets
    services         = [for i in range(101) : "service${i}"]                         # too many
    id_token         = { audience = "upstream-abc.a.run.app", service = "upstream" } # no scheme
    secret_headers   = { X-Api-Key = { secret = "api-key" } }                        # capitals
    uptime_check     = { period = 30 }                                               # not offered
    concurrency      = 1001                                                          # more than the platform takes
    certificate_days = 0                                                             # never
    min_instances    = 4                                                             # more than at most
    path             = "/livez"                                                      # taken
    load_balancer    = { domain = "health.example.com", client_cas = ["ca.pem"] }    # a path
  }
  expect_failures = [
    var.name, var.grpc_addr, var.services, var.id_token, var.secret_headers, var.uptime_check, var.concurrency, var.min_instances, var.certificate_days,
    var.path, var.load_balancer,
  ]
}

run "third" {
  command = plan
  variables {
    grpc_addr             = "https://grpc.example.com:443"                                                 # a URL
    uptime_check          = { timeout = 61 }                                                               # not offered
    min_instances         = -1                                                                             # less than none
    path                  = "/health?format=json"                                                          # a query
    load_balancer         = { domain = "health.example.com", client_cas = [] }                             # lets nobody in
    source_dir            = "../.."                                                                        # of the function
    build_service_account = "projects/my-project/serviceAccounts/build@my-project.iam.gserviceaccount.com" # of the function
  }
  expect_failures = [var.grpc_addr, var.uptime_check, var.min_instances, var.path, var.load_balancer, var.source_dir, var.build_service_account]
}

run "image_without_tag" {
  command = plan
  variables {
    image = "europe-west1-docker.pkg.dev/my-project/images/grpc-health-http"
  }
  expect_failures = [var.image]
}

run "accepted" {
  command = plan
  variables {
    grpc_addr    = "[2001:db8::1]:443"
    image        = "europe-west1-docker.pkg.dev/my-project/images/grpc-health-http@sha256:${sha256("image")}"
    uptime_check = { regions = ["USA"] } # which is three places
  }
}

run "accepted_as_well" {
  command = plan
  variables {
    grpc_addr    = "dns:///grpc.example.com:443"
    rpc_timeout  = 90
    uptime_check = null # nobody gives up before the answer
  }
}

run "setting_with_a_variable_of_its_own" {
  command = plan
  variables {
    settings = { GRPC_HEALTH_ADDR = "grpc.example.com:443" }
  }
  expect_failures = [var.settings]
}

run "headers_among_the_settings" {
  command = plan
  variables {
    settings = { GRPC_HEALTH_RPC_HEADERS = "authorization: Bearer abc" }
  }
  expect_failures = [var.settings]
}

run "setting_without_prefix" {
  command = plan
  variables {
    settings = { GZIP = true }
  }
  expect_failures = [var.settings]
}

run "setting_with_a_secret_of_its_own" {
  command = plan
  variables {
    settings = { GRPC_HEALTH_TLS = true, GRPC_HEALTH_CA_CERT = "ca.pem" }
  }
  expect_failures = [var.settings]
}

run "setting_misspelt" {
  command = plan
  variables {
    settings = { GRPC_HEALTH_TSL = true }
  }
  expect_failures = [var.settings]
}

run "ca_without_tls" {
  command = plan
  variables {
    secrets = { GRPC_HEALTH_CA_CERT = { secret = "upstream-ca" } }
  }
  expect_failures = [var.settings]
}

run "server_name_without_tls" {
  command = plan
  variables {
    settings = { GRPC_HEALTH_SNI_SERVER_NAME = "grpc.example.com" }
  }
  expect_failures = [var.settings]
}

run "id_token_without_tls" {
  command = plan
  variables {
    id_token = { audience = "https://upstream-abc.a.run.app", service = "upstream" }
  }
  expect_failures = [var.settings]
}

run "secret_for_no_file" {
  command = plan
  variables {
    secrets = { GRPC_HEALTH_ADDR = { secret = "address" } }
  }
  expect_failures = [var.secrets]
}

run "certificate_without_key" {
  command = plan
  variables {
    settings = { GRPC_HEALTH_TLS = true }
    secrets  = { GRPC_HEALTH_CLIENT_CERT = { secret = "client-cert" } }
  }
  expect_failures = [var.secrets]
}

run "secret_mounted_twice" {
  command = plan
  variables {
    settings = { GRPC_HEALTH_TLS = true }
    secrets = {
      GRPC_HEALTH_CLIENT_CERT = { secret = "client" }
      GRPC_HEALTH_CLIENT_KEY  = { secret = "client" }
    }
  }
  expect_failures = [var.secrets]
}

run "secret_mounted_twice_by_a_header" {
  command = plan
  variables {
    uptime_check   = null
    secrets        = { GRPC_HEALTH_HTTP_AUTH_TOKEN_FILE = { secret = "token" } }
    secret_headers = { x-api-key = { secret = "token" } }
  }
  expect_failures = [var.secrets]
}

run "secret_as_resource_name" {
  command = plan
  variables {
    secret_headers = { x-api-key = { secret = "projects/my-project/secrets/api-key" } }
  }
  expect_failures = [var.secrets]
}

run "token_beside_the_uptime_check" {
  command = plan
  variables {
    secrets = { GRPC_HEALTH_HTTP_AUTH_TOKEN_FILE = { secret = "caller-token" } }
  }
  expect_failures = [var.secrets]
}

run "budget_beyond_the_checkers_timeout" {
  command = plan
  variables {
    rpc_timeout = 9.5
  }
  expect_failures = [var.uptime_check]
}

run "region_not_offered" {
  command = plan
  variables {
    uptime_check = { regions = ["USA", "EU"] }
  }
  expect_failures = [var.uptime_check]
}

run "fewer_than_three_places" {
  command = plan
  variables {
    uptime_check = { regions = ["EUROPE", "ASIA_PACIFIC"] }
  }
  expect_failures = [var.uptime_check]
}
