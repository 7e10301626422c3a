# A global external Application Load Balancer that wants client certificates, in front of Cloud Run:
# https://cloud.google.com/load-balancing/docs/https/setting-up-mtls-ccm

resource "google_certificate_manager_trust_config" "clients" {
  project  = var.project_id
  location = "global"
  name     = "${var.name}-clients"

  trust_stores {
    dynamic "trust_anchors" {
      for_each = var.client_cas
      content {
        pem_certificate = trust_anchors.value
      }
    }
  }
}

resource "google_network_security_server_tls_policy" "mtls" {
  project    = var.project_id
  location   = "global"
  name       = "${var.name}-mtls"
  allow_open = false

  mtls_policy {
    # A client without a certificate of these CAs gets no connection.
    client_validation_mode = "REJECT_INVALID"
    # With the project's number, as the API gives it back: with the ID every plan would show a change.
    client_validation_trust_config = "projects/${var.project_number}/locations/global/trustConfigs/${google_certificate_manager_trust_config.clients.name}"
  }
}

resource "google_compute_region_network_endpoint_group" "service" {
  project               = var.project_id
  region                = var.region
  name                  = "${var.name}-service"
  network_endpoint_type = "SERVERLESS"

  cloud_run {
    service = var.service
  }
}

resource "google_compute_backend_service" "service" {
  project               = var.project_id
  name                  = "${var.name}-service"
  load_balancing_scheme = "EXTERNAL_MANAGED"

  backend {
    group = google_compute_region_network_endpoint_group.service.id
  }
}

resource "google_compute_url_map" "service" {
  project         = var.project_id
  name            = "${var.name}-service"
  default_service = google_compute_backend_service.service.id
}

# Another domain is another certificate, of another name: the proxy uses the old one until it has the new one.
resource "google_compute_managed_ssl_certificate" "domain" {
  project = var.project_id
  name    = "${var.name}-domain-${substr(sha1(var.domain), 0, 8)}"

  managed {
    domains = [var.domain]
  }

  lifecycle {
    create_before_destroy = true
  }
}

resource "google_compute_target_https_proxy" "mtls" {
  project           = var.project_id
  name              = "${var.name}-mtls"
  url_map           = google_compute_url_map.service.id
  ssl_certificates  = [google_compute_managed_ssl_certificate.domain.id]
  server_tls_policy = google_network_security_server_tls_policy.mtls.id
}

resource "google_compute_global_address" "domain" {
  project = var.project_id
  name    = "${var.name}-domain"
}

resource "google_compute_global_forwarding_rule" "https" {
  project               = var.project_id
  name                  = "${var.name}-https"
  load_balancing_scheme = "EXTERNAL_MANAGED"
  port_range            = "443"
  ip_address            = google_compute_global_address.domain.id
  target                = google_compute_target_https_proxy.mtls.id
}
