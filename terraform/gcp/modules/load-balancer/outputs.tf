output "ip_address" {
  description = "The address for the domain's A record."
  value       = google_compute_global_address.domain.address
}
