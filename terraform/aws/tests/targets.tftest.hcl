# Many upstreams.

mock_provider "aws" {
  source = "../mocks/aws"
}

mock_provider "archive" {
  source = "../mocks/archive"
}

variables {
  package = "main.tf" # any file: nothing is uploaded
  targets = {
    checkout = { addr = "checkout.internal:443", service_name = ["checkout.v1.Checkout", "checkout.v1.Refunds"], group = "payments" }
    ledger   = { addr = "ledger.internal:443", group = "payments", rpc_timeout = "3s", rpc_headers = { authorization = "@arn:aws:secretsmanager:eu-central-1:123456789012:secret:ledger-AbCdEf#token" } }
    search   = { addr = "search.internal:50051", tls = false }
  }
  target_defaults = { tls = true, ca_cert = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:ca-AbCdEf" }
}

run "each_target" {
  # The file.
  assert {
    condition     = aws_secretsmanager_secret_version.targets[0].secret_string == module.targets.content && aws_secretsmanager_secret_version.targets[0].secret_id == aws_secretsmanager_secret.targets[0].id
    error_message = "The file may hold secrets, so it is one."
  }
  assert {
    condition     = aws_lambda_function.health.environment[0].variables == tomap({ GRPC_HEALTH_TARGETS_FILE = aws_secretsmanager_secret.targets[0].arn })
    error_message = "The program refuses settings of one upstream beside a targets file: ${jsonencode(aws_lambda_function.health.environment[0].variables)}."
  }
  assert {
    condition     = length(aws_lambda_layer_version.targets) == 0 && aws_lambda_function.health.layers == null || length(aws_lambda_function.health.layers) == 0
    error_message = "There is one file."
  }
  assert {
    condition = toset(flatten([for statement in jsondecode(aws_iam_role_policy.function.policy).Statement : statement.Resource if contains(statement.Action, "secretsmanager:GetSecretValue")])) == toset([
      aws_secretsmanager_secret.targets[0].arn,
      "arn:aws:secretsmanager:eu-central-1:123456789012:secret:ledger-AbCdEf",
      "arn:aws:secretsmanager:eu-central-1:123456789012:secret:ca-AbCdEf",
    ])
    error_message = "The role may read the file, and the secrets that it names, by their ARNs without keys, and no others."
  }
  assert {
    condition     = aws_lambda_function.health.timeout == 5 && aws_lambda_function.health.description == "Answers with the health of 3 gRPC servers"
    error_message = "The slowest target, of 0.5 s and 3 s, decides."
  }

  # The schedule.
  assert {
    condition     = [for schedule in aws_scheduler_schedule.check : "${schedule.name} ${schedule.target[0].input}"] == ["grpc-health {}"]
    error_message = "One invocation checks up to 100 targets side by side."
  }

  # Who rings.
  assert {
    condition = { for name, alarm in aws_cloudwatch_metric_alarm.up : name => alarm.dimensions } == {
      "checkout checkout.v1.Checkout" = tomap({ Function = "grpc-health", Target = "checkout", Service = "checkout.v1.Checkout" })
      "checkout checkout.v1.Refunds"  = tomap({ Function = "grpc-health", Target = "checkout", Service = "checkout.v1.Refunds" })
      ledger                          = tomap({ Function = "grpc-health", Target = "ledger", Service = "(server)" })
      search                          = tomap({ Function = "grpc-health", Target = "search", Service = "(server)" })
    }
    error_message = "The alarms find the metrics by the names that the program writes."
  }
  assert {
    condition     = alltrue([for alarm in aws_cloudwatch_metric_alarm.up : alarm.alarm_actions == toset([output.alarm_topics["eu-central-1"]]) && alarm.ok_actions == alarm.alarm_actions]) && length(aws_cloudwatch_composite_alarm.up) == 0
    error_message = "Each target rings."
  }
  assert {
    condition     = strcontains(aws_cloudwatch_metric_alarm.up["ledger"].alarm_description, "ledger.internal:443 does not say SERVING") && aws_cloudwatch_metric_alarm.up["ledger"].alarm_name == "grpc-health: ledger not serving"
    error_message = "Who is woken up reads which server it is about."
  }
  assert {
    condition     = { for target, alarm in aws_cloudwatch_metric_alarm.certificate_of_target : target => alarm.dimensions.Service } == { checkout = "checkout.v1.Checkout", ledger = "(server)" } && length(aws_cloudwatch_metric_alarm.certificate) == 0
    error_message = "A target has one certificate, where it has TLS."
  }
  assert {
    condition = alltrue([for alarm in values(aws_cloudwatch_metric_alarm.certificate_of_target) :
      alarm.metric_name == "CertificateDaysLeft" && alarm.dimensions.Target != "" && alarm.treat_missing_data == "ignore" && alarm.threshold == 14 && alarm.statistic == "Minimum" && length(alarm.alarm_actions) == 1 && strcontains(alarm.alarm_description, "What to do: ")
    ])
    error_message = "The alarm finds the metric by the name that the program writes."
  }

  # The dashboard.
  assert {
    condition = [for widget in jsondecode(aws_cloudwatch_dashboard.targets[0].dashboard_body).widgets : "${widget.x} ${widget.y} ${widget.properties.title} ${length(widget.properties.metrics)}"] == [
      "0 0 checkout: serving 2", "12 0 checkout: time to the verdict (milliseconds) 2",
      "0 4 ledger: serving 1", "12 4 ledger: time to the verdict (milliseconds) 1",
      "0 8 search: serving 1", "12 8 search: time to the verdict (milliseconds) 1",
    ]
    error_message = "A row for each target: ${aws_cloudwatch_dashboard.targets[0].dashboard_body}"
  }
  assert {
    condition     = jsondecode(aws_cloudwatch_dashboard.targets[0].dashboard_body).widgets[2].properties.metrics[0] == ["GrpcHealth", "Up", "Function", "grpc-health", "Target", "ledger", "Service", "(server)"]
    error_message = "The dashboard finds the metrics by the names that the program writes."
  }
}

run "each_group" {
  variables {
    checks = "group"
  }
  assert {
    condition     = { for name, alarm in aws_cloudwatch_metric_alarm.up : name => length(alarm.alarm_actions) + length(alarm.ok_actions) } == { "checkout checkout.v1.Checkout" = 0, "checkout checkout.v1.Refunds" = 0, ledger = 0, search = 2 }
    error_message = "A target of a group does not ring by itself, and one without a group does."
  }
  assert {
    condition     = { for name, alarm in aws_cloudwatch_composite_alarm.up : name => alarm.alarm_rule } == { "payments (group)" = "ALARM(\"grpc-health: checkout checkout.v1.Checkout not serving\") OR ALARM(\"grpc-health: checkout checkout.v1.Refunds not serving\") OR ALARM(\"grpc-health: ledger not serving\")" }
    error_message = "A group rings where any of its targets does not serve."
  }
  assert {
    condition     = alltrue([for alarm in aws_cloudwatch_composite_alarm.up : alarm.alarm_actions == toset([output.alarm_topics["eu-central-1"]]) && alarm.ok_actions == alarm.alarm_actions && strcontains(alarm.alarm_description, "What to do: ") && length(alarm.alarm_description) <= 1024])
    error_message = "The alarm tells somebody what to do, and also when it is over."
  }
  assert {
    condition     = [for widget in jsondecode(aws_cloudwatch_dashboard.targets[0].dashboard_body).widgets : "${widget.properties.title} ${length(widget.properties.metrics)}" if widget.x == 0] == ["payments (group): serving 3", "search: serving 1"]
    error_message = "A row for each group."
  }
}

run "all_at_once" {
  variables {
    checks = "all"
  }
  assert {
    condition     = keys(aws_cloudwatch_composite_alarm.up) == ["(all)"] && alltrue([for alarm in aws_cloudwatch_metric_alarm.up : length(alarm.alarm_actions) == 0])
    error_message = "One alarm rings."
  }
}

run "one_target_for_all" {
  variables {
    checks  = "all"
    targets = { search = { addr = "search.internal:50051" } }
  }
  assert {
    condition     = keys(aws_cloudwatch_composite_alarm.up) == ["(all)"] && length(aws_cloudwatch_metric_alarm.up["search"].alarm_actions) == 0
    error_message = "What rings does not depend on how many targets there are."
  }
}

run "more_than_one_invocation_checks" {
  variables {
    targets         = { for i in range(150) : "t${i}" => { addr = "t:${i}", group = i < 149 ? "g${i % 2}" : null } }
    target_defaults = {}
  }
  assert {
    condition = [for schedule in aws_scheduler_schedule.check : "${schedule.name} ${schedule.target[0].input}"] == [
      "grpc-health {\"group\":\"g0\"}", "grpc-health-2 {\"group\":\"g1\"}", "grpc-health-3 {\"target\":\"t149\"}",
    ]
    error_message = "Beyond 100 targets each group has an invocation of its own: they run side by side."
  }
  assert {
    condition     = alltrue([for schedule in aws_scheduler_schedule.check : schedule.schedule_expression == "rate(1 minute)" && schedule.target[0].retry_policy[0].maximum_retry_attempts == 0])
    error_message = "Each is made each minute, and a late one says nothing about now."
  }
  assert {
    condition     = toset(keys(aws_cloudwatch_composite_alarm.up)) == toset(["g0 (group)", "g1 (group)"]) && length(aws_cloudwatch_metric_alarm.up) == 150 && length(aws_cloudwatch_metric_alarm.up["t149"].alarm_actions) == 1
    error_message = "Beyond 50 targets groups ring."
  }
}

run "in_a_layer" {
  variables {
    targets_in = "layer"
  }
  assert {
    condition     = one(one(data.archive_file.targets).source).content == module.targets.content && one(one(data.archive_file.targets).source).filename == "targets.yaml"
    error_message = "The layer has the file."
  }
  assert {
    condition     = aws_lambda_function.health.layers == tolist([aws_lambda_layer_version.targets[0].arn]) && aws_lambda_function.health.environment[0].variables == tomap({ GRPC_HEALTH_TARGETS_FILE = "/opt/targets.yaml" })
    error_message = "Lambda has layers in /opt."
  }
  assert {
    condition     = aws_lambda_layer_version.targets[0].source_code_hash == data.archive_file.targets[0].output_base64sha256 && aws_lambda_layer_version.targets[0].filename == data.archive_file.targets[0].output_path
    error_message = "Another file is another version of the layer: its hash tells."
  }
  assert {
    condition     = length(aws_secretsmanager_secret.targets) == 0
    error_message = "There is one file."
  }
}

run "route53" {
  variables {
    checks          = "group"
    function_url    = "NONE"
    route53         = {}
    targets         = { checkout = { addr = "checkout.internal:443", group = "payments" }, search = { addr = "search.internal:50051" } }
    target_defaults = { service_name = "a" }
  }
  assert {
    condition     = { for name, check in aws_route53_health_check.service : name => check.resource_path } == { "payments (group)" = "/?group=payments&format=json", search = "/?target=search&format=json" }
    error_message = "A health check for each group, and each target without one."
  }
  assert {
    condition     = toset(keys(aws_cloudwatch_metric_alarm.route53)) == toset(["payments (group)", "search"]) && toset(keys(output.health_check_ids)) == toset(["payments (group)", "search"])
    error_message = "Each health check has an alarm."
  }
}

run "one_as_well" {
  command = plan
  variables {
    grpc_addr = "grpc.example.com:443"
  }
  expect_failures = [aws_lambda_function.health]
}

run "services_as_well" {
  command = plan
  variables {
    services = ["quiz"]
  }
  expect_failures = [aws_lambda_function.health]
}

run "headers_as_well" {
  command = plan
  variables {
    secret_headers = { x-api-key = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:key-AbCdEf" }
  }
  expect_failures = [aws_lambda_function.health]
}

run "neither" {
  command = plan
  variables {
    targets         = {}
    target_defaults = {}
  }
  expect_failures = [aws_lambda_function.health]
}

run "a_path_that_nobody_makes" {
  command = plan
  variables {
    target_defaults = { tls = true, ca_cert = "/etc/ca.pem" }
  }
  expect_failures = [aws_lambda_function.health]
}

run "an_arn_that_is_not_whole" {
  command = plan
  variables {
    target_defaults = { tls = true, ca_cert = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:ca" }
  }
  expect_failures = [aws_lambda_function.health]
}

run "setting_of_one_upstream" {
  command = plan
  variables {
    settings = { GRPC_HEALTH_TLS = true }
  }
  expect_failures = [var.settings]
}

run "secret_of_one_upstream" {
  command = plan
  variables {
    secrets = { GRPC_HEALTH_CA_CERT = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:ca-AbCdEf" }
  }
  expect_failures = [var.secrets]
}

run "strangers_choose_the_service" {
  command = plan
  variables {
    function_url = "NONE"
  }
  expect_failures = [var.function_url]
}

run "defaults_and_checks_of_nothing" {
  command = plan
  variables {
    grpc_addr  = "grpc.example.com:443"
    targets    = {}
    checks     = "group"
    targets_in = "environment"
  }
  expect_failures = [var.target_defaults, var.checks, var.targets_in]
}

run "more_alarms_than_a_composite_one_takes" {
  command = plan
  variables {
    checks          = "group"
    targets         = { checkout = { addr = "checkout.internal:443", group = "payments", service_name = [for i in range(101) : "service${i}"] } }
    target_defaults = {}
  }
  expect_failures = [aws_cloudwatch_composite_alarm.up]
}
