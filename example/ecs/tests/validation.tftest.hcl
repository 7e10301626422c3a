# Broken input, for each validation. Variables whose validations need no other variable share a run: each of them must fail.

mock_provider "aws" {
  source = "../../terraform/mocks/aws"
}

variables {
  server_image             = "ghcr.io/example/echo-server:v1.0.0"
  proxy_image              = "ghcr.io/example/grpc-health-http:v0.1.0"
  vpc_id                   = "vpc-0123456789abcdef0"
  subnet_ids               = ["subnet-0123456789abcdef0"]
  load_balancer_subnet_ids = ["subnet-0123456789abcdef0", "subnet-0fedcba9876543210"]
  allowed_cidrs            = ["10.0.0.0/8"]
  certificate_arn          = "arn:aws:acm:eu-central-1:123456789012:certificate/01234567-89ab-cdef-0123-456789abcdef"
}

run "first" {
  command = plan
  variables {
    name                     = "grpc_server"                                           # an underscore
    server_image             = "https://ghcr.io/example/echo-server"                   # a URL
    proxy_image              = "ghcr.io/example/grpc-health-http"                      # no tag
    repository_arns          = ["arn:aws:ecr:eu-central-1:123456789012:repository/*"]  # all of them
    grpc_port                = 0                                                       # none
    services                 = ["a,b"]                                                 # in one text
    connect_timeout          = 0                                                       # none
    rpc_timeout              = -1                                                      # none
    secret_kms_keys          = ["arn:aws:kms:eu-central-1:123456789012:alias/secrets"] # an alias
    task_role_arn            = "echo"                                                  # a name
    vpc_id                   = "default"                                               # a name
    subnet_ids               = []                                                      # none
    load_balancer_subnet_ids = ["subnet-0123456789abcdef0"]                            # one zone
    allowed_cidrs            = []                                                      # nobody
    certificate_arn          = "echo.example.com"                                      # a name
    desired_count            = 0                                                       # none
    cpu                      = 300                                                     # not offered
    architecture             = "x86_64"                                                # ECS' name for it
    log_retention_days       = 10                                                      # not offered
  }
  expect_failures = [
    var.name, var.server_image, var.proxy_image, var.repository_arns, var.grpc_port, var.services, var.connect_timeout, var.rpc_timeout,
    var.secret_kms_keys, var.task_role_arn, var.vpc_id, var.subnet_ids, var.load_balancer_subnet_ids, var.allowed_cidrs, var.certificate_arn,
    var.desired_count, var.cpu, var.architecture, var.log_retention_days,
  ]
}

run "second" {
  command = plan
  variables {
    name          = "a-name-of-thirty-three-characters" # for a load balancer
    allowed_cidrs = ["2001:db8::/32"]                   # IPv6
    grpc_port     = 50051.5                             # not whole
    memory        = 500                                 # not offered
  }
  expect_failures = [var.name, var.allowed_cidrs, var.grpc_port, var.memory]
}

run "third" {
  command = plan
  variables {
    health_port   = 65536            # none
    name          = "internal-echo"  # reserved
    allowed_cidrs = ["10.0.0.1"]     # an address
    server_image  = "echo server:v1" # a space
    subnet_ids    = ["a"]            # a name
  }
  expect_failures = [var.name, var.allowed_cidrs, var.server_image, var.subnet_ids, var.health_port]
}

run "the_port_of_the_server" {
  command = plan
  variables {
    health_port = 50051
  }
  expect_failures = [var.health_port]
}

run "the_port_of_the_metrics" {
  command = plan
  variables {
    health_port = 9000
  }
  expect_failures = [var.health_port]
}

run "a_timeout_that_is_as_long_as_the_interval" {
  command = plan
  variables {
    health_check = { interval = 5, timeout = 5 }
  }
  expect_failures = [var.health_check]
}

run "one_check_is_enough" {
  command = plan
  variables {
    health_check = { unhealthy_threshold = 1 }
  }
  expect_failures = [var.health_check]
}

run "a_timeout_below_the_proxys" {
  command = plan
  variables {
    health_check = { timeout = 2 }
  }
  expect_failures = [var.health_check]
}

run "a_setting_with_a_variable_of_its_own" {
  command = plan
  variables {
    settings = { GRPC_HEALTH_SERVICE_NAME = "echo.EchoServer" }
  }
  expect_failures = [var.settings]
}

run "a_setting_without_its_prefix" {
  command = plan
  variables {
    settings = { GRPC_TLS = true }
  }
  expect_failures = [var.settings]
}

run "a_setting_that_nobody_has" {
  command = plan
  variables {
    settings = { GRPC_HEALTH_TSL = true }
  }
  expect_failures = [var.settings]
}

run "a_token_that_no_load_balancer_sends" {
  command = plan
  variables {
    settings = { GRPC_HEALTH_HTTP_AUTH_TOKEN_FILE = "/token" }
  }
  expect_failures = [var.settings]
}

run "a_server_name_without_TLS" {
  command = plan
  variables {
    settings = { GRPC_HEALTH_SNI_SERVER_NAME = "echo.example.com" }
  }
  expect_failures = [var.settings]
}

run "a_CA_without_TLS" {
  command = plan
  variables {
    secrets = { GRPC_HEALTH_CA_CERT = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:ca-AbCdEf" }
  }
  expect_failures = [var.settings]
}

run "a_certificate_without_its_key" {
  command = plan
  variables {
    settings = { GRPC_HEALTH_TLS = true }
    secrets  = { GRPC_HEALTH_CLIENT_CERT = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:cert-AbCdEf" }
  }
  expect_failures = [var.secrets]
}

run "a_secret_without_its_suffix" {
  command = plan
  variables {
    settings = { GRPC_HEALTH_TLS = true }
    secrets  = { GRPC_HEALTH_CA_CERT = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:ca" }
  }
  expect_failures = [var.secrets]
}

run "a_setting_that_is_no_secret" {
  command = plan
  variables {
    secrets = { GRPC_HEALTH_TLS = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:ca-AbCdEf" }
  }
  expect_failures = [var.secrets]
}
