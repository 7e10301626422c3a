output "checks" {
  description = "The uptime checks, by the name of the service."
  value       = google_monitoring_uptime_check_config.service
}

output "alerts" {
  description = "The alert policies: not serving, no results, and a certificate that ends soon (null without one)."
  value = {
    down        = google_monitoring_alert_policy.down
    no_data     = google_monitoring_alert_policy.no_data
    certificate = one(google_monitoring_alert_policy.certificate)
  }
}
