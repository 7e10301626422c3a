# Broken input, one run for each validation: this file is the same in gcp-function and gcp-cloudrun (a test compares).

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
  image      = "europe-west1-docker.pkg.dev/my-project/images/grpc-health-http:v1" # of gcp-cloudrun
}

run "name_too_short_for_a_service_account" {
  command = plan
  variables {
    name = "short"
  }
  expect_failures = [var.name]
}

run "name_too_long_for_a_bucket" {
  command = plan
  variables {
    name = "a-name-of-many-characters"
  }
  expect_failures = [var.name]
}

run "address_without_port" {
  command = plan
  variables {
    grpc_addr = "grpc.example.com"
  }
  expect_failures = [var.grpc_addr]
}

run "address_of_ipv6" {
  command = plan
  variables {
    grpc_addr = "[2001:db8::1]:443"
  }
}

run "address_of_ipv6_without_brackets" {
  command = plan
  variables {
    grpc_addr = "2001:db8::1:443"
  }
  expect_failures = [var.grpc_addr]
}

run "address_as_dns_target" {
  command = plan
  variables {
    grpc_addr = "dns:///grpc.example.com:443"
  }
}

run "address_as_url" {
  command = plan
  variables {
    grpc_addr = "https://grpc.example.com:443"
  }
  expect_failures = [var.grpc_addr]
}

run "services_in_one_text" {
  command = plan
  variables {
    services = ["a,b"]
  }
  expect_failures = [var.services]
}

run "too_many_services" {
  command = plan
  variables {
    services = [for i in range(101) : "service${i}"]
  }
  expect_failures = [var.services]
}

run "connect_timeout_of_zero" {
  command = plan
  variables {
    connect_timeout = 0
  }
  expect_failures = [var.connect_timeout]
}

run "rpc_timeout_of_zero" {
  command = plan
  variables {
    rpc_timeout = 0
  }
  expect_failures = [var.rpc_timeout]
}

run "setting_with_a_variable_of_its_own" {
  command = plan
  variables {
    settings = { GRPC_ADDR = "grpc.example.com:443" }
  }
  expect_failures = [var.settings]
}

run "setting_misspelt" {
  command = plan
  variables {
    settings = { GRPC_TSL = true }
  }
  expect_failures = [var.settings]
}

run "ca_without_tls" {
  command = plan
  variables {
    secrets = { GRPC_CA_CERT = { secret = "upstream-ca" } }
  }
  expect_failures = [var.settings]
}

run "server_name_without_tls" {
  command = plan
  variables {
    settings = { GRPC_SNI_SERVER_NAME = "grpc.example.com" }
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
    secrets = { GRPC_ADDR = { secret = "address" } }
  }
  expect_failures = [var.secrets]
}

run "certificate_without_key" {
  command = plan
  variables {
    settings = { GRPC_TLS = true }
    secrets  = { GRPC_CLIENT_CERT = { secret = "client-cert" } }
  }
  expect_failures = [var.secrets]
}

run "secret_mounted_twice" {
  command = plan
  variables {
    settings = { GRPC_TLS = true }
    secrets = {
      GRPC_CLIENT_CERT = { secret = "client" }
      GRPC_CLIENT_KEY  = { secret = "client" }
    }
  }
  expect_failures = [var.secrets]
}

run "secret_mounted_twice_by_a_header" {
  command = plan
  variables {
    uptime_check   = null
    secrets        = { HTTP_AUTH_TOKEN_FILE = { secret = "token" } }
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
    secrets = { HTTP_AUTH_TOKEN_FILE = { secret = "caller-token" } }
  }
  expect_failures = [var.secrets]
}

run "header_that_grpc_keeps" {
  command = plan
  variables {
    secret_headers = { grpc-timeout = { secret = "api-key" } }
  }
  expect_failures = [var.secret_headers]
}

run "header_with_capitals" {
  command = plan
  variables {
    secret_headers = { X-Api-Key = { secret = "api-key" } }
  }
  expect_failures = [var.secret_headers]
}

run "audience_without_scheme" {
  command = plan
  variables {
    settings = { GRPC_TLS = true }
    id_token = { audience = "upstream-abc.a.run.app", service = "upstream" }
  }
  expect_failures = [var.id_token]
}

run "vpc_of_nothing" {
  command = plan
  variables {
    vpc = {}
  }
  expect_failures = [var.vpc]
}

run "invoker_without_a_kind" {
  command = plan
  variables {
    invokers = ["sre@example.com"]
  }
  expect_failures = [var.invokers]
}

run "period_not_offered" {
  command = plan
  variables {
    uptime_check = { period = 30 }
  }
  expect_failures = [var.uptime_check]
}

run "timeout_not_offered" {
  command = plan
  variables {
    uptime_check = { timeout = 61 }
  }
  expect_failures = [var.uptime_check]
}

run "budget_beyond_the_checkers_timeout" {
  command = plan
  variables {
    rpc_timeout = 9.5
  }
  expect_failures = [var.uptime_check]
}

run "budget_without_a_checker" {
  command = plan
  variables {
    rpc_timeout  = 90
    uptime_check = null
  }
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

run "usa_is_three_places" {
  command = plan
  variables {
    uptime_check = { regions = ["USA"] }
  }
}

run "alert_to_no_address" {
  command = plan
  variables {
    alert_emails = ["#oncall"]
  }
  expect_failures = [var.alert_emails]
}

run "channel_by_display_name" {
  command = plan
  variables {
    notification_channels = ["oncall"]
  }
  expect_failures = [var.notification_channels]
}
