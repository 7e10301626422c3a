locals {
  # The settings that have a variable of their own, in the program's name.
  own_settings = {
    GRPC_HEALTH_ADDR            = { variable = "grpc_addr", value = var.grpc_addr }
    GRPC_HEALTH_SERVICE_NAME    = { variable = "services", value = join(",", var.services) }
    GRPC_HEALTH_CONNECT_TIMEOUT = { variable = "connect_timeout", value = local.many ? null : "${var.connect_timeout}s" }
    GRPC_HEALTH_RPC_TIMEOUT     = { variable = "rpc_timeout", value = local.many ? null : "${var.rpc_timeout}s" }
    GRPC_HEALTH_TARGETS_FILE    = { variable = "targets", value = one(concat(aws_secretsmanager_secret.targets[*].arn, [for layer in aws_lambda_layer_version.targets : "/opt/${local.targets_file}"])) }
  }
  file_settings = [
    "GRPC_HEALTH_CA_CERT", "GRPC_HEALTH_CLIENT_CERT", "GRPC_HEALTH_CLIENT_KEY", "GRPC_HEALTH_HTTP_AUTH_TOKEN_FILE",
  ]
  other_settings = [
    "GRPC_HEALTH_ALL_ADDRESSES", "GRPC_HEALTH_MIN_HEALTHY_ADDRESSES", "GRPC_HEALTH_PAGE_TITLE",
    "GRPC_HEALTH_ALLOW_LIST", "GRPC_HEALTH_AUTHORITY", "GRPC_HEALTH_CONN_MAX_AGE", "GRPC_HEALTH_GZIP",
    "GRPC_HEALTH_LOG_FORMAT", "GRPC_HEALTH_LOG_LEVEL", "GRPC_HEALTH_MAX_CONCURRENT_CHECKS",
    "GRPC_HEALTH_SHOW_CAUSE", "GRPC_HEALTH_SNI_SERVER_NAME", "GRPC_HEALTH_TLS", "GRPC_HEALTH_TLS_NO_VERIFY", "GRPC_HEALTH_USER_AGENT",
  ]

  variable_for = merge(
    { for name, setting in local.own_settings : name => setting.variable },
    { for name in local.file_settings : name => "secrets" },
    # Metadata often is secret, and a value in settings is in the state, in the plan and in the console.
    { GRPC_HEALTH_RPC_HEADERS = "secret_headers" },
  )
  known_settings = concat(keys(local.variable_for), local.other_settings)

  environment = {
    for name, value in merge(
      var.settings,
      { for name, setting in local.own_settings : name => setting.value },
      var.secrets,
      { GRPC_HEALTH_RPC_HEADERS = join("\n", [for header, arn in var.secret_headers : "${header}: @${arn}"]) },
    ) : name => value if value != null && value != ""
  }

  # What belongs into the targets file, where there is one.
  upstream_settings = [for name in local.other_settings : name if contains(module.targets.keys, lower(trimprefix(name, "GRPC_HEALTH_")))]

  many = length(var.targets) > 0
  # For people.
  upstream = local.many ? "one of ${length(var.targets)} targets" : var.grpc_addr

  budget = local.many ? module.targets.budget : var.connect_timeout + var.rpc_timeout
  tls    = contains(["1", "t", "true"], lower(trimspace(coalesce(lookup(var.settings, "GRPC_HEALTH_TLS", null), "false"))))

  # Names of what an account has once, in whatever region, or that lies in another region than the function: two deployments of the
  # same name, in two regions, must not share a role, a topic or an alarm.
  name_anywhere = "${var.name}-${data.aws_region.current.region}"

  whole_arn = "^arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:[A-Za-z0-9/_+=.@-]+-[A-Za-z0-9]{6}(#.+)?$"

  # What the alarms tell people to do.
  manual  = "the project's docs/aws.md, When an alarm rings"
  console = "the log group ${aws_cloudwatch_log_group.function.name} in ${data.aws_region.current.region}"

  # Whoever finds the URL can call the function, at the account's cost.
  public = try(var.function_url == "NONE", false)

  # What the program writes metrics about: each service, of each target. "(server)" is how they call the whole server. A path asks for it.
  paths = {
    for service in local.many ? [] : length(var.services) == 0 ? [""] : var.services :
    service == "" ? "(server)" : service => "/?${service == "" ? "" : "service=${urlencode(service)}&"}format=json"
  }
  of_targets = merge([for target, services in module.targets.services : {
    for service in length(services) == 0 ? ["(server)"] : services : service == "(server)" ? target : "${target} ${service}" => { target = target, service = service }
  }]...)
  measured = merge(
    { for service in keys(local.paths) : service => { address = var.grpc_addr, dimensions = { Function = var.name, Service = service } } },
    { for name, one in local.of_targets : name => { address = module.targets.addresses[one.target], dimensions = { Function = var.name, Target = one.target, Service = one.service } } },
  )
  # What Route 53 asks for.
  queries = merge(local.paths, { for name, check in module.targets.checks : name => "/?${check.query == "" ? "" : "${check.query}&"}format=json" })

  # Where strangers could ask for any service.
  unnamed = local.many ? [for target, services in module.targets.services : target if length(services) == 0] : length(var.services) == 0 ? ["(server)"] : []
}

