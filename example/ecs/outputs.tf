output "dns_name" {
  description = "The load balancer's name, for a DNS record of the certificate's name."
  value       = aws_lb.balancer.dns_name
}

output "target_group_arn" {
  description = "The target group, for aws elbv2 describe-target-health."
  value       = aws_lb_target_group.grpc.arn
}

output "task_security_group_id" {
  description = "The tasks' security group, for what else the server connects to."
  value       = aws_security_group.task.id
}

output "log_group" {
  description = "The log of both containers."
  value       = aws_cloudwatch_log_group.task.name
}
