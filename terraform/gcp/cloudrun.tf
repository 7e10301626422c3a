resource "google_cloud_run_v2_service" "proxy" {
  count = local.from_source ? 0 : 1

  project             = var.project_id
  location            = var.region
  name                = var.name
  description         = "Answers with the health of ${local.many ? "${length(var.targets)} gRPC servers" : "the gRPC server ${var.grpc_addr}"}"
  deletion_protection = coalesce(var.deletion_protection, true)
  # The checkers come from outside; IAM decides whom the service answers.
  ingress          = "INGRESS_TRAFFIC_ALL"
  custom_audiences = [for balancer in var.load_balancer[*] : "https://${balancer.domain}"]

  template {
    service_account                  = google_service_account.runtime.email
    timeout                          = "${ceil(local.budget + 1)}s" # longer than any check
    max_instance_request_concurrency = var.concurrency

    scaling {
      min_instance_count = var.min_instances
      max_instance_count = var.max_instances
    }

    dynamic "vpc_access" {
      for_each = var.vpc[*]
      content {
        egress = vpc_access.value.all_traffic ? "ALL_TRAFFIC" : "PRIVATE_RANGES_ONLY"
        network_interfaces {
          network    = vpc_access.value.network
          subnetwork = vpc_access.value.subnetwork
          tags       = vpc_access.value.tags
        }
      }
    }

    containers {
      name  = "proxy"
      image = var.image

      ports {
        # The name makes it HTTP/2 without TLS, which the proxy speaks on the same port
        # (https://docs.cloud.google.com/run/docs/configuring/http2). Probes stay HTTP/1.1.
        name           = var.http2 ? "h2c" : "http1"
        container_port = 8080
      }

      resources {
        limits = { cpu = "1", memory = "512Mi" }
        # CPU for requests only, but the sidecar works between them:
        # https://cloud.google.com/run/docs/monitoring-managed-prometheus-sidecar
        cpu_idle          = !var.metrics_sidecar
        startup_cpu_boost = true
      }

      dynamic "env" {
        for_each = local.environment
        content {
          name  = env.key
          value = env.value
        }
      }

      # Probes ask whether the process is up, never the upstream: a sick one must not restart the proxy.
      startup_probe {
        period_seconds    = 1
        failure_threshold = 30
        http_get {
          path = "/livez"
        }
      }

      # Probes are billed, so once a minute: https://cloud.google.com/run/docs/configuring/healthchecks
      liveness_probe {
        period_seconds    = 60
        failure_threshold = 3
        http_get {
          path = "/livez"
        }
      }

      dynamic "volume_mounts" {
        for_each = local.mounts
        content {
          name       = volume_mounts.key
          mount_path = "/secrets/${volume_mounts.key}"
        }
      }
    }

    dynamic "volumes" {
      for_each = local.mounts
      content {
        name = volumes.key
        secret {
          secret = volumes.value.secret
          items {
            version = volumes.value.version
            path    = local.mounted_file
          }
        }
      }
    }

    dynamic "containers" {
      for_each = google_secret_manager_secret_version.metrics_sidecar
      content {
        name       = "metrics"
        image      = "us-docker.pkg.dev/cloud-ops-agents-artifacts/cloud-run-gmp-sidecar/cloud-run-gmp-sidecar:1.2.0"
        depends_on = ["proxy"]

        resources {
          limits   = { cpu = "1", memory = "512Mi" }
          cpu_idle = false
        }

        volume_mounts {
          name       = "metrics-sidecar"
          mount_path = "/etc/rungmp"
        }
      }
    }

    dynamic "volumes" {
      for_each = google_secret_manager_secret_version.metrics_sidecar
      content {
        name = "metrics-sidecar"
        secret {
          secret = google_secret_manager_secret.metrics_sidecar[0].secret_id
          items {
            version = volumes.value.version # a change deploys it
            path    = "config.yaml"
          }
        }
      }
    }
  }

  # A deployment fails where the secrets cannot be read.
  depends_on = [
    google_secret_manager_secret_iam_member.runtime,
    google_secret_manager_secret_iam_member.metrics_sidecar,
  ]
}
