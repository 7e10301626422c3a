# Broken input: one run for each validation.

mock_provider "aws" {
  source = "../mocks/aws"
}

variables {
  package   = "main.tf"
  grpc_addr = "grpc.example.com:443"
}

run "name_with_spaces" {
  command = plan
  variables {
    name = "grpc health"
  }
  expect_failures = [var.name]
}

run "package_missing" {
  command = plan
  variables {
    package = "missing.zip"
  }
  expect_failures = [var.package]
}

run "architecture_by_lambdas_name" {
  command = plan
  variables {
    architecture = "x86_64"
  }
  expect_failures = [var.architecture]
}

run "address_without_port" {
  command = plan
  variables {
    grpc_addr = "grpc.example.com"
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
    secrets = { GRPC_CA_CERT = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:upstream-ca-AbCdEf" }
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

run "more_than_4_kb" {
  command = plan
  variables {
    settings = { RPC_HEADERS = "x-padding: ${join("", [for i in range(1024) : "pad!"])}" }
  }
  expect_failures = [aws_lambda_function.health]
}

run "secret_for_no_file" {
  command = plan
  variables {
    secrets = { USER_AGENT = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:agent-AbCdEf" }
  }
  expect_failures = [var.secrets]
}

run "certificate_without_key" {
  command = plan
  variables {
    settings = { GRPC_TLS = true }
    secrets  = { GRPC_CLIENT_CERT = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:client-AbCdEf#cert" }
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

run "header_that_grpc_keeps" {
  command = plan
  variables {
    secret_headers = { grpc-timeout = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:key-AbCdEf" }
  }
  expect_failures = [var.secret_headers]
}

run "header_with_capitals" {
  command = plan
  variables {
    secret_headers = { X-Api-Key = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:key-AbCdEf" }
  }
  expect_failures = [var.secret_headers]
}

run "key_by_alias" {
  command = plan
  variables {
    secret_kms_keys = ["arn:aws:kms:eu-central-1:123456789012:alias/secrets"]
  }
  expect_failures = [var.secret_kms_keys]
}

run "vpc_without_security_group" {
  command = plan
  variables {
    vpc = { subnet_ids = ["subnet-1"], security_group_ids = [] }
  }
  expect_failures = [var.vpc]
}

run "concurrency_of_zero" {
  command = plan
  variables {
    concurrency_limit = 0
  }
  expect_failures = [var.concurrency_limit]
}

run "retention_not_offered" {
  command = plan
  variables {
    log_retention_days = 10
  }
  expect_failures = [var.log_retention_days]
}

run "schedule_of_half_a_minute" {
  command = plan
  variables {
    schedule_minutes = 0.5
  }
  expect_failures = [var.schedule_minutes]
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
    secrets      = { HTTP_AUTH_TOKEN_FILE = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:token-AbCdEf" }
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

run "alert_to_no_address" {
  command = plan
  variables {
    alert_emails = ["#oncall"]
  }
  expect_failures = [var.alert_emails]
}
