output "function_name" {
  description = "The function's name, for aws lambda invoke."
  value       = aws_lambda_function.health.function_name
}

output "function_arn" {
  description = "The function's ARN, for what else invokes it."
  value       = aws_lambda_function.health.arn
}

output "function_url" {
  description = "The function's URL; null without one."
  value       = try(aws_lambda_function_url.health[0].function_url, null)
}

output "role_arn" {
  description = "Who the function is, for policies of secrets and keys elsewhere."
  value       = aws_iam_role.function.arn
}

output "health_check_ids" {
  description = "The health checks of Route 53, by the name of the service, target or group, for DNS records."
  value       = { for service, check in aws_route53_health_check.service : service => check.id }
}

output "alarm_topics" {
  description = "The SNS topics that alarms are sent to, by region."
  value       = { for region, topic in aws_sns_topic.alarms : region => topic.arn }
}
