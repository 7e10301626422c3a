locals {
  targets_file = "targets.yaml"
}

module "targets" {
  source = "../modules/targets"

  targets     = var.targets
  defaults    = var.target_defaults
  timeouts    = { connect_timeout = var.connect_timeout, rpc_timeout = var.rpc_timeout }
  checks      = var.checks
  most_checks = { number = 200, reason = "the most that alarms, rows of the dashboard and health checks are made for" }
  most_bytes = var.targets_in == "layer" ? { number = 4194304, advice = "the program takes no more: make two deployments" } : {
    number = 65536
    advice = "that is what a secret holds: write targets_in = \"layer\", or put what targets have in common into target_defaults"
  }
}

# The program fetches the file itself, at a request when what it has is 5 minutes old: a change needs no deployment.
resource "aws_secretsmanager_secret" "targets" {
  count = local.many && var.targets_in == "secret" ? 1 : 0

  # A deleted secret keeps its name for some time, so the next one has another.
  name_prefix             = "${var.name}-targets-"
  description             = "The upstreams that the function ${var.name} checks"
  recovery_window_in_days = 0 # it is made again from the configuration
}

resource "aws_secretsmanager_secret_version" "targets" {
  count = length(aws_secretsmanager_secret.targets)

  secret_id     = aws_secretsmanager_secret.targets[0].id
  secret_string = module.targets.content
}

data "archive_file" "targets" {
  count = local.many && var.targets_in == "layer" ? 1 : 0

  type             = "zip"
  output_path      = "${path.root}/.terraform/${var.name}-targets.zip"
  output_file_mode = "0644" # the same bytes, whatever the umask

  source {
    filename = local.targets_file
    content  = module.targets.content
  }
}

resource "aws_lambda_layer_version" "targets" {
  count = length(data.archive_file.targets)

  layer_name       = "${var.name}-targets"
  description      = "The upstreams that the function ${var.name} checks"
  filename         = data.archive_file.targets[0].output_path
  source_code_hash = data.archive_file.targets[0].output_base64sha256

  # The function leaves the old version before that goes.
  lifecycle {
    create_before_destroy = true
  }
}
