resource "aws_scheduler_schedule" "check" {
  count = var.schedule_minutes == null ? 0 : 1

  name                = var.name
  schedule_expression = var.schedule_minutes == 1 ? "rate(1 minute)" : "rate(${var.schedule_minutes} minutes)"

  flexible_time_window {
    mode = "OFF"
  }

  target {
    arn      = aws_lambda_function.health.arn
    role_arn = aws_iam_role.schedule[0].arn
    input    = jsonencode({}) # what is configured

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
  for_each = var.schedule_minutes == null ? {} : local.paths

  alarm_name          = "${var.name}: ${each.key} not serving"
  alarm_description   = <<-EOT
    ${var.grpc_addr} does not say SERVING about ${each.key}, or the function ${var.name} does not say anything.
    What to do: look into ${local.console}. The latest warning has the phase, the cause and every attempt. Without any line the schedule or the function has stopped: see its metrics Invocations and Errors.
    More: ${local.manual}.
  EOT
  namespace           = "GrpcHealth"
  metric_name         = "Up"
  dimensions          = { Function = aws_lambda_function.health.function_name, Service = each.key }
  statistic           = "Minimum"
  comparison_operator = "LessThanThreshold"
  threshold           = 1
  period              = 60 * var.schedule_minutes
  evaluation_periods  = 3
  datapoints_to_alarm = 2
  treat_missing_data  = "breaching"
  alarm_actions       = [aws_sns_topic.alarms[data.aws_region.current.region].arn]
  ok_actions          = [aws_sns_topic.alarms[data.aws_region.current.region].arn]
}

# The upstream has one certificate whatever the service, so one alarm does, on the checks of one service: the schedule and Route 53 ask
# for each. Where no value comes, the state stays: the alarm above is for that.
resource "aws_cloudwatch_metric_alarm" "certificate" {
  count = local.tls && var.certificate_days != null ? 1 : 0

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
