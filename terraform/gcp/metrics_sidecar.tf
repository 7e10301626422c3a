locals {
  metrics_port = 9000
}

# The sidecar of Managed Service for Prometheus takes its configuration from a secret, though it holds none:
# https://cloud.google.com/run/docs/monitoring-managed-prometheus-sidecar
resource "google_secret_manager_secret" "metrics_sidecar" {
  count = var.metrics_sidecar ? 1 : 0

  project   = var.project_id
  secret_id = "${var.name}-metrics-sidecar"
  replication {
    auto {}
  }
}

resource "google_secret_manager_secret_version" "metrics_sidecar" {
  count = var.metrics_sidecar ? 1 : 0

  secret = google_secret_manager_secret.metrics_sidecar[0].id
  secret_data = yamlencode({
    apiVersion = "monitoring.googleapis.com/v1beta"
    kind       = "RunMonitoring"
    metadata   = { name = var.name }
    spec = {
      endpoints = [{ port = local.metrics_port, path = "/metrics", interval = "30s" }]
    }
  })
}

resource "google_secret_manager_secret_iam_member" "metrics_sidecar" {
  count = var.metrics_sidecar ? 1 : 0

  project   = var.project_id
  secret_id = google_secret_manager_secret.metrics_sidecar[0].secret_id
  role      = "roles/secretmanager.secretAccessor"
  member    = google_service_account.runtime.member
}

resource "google_project_iam_member" "metrics_sidecar" {
  for_each = toset(var.metrics_sidecar ? ["roles/monitoring.metricWriter", "roles/logging.logWriter"] : [])

  project = var.project_id
  role    = each.key
  member  = google_service_account.runtime.member
}