resource "aws_lambda_function" "health" {
  function_name    = var.name
  description      = "Answers with the health of ${local.many ? "${length(var.targets)} gRPC servers" : "the gRPC server ${var.grpc_addr}"}"
  role             = aws_iam_role.function.arn
  runtime          = "provided.al2023"
  handler          = "bootstrap"
  architectures    = [{ arm64 = "arm64", amd64 = "x86_64" }[var.architecture]]
  filename         = var.package
  source_code_hash = filebase64sha256(var.package)
  memory_size      = 256
  # Longer than any check, for the program answers 200 ms before it, and than a cold start.
  timeout                        = ceil(local.budget + 1)
  reserved_concurrent_executions = coalesce(var.concurrency_limit, local.public ? 10 : -1)

  # Another file is another version of the layer, and another configuration of the function, in use from the next invocation on.
  layers = aws_lambda_layer_version.targets[*].arn

  environment {
    variables = local.environment
  }

  # The program writes JSON itself, and metrics as lines of their own: Lambda must not wrap them.
  logging_config {
    log_format = "Text"
    log_group  = aws_cloudwatch_log_group.function.name
  }

  dynamic "vpc_config" {
    for_each = var.vpc[*]
    content {
      subnet_ids         = vpc_config.value.subnet_ids
      security_group_ids = vpc_config.value.security_group_ids
    }
  }

  # The network interfaces and the log need the role's rights from the first invocation on.
  depends_on = [aws_iam_role_policy.function]

  lifecycle {
    precondition {
      # https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
      condition     = length(join("", concat(keys(local.environment), values(local.environment)))) <= 4096
      error_message = "A function's environment has 4 KB in all: shorten services, settings or secrets."
    }

    # One upstream or many: not both.
    precondition {
      condition     = var.grpc_addr != null || local.many
      error_message = "grpc_addr: write the upstream with its port, such as grpc.example.com:443; or targets for many."
    }
    precondition {
      condition     = var.grpc_addr == null || !local.many
      error_message = "grpc_addr: is one upstream, and there are targets: leave it out, or write it as addr in one of them."
    }
    precondition {
      condition     = length(var.services) == 0 || !local.many
      error_message = "services: are of one upstream, and there are targets: write service_name in each, or in target_defaults."
    }
    precondition {
      condition     = length(var.secret_headers) == 0 || !local.many
      error_message = "secret_headers: are for one upstream, and there are targets: write rpc_headers = { HEADER = \"@arn:…\" } in each, or in target_defaults."
    }
    precondition {
      # The role may read these ARNs, so they have to be whole. A path can be in a layer of one's own, but not here.
      condition     = alltrue([for source in module.targets.sources : can(regex(local.whole_arn, source))])
      error_message = "targets: the function has no such file or secret: ${join(", ", [for source in module.targets.sources : source if !can(regex(local.whole_arn, source))])}: write a secret's whole ARN, arn:aws:secretsmanager:REGION:ACCOUNT:secret:NAME-xxxxxx (#KEY for one key of it)."
    }
  }
}

resource "aws_cloudwatch_log_group" "function" {
  name              = "/aws/lambda/${var.name}"
  retention_in_days = var.log_retention_days
}

resource "aws_iam_role" "function" {
  name = "${local.name_anywhere}-function"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "lambda.amazonaws.com" }
    }]
  })
}

# Only its own log, only the secrets that are named.
resource "aws_iam_role_policy" "function" {
  name = "function"
  role = aws_iam_role.function.name
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [for statement in [
      {
        Effect   = "Allow"
        Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
        Resource = ["${aws_cloudwatch_log_group.function.arn}:*"]
      },
      {
        Effect   = "Allow"
        Action   = ["secretsmanager:GetSecretValue"]
        Resource = distinct([for arn in concat(values(var.secrets), values(var.secret_headers), module.targets.sources, aws_secretsmanager_secret.targets[*].arn) : split("#", arn)[0]])
      },
      {
        Effect   = "Allow"
        Action   = ["kms:Decrypt"]
        Resource = sort(var.secret_kms_keys)
      },
      {
        # What attaching to a VPC takes; these have no narrower resource:
        # https://docs.aws.amazon.com/lambda/latest/dg/configuration-vpc.html#configuration-vpc-permissions
        Effect = "Allow"
        Action = [
          "ec2:CreateNetworkInterface", "ec2:DescribeNetworkInterfaces", "ec2:DescribeSubnets",
          "ec2:DeleteNetworkInterface", "ec2:AssignPrivateIpAddresses", "ec2:UnassignPrivateIpAddresses",
        ]
        Resource = var.vpc == null ? [] : ["*"]
      },
    ] : statement if length(statement.Resource) > 0]
  })
}

# A check that comes late is worth nothing: the next one is on its way.
resource "aws_lambda_function_event_invoke_config" "function" {
  function_name                = aws_lambda_function.health.function_name
  maximum_event_age_in_seconds = 60
  maximum_retry_attempts       = 0
}
