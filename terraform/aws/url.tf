resource "aws_lambda_function_url" "health" {
  count = var.function_url == null ? 0 : 1

  function_name      = aws_lambda_function.health.function_name
  authorization_type = var.function_url
  invoke_mode        = "BUFFERED" # the program's answers are whole
}

# A public URL needs both, whatever its age; accounts with older ones had until November 2026:
# https://docs.aws.amazon.com/lambda/latest/dg/urls-auth.html
resource "aws_lambda_permission" "url" {
  count = local.public ? 1 : 0

  function_name          = aws_lambda_function.health.function_name
  principal              = "*"
  action                 = "lambda:InvokeFunctionUrl"
  function_url_auth_type = "NONE"
}

resource "aws_lambda_permission" "url_invoke" {
  count = local.public ? 1 : 0

  function_name            = aws_lambda_function.health.function_name
  principal                = "*"
  action                   = "lambda:InvokeFunction"
  invoked_via_function_url = true
}

resource "aws_route53_health_check" "service" {
  for_each = var.route53 == null ? {} : local.queries

  type          = "HTTPS_STR_MATCH"
  fqdn          = split("/", aws_lambda_function_url.health[0].function_url)[2]
  port          = 443
  enable_sni    = true
  resource_path = each.value
  # With its quotes: NOT_SERVING ends in SERVING, too.
  search_string     = "\"status\":\"SERVING\""
  failure_threshold = 3
  request_interval  = var.route53.interval
  regions           = length(var.route53.regions) == 0 ? null : var.route53.regions
  tags              = { Name = "${local.name_anywhere}: ${each.key}" }
}

# Route 53 has its metrics in us-east-1 alone:
# https://docs.aws.amazon.com/Route53/latest/DeveloperGuide/monitoring-cloudwatch.html
resource "aws_cloudwatch_metric_alarm" "route53" {
  for_each = aws_route53_health_check.service

  region              = "us-east-1"
  alarm_name          = "${local.name_anywhere}: Route 53 sees ${each.key} not serving"
  alarm_description   = <<-EOT
    Route 53 has no SERVING about ${each.key} from ${local.upstream}, by way of the function ${var.name}.
    What to do: the health check's Last failure reason says whether the function answered. If it did, look into ${local.console}: the latest warning has the phase, the cause and every attempt. If it did not, see the function's metrics Throttles and Errors.
    More: ${local.manual}.
  EOT
  namespace           = "AWS/Route53"
  metric_name         = "HealthCheckStatus"
  dimensions          = { HealthCheckId = each.value.id }
  statistic           = "Minimum"
  comparison_operator = "LessThanThreshold"
  threshold           = 1
  period              = 60
  evaluation_periods  = 1
  treat_missing_data  = "breaching"
  alarm_actions       = [aws_sns_topic.alarms["us-east-1"].arn]
  ok_actions          = [aws_sns_topic.alarms["us-east-1"].arn]
}
