locals {
  # An empty object is what is configured.
  invocations = local.many ? module.targets.invocations : [{}]

  # Whose alarms ring by themselves; the others ring through a composite one.
  single_checks = [for name, check in module.targets.checks : name if length(check.targets) == 1 && check.query == "target=${check.targets[0]}"]
  joint_checks  = { for name, check in module.targets.checks : name => check.targets if !contains(local.single_checks, name) }
  below         = { for check, targets in local.joint_checks : check => [for name, one in local.of_targets : name if contains(targets, one.target)] }
  quiet         = merge([for targets in values(local.joint_checks) : { for target in targets : target => true }]...)
  tells = merge({ "" = [aws_sns_topic.alarms[data.aws_region.current.region].arn] }, {
    for target in module.targets.names : target => lookup(local.quiet, target, false) ? [] : [aws_sns_topic.alarms[data.aws_region.current.region].arn]
  })
}

# One invocation checks up to 100 targets side by side. Where there are more, each group has a schedule, and each target without one.
resource "aws_scheduler_schedule" "check" {
  count = var.schedule_minutes == null ? 0 : length(local.invocations)

  name                = count.index == 0 ? var.name : "${var.name}-${count.index + 1}"
  schedule_expression = var.schedule_minutes == 1 ? "rate(1 minute)" : "rate(${var.schedule_minutes} minutes)"

  flexible_time_window {
    mode = "OFF"
  }

  target {
    arn      = aws_lambda_function.health.arn
    role_arn = aws_iam_role.schedule[0].arn
    input    = jsonencode(local.invocations[count.index])

    retry_policy {
      maximum_event_age_in_seconds = 60
      maximum_retry_attempts       = 0
    }
  }
}

data "aws_caller_identity" "current" {}

resource "aws_iam_role" "schedule" {
  count = var.schedule_minutes == null ? 0 : 1

  name = "${local.name_anywhere}-schedule"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "scheduler.amazonaws.com" }
      # https://docs.aws.amazon.com/scheduler/latest/UserGuide/cross-service-confused-deputy-prevention.html
      Condition = { StringEquals = { "aws:SourceAccount" = data.aws_caller_identity.current.account_id } }
    }]
  })
}

resource "aws_iam_role_policy" "schedule" {
  count = var.schedule_minutes == null ? 0 : 1

  name = "invoke"
  role = aws_iam_role.schedule[0].name
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect   = "Allow"
      Action   = "lambda:InvokeFunction"
      Resource = aws_lambda_function.health.arn
    }]
  })
}

# Two of three checks, so that one lost invocation wakes nobody up. A check that says nothing counts as failed.
resource "aws_cloudwatch_metric_alarm" "up" {
  for_each = var.schedule_minutes == null ? {} : local.measured

  alarm_name          = "${var.name}: ${each.key} not serving"
  alarm_description   = <<-EOT
    ${each.value.address} does not say SERVING about ${each.key}, or the function ${var.name} does not say anything.
    What to do: look into ${local.console}. The latest warning has the phase, the cause and every attempt. Without any line the schedule or the function has stopped: see its metrics Invocations and Errors.
    More: ${local.manual}.
  EOT
  namespace           = "GrpcHealth"
  metric_name         = "Up"
  dimensions          = each.value.dimensions
  statistic           = "Minimum"
  comparison_operator = "LessThanThreshold"
  threshold           = 1
  period              = 60 * var.schedule_minutes
  evaluation_periods  = 3
  datapoints_to_alarm = 2
  treat_missing_data  = "breaching"
  alarm_actions       = local.tells[lookup(each.value.dimensions, "Target", "")]
  ok_actions          = local.tells[lookup(each.value.dimensions, "Target", "")]
}

# One call for a group, or for everything, whichever of its targets it is about. The alarms of the targets tell which.
resource "aws_cloudwatch_composite_alarm" "up" {
  for_each = var.schedule_minutes == null ? {} : local.joint_checks

  alarm_name        = "${var.name}: ${each.key} not serving"
  alarm_description = <<-EOT
    A target of ${each.key} does not say SERVING, or the function ${var.name} does not say anything.
    What to do: the alarms "${var.name}: TARGET not serving" tell which. Then look into ${local.console}. The latest warning about it has the phase, the cause and every attempt.
    More: ${local.manual}.
  EOT
  alarm_rule        = join(" OR ", [for name in local.below[each.key] : "ALARM(\"${aws_cloudwatch_metric_alarm.up[name].alarm_name}\")"])
  alarm_actions     = [aws_sns_topic.alarms[data.aws_region.current.region].arn]
  ok_actions        = [aws_sns_topic.alarms[data.aws_region.current.region].arn]

  lifecycle {
    precondition {
      # https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutCompositeAlarm.html
      condition     = length(local.below[each.key]) <= 100 && sum([for name in local.below[each.key] : length("${var.name}: ${name} not serving") + 13]) <= 10240
      error_message = "checks: ${each.key} is about more alarms than a composite one takes (100, of 10,240 characters together): make smaller groups, or write checks = \"target\"."
    }
  }
}

