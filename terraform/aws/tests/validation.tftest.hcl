# Broken input, for each validation. Variables whose validations need no other variable share a run: each of them must fail.

mock_provider "aws" {
  source = "../mocks/aws"
}

variables {
  package   = "main.tf"
  grpc_addr = "grpc.example.com:443"
}

run "first" {
  command = plan
  variables {
    name               = "grpc health"                                                                           # a space
    architecture       = "x86_64"                                                                                # Lambda's name for it
    grpc_addr          = "grpc.example.com"                                                                      # no port
    services           = ["a,b"]                                                                                 # in one text
    connect_timeout    = 0                                                                                       # none
    rpc_timeout        = 0                                                                                       # none
    secret_headers     = { grpc-timeout = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:key-AbCdEf" } # gRPC's own
    secret_kms_keys    = ["arn:aws:kms:eu-central-1:123456789012:alias/secrets"]                                 # an alias
    vpc                = { subnet_ids = ["subnet-1"], security_group_ids = [] }                                  # no security group
    concurrency_limit  = 0                                                                                       # would stop it
    log_retention_days = 10                                                                                      # not offered
    schedule_minutes   = 0.5                                                                                     # not whole
    alert_emails       = ["#oncall"]                                                                             # no address
    certificate_days   = 0                                                                                       # never
  }
  expect_failures = [
    var.name, var.architecture, var.grpc_addr, var.services, var.connect_timeout, var.rpc_timeout, var.secret_headers,
    var.secret_kms_keys, var.vpc, var.concurrency_limit, var.log_retention_days, var.schedule_minutes, var.alert_emails,
    var.certificate_days,
  ]
}

run "second" {
  command = plan
  variables {
    name             = "a-name-of-forty-one-characters-for-a-role"                                          # for a role
    certificate_days = 366                                                                                  # more than a year
    package          = "missing.zip"                                                                        # not there
    services         = [for i in range(101) : "service${i}"]                                                # too many
    secret_headers   = { X-Api-Key = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:key-AbCdEf" } # capitals
    vpc              = { subnet_ids = [], security_group_ids = ["sg-1"] }                                   # no subnet
    schedule_minutes = 61                                                                                   # more than an hour
  }
  expect_failures = [var.name, var.certificate_days, var.package, var.services, var.secret_headers, var.vpc, var.schedule_minutes]
}

run "setting_with_a_variable_of_its_own" {
  command = plan
  variables {
    settings = { GRPC_HEALTH_ADDR = "grpc.example.com:443" }
  }
  expect_failures = [var.settings]
}

run "limit_below_none" {
  command = plan
  variables {
    concurrency_limit = -2
  }
  expect_failures = [var.concurrency_limit]
}

run "no_limit" {
  command = plan
  variables {
    services          = ["echo.EchoServer"]
    function_url      = "NONE"
    concurrency_limit = -1
  }
  assert {
    condition     = aws_lambda_function.health.reserved_concurrent_executions == -1
    error_message = "Accounts with a limit of 10 in all can reserve none."
  }
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
    secrets = { GRPC_HEALTH_CA_CERT = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:upstream-ca-AbCdEf" }
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

run "more_than_4_kb" {
  command = plan
  variables {
    settings = { GRPC_HEALTH_USER_AGENT = join("", [for i in range(1024) : "pad!"]) }
  }
  expect_failures = [aws_lambda_function.health]
}

run "secret_for_no_file" {
  command = plan
  variables {
    secrets = { GRPC_HEALTH_USER_AGENT = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:agent-AbCdEf" }
  }
  expect_failures = [var.secrets]
}

run "certificate_without_key" {
  command = plan
  variables {
    settings = { GRPC_HEALTH_TLS = true }
    secrets  = { GRPC_HEALTH_CLIENT_CERT = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:client-AbCdEf#cert" }
  }
  expect_failures = [var.secrets]
}

run "secret_without_its_suffix" {
  command = plan
  variables {
    secret_headers = { x-api-key = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:key" }
  }
  expect_failures = [var.secrets]
}

run "url_auth_not_offered" {
  command = plan
  variables {
    function_url = "PUBLIC"
  }
  expect_failures = [var.function_url]
}

run "public_url_without_services" {
  command = plan
  variables {
    function_url = "NONE"
  }
  expect_failures = [var.function_url]
}

run "route53_without_url" {
  command = plan
  variables {
    services = ["echo.EchoServer"]
    route53  = {}
  }
  expect_failures = [var.route53]
}

run "route53_with_iam" {
  command = plan
  variables {
    services     = ["echo.EchoServer"]
    function_url = "AWS_IAM"
    route53      = {}
  }
  expect_failures = [var.route53]
}

run "route53_with_token" {
  command = plan
  variables {
    services     = ["echo.EchoServer"]
    function_url = "NONE"
    route53      = {}
    secrets      = { GRPC_HEALTH_HTTP_AUTH_TOKEN_FILE = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:token-AbCdEf" }
  }
  expect_failures = [var.route53]
}

run "budget_beyond_route53" {
  command = plan
  variables {
    services     = ["echo.EchoServer"]
    function_url = "NONE"
    route53      = {}
    rpc_timeout  = 1.1
  }
  expect_failures = [var.route53]
}

run "interval_not_offered" {
  command = plan
  variables {
    services     = ["echo.EchoServer"]
    function_url = "NONE"
    route53      = { interval = 60 }
  }
  expect_failures = [var.route53]
}

run "region_without_checkers" {
  command = plan
  variables {
    services     = ["echo.EchoServer"]
    function_url = "NONE"
    route53      = { regions = ["eu-west-1", "us-east-1", "eu-central-1"] }
  }
  expect_failures = [var.route53]
}

run "fewer_than_three_regions" {
  command = plan
  variables {
    services     = ["echo.EchoServer"]
    function_url = "NONE"
    route53      = { regions = ["eu-west-1", "us-east-1"] }
  }
  expect_failures = [var.route53]
}

run "path_too_long_for_route53" {
  command = plan
  variables {
    services     = [join("", [for i in range(60) : "name"])]
    function_url = "NONE"
    route53      = {}
  }
  expect_failures = [var.route53]
}
