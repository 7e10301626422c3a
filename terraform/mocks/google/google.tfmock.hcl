# What the real provider would give back, in the form that other resources take.

mock_data "google_project" {
  defaults = {
    number = "123456789012"
  }
}

mock_resource "google_service_account" {
  defaults = {
    email  = "runtime@my-project.iam.gserviceaccount.com"
    member = "serviceAccount:runtime@my-project.iam.gserviceaccount.com"
    name   = "projects/my-project/serviceAccounts/runtime@my-project.iam.gserviceaccount.com"
  }
}

mock_resource "google_cloudfunctions2_function" {
  defaults = {
    service_config = {
      uri = "https://grpc-health-abc123-ew.a.run.app"
    }
  }
}

mock_resource "google_cloud_run_v2_service" {
  defaults = {
    uri = "https://grpc-health-abc123-ew.a.run.app"
  }
}

mock_resource "google_secret_manager_secret" {
  defaults = {
    id = "projects/my-project/secrets/grpc-health-metrics-sidecar"
  }
}

mock_resource "google_secret_manager_secret_version" {
  defaults = {
    version = "7"
  }
}

mock_resource "google_monitoring_uptime_check_config" {
  defaults = {
    uptime_check_id = "grpc-health-abc"
  }
}

mock_resource "google_monitoring_notification_channel" {
  defaults = {
    name = "projects/my-project/notificationChannels/1"
  }
}

mock_resource "google_compute_global_address" {
  defaults = {
    id      = "projects/my-project/global/addresses/grpc-health-domain"
    address = "203.0.113.1"
  }
}

mock_resource "google_compute_region_network_endpoint_group" {
  defaults = {
    id = "projects/my-project/regions/europe-west1/networkEndpointGroups/grpc-health-service"
  }
}

mock_resource "google_compute_backend_service" {
  defaults = {
    id = "projects/my-project/global/backendServices/grpc-health-service"
  }
}

mock_resource "google_compute_url_map" {
  defaults = {
    id = "projects/my-project/global/urlMaps/grpc-health-service"
  }
}

mock_resource "google_compute_managed_ssl_certificate" {
  defaults = {
    id = "projects/my-project/global/sslCertificates/grpc-health-domain"
  }
}

mock_resource "google_network_security_server_tls_policy" {
  defaults = {
    id = "projects/my-project/locations/global/serverTlsPolicies/grpc-health-mtls"
  }
}

mock_resource "google_compute_target_https_proxy" {
  defaults = {
    id = "projects/my-project/global/targetHttpsProxies/grpc-health-mtls"
  }
}
