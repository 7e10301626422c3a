output "uri" {
  description = "The function's URL; callers send an ID token for it as audience."
  value       = local.uri
}

output "service_account_email" {
  description = "Who the function is: what it may reach is granted to this account."
  value       = google_service_account.runtime.email
}

output "uptime_check_ids" {
  description = "The uptime checks' IDs, by the name of the service."
  value       = { for service, check in try(module.uptime[0].checks, {}) : service => check.uptime_check_id }
}