# An upstream has one certificate whatever the service, so one alarm does, on the checks of one service: the schedule and Route 53 ask
# for each. Where no value comes, the state stays: the alarm above is for that.
resource "aws_cloudwatch_metric_alarm" "certificate" {
  count = local.tls && !local.many && var.certificate_days != null ? 1 : 0

  alarm_name          = "${var.name}: a certificate ends soon"
  alarm_description   = <<-EOT
    The certificate of ${var.grpc_addr}, or the client certificate that ${var.name} shows to it, ends in less than ${var.certificate_days} days.
    What to do: Certificate in the metric's lines says which, in ${local.console}: upstream is renewed on the server, client in its secret. Where something renews it automatically, that has stopped.
    More: ${local.manual}.
  EOT
  namespace           = "GrpcHealth"
  metric_name         = "CertificateDaysLeft"
  dimensions          = { Function = aws_lambda_function.health.function_name, Service = sort(keys(local.paths))[0] }
  statistic           = "Minimum"
  comparison_operator = "LessThanThreshold"
  threshold           = var.certificate_days
  period              = 3600 # there is time; and a schedule of 60 minutes has a value in each
  evaluation_periods  = 1
  treat_missing_data  = "ignore"
  alarm_actions       = [aws_sns_topic.alarms[data.aws_region.current.region].arn]
  ok_actions          = [aws_sns_topic.alarms[data.aws_region.current.region].arn]
}

resource "aws_cloudwatch_metric_alarm" "certificate_of_target" {
  for_each = toset(var.certificate_days == null ? [] : module.targets.tls)

  alarm_name          = "${var.name}: a certificate of ${each.key} ends soon"
  alarm_description   = <<-EOT
    The certificate of ${module.targets.addresses[each.key]} (${each.key}), or the client certificate that ${var.name} shows to it, ends in less than ${var.certificate_days} days.
    What to do: Certificate in the metric's lines says which, in ${local.console}: upstream is renewed on the server, client in its secret. Where something renews it automatically, that has stopped.
    More: ${local.manual}.
  EOT
  namespace           = "GrpcHealth"
  metric_name         = "CertificateDaysLeft"
  dimensions          = { Function = var.name, Target = each.key, Service = coalescelist(sort(module.targets.services[each.key]), ["(server)"])[0] }
  statistic           = "Minimum"
  comparison_operator = "LessThanThreshold"
  threshold           = var.certificate_days
  period              = 3600
  evaluation_periods  = 1
  treat_missing_data  = "ignore"
  alarm_actions       = [aws_sns_topic.alarms[data.aws_region.current.region].arn]
  ok_actions          = [aws_sns_topic.alarms[data.aws_region.current.region].arn]
}

# A row for each target or group: what serves, and how long it takes to tell.
resource "aws_cloudwatch_dashboard" "targets" {
  count = local.many ? 1 : 0

  dashboard_name = var.name
  dashboard_body = jsonencode({
    widgets = flatten([for row, name in keys(module.targets.checks) : [for column, chart in [
      { metric = "Up", statistic = "Minimum", title = "${name}: serving" },
      { metric = "Latency", statistic = "Maximum", title = "${name}: time to the verdict (milliseconds)" },
      ] : {
      type   = "metric"
      x      = 12 * column
      y      = 4 * row
      width  = 12
      height = 4
      properties = {
        title  = chart.title
        region = data.aws_region.current.region
        stat   = chart.statistic
        period = 60 * coalesce(var.schedule_minutes, 1)
        metrics = [for one in values(local.of_targets) :
          ["GrpcHealth", chart.metric, "Function", var.name, "Target", one.target, "Service", one.service]
          if contains(module.targets.checks[name].targets, one.target)
        ]
        yAxis = { left = chart.metric == "Up" ? { min = 0, max = 1 } : { min = 0 } }
      }
    }]])
  })
}

data "aws_region" "current" {}

# An alarm tells a topic of its own region. SNS gives the topic that exists to whoever makes one of the same name, and would delete it with
# either: so it waits for the function, whose name nobody else in the region can take.
resource "aws_sns_topic" "alarms" {
  for_each = toset(concat([data.aws_region.current.region], var.route53 == null ? [] : ["us-east-1"]))

  region = each.key
  name   = "${local.name_anywhere}-alarms"

  depends_on = [aws_lambda_function.health]
}

resource "aws_sns_topic_subscription" "email" {
  for_each = {
    for pair in setproduct(keys(aws_sns_topic.alarms), var.alert_emails) : join(" ", pair) => { region = pair[0], address = pair[1] }
  }

  region    = each.value.region
  topic_arn = aws_sns_topic.alarms[each.value.region].arn
  protocol  = "email"
  endpoint  = each.value.address
}
