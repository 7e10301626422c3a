mock_provider "google" {
  source = "../../../mocks/google"
}

variables {
  project_id     = "my-project"
  project_number = "123456789012"
  region         = "europe-west1"
  name           = "grpc-health"
  service        = "grpc-health"
  domain         = "health.example.com"
  client_cas     = ["first", "second"]
}

run "mtls" {
  assert {
    condition     = google_network_security_server_tls_policy.mtls.mtls_policy[0].client_validation_mode == "REJECT_INVALID"
    error_message = "The other mode lets clients without a certificate in, and leaves it to the backend to refuse them."
  }
  assert {
    condition     = google_network_security_server_tls_policy.mtls.mtls_policy[0].client_validation_trust_config == "projects/123456789012/locations/global/trustConfigs/grpc-health-clients"
    error_message = "The API names the trust config with the project's number: another form shows a change in every plan."
  }
  assert {
    condition     = !google_network_security_server_tls_policy.mtls.allow_open
    error_message = "External load balancers refuse a policy that allows plain text."
  }
  assert {
    condition     = alltrue([for location in [google_network_security_server_tls_policy.mtls.location, google_certificate_manager_trust_config.clients.location] : location == "global"])
    error_message = "A global load balancer takes global policies and trust configs only."
  }
  assert {
    condition     = [for anchor in google_certificate_manager_trust_config.clients.trust_stores[0].trust_anchors : anchor.pem_certificate] == ["first", "second"]
    error_message = "A client certificate counts when one of these CAs is behind it."
  }
  assert {
    condition     = google_compute_target_https_proxy.mtls.server_tls_policy == google_network_security_server_tls_policy.mtls.id
    error_message = "Without the policy at the proxy no client certificate is asked for."
  }
  assert {
    condition     = google_compute_target_https_proxy.mtls.ssl_certificates == tolist([google_compute_managed_ssl_certificate.domain.id]) && google_compute_managed_ssl_certificate.domain.managed[0].domains == tolist(["health.example.com"])
    error_message = "The proxy shows a certificate for the domain."
  }
  assert {
    condition     = google_compute_managed_ssl_certificate.domain.name == "grpc-health-domain-${substr(sha1("health.example.com"), 0, 8)}"
    error_message = "A certificate in use cannot be deleted, nor changed: that for another domain has a name of its own, to be there first."
  }
  assert {
    condition     = google_compute_global_forwarding_rule.https.load_balancing_scheme == "EXTERNAL_MANAGED" && google_compute_backend_service.service.load_balancing_scheme == "EXTERNAL_MANAGED"
    error_message = "Rule and backend have one scheme, and the classic one is not for new deployments."
  }
  assert {
    condition     = google_compute_global_forwarding_rule.https.port_range == "443" && google_compute_global_forwarding_rule.https.target == google_compute_target_https_proxy.mtls.id && google_compute_global_forwarding_rule.https.ip_address == google_compute_global_address.domain.id
    error_message = "HTTPS only: there is no plain port beside the one with certificates."
  }
  assert {
    condition     = google_compute_region_network_endpoint_group.service.network_endpoint_type == "SERVERLESS" && google_compute_region_network_endpoint_group.service.cloud_run[0].service == "grpc-health" && google_compute_region_network_endpoint_group.service.region == "europe-west1"
    error_message = "A serverless endpoint group is in the region of its Cloud Run service."
  }
  assert {
    condition     = one(google_compute_backend_service.service.backend).group == google_compute_region_network_endpoint_group.service.id && google_compute_url_map.service.default_service == google_compute_backend_service.service.id && google_compute_target_https_proxy.mtls.url_map == google_compute_url_map.service.id
    error_message = "Every path leads to the service."
  }
  assert {
    condition     = output.ip_address == "203.0.113.1"
    error_message = "The domain's A record needs the address."
  }
  assert {
    condition = alltrue([for resource in [
      google_certificate_manager_trust_config.clients, google_network_security_server_tls_policy.mtls,
      google_compute_region_network_endpoint_group.service, google_compute_backend_service.service,
      google_compute_url_map.service, google_compute_managed_ssl_certificate.domain, google_compute_target_https_proxy.mtls,
      google_compute_global_address.domain, google_compute_global_forwarding_rule.https,
    ] : resource.project == "my-project" && startswith(resource.name, "grpc-health-")])
    error_message = "Everything is in project_id, and named after the deployment."
  }
}
