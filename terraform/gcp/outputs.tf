output "uri" {
  description = "The deployment's URL; callers send an ID token with this audience."
  value       = local.uri
}

output "service_account_email" {
  description = "The account that the program runs as: grant it what the program may reach."
  value       = google_service_account.runtime.email
}

output "uptime_check_ids" {
  description = "The IDs of the uptime checks, by the name of the service, target or group."
  value       = { for service, check in try(module.uptime[0].checks, {}) : service => check.uptime_check_id }
}

output "load_balancer_ip" {
  description = "The load balancer's address, for the domain's A record; null without one."
  value       = try(module.load_balancer[0].ip_address, null)
}
