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

  name = "${var.name}-schedule"
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
  alarm_description   = "The gRPC server does not say SERVING, or nobody asks it: the log of the function says why."
  namespace           = "GrpcHealth"
  metric_name         = "Up"
  dimensions          = { Service = each.key }
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

data "aws_region" "current" {}

# An alarm tells a topic of its own region.
resource "aws_sns_topic" "alarms" {
  for_each = toset(concat([data.aws_region.current.region], var.route53 == null ? [] : ["us-east-1"]))

  region = each.key
  name   = "${var.name}-alarms"
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
